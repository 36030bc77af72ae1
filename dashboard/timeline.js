// The drawn timeline as people use it: which range is shown, which mark is chosen and read out with the relay's own sentence, how mouse and
// keyboard move about in it.

import { badge, lookOf } from "./badges.js";
import { fill, h, hear } from "./dom.js";
import { clock, count, day, exact, now, rough } from "./format.js";
import { drawing, legend, RIGHT_PX, sizes } from "./timeline-drawing.js";
import { layOut } from "./timeline-layout.js";

const RANGES = [
  ["1 min", 60_000],
  ["5 min", 300_000],
  ["30 min", 1_800_000],
  ["3 h", 10_800_000],
  ["24 h", 86_400_000],
  ["7 d", 604_800_000],
  ["30 d", 2_592_000_000],
];
const LEAST_SPAN_MS = 1000;
/** So many rows should be in sight at first. */
const FIRST_SIGHT_ROWS = 12;
const LEAST_DRAG_PX = 6;
/** Rows of a group that are read out. */
const READ_ROWS = 5;

/**
 * The drawing. `update(rows, more)` takes rows newest first and whether older ones could be loaded; `pick` is told which row somebody wants
 * to see in the list, `loadOlder` that the range reaches further back than what is known.
 */
export function drawnTimeline({ signal, pick, loadOlder }) {
  const canvas = h("div", { class: "tl-canvas", own: true });
  const ranges = h("div", { class: "tl-tools", own: true });
  const readout = h("div", { class: "tl-readout", own: true, "aria-live": "polite" });
  const element = h("div", { class: "timeline", own: true }, ranges, canvas, readout, legend());
  let rows = [];
  let more = false;
  let spanMs = null;
  let endMs = null;
  let chosen = null;
  let drag = null;
  let plan = null;

  const observer = new ResizeObserver(() => draw());
  observer.observe(canvas);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  hear(canvas, "pointerdown", startDrag, signal);
  hear(canvas, "pointermove", moveDrag, signal);
  hear(canvas, "pointerup", endDrag, signal);
  hear(
    canvas,
    "pointercancel",
    () => {
      drag = null;
      draw();
    },
    signal,
  );

  function update(known, moreThere) {
    rows = known;
    more = moreThere;
    spanMs ??= firstSpan();
    draw();
  }

  /** The shortest range that shows a handful of rows, or all there are. */
  function firstSpan() {
    const far = rows[Math.min(rows.length, FIRST_SIGHT_ROWS) - 1];
    if (!far) return RANGES[0][1];
    const neededMs = now() - Date.parse(far.at);
    return RANGES.find(([, ms]) => ms >= neededMs)?.[1] ?? RANGES.at(-1)[1];
  }

  const view = () => {
    // A little room after now, so that what has just happened does not stand on the edge.
    const toMs = endMs ?? now() + spanMs * 0.03;
    return { fromMs: toMs - spanMs, toMs };
  };

  function look(fromMs, toMs) {
    spanMs = Math.max(LEAST_SPAN_MS, toMs - fromMs);
    endMs = toMs >= now() ? null : fromMs + spanMs;
    draw();
  }

  function draw() {
    const wide = canvas.clientWidth;
    if (!spanMs || wide === 0 || signal.aborted) return;
    const { leftPx, widthPx } = sizes(wide);
    plan = { ...layOut(rows, { ...view(), nowMs: now(), more, leftPx, widthPx }), leftPx, wide };
    const held = document.activeElement?.closest?.(".tl-mark") && canvas.contains(document.activeElement);
    fill(
      canvas,
      drawing(plan, {
        label: label(),
        nowMs: now(),
        knownMs: knownFrom(),
        chosen,
        band: drag?.moving ? [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)] : null,
        tick: tickText,
        on: mark => ({
          focus: () => choose(mark),
          pointerenter: event => event.pointerType === "mouse" && !drag?.moving && choose(mark),
          click: () => choose(mark),
          dblclick: () => open(mark),
          keydown: event => keys(event, mark),
        }),
      }),
    );
    if (held && !canvas.contains(document.activeElement)) markOfChosen()?.focus({ preventScroll: true });
    drawTools();
    drawReadout();
  }

  function label() {
    const { fromMs, toMs } = view();
    const n = plan.lanes.reduce((sum, lane) => sum + lane.marks.length, 0);
    const keysSay = "Arrow keys go from mark to mark, Enter opens, plus and minus zoom.";
    return `Timeline from ${exact(fromMs)} to ${exact(toMs)}, ${n} marks. ${keysSay}`;
  }

  /** Where the known part begins, if the range reaches further back; null if all of it is known. */
  function knownFrom() {
    const oldest = rows.at(-1);
    return more && oldest && Date.parse(oldest.at) > view().fromMs
      ? Math.min(Date.parse(oldest.at), view().toMs)
      : null;
  }

  const chosenMark = () =>
    plan?.lanes.flatMap(lane => lane.marks).find(mark => mark.rows.some(row => row.key === chosen)) ?? null;
  const markOfChosen = () => {
    const mark = chosenMark();
    return mark && canvas.querySelector(`[data-mark="${CSS.escape(`${mark.lane} ${mark.key}`)}"]`);
  };

  function choose(mark) {
    if (mark.rows.some(row => row.key === chosen)) return;
    chosen = mark.rows.at(-1).key;
    draw();
  }

  /** Into a group, or from a single mark to its row in the list. */
  function open(mark) {
    if (mark.rows.length === 1) return pick(mark.rows[0]);
    const roomMs = Math.max(250, (mark.endMs - mark.startMs) * 0.25);
    return look(mark.startMs - roomMs, mark.endMs + roomMs);
  }

  function keys(event, mark) {
    const lane = plan.lanes[mark.lane].marks;
    const near = lanes =>
      lanes
        .find(({ marks }) => marks.length > 0)
        ?.marks.reduce((one, other) => (Math.abs(other.x - mark.x) < Math.abs(one.x - mark.x) ? other : one));
    const moves = {
      ArrowLeft: () => lane[lane.indexOf(mark) - 1],
      ArrowRight: () => lane[lane.indexOf(mark) + 1],
      Home: () => lane[0],
      End: () => lane.at(-1),
      ArrowUp: () => near(plan.lanes.slice(0, mark.lane).reverse()),
      ArrowDown: () => near(plan.lanes.slice(mark.lane + 1)),
    };
    const does = {
      Enter: () => open(mark),
      " ": () => open(mark),
      "+": () => zoom(0.5, mark),
      "-": () => zoom(2, mark),
    };
    if (!moves[event.key] && !does[event.key]) return;
    event.preventDefault();
    const next = moves[event.key]?.();
    if (next) {
      choose(next);
      markOfChosen()?.focus();
    }
    does[event.key]?.();
  }

  function zoom(factor, around = chosenMark()) {
    const { fromMs, toMs } = view();
    const centreMs = around ? (around.startMs + around.endMs) / 2 : toMs;
    const spanNow = Math.min(RANGES.at(-1)[1], Math.max(LEAST_SPAN_MS, (toMs - fromMs) * factor));
    const ratio = (centreMs - fromMs) / (toMs - fromMs);
    look(centreMs - spanNow * ratio, centreMs + spanNow * (1 - ratio));
  }

  function drawTools() {
    const { fromMs, toMs } = view();
    const move = part => look(fromMs + spanMs * part, toMs + spanMs * part);
    fill(
      ranges,
      h(
        "div",
        { class: "choice", role: "group", "aria-label": "Range" },
        RANGES.map(([word, ms]) =>
          h(
            "button",
            {
              type: "button",
              key: word,
              "aria-pressed": String(endMs === null && Math.abs(spanMs - ms) < 1),
              on: {
                click: () => {
                  [spanMs, endMs] = [ms, null];
                  draw();
                },
              },
            },
            word,
          ),
        ),
      ),
      h(
        "div",
        { class: "choice", role: "group", "aria-label": "Move and zoom" },
        h("button", { type: "button", "aria-label": "Earlier", on: { click: () => move(-0.5) } }, "←"),
        h(
          "button",
          { type: "button", "aria-label": "Later", disabled: endMs === null, on: { click: () => move(0.5) } },
          "→",
        ),
        h("button", { type: "button", "aria-label": "Zoom in", on: { click: () => zoom(0.5) } }, "+"),
        h("button", { type: "button", "aria-label": "Zoom out", on: { click: () => zoom(2) } }, "−"),
      ),
      knownFrom() !== null &&
        h("button", { type: "button", class: "small", on: { click: loadOlder } }, "Load older rows"),
      h(
        "span",
        { class: "muted small-text" },
        endMs === null ? `the last ${rough(spanMs)}, moving along` : `${clock(fromMs)} to ${clock(toMs)} UTC`,
      ),
    );
  }

  function drawReadout() {
    const mark = chosenMark();
    if (!mark) {
      const known =
        rows.length > 0
          ? "Point at a mark, or reach it by Tab and the arrow keys, to read what it says. Drag to zoom in."
          : "Nothing has happened yet.";
      return fill(readout, h("p", { class: "muted" }, known));
    }
    const shown = mark.rows.slice(-READ_ROWS).reverse();
    return fill(
      readout,
      h(
        "ul",
        null,
        shown.map(row =>
          h(
            "li",
            { key: row.key },
            h("time", { datetime: row.at, title: exact(row.at) }, new Date(row.at).toISOString().slice(11, 23)),
            badge(lookOf(row)),
            h("span", { class: "says", dir: "auto" }, row.says),
          ),
        ),
      ),
      h(
        "div",
        { class: "row" },
        mark.rows.length > shown.length &&
          h("span", { class: "muted" }, `and ${count(mark.rows.length - shown.length)} more`),
        mark.rows.length > 1 &&
          mark.endMs > mark.startMs &&
          h("button", { type: "button", class: "small", on: { click: () => open(mark) } }, "Zoom in on these"),
        h("button", { type: "button", class: "small", on: { click: () => pick(shown[0]) } }, "Show in the list"),
      ),
    );
  }

  function place(event) {
    return Math.min(
      Math.max(event.clientX - canvas.getBoundingClientRect().left, plan?.leftPx ?? 0),
      canvas.clientWidth - RIGHT_PX,
    );
  }

  function startDrag(event) {
    if (event.button === 0 && event.pointerType !== "touch" && plan)
      drag = { from: place(event), to: place(event), moving: false };
  }

  function moveDrag(event) {
    if (!drag) return;
    drag.to = place(event);
    // A click moves a little too; only from here on it is a drag, and no mark's business.
    if (!drag.moving && Math.abs(drag.to - drag.from) > LEAST_DRAG_PX) {
      drag.moving = true;
      canvas.setPointerCapture(event.pointerId);
    }
    if (drag.moving) draw();
  }

  function endDrag() {
    if (!drag) return;
    const [low, high] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
    const { moving } = drag;
    drag = null;
    if (!moving) return;
    const { fromMs, toMs } = view();
    const at = x => fromMs + ((x - plan.leftPx) / (plan.wide - plan.leftPx - RIGHT_PX)) * (toMs - fromMs);
    look(at(low), at(high));
  }

  const tickText = ms => {
    const iso = new Date(ms).toISOString();
    if (spanMs > 5 * 86_400_000 || iso.slice(11, 19) === "00:00:00") return day(ms);
    return iso.slice(11, spanMs < 10 * 60_000 ? 19 : 16);
  };

  return { element, update };
}
