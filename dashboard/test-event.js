// Sends a device a test event and follows it: accepted, pushed, fetched, acked, each with its time, and an honest end if it does not come.

import { fill, h } from "./dom.js";
import { ago, clock, duration, exact, now, rough } from "./format.js";
import { panel, problemNotice } from "./notice.js";

const CLASSES = { background: "Send background test", alert: "Send alert test" };

/** The panel; `update` tells it what the timeline holds now, `underWay` whether somebody waits for a test. */
export function testPanel({ relay, path, signal, changed, fail }) {
  const element = h("div", { own: true });
  let event = null;
  let sending = null;
  let problem = null;
  let seen = null;

  async function send(wakeClass) {
    sending = wakeClass;
    problem = null;
    draw();
    try {
      event = await relay.post(`${path}/test`, { class: wakeClass }, signal);
      seen = null;
      changed();
    } catch (error) {
      if (signal.aborted || fail(error)) return;
      problem = error;
    }
    sending = null;
    draw();
  }

  function draw() {
    const buttons = Object.entries(CLASSES).map(([wakeClass, word]) =>
      h(
        "button",
        { type: "button", key: wakeClass, disabled: sending !== null, on: { click: () => send(wakeClass) } },
        sending === wakeClass ? "Sending…" : word,
      ),
    );
    fill(
      element,
      panel(
        "Send a test event",
        {
          aside: h("div", { class: "row" }, buttons),
          note: "It goes to this device’s own feed. A background test wakes the app silently; an alert test shows on the phone.",
        },
        problem && problemNotice(problem, "The test event"),
        event &&
          h(
            "ol",
            { class: "steps", "aria-label": "The test event on its way", "aria-live": "polite" },
            stepsOf(event, seen).map(step),
          ),
      ),
    );
  }

  draw();
  return {
    element,
    underWay: () => event !== null && !over(event, seen),
    update(rows, states, device) {
      if (!event) return;
      seen = progress(event, rows, states, device);
      draw();
    },
  };
}

/** What the timeline says about the event so far. Rows are newest first; the oldest that fits is the one that did it. */
function progress(event, rows, states, device) {
  const since = rows.filter(row => row.at >= event.accepted_at);
  const oldest = fits => since.findLast(fits) ?? null;
  const reaches = row => row.head >= event.position && row.class === event.wake.class;
  const own = since.find(row => row.kind === "event" && row.id === event.id);
  const calls = since.filter(row => row.kind === "attempt" && (own?.wake ? row.wake === own.wake : reaches(row)));
  return {
    call: calls.find(row => row.outcome === "accepted") ?? calls[0] ?? null,
    waits: since.find(row => ["deferred", "dropped"].includes(row.kind) && reaches(row)) ?? null,
    state: states.find(row => row.class === event.wake.class) ?? states.find(row => row.status) ?? null,
    fetch: oldest(row => row.kind === "polled" && row.fetched >= event.position),
    ack: oldest(row => row.kind === "polled" && row.acked >= event.position),
    // A poll that only moved a level may not be a row of the timeline; the levels are the truth.
    fetched: device.fetched >= event.position,
    acked: device.acked >= event.position,
  };
}

/** Nobody comes for it any more, or there is nothing left to wait for. */
function over(event, seen) {
  return (
    expired(event) ||
    Boolean(seen?.acked) ||
    Boolean(seen?.fetched && now() - Date.parse(seen.fetch?.at ?? event.accepted_at) > 120_000)
  );
}

function expired(event) {
  return now() > Date.parse(event.accepted_at) + event.wake.ttl_s * 1000;
}

function stepsOf(event, seen) {
  const after = at =>
    `${clock(at)} UTC, ${duration(Math.max(0, Date.parse(at) - Date.parse(event.accepted_at)))} after the accept`;
  const accepted = {
    name: "Accepted",
    mark: "done",
    text: `${clock(event.accepted_at)} UTC, at position ${event.position}`,
    at: event.accepted_at,
  };
  return [accepted, pushed(event, seen, after), fetched(event, seen, after), acked(event, seen, after)];
}

function pushed(event, seen, after) {
  const call = seen?.call;
  if (call?.outcome === "accepted")
    return { name: "Pushed", mark: "done", text: after(ended(call)), says: call.says, at: call.at };
  if (seen?.fetched)
    return {
      name: "Pushed",
      mark: "skipped",
      text: "not needed: the phone came first",
      says: call?.says ?? seen.waits?.says,
    };
  if (call && call.outcome === null)
    return { name: "Pushed", mark: "waits", text: "the provider is being called", says: call.says };
  if (call)
    return {
      name: "Pushed",
      mark: call.outcome === "rejected" ? "failed" : "waits",
      text: `${call.outcome}${call.retry_at ? `; again at ${clock(call.retry_at)} UTC` : ""}`,
      says: call.says,
    };
  const waits = seen?.state ?? seen?.waits;
  if (waits)
    return {
      name: "Pushed",
      mark: expired(event) ? "failed" : "waits",
      text: expired(event) ? "its time was over before it could be pushed" : "not yet",
      says: waits.says,
    };
  return { name: "Pushed", mark: "waits", text: "the relay is about to call the provider" };
}

function fetched(event, seen, after) {
  if (seen?.fetched) {
    const by = seen.fetch?.wake ? "the push brought it" : "the phone came by itself";
    return {
      name: "Fetched",
      mark: "done",
      text: seen.fetch ? `${after(seen.fetch.at)}; ${by}` : "the phone has it",
      says: seen.fetch?.says,
      at: seen.fetch?.at,
    };
  }
  const call = seen?.call;
  if (call?.outcome === "accepted") {
    const sinceMs = now() - Date.parse(ended(call));
    if (expired(event))
      return {
        name: "Fetched",
        mark: "failed",
        text:
          `The provider accepted it ${rough(sinceMs)} ago and the phone did not come within the test’s ` +
          `${duration(event.wake.ttl_s * 1000)}: the push was lost, the phone is offline, or the app was closed. ` +
          "The next poll still brings it.",
      };
    return {
      name: "Fetched",
      mark: "waits",
      text:
        sinceMs < 3000
          ? "the provider has it; the phone should come"
          : `The provider accepted it ${rough(sinceMs)} ago; the phone has not come yet.`,
    };
  }
  if (expired(event))
    return { name: "Fetched", mark: "failed", text: "Nothing was pushed, and the phone has not come by itself." };
  return { name: "Fetched", mark: "later", text: "when the phone polls" };
}

function acked(event, seen, after) {
  if (seen?.acked)
    return {
      name: "Acked",
      mark: "done",
      text: seen.ack ? after(seen.ack.at) : "the phone came back with it",
      at: seen.ack?.at,
    };
  if (seen?.fetched)
    return { name: "Acked", mark: "later", text: "with the phone’s next poll, which may be many minutes away" };
  return { name: "Acked", mark: "later", text: "when it comes back with the cursor" };
}

function ended(call) {
  return new Date(Date.parse(call.at) + (call.duration_ms ?? 0)).toISOString();
}

const MARKS = {
  done: ["✓", "done"],
  waits: ["…", "waiting"],
  failed: ["✕", "failed"],
  skipped: ["–", "not needed"],
  later: ["○", "not yet"],
};

function step({ name, mark, text, says, at }) {
  const [sign, word] = MARKS[mark];
  return h(
    "li",
    { key: name, class: `step step-${mark}` },
    h("span", { class: "step-mark", "aria-hidden": "true" }, sign),
    h(
      "div",
      null,
      h(
        "p",
        null,
        h("strong", null, name),
        h("span", { class: "hidden" }, ` (${word})`),
        " ",
        h("span", { title: at ? exact(at) : null }, text),
        at && mark === "done" && name === "Accepted" && [", ", ago(at)],
      ),
      says && h("p", { class: "muted small-text", dir: "auto" }, says),
    ),
  );
}
