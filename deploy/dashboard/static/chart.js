// uPlot in the page's clothes: sizes itself, follows the theme, says where the cursor is.

import { number } from "/static/words.js";

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const DASHES = { solid: [], dashed: [7, 4], dotted: [2, 3], mixed: [9, 3, 2, 3] };
const CURSOR = { drag: { x: false, y: false }, points: { size: 7 } };
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

// A line of a legend: the same stroke as in the chart, and its name.
export function legend(host, entries) {
  host.replaceChildren(
    ...entries.map(({ text, line, dash = "solid", band, mark, fill }) => {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("width", "26");
      svg.setAttribute("height", "12");
      svg.setAttribute("aria-hidden", "true");
      const draw = (tag, attributes) => {
        const node = document.createElementNS(svg.namespaceURI, tag);
        for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
        svg.append(node);
      };
      if (band) draw("rect", { width: 26, height: 12, rx: 2, fill: `var(--${band})` });
      if (line) draw("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: `var(--${line})`, "stroke-width": 2, "stroke-dasharray": DASHES[dash].join(" ") });
      if (mark) draw("path", { d: mark, fill: `var(--${fill})` });
      const entry = document.createElement("span");
      entry.append(svg, text);
      return entry;
    }),
  );
}

export const line = (label, stroke, { dash = "solid", width = 2, points = false, ...rest } = {}) => ({
  label,
  stroke: colour(stroke),
  width,
  dash: DASHES[dash],
  spanGaps: true,
  points: points ? { show: true, size: 6, fill: colour(stroke), stroke: colour(stroke) } : { show: false },
  ...rest,
});

export const edge = (label) => ({ label, stroke: "transparent", width: 0, spanGaps: true, points: { show: false } });

export const axis = (rest = {}) => ({
  stroke: colour("muted"),
  font: FONT,
  grid: { stroke: colour("grid"), width: 1 },
  ticks: { show: false },
  gap: 6,
  ...rest,
});

export const values = (write = number) => (_, splits) => splits.map((split) => (split === null ? "" : write(split)));

// What lies behind and over the lines, in the chart's own units; `now()` is asked at every draw:
// {shade: {to}, verticals: [{at, stroke, text}], horizontals: [same], ticks: {at: [], fill}}.
export function marks(now) {
  const across = (u, at) => Math.round(u.valToPos(at, "x", true));
  const inside = (u, at) => at >= u.scales.x.min && at <= u.scales.x.max;
  const label = (u, text, x, y, align) => {
    u.ctx.font = FONT.replace("12px", `${12 * devicePixelRatio}px`);
    u.ctx.textAlign = align;
    u.ctx.save();
    u.ctx.strokeStyle = colour("card"); // a rim, so that a line behind a word does not cross it out
    u.ctx.lineWidth = 4 * devicePixelRatio;
    u.ctx.lineJoin = "round";
    u.ctx.setLineDash([]);
    u.ctx.strokeText(text, x, y);
    u.ctx.fillText(text, x, y);
    u.ctx.restore();
  };
  const behind = (u) => {
    const { ctx, bbox } = u;
    const { shade } = now();
    if (!shade) return;
    const until = Math.min(across(u, shade.to), bbox.left + bbox.width);
    ctx.save();
    ctx.fillStyle = colour("seen");
    ctx.fillRect(bbox.left, bbox.top, Math.max(0, until - bbox.left), bbox.height);
    ctx.restore();
  };
  const over = (u) => {
    const { ctx, bbox } = u;
    const { verticals = [], horizontals = [], ticks } = now();
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    for (const { at, stroke, text } of verticals.filter((one) => inside(u, one.at))) {
      const x = across(u, at) + 0.5;
      ctx.strokeStyle = ctx.fillStyle = colour(stroke);
      ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const left = x > bbox.left + 0.7 * bbox.width;
      if (text) label(u, text, x + (left ? -5 : 5) * devicePixelRatio, bbox.top + 12 * devicePixelRatio, left ? "right" : "left");
    }
    for (const { at, stroke, text } of horizontals.filter((one) => one.at > u.scales.y.min && one.at < u.scales.y.max)) {
      const y = Math.round(u.valToPos(at, "y", true)) + 0.5;
      ctx.strokeStyle = ctx.fillStyle = colour(stroke);
      ctx.setLineDash([]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      if (text) label(u, text, bbox.left + bbox.width - 4 * devicePixelRatio, y - 7 * devicePixelRatio, "right");
    }
    if (ticks) {
      ctx.fillStyle = colour(ticks.fill);
      for (const at of ticks.at.filter((one) => inside(u, one))) {
        const [x, y, half] = [across(u, at), bbox.top + bbox.height, 4 * devicePixelRatio];
        ctx.beginPath();
        ctx.moveTo(x - half, y);
        ctx.lineTo(x + half, y);
        ctx.lineTo(x, y - 2 * half);
        ctx.fill();
      }
    }
    ctx.restore();
  };
  return { hooks: { drawClear: [behind], draw: [over] } };
}

// One chart in one element. `show(options, data, words)` draws it; a new shape makes it anew.
export class Chart {
  constructor(host) {
    this.host = host;
    this.plot = null;
    host.setAttribute("role", "img");
    this.size = new ResizeObserver(() => this.#size());
    this.size.observe(host);
    this.listening = new AbortController();
    document.addEventListener("theme", () => this.again?.(), this.listening);
  }

  // options: () => uPlot options without size, asked again when the theme changes.
  // shape: changes when lines come or go; the same shape only takes new data.
  show({ options, data, words, shape }) {
    this.again = () => this.#make(options, data);
    this.host.setAttribute("aria-label", words);
    if (this.plot && shape !== undefined && shape === this.shape) this.plot.setData(data);
    else this.again();
    this.shape = shape;
  }

  clear() {
    this.plot?.destroy();
    this.plot = this.again = null;
    this.shape = undefined;
  }

  // Its element goes.
  close() {
    this.clear();
    this.size.disconnect();
    this.listening.abort();
  }

  #make(options, data) {
    this.plot?.destroy();
    const { clientWidth: width, clientHeight: height } = this.host;
    const common = { width: Math.max(width, 40), height: Math.max(height, 40), legend: { show: false }, cursor: CURSOR };
    this.plot = new uPlot({ ...common, ...options() }, data, this.host);
  }

  #size() {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (this.plot && width && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }
}
