// Repeats a question while somebody looks: a hidden tab asks nothing, a busy relay is given the time it asks for, one that is away is
// tried again and again, and everybody hears whether it answers.

const AWAY_FIRST_MS = 1000;
const AWAY_MOST_MS = 10_000;

/** Hears of the relay: `detail` is the problem that it is away or wants to be left alone, or null when it answers. */
export const relayState = new EventTarget();

function tell(problem) {
  relayState.dispatchEvent(new CustomEvent("change", { detail: problem }));
}

/**
 * Runs `work` at once and again `everyMs` after it has ended, until `signal` aborts. What goes wrong is given to `failed`; it goes on
 * in any case. Returns a function that runs it at once; `everyMs` may be a function.
 */
export function repeat(work, { everyMs, signal, failed }) {
  let wake = () => {};
  let atOnce = false;
  const pause = ms =>
    new Promise(resolve => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  signal.addEventListener("abort", () => wake(), { once: true });

  (async () => {
    let awayMs = AWAY_FIRST_MS;
    while (!signal.aborted) {
      await visible(signal);
      if (signal.aborted) return;
      atOnce = false;
      let waitMs;
      try {
        await work();
        if (signal.aborted) return;
        tell(null);
        awayMs = AWAY_FIRST_MS;
        waitMs = typeof everyMs === "function" ? everyMs() : everyMs;
      } catch (error) {
        if (signal.aborted) return;
        failed(error);
        const usualMs = typeof everyMs === "function" ? everyMs() : everyMs;
        if (error.away) {
          waitMs = awayMs;
          awayMs = Math.min(awayMs * 2, AWAY_MOST_MS);
        } else {
          waitMs = Math.max(usualMs, (error.retryAfterS ?? 0) * 1000, 2000);
        }
        tell(error.away || error.later ? Object.assign(error, { againAtMs: Date.now() + waitMs }) : null);
      }
      if (!atOnce) await pause(waitMs);
    }
  })();

  return () => {
    atOnce = true;
    wake();
  };
}

/** Resolves when the tab is looked at, or `signal` aborts. */
function visible(signal) {
  if (document.visibilityState === "visible") return Promise.resolve();
  return new Promise(resolve => {
    const look = () => {
      if (document.visibilityState !== "visible" && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}
