// The overview: from accepted events to phones that came, over time, and what is wrong right now.

import { postEvent, registerDevice } from "../commands.js";
import { badge, statusBadge, outcomeBadge, STATUSES, OUTCOMES } from "../badges.js";
import { fill, h } from "../dom.js";
import { ago, clock, count, counted, duration, moment, now, share, transportName } from "../format.js";
import { emptyNotice, loading, panel, problemNotice } from "../notice.js";
import { repeat } from "../refresh.js";
import { funnel } from "./funnel.js";
import { drawnCharts, troubled } from "./overview-charts.js";

export const TITLE = "Overview";
export const SCOPES = ["events:read", "devices:read"];
const EVERY_MS = 10_000;
const SPANS = {
  "24h": { word: "24 hours", spanMs: 86_400_000, stepS: 3600 },
  "7d": { word: "7 days", spanMs: 7 * 86_400_000, stepS: 7200 },
  // A minute less than the 30 days at most: clocks differ.
  "30d": { word: "30 days", spanMs: 30 * 86_400_000 - 60_000, stepS: 21_600 },
};

export function show({ root, relay, signal, query, fail, can }) {
  const span = SPANS[query.get("span")] ? query.get("span") : "24h";
  let wakeClass = "background";
  let stats = null;
  const top = h("div", { class: "stack", own: true }, loading("the figures"));
  const below = h("div", { class: "stack", own: true });
  const charts = drawnCharts(signal);
  const chartsPanel = h("section", { class: "panel", hidden: true, own: true });
  fill(
    root,
    h(
      "div",
      { class: "page-head" },
      h("h1", { tabindex: -1 }, TITLE),
      h(
        "nav",
        { class: "choice", "aria-label": "Time span" },
        Object.entries(SPANS).map(([name, { word }]) =>
          h(
            "a",
            { href: name === "24h" ? "#/" : `#/?span=${name}`, "aria-current": name === span ? "true" : null },
            word,
          ),
        ),
      ),
    ),
    top,
    chartsPanel,
    below,
  );

  repeat(
    async () => {
      const { spanMs, stepS } = SPANS[span];
      stats = await relay.get("stats", { since: new Date(now() - spanMs).toISOString(), step_s: stepS }, signal);
      draw();
    },
    {
      everyMs: EVERY_MS,
      signal,
      failed: problem => {
        if (fail(problem) || (stats && problem.away)) return;
        if (stats) fill(top, problemNotice(problem, "The figures"), upper(stats, span));
        else fill(top, problemNotice(problem, "The figures"));
      },
    },
  );

  function draw() {
    const quiet = stats.transports.length === 0;
    fill(top, upper(stats, span, quiet && firstSteps(stats)));
    chartsPanel.hidden = quiet;
    if (!quiet) drawCharts();
    fill(
      below,
      !quiet && byTransport(stats),
      h("div", { class: "columns" }, !quiet && attempts(stats), providers(stats, can), devices(stats)),
    );
  }

  function drawCharts() {
    fill(
      chartsPanel,
      h(
        "header",
        { class: "panel-head" },
        h("h2", null, "Over time"),
        h(
          "div",
          { class: "choice", role: "group", "aria-label": "Class of wake" },
          ["background", "alert"].map(name =>
            h(
              "button",
              {
                type: "button",
                key: name,
                "aria-pressed": String(name === wakeClass),
                on: {
                  click: () => {
                    wakeClass = name;
                    drawCharts();
                  },
                },
              },
              name,
            ),
          ),
        ),
      ),
      h("div", { key: "charts", class: "charts", own: true }),
    );
    const place = chartsPanel.querySelector(".charts");
    if (!place.firstChild) place.append(...charts.elements);
    charts.update(stats, wakeClass, SPANS[span].stepS);
  }
}

function upper(stats, span, empty) {
  return [
    stats.alarms.map(alarm => alarmNotice(alarm)),
    empty ||
      panel(
        "What became of the news",
        {
          note:
            `Counted since ${stats.since.slice(0, 16).replace("T", " ")} UTC, the last ${SPANS[span].word}; ` +
            `asked ${clock(stats.until)} UTC, again every 10 s.`,
        },
        funnel(stats.transports),
      ),
  ];
}

function alarmNotice({ name, raised_at, data }) {
  return h(
    "div",
    { class: "notice bad alarm", role: "alert", key: name },
    h("strong", null, "Alarm: ", h("code", { class: "break" }, name)),
    h(
      "p",
      { class: "break", dir: "auto" },
      typeof data?.says === "string" ? data.says : "The relay gives no sentence for it.",
    ),
    h(
      "p",
      { class: "muted small-text" },
      "raised ",
      ago(raised_at),
      name.startsWith("mass-brake/") && [" · ", h("a", { href: "#/credentials" }, "See and release the brake")],
    ),
  );
}

function byTransport({ transports }) {
  const heads = [
    ["Transport, class"],
    ["Events", "events that wanted a device awake, once per device"],
    ["Wakes", "wakes a provider accepted"],
    ["Wake rate", "fetched within 15 min, of the wakes that had their 15 min"],
    ["Median", "from the push to the poll that had its news"],
    ["p95", "95 of 100 were faster"],
    ["≤ 10 s"],
    ["≤ 60 s"],
    ["≤ 15 min"],
    ["Named push", "polls with news that named their push"],
    ["By itself", "polls with news that named no push"],
  ];
  return panel(
    "By transport and class",
    { key: "by-transport" },
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures by transport and class" },
      h(
        "table",
        null,
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            heads.map(([word, title], index) =>
              h("th", { scope: "col", class: index > 0 ? "num" : null, title }, word),
            ),
          ),
        ),
        h(
          "tbody",
          null,
          transports.map(row =>
            h(
              "tr",
              { key: `${row.transport} ${row.class}` },
              h("th", { scope: "row" }, `${transportName(row.transport)}, ${row.class}`),
              [
                count(row.events),
                count(row.wakes),
                share(row.wake_rate),
                duration(row.push_to_fetch_ms.median),
                duration(row.push_to_fetch_ms.p95),
                count(row.fetched.within_10s),
                count(row.fetched.within_60s),
                count(row.fetched.within_15min),
                count(row.woke_by_push),
                count(row.came_by_itself),
              ].map(text => h("td", { class: "num" }, text)),
            ),
          ),
        ),
      ),
    ),
  );
}

function attempts({ transports }) {
  const totals = {};
  for (const row of transports)
    for (const [outcome, n] of Object.entries(row.attempts)) totals[outcome] = (totals[outcome] ?? 0) + n;
  const all = Object.values(totals).reduce((sum, n) => sum + n, 0);
  return panel(
    "Attempts by outcome",
    { key: "attempts", note: `${counted(all, "call")} to providers.` },
    h(
      "ul",
      { class: "bars" },
      Object.entries(totals).map(([outcome, n]) =>
        h(
          "li",
          { key: outcome },
          outcomeBadge(outcome),
          h(
            "span",
            { class: `bar tone-${OUTCOMES[outcome]?.tone ?? "muted"}` },
            h("span", { style: { width: `${all > 0 ? (n / all) * 100 : 0}%` } }),
          ),
          h("span", { class: "num" }, `${count(n)} · ${share(all > 0 ? n / all : null)}`),
        ),
      ),
    ),
  );
}

function providers({ credentials, transports }, can) {
  const names = [
    ...new Set([...transports.map(row => row.transport), ...credentials.map(row => row.transport)]),
  ].sort();
  return panel(
    "Provider health",
    { key: "providers", aside: can("credentials:write") && h("a", { href: "#/credentials" }, "Credentials") },
    names.length === 0 && h("p", { class: "muted" }, "No calls to a provider in this time."),
    h(
      "ul",
      { class: "facts-list" },
      names.map(transport => {
        const sum = {};
        for (const row of transports.filter(entry => entry.transport === transport))
          for (const [outcome, n] of Object.entries(row.attempts)) sum[outcome] = (sum[outcome] ?? 0) + n;
        const open = credentials.filter(entry => entry.transport === transport);
        return h(
          "li",
          { key: transport },
          h("strong", null, transportName(transport)),
          " ",
          open.length === 0 ? badge({ shape: "disc", tone: "ok" }, "breakers closed") : open.map(breakerBadge),
          h(
            "p",
            { class: "muted small-text" },
            `${share(troubled(sum))} of its attempts in this time were troubled: throttled, unavailable or timeout.`,
          ),
        );
      }),
    ),
  );
}

/** The breaker of a credential that is not closed. */
export function breakerBadge({ name, breaker, until }) {
  const look = breaker === "open" ? { shape: "cross", tone: "bad" } : { shape: "triangle", tone: "warn" };
  return h(
    "span",
    { key: name },
    badge({ ...look, says: "after 10 troubled answers in a row wakes wait" }, `${name}: breaker ${breaker}`),
    until && [" until ", moment(until)],
  );
}

function devices({ devices: byStatus }) {
  const all = Object.values(byStatus).reduce((sum, n) => sum + n, 0);
  return panel(
    "Devices",
    { key: "devices", note: `${counted(all, "device")} by status, up to 10 s old.` },
    h(
      "ul",
      { class: "bars" },
      Object.entries(byStatus).map(([status, n]) =>
        h(
          "li",
          { key: status },
          h("a", { href: `#/devices?status=${status}` }, statusBadge(status)),
          h(
            "span",
            { class: `bar tone-${STATUSES[status]?.tone ?? "muted"}` },
            h("span", { style: { width: `${all > 0 ? (n / all) * 100 : 0}%` } }),
          ),
          h("span", { class: "num" }, count(n)),
        ),
      ),
    ),
  );
}

function firstSteps({ devices: byStatus }) {
  const registered = Object.values(byStatus).some(n => n > 0);
  return emptyNotice(
    "Nothing has been pushed in this time",
    h(
      "p",
      null,
      registered
        ? "Devices are registered. Append an event to a feed that one of them follows:"
        : "No device is registered yet. The backend registers its signed-in user’s device, then appends an event to a " +
            "feed that it follows:",
    ),
    !registered && registerDevice(),
    postEvent(),
    h(
      "p",
      null,
      "A credential for the provider is needed as well: see ",
      h("a", { href: "#/credentials" }, "Credentials"),
      ". This page looks again every 10 s.",
    ),
  );
}
