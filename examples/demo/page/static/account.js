// The account panel. Money is whole cents, in BigInt: no rounding, no largest safe number.

import { call } from "./api.js";

const AMOUNT = /^\s*(\d{1,15})(?:[.,](\d{1,2}))?\s*$/;

// cents reads "12", "12.5" or "12,50"; null where it is none of these.
export function cents(text) {
  const match = AMOUNT.exec(text);
  return match && BigInt(match[1]) * 100n + BigInt((match[2] ?? "").padEnd(2, "0"));
}

export function money(amount) {
  const whole = (amount / 100n).toLocaleString("en");
  return `${whole}.${String(amount % 100n).padStart(2, "0")}`;
}

// account wires the panel. report(problem, what) shows what went wrong.
export function account({ form, name, amount, balance }, report) {
  // Only the answer to the latest call is shown: answers can overtake each other.
  let latest = 0;

  function path() {
    return `/v1/accounts/${encodeURIComponent(name.value.trim())}`;
  }

  function show(reply) {
    const amount = BigInt(reply.balance_cents ?? 0);
    balance.textContent = money(amount);
    balance.dataset.cents = amount;
  }

  function hide() {
    balance.textContent = "–";
    delete balance.dataset.cents;
  }

  async function load(quiet) {
    const mine = ++latest;
    if (!name.value.trim()) return hide();
    try {
      const reply = await call("GET", path(), undefined, "balance");
      if (mine === latest) show(reply);
    } catch (problem) {
      if (mine !== latest) return;
      hide();
      if (!quiet) report(problem, "The balance could not be read");
    }
  }

  name.addEventListener("change", () => load(false));
  amount.addEventListener("input", () => amount.setCustomValidity(""));

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const verb = event.submitter?.value ?? "deposit";
    const value = cents(amount.value);
    if (!value) {
      amount.setCustomValidity("An amount above zero, for example 12.50");
      amount.reportValidity();
      return;
    }
    const mine = ++latest;
    const buttons = form.querySelectorAll("button");
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const reply = await call("POST", `${path()}:${verb}`, { amount_cents: String(value) }, verb);
      if (mine === latest) show(reply);
    } catch (problem) {
      report(problem, verb === "deposit" ? "The deposit failed" : "The withdrawal failed");
      if (problem.unknown) load(true);
    } finally {
      buttons.forEach((button) => { button.disabled = false; });
      event.submitter?.focus({ preventScroll: true });
    }
  });

  return { load };
}
