// The page: what the stream brings goes to the part that shows it.
//
//     Feed -> runs   -> run chooser, overlays
//          -> now    -> summary, fleet, replay, slow, health
//          -> curve  -> return      dream -> dream, error      events -> events

import { address } from "/static/api.js";
import { find, make, say } from "/static/dom.js";
import { DreamView } from "/static/dream.js";
import { EventsView } from "/static/events.js";
import { Feed } from "/static/feed.js";
import { FleetView } from "/static/fleet.js";
import { showHealth, showReplay, showSlow } from "/static/panels.js";
import { ReturnView } from "/static/return.js";
import { showLink, showRuns, showSummary } from "/static/summary.js";

const root = document.documentElement;
const dream = new DreamView();
const returns = new ReturnView();
const events = new EventsView();
const fleet = new FleetView({ failed: (message) => notice("asked", message) });

let chosen = new URLSearchParams(location.search).get("run");
let runs = [];
let now = null;
let skew_s = Infinity; // this clock minus the server's, at least: what arrived fastest tells
let troubles = {};

const heard = {
  runs(list) {
    notice("runs", list.length ? null : "There is no run here yet. Start one with: dreamfleet train");
    const first = !runs.length && list.length && chosen === null && now === null;
    runs = list;
    if (first) feed.open(null); // the server chooses when a stream begins
    showRuns(runs, chosen);
    returns.showRuns(runs);
  },
  now(newest) {
    if (chosen !== null && newest.run.id !== chosen) return;
    if (chosen === null) adopt(newest.run.id);
    now = newest;
    skew_s = Math.min(skew_s, Date.now() / 1000 - now.time_s);
    showSummary(now);
    fleet.show(now.fleet, now.time_s, now.run.ended);
    events.ended(Boolean(now.run.ended));
    showReplay(now.replay);
    showSlow(now.slow, now.run.ended);
    showHealth(now.health);
    showAge();
  },
  curve: (piece) => returns.heard(piece),
  events: (list) => events.heard(list),
  dream: (one) => dream.heard(one),
};

const feed = new Feed({
  heard: (kind, data) => heard[kind](data),
  failed: (message) => notice("feed", message),
  farewell: () => (now?.run.ended ? `The run has ended; see it with: dreamfleet dashboard --run ${now.run.name}` : null),
});

// The server chose the run (none was asked for): from here on this page means that one.
function adopt(run) {
  chosen = run;
  for (const part of [dream, returns, fleet]) part.run = run;
  showRuns(runs, chosen);
  returns.showRuns(runs);
  showDownloads();
}

function open(run) {
  chosen = run;
  now = null;
  troubles = {};
  notice();
  for (const part of [dream, returns, events, fleet]) part.reset(run);
  showReplay(null);
  showSlow(null);
  showHealth(null);
  showDownloads();
  showAge();
  feed.open(run);
}

function showAge() {
  const age_s = now ? Math.max(0, Date.now() / 1000 - skew_s - now.time_s) : null;
  showLink({ age_s, ended: Boolean(now?.run.ended) });
}

// One line at the top of the page for each thing that is not as it should be.
function notice(source, message) {
  if (source) troubles[source] = message;
  const text = Object.values(troubles).filter(Boolean).join(" ");
  say(find("#notice"), text);
  find("#notice").hidden = !text;
}

function showDownloads() {
  const files = [["Curve", "curve.csv", "CSV"], ["Dream", "film.gif", "GIF"], ["Policy", "policy.safetensors", "safetensors"]];
  find("#downloads").replaceChildren(
    ...files.map(([title, file, kind]) => {
      const link = make("a", { class: "button", href: address(`/download/${file}`, { run: chosen }), download: true }, title, make("small", {}, kind));
      return make("li", {}, link);
    }),
  );
}

function themed() {
  const dark = root.dataset.theme === "dark";
  say(find("#theme"), dark ? "Light" : "Dark");
  find("#theme").setAttribute("aria-label", `Use the ${dark ? "light" : "dark"} theme`);
  document.dispatchEvent(new Event("theme"));
}

find("#theme").addEventListener("click", () => {
  const other = root.dataset.theme === "dark" ? "light" : "dark";
  document.dispatchEvent(new CustomEvent("theme-chosen", { detail: other }));
});
new MutationObserver(themed).observe(root, { attributeFilter: ["data-theme"] });
find("#run").addEventListener("change", (event) => {
  history.replaceState(null, "", address("/", { run: event.target.value }));
  open(event.target.value);
});
setInterval(showAge, 1000);
themed();
open(chosen);
