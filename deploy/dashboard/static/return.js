// Return against frames and against wall clock; evaluations with their spread, other runs beside.

import { ask } from "/static/api.js";
import { axis, Chart, colour, edge, legend, line, marks, values } from "/static/chart.js";
import { find, keyed, make, say, setAttribute } from "/static/dom.js";
import { count, duration, known, number } from "/static/words.js";

const OVERLAYS = [["orange", "dashed"], ["purple", "dotted"], ["sky", "mixed"], ["gold", "dashed"]];
const AGAIN_MS = 30000;
const KNOB = "M13 2 L18 11 L8 11 Z";

export class ReturnView {
  constructor() {
    this.chart = new Chart(find("#return-plot"));
    this.axis = "frames";
    this.checked = new Set();
    this.others = new Map();
    for (const button of document.querySelectorAll("[data-axis]")) {
      button.addEventListener("click", () => this.#turn(button.dataset.axis));
    }
    const menu = find("#overlay");
    document.addEventListener("click", (event) => !menu.contains(event.target) && menu.removeAttribute("open"));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.removeAttribute("open");
      find("summary", menu).focus();
    });
    setInterval(() => document.hidden || this.#compare(), AGAIN_MS);
    this.reset(null);
  }

  reset(run) {
    this.run = run;
    this.points = [];
    this.checked.delete(run);
    this.#draw();
  }

  heard({ reset, points }) {
    this.points = reset ? points : this.points.concat(points);
    this.#draw();
  }

  showRuns(runs) {
    const others = runs.filter((run) => run.id !== this.run);
    find("#overlay").hidden = !others.length;
    keyed(find("#overlay-runs"), others, {
      key: (run) => run.id,
      create: (run) => {
        const box = make("input", { type: "checkbox" });
        box.addEventListener("change", () => {
          if (box.checked) this.checked.add(run.id);
          else this.checked.delete(run.id);
          this.#compare();
        });
        return make("label", {}, box, make("span"));
      },
      fill: (node, run) => {
        say(find("span", node), run.name);
        find("input", node).checked = this.checked.has(run.id);
      },
    });
    this.names = new Map(runs.map((run) => [run.id, run.name]));
  }

  #turn(to) {
    this.axis = to;
    for (const button of document.querySelectorAll("[data-axis]")) setAttribute(button, "aria-pressed", button.dataset.axis === to);
    this.#draw();
  }

  async #compare() {
    const wanted = [...this.checked].slice(0, OVERLAYS.length);
    const found = await Promise.all(wanted.map((run) => ask("/api/now", { run }).catch(() => null)));
    this.others = new Map(wanted.map((run, index) => [run, found[index]?.curve?.points ?? []]));
    this.#draw();
  }

  // [x], [y] of the points of one kind, in order, without those that do not know.
  #table(points, kind, ...fields) {
    const x = this.axis === "frames" ? "frames" : "elapsed_s";
    const rows = points.filter((one) => one.kind === kind && known(one[x]) && known(one.mean)).sort((one, two) => one[x] - two[x]);
    const once = rows.filter((one, index) => index + 1 === rows.length || rows[index + 1][x] !== one[x]);
    return [once.map((one) => one[x]), ...fields.map((field) => once.map(field))];
  }

  #draw() {
    const evaluations = this.#table(this.points, "evaluation", mean, low, high);
    const acting = this.#table(this.points, "acting", mean);
    const others = [...this.others].map(([run, points], index) => ({
      name: this.names?.get(run) ?? run,
      style: OVERLAYS[index],
      table: this.#table(points, "evaluation", mean),
    }));
    this.#say(evaluations, acting);
    if (![evaluations, acting, ...others.map((one) => one.table)].some(([x]) => x.length)) {
      this.chart.clear();
      return;
    }
    const x = this.axis === "frames" ? "frames" : "elapsed_s";
    this.saved = this.points.filter((one) => one.kind === "checkpoint" && known(one[x])).map((one) => one[x]);
    const data = uPlot.join([acting, evaluations, ...others.map((one) => one.table)]);
    const writeX = this.axis === "frames" ? count : duration;
    const names = ["acting", "evaluation", null, null, ...others.map((one) => one.name)];
    this.read = (index) => this.#read(index, data, names, writeX);
    this.read(null);
    this.chart.show({
      shape: `${this.axis} ${[...this.others.keys()]}`,
      options: () => ({
        scales: { x: { time: false }, y: { range: (_, least, most) => padded(least, most) } },
        axes: [
          axis({ size: 26, space: 70, label: this.axis === "frames" ? "frames" : "training time", labelSize: 18, labelFont: "12px system-ui, sans-serif", values: values(writeX), ...(this.axis === "frames" ? {} : { incrs: TIMES }) }),
          axis({ size: 52, values: values() }),
        ],
        series: [
          {},
          line("acting", "faint", { width: 1 }),
          line("evaluation", "blue", { points: true }),
          edge("low"),
          edge("high"),
          ...others.map(({ name, style: [stroke, dash] }) => line(name, stroke, { dash })),
        ],
        bands: [{ series: [4, 3], fill: colour("band") }],
        plugins: [marks(() => ({ ticks: { at: this.saved, fill: "green" } }))],
        hooks: { setCursor: [(u) => this.read(u.cursor.idx)] },
      }),
      data,
      words: find("#return-lead").textContent,
    });
    legend(find("#return-legend"), [
      { text: "evaluation, with one deviation", line: "blue", band: "band" },
      { text: "while acting", line: "faint" },
      ...(this.saved.length ? [{ text: "checkpoint", mark: KNOB, fill: "green" }] : []),
      ...others.map(({ name, style: [stroke, dash] }) => ({ text: name, line: stroke, dash })),
    ]);
  }

  #say([x, y], [, acting]) {
    const lead = find("#return-lead");
    if (y.length) {
      const best = Math.max(...y);
      say(lead, `Newest evaluation ${number(y.at(-1))}, best ${number(best)} after ${this.axis === "frames" ? `${count(x[y.indexOf(best)])} frames` : duration(x[y.indexOf(best)])}.`);
    } else say(lead, acting.length ? `No evaluation yet; acting reaches ${number(acting.at(-1))}.` : "No episode has ended yet.");
  }

  #read(index, [x, ...columns], names, write) {
    const at = index ?? x.length - 1;
    const said = columns.map((column, place) => {
      const value = names[place] ? near(x, column, at) : null;
      return known(value) ? `${names[place]} ${number(value)}` : null;
    });
    say(find("#return-readout"), `At ${write(x[at])}${this.axis === "frames" ? " frames" : ""}: ${said.filter(Boolean).join(", ") || "nothing measured"}`);
  }
}

const TIMES = [1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
const NEAR = 0.02; // of the axis: what was measured farther away says nothing of this place

// The value of a column that was measured nearest to x[at], or null if none was near.
function near(x, column, at) {
  const away = (index) => Math.abs(x[index] - x[at]);
  const reach = NEAR * (x.at(-1) - x[0]);
  const rows = x.map((_, index) => index).filter((index) => known(column[index]) && away(index) <= reach);
  return rows.length ? column[rows.reduce((one, two) => (away(two) < away(one) ? two : one))] : null;
}

const mean = (point) => point.mean;
const low = (point) => point.mean - (point.std ?? 0);
const high = (point) => point.mean + (point.std ?? 0);

function padded(least, most) {
  if (!known(least) || !known(most)) return [0, 1];
  const room = 0.06 * (most - least || Math.abs(most) || 1);
  return [least >= 0 && least - room < 0 ? 0 : least - room, most + room];
}
