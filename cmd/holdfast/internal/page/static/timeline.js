// What each store held in the last two minutes, as rows of colours; the lowest row says whether all agreed.

import { solid } from "./colours.js";

const SPAN = 120_000;

export class Timeline {
  #canvas;
  #looks = [];

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  clear() {
    this.#looks = [];
    this.#draw();
  }

  // add takes one look: agree is true, false or null, states maps a node to its hash, "" where it is not known.
  add(agree, states) {
    const now = Date.now();
    this.#looks.push({ at: now, agree, states });
    while (this.#looks.length && this.#looks[0].at < now - SPAN) this.#looks.shift();
    this.#canvas.dataset.looks = this.#looks.length;
    const apart = this.#looks.filter((l) => l.agree === false).length;
    this.#canvas.setAttribute("aria-label", apart
      ? `In ${apart} of the last ${this.#looks.length} looks the replicas differed.`
      : `In all of the last ${this.#looks.length} looks the replicas agreed.`);
    this.#draw();
  }

  #draw() {
    const box = this.#canvas.getBoundingClientRect();
    if (!box.width) return;
    const scale = devicePixelRatio || 1;
    this.#canvas.width = Math.round(box.width * scale);
    this.#canvas.height = Math.round(box.height * scale);
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const tone = (name) => style.getPropertyValue(name).trim();
    const last = this.#looks.at(-1);
    if (!last) return;
    const nodes = [...last.states.keys()];
    const foot = 14;
    const row = (box.height - foot) / Math.max(nodes.length, 1);
    const x = (at) => box.width * (1 - (last.at - at) / SPAN);
    const colours = new Map();
    const fill = (hash) => {
      if (!colours.has(hash)) colours.set(hash, hash ? solid(hash) : tone("--line"));
      return colours.get(hash);
    };
    this.#looks.forEach((look, i) => {
      const from = x(look.at);
      const width = Math.max(x(this.#looks[i + 1]?.at ?? look.at + 500) - from, 1) + .5;
      nodes.forEach((n, r) => {
        pen.fillStyle = fill(look.states.get(n) ?? "");
        pen.fillRect(from, r * row, width, Math.max(row - 2, 1));
      });
      pen.fillStyle = tone(look.agree === null ? "--line" : look.agree ? "--good" : "--bad");
      pen.fillRect(from, box.height - foot + 4, width, foot - 4);
    });
  }
}
