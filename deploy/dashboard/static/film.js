// Real, dreamed and their difference, frame by frame, under one scrubber.

import { make, say, setAttribute } from "/static/dom.js";

const KINDS = [["real", "reality"], ["dreamed", "dreamed"], ["error", "difference"]];
const FRAME_MS = 120;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Film {
  constructor(host) {
    this.host = host;
    this.strips = [];
    this.timer = null;
    this.range = make("input", { type: "range", min: 0, value: 0, "aria-label": "Step of the dream" });
    this.button = make("button", { type: "button" }, "Play");
    this.said = make("span");
    this.reels = make("div", { class: "film" });
    host.append(this.reels, make("div", { class: "scrub" }, this.button, this.range, this.said));
    this.range.addEventListener("input", () => {
      this.#stop();
      this.#frame();
    });
    this.button.addEventListener("click", () => (this.timer ? this.#stop() : this.#play()));
    document.addEventListener("visibilitychange", () => document.hidden && this.#stop());
  }

  // dream: with images, or null. A new dream is shown at the step looked at.
  async show(dream) {
    const images = dream?.images ?? [];
    this.dream = dream;
    this.host.hidden = !images.length;
    if (!images.length) {
      this.#stop();
      return;
    }
    const first = !this.strips.length;
    const loaded = await Promise.all(images.map((image) => reel(image)));
    if (this.dream !== dream) return;
    this.strips = loaded.flat();
    this.reels.replaceChildren(...images.map((image, index) => this.#row(image, loaded[index], images.length > 1)));
    setAttribute(this.range, "max", images[0].frames - 1);
    if (first) this.range.value = 0;
    this.#frame();
    if (first && !still.matches) this.#play();
  }

  #row(image, strips, many) {
    const figures = strips.map(({ canvas, words }) => make("figure", {}, canvas, make("figcaption", {}, many ? `${image.name}: ${words}` : words)));
    return make("div", { class: "strip" }, ...figures);
  }

  #frame() {
    const at = Number(this.range.value);
    for (const { canvas, picture, width, height } of this.strips) {
      canvas.getContext("2d").drawImage(picture, at * width, 0, width, height, 0, 0, width, height);
    }
    const { context_steps: context, horizon, parting_step: parting } = this.dream;
    const step = at - context + 1;
    const alone = `dreamed step ${step} of ${horizon}${parting && step >= parting ? ", parted" : ""}`;
    const words = step < 1 ? `seen, step ${at + 1} of ${context}` : alone;
    say(this.said, words);
    setAttribute(this.range, "aria-valuetext", words);
  }

  #play() {
    say(this.button, "Pause");
    this.timer = setInterval(() => {
      const last = Number(this.range.max);
      this.range.value = Number(this.range.value) >= last ? 0 : Number(this.range.value) + 1;
      this.#frame();
    }, FRAME_MS);
  }

  #stop() {
    clearInterval(this.timer);
    this.timer = null;
    say(this.button, "Play");
  }
}

// One canvas for each kind that the dream has, with its picture of all frames side by side.
async function reel(image) {
  const kinds = KINDS.filter(([kind]) => image[kind]);
  return Promise.all(
    kinds.map(async ([kind, words]) => {
      const picture = new Image();
      picture.src = image[kind];
      await picture.decode();
      const { width, height } = image;
      const canvas = make("canvas", { width, height, role: "img", "aria-label": `${image.name}: ${words}` });
      return { canvas, picture, width, height, words };
    }),
  );
}
