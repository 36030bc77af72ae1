// The drawn timeline as a picture: lanes over time, lines from event to call to poll, gaps in which nobody came, and what it all means.

import { glyph, lookOf, OUTCOMES, shape } from "./badges.js";
import { h, svg } from "./dom.js";
import { clock, rough } from "./format.js";

const LANE_PX = 46;
/** On a phone a lane's name stands above it, not beside. */
const NARROW_LANE_PX = 58;
const NARROW_BELOW_PX = 560;
const AXIS_PX = 26;
const TOP_PX = 8;
/** Room at the right end. */
export const RIGHT_PX = 12;
/** Letters of a gap's words are about so wide. */
const LETTER_PX = 6.4;

/** Where time begins and how wide it is. */
export function sizes(wide) {
  const leftPx = wide < NARROW_BELOW_PX ? 14 : 146;
  return { leftPx, widthPx: wide - leftPx - RIGHT_PX };
}

/** Draws a plan; `chosen` is the key of the row that is read out, `on(mark)` gives a mark's listeners. */
export function drawing(plan, { label, nowMs, knownMs, chosen, band, tick, on }) {
  const { wide, leftPx } = plan;
  const narrow = wide < NARROW_BELOW_PX;
  const lanePx = narrow ? NARROW_LANE_PX : LANE_PX;
  const y = index => TOP_PX + index * lanePx + (narrow ? 36 : lanePx / 2);
  const below = TOP_PX + plan.lanes.length * lanePx;
  const height = below + AXIS_PX;
  const holds = mark => mark.rows.some(row => row.key === chosen);
  const marks = plan.lanes.flatMap(lane => lane.marks);
  // One mark is in the tab order, the chosen one or else the first; arrow keys reach the others.
  const reachable = marks.find(holds) ?? marks[0];
  return svg(
    "svg",
    { class: "tl", width: wide, height, viewBox: `0 0 ${wide} ${height}`, role: "group", "aria-label": label },
    hatch(),
    plan.ticks.map(({ ms, x }) =>
      svg(
        "g",
        { key: `tick ${ms}` },
        svg("line", { class: "tl-grid", x1: x, x2: x, y1: 0, y2: below }),
        svg("text", { class: "tl-tick", x, y: height - 8, "text-anchor": x > wide - 40 ? "end" : "middle" }, tick(ms)),
      ),
    ),
    plan.lanes.map(({ name }, index) =>
      svg("line", {
        key: `lane ${name}`,
        class: "tl-lane",
        x1: leftPx,
        x2: wide - RIGHT_PX,
        y1: y(index),
        y2: y(index),
      }),
    ),
    knownMs !== null && unknown(plan.x(knownMs) - leftPx, leftPx, below),
    plan.gaps.map(gap => gapDrawn(gap, y(plan.lanes.findIndex(lane => lane.name === "Polls")))),
    line("now", "tl-now", plan.x(nowMs), below, leftPx, wide),
    plan.spans.map(span => spanDrawn(span, plan, y)),
    plan.links.map(link =>
      svg("path", {
        key: link.key,
        class: `tl-link tl-${link.kind} ${holds(link.from) || holds(link.to) ? "hot" : ""}`,
        d: curve(link, y),
      }),
    ),
    plan.lanes.map(({ name }, index) =>
      svg(
        "text",
        {
          key: `name ${name}`,
          class: "tl-name",
          x: narrow ? leftPx : 0,
          y: narrow ? TOP_PX + index * lanePx + 16 : y(index) + 4,
        },
        name,
      ),
    ),
    marks.map(mark =>
      markDrawn(mark, y(mark.lane), { chosen: holds(mark), reachable: mark === reachable, on: on(mark) }),
    ),
    band && svg("rect", { key: "band", class: "tl-drag", x: band[0], y: 0, width: band[1] - band[0], height: below }),
  );
}

function unknown(width, leftPx, height) {
  return svg(
    "g",
    { key: "unknown" },
    svg("rect", { class: "tl-unknown", x: leftPx, y: 0, width, height }),
    width > 130 &&
      svg("text", { class: "tl-tick", x: leftPx + width / 2, y: 16, "text-anchor": "middle" }, "not loaded yet"),
  );
}

function gapDrawn({ startMs, endMs, open, atLeast, x0, x1 }, y) {
  if (x1 - x0 < 4) return null;
  const words = `${open ? "nobody has come for" : "nobody came for"} ${atLeast ? "at least " : ""}${rough(endMs - startMs)}`;
  return svg(
    "g",
    { key: `gap ${startMs}` },
    svg(
      "rect",
      {
        class: `tl-gap ${open ? "open" : ""}`,
        x: x0,
        y: y - 14,
        width: x1 - x0,
        height: 28,
        rx: 4,
        fill: "url(#tl-hatch)",
      },
      svg("title", null, words),
    ),
    x1 - x0 > words.length * LETTER_PX + 24 &&
      svg("text", { class: "tl-gap-text", x: (x0 + x1) / 2, y: y + 4, "text-anchor": "middle" }, words),
  );
}

function line(key, name, x, height, leftPx, wide) {
  if (x < leftPx || x > wide - RIGHT_PX + 4) return null;
  return svg("line", { key, class: name, x1: x, x2: x, y1: 0, y2: height });
}

function spanDrawn({ key, kind, row, x0, x1 }, plan, y) {
  const index = plan.lanes.findIndex(lane => lane.marks.some(mark => mark.rows.includes(row)));
  if (index < 0 || x1 - x0 < 6) return null;
  return svg("line", {
    key,
    class: `tl-span tl-span-${kind} tone-${lookOf(row).tone}`,
    x1: x0,
    x2: x1,
    y1: y(index),
    y2: y(index),
  });
}

function markDrawn(mark, y, { chosen, reachable, on }) {
  const [row] = mark.rows;
  const single = mark.rows.length === 1;
  const words = single
    ? `${clock(row.at)}: ${row.says}`
    : `${mark.rows.length} rows from ${clock(mark.startMs)} to ${clock(mark.endMs)}, the gravest: ${mark.look.word}`;
  return svg(
    "g",
    {
      key: `mark ${mark.lane} ${mark.key}`,
      class: `tl-mark tone-${mark.look.tone} ${chosen ? "chosen" : ""}`,
      transform: `translate(${mark.x.toFixed(1)} ${y})`,
      role: "button",
      tabindex: reachable ? 0 : -1,
      "aria-label": words,
      "aria-pressed": String(chosen),
      "data-mark": `${mark.lane} ${mark.key}`,
      on,
    },
    svg("rect", { class: "tl-hit", x: -13, y: -17, width: 26, height: 34, rx: 6 }),
    single
      ? svg("g", { transform: "scale(1.25)" }, shape(mark.look.shape))
      : [
          svg("rect", { class: "tl-group", x: -12, y: -10, width: 24, height: 20, rx: 10 }),
          svg(
            "text",
            { class: "tl-count", y: 4, "text-anchor": "middle", "aria-hidden": "true" },
            mark.rows.length > 99 ? "99+" : mark.rows.length,
          ),
          svg(
            "g",
            { transform: "translate(9 -9) scale(.85)" },
            svg("circle", { class: "tl-halo", r: 7 }),
            shape(mark.look.shape),
          ),
        ],
  );
}

function curve({ from, to, kind }, y) {
  const [y0, y1] = [y(from.lane), y(to.lane)];
  // A retry stays in its lane, so its line leaps over what lies between.
  if (kind === "retried") return `M${from.x} ${y0} Q${(from.x + to.x) / 2} ${y0 - 22} ${to.x} ${y1}`;
  const middle = (y0 + y1) / 2;
  return `M${from.x} ${y0} C${from.x} ${middle} ${to.x} ${middle} ${to.x} ${y1}`;
}

function hatch() {
  return svg(
    "defs",
    null,
    svg(
      "pattern",
      { id: "tl-hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "tl-hatch-ground", width: 7, height: 7 }),
      svg("line", { class: "tl-hatch-line", x1: 0, x2: 0, y1: 0, y2: 7 }),
    ),
  );
}

const MARKS = [
  [{ shape: "diamond", tone: "event" }, "event that wants a background wake"],
  [{ shape: "diamond", tone: "alert" }, "event that wants an alert"],
  [{ shape: "phone", tone: "poll" }, "the phone polled"],
  ...Object.entries(OUTCOMES).map(([outcome, look]) => [
    look,
    `attempt, ${outcome === "null" ? "under way" : outcome}: ${look.says}`,
  ]),
  [{ shape: "bars", tone: "warn" }, "deferred, with the time it waits"],
  [{ shape: "cross", tone: "muted" }, "dropped: suppressed or skipped"],
  [{ shape: "flag", tone: "bad" }, "change of status"],
  [{ shape: "square", tone: "info" }, "registered"],
];

const LINES = {
  announced: "the wake that announced an event",
  coalesced: "taken along by the wake of something newer",
  retried: "the same wake again",
  woke: "the poll that named this push",
  itself: "the poll that had its news, by itself",
};

/** What the marks and lines mean, folded away. */
export function legend() {
  return h(
    "details",
    { class: "tl-legend" },
    h("summary", null, "What the marks and lines mean"),
    h(
      "ul",
      null,
      MARKS.map(([look, words]) => h("li", null, glyph(look), words)),
      Object.entries(LINES).map(([kind, words]) =>
        h(
          "li",
          null,
          svg(
            "svg",
            { class: "legend-line", viewBox: "0 0 26 10", "aria-hidden": "true" },
            svg("path", { class: `tl-link tl-${kind}`, d: "M1 5h24" }),
          ),
          words,
        ),
      ),
      h(
        "li",
        null,
        h("span", { class: "legend-hatch", "aria-hidden": "true" }),
        "a provider had taken a push and nobody came",
      ),
    ),
  );
}
