// The frame around every page: navigation, app, theme, sign-out, and one line that says when the relay is away.

import { fill, h, svg } from "./dom.js";
import { clock } from "./format.js";

const ICONS = {
  overview: "M3 13h4v7H3z M10 8h4v12h-4z M17 4h4v16h-4z",
  live: "M2 12h4l3-7 5 14 3-7h5",
  events: "M4 6h16 M4 12h16 M4 18h10",
  devices: "M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1z M11 18h2",
  credentials: "M12 16a4 4 0 1 1-8 0 4 4 0 0 1 8 0z M11 13l9-9 M16 8l3 3",
};

const PAGES = [
  ["overview", "#/", "Overview"],
  ["live", "#/live", "Live"],
  ["events", "#/events", "Events"],
  ["devices", "#/devices", "Devices"],
  ["credentials", "#/credentials", "Credentials"],
];

const THEMES = { auto: "As the system", light: "Light", dark: "Dark" };
/** The theme in use, in memory only; charts redraw when it changes. */
let theme = "auto";
export const themeState = new EventTarget();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  themeState.dispatchEvent(new Event("change")),
);

/** Builds the frame into the document; `main` in the answer is where pages go. */
export function drawChrome({ session, signOut }) {
  const main = h("main", { id: "main", tabindex: -1 });
  const banner = h("div", { class: "banner", role: "status", "aria-live": "polite" });
  const links = h("ul", { class: "nav-links" });
  fill(
    document.body,
    skipLink(main),
    h(
      "div",
      { class: "frame", key: `frame-${session.app?.id ?? "none"}` },
      h(
        "aside",
        { class: "side" },
        h("a", { class: "brand", href: "#/" }, mark(), h("span", null, "Reveille")),
        appName(session),
        h("nav", { "aria-label": "Pages" }, links),
        h(
          "div",
          { class: "side-foot" },
          themeChoice(),
          h("button", { type: "button", class: "quiet", on: { click: signOut } }, "Sign out"),
          h("p", { class: "muted small-text" }, "All times are UTC."),
        ),
      ),
      h("div", { class: "content" }, banner, main),
    ),
  );
  return {
    main: document.getElementById("main"),
    banner: document.querySelector(".banner"),
    links: document.querySelector(".nav-links"),
  };
}

/** Marks the page shown in the navigation; without an app there is nowhere to go yet. */
export function markPage(frame, current, { needsApp }) {
  fill(
    frame.links,
    needsApp
      ? []
      : PAGES.map(([name, href, word]) =>
          h(
            "li",
            { key: name },
            h("a", { href, "aria-current": name === current ? "page" : null }, icon(name), h("span", null, word)),
          ),
        ),
  );
}

/** Says that the relay is away or busy, and since when the figures stand; says nothing when it answers. */
export function showConnection(frame, problem) {
  if (!problem) {
    if (frame.awaySince) fill(frame.banner);
    frame.awaySince = null;
    return;
  }
  frame.awaySince ??= Date.now();
  const waitS = Math.max(1, Math.round((problem.againAtMs - Date.now()) / 1000));
  fill(
    frame.banner,
    h(
      "div",
      { class: "notice warn" },
      h("strong", null, problem.away ? "The relay is away. " : "The relay asks to wait. "),
      `${problem.detail} `,
      `What you see is from ${clock(frame.awaySince)} UTC; asking again in ${waitS} s, by itself.`,
    ),
  );
}

/** The link that keyboards meet first. */
export function skipLink(main) {
  const skip = event => {
    // A real fragment would be taken for a page by the router.
    event.preventDefault();
    (document.getElementById(main.id) ?? main).focus();
  };
  return h("a", { class: "skip", href: "#main", on: { click: skip } }, "Skip to the content");
}

export function mark() {
  return svg(
    "svg",
    { class: "mark", viewBox: "0 0 32 32", "aria-hidden": "true" },
    svg("rect", { width: 32, height: 32, rx: 7, fill: "#20264f" }),
    svg("path", { d: "M8 21a8 8 0 0 1 16 0z", fill: "#ffb454" }),
    svg("path", { d: "M5 24.5h22", stroke: "#fff", "stroke-width": 2.4, "stroke-linecap": "round" }),
    svg("path", {
      d: "M16 6.5v3.2M6.6 11.4l2.2 2.2M25.4 11.4l-2.2 2.2",
      stroke: "#ffb454",
      "stroke-width": 2.4,
      "stroke-linecap": "round",
    }),
  );
}

/** Light, dark or as the system has it; forgotten with the tab. */
export function themeChoice() {
  const change = event => {
    theme = event.target.value;
    document.documentElement.dataset.theme = theme;
    themeState.dispatchEvent(new Event("change"));
  };
  return h(
    "label",
    { class: "field theme" },
    h("span", null, "Theme"),
    h(
      "select",
      { on: { change } },
      Object.entries(THEMES).map(([name, word]) => h("option", { value: name, selected: name === theme }, word)),
    ),
  );
}

function appName(session) {
  if (session.caller !== "operator") {
    return h(
      "div",
      { class: "app-name" },
      h("span", { class: "muted small-text" }, `App key ${session.key.name}`),
      h("span", { class: "clip", title: session.app.name }, session.app.name),
    );
  }
  if (!session.app)
    return h(
      "div",
      { class: "app-name" },
      h("span", { class: "muted small-text" }, "Operator"),
      h("span", null, "No app chosen"),
    );
  return h(
    "a",
    { class: "app-name", href: "#/apps", title: `${session.app.name}: choose another app` },
    h("span", { class: "muted small-text" }, "Operator, as the app"),
    h("span", { class: "clip" }, session.app.name),
    h("span", { class: "small-text link" }, "Switch app"),
  );
}

function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}
