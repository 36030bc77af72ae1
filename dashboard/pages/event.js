// One event: what it says, how far it has come with the devices that wanted it, and every call that was made for it.

import { badge, outcomeBadge, stateBadge } from "../badges.js";
import { fill, h } from "../dom.js";
import { ago, clock, count, counted, duration, moment, transportName } from "../format.js";
import { emptyNotice, loading, panel, problemNotice } from "../notice.js";
import { repeat } from "../refresh.js";

export const TITLE = "Event";
export const SCOPES = ["events:read", "events:write"];
const EVERY_MS = 3000;
const PAGE_ATTEMPTS = 50;

/** The counters in the order a device goes through them, the best first. */
const COUNTERS = [
  ["acked", "came back with it: the app has it for sure"],
  ["fetched", "a poll has given it"],
  ["told", "a provider accepted a wake for it or for something newer"],
  ["pending", "a wake is due or open"],
  ["coalesced", "told by a newer wake only"],
  ["suppressed", "fetched before a wake was needed"],
  ["expired", "not told in time: its ttl_s was over"],
  ["unreachable", "cannot be told, or told as often as may be and never came"],
];

/** One bar of how many targeted devices have fetched, with the words beside it. */
export function meter({ targeted, fetched }) {
  if (targeted === 0) return h("span", { class: "muted" }, "no device");
  return h(
    "span",
    { class: "meter" },
    h(
      "span",
      { class: "bar tone-ok", "aria-hidden": "true" },
      h("span", { style: { width: `${(fetched / targeted) * 100}%` } }),
    ),
    h("span", { class: "num small-text" }, `${count(fetched)} of ${count(targeted)} fetched`),
  );
}

export function show({ root, relay, signal, argument, query, setTitle, fail }) {
  const path = `events/${encodeURIComponent(argument)}`;
  const cursor = query.get("cursor");
  const body = h("div", { class: "stack", own: true }, loading("the event"));
  let event = null;
  let calls = null;
  let callsProblem = null;
  fill(
    root,
    h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/events" }, "Events")),
    h("h1", { tabindex: -1, class: "break", dir: "auto" }, "Event"),
    body,
  );

  repeat(
    async () => {
      event = await relay.get(path, {}, signal);
      const name = `Event ${event.position} in ${event.feed}`;
      setTitle(name);
      fill(root.querySelector("h1"), name);
      try {
        calls = await relay.get(`${path}/attempts`, { limit: PAGE_ATTEMPTS, cursor }, signal);
        callsProblem = null;
      } catch (problem) {
        if (problem.away) throw problem;
        callsProblem = problem;
      }
      fill(body, all());
    },
    {
      everyMs: EVERY_MS,
      signal,
      failed: problem => {
        if (fail(problem) || (event && problem.away)) return;
        const missing =
          problem.status === 404 &&
          h("p", { key: "missing" }, "Retention may have dropped it, it was erased, or it belongs to another app.");
        fill(body, problemNotice(problem, "The event"), missing, event && all());
      },
    },
  );

  function all() {
    return [what(event), counters(event.devices), attemptsPanel()];
  }

  function attemptsPanel() {
    return panel(
      "Attempts",
      { key: "attempts", note: "Calls to providers for this event, by device." },
      callsProblem && problemNotice(callsProblem, "The attempts"),
      calls &&
        (calls.items.length === 0
          ? emptyNotice(
              cursor
                ? "No more attempts"
                : event.devices?.pending > 0
                  ? "No call yet"
                  : "No call was made for this event",
              h("p", null, whyNoCall(event)),
            )
          : attemptsTable(calls.items)),
      h(
        "div",
        { class: "row pager" },
        cursor && h("a", { class: "button", href: `#/events/${encodeURIComponent(argument)}` }, "First page"),
        calls?.next &&
          h(
            "a",
            {
              class: "button",
              href: `#/events/${encodeURIComponent(argument)}?cursor=${encodeURIComponent(calls.next)}`,
            },
            "More",
          ),
      ),
    );
  }
}

function whyNoCall({ wake, devices }) {
  if (wake.class === "none") return "Its wake.class is none: it waits to be polled.";
  if (devices?.pending > 0) return "Its wakes wait; a device’s page says for what.";
  return "Either nobody follows the feed, the devices had come already or cannot be woken, or a wake for something newer took it along.";
}

function what(event) {
  const { alert } = event.wake;
  return panel(
    "What was said",
    { key: "what", aside: stateBadge(event.state) },
    h(
      "dl",
      { class: "facts" },
      fact(
        "Feed",
        h("a", { class: "break", dir: "auto", href: `#/events?feed=${encodeURIComponent(event.feed)}` }, event.feed),
        " · ",
        h("a", { href: `#/devices?by=feed&q=${encodeURIComponent(event.feed)}` }, "its devices"),
      ),
      fact("Type", text(event.type)),
      fact("Key", text(event.key), event.op && ` (${event.op})`),
      fact("Accepted", ago(event.accepted_at), " · ", moment(event.accepted_at), " UTC"),
      fact("Occurred", moment(event.occurred_at), " UTC"),
      fact(
        "Wake",
        event.wake.class,
        event.wake.ttl_s !== undefined && event.wake.ttl_s !== null && `, for ${duration(event.wake.ttl_s * 1000)}`,
      ),
      alert &&
        fact(
          "Alert",
          text(
            [alert.title, alert.subtitle, alert.body].filter(Boolean).join(" – ") ||
              alert.loc_key ||
              alert.title_loc_key,
          ),
        ),
      event.href && fact("href", text(event.href)),
      event.traceparent && fact("traceparent", h("code", { class: "break" }, event.traceparent)),
      h(
        "div",
        { key: "Id", class: "double" },
        h("dt", null, "Id"),
        h("dd", null, h("code", { class: "break" }, event.id)),
      ),
    ),
    event.data !== null &&
      event.data !== undefined &&
      h(
        "details",
        { key: "data" },
        h("summary", null, "data"),
        h(
          "pre",
          { class: "data", tabindex: 0, role: "region", "aria-label": "data of the event" },
          JSON.stringify(event.data, null, 2),
        ),
      ),
  );
}

function fact(name, ...value) {
  return h("div", { key: name }, h("dt", null, name), h("dd", null, value));
}

function text(value) {
  return value ? h("span", { class: "break", dir: "auto" }, value) : h("span", { class: "muted" }, "none");
}

function counters(devices) {
  if (!devices) return null;
  const { targeted } = devices;
  // Who was told and has fetched is counted in both, so the bar takes the latter out of the former.
  const toldOnly = devices.told - Math.max(0, devices.fetched - devices.suppressed);
  const segments = [
    ["acked", devices.acked],
    ["fetched", Math.max(0, devices.fetched - devices.acked)],
    ["told", Math.max(0, toldOnly)],
    ["pending", devices.pending],
  ];
  return panel(
    "Devices",
    {
      key: "counters",
      note:
        targeted === 0
          ? "No device follows the feed, or none did when it was accepted."
          : `${counted(targeted, "device")} targeted: they follow its feed, and did when it was accepted. ` +
            `One device may count in several; counted ${clock(devices.counted_at)} UTC.`,
    },
    targeted > 0 &&
      h(
        "div",
        {
          class: "stacked tall",
          role: "img",
          "aria-label": `Of ${targeted}: ${["acked", "fetched", "told", "pending"].map(name => `${devices[name]} ${name}`).join(", ")}`,
        },
        segments.map(
          ([name, n]) =>
            n > 0 &&
            h("span", {
              key: name,
              class: `fill-${name}`,
              style: { width: `${Math.min(100, (n / targeted) * 100)}%` },
            }),
        ),
      ),
    h(
      "dl",
      { class: "counters" },
      COUNTERS.map(([name, says]) =>
        h(
          "div",
          { key: name, class: devices[name] > 0 ? "" : "nought" },
          h("dt", null, h("span", { class: `dot fill-${name}` }), name),
          h("dd", null, h("strong", null, count(devices[name])), h("span", { class: "muted small-text" }, says)),
        ),
      ),
    ),
  );
}

function attemptsTable(items) {
  return h(
    "table",
    { class: "cards-on-phone" },
    h("caption", { class: "hidden" }, "Attempts"),
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        ["Started", "Device", "Transport, class", "Try", "Outcome", "Provider said", "Took"].map(word =>
          h("th", { scope: "col" }, word),
        ),
      ),
    ),
    h(
      "tbody",
      null,
      items.map(call =>
        h(
          "tr",
          { key: call.id },
          h("td", { "data-label": "Started" }, moment(call.started_at)),
          h(
            "td",
            { "data-label": "Device" },
            h(
              "a",
              { href: `#/devices/${encodeURIComponent(call.device)}` },
              h("code", { class: "break" }, call.device),
            ),
          ),
          h("td", { "data-label": "Transport, class" }, `${transportName(call.transport)}, ${call.class}`),
          h("td", { "data-label": "Try" }, count(call.try)),
          h("td", { "data-label": "Outcome" }, outcomeBadge(call.outcome)),
          h(
            "td",
            { "data-label": "Provider said", class: "break" },
            [call.status, call.reason].filter(Boolean).join(" ") ||
              badge({ shape: "ring", tone: "muted" }, "nothing yet"),
            call.retry_at && [", again ", ago(call.retry_at)],
          ),
          h("td", { "data-label": "Took", class: "num" }, duration(call.duration_ms)),
        ),
      ),
    ),
  );
}
