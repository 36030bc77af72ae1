// Sign-in: takes a key, asks the relay whose it is, and says why if it is nobody's.

import { makeKey } from "../commands.js";
import { mark, themeChoice } from "../chrome.js";
import { fill, h } from "../dom.js";

/** Shows the form; `reason` says why the last session ended, `keyGiven` is tried at once. */
export function showSignIn({ signIn, reason, keyGiven, signal }) {
  const input = h("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    required: true,
    placeholder: "rk_… or the operator key",
    "aria-describedby": "key-note sign-in-says",
  });
  const says = h("div", { id: "sign-in-says", role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const toggle = h(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-pressed": "false",
      on: {
        click: () => {
          const hidden = input.type === "password";
          input.type = hidden ? "text" : "password";
          toggle.setAttribute("aria-pressed", String(hidden));
        },
      },
    },
    "Show",
  );

  async function attempt(key) {
    fill(says);
    button.disabled = true;
    fill(button, "Asking the relay…");
    try {
      await signIn(key);
      return;
    } catch (problem) {
      if (signal.aborted) return;
      fill(says, whyNot(problem));
      input.focus();
    }
    button.disabled = false;
    fill(button, "Sign in");
  }

  const submit = event => {
    event.preventDefault();
    const key = input.value.trim();
    if (!key) return fill(says, refusal("No key", "Paste an app key (rk_…) or the operator key."));
    // A header takes no such characters, and the browser's own words for it would help nobody.
    if (!/^[\x21-\x7e]+$/.test(key))
      return fill(
        says,
        refusal(
          "This is no key",
          "A key is made of printable ASCII without spaces; look for a line break or a quotation mark that was copied along.",
        ),
      );
    return attempt(key);
  };

  fill(
    document.body,
    h(
      "main",
      { class: "sign-in", id: "main", key: Symbol("sign-in") },
      h(
        "div",
        { class: "sign-in-card" },
        h("div", { class: "brand large" }, mark(), h("h1", null, "Reveille")),
        h("p", { class: "lead" }, "Do the pushes arrive, do the phones wake, and why did this one not update?"),
        reason &&
          h("div", { class: "notice warn", role: "alert" }, h("strong", null, "Signed out"), h("p", null, reason)),
        h(
          "form",
          { on: { submit }, novalidate: true },
          h("label", { for: "key" }, "App key or operator key"),
          h("div", { class: "row" }, input, toggle),
          h(
            "p",
            { id: "key-note", class: "muted small-text" },
            "It stays in this tab’s memory: not stored, not in the address. A reload forgets it.",
          ),
          button,
          says,
        ),
        h(
          "details",
          null,
          h("summary", null, "Where do I get a key?"),
          h(
            "p",
            null,
            "The operator key is the one that ",
            h("code", null, "reveille init"),
            " made. With it, make an app key that may read:",
          ),
          makeKey(),
        ),
        themeChoice(),
      ),
    ),
  );
  if (keyGiven) attempt(keyGiven);
  else input.focus();
}

function whyNot(problem) {
  if (problem.status === 401) return refusal("The relay does not know this key", problem.detail);
  if (problem.status === 429) return refusal(`Too many failed sign-ins: wait ${problem.retryAfterS} s`, problem.detail);
  if (problem.status === 403) return refusal("This key is not for the dashboard", problem.detail);
  if (problem.later) return refusal(`The relay is busy: try again in ${problem.retryAfterS} s`, problem.detail);
  return refusal(problem.title ?? "The sign-in failed", problem.detail ?? problem.message);
}

function refusal(title, detail) {
  return h("div", { class: "notice bad" }, h("strong", null, title), h("p", null, detail));
}
