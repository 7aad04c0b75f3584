// A colour for each state that was seen, so that two that differ can be told apart. The same hash keeps its colour.

const HUES = [172, 28, 265, 340, 95, 210, 50, 300, 0, 130];
const seen = new Map();

export function colour(hash) {
  if (!seen.has(hash)) seen.set(hash, seen.size);
  const n = seen.get(hash);
  return `hsl(${HUES[n % HUES.length]} ${n < HUES.length ? 60 : 35}% var(--state-light))`;
}

// solid is colour for a canvas, which knows no variables.
export function solid(hash) {
  const light = getComputedStyle(document.documentElement).getPropertyValue("--state-light").trim();
  return colour(hash).replace("var(--state-light)", light);
}
