// The plain answer to "why did this phone not update?", from the rows of kind `state` that stand above a device's timeline.

import { h } from "./dom.js";
import { ago, moment, times } from "./format.js";

const WAITING = {
  gap: "it is too soon after the push before",
  budget: "out of budget, the platform would hold back more pushes",
  retry: "the last call did not get through",
  "alert stored": "Apple still keeps an alert that this push would replace",
  quarantined: "its token is doubtful, one probe a day",
  "provider down": "the provider is in trouble",
};

const SKIPPED = {
  gone: "no pushes until it registers again",
  stale: "no sign of life for long, so no background wakes",
  "no credential": "none of the app's credentials serves this device",
  expired: "the time was over before a push could be sent",
  unfollowed: "it has left the feed",
  "already fetched": "it polled before a push was needed",
  online: "it has a live connection",
};

const STANDING = {
  gone: ["bad", "Gone: no pushes until it registers again", "Its push token counts as dead"],
  quarantined: [
    "warn",
    "Quarantined: one probe a day",
    "The provider’s answers about its push token have been doubtful",
  ],
  stale: [
    "warn",
    "Stale: no background wakes until it polls",
    "It has shown no sign of life for long; alerts go on. So it stands",
  ],
};

const LOST = "The push was lost, the phone is offline, or the app was closed. ";

/** `{tone, title, detail}` of each thing that is to be said, the gravest first; never empty. */
function answers(states, device) {
  const standing = states
    .filter(row => row.status)
    .map(row => {
      const [tone, title, detail] = STANDING[row.status] ?? ["warn", row.status, "So it stands"];
      return { tone, title, detail: [detail, " since ", moment(row.since), " UTC (", ago(row.since), ")."], row };
    });
  const behind = states.filter(row => row.class).map(row => lag(row));
  if (standing.length + behind.length > 0) return [...standing, ...behind];
  const seen = device.seen_at ? ["Last sign of life ", ago(device.seen_at), "."] : "";
  return [
    {
      tone: "ok",
      title: "Up to date",
      detail: ["Everything that wanted this phone awake has been fetched. ", seen],
      row: null,
    },
  ];
}

function lag(row) {
  const what = row.class === "alert" ? " (alert)" : "";
  if (row.decision === "sent" && row.reason === "call under way") {
    return {
      tone: "info",
      title: ["Being called now", what],
      detail: "A push is on its way to the provider; there is no answer yet.",
      row,
    };
  }
  if (row.decision === "sent") {
    const next = row.until
      ? ["Next wake ", ago(row.until), " (", moment(row.until), " UTC)."]
      : "No more wakes are planned: it waits for its next event or poll.";
    return { tone: "bad", title: [behind(row, what), ", and not fetched"], detail: [LOST, next], row };
  }
  if (row.decision === "deferred" || row.until) {
    const why = WAITING[row.reason] ?? row.reason ?? "it is about to be looked at";
    if (row.wakes > 0 && row.told_at) {
      return {
        tone: "bad",
        title: [behind(row, what), ", and not fetched"],
        detail: [
          LOST,
          "The next wake waits: ",
          why,
          row.until && [", until ", moment(row.until), " UTC (", ago(row.until), ")"],
          ".",
        ],
        row,
      };
    }
    return {
      tone: "warn",
      title: ["Waiting", what, ": ", why],
      detail: row.until && ["Until ", moment(row.until), " UTC, ", ago(row.until), "."],
      row,
    };
  }
  if (row.decision) {
    return {
      tone: "bad",
      title: ["Not woken", what, ": ", SKIPPED[row.reason] ?? row.reason ?? row.decision],
      detail: "It still reads everything when it polls.",
      row,
    };
  }
  return {
    tone: "bad",
    title: ["Not told", what, ", and no wake is planned"],
    detail: "It still reads everything when it polls.",
    row,
  };
}

/** "Behind: told twice, last 8 min ago". */
function behind(row, what) {
  const told =
    row.told_at && row.wakes > 0
      ? ["told ", times(row.wakes), row.wakes > 1 ? ", last " : ", ", ago(row.told_at)]
      : "told by an alert";
  return ["Behind", what, ": ", told];
}

const MARKS = { ok: "✓", bad: "!", warn: "…", info: "→" };

/** The answer at the top of a device's page; under each line the relay's own sentence. */
export function whyPanel(states, device) {
  const all = answers(states, device);
  return h(
    "div",
    { class: `why tone-${all[0].tone}`, role: "status", "aria-label": "Why" },
    all.map(({ tone, title, detail, row }, index) =>
      h(
        "div",
        { class: `why-line tone-${tone}`, key: index },
        h("span", { class: "why-mark", "aria-hidden": "true" }, MARKS[tone]),
        h(
          "div",
          null,
          h("p", { class: "why-title" }, title),
          h("p", null, detail),
          row && h("p", { class: "why-says", dir: "auto" }, row.says),
        ),
      ),
    ),
  );
}
