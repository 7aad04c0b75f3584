// The page: what the stores hold of one entity, twice a second, and the buttons that cut and mend.

import { call, Refused, take } from "./api.js";
import { Stores } from "./stores.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const LOOK = 500;
const LOOK_HIDDEN = 4_000;

let token = take();
let entity = "";
let timer = 0;
let looking = 0;
// touched is set while the boxes differ from the partition on purpose: a look leaves them alone then.
let touched = false;

const stores = new Stores($("sides"), $("links"), $("links-text"));
const timeline = new Timeline($("timeline"));

// --- which entity ------------------------------------------------------------------------------------------------------

function fromHash() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1);
  }
}

function open() {
  token = take();
  const name = fromHash();
  const slash = name.indexOf("/");
  entity = slash > 0 && slash < name.length - 1 ? name : "";
  $("locked").hidden = token !== "";
  $("entity-form").hidden = token === "";
  $("welcome").hidden = token === "" || entity !== "";
  $("room").hidden = token === "" || entity === "";
  document.title = entity ? `${entity} · Replicas` : "Replicas";
  $("title").textContent = entity;
  agreement("unknown", "Looking…");
  if (entity) {
    $("entity-type").value = entity.slice(0, slash);
    $("entity-key").value = entity.slice(slash + 1);
  }
  timeline.clear();
  if (token) look();
  else live("lost", "No token");
}

$("entity-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const hash = `#${encodeURIComponent($("entity-type").value.trim())}/${encodeURIComponent($("entity-key").value)}`;
  if (location.hash === hash) open();
  else location.hash = hash;
});

window.addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => { if (!document.hidden && token) look(); });

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("sides").focus();
});

// --- looking -----------------------------------------------------------------------------------------------------------

function live(state, text) {
  $("live").dataset.live = state;
  $("live").textContent = text;
}

function agreement(agree, text) {
  if ($("agreement").textContent !== text) $("agreement").textContent = text;
  $("agreement").dataset.agree = agree;
}

async function look() {
  clearTimeout(timer);
  const mine = ++looking;
  try {
    const seen = await call(token, "GET", `/api/look?entity=${encodeURIComponent(entity)}`);
    if (mine !== looking) return;
    live("live", "Live");
    show(seen);
  } catch (problem) {
    if (mine !== looking) return;
    if (problem instanceof Refused) {
      token = "";
      live("lost", "No token");
      for (const id of ["welcome", "room", "entity-form"]) $(id).hidden = true;
      $("locked").hidden = false;
      return;
    }
    live("lost", "The mesh does not answer, trying again");
  }
  timer = setTimeout(look, document.hidden ? LOOK_HIDDEN : LOOK);
}

function show({ nodes, fault, types, entity: key, error }) {
  options(types);
  const sides = fault.groups.length ? fault.groups : [nodes];
  boxes(nodes, fault.groups);
  const copies = new Map((key?.copies ?? []).map((c) => [c.node, c]));
  stores.show(sides, copies);
  const compared = key?.agreement;
  if (error) agreement("unknown", `${error[0].toUpperCase()}${error.slice(1)}`);
  else if (key && !compared) agreement("unknown", "A strong entity has one state, in etcd: there is nothing to compare.");
  else if (compared) agreement(compared.agree ? "yes" : "no", `${compared.summary[0].toUpperCase()}${compared.summary.slice(1)}.`);
  const state = (n) => {
    const c = copies.get(n);
    return c && !c.error && c.role !== "none" ? c.hash ?? "" : "";
  };
  timeline.add(compared ? compared.agree : null, new Map(nodes.map((n) => [n, state(n)])));
}

function options(types) {
  if ($("types").dataset.types === types.join()) return;
  $("types").dataset.types = types.join();
  $("types").replaceChildren(...types.map((t) => Object.assign(document.createElement("option"), { value: t })));
  if (!$("entity-type").value && types.length) $("entity-type").value = types[0];
}

// --- cutting and mending -----------------------------------------------------------------------------------------------

const checked = () => [...document.querySelectorAll("#cut-nodes input:checked")].map((i) => i.value);

// boxes has one for each node; those of the first side are checked while there is a partition.
function boxes(nodes, groups) {
  const there = [...document.querySelectorAll("#cut-nodes input")].map((i) => i.value);
  if (there.join() !== nodes.join()) {
    $("cut-nodes").replaceChildren(...nodes.map((n) => {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", name: "node", value: n });
      label.append(box, n);
      return label;
    }));
    touched = false;
  }
  if (touched) return;
  const cut = groups.length ? groups[0] : [];
  for (const box of document.querySelectorAll("#cut-nodes input")) box.checked = cut.includes(box.value);
}

$("cut-nodes").addEventListener("change", () => { touched = true; });

async function change(button, path, body) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    await call(token, "POST", path, body);
    touched = false;
    await look();
  } catch (problem) {
    toast(problem.message);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

$("cut-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (checked().length === 0) return toast("Choose the stores to cut off first.");
  change($("cut"), "/api/partition", { groups: [checked()] });
});

$("half").addEventListener("click", () => {
  const all = [...document.querySelectorAll("#cut-nodes input")].map((i) => i.value);
  change($("half"), "/api/partition", { groups: [all.slice(0, Math.floor(all.length / 2))] });
});

$("heal").addEventListener("click", () => change($("heal"), "/api/heal"));

function toast(text) {
  const box = Object.assign(document.createElement("div"), { className: "toast" });
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", () => box.remove());
  box.append(Object.assign(document.createElement("p"), { textContent: text }), close);
  $("toasts").append(box);
  setTimeout(() => box.remove(), 10_000);
}

open();
