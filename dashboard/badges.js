// Status and outcome as a mark: a shape and a word each, so that nothing is told by colour alone.

import { h, svg } from "./dom.js";

/** Shapes on a field of 12 × 12, centred at 0; every outcome and every kind of row has its own. */
const SHAPES = {
  disc: () => svg("circle", { r: 4.5 }),
  ring: () => svg("circle", { r: 4, fill: "none", "stroke-width": 2, class: "stroke" }),
  square: () => svg("rect", { x: -4.2, y: -4.2, width: 8.4, height: 8.4, rx: 1 }),
  cross: () =>
    svg("path", {
      d: "M-4 -4 L4 4 M4 -4 L-4 4",
      fill: "none",
      "stroke-width": 2.6,
      "stroke-linecap": "round",
      class: "stroke",
    }),
  triangle: () => svg("path", { d: "M0 -5 L5 4 L-5 4 Z" }),
  diamond: () => svg("path", { d: "M0 -5.4 L5.4 0 L0 5.4 L-5.4 0 Z" }),
  hourglass: () => svg("path", { d: "M-4.4 -5 H4.4 L-4.4 5 H4.4 Z" }),
  bars: () => svg("path", { d: "M-4 -4.5 h2.8 v9 h-2.8 Z M1.2 -4.5 h2.8 v9 h-2.8 Z" }),
  flag: () => svg("path", { d: "M-4 -5.5 v11 h1.8 v-4.4 h6.6 l-2 -3.2 l2 -3.4 Z" }),
  question: () =>
    svg("path", {
      d: "M-3 -2.4 a3 3 0 1 1 4.6 2.4 q-1.6 1 -1.6 2 M0 4.6 v.1",
      fill: "none",
      "stroke-width": 2,
      "stroke-linecap": "round",
      class: "stroke",
    }),
  phone: () =>
    svg("path", { d: "M-3 -5.5 h6 a1 1 0 0 1 1 1 v9 a1 1 0 0 1 -1 1 h-6 a1 1 0 0 1 -1 -1 v-9 a1 1 0 0 1 1 -1 Z" }),
};

export const OUTCOMES = {
  accepted: { shape: "disc", tone: "ok", says: "the provider took the push" },
  rejected: { shape: "cross", tone: "bad", says: "the provider refused the push for good" },
  throttled: { shape: "triangle", tone: "warn", says: "the provider asked to slow down" },
  unavailable: { shape: "diamond", tone: "trouble", says: "the provider, or the way to it, was down" },
  timeout: { shape: "hourglass", tone: "slow", says: "no answer in time; the push may have arrived" },
  unknown: { shape: "question", tone: "muted", says: "the relay stopped during the call; the push may have arrived" },
  null: { shape: "ring", tone: "info", says: "the call is under way", word: "under way" },
};

export const STATUSES = {
  active: { shape: "disc", tone: "ok", says: "woken as usual" },
  quarantined: { shape: "triangle", tone: "warn", says: "doubtful answers: one probe a day" },
  stale: { shape: "ring", tone: "muted", says: "30 days without a sign of life: no background wakes" },
  gone: { shape: "cross", tone: "bad", says: "the provider gave the token up: no pushes until it registers again" },
};

export const EVENT_STATES = {
  accepted: { shape: "ring", tone: "info", says: "durable; still being spread to its followers" },
  waking: { shape: "bars", tone: "warn", says: "some devices still wait for a wake" },
  settled: { shape: "disc", tone: "ok", says: "no device waits any more" },
};

/** Kinds of rows, as the timeline and the live page tell them apart. */
export const KINDS = {
  event: { shape: "diamond", tone: "event", word: "event", plural: "Events" },
  attempt: { shape: "disc", tone: "ok", word: "attempt", plural: "Attempts" },
  polled: { shape: "phone", tone: "poll", word: "polled", plural: "Polls" },
  deferred: { shape: "bars", tone: "warn", word: "deferred", plural: "Deferred" },
  dropped: { shape: "cross", tone: "muted", word: "dropped", plural: "Dropped" },
  status: { shape: "flag", tone: "bad", word: "status", plural: "Status" },
  registered: { shape: "square", tone: "info", word: "registered", plural: "Registered" },
  state: { shape: "question", tone: "info", word: "now", plural: "Now" },
};

/** How a row looks: its kind, or for an attempt its outcome. */
export function lookOf(row) {
  if (row.kind === "attempt") return outcomeLook(row.outcome);
  if (row.kind === "event" && row.class === "alert") return { ...KINDS.event, tone: "alert" };
  return KINDS[row.kind] ?? { ...KINDS.state, word: row.kind };
}

export function outcomeLook(outcome) {
  return { word: outcome ?? "under way", ...(OUTCOMES[outcome] ?? OUTCOMES.unknown) };
}

/** A shape as part of a drawing. */
export function shape(name) {
  return (SHAPES[name] ?? SHAPES.disc)();
}

/** A mark beside text; the word says what it is, so it is hidden from screen readers. */
export function glyph({ shape: name, tone }) {
  return svg(
    "svg",
    { class: `glyph tone-${tone}`, viewBox: "-6.5 -6.5 13 13", "aria-hidden": "true", focusable: "false" },
    shape(name),
  );
}

/** A mark and its word. */
export function badge(look, word) {
  return h(
    "span",
    { class: `badge tone-${look.tone}`, title: look.says },
    glyph(look),
    h("span", { class: "badge-word" }, word ?? look.word),
  );
}

export function statusBadge(status) {
  return badge(STATUSES[status] ?? { shape: "question", tone: "muted" }, status);
}

export function outcomeBadge(outcome) {
  const look = outcomeLook(outcome);
  return badge(look, look.word);
}

export function stateBadge(state) {
  return badge(EVENT_STATES[state] ?? { shape: "question", tone: "muted" }, state);
}
