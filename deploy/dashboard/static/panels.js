// Replay, time shares and the health of the world model: figures under plain names.

import { facts, find, keyed, make, say, setAttribute } from "/static/dom.js";
import { bytes, count, duration, known, number, percent } from "/static/words.js";

// A bar with its limit. ratio: of the whole bar; mark: where the limit is drawn, or null.
function gauge({ name, text, ratio, mark = null, bad = false }) {
  const width = `${100 * Math.min(1, Math.max(0, ratio ?? 0))}%`;
  return { name, text, width, mark: mark === null ? null : `${100 * mark}%`, bad };
}

function gauges(host, rows) {
  keyed(host, rows, {
    key: (row) => row.name,
    create: (row) =>
      make("div", { class: "gauge" }, make("p", {}, make("span", {}, row.name), make("b")), make("div", { class: "track" }, make("div"), make("i"))),
    fill: (node, row) => {
      say(find("b", node), row.text);
      setAttribute(node, "data-tone", row.bad ? "bad" : "good");
      find(".track > div", node).style.width = row.width;
      const mark = find("i", node);
      mark.hidden = row.mark === null;
      if (row.mark !== null) mark.style.left = row.mark;
    },
  });
}

// host's parts, made once: a list of gauges and a list of figures.
function parts(host) {
  if (!host.children.length) {
    host.className = "stackable";
    host.append(make("p", { class: "alarm", hidden: true }), make("div", { class: "stackable" }), make("dl", { class: "facts" }));
  }
  return [...host.children];
}

export function showReplay(replay) {
  const [, bars, list] = parts(find("#replay"));
  const { steps, capacity_steps, fill, ratio, ratio_target, log_bytes, log_budget_bytes, segment_bytes, arena_bytes, age_s } = replay ?? {};
  const share = known(log_bytes) && log_budget_bytes ? log_bytes / log_budget_bytes : null;
  const most = 1.5 * (ratio_target || ratio || 1);
  const of = known(capacity_steps) ? ` of ${count(capacity_steps)}` : "";
  gauges(bars, [
    gauge({ name: "Steps held", text: `${count(steps)}${of}`, ratio: fill }),
    gauge({ name: "Replay ratio (line: wished)", text: `${number(ratio)} of ${number(ratio_target)}`, ratio: (ratio ?? 0) / most, mark: known(ratio_target) ? ratio_target / most : null }),
    gauge({ name: "Log in Redis", text: known(log_budget_bytes) ? `${bytes(log_bytes)} of ${bytes(log_budget_bytes)}` : bytes(log_bytes), ratio: share, bad: share > 0.9 }),
  ]);
  facts(list, [["Arena", bytes(arena_bytes)], ["Segments on disk", bytes(segment_bytes)], ...(known(age_s) ? [["Mean age of a Step", duration(age_s)]] : [])]);
}

export function showSlow(slow, ended) {
  const { text, actors, learner } = slow ?? {};
  const measured = actors?.length || learner?.length;
  say(find("#slow-text"), text || (measured ? "" : ended ? "Only while it runs." : "Not measured yet."));
  const host = find("#slow");
  host.className = "shares";
  const rows = [["What the actors do", actors], ["What the learner does", learner]].filter(([, shares]) => shares?.length);
  keyed(host, rows, {
    key: ([name]) => name,
    create: ([name]) => make("div", { class: "share" }, make("h3", {}, name), make("div", { class: "stack", "aria-hidden": "true" }), make("ul")),
    fill: (node, [, shares]) => {
      keyed(find(".stack", node), shares, {
        key: (one) => one.activity,
        create: () => make("div"),
        fill: (part, { activity, share }) => {
          part.style.flexGrow = share ?? 0;
          paint(part, activity);
        },
      });
      keyed(find("ul", node), shares, {
        key: (one) => one.activity,
        create: (one) => make("li", {}, make("i"), make("span", {}, ACTIVITIES[one.activity]?.[1] ?? one.activity), make("b")),
        fill: (part, { activity, share }) => {
          say(find("b", part), percent(share));
          paint(find("i", part), activity);
        },
      });
    },
  });
}

// Activity -> its colour, always the same one, and its words. Idle time is hatched.
const ACTIVITIES = {
  env: [1, "environment"], policy: [2, "policy"], write: [3, "encoding, sending"],
  world_model: [1, "world model"], dream: [5, "dream"], behavior: [2, "behavior"], backward: [6, "gradients"],
  optimizer: [7, "optimizer"], sample: [3, "sample"], insert: [4, "storing Steps"], publish: [9, "publish"],
  checkpoint: [10, "checkpoint"], report: [11, "reports"], starting: [12, "starting"], wait: ["wait", "waiting"],
};

function paint(node, activity) {
  const [tint] = ACTIVITIES[activity] ?? ["other"];
  setAttribute(node, "data-tint", tint);
}

export function showHealth(health) {
  const [alarm, bars, list] = parts(find("#health"));
  const { kl_nats, reconstruction, gap_ratio, gap_alarm, dreamed_return, real_return } = health ?? {};
  const { real_steps, real_s, resets, imagined_steps, imagined_per_real } = health ?? {};
  alarm.hidden = !gap_alarm;
  say(alarm, "The dream is no guide now: what it promises and what happened differ by more than half.");
  const said = known(gap_ratio) ? `${percent(gap_ratio)}${gap_alarm ? ", too wide" : ""}` : "not measured yet";
  gauges(bars, [gauge({ name: "Gap between dream and reality (line: alarm)", text: said, ratio: gap_ratio, mark: 0.5, bad: gap_alarm })]);
  facts(list, [
    ["Dreamed return", number(dreamed_return), "same starts"],
    ["Real return", number(real_return), "same starts"],
    ["Surprise (KL)", known(kl_nats) ? `${number(kl_nats)} nats` : number(null)],
    ["Reconstruction", number(reconstruction), "loss, nats"],
    ["Real Steps", count(real_steps), known(real_s) ? `${duration(real_s)} of training` : ""],
    ["Resets", count(resets)],
    ["Imagined Steps", count(imagined_steps), known(imagined_per_real) ? `${number(imagined_per_real)} for each real one` : ""],
  ]);
}
