// The dream beside reality: one small chart a dimension, or a film; from the same start and actions.

import { ask } from "/static/api.js";
import { axis, Chart, colour, edge, legend, line, marks, values } from "/static/chart.js";
import { find, keyed, make, options, say } from "/static/dom.js";
import { showError } from "/static/error.js";
import { Film } from "/static/film.js";
import { clock, count, duration, number } from "/static/words.js";

const FIRST = 12; // charts shown before "show all"; a humanoid has 67 dimensions
const PART = "M12 0h2v3.4h-2zM12 5h2v3h-2zM12 9.6h2v2.4h-2z";

export class DreamView {
  constructor() {
    this.charts = new Map(); // element -> its chart
    this.film = new Film(find("#film"));
    this.all = false;
    this.reset(null);
    find("#dream-update").addEventListener("change", (event) => this.#choose({ update: event.target.value }));
    find("#dream-example").addEventListener("change", (event) => this.#choose({ example: event.target.value }));
    find("#multiples-more").addEventListener("click", () => {
      this.all = !this.all;
      this.#draw();
    });
  }

  reset(run) {
    this.run = run;
    this.dream = null;
    this.chosen = { update: "newest", example: null };
    this.newest = null;
    say(find("#dream-lead"), "No dream yet. The learner makes the first one soon after training begins.");
    this.ticket = {}; // of the newest question; an answer to an older one comes too late
    this.#keep([]);
    this.film.show(null);
    find("#dream-legend").hidden = find("#multiples-more").hidden = true;
    options(find("#dream-update"), []);
    options(find("#dream-example"), []);
    showError(null);
  }

  // The stream says that a new one can be fetched.
  async heard({ update }) {
    if (update === this.newest) return;
    this.newest = update;
    await this.#list();
    if (this.chosen.update === "newest") await this.#fetch();
  }

  #choose(choice) {
    Object.assign(this.chosen, choice);
    this.#fetch();
  }

  async #list() {
    const run = this.run;
    const dreams = await ask("/api/dreams", { run }).catch(() => []);
    if (run !== this.run) return;
    const earlier = dreams.filter((one) => one.update !== this.newest).sort((one, two) => two.update - one.update);
    const rows = earlier.map((one) => [one.update, `update ${count(one.update)}, ${clock(one.time_s)}`]);
    options(find("#dream-update"), [["newest", "newest"], ...rows], this.chosen.update);
  }

  async #fetch() {
    const { run } = this;
    const { update, example } = this.chosen;
    const ticket = (this.ticket = {});
    try {
      const dream = await ask("/api/dream", { run, update: update === "newest" ? null : update, example });
      if (ticket !== this.ticket) return;
      this.dream = dream;
      this.#draw();
    } catch (error) {
      if (ticket === this.ticket) say(find("#dream-lead"), error.message);
    }
  }

  #draw() {
    const { dream } = this;
    if (!dream) return;
    say(find("#dream-lead"), lead(dream));
    const examples = (dream.examples ?? []).map((one, index) => [one, `${index + 1} of ${dream.examples.length}`]);
    options(find("#dream-example"), examples, dream.example);
    const traces = [...(dream.vectors ?? []), ...(dream.reward ? [{ name: "reward", ...dream.reward }] : [])];
    const few = traces.length <= FIRST || this.all;
    const shown = few ? traces : [...traces.slice(0, FIRST - 1), traces.at(-1)]; // the last is the reward
    const more = find("#multiples-more");
    more.hidden = traces.length <= FIRST;
    say(more, this.all ? "Show fewer" : `Show all ${traces.length}`);
    this.#keep(shown);
    find("#multiples").style.setProperty("--columns", columns(shown.length));
    find("#dream-legend").hidden = !traces.length;
    legend(find("#dream-legend"), [
      { text: "reality", line: "ink" },
      { text: "dreamed (mean)", line: "blue", dash: "dashed" },
      { text: "10 to 90 % of the dreams", band: "band" },
      { text: "seen before the dream starts", band: "seen" },
      ...(dream.parting_step ? [{ text: "they part", mark: PART, fill: "red" }] : []),
    ]);
    this.film.show(dream);
    showError(dream);
  }

  // One figure for each trace, and none more.
  #keep(traces) {
    keyed(find("#multiples"), traces, {
      key: (trace) => trace.name,
      create: () => make("figure", { class: "multiple" }, make("figcaption", {}, make("b"), make("span")), make("div", { class: "plot" })),
      fill: (node, trace) => this.#trace(node, trace),
    });
    for (const [host, chart] of this.charts) {
      if (host.isConnected) continue;
      chart.close();
      this.charts.delete(host);
    }
  }

  #trace(node, trace) {
    say(find("b", node), trace.name);
    find("b", node).title = trace.name;
    const host = find(".plot", node);
    if (!this.charts.has(host)) this.charts.set(host, new Chart(host));
    const { context_steps: context, parting_step: parting } = this.dream;
    const steps = trace.real.map((_, index) => index - context + 1);
    const said = find("figcaption span", node);
    const read = (index) => {
      const at = index ?? steps.length - 1;
      const real = `real ${number(trace.real[at])}`;
      say(said, trace.mean[at] === null ? real : `${real}, dreamed ${number(trace.mean[at])}`);
    };
    read(null);
    const verticals = parting ? [{ at: parting, stroke: "red" }] : [];
    this.charts.get(host).show({
      options: () => ({
        scales: { x: { time: false } },
        cursor: { drag: { x: false, y: false }, sync: { key: "dream" }, points: { size: 6 } },
        axes: [
          axis({ size: 22, space: 45, values: values((value) => String(value)), incrs: [1, 5, 10, 20, 50, 100] }),
          axis({ size: 44, space: 24, values: values() }),
        ],
        series: [{}, edge("low"), edge("high"), line("real", "ink"), line("dreamed", "blue", { dash: "dashed" })],
        bands: [{ series: [2, 1], fill: colour("band") }],
        plugins: [marks(() => ({ shade: { to: 0.5 }, verticals }))],
        hooks: { setCursor: [(u) => read(u.cursor.idx)] },
      }),
      data: [steps, trace.low, trace.high, trace.real, trace.mean],
      words: `${trace.name}: reality and the dream over ${steps.length} steps. ${parted(parting)}`,
    });
  }
}

// Charts a row, so that the rows are full if they can be.
const columns = (charts) => (charts <= 4 ? Math.max(charts, 1) : charts % 4 === 0 || charts > 9 || charts === 7 ? 4 : 3);

const parted = (step) => (step ? `They part at step ${step}.` : "They do not part within the horizon.");

function lead({ update, frames, time_s, context_steps, horizon, step_s, parting_step }) {
  const length = step_s ? ` (${duration(horizon * step_s)})` : "";
  const reach = parting_step
    ? `holds for ${parting_step - 1} of ${horizon} steps${length} before it parts from reality`
    : `holds for all ${horizon} steps${length}`;
  return `After ${context_steps} steps of reality it goes on alone, told only the actions: the dream ${reach}. Made at ${clock(time_s)}, after ${count(frames)} frames and ${count(update)} updates.`;
}
