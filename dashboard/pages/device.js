// One device: why it did not update, what it is, its timeline drawn and listed, and a test event that can be watched on its way.

import { badge, KINDS, lookOf, statusBadge } from "../badges.js";
import { fill, h } from "../dom.js";
import { ago, clock, count, exact, relative, transportName } from "../format.js";
import { rowsOf } from "../history.js";
import { emptyNotice, loading, panel, problemNotice, scopeNotice } from "../notice.js";
import { repeat } from "../refresh.js";
import { testPanel } from "../test-event.js";
import { drawnTimeline } from "../timeline.js";
import { whyPanel } from "../why.js";

export const TITLE = "Device";
export const SCOPES = ["devices:read"];
const EVERY_MS = 3000;
/** While a test event is on its way somebody looks closely. */
const TEST_EVERY_MS = 1000;
const FIRST_ROWS = 200;
const PAGE_ROWS = 100;
/** When somebody reads back; as many as the relay gives at once. */
const OLDER_ROWS = 500;
/** Rows listed at first; the drawing has all that are loaded. */
const LISTED_ROWS = 50;
const FILTERS = ["event", "attempt", "polled", "deferred", "dropped", "status", "registered"];

export function show({ root, relay, signal, argument, setTitle, can, fail }) {
  const path = `devices/${encodeURIComponent(argument)}`;
  const rows = rowsOf();
  const kinds = new Set(FILTERS);
  let device = null;
  let listedRows = LISTED_ROWS;
  let olderProblem = null;
  let olderUnderWay = false;
  const head = h("div", { class: "stack", own: true }, loading("the device"));
  const drawing = drawnTimeline({ signal, pick: row => showInList(row), loadOlder: () => loadOlder() });
  const drawingPanel = h(
    "section",
    { class: "panel", hidden: true, own: true },
    h("header", { class: "panel-head" }, h("h2", null, "Timeline")),
    drawing.element,
  );
  const tests = can("devices:write") ? testPanel({ relay, path, signal, changed: () => again(), fail }) : null;
  const testPlace = h(
    "div",
    { hidden: true, own: true },
    tests?.element ?? scopeNotice("Test event", ["devices:write"]),
  );
  const list = h("div", { own: true });
  fill(
    root,
    h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/devices" }, "Devices")),
    h("h1", { tabindex: -1, class: "break", dir: "auto" }, "Device"),
    head,
    testPlace,
    drawingPanel,
    list,
  );

  const again = repeat(
    async () => {
      const [shown, page] = await Promise.all([
        relay.get(path, {}, signal),
        relay.get(`${path}/timeline`, { limit: rows.size === 0 ? FIRST_ROWS : PAGE_ROWS }, signal),
      ]);
      device = shown;
      rows.takeNewest(page);
      draw();
    },
    {
      everyMs: () => (tests?.underWay() ? TEST_EVERY_MS : EVERY_MS),
      signal,
      failed: problem => {
        if (fail(problem) || (device && problem.away)) return;
        const missing =
          problem.status === 404 &&
          h(
            "p",
            { key: "missing" },
            "It was deleted, or belongs to another app. ",
            h("a", { href: "#/devices" }, "All devices"),
          );
        fill(head, problemNotice(problem, "The device"), missing, device && upper());
      },
    },
  );

  function draw() {
    const name = device.installation_id ?? device.id;
    fill(root.querySelector("h1"), name);
    setTitle(name);
    fill(head, upper());
    testPlace.hidden = false;
    drawingPanel.hidden = false;
    tests?.update(rows.all(), rows.states(), device);
    drawing.update(rows.all(), rows.older() !== null);
    drawList();
  }

  function upper() {
    return [whyPanel(rows.states(), device), facts(device)];
  }

  function drawList() {
    const fitting = rows.all().filter(row => kinds.has(row.kind) || !FILTERS.includes(row.kind));
    const shown = fitting.slice(0, listedRows);
    const more = fitting.length > shown.length || rows.older();
    fill(
      list,
      panel(
        "What happened",
        { aside: h("span", { class: "muted small-text" }, `the newest ${count(shown.length)}`) },
        h(
          "div",
          { class: "choice wrap", role: "group", "aria-label": "Kinds shown" },
          FILTERS.map(kind =>
            h(
              "button",
              {
                type: "button",
                key: kind,
                "aria-pressed": String(kinds.has(kind)),
                on: {
                  click: () => {
                    if (!kinds.delete(kind)) kinds.add(kind);
                    drawList();
                  },
                },
              },
              KINDS[kind].plural,
            ),
          ),
        ),
        shown.length > 0
          ? h("ol", { class: "stream boxed" }, shown.map(listRow))
          : emptyNotice(
              "No rows of these kinds",
              h("p", null, rows.older() ? "Older rows may have some." : "Choose other kinds above."),
            ),
        olderProblem && problemNotice(olderProblem, "Older rows"),
        h(
          "div",
          { class: "row pager" },
          more
            ? h(
                "button",
                { type: "button", disabled: olderUnderWay, on: { click: () => showOlder(fitting.length) } },
                olderUnderWay ? "Loading…" : "Older rows",
              )
            : h("span", { class: "muted small-text" }, "This is all there is: nothing older is kept."),
        ),
      ),
    );
  }

  function showOlder(known) {
    listedRows += PAGE_ROWS;
    if (known >= listedRows || !rows.older()) drawList();
    else loadOlder();
  }

  async function loadOlder() {
    if (olderUnderWay || !rows.older()) return;
    olderUnderWay = true;
    olderProblem = null;
    drawList();
    try {
      rows.takeOlder(await relay.get(`${path}/timeline`, { limit: OLDER_ROWS, cursor: rows.older() }, signal));
      drawing.update(rows.all(), rows.older() !== null);
    } catch (problem) {
      if (signal.aborted || fail(problem)) return;
      olderProblem = problem;
    }
    olderUnderWay = false;
    drawList();
  }

  function showInList(row) {
    kinds.add(row.kind);
    listedRows = Math.max(listedRows, rows.all().findIndex(known => known.key === row.key) + 10);
    drawList();
    const shown = list.querySelector(`[data-row="${CSS.escape(row.key)}"]`);
    shown?.scrollIntoView({
      block: "center",
      behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
    });
    shown?.focus({ preventScroll: true });
  }
}

function facts(device) {
  return h(
    "section",
    { class: "panel", key: "facts", "aria-label": "Facts" },
    h(
      "dl",
      { class: "facts" },
      fact(
        "Status",
        statusBadge(device.status),
        device.status_reason && [" ", h("code", { class: "break" }, device.status_reason)],
      ),
      fact(
        "Transport",
        transportName(device.transport),
        ", ",
        device.platform,
        device.environment && `, ${device.environment}`,
      ),
      fact(
        "User",
        device.user === null
          ? h("span", { class: "muted" }, "none signed in")
          : h("a", { dir: "auto", href: `#/devices?by=user&q=${encodeURIComponent(device.user)}` }, device.user),
      ),
      h(
        "div",
        { key: "id", class: "double" },
        h("dt", null, "Id"),
        h("dd", null, h("code", { class: "break" }, device.id)),
      ),
      fact("Fetched, acked", `${device.fetched}, ${device.acked}`),
      fact("Last seen", ago(device.seen_at)),
      fact(
        "Registered",
        ago(device.registered_at),
        device.created_at !== device.registered_at && [", first ", ago(device.created_at)],
      ),
      fact(
        "App, system",
        [device.app_version, device.os, device.locale].filter(Boolean).join(", ") ||
          h("span", { class: "muted" }, "not given"),
      ),
      device.topic && fact("Topic", device.topic),
      fact(
        "Push token",
        device.token_fingerprint ? h("code", null, device.token_fingerprint) : h("span", { class: "muted" }, "none"),
        device.token_kind !== "token" && ` (${device.token_kind})`,
      ),
      h(
        "div",
        { key: "feeds", class: "wide" },
        h("dt", null, `Feeds (${count(device.feeds.length)})`),
        h("dd", null, feeds(device.feeds)),
      ),
    ),
  );
}

/** A device follows at most 200 feeds and two of its own; more than a few are folded away. */
function feeds(names) {
  const shown = name =>
    h("a", { key: name, class: "tag break", dir: "auto", href: `#/events?feed=${encodeURIComponent(name)}` }, name);
  if (names.length <= 8) return names.map(shown);
  return [
    names.slice(0, 6).map(shown),
    h("details", { key: "more" }, h("summary", null, `${count(names.length - 6)} more`), names.slice(6).map(shown)),
  ];
}

function fact(name, ...value) {
  return h("div", { key: name }, h("dt", null, name), h("dd", { class: "break" }, value));
}

function listRow(row) {
  return h(
    "li",
    { key: row.key, "data-row": row.key, tabindex: -1, class: `stream-row kind-${row.kind}` },
    h("time", { datetime: row.at, title: `${exact(row.at)} (${relative(row.at)})` }, clock(row.at)),
    badge(lookOf(row)),
    h("span", { class: "says", dir: "auto" }, row.says),
    h(
      "span",
      { class: "who" },
      row.kind === "event" && h("a", { href: `#/events/${encodeURIComponent(row.id)}` }, "event"),
    ),
  );
}
