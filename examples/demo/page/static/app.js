// The page: what is typed goes to the services, what they stream is shown.

import { account } from "./account.js";
import { call, onAnswer, Problem } from "./api.js";
import { watch } from "./live.js";
import { Questions } from "./questions.js";

const $ = (id) => document.getElementById(id);
const RECENT = 8;

let presentation = "";
let stop = () => {};
let live = "connecting";

const path = () => `/v1/presentations/${encodeURIComponent(presentation)}`;

const questions = new Questions($("questions"), $("empty"), (question) => change("votes", question, "vote", "Your vote failed"));

const bank = account(
  { form: $("account-form"), name: $("account-name"), amount: $("account-amount"), balance: $("account-balance") },
  report,
);

// --- choosing a presentation -------------------------------------------------------------------------------------------

// A name becomes one segment of a path, so what would cut it in pieces becomes a dash.
function clean(name) {
  const one = name.trim().replace(/[\/\\?#%]+/g, "-").replace(/\s+/g, " ").slice(0, 80);
  return /^\.+$/.test(one) ? "" : one;
}

function fromHash() {
  try {
    return clean(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return clean(location.hash.slice(1));
  }
}

function remember(name) {
  let names = [];
  try {
    names = JSON.parse(localStorage.getItem("recent") ?? "[]").filter((n) => typeof n === "string");
  } catch {
    // Whatever is stored there is not ours.
  }
  if (name) names = [name, ...names.filter((n) => n !== name)].slice(0, RECENT);
  try {
    localStorage.setItem("recent", JSON.stringify(names));
  } catch {
    // Private windows may not store: then nothing is remembered.
  }
  $("recent").replaceChildren(...names.map((n) => Object.assign(document.createElement("option"), { value: n })));
}

function open() {
  stop();
  presentation = fromHash();
  remember(presentation);
  $("welcome").hidden = presentation !== "";
  $("room").hidden = presentation === "";
  $("live").hidden = presentation === "";
  document.title = presentation ? `${presentation} · Questions` : "Questions";
  if (!presentation) {
    $("presentation-name").focus();
    return;
  }
  $("presentation-title").textContent = presentation;
  $("presentation-title").dataset.presentation = presentation;
  $("second").href = location.href;
  questions.replace({});
  $("empty").hidden = true;
  stop = watch(`${path()}/watch`, {
    everything: (all) => questions.replace(all),
    changed: (some) => announce(questions.merge(some)),
    state: showLive,
  });
  visit();
  bank.load(true);
}

$("presentation-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = clean($("presentation-name").value);
  if (!name) return;
  $("presentation-name").value = "";
  $("presentation-name").blur();
  const hash = `#${encodeURIComponent(name)}`;
  if (location.hash === hash) open();
  else location.hash = hash;
});

window.addEventListener("hashchange", open);

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("questions").focus();
});

// --- asking and voting -------------------------------------------------------------------------------------------------

// change asks or votes. The new count comes by the live stream; where that is lost, it is read.
async function change(collection, question, what, failed) {
  const at = presentation;
  try {
    await call("POST", `${path()}/${collection}`, { question }, what);
    if (live !== "live" && at === presentation) await refresh();
    return true;
  } catch (problem) {
    report(problem, failed);
    return false;
  }
}

async function refresh() {
  const at = presentation;
  const reply = await call("GET", path(), undefined, "read");
  if (live !== "live" && at === presentation) questions.merge(reply.questions ?? {});
}

$("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("ask-text");
  const button = $("ask-button");
  const text = field.value.trim();
  if (!text || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  const asked = await change("questions", text, "ask", "Your question was not taken");
  button.removeAttribute("aria-busy");
  if (asked) {
    field.value = "";
    fit();
  }
  field.focus();
});

$("ask-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask-form").requestSubmit();
});

// fit makes the field as high as its text and says how much room is left when it gets tight.
function fit() {
  const field = $("ask-text");
  field.style.height = "auto";
  field.style.height = `${Math.min(160, field.scrollHeight + 2)}px`;
  const left = field.maxLength - field.value.length;
  $("ask-left").textContent = left <= 60 ? `${left} characters left.` : "";
}

$("ask-text").addEventListener("input", fit);

// --- what is going on --------------------------------------------------------------------------------------------------

function showLive(state, wait) {
  live = state;
  const pill = $("live");
  pill.dataset.live = state;
  // While the stream is lost the counts may be old: they are shown as such.
  $("questions").classList.toggle("stale", state === "lost");
  const seconds = Math.max(1, Math.round(wait / 1000));
  pill.textContent = { live: "Live", connecting: "Connecting…", lost: `Connection lost, trying again in ${seconds} s` }[state];
}

const tally = new Map();

onAnswer((node, what) => {
  tally.set(node, (tally.get(node) ?? 0) + 1);
  const line = $("node");
  line.dataset.node = node;
  line.textContent = `${what[0].toUpperCase()}${what.slice(1)}: answered by ${node}`;
  const names = [...tally.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  $("nodes").replaceChildren(...names.map((name) => {
    const item = document.createElement("li");
    item.dataset.node = name;
    item.dataset.count = tally.get(name);
    if (name === node) item.classList.add("last");
    const count = Object.assign(document.createElement("b"), { textContent: tally.get(name) });
    item.append(name, count);
    return item;
  }));
});

async function visit() {
  const at = presentation;
  $("visits").textContent = "";
  try {
    const reply = await call("POST", `/v1/pages/${encodeURIComponent(at)}:visit`, {}, "visit");
    if (at !== presentation) return;
    const visits = Number(reply.visits ?? 0);
    $("visits").dataset.visits = visits;
    $("visits").textContent = `Opened ${visits === 1 ? "once" : `${visits.toLocaleString("en")} times`}`;
  } catch {
    // A visit that is not counted is nobody's concern here.
  }
}

function announce(added) {
  if (added.length) $("announce").textContent = `New question: ${added.join("; ")}`;
}

// report shows a problem. What may have happened all the same is said, never hidden.
function report(problem, failed) {
  if (!(problem instanceof Problem)) throw problem;
  const unsure = problem.unknown ? " It is not known whether the change was kept: look at the number before you try again." : "";
  toast(`${problem.unknown ? "No clear answer" : failed}. ${problem.message}${unsure}`);
}

function toast(text) {
  const box = document.createElement("div");
  box.className = "toast";
  box.dataset.kind = "error";
  const words = Object.assign(document.createElement("p"), { textContent: text });
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => box.remove());
  box.append(words, close);
  const all = $("toasts");
  all.append(box);
  while (all.children.length > 3) all.firstChild.remove();
  setTimeout(() => box.remove(), 12_000);
}

open();
