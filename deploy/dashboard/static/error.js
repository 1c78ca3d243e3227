// Open-loop error against the horizon: how far a dream can be trusted, now and earlier.

import { axis, Chart, legend, line, marks, values } from "/static/chart.js";
import { find, say } from "/static/dom.js";
import { count, number, percent } from "/static/words.js";

let chart = null;

export function showError(dream) {
  chart ??= new Chart(find("#error-plot"));
  if (!dream?.error?.model?.length) {
    chart.clear();
    find("#error-legend").replaceChildren();
    say(find("#error-lead"), "Error of the dream against the horizon; it comes with the first dream.");
    say(find("#error-readout"), "");
    return;
  }
  const { model, repeat_last: repeat, earlier } = dream.error;
  const steps = model.map((_, index) => index + 1);
  const lines = [{ name: "this dream", data: model, style: ["blue", {}] }];
  if (earlier) lines.push({ name: `at update ${count(earlier.update)}`, data: earlier.model, style: ["purple", { dash: "dotted" }] });
  if (repeat) lines.push({ name: "repeating what was last seen", data: repeat, style: ["orange", { dash: "dashed", width: 1.5 }] });
  legend(
    find("#error-legend"),
    lines.map(({ name, style: [stroke, { dash }] }) => ({ text: name, line: stroke, dash })),
  );
  say(find("#error-lead"), lead(dream));
  const readout = find("#error-readout");
  const read = (index) => {
    const at = index ?? steps.length - 1;
    say(readout, `Step ${steps[at]}: ${lines.map(({ name, data }) => `${name} ${number(data[at])}`).join(", ")}`);
  };
  read(null);
  const verticals = dream.parting_step ? [{ at: dream.parting_step, stroke: "red", text: "they part" }] : [];
  const horizontals = [{ at: 1, stroke: "muted", text: "as bad as guessing the mean" }];
  chart.show({
    options: () => ({
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(1.1, 1.06 * (high ?? 1))] } },
      axes: [
        axis({ size: 26, label: "steps into the dream", labelSize: 18, labelFont: "12px system-ui, sans-serif", values: values(String), incrs: [1, 5, 10, 20, 50, 100] }),
        axis({ size: 44, values: values() }),
      ],
      series: [{}, ...lines.map(({ name, style }) => line(name, ...style))],
      plugins: [marks(() => ({ verticals, horizontals }))],
      hooks: { setCursor: [(u) => read(u.cursor.idx)] },
    }),
    data: [steps, ...lines.map(({ data }) => data)],
    words: `Open-loop error over ${steps.length} steps: from ${number(model[0])} to ${number(model.at(-1))}.`,
  });
}

function lead({ error: { model, earlier } }) {
  const scale = "1 is as bad as always guessing the mean.";
  if (!earlier?.model?.length) return scale;
  const mean = (list) => list.reduce((sum, one) => sum + one, 0) / list.length;
  const change = mean(model) / mean(earlier.model) - 1;
  if (!Number.isFinite(change)) return scale;
  const words = Math.abs(change) < 0.02 ? "about as large as" : `${percent(Math.abs(change))} ${change < 0 ? "smaller" : "larger"} than`;
  return `${scale} The error is ${words} at update ${count(earlier.update)}.`;
}
