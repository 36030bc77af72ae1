// The devices: found by user, installation id, feed or id, or listed by status, a page at a time.

import { registerDevice } from "../commands.js";
import { statusBadge, STATUSES } from "../badges.js";
import { fill, h } from "../dom.js";
import { ago, count, transportName } from "../format.js";
import { emptyNotice, loading, problemNotice } from "../notice.js";
import { repeat } from "../refresh.js";

export const TITLE = "Devices";
export const SCOPES = ["devices:read"];
const PAGE_DEVICES = 100;
/** Of each kind when the search says not which: enough to recognise, little enough to ask three times. */
const ANY_DEVICES = 20;
const EVERY_MS = 15_000;
const BY = { any: "Anything", user: "User", installation_id: "Installation id", feed: "Feed" };

export function show({ root, relay, signal, query, fail }) {
  const asked = {
    q: query.get("q") ?? "",
    by: BY[query.get("by")] ? query.get("by") : "any",
    status: STATUSES[query.get("status")] ? query.get("status") : "",
    cursor: query.get("cursor") ?? "",
  };
  const link = parts => {
    const wanted = Object.entries({ ...asked, cursor: "", ...parts });
    return `#/devices?${new URLSearchParams(wanted.filter(([name, value]) => value && !(name === "by" && value === "any")))}`;
  };
  const search = h("input", {
    type: "search",
    id: "q",
    value: asked.q,
    placeholder: "user, installation id, feed or dev_…",
    autocomplete: "off",
    spellcheck: "false",
    dir: "auto",
  });
  const by = h(
    "select",
    { id: "by" },
    Object.entries(BY).map(([name, word]) => h("option", { value: name, selected: name === asked.by }, word)),
  );
  const status = h(
    "select",
    { id: "status", on: { change: () => go() } },
    [["", "any status"], ...Object.keys(STATUSES).map(name => [name, name])].map(([name, word]) =>
      h("option", { value: name, selected: name === asked.status }, word),
    ),
  );
  const go = event => {
    event?.preventDefault();
    const q = search.value.trim();
    const asks = { q, by: by.value, status: status.value, open: event && q ? "one" : "" };
    location.hash = /^dev_[0-9a-z]+$/.test(q) ? `#/devices/${q}` : link(asks);
  };
  const list = h("div", { class: "stack", own: true }, loading("the devices"));
  fill(
    root,
    h("div", { class: "page-head" }, h("h1", { tabindex: -1 }, TITLE)),
    h(
      "form",
      { class: "row search", role: "search", on: { submit: go } },
      h("label", { for: "by" }, "Find"),
      by,
      h("label", { class: "hidden", for: "status" }, "Status"),
      status,
      h("label", { class: "hidden", for: "q" }, "Search"),
      search,
      h("button", { type: "submit" }, "Find"),
      (asked.q || asked.status) && h("a", { class: "button quiet", href: "#/devices" }, "All devices"),
    ),
    list,
  );
  if (query.get("focus") === "search") search.focus();

  // Who searches for what only one device has wants its page. The address forgets that, so that "back" leads to the list.
  let opensOne = query.get("open") === "one";
  if (opensOne) history.replaceState(null, "", link({ cursor: asked.cursor }));
  let page = null;
  repeat(
    async () => {
      page = await find();
      if (opensOne && page.items.length === 1 && !signal.aborted) {
        location.hash = `#/devices/${encodeURIComponent(page.items[0].id)}`;
        return;
      }
      opensOne = false;
      fill(list, found());
    },
    {
      everyMs: EVERY_MS,
      signal,
      failed: problem => {
        if (fail(problem) || (page && problem.away)) return;
        fill(list, problemNotice(problem, "The devices"), page && found());
      },
    },
  );

  async function find() {
    const common = { status: asked.status, cursor: asked.cursor };
    if (!asked.q) return relay.get("devices", { ...common, limit: PAGE_DEVICES }, signal);
    if (asked.by !== "any")
      return relay.get("devices", { ...common, [asked.by]: asked.q, limit: PAGE_DEVICES }, signal);
    // What cannot be a feed's or user's name is refused (422), and then nothing has it.
    const kinds = ["installation_id", "user", "feed"];
    const answers = await Promise.all(
      kinds.map(kind =>
        relay.get("devices", { status: asked.status, [kind]: asked.q, limit: ANY_DEVICES }, signal).catch(problem => {
          if (problem.status !== 422) throw problem;
          return { items: [], next: null };
        }),
      ),
    );
    const items = new Map();
    answers.forEach((answer, index) =>
      answer.items.forEach(device => {
        items.set(device.id, {
          ...(items.get(device.id) ?? device),
          found: [...(items.get(device.id)?.found ?? []), kinds[index]],
        });
      }),
    );
    return { items: [...items.values()], next: null, more: kinds.filter((_, index) => answers[index].next) };
  }

  function found() {
    if (page.items.length === 0) return none();
    return [
      h(
        "div",
        { class: "panel flush", key: "table" },
        h(
          "table",
          { class: "cards-on-phone" },
          h("caption", { class: "hidden" }, "Devices"),
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              ["Installation", "User", "Status", "Transport", "App, system", "Fetched", "Acked", "Last seen"].map(
                (word, index) => h("th", { scope: "col", class: index === 5 || index === 6 ? "num" : null }, word),
              ),
            ),
          ),
          h("tbody", null, page.items.map(deviceRow)),
        ),
      ),
      h(
        "div",
        { class: "row pager", key: "pager" },
        asked.cursor && h("a", { class: "button", href: link({}) }, "First page"),
        page.next && h("a", { class: "button", href: link({ cursor: page.next }) }, "Next page"),
        page.more?.map(kind =>
          h("a", { key: kind, class: "button", href: link({ by: kind }) }, `All by ${BY[kind].toLowerCase()}`),
        ),
        h("span", { class: "muted small-text" }, `${count(page.items.length)} on this page`),
      ),
    ];
  }

  function none() {
    if (asked.cursor)
      return emptyNotice("No more devices", h("p", null, h("a", { href: link({}) }, "Back to the first page")));
    if (asked.q || asked.status)
      return emptyNotice(
        "No such device",
        h(
          "p",
          null,
          "The search takes whole values, with upper and lower case: a user, an installation id, a feed such as ",
          h("code", null, "order:42"),
          ", or an id ",
          h("code", null, "dev_…"),
          ".",
        ),
        h("p", null, h("a", { href: "#/devices" }, "All devices")),
      );
    return emptyNotice(
      "No device is registered yet",
      h("p", null, "The backend registers its signed-in user’s device and hands the device token to the phone:"),
      registerDevice(),
    );
  }
}

function deviceRow(device) {
  return h(
    "tr",
    { key: device.id },
    h(
      "td",
      { "data-label": "Installation" },
      h(
        "a",
        { class: "break", dir: "auto", href: `#/devices/${encodeURIComponent(device.id)}` },
        device.installation_id,
      ),
      device.found && h("span", { class: "tag" }, `by ${device.found.map(kind => BY[kind].toLowerCase()).join(", ")}`),
    ),
    h(
      "td",
      { "data-label": "User" },
      device.user === null
        ? h("span", { class: "muted" }, "none")
        : h(
            "a",
            { class: "break", dir: "auto", href: `#/devices?by=user&q=${encodeURIComponent(device.user)}` },
            device.user,
          ),
    ),
    h("td", { "data-label": "Status" }, statusBadge(device.status)),
    h("td", { "data-label": "Transport" }, `${transportName(device.transport)}, ${device.platform}`),
    h(
      "td",
      { "data-label": "App, system", class: "break", dir: "auto" },
      [device.app_version, device.os].filter(Boolean).join(", ") || h("span", { class: "muted" }, "not given"),
    ),
    h("td", { "data-label": "Fetched", class: "num" }, device.fetched),
    h("td", { "data-label": "Acked", class: "num" }, device.acked),
    h("td", { "data-label": "Last seen" }, ago(device.seen_at)),
  );
}
