// An operator's choice of app: every other page then shows that app.

import { makeApp } from "../commands.js";
import { fill, h } from "../dom.js";
import { moment } from "../format.js";
import { emptyNotice, loading, problemNotice } from "../notice.js";

export const TITLE = "Choose an app";
const PAGE_APPS = 50;

export function show({ root, relay, session, signal, choose, query, fail }) {
  const list = h("div", { own: true }, loading("the apps"));
  fill(
    root,
    h("h1", { tabindex: -1 }, TITLE),
    h(
      "p",
      { class: "lead" },
      session.caller === "operator"
        ? "The operator key sees all apps; choose the one to look at."
        : "An app key belongs to one app: there is nothing to choose.",
    ),
    session.caller === "operator" && list,
  );
  if (session.caller !== "operator") return;
  load();

  async function load() {
    try {
      const page = await relay.get("apps", { limit: PAGE_APPS, cursor: query.get("cursor") }, signal, {
        asOperator: true,
      });
      fill(list, page.items.length === 0 && !query.get("cursor") ? noApps() : apps(page));
    } catch (problem) {
      if (signal.aborted || fail(problem)) return;
      fill(list, problemNotice(problem, "The apps"), h("button", { type: "button", on: { click: load } }, "Ask again"));
    }
  }

  function apps({ items, next }) {
    return [
      h(
        "ul",
        { class: "cards" },
        items.map(app =>
          h(
            "li",
            { key: app.id },
            h(
              "button",
              { type: "button", class: "card-button", on: { click: () => choose(app) } },
              h("strong", { class: "break", dir: "auto" }, app.name),
              h("code", { class: "muted clip" }, app.id),
              h("span", { class: "muted small-text" }, "made ", moment(app.created_at)),
              session.app?.id === app.id && h("span", { class: "tag" }, "shown now"),
            ),
          ),
        ),
      ),
      h(
        "div",
        { class: "row pager" },
        query.get("cursor") && h("a", { class: "button", href: "#/apps" }, "First page"),
        next && h("a", { class: "button", href: `#/apps?cursor=${encodeURIComponent(next)}` }, "More apps"),
      ),
    ];
  }

  function noApps() {
    return emptyNotice(
      "There is no app yet",
      h("p", null, "Make one, then reload this list:"),
      makeApp(),
      h("button", { type: "button", on: { click: load } }, "Look again"),
    );
  }
}
