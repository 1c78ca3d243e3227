// One event stream a tab; closed while nobody looks; asks by itself when the stream is silent.
//
//     EventSource /stream  -> runs | now | curve | events | dream -> heard(kind, data)
//     silent for 5 s       -> GET /api/now every 3 s, the same five

import { Refused, address, ask } from "/static/api.js";

const KINDS = ["runs", "now", "curve", "events", "dream"];
const SILENCE_MS = 5000;
const ASK_MS = 3000;
const REOPEN_MS = 10000;

export class Feed {
  // heard(kind, data) takes each piece; failed(message) a refusal in words, or null when it is over;
  // farewell() says what to do about a server that went with its run, or null while the run lives.
  constructor({ heard, failed, farewell }) {
    this.heard = heard;
    this.failed = failed;
    this.farewell = farewell;
    this.run = null;
    this.source = null;
    this.lastHeard_ms = -Infinity;
    this.lastOpened_ms = -Infinity;
    this.lastAsked_ms = -Infinity;
    document.addEventListener("visibilitychange", () => this.#look());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.#look());
    setInterval(() => this.#tick(), 1000);
  }

  open(run) {
    this.run = run;
    this.lastHeard_ms = performance.now();
    this.#close();
    this.#look();
  }

  #look() {
    if (document.hidden) this.#close();
    else if (!this.source) this.#connect();
  }

  #close() {
    this.source?.close();
    this.source = null;
  }

  #connect() {
    this.lastOpened_ms = performance.now();
    const source = new EventSource(address("/stream", { run: this.run }));
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        if (source === this.source) this.#take(kind, JSON.parse(event.data));
      });
    }
    this.source = source;
  }

  #take(kind, data) {
    this.lastHeard_ms = performance.now();
    this.failed(null);
    this.heard(kind, data);
  }

  #tick() {
    if (document.hidden) return;
    const now_ms = performance.now();
    const closed = this.source?.readyState === EventSource.CLOSED; // refused: it never tries again
    if (closed && now_ms - this.lastOpened_ms > REOPEN_MS) {
      this.#close();
      this.#connect();
    }
    const silent = now_ms - this.lastHeard_ms > SILENCE_MS || closed;
    if (silent && now_ms - this.lastAsked_ms > ASK_MS) this.#ask(now_ms);
  }

  async #ask(now_ms) {
    this.lastAsked_ms = now_ms;
    const run = this.run;
    try {
      const newest = await ask("/api/now", { run });
      if (run !== this.run) return;
      this.failed(null);
      for (const kind of KINDS) if (newest[kind]) this.heard(kind, newest[kind]);
    } catch (error) {
      if (run !== this.run) return;
      const refused = error instanceof Refused;
      const gone = !refused || error.status === 401; // 401: another server may have its port now
      const message = (gone && this.farewell()) || (refused && error.message);
      if (message) this.failed(message);
    }
  }
}
