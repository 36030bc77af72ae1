// What a page says instead of figures: that it loads, that it may not, that something went wrong, that there is nothing yet.

import { h } from "./dom.js";

/** While the first answer is under way. */
export function loading(what) {
  return h("p", { class: "loading muted", role: "status" }, `Loading ${what}…`);
}

/** A problem in its own words, where it happened. */
export function problemNotice(problem, what) {
  const known = typeof problem.status === "number";
  return h(
    "div",
    { class: "notice bad", role: "alert", key: "problem" },
    h("strong", null, `${what}: ${known ? problem.title || "the relay refused" : "the dashboard failed"}`),
    h("p", null, known ? problem.detail : String(problem.message ?? problem)),
    known &&
      problem.errors.length > 1 &&
      h(
        "ul",
        null,
        problem.errors.map(({ pointer, detail }) => h("li", null, h("code", null, pointer), ` ${detail}`)),
      ),
    problem.retryAfterS && h("p", { class: "muted" }, `The relay asks to wait ${problem.retryAfterS} s.`),
  );
}

/** That the key lacks a scope, in place. */
export function scopeNotice(what, scopes) {
  const names = scopes.flatMap((scope, index) => [index > 0 && " or ", h("code", null, scope)]);
  return h(
    "div",
    { class: "notice", key: "scope" },
    h("strong", null, `${what}: this key lacks the scope `, names),
    h(
      "p",
      null,
      "Everything else goes on. An operator makes a key with more scopes: ",
      h("code", null, "POST /v1/apps/{app}/keys"),
      ".",
    ),
  );
}

/** Nothing here yet, and what to do about it. */
export function emptyNotice(title, ...body) {
  return h("div", { class: "empty", key: "empty" }, h("strong", null, title), body);
}

/** A title with a figure-like body: the panel every page is made of. */
export function panel(title, props, ...children) {
  const { aside, note, ...rest } = props ?? {};
  return h(
    "section",
    { ...rest, class: `panel ${rest.class ?? ""}` },
    h("header", { class: "panel-head" }, h("h2", null, title), aside),
    note && h("p", { class: "note" }, note),
    children,
  );
}
