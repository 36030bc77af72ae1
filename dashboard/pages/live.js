// Live: what happens in the app, second by second, newest on top. Rows are replaced by their id, for an attempt is told when it starts
// and again when it ends.

import { postEvent } from "../commands.js";
import { badge, KINDS, lookOf } from "../badges.js";
import { fill, h, hear } from "../dom.js";
import { clock, count, exact, now } from "../format.js";
import { emptyNotice, loading, problemNotice } from "../notice.js";
import { repeat } from "../refresh.js";

export const TITLE = "Live";
export const SCOPES = ["devices:read"];
const EVERY_MS = 1000;
const BACK_MS = 60_000;
const MOST_ROWS = 200;
const FILTERS = ["event", "attempt", "polled", "deferred", "dropped", "status", "registered"];

export function show({ root, relay, signal, fail }) {
  const rows = new Map();
  const kinds = new Set(FILTERS);
  let paused = false;
  let crowded = null;
  let problem = null;
  let asked = false;

  const pause = h(
    "button",
    { type: "button", "aria-pressed": "false", title: "Key: p", on: { click: () => setPaused(!paused) } },
    "Pause",
  );
  const filters = h("div", { class: "choice wrap", role: "group", "aria-label": "Kinds shown" });
  const note = h("p", { class: "note", role: "status" });
  const list = h("div", null, loading("what happens"));
  fill(root, h("div", { class: "page-head" }, h("h1", { tabindex: -1 }, TITLE), pause), filters, note, list);
  drawFilters();
  hear(
    document,
    "keydown",
    event => {
      if (
        event.key === "p" &&
        !event.ctrlKey &&
        !event.metaKey &&
        !event.altKey &&
        !event.target.closest("input, select, textarea")
      )
        setPaused(!paused);
    },
    signal,
  );

  const again = repeat(
    async () => {
      if (paused) return;
      const since = new Date(now() - BACK_MS).toISOString();
      const page = await relay.get("activity", { since: asked ? since : null, limit: MOST_ROWS }, signal);
      if (paused) return;
      problem = null;
      crowded = crowdOf(page);
      asked = true;
      take(page.items);
      draw();
    },
    {
      everyMs: EVERY_MS,
      signal,
      failed: error => {
        if (fail(error)) return;
        problem = error;
        draw();
      },
    },
  );

  function setPaused(value) {
    paused = value;
    pause.setAttribute("aria-pressed", String(paused));
    fill(pause, paused ? "Go on" : "Pause");
    draw();
    if (!paused) again();
  }

  function take(items) {
    for (const item of items) rows.set(item.id, item);
    const newest = [...rows.values()].sort(newestFirst);
    for (const row of newest.slice(MOST_ROWS)) rows.delete(row.id);
  }

  function drawFilters() {
    fill(
      filters,
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
                drawFilters();
                draw();
              },
            },
          },
          KINDS[kind].plural,
        ),
      ),
    );
  }

  function draw() {
    const shown = [...rows.values()]
      .filter(row => kinds.has(row.kind) || !FILTERS.includes(row.kind))
      .sort(newestFirst);
    fill(
      note,
      paused
        ? "Paused: nothing is asked until you go on."
        : (crowded ?? `The newest ${MOST_ROWS} rows at most, asked every second.`),
    );
    fill(
      list,
      problem && !problem.away && problemNotice(problem, "What happens"),
      problem?.away && !asked && problemNotice(problem, "What happens"),
      shown.length > 0 && h("ol", { class: "stream", key: "stream" }, shown.map(streamRow)),
      asked && shown.length === 0 && nothing(rows.size > 0),
    );
  }
}

const newestFirst = (one, other) => (one.at < other.at ? 1 : one.at > other.at ? -1 : one.id < other.id ? 1 : -1);

/** Says honestly when a page cannot hold what happened since the last one; null if it can. A page may be short although more follow. */
function crowdOf({ items, next }) {
  if (!next || items.length < 2) return null;
  const spanMs = Date.parse(items[0].at) - Date.parse(items.at(-1).at);
  if (spanMs < 1000)
    return `More than ${count(items.length)} in the last second: showing the newest, the rest is not asked for.`;
  if (spanMs < 2 * EVERY_MS)
    return `More than ${count(items.length)} in ${(spanMs / 1000).toFixed(1)} s: showing the newest, some may be missing here.`;
  return null;
}

function streamRow(row) {
  const look = lookOf(row);
  return h(
    "li",
    { key: row.id, class: `stream-row kind-${row.kind}` },
    h("time", { datetime: row.at, title: exact(row.at) }, clock(row.at)),
    badge(look),
    h("span", { class: "says", dir: "auto" }, row.says),
    h(
      "span",
      { class: "who" },
      row.kind === "event" && h("a", { href: `#/events/${encodeURIComponent(row.id)}` }, "event"),
      row.device &&
        h(
          "a",
          {
            class: "clip",
            href: `#/devices/${encodeURIComponent(row.device)}`,
            title: row.installation_id,
            dir: "auto",
          },
          row.installation_id ?? row.device,
        ),
    ),
  );
}

function nothing(filtered) {
  if (filtered) return emptyNotice("Nothing of these kinds", h("p", null, "Other kinds are there: choose them above."));
  return emptyNotice(
    "Nothing has happened yet",
    h("p", null, "Append an event to a feed that a device follows, and watch it here:"),
    postEvent(),
  );
}
