// Where it begins: who is signed in, which page is shown, and what happens when either changes. The key lives in `session`, only there.

import { relay } from "./api.js";
import { drawChrome, markPage, showConnection } from "./chrome.js";
import { fill, h } from "./dom.js";
import { relative } from "./format.js";
import { loading, problemNotice, scopeNotice } from "./notice.js";
import { relayState } from "./refresh.js";
import * as apps from "./pages/apps.js";
import * as credentials from "./pages/credentials.js";
import * as device from "./pages/device.js";
import * as devices from "./pages/devices.js";
import * as event from "./pages/event.js";
import * as events from "./pages/events.js";
import * as live from "./pages/live.js";
import * as overview from "./pages/overview.js";
import { showSignIn } from "./pages/sign-in.js";

const ROUTES = [
  { pattern: /^$/, page: overview, nav: "overview" },
  { pattern: /^live$/, page: live, nav: "live" },
  { pattern: /^events$/, page: events, nav: "events" },
  { pattern: /^events\/([^/]+)$/, page: event, nav: "events" },
  { pattern: /^devices$/, page: devices, nav: "devices" },
  { pattern: /^devices\/([^/]+)$/, page: device, nav: "devices" },
  { pattern: /^credentials$/, page: credentials, nav: "credentials" },
  { pattern: /^apps$/, page: apps, nav: "apps" },
];

/** `{relay, caller, app, key}` of who is signed in, or null. */
let session = null;
let shown = new AbortController();
let frame = null;

/** A link of `reveille demo --keep` carries its throw-away key; it leaves the address bar and the history before anything else. */
function keyInAddress() {
  if (!location.hash.startsWith("#key=")) return null;
  const key = decodeURIComponent(location.hash.slice("#key=".length));
  history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  return key;
}

/** Finds out who a key belongs to; throws the relay's Problem if nobody. */
async function signIn(key) {
  const asked = relay(key);
  const me = await asked.get("me");
  session = { relay: asked, caller: me.caller, app: me.app ?? null, key: me.key ?? null };
  frame = null;
  show();
}

function signOut(reason = null) {
  session = null;
  frame = null;
  if (!reason) history.replaceState(null, "", "#/");
  show(null, reason);
}

/** An operator goes on as another app. */
function choose(app) {
  session = { ...session, relay: session.relay.as(app.id), app };
  frame = null;
  if (location.hash === "#/") show();
  else location.hash = "#/";
}

/** Whether the caller has one of these scopes; an operator who acts as an app has all of them. */
function can(...scopes) {
  if (session.caller === "operator") return true;
  return session.key.scopes.some(scope => scope === "admin" || scopes.includes(scope));
}

function setTitle(...parts) {
  document.title = [...parts, session?.app?.name, "Reveille"].filter(Boolean).join(" · ");
}

function parse(hash) {
  const [path, search] = hash.replace(/^#\/?/, "").split("?");
  for (const route of ROUTES) {
    const found = route.pattern.exec(path);
    if (found)
      return { ...route, argument: found[1] ? safeDecode(found[1]) : null, query: new URLSearchParams(search ?? "") };
  }
  return null;
}

function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Shows what the address says, or the sign-in; whatever the page before was asking is broken off. */
function show(_, reason = null, keyGiven = null) {
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  if (!session) {
    setTitle("Sign in");
    showSignIn({ signIn, reason, keyGiven, signal });
    return;
  }
  const first = !frame;
  frame ??= drawChrome({ session, signOut: () => signOut() });
  const needsApp = session.caller === "operator" && !session.app;
  const asked = parse(location.hash);
  const route = needsApp && asked?.page !== apps ? { page: apps, nav: "apps" } : asked;
  markPage(frame, route?.nav, { needsApp });
  const root = h("div", { class: "page" });
  fill(frame.main);
  frame.main.append(root);
  frame.main.scrollTo?.(0, 0);
  scrollTo(0, 0);
  if (!route) {
    setTitle("Not found");
    fill(
      root,
      h("h1", { tabindex: -1 }, "There is no such page"),
      h("p", null, h("a", { href: "#/" }, "To the overview")),
    );
  } else {
    setTitle(route.page.TITLE);
    const page = {
      root,
      signal,
      session,
      relay: session.relay,
      can,
      choose,
      setTitle,
      query: route.query ?? new URLSearchParams(),
      argument: route.argument ?? null,
      fail: endIfRefused,
    };
    if (route.page.SCOPES && !can(...route.page.SCOPES)) {
      fill(root, h("h1", { tabindex: -1 }, route.page.TITLE), scopeNotice(route.page.TITLE, route.page.SCOPES));
    } else {
      open(route.page, page);
    }
  }
  if (!first && !root.contains(document.activeElement)) root.querySelector("h1")?.focus({ preventScroll: true });
}

function open(module, page) {
  try {
    module.show(page);
  } catch (error) {
    fill(page.root, h("h1", { tabindex: -1 }, module.TITLE), problemNotice(error, module.TITLE));
  }
  if (!page.root.firstChild) fill(page.root, h("h1", { tabindex: -1 }, module.TITLE), loading(module.TITLE));
}

/** Ends the session when the relay no longer takes the key; true if it has. */
function endIfRefused(problem) {
  if (problem.status !== 401) return false;
  signOut(`The relay no longer takes this key: ${problem.detail}`);
  return true;
}

addEventListener("hashchange", () => {
  const key = keyInAddress();
  if (!key) return show();
  session = null;
  frame = null;
  show(null, null, key);
});

relayState.addEventListener("change", ({ detail }) => {
  if (frame) showConnection(frame, detail);
});

// "8 min ago" grows old by itself, without asking anybody.
setInterval(() => {
  if (document.visibilityState !== "visible") return;
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = relative(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
}, 1000);

// "/" goes to the search of the page, or to the devices' search.
addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !session) return;
  if (event.target.closest?.("input, textarea, select, [contenteditable], dialog")) return;
  event.preventDefault();
  const search = document.querySelector("main input[type=search]");
  if (search) search.focus();
  else location.hash = "#/devices?focus=search";
});

show(null, null, keyInAddress());
