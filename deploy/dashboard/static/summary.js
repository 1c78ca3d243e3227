// The first look: which run, how far, is it learning, is it healthy.

import { facts, find, options, say, setAttribute } from "/static/dom.js";
import { count, duration, number, percent, UNKNOWN } from "/static/words.js";

const LEARNING = { yes: ["Yes", "good"], no: ["No", "bad"], early: ["Too early to say", "unknown"], unknown: ["Not known", "unknown"] };
const STALE_S = 8;
const HEALTHY = { yes: ["Yes", "good"], warn: ["Look here", "warn"], no: ["No", "bad"] };

export function showRuns(runs, chosen) {
  const name = (run) => `${run.name}${run.alive ? "" : ` (${run.phase ?? "ended"})`}`;
  options(find("#run"), runs.map((run) => [run.id, name(run)]), chosen);
}

export function showSummary({ run, progress, verdict }) {
  say(find("#phase"), run.phase ?? UNKNOWN);
  find("#phase").title = run.phase ?? "";
  say(find("#run-title"), run.name);
  say(find("#run-facts"), [run.env, run.preset && `preset ${run.preset}`, run.size && `size ${run.size}`].filter(Boolean).join(" \u00b7 "));
  document.title = `${run.name} \u00b7 dreamfleet`;
  say(find("#learning h2"), run.ended ? "Did it learn?" : "Is it learning?");
  say(find("#healthy h2"), run.ended ? "Did it end well?" : "Is it healthy?");
  showVerdict(find("#learning"), LEARNING[verdict?.learning] ?? LEARNING.unknown, verdict?.learning_text);
  showVerdict(find("#healthy"), HEALTHY[verdict?.healthy] ?? ["Not known", "unknown"], verdict?.healthy_text);
  if (progress) showProgress(progress, run);
}

function showVerdict(node, [word, tone], sentence) {
  setAttribute(node, "data-tone", tone);
  say(find(".word", node), word);
  say(find(".sentence", node), sentence ?? "");
}

function showProgress({ frames, frames_limit, updates, elapsed_s, frames_per_s, updates_per_s, eta_s }, run) {
  const ratio = frames_limit ? Math.min(1, (frames ?? 0) / frames_limit) : null;
  const of = frames_limit ? ` of ${count(frames_limit)} frames, ${percent(ratio)}` : " frames, no limit";
  say(find("#progress-text"), `${count(frames)}${of}`);
  say(find("#eta"), run.ended ? "ended" : !(eta_s >= 1) ? "" : `about ${duration(eta_s)} to go`);
  const track = find("#progress");
  track.hidden = ratio === null;
  setAttribute(track, "aria-valuenow", Math.round(100 * (ratio ?? 0)));
  track.firstElementChild.style.width = `${100 * (ratio ?? 0)}%`;
  facts(find("#progress-facts"), [
    ...(run.ended ? [] : [["Speed", `${number(frames_per_s)} frames/s`, `${number(updates_per_s)} updates/s`]]),
    ["Updates", count(updates)],
    [run.ended ? "Trained for" : "Training for", duration(elapsed_s)],
  ]);
}

// How fresh all this is. age_s: since the server last heard of the run; null before anything came.
export function showLink({ age_s, ended }) {
  const link = find("#link");
  const stale = !ended && age_s !== null && age_s > STALE_S;
  const freshness = age_s === null ? "waiting" : ended ? "ended" : stale ? "stale" : "live";
  const words = { waiting: "connecting", ended: "ended", live: "live", stale: `last heard ${duration(age_s)} ago` };
  setAttribute(link, "data-link", freshness);
  say(find("#link-text"), words[freshness]);
  document.body.classList.toggle("stale", stale);
}
