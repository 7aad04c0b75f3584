// An entity's value in words. All text comes from services and callers: it is only ever set as text.

function text(bytes) {
  const raw = Uint8Array.from(atob(bytes ?? ""), (c) => c.charCodeAt(0));
  try {
    const s = new TextDecoder("utf-8", { fatal: true }).decode(raw);
    if (!/[\u0000-\u0008\u000e-\u001f]/.test(s)) return s === "" ? "(empty)" : s;
  } catch {
    // Not text.
  }
  const hex = Array.from(raw.slice(0, 24), (b) => b.toString(16).padStart(2, "0")).join(" ");
  return raw.length > 24 ? `${hex} … (${raw.length} bytes)` : hex;
}

// plain turns a holdfast.v1.Value in JSON into a string, or into a list of [name, value].
function plain(value) {
  const [kind, v] = Object.entries(value ?? {})[0] ?? ["", null];
  switch (kind) {
    case "value": case "lww": return text(v);
    case "gset": case "orset": return (v.elements ?? []).map((e) => [text(e), "✓"]);
    case "mvregister": return (v.values ?? []).map((e, i) => [text(e), i === 0 ? "" : "too"]);
    case "flag": return v ? "on" : "off";
    case "vote": return `${v.votesFor ?? 0} of ${v.totalVoters ?? 0} in favour`;
    case "bcounter": return `${v.value ?? 0} (${v.available ?? 0} available here)`;
    case "eventSourced": return [
      ...(v.snapshotSequence ? [["snapshot", `of the events up to ${v.snapshotSequence}`]] : []),
      ...(v.events ?? []).map((e) => [e.sequence, e.type]),
    ];
    case "ormap": return Object.entries(v.entries ?? {}).sort(([a], [b]) => a.localeCompare(b)).map(([k, e]) => [k, flat(plain(e))]);
    default: return String(v ?? "");
  }
}

function flat(p) {
  return Array.isArray(p) ? p.map(([k, v]) => (v && v !== "✓" ? `${k}: ${v}` : k)).join(", ") : p;
}

export function show(value) {
  const p = plain(value);
  if (!Array.isArray(p)) return document.createTextNode(p);
  if (p.length === 0) return Object.assign(document.createElement("span"), { className: "none", textContent: "(empty)" });
  const list = document.createElement("dl");
  for (const [name, v] of p) {
    list.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: v }),
    );
  }
  return list;
}
