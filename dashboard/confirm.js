// Asks before something that is not undone by a second click.

import { h } from "./dom.js";

/** Shows a dialog; true if it was agreed to. Escape, the other button or leaving the page say no. */
export function confirmed({ title, says, yes, danger, signal }) {
  return new Promise(resolve => {
    let agreed = false;
    const close = value => {
      agreed = value;
      dialog.close();
    };
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": "confirm-title",
        "aria-describedby": "confirm-says",
        on: {
          close: () => {
            dialog.remove();
            resolve(agreed);
          },
        },
      },
      h("h2", { id: "confirm-title" }, title),
      h("p", { id: "confirm-says" }, says),
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", autofocus: true, on: { click: () => close(false) } }, "Leave it as it is"),
        h("button", { type: "button", class: danger ? "danger" : "primary", on: { click: () => close(true) } }, yes),
      ),
    );
    signal.addEventListener("abort", () => dialog.isConnected && dialog.close(), { once: true });
    document.body.append(dialog);
    dialog.showModal();
  });
}
