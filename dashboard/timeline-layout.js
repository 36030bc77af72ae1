// Where everything of a drawn timeline stands: lanes, marks (close ones as one), the lines from event to call to poll, and the gaps in
// which nobody came. Only arithmetic, no drawing.

import { lookOf } from "./badges.js";

/** Marks nearer than this would cover each other, and become one with a number, which is wider. */
const APART_PX = 19;
const GROUP_APART_PX = 25;
/** A gap is shown once it is longer than phones usually take. */
const GAP_LEAST_MS = 30_000;

const LANES = [
  { name: "Events", holds: row => row.kind === "event" },
  { name: "Decisions", holds: row => ["deferred", "dropped", "status", "registered"].includes(row.kind) },
  { name: "Alert wakes", holds: row => row.kind === "attempt" && row.class === "alert" },
  { name: "Background wakes", holds: row => row.kind === "attempt" && row.class !== "alert" },
  { name: "Polls", holds: row => row.kind === "polled" },
];

/** How grave a mark is, to choose the one that a group shows. */
const GRAVITY = ["bad", "trouble", "slow", "warn", "info", "alert", "ok", "event", "poll", "muted"];

/** Lays rows (newest first) out between two moments. Rows outside count for lines and gaps only. */
export function layOut(rows, { fromMs, toMs, nowMs, more, leftPx, widthPx }) {
  const x = ms => leftPx + ((ms - fromMs) / (toMs - fromMs)) * widthPx;
  const timed = rows.map(row => ({ row, ms: Date.parse(row.at) })).reverse();
  // A phone that never came still has its lane: that nobody is in it is the answer.
  const called = rows.some(row => row.kind === "attempt");
  const lanes = LANES.filter(({ name, holds }) => rows.some(holds) || (name === "Polls" && called)).map(
    ({ name, holds }) => ({
      name,
      marks: grouped(
        timed.filter(({ row, ms }) => holds(row) && ms >= fromMs && ms <= toMs),
        x,
      ),
    }),
  );
  const markOf = new Map();
  lanes.forEach((lane, index) =>
    lane.marks.forEach(mark => {
      mark.lane = index;
      for (const row of mark.rows) markOf.set(row.key, mark);
    }),
  );
  const told = storiesOf(timed);
  const knownPollMs = timed.find(({ row }) => row.kind === "polled")?.ms ?? Infinity;
  return {
    lanes,
    x,
    links: linksOf(told, markOf),
    gaps: gapsOf(told, { nowMs, more, knownPollMs })
      .filter(gap => gap.endMs > fromMs && gap.startMs < toMs)
      .map(gap => ({ ...gap, x0: Math.max(leftPx, x(gap.startMs)), x1: Math.min(leftPx + widthPx, x(gap.endMs)) })),
    spans: spansOf(timed, { fromMs, toMs, nowMs }).map(span => ({
      ...span,
      x0: Math.max(leftPx, x(span.startMs)),
      x1: Math.min(leftPx + widthPx, x(span.endMs)),
    })),
    ticks: ticksOf(fromMs, toMs, widthPx).map(ms => ({ ms, x: x(ms) })),
  };
}

function grouped(timed, x) {
  const marks = [];
  for (const { row, ms } of timed) {
    const at = x(ms);
    const last = marks.at(-1);
    if (last && at - last.x < (last.rows.length > 1 ? GROUP_APART_PX : APART_PX)) {
      last.rows.push(row);
      last.endMs = ms;
      last.x = (last.x0 + at) / 2;
    } else {
      marks.push({ key: row.key, rows: [row], x0: at, x: at, startMs: ms, endMs: ms });
    }
  }
  for (const mark of marks) mark.look = gravest(mark.rows.map(lookOf));
  return marks;
}

function gravest(looks) {
  return looks.reduce((one, other) => (GRAVITY.indexOf(other.tone) < GRAVITY.indexOf(one.tone) ? other : one));
}

/** Each wake with its events, its calls, and the poll that had its news. */
function storiesOf(timed) {
  const stories = new Map();
  const polls = timed.filter(({ row }) => row.kind === "polled");
  for (const entry of timed) {
    if (entry.row.kind !== "attempt") continue;
    const story = stories.get(entry.row.wake) ?? { calls: [], events: [], poll: null };
    story.calls.push(entry);
    stories.set(entry.row.wake, story);
  }
  for (const entry of timed) {
    if (entry.row.kind === "event" && entry.row.wake) stories.get(entry.row.wake)?.events.push(entry);
  }
  for (const [wake, story] of stories) {
    story.accepted = story.calls.findLast(({ row }) => row.outcome === "accepted") ?? null;
    const first = story.calls[0];
    // A phone may poll while the answer of the provider is still on its way back, so time counts from the call's beginning.
    story.poll =
      polls.find(({ row }) => row.wake === wake) ??
      polls.find(({ row, ms }) => ms >= first.ms && row.fetched >= first.row.head) ??
      null;
  }
  return [...stories.entries()];
}

function linksOf(stories, markOf) {
  const links = new Map();
  const add = (from, to, kind) => {
    const [a, b] = [markOf.get(from.row.key), markOf.get(to.row.key)];
    if (!a || !b || a === b) return;
    const key = `${a.lane}:${a.key} ${b.lane}:${b.key} ${kind}`;
    links.set(key, { key, from: a, to: b, kind });
  };
  for (const [wake, { calls, events, accepted, poll }] of stories) {
    for (const event of events) add(event, calls[0], event.row.decision === "coalesced" ? "coalesced" : "announced");
    for (let index = 1; index < calls.length; index += 1) add(calls[index - 1], calls[index], "retried");
    if (accepted && poll) add(accepted, poll, poll.row.wake === wake ? "woke" : "itself");
  }
  return [...links.values()];
}

/**
 * The times in which a provider had taken a push and nobody came, joined where they overlap. One without a known poll before it may have
 * begun before what is loaded: it lasted at least so long.
 */
function gapsOf(stories, { nowMs, more, knownPollMs }) {
  const waits = stories
    .filter(([, { accepted }]) => accepted)
    .map(([, { accepted, poll }]) => ({ startMs: accepted.ms, endMs: poll ? poll.ms : nowMs, open: !poll }))
    .sort((one, other) => one.startMs - other.startMs);
  const gaps = [];
  for (const wait of waits) {
    const last = gaps.at(-1);
    if (last && wait.startMs <= last.endMs) {
      last.endMs = Math.max(last.endMs, wait.endMs);
      last.open ||= wait.open;
    } else {
      gaps.push({ ...wait, atLeast: more && knownPollMs > wait.startMs });
    }
  }
  return gaps.filter(({ startMs, endMs }) => endMs - startMs >= GAP_LEAST_MS);
}

/** What lasts: calls, retries that wait, and deferrals until they are over or somebody comes. */
function spansOf(timed, { fromMs, toMs, nowMs }) {
  const spans = [];
  const ends = timed.filter(({ row }) => ["attempt", "polled", "dropped", "deferred"].includes(row.kind));
  for (const { row, ms } of timed) {
    if (row.kind === "attempt") {
      spans.push({
        key: `call ${row.key}`,
        row,
        kind: "call",
        startMs: ms,
        endMs: row.outcome === null ? nowMs : ms + (row.duration_ms ?? 0),
      });
      if (row.retry_at)
        spans.push({
          key: `retry ${row.key}`,
          row,
          kind: "retry",
          startMs: ms,
          endMs: Math.min(Date.parse(row.retry_at), nextCall(timed, row, ms)),
        });
    }
    if (row.kind === "deferred" && row.until) {
      const next = ends.find(entry => entry.ms > ms && (entry.row.kind === "polled" || entry.row.class === row.class));
      spans.push({
        key: `wait ${row.key}`,
        row,
        kind: "wait",
        startMs: ms,
        endMs: Math.min(Date.parse(row.until), next?.ms ?? Infinity),
      });
    }
  }
  return spans.filter(({ startMs, endMs }) => endMs > fromMs && startMs < toMs);
}

function nextCall(timed, row, ms) {
  return (
    timed.find(entry => entry.ms > ms && entry.row.kind === "attempt" && entry.row.wake === row.wake)?.ms ?? Infinity
  );
}

const STEPS_MS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800].map(
  seconds => seconds * 1000,
);

function ticksOf(fromMs, toMs, widthPx) {
  const most = Math.max(2, Math.floor(widthPx / 84));
  const stepMs = STEPS_MS.find(step => (toMs - fromMs) / step <= most) ?? STEPS_MS.at(-1);
  const ticks = [];
  for (let ms = Math.ceil(fromMs / stepMs) * stepMs; ms <= toMs; ms += stepMs) ticks.push(ms);
  return ticks;
}
