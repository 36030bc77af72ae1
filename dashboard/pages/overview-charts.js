// The charts of the overview: wake rate, troubled attempts, and the time from push to fetch, each over time and per transport.

import { lineChart, steps } from "../charts.js";
import { duration, share, transportName } from "../format.js";

const TRANSPORTS = [
  ["apns", "line-1", undefined],
  ["fcm", "line-2", [7, 4]],
];
/** Times that people know, about a decade apart each, for a logarithmic scale. */
const SCALE_MS = [1, 10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000];
const TROUBLED = ["throttled", "unavailable", "timeout"];

/** Four charts; `update` draws the figures of one class of wake. */
export function drawnCharts(signal) {
  const lines = TRANSPORTS.map(([transport, tone, dash]) => ({ label: transportName(transport), tone, dash }));
  const upTo = least => ({
    range: (_, __, most) => [0, Math.min(1, Math.max(least, Math.ceil((most ?? 0) * 20) / 20))],
  });
  const quarters = (_, most) => [0, 1, 2, 3, 4].map(part => (most * part) / 4);
  const rate = lineChart({
    title: "Wake rate",
    note: "wakes fetched within 15 min, of all that had their 15 min",
    lines,
    write: share,
    scale: upTo(1),
    marks: quarters,
    signal,
  });
  const trouble = lineChart({
    title: "Troubled attempts",
    note: "throttled, unavailable or timeout, of all attempts",
    lines,
    write: share,
    scale: upTo(0.2),
    marks: quarters,
    signal,
  });
  const latencies = TRANSPORTS.map(([transport, tone]) =>
    lineChart({
      title: `Push → fetch, ${transportName(transport)}`,
      note: "median and p95, of all that were fetched; logarithmic",
      lines: [
        { label: "p95", tone, dash: [3, 3] },
        { label: "median", tone },
      ],
      write: duration,
      scale: {
        distr: 3,
        range: (_, least, most) => [
          SCALE_MS.findLast(ms => ms <= (least ?? 1000)) ?? 1,
          SCALE_MS.find(ms => ms >= (most ?? 60_000)) ?? SCALE_MS.at(-1),
        ],
      },
      marks: (least, most) => SCALE_MS.filter(ms => ms >= least && ms <= most),
      bands: [[1, 2]],
      signal,
    }),
  );

  function update(stats, wakeClass, stepS) {
    const { at_s, rows } = steps(stats.series ?? [], stats.since, stats.until, stepS);
    const column = (transport, value) =>
      rows.map(row => {
        const figures = row?.transports.find(entry => entry.transport === transport && entry.class === wakeClass);
        return figures ? (value(figures) ?? null) : null;
      });
    rate.update(
      at_s,
      TRANSPORTS.map(([transport]) => column(transport, figures => figures.wake_rate)),
      stepS,
    );
    trouble.update(
      at_s,
      TRANSPORTS.map(([transport]) => column(transport, figures => troubled(figures.attempts))),
      stepS,
    );
    latencies.forEach((chart, index) => {
      const [transport] = TRANSPORTS[index];
      chart.update(
        at_s,
        ["p95", "median"].map(name =>
          column(transport, figures => figures.push_to_fetch_ms[name] && Math.max(1, figures.push_to_fetch_ms[name])),
        ),
        stepS,
      );
    });
  }
  return { elements: [rate, trouble, ...latencies].map(chart => chart.element), update };
}

/** The share of attempts that met trouble on the provider's side; null without attempts. */
export function troubled(attempts) {
  const all = Object.values(attempts).reduce((sum, n) => sum + n, 0);
  return all > 0 ? TROUBLED.reduce((sum, outcome) => sum + (attempts[outcome] ?? 0), 0) / all : null;
}
