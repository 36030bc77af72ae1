// Asks the relay. Every way it can go wrong becomes a Problem with words for people; Retry-After is kept for whoever asks next.

import { learnClock } from "./format.js";

const TIMEOUT_MS = 30_000;
/** How long a busy relay that names no time is left alone. */
const DEFAULT_PAUSE_S = 5;

/** An answer that says no, or none at all (`away`). */
export class Problem extends Error {
  constructor({ status = 0, title, detail, retryAfterS = null, errors = [] }) {
    super(detail || title);
    Object.assign(this, { status, title, detail: detail || title, retryAfterS, errors });
  }

  /** Nobody answered, or only what stands in front of the relay. */
  get away() {
    return [0, 502, 504].includes(this.status);
  }

  /** The relay asks to be left alone for a while. */
  get later() {
    return this.status === 429 || this.status === 503;
  }
}

/** The relay, as who holds `key` sees it; an operator acts as `app`. */
export function relay(key, app = null) {
  const held = new Map();

  async function ask(method, path, { query = {}, body, signal, asOperator = false } = {}) {
    waitIfAsked(held, `${method} ${path}`);
    const headers = { authorization: `Bearer ${key}`, accept: "application/json" };
    if (app && !asOperator) headers["reveille-app"] = app;
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await reach(url(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]) : AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    learnClock(response.headers.get("date"));
    if (response.ok) return response.status === 204 ? null : readJson(response);
    const problem = await problemOf(response);
    if (problem.later) hold(held, problem.status === 503 ? "*" : `${method} ${path}`, problem);
    throw problem;
  }

  return {
    get: (path, query, signal, options) => ask("GET", path, { query, signal, ...options }),
    post: (path, body, signal, options) => ask("POST", path, { body, signal, ...options }),
    /** The same relay as another app. */
    as: other => relay(key, other),
  };
}

/** A path below /v1 as a relative URL, so that it works behind a path prefix. */
function url(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  return `v1/${path}${search && `?${search}`}`;
}

async function reach(target, options) {
  try {
    return await fetch(target, options);
  } catch {
    if (options.signal.aborted && options.signal.reason?.name !== "TimeoutError") throw options.signal.reason;
    const slow = options.signal.aborted;
    const detail = slow
      ? `The relay did not answer within ${TIMEOUT_MS / 1000} s.`
      : "The relay cannot be reached: it is stopped, or the network is.";
    throw new Problem({ title: "The relay does not answer", detail });
  }
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The answer broke off",
      detail: "The relay's answer was no complete JSON; it may have been stopped just now.",
    });
  }
}

async function problemOf(response) {
  const text = await response.text().catch(() => "");
  let document = {};
  // What stands in front of the relay answers in HTML, which is nobody's business here.
  if ((response.headers.get("content-type") ?? "").includes("json")) {
    try {
      document = JSON.parse(text);
    } catch {
      document = {};
    }
  }
  const said = typeof document?.detail === "string";
  return new Problem({
    status: response.status,
    title: said ? String(document.title ?? "") : "The relay is not to be reached this way",
    detail: said
      ? document.detail
      : `${response.status} ${response.statusText}: the answer is not the relay's own; something in front of it gave it.`,
    retryAfterS: pauseOf(response),
    errors: Array.isArray(document?.errors) ? document.errors : [],
  });
}

/** Retry-After in seconds, whether it was given as seconds or as a date. */
function pauseOf(response) {
  const text = response.headers.get("retry-after");
  if (!text) return [429, 503].includes(response.status) ? DEFAULT_PAUSE_S : null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(1, Math.ceil(seconds)), 3600) : DEFAULT_PAUSE_S;
}

function hold(held, what, problem) {
  held.set(what, { problem, until: Date.now() + problem.retryAfterS * 1000 });
}

/** Does not even ask before the time that the relay has named. */
function waitIfAsked(held, request) {
  for (const what of ["*", request]) {
    const known = held.get(what);
    if (!known) continue;
    const leftS = Math.ceil((known.until - Date.now()) / 1000);
    if (leftS > 0) throw new Problem({ ...known.problem, detail: known.problem.detail, retryAfterS: leftS });
    held.delete(what);
  }
}
