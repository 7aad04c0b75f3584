// The list of questions. It shows counts that a node sent and nothing else: no count is ever guessed.

// While somebody is busy in the list it is not put in another order under their finger.
const REST = 1_500;

export class Questions {
  #list;
  #empty;
  #vote;
  #items = new Map();
  #busyUntil = 0;
  #timer = 0;

  // vote(question) returns a promise; the button is busy until it is settled.
  constructor(list, empty, vote) {
    this.#list = list;
    this.#empty = empty;
    this.#vote = vote;
    for (const kind of ["pointermove", "pointerdown", "keydown"]) {
      list.addEventListener(kind, () => { this.#busyUntil = performance.now() + REST; }, { passive: true });
    }
  }

  // replace shows these questions and no others. It returns nothing new: all of it is.
  replace(questions) {
    for (const [text, item] of this.#items) {
      if (!(text in questions)) {
        item.remove();
        this.#items.delete(text);
      }
    }
    for (const [text, votes] of Object.entries(questions)) this.#put(text, Number(votes) || 0, false);
    this.#sort(true);
  }

  // merge shows changed counts and returns the questions that are new.
  merge(questions) {
    const added = Object.keys(questions).filter((text) => !this.#items.has(text));
    for (const [text, votes] of Object.entries(questions)) this.#put(text, Number(votes) || 0, true);
    this.#sort(false);
    return added;
  }

  #put(text, votes, flash) {
    let item = this.#items.get(text);
    const isNew = !item;
    if (isNew) {
      item = this.#make(text);
      this.#items.set(text, item);
      this.#list.append(item);
    }
    if (!isNew && item.dataset.votes === String(votes)) return;
    item.dataset.votes = votes;
    item.querySelector(".count").textContent = votes.toLocaleString("en");
    item.querySelector(".unit").textContent = votes === 1 ? "vote" : "votes";
    item.querySelector(".vote").setAttribute("aria-label", `Vote for: ${text} (${votes} ${votes === 1 ? "vote" : "votes"})`);
    if (flash) {
      item.classList.remove("flash");
      void item.offsetWidth; // Starts the animation again where it is still running.
      item.classList.add("flash");
    }
  }

  #make(text) {
    const item = document.createElement("li");
    item.dataset.question = text;
    item.innerHTML = `
      <button type="button" class="vote">
        <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d="M8 3l5.5 7h-11z"/></svg>
        <span class="count"></span><span class="unit"></span>
      </button>
      <p class="text"></p>`;
    item.querySelector(".text").textContent = text;
    const button = item.querySelector(".vote");
    button.addEventListener("click", async () => {
      if (button.getAttribute("aria-busy") === "true") return;
      button.setAttribute("aria-busy", "true");
      try {
        await this.#vote(text);
      } finally {
        button.removeAttribute("aria-busy");
      }
    });
    return item;
  }

  #sort(atOnce) {
    this.#empty.hidden = this.#items.size > 0;
    clearTimeout(this.#timer);
    const wait = this.#busyUntil - performance.now();
    if (!atOnce && wait > 0) {
      this.#timer = setTimeout(() => this.#sort(false), wait);
      return;
    }
    const wanted = [...this.#items.values()].sort((a, b) =>
      b.dataset.votes - a.dataset.votes || a.dataset.question.localeCompare(b.dataset.question));
    if (wanted.every((item, i) => this.#list.children[i] === item)) return;
    const moving = !matchMedia("(prefers-reduced-motion: reduce)").matches && !atOnce;
    const before = moving ? new Map(wanted.map((item) => [item, item.getBoundingClientRect().top])) : null;
    const focused = document.activeElement;
    this.#list.append(...wanted);
    if (this.#list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
    if (!moving) return;
    for (const item of wanted) {
      const by = before.get(item) - item.getBoundingClientRect().top;
      if (by) item.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 260, easing: "ease-out" });
    }
  }
}
