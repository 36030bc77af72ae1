// Credentials: which there are, whether the provider takes them, their breakers, and the mass brakes that wait for somebody to decide.

import { putCredentials } from "../commands.js";
import { badge } from "../badges.js";
import { confirmed } from "../confirm.js";
import { fill, h } from "../dom.js";
import { ago, clock, counted, duration, transportName } from "../format.js";
import { emptyNotice, loading, problemNotice, scopeNotice } from "../notice.js";
import { repeat } from "../refresh.js";
import { breakerBadge } from "./overview.js";

export const TITLE = "Credentials";
const EVERY_MS = 15_000;

const WINDOWS = {
  restore: {
    word: "Restore them",
    title: "Make the devices active again?",
    says:
      "All devices that got such a verdict since the window began are active again, and what waits for them is pushed " +
      "at once. Choose it when the fault was found: a wrong environment, topic or project.",
  },
  confirm: {
    word: "They are dead",
    title: "Give the devices up?",
    says:
      "The quarantined ones among them become gone: no pushes until each of them registers again. Choose it when the " +
      "tokens are dead indeed. This cannot be taken back.",
  },
};

export function show({ root, relay, signal, can, fail }) {
  const brakes = h("div", { class: "stack", own: true });
  const list = h("div", { class: "stack", own: true }, loading("the credentials"));
  fill(
    root,
    h("h1", { tabindex: -1 }, TITLE),
    h(
      "p",
      { class: "lead" },
      "What the relay shows the providers. Neither a Firebase service account nor an APNs key expires by itself; either " +
        "can be revoked, and then every push fails. Asking the provider costs nothing and reaches no phone.",
    ),
    brakes,
    list,
  );
  showBrakes();
  if (!can("credentials:write")) return fill(list, scopeNotice(TITLE, ["credentials:write"]));

  let items = null;
  let breakers = null;
  const findings = new Map();

  repeat(
    async () => {
      const [credentials, stats] = await Promise.all([
        relay.get("credentials", {}, signal),
        can("events:read", "devices:read") ? relay.get("stats", {}, signal) : null,
      ]);
      items = credentials.items;
      breakers = stats?.credentials ?? null;
      draw();
    },
    {
      everyMs: EVERY_MS,
      signal,
      failed: problem => {
        if (fail(problem) || (items && problem.away)) return;
        fill(list, problemNotice(problem, "The credentials"), items && cards());
      },
    },
  );

  function draw() {
    fill(list, cards());
  }

  function cards() {
    if (items.length === 0) {
      return emptyNotice(
        "There is no credential yet",
        h(
          "p",
          null,
          "Without one every wake is ",
          h("code", null, "skipped: no credential"),
          ". Hand over what Google or Apple gave you:",
        ),
        putCredentials(),
      );
    }
    return h("ul", { class: "cards wide" }, items.map(card));
  }

  function card(item) {
    const id = `${item.transport}/${item.name}`;
    const open = breakers?.filter(entry => entry.transport === item.transport && entry.name === item.name);
    const finding = findings.get(id);
    return h(
      "li",
      { key: id, class: "panel" },
      h(
        "header",
        { class: "panel-head" },
        h("h2", null, `${transportName(item.transport)}: `, h("span", { class: "break", dir: "auto" }, item.name)),
        open === undefined
          ? h("span", { class: "muted small-text" }, "breaker: needs events:read or devices:read")
          : open.length > 0
            ? open.map(breakerBadge)
            : badge({ shape: "disc", tone: "ok" }, "breaker closed"),
      ),
      h(
        "dl",
        { class: "facts" },
        fact("Fingerprint", h("code", null, item.fingerprint)),
        item.project_id && fact("Project", item.project_id),
        item.client_email && fact("Account", item.client_email),
        item.topics && fact("Topics", item.topics.join(", ")),
        item.environments && fact("Environments", item.environments.join(", ")),
        item.team_id && fact("Team, key", `${item.team_id}, ${item.key_id}`),
        fact("Made", ago(item.created_at)),
        fact(
          "Replaced",
          item.updated_at === item.created_at ? h("span", { class: "muted" }, "never") : ago(item.updated_at),
        ),
      ),
      h(
        "div",
        { class: "row" },
        h(
          "button",
          { type: "button", disabled: finding?.underWay, on: { click: () => check(item, id) } },
          finding?.underWay ? "Asking…" : "Ask the provider",
        ),
        h("span", { class: "muted small-text" }, "at most 12 times a minute, never two within 5 s"),
      ),
      h(
        "div",
        { role: "status" },
        finding?.problem && problemNotice(finding.problem, "The check"),
        finding?.answer && answer(finding),
      ),
    );
  }

  async function check(item, id) {
    findings.set(id, { ...findings.get(id), underWay: true });
    draw();
    try {
      // The name is always sent: a credential may itself be called "check".
      const found = await relay.post(
        `credentials/${encodeURIComponent(item.transport)}/${encodeURIComponent(item.name)}/check`,
        undefined,
        signal,
      );
      findings.set(id, { answer: found, at: new Date().toISOString() });
    } catch (problem) {
      if (signal.aborted || fail(problem)) return;
      findings.set(id, { problem });
    }
    draw();
  }

  function showBrakes() {
    if (!can("admin")) return fill(brakes, scopeNotice("Mass brakes", ["admin"]));
    let done = null;
    let releaseProblem = null;
    let standing = [];
    const again = repeat(
      async () => {
        standing = (await relay.get("brakes", {}, signal)).items;
        drawBrakes();
      },
      {
        everyMs: EVERY_MS,
        signal,
        failed: problem => {
          if (!fail(problem) && !problem.away) fill(brakes, problemNotice(problem, "The mass brakes"));
        },
      },
    );

    function drawBrakes() {
      fill(
        brakes,
        releaseProblem && problemNotice(releaseProblem, "The release"),
        done && h("div", { class: "notice ok", role: "status", key: "done" }, done),
        standing.map(brake =>
          h(
            "div",
            { class: "notice bad alarm", key: `${brake.transport}/${brake.environment}` },
            h("strong", null, `Mass brake: ${transportName(brake.transport)}, ${brake.environment}`),
            h(
              "p",
              null,
              brake.kind === "ambiguous"
                ? "Many push tokens got doubtful answers at once, which mostly means a wrong environment, topic or project."
                : "Many push tokens were called dead at once.",
              " No more devices are given up until somebody decides.",
            ),
            h(
              "p",
              { class: "small-text" },
              "on since ",
              ago(brake.engaged_at),
              "; its window began ",
              ago(brake.window_from),
              `; so far ${counted(brake.devices.gone, "device")} gone and ${counted(brake.devices.quarantined, "device")} quarantined.`,
            ),
            h(
              "div",
              { class: "row" },
              Object.entries(WINDOWS).map(([window, { word }]) =>
                h(
                  "button",
                  {
                    type: "button",
                    key: window,
                    class: window === "confirm" ? "danger" : "primary",
                    on: { click: () => release(brake, window) },
                  },
                  word,
                ),
              ),
            ),
          ),
        ),
      );
    }

    async function release(brake, window) {
      const { title, says, word } = WINDOWS[window];
      if (
        !(await confirmed({
          title,
          says: `${transportName(brake.transport)}, ${brake.environment}: ${says}`,
          yes: word,
          danger: window === "confirm",
          signal,
        }))
      )
        return;
      try {
        const { devices } = await relay.post(
          `brakes/${encodeURIComponent(brake.transport)}/${encodeURIComponent(brake.environment)}/release`,
          { window },
          signal,
        );
        releaseProblem = null;
        done =
          window === "restore"
            ? `Released: ${counted(devices.restored, "device")} active again.`
            : `Released: ${counted(devices.confirmed, "device")} given up.`;
      } catch (problem) {
        if (signal.aborted || fail(problem)) return;
        releaseProblem = problem;
      }
      drawBrakes();
      again();
    }
  }
}

function answer({ answer: found, at }) {
  return h(
    "div",
    { class: `notice ${found.ok ? "ok" : "bad"}` },
    h("strong", null, found.meaning, ": "),
    h("span", { dir: "auto" }, found.says),
    h(
      "p",
      { class: "muted small-text" },
      `${[found.status, found.reason].filter(Boolean).join(" ") || "no answer"} · took ${duration(found.took_ms)} · ${clock(at)} UTC`,
    ),
  );
}

function fact(name, ...value) {
  return h("div", { key: name }, h("dt", null, name), h("dd", { class: "break", dir: "auto" }, value));
}
