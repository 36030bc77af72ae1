// The funnel: accepted, pushed, woke, caught up, each figure with what it counts, for they do not count the same thing.

import { h } from "../dom.js";
import { count, counted, share } from "../format.js";

/** Sums over transports and classes; `transports` as /v1/stats has them. */
function sums(transports) {
  const sum = pick => transports.reduce((total, row) => total + pick(row), 0);
  return {
    events: sum(row => row.events),
    wakes: sum(row => row.wakes),
    within10s: sum(row => row.fetched.within_10s),
    within60s: sum(row => row.fetched.within_60s),
    within15min: sum(row => row.fetched.within_15min),
    byPush: sum(row => row.woke_by_push),
    byItself: sum(row => row.came_by_itself),
  };
}

/** Four steps with their captions, and what was lost between them. */
export function funnel(transports) {
  const total = sums(transports);
  const missed = Math.max(0, total.wakes - total.within15min);
  const polls = total.byPush + total.byItself;
  const ratio = total.wakes > 0 ? total.events / total.wakes : null;
  return h(
    "ol",
    { class: "funnel" },
    step(
      "Accepted",
      total.events,
      "events",
      "Events that wanted a device awake, counted once per device.",
      [],
      ratio === null ? "no wake accepted yet" : eventsPerWake(ratio.toFixed(2)),
    ),
    step(
      "Pushed",
      total.wakes,
      "wakes",
      "Wakes that a provider accepted. It has not said that the phone got them: providers never do.",
      [],
      total.wakes > 0 ? `${share(total.within15min / total.wakes)} were followed by a fetch` : null,
    ),
    step(
      "Woke",
      total.within15min,
      "wakes",
      "Wakes whose news a poll brought within 15 min of the push.",
      [
        part(total.within10s, total.wakes, "ok", `${count(total.within10s)} within 10 s`),
        part(
          total.within60s - total.within10s,
          total.wakes,
          "ok-2",
          `${count(total.within60s - total.within10s)} in 10 to 60 s`,
        ),
        part(
          total.within15min - total.within60s,
          total.wakes,
          "ok-3",
          `${count(total.within15min - total.within60s)} in 1 to 15 min`,
        ),
        part(missed, total.wakes, "miss", `${count(missed)} not followed`),
      ],
      total.wakes > 0 ? missedNote(missed) : null,
      missed > 0,
    ),
    step(
      "Caught up",
      polls,
      "polls",
      "Polls that brought news: the phone has the truth, however it came.",
      [
        part(total.byPush, polls, "ok", `${count(total.byPush)} named their push`),
        part(total.byItself, polls, "info", `${count(total.byItself)} came by themselves`),
      ],
      null,
    ),
  );
}

/** Under 1, waking again has cost more pushes than going together has saved. */
function eventsPerWake(ratio) {
  const words = `${ratio} events per wake`;
  if (Number(ratio) === 1) return words;
  return `${words}: ${Number(ratio) < 1 ? "phones that did not come were woken again" : "what comes close together goes in one push"}`;
}

function missedNote(missed) {
  if (missed === 0) return "every wake was followed by a fetch";
  return `${counted(missed, "wake")} not followed by a fetch within 15 min: lost, phone offline, app closed, or not 15 min old yet`;
}

function step(title, n, unit, caption, parts, after, warn = false) {
  const shown = parts.filter(Boolean);
  return h(
    "li",
    { key: title },
    h(
      "div",
      { class: "funnel-step" },
      h("h3", null, title),
      h("p", { class: "figure" }, count(n), h("span", { class: "unit" }, unit)),
      h("p", { class: "caption" }, caption),
      shown.length > 0 &&
        h(
          "div",
          { class: "stacked", "aria-hidden": "true" },
          shown.map(({ tone, ratio }) =>
            h("span", { key: tone, class: `fill-${tone}`, style: { width: `${ratio * 100}%` } }),
          ),
        ),
      shown.length > 0 &&
        h(
          "ul",
          { class: "parts" },
          shown.map(({ tone, text }) => h("li", { key: tone }, h("span", { class: `dot fill-${tone}` }), text)),
        ),
    ),
    after && h("p", { class: `funnel-after ${warn ? "warn" : ""}` }, after),
  );
}

function part(n, whole, tone, text) {
  return whole > 0 && n > 0 ? { tone, text, ratio: n / whole } : null;
}
