// The list of events, newest first, by feed if wanted. How far each has come costs the relay a count, so only rows on the screen ask.

import { postEvent } from "../commands.js";
import { stateBadge } from "../badges.js";
import { fill, h } from "../dom.js";
import { ago, now } from "../format.js";
import { emptyNotice, loading, problemNotice } from "../notice.js";
import { repeat } from "../refresh.js";
import { meter } from "./event.js";

export const TITLE = "Events";
export const SCOPES = ["events:read", "events:write"];
const PAGE_EVENTS = 50;
const EVERY_MS = 5000;
/** How many rows ask at the same time, and how long an answer that may change still stands. */
const MOST_AT_ONCE = 3;
const COUNTS_STAND_MS = 10_000;

export function show({ root, relay, signal, query, fail }) {
  const feed = query.get("feed") ?? "";
  const cursor = query.get("cursor") ?? "";
  const link = parts => `#/events?${new URLSearchParams(Object.entries(parts).filter(([, value]) => value))}`;
  const search = h("input", {
    type: "search",
    id: "feed",
    value: feed,
    placeholder: "a feed, such as order:42",
    autocomplete: "off",
    spellcheck: "false",
    dir: "auto",
  });
  const submit = event => {
    event.preventDefault();
    location.hash = link({ feed: search.value.trim() });
  };
  const list = h("div", { class: "stack", own: true }, loading("the events"));
  fill(
    root,
    h("div", { class: "page-head" }, h("h1", { tabindex: -1 }, TITLE)),
    h(
      "form",
      { class: "row search", role: "search", on: { submit } },
      h("label", { for: "feed" }, "Feed"),
      search,
      h("button", { type: "submit" }, "Show"),
      feed && h("a", { class: "button quiet", href: "#/events" }, "All feeds"),
    ),
    list,
  );

  let page = null;
  let problem = null;
  const details = lazyDetails({ relay, signal, changed: () => draw() });

  repeat(
    async () => {
      page = await relay.get("events", { feed, cursor, limit: PAGE_EVENTS }, signal);
      problem = null;
      draw();
    },
    {
      everyMs: EVERY_MS,
      signal,
      failed: error => {
        if (fail(error)) return;
        problem = error;
        if (!(error.away && page)) draw();
      },
    },
  );

  function draw() {
    fill(list, problem && problemNotice(problem, "The events"), page && (page.items.length > 0 ? table() : none()));
    details.watch(list);
  }

  function table() {
    return [
      h(
        "div",
        { class: "panel flush", key: "table" },
        h(
          "table",
          { class: "cards-on-phone" },
          h("caption", { class: "hidden" }, "Events, newest first"),
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              ["Accepted", "Position", "Feed", "Type, key", "Wake", "State", "Devices"].map((word, index) =>
                h("th", { scope: "col", class: index === 1 ? "num" : null }, word),
              ),
            ),
          ),
          h("tbody", null, page.items.map(eventRow)),
        ),
      ),
      h(
        "div",
        { class: "row pager", key: "pager" },
        cursor && h("a", { class: "button", href: link({ feed }) }, "Newest"),
        page.next && h("a", { class: "button", href: link({ feed, cursor: page.next }) }, "Older"),
        h("span", { class: "muted small-text" }, cursor ? "an older page" : "asked again every 5 s"),
      ),
    ];
  }

  function eventRow(event) {
    const known = details.of(event.id);
    return h(
      "tr",
      { key: event.id, "data-event": event.id },
      h(
        "td",
        { "data-label": "Accepted" },
        h("a", { href: `#/events/${encodeURIComponent(event.id)}` }, ago(event.accepted_at)),
      ),
      h("td", { class: "num", "data-label": "Position" }, event.position),
      h(
        "td",
        { "data-label": "Feed" },
        h("a", { class: "break", dir: "auto", href: link({ feed: event.feed }) }, event.feed),
      ),
      h(
        "td",
        { "data-label": "Type, key" },
        h("span", { class: "break", dir: "auto" }, event.type),
        event.key && h("code", { class: "muted break", dir: "auto" }, ` ${event.key}`),
      ),
      h("td", { "data-label": "Wake" }, event.wake.class),
      h(
        "td",
        { "data-label": "State" },
        known?.state ? stateBadge(known.state) : h("span", { class: "muted" }, known?.failed ? "not known" : "…"),
      ),
      h(
        "td",
        { "data-label": "Devices", class: "meter-cell" },
        known?.devices ? meter(known.devices) : h("span", { class: "muted" }, "…"),
      ),
    );
  }

  function none() {
    if (cursor)
      return emptyNotice("No older events", h("p", null, h("a", { href: link({ feed }) }, "Back to the newest")));
    if (feed)
      return emptyNotice(
        "No events in this feed",
        h(
          "p",
          null,
          "Retention may have dropped them, or the name is another: names are case-sensitive and searched whole.",
        ),
        h("p", null, h("a", { href: "#/events" }, "All feeds")),
      );
    return emptyNotice("There is no event yet", h("p", null, "Append the first one:"), postEvent());
  }
}

/** Asks for state and counters of the rows that are on the screen, a few at a time, and again while they may change. */
function lazyDetails({ relay, signal, changed }) {
  const known = new Map();
  const visible = new Set();
  const watched = new WeakSet();
  let underWay = 0;
  const observer = new IntersectionObserver(entries => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target.dataset.event);
      else visible.delete(target.dataset.event);
    }
    askNext();
  });
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  function wanted(id) {
    const detail = known.get(id);
    if (!detail) return true;
    if (detail.underWay || detail.againAtMs > now()) return false;
    return true;
  }

  async function askNext() {
    if (signal.aborted || document.visibilityState !== "visible" || underWay >= MOST_AT_ONCE) return;
    const id = [...visible].find(wanted);
    if (!id) return;
    underWay += 1;
    known.set(id, { ...known.get(id), underWay: true });
    try {
      const { state, devices } = await relay.get(`events/${encodeURIComponent(id)}`, {}, signal);
      const over = state === "settled" && devices.targeted === devices.acked;
      known.set(id, { state, devices, againAtMs: over ? Infinity : now() + COUNTS_STAND_MS });
    } catch (problem) {
      known.set(id, {
        ...known.get(id),
        underWay: false,
        failed: true,
        againAtMs: now() + Math.max(COUNTS_STAND_MS, (problem.retryAfterS ?? 0) * 1000),
      });
    }
    underWay -= 1;
    if (signal.aborted) return;
    changed();
    askNext();
  }

  return {
    of: id => known.get(id),
    watch(list) {
      for (const row of list.querySelectorAll("[data-event]")) {
        if (watched.has(row)) continue;
        watched.add(row);
        observer.observe(row);
      }
      for (let free = underWay; free < MOST_AT_ONCE; free += 1) askNext();
    },
  };
}
