// The grid of stores, by the side of the partition that each is on, and the picture of their links.

import { colour } from "./colours.js";
import { show } from "./value.js";

const SVG = "http://www.w3.org/2000/svg";

function element(name, className, textContent = "") {
  return Object.assign(document.createElement(name), { className, textContent });
}

export class Stores {
  #root;
  #links;
  #linksText;
  #cards = new Map();
  #shape = "";

  constructor(root, links, linksText) {
    this.#root = root;
    this.#links = links;
    this.#linksText = linksText;
  }

  // show puts what each store has on the page. sides are lists of nodes; copies may be missing.
  show(sides, copies) {
    const shape = JSON.stringify(sides);
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#arrange(sides);
    }
    for (const [node, card] of this.#cards) card.show(copies.get(node));
    this.#draw(sides, copies);
  }

  #arrange(sides) {
    const before = this.#cards;
    this.#cards = new Map();
    this.#root.dataset.sides = sides.length;
    this.#root.replaceChildren(...sides.map((nodes, i) => {
      const side = element("section", "side");
      if (sides.length > 1) side.append(element("h2", "", `Side ${i + 1}: cut off from the others`));
      const list = element("div", "stores");
      for (const node of nodes) {
        const card = before.get(node) ?? new Card(node);
        this.#cards.set(node, card);
        list.append(card.root);
      }
      side.append(list);
      return side;
    }));
  }

  #draw(sides, copies) {
    const nodes = sides.flat().sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const at = nodes.map((_, i) => {
      const angle = (2 * Math.PI * i) / nodes.length - Math.PI / 2;
      return [80 * Math.cos(angle), 80 * Math.sin(angle)];
    });
    const sideOf = new Map(sides.flatMap((s, i) => s.map((n) => [n, i])));
    const parts = [];
    const add = (name, attributes, text = "") => {
      const e = document.createElementNS(SVG, name);
      for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
      e.textContent = text;
      parts.push(e);
      return e;
    };
    let off = 0;
    nodes.forEach((a, i) => nodes.slice(i + 1).forEach((b, j) => {
      const [x1, y1] = at[i];
      const [x2, y2] = at[i + 1 + j];
      const cut = sideOf.get(a) !== sideOf.get(b);
      if (cut) off++;
      add("line", { x1, y1, x2, y2, class: cut ? "off" : "on" });
    }));
    const size = nodes.length > 12 ? 8 : 17;
    nodes.forEach((n, i) => {
      const [cx, cy] = at[i];
      const c = copies.get(n);
      const state = c && c.hash && c.role !== "none" && !c.error ? colour(c.hash) : "var(--line)";
      add("circle", { cx, cy, r: size }).style.fill = state;
      if (size > 10) add("text", { x: cx * 1.27, y: cy * 1.27 }, n.replace(/^node-/, ""));
    });
    this.#linksText.textContent = off ? `${off} links between stores are cut: ${sides.map((s) => s.join(", ")).join(" | ")}` : "All stores reach each other.";
    this.#links.replaceChildren(this.#linksText, ...parts);
  }
}

// Card is one store.
class Card {
  #role = element("span", "role");
  #hash = element("span", "hash");
  #value = element("div", "value");
  #seen = element("p", "seen");
  #details = element("details", "");
  #trouble = element("p", "trouble");
  #shown = "";

  constructor(node) {
    this.root = element("article", "store");
    this.root.dataset.node = node;
    this.root.setAttribute("aria-label", node);
    const head = element("div", "store-head");
    head.append(element("span", "store-name", node), this.#role, this.#hash);
    this.#details.append(element("summary", "", "Has seen"), this.#seen);
    this.root.append(head, this.#trouble, this.#value, this.#details);
    this.show(undefined);
  }

  show(copy) {
    const shown = JSON.stringify(copy ?? null);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const c = copy ?? {};
    const known = copy && !c.error;
    const hash = known && c.role !== "none" ? c.hash ?? "" : "";
    Object.assign(this.root.dataset, { hash, role: c.role ?? "", reachable: !copy ? "" : known ? "yes" : "no" });
    if (hash) this.root.style.setProperty("--state", colour(hash));
    else this.root.style.removeProperty("--state");
    this.#role.textContent = c.role ?? "";
    this.#hash.textContent = hash.slice(0, 8);
    this.#hash.hidden = !hash;
    this.#trouble.textContent = c.error ? `does not answer: ${c.error}` : "";
    this.#trouble.hidden = !c.error;
    this.#value.hidden = !known || c.role === "none";
    this.#value.replaceChildren(c.exists ? show(c.value) : element("span", "none", "(does not exist)"));
    const seen = c.seen ?? [];
    // A node whose store was started again has several identities.
    const name = (s) => (seen.filter((o) => o.node === s.node).length > 1 ? `${s.node}/${s.replica.slice(0, 4)}` : s.node || s.replica);
    this.#seen.textContent = seen.map((s) => `${name(s)}: ${s.upto}${s.beyond ? ` +${s.beyond}` : ""}`).sort().join(" · ");
    this.#details.hidden = seen.length === 0;
  }
}
