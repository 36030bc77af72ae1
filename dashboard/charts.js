// Lines over time, drawn by uPlot in the colours of the theme, with the figures under the pointer in words and as a table for everybody.

import { themeState } from "./chrome.js";
import { fill, h, hear } from "./dom.js";
import { day } from "./format.js";

const HEIGHT_PX = 190;
/** Rows of the table beside a chart: the newest, for a table of a thousand rows reads nobody. */
const TABLE_ROWS = 48;

/**
 * A chart that takes new figures: `lines` are `{label, tone, dash}`, `write` turns a value into text, `scale` is uPlot's for y, `marks`
 * chooses the values written beside it from its ends.
 * `update(at_s, columns, stepS)` draws; `element` goes into the page and is never rebuilt.
 */
export function lineChart({ title, note, lines, write, scale = {}, marks, bands = [], signal }) {
  const plotted = h("div", { class: "plot", own: true, role: "img", "aria-label": title });
  const legend = h("div", { class: "legend", own: true });
  const table = h("details", { class: "chart-table" }, h("summary", null, "As a table"));
  const body = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${title}, as a table` });
  table.append(body);
  const element = h(
    "figure",
    { class: "chart", own: true },
    h("figcaption", null, h("strong", null, title), note && h("span", { class: "muted small-text" }, note)),
    legend,
    plotted,
    table,
  );
  let plot = null;
  let data = null;
  let stepS = 0;

  const observer = new ResizeObserver(() => {
    const width = plotted.clientWidth;
    if (plot && width > 0 && Math.abs(width - plot.width) > 1) plot.setSize({ width, height: HEIGHT_PX });
    else if (!plot && data && width > 0) draw();
  });
  observer.observe(plotted);
  hear(themeState, "change", () => draw(), signal);
  hear(table, "toggle", () => drawTable(), signal);
  signal.addEventListener(
    "abort",
    () => {
      observer.disconnect();
      plot?.destroy();
    },
    { once: true },
  );

  function draw() {
    if (!data || signal.aborted || plotted.clientWidth === 0) return;
    plot?.destroy();
    plot = new window.uPlot(options(plotted.clientWidth), data, plotted);
  }

  function options(width) {
    // A custom property is text, light-dark() and all; only as somebody's colour is it worked out.
    const colour = name => {
      plotted.style.color = `var(--${name})`;
      return getComputedStyle(plotted).color;
    };
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: colour("muted"), font, grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    return {
      width,
      height: HEIGHT_PX,
      tzDate: at_s => window.uPlot.tzDate(new Date(at_s * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: true }, y: scale },
      bands: bands.map(series => ({ series, fill: colour("band") })),
      axes: [
        { ...axis, size: 30, space: 70, values: (_, splits) => splits.map(at_s => tick(at_s, splits)) },
        {
          ...axis,
          size: 60,
          splits: (_, __, least, most) => marks(least, most),
          filter: (_, splits) => splits,
          grid: { ...axis.grid, filter: (_, splits) => splits },
          values: (_, splits) => splits.map(value => (value === null ? "" : write(value).replace(".0 %", " %"))),
        },
      ],
      series: [
        {},
        ...lines.map(line => ({
          label: line.label,
          stroke: colour(line.tone),
          width: 2,
          dash: line.dash,
          spanGaps: false,
          points: { show: isLonely, size: 5, fill: colour(line.tone) },
        })),
      ],
      hooks: { setCursor: [({ cursor }) => drawLegend(cursor.idx)] },
    };
  }

  /** The figures at one step, or the newest. */
  function drawLegend(index) {
    const at = index ?? lastWithValue(data);
    fill(
      legend,
      lines.map((line, number) =>
        h(
          "span",
          { class: "legend-item", key: line.label },
          swatch(line),
          h("span", null, line.label),
          h("strong", null, at === null ? "–" : write(data[number + 1][at])),
        ),
      ),
      at !== null &&
        h(
          "span",
          { class: "muted", key: "when" },
          `${index === null || index === undefined ? "newest, " : ""}${when(data[0][at])} UTC`,
        ),
    );
  }

  function drawTable() {
    if (!table.open || !data) return;
    const rows = data[0]
      .map((at_s, index) => index)
      .filter(index => lines.some((_, number) => data[number + 1][index] !== null))
      .slice(-TABLE_ROWS)
      .reverse();
    fill(
      body,
      h(
        "table",
        { class: "dense" },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            h("th", { scope: "col" }, "Step from (UTC)"),
            lines.map(line => h("th", { scope: "col", class: "num" }, line.label)),
          ),
        ),
        h(
          "tbody",
          null,
          rows.map(index =>
            h(
              "tr",
              { key: data[0][index] },
              h("th", { scope: "row" }, when(data[0][index])),
              lines.map((_, number) => h("td", { class: "num" }, write(data[number + 1][index]))),
            ),
          ),
        ),
      ),
    );
  }

  function update(at_s, columns, step) {
    data = [at_s, ...columns];
    stepS = step;
    if (plot) plot.setData(data);
    else draw();
    drawLegend(plot?.cursor.idx ?? null);
    drawTable();
    const newest = lastWithValue(data);
    plotted.setAttribute(
      "aria-label",
      newest === null
        ? `${title}: nothing counted yet`
        : `${title}. Newest: ${lines.map((line, number) => `${line.label} ${write(data[number + 1][newest])}`).join(", ")}`,
    );
  }

  const when = at_s =>
    `${day(at_s * 1000)} ${new Date(at_s * 1000).toISOString().slice(11, 16)}${stepS >= 3600 ? ` + ${stepS / 3600} h` : ""}`;
  return { element, update };
}

/** A point that has no neighbour would be invisible as a line. */
function isLonely(plot, series) {
  const values = plot.data[series];
  return values.some((value, index) => value !== null && values[index - 1] == null && values[index + 1] == null);
}

function lastWithValue(data) {
  for (let index = data[0].length - 1; index >= 0; index -= 1) {
    if (data.slice(1).some(values => values[index] !== null)) return index;
  }
  return null;
}

function tick(at_s, splits) {
  const iso = new Date(at_s * 1000).toISOString();
  const wide = splits.length > 1 && splits[1] - splits[0] >= 86_400;
  return wide || iso.slice(11, 16) === "00:00" ? day(at_s * 1000) : iso.slice(11, 16);
}

function swatch(line) {
  return h("span", { class: `swatch ${line.dash ? "dashed" : ""}`, style: { "border-color": `var(--${line.tone})` } });
}

/** Puts a series, which leaves out steps that counted nothing, on an unbroken row of steps: holes must look like holes. */
export function steps(series, since, until, stepS) {
  const by = new Map(series.map(step => [Math.floor(Date.parse(step.at) / 1000), step]));
  const first = series.length > 0 ? Math.floor(Date.parse(series[0].at) / 1000) : 0;
  const sinceS = Math.floor(Date.parse(since) / 1000);
  const untilS = Math.floor(Date.parse(until) / 1000);
  // The relay says where steps begin; counting back from one of them keeps to its grid.
  let at = series.length > 0 ? first - Math.ceil((first - sinceS) / stepS) * stepS : sinceS;
  const at_s = [];
  for (; at <= untilS; at += stepS) at_s.push(at);
  return { at_s, rows: at_s.map(start => by.get(start) ?? null) };
}
