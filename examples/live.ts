// A client of live channels for a web page (docs/live.md), without dependencies.
//
// While the page is seen it listens to a stream of server-sent events. While it is hidden the stream is closed, and it polls: at once, when a
// push comes, and every poll.after_s. One cursor serves both and only one of them is at work, so nothing is missed when one takes over, and
// nothing comes twice.
//
//   const live = new Live("https://push.example.com", device_token, cursor, async (entries, cursor, through) => { … });
//   navigator.serviceWorker.addEventListener("message", (message) => live.onPush(message.data.wake));
//   const status = await live.run(); // until stop() (0), or the token is no longer good (401, 403): have the backend register again
//
// cursor is the one of the registration (poll.cursor), later the one that was stored last. apply stores entries and cursor in one
// transaction and resolves when that is done; then each event counts once even if the page is closed in the middle. If `through` is given,
// the entries are a snapshot, all that there is by key: take those whose position is higher than what you hold, and delete keys that you
// hold at a position up to `through` and that are not among them. An entry of the type reveille.followed says that a feed begins there; what
// is older is at its `snapshot`. register is called when the push token is dead: fetch a new one and have it registered.
//
// A stream that lasts for less than a minute is asked for again ever more slowly: another one of the same device may have taken its place.
//
// No enums, parameter properties or namespaces: without its types it is JavaScript (`node --experimental-strip-types`, `esbuild`).

export type Entry = { position: number; feed: string; type: string; key?: string; op?: string; data?: unknown; snapshot?: string };

export class Live {
  base!: string; token!: string; cursor!: string; apply!: (entries: Entry[], cursor: string, through?: number) => unknown;
  position = 0; ahead = new Set<number>(); anew = ""; wake = ""; after_s = 900; retry_s = 3; ended = -1; due = false;
  ring = () => {}; register = () => {}; abort = new AbortController();

  constructor(base: string, token: string, cursor: string, apply: Live["apply"]) { Object.assign(this, { base, token, cursor, apply }); }
  onPush(wake: string) { this.wake = wake; this.due = true; this.ring(); }
  turn() { this.due = true; this.abort.abort(); this.abort = new AbortController(); this.ring(); }
  stop() { this.ended = 0; this.turn(); }

  async run() {
    document.addEventListener("visibilitychange", () => this.turn());
    for (let failures = 0; this.ended < 0; this.due = false) {
      const seen = document.visibilityState === "visible", began = Date.now(), lasted = () => !seen || Date.now() - began > 60_000;
      failures = await (this.anew ? this.startAnew() : seen ? this.stream() : this.poll()).then(lasted, () => false) ? 0 : failures + 1;
      const wait_s = seen || failures ? Math.min(this.retry_s * 2 ** failures, 60) * (0.5 + Math.random() / 2) : this.after_s;
      if (!this.due && this.ended < 0) await new Promise<void>((rung) => { this.ring = rung; setTimeout(rung, wait_s * 1000); });
    }
    return this.ended;
  }

  async stream() {
    const reader = (await this.get("/v1/sync/stream", { "Last-Event-ID": this.cursor })).body!.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = "", read; ;) {
      const silent = setTimeout(() => this.turn(), 75_000); // the relay says something every 30 s
      read = await reader.read().finally(() => clearTimeout(silent));
      if (read.done) return;
      text += read.value; // blocks of lines "name: value", each line ended by \n, as the relay writes them
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) await this.heard(text.slice(0, end).split("\n"));
    }
  }

  async heard(lines: string[]) {
    const field = (name: string) => lines.filter((l) => l.startsWith(name + ": ")).map((l) => l.slice(name.length + 2)).join("\n");
    const event = field("event"), id = field("id"), data = JSON.parse(field("data") || "{}");
    if (event === "resync") { this.anew = data.snapshot ?? ""; this.due = true; }
    else if (id) await this.take(event === "event" ? [data] : [], id, event === "poll" ? data : {});
  }

  async poll() {
    const page = await (await this.get(`/v1/sync?limit=500&after=${this.cursor}${this.wake && "&wake=" + this.wake}`)).json();
    await this.take(page.events, page.next, { after_s: page.poll.after_s, push: page.push });
    this.wake = ""; this.due ||= page.has_more;
  }

  async startAnew(items: Entry[] = [], next = ""): Promise<void> {
    const page = await (await this.get(this.anew + next)).json();
    items.push(...page.items);
    await (page.next_page ? this.startAnew(items, "?page=" + page.next_page) : this.take(items, page.as_of, page));
  }

  async take(entries: Entry[], cursor: string, { through, after_s, push }: { through?: number; after_s?: number; push?: { register?: boolean } }) {
    await this.apply(entries.filter(({ position: p }) => through !== undefined || (p > this.position && !this.ahead.has(p))), cursor, through);
    this.cursor = cursor; this.position = through ?? entries.at(-1)?.position ?? this.position; this.after_s = after_s ?? this.after_s;
    if (through !== undefined) { this.ahead = new Set(entries.map((entry) => entry.position).filter((p) => p > through)); this.anew = ""; this.due = true; }
    if (push?.register) this.register();
  }

  async get(path: string, headers = {}) {
    const answer = await fetch(this.base + path, { headers: { Authorization: `Bearer ${this.token}`, ...headers }, cache: "no-store", signal: this.abort.signal });
    if (answer.ok) return answer;
    if (answer.status === 401 || answer.status === 403) this.ended = answer.status;
    this.retry_s = Number(answer.headers.get("retry-after")) || this.retry_s;
    this.anew = (await answer.json()).snapshot ?? ""; // of a cursor that leads nowhere
    throw answer;
  }
}
