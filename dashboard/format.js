// How times, durations, counts and shares are written. Times are UTC, as in the relay's own sentences, by the relay's clock.

import { h } from "./dom.js";

let skewMs = 0;

/** Now by the relay's clock: a browser's may be minutes off, and "3 s ago" would be a lie. */
export function now() {
  return Date.now() + skewMs;
}

/** Learns the relay's clock from a `Date` header, which has whole seconds. */
export function learnClock(date) {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  const seen = at + 500 - Date.now();
  skewMs = Math.abs(seen) > 2000 ? seen : 0;
}

/** "8 min ago", "in 4 min": a `<time>` that main.js keeps up to date, with the exact moment as its title. */
export function ago(at, { empty = "never" } = {}) {
  if (!at) return h("span", { class: "muted" }, empty);
  return h("time", { datetime: at, "data-ago": true, title: exact(at) }, relative(at));
}

/** The exact moment in a `<time>`: "12:40:07" today, else with its day. */
export function moment(at) {
  return at ? h("time", { datetime: at, title: exact(at) }, clock(at)) : h("span", { class: "muted" }, "–");
}

export function exact(at) {
  return `${new Date(at).toISOString().replace("T", " ").replace("Z", "")} UTC`;
}

export function relative(at) {
  const offMs = now() - Date.parse(at);
  const span = rough(Math.abs(offMs));
  if (Math.abs(offMs) < 1500) return "just now";
  return offMs < 0 ? `in ${span}` : `${span} ago`;
}

/** "12:40:07", or "22 Nov 12:40:07" on another day than today. */
export function clock(at) {
  const iso = new Date(at).toISOString();
  return iso.slice(0, 10) === new Date(now()).toISOString().slice(0, 10)
    ? iso.slice(11, 19)
    : `${day(at)} ${iso.slice(11, 19)}`;
}

export function day(at) {
  const date = new Date(at);
  return `${date.getUTCDate()} ${date.toLocaleString("en", { month: "short", timeZone: "UTC" })}`;
}

/** A span in its largest unit, for people: "8 min". */
export function rough(ms) {
  const units = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
  ];
  for (const [unitMs, word] of units) {
    if (ms >= (word === "d" ? 2 : 1) * unitMs) return `${Math.floor(ms / unitMs)} ${word}`;
  }
  return `${Math.floor(ms / 1000)} s`;
}

/** A measured time with two or three digits: "5 ms", "1.9 s", "4.3 min". */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  const units = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
    [1000, "s"],
  ];
  for (const [unitMs, word] of units) {
    if (ms >= unitMs) return `${digits(ms / unitMs)} ${word}`;
  }
  return `${Math.round(ms)} ms`;
}

function digits(value) {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)));
}

/** "1,234,567". */
export function count(n) {
  return n === null || n === undefined ? "–" : n.toLocaleString("en");
}

/** A count with its unit: "1 wake", "2 wakes". */
export function counted(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** "3rd try" and the like are avoided: "once", "twice", "5 times". */
export function times(n) {
  return n === 1 ? "once" : n === 2 ? "twice" : `${count(n)} times`;
}

/** "71.4 %"; a dash where there is nothing to divide by. */
export function share(ratio) {
  if (ratio === null || ratio === undefined || Number.isNaN(ratio)) return "–";
  const percent = ratio * 100;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  return `${percent >= 99.95 || percent === 0 ? Math.round(percent) : percent.toFixed(1)} %`;
}

export const TRANSPORTS = { apns: "APNs", fcm: "FCM", webpush: "Web Push", webhook: "Webhook", mqtt: "MQTT" };

/** A transport as people write it. */
export function transportName(transport) {
  return TRANSPORTS[transport] ?? transport;
}
