// The commands that people copy from the dashboard: what to do next where there is nothing to show yet.

import { fill, h } from "./dom.js";

/** The relay's address as phones and backends write it, for commands to copy. */
function relayUrl() {
  return new URL(".", document.baseURI).href.replace(/\/$/, "");
}

/** A command to copy. */
function command(...lines) {
  const text = lines.join("\n");
  const copy = async event => {
    // The page may have been brought up to date since, so what is beside the button now is asked for now.
    const said = event.currentTarget.nextElementSibling;
    try {
      await navigator.clipboard.writeText(text);
      fill(said, "Copied");
    } catch {
      fill(said, "Select it and copy it by hand: the browser does not allow it here");
    }
  };
  return h(
    "div",
    { class: "command" },
    h("pre", { tabindex: 0, role: "region", "aria-label": "Command" }, text),
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "small", on: { click: copy } }, "Copy"),
      h("span", { class: "muted", role: "status", own: true }),
    ),
  );
}

/** Appends an event to the feed that the other examples follow. */
export function postEvent() {
  return command(
    `curl ${relayUrl()}/v1/events -H "Authorization: Bearer $KEY" --json '{"feed": "order:42",`,
    `  "type": "order.updated", "key": "order/42", "data": {"status": "out_for_delivery"}}'`,
  );
}

/** Registers a device, as the backend does for its signed-in user. */
export function registerDevice() {
  return command(
    `curl ${relayUrl()}/v1/devices -H "Authorization: Bearer $KEY" --json '{"installation_id": "my-pixel",`,
    `  "transport": "fcm", "token": "THE-PUSH-TOKEN", "user": "17", "feeds": ["order:42"]}'`,
  );
}

/** Hands over what Google and Apple gave. */
export function putCredentials() {
  const put = (transport, file) =>
    `curl -X PUT ${relayUrl()}/v1/credentials/${transport} -H "Authorization: Bearer $KEY" --json @${file}`;
  return command(put("fcm", "service-account.json"), put("apns", "apns-credential.json"));
}

/** Makes an app, with the operator key. */
export function makeApp() {
  return command(`curl ${relayUrl()}/v1/apps -H "Authorization: Bearer $(cat operator.key)" --json '{"name": "shop"}'`);
}

/** Makes an app key that may read what the dashboard shows. */
export function makeKey() {
  return command(
    `curl ${relayUrl()}/v1/apps/APP/keys -H "Authorization: Bearer $(cat operator.key)" \\`,
    `  --json '{"name": "dashboard", "scopes": ["events:read", "devices:read"]}'`,
  );
}
