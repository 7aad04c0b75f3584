// The live stream of one presentation: everything first, then only what changed.

const FIRST_DELAY = 500;
const MAX_DELAY = 8_000;
// A stream that says nothing at all for this long after it was opened is given up.
const FIRST_MESSAGE = 10_000;

// watch keeps a stream open until the function that it returns is called.
//   everything(questions)  the whole state, after each (re)connection
//   changed(questions)     what is new since the last one
//   state("connecting" | "live" | "lost", milliseconds until the next attempt)
export function watch(url, { everything, changed, state }) {
  let source = null;
  let timer = 0;
  let failures = 0;
  let stopped = false;

  function connect() {
    clearTimeout(timer);
    state("connecting", 0);
    let first = true;
    const mine = new EventSource(url);
    source = mine;
    timer = setTimeout(() => lost(mine), FIRST_MESSAGE);
    mine.onmessage = (event) => {
      if (source !== mine) return;
      let questions;
      try {
        questions = JSON.parse(event.data).questions ?? {};
      } catch {
        return lost(mine);
      }
      if (first) {
        first = false;
        failures = 0;
        clearTimeout(timer);
        state("live", 0);
        everything(questions);
      } else {
        changed(questions);
      }
    };
    mine.onerror = () => lost(mine);
  }

  function lost(which) {
    if (source !== which || stopped) return;
    which.close();
    source = null;
    clearTimeout(timer);
    // Half of the wait is random, so that many pages don't come back in the same instant.
    const wait = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** failures++) * (0.5 + Math.random() / 2);
    state("lost", wait);
    timer = setTimeout(connect, wait);
  }

  function now() {
    if (source || stopped || document.hidden) return;
    failures = 0;
    connect();
  }

  window.addEventListener("online", now);
  document.addEventListener("visibilitychange", now);
  connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    source?.close();
    source = null;
    window.removeEventListener("online", now);
    document.removeEventListener("visibilitychange", now);
  };
}
