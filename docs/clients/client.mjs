// A reference client of gooselake: Node 20 and newer, and browsers. One file, no dependency, to be read and copied.
//
// docs/CLIENTS.md tells what it shows: a snapshot and the stream behind it without a seam, a cursor that survives
// breaks and restarts, waiting that grows, requests that can be sent again, and which errors are final.
//
//   node client.mjs http://127.0.0.1:8080 "$TOKEN" demo "say Hello!"

/** An answer that is an error. `code` is for programs, `message` for people. */
export class LakeError extends Error {
  constructor(status, body, headers) {
    super(body?.error ?? `the server answered ${status}`);
    this.status = status;
    this.code = body?.code ?? "unknown";
    this.body = body;
    this.requestId = headers.get("X-Request-Id");
    this.retryAfterMs = 1000 * Number(headers.get("Retry-After") ?? 0);
  }
}

const QUIET_MS = 35_000; // A stream that is silent for longer than three heartbeats of the server is dead.
const [PAUSE_FIRST_MS, PAUSE_MAX_MS] = [250, 10_000];

export class Lake {
  /** `retryMs`: how long a request is tried again while the server is away or full. */
  constructor(baseUrl, token, { retryMs = 60_000 } = {}) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.token = token;
    this.retryMs = retryMs;
  }

  /** A request that may be sent more than once and acts once. Gives `{body, headers}`; throws what did not pass. */
  async request(method, path, json = undefined, { signal } = {}) {
    const headers = { Authorization: `Bearer ${this.token}` };
    if (json !== undefined) headers["Content-Type"] = "application/json";
    // With the key a second POST is answered with what the first has made, also across a restart.
    if (method === "POST") headers["Idempotency-Key"] = crypto.randomUUID();
    const init = { method, headers, signal, body: json && JSON.stringify(json) };
    const until = Date.now() + this.retryMs;
    for (let attempt = 0; ; attempt += 1) {
      try {
        const response = await fetch(this.baseUrl + path, init);
        const body = await bodyOf(response);
        if (response.ok) return { body, headers: response.headers };
        throw new LakeError(response.status, body, response.headers);
      } catch (error) {
        if (signal?.aborted || !isPassing(error) || Date.now() > until) throw error;
        await pause(attempt, error.retryAfterMs, signal);
      }
    }
  }

  /**
   * Follows a session for ever: yields `{type: "snapshot", seq, pages}` first, then `{type: "event", event}` for each
   * event behind `seq`, once and in order, and `{type: "caught_up"}` when what was missed is through (after each
   * connect). A second snapshot replaces the first: it comes when events were dropped meanwhile, or the log is another
   * one. Ends when the loop over it ends or `signal` aborts; throws what no waiting mends.
   */
  async *follow(sessionId, { signal } = {}) {
    const path = `/v1/sessions/${sessionId}`;
    let cursor; // the seq of the last event that the caller has
    let attempt = 0;
    while (!signal?.aborted) {
      let retryAfterMs = 0;
      try {
        if (cursor === undefined) {
          const pages = await this.#transcript(path, signal);
          yield { type: "snapshot", seq: (cursor = pages[0].seq), pages };
        }
        for await (const frame of this.#frames(`${path}/events/stream?after_seq=${cursor}`, signal)) {
          attempt = 0;
          if (frame.id !== undefined) {
            const event = JSON.parse(frame.data);
            cursor = event.seq;
            yield { type: "event", event };
          } else if (frame.event === "stream.opened" && JSON.parse(frame.data).resume === "pruned") {
            cursor = undefined;
            break;
          } else if (frame.event === "stream.caught_up") yield { type: "caught_up" };
          // stream.closing says that the server stops; the end of the stream follows by itself.
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (error.code === "cursor_ahead") cursor = undefined;
        else if (!isPassing(error)) throw error;
        retryAfterMs = error.retryAfterMs;
      }
      if (cursor !== undefined) await pause(attempt, retryAfterMs, signal);
      attempt += 1;
    }
  }

  /** The conversation in pages `{items, seq}`, each with the seq that it is as of. */
  async #transcript(path, signal) {
    const pages = [];
    let next = "";
    do {
      const asked = `${path}/transcript?limit=10000${next && `&cursor=${next}`}`;
      const { body, headers } = await this.request("GET", asked, undefined, { signal });
      pages.push({ items: body, seq: Number(headers.get("X-As-Of-Seq")) });
      next = headers.get("X-Next-Cursor") ?? "";
    } while (next);
    return pages;
  }

  /** The frames of one connection, as SSE has them. Throws when it breaks, is silent for too long, or is refused. */
  async *#frames(path, signal) {
    const silence = new AbortController();
    const signals = signal ? [silence.signal, signal] : [silence.signal];
    let timer;
    const hear = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(new TypeError("the stream is silent")), QUIET_MS);
    };
    try {
      hear();
      const headers = { Authorization: `Bearer ${this.token}` };
      const response = await fetch(this.baseUrl + path, { headers, signal: AbortSignal.any(signals) });
      if (!response.ok) throw new LakeError(response.status, await bodyOf(response), response.headers);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      let frame = {};
      for (;;) {
        // The next piece is read when the last one is dealt with: a slow caller slows the server, and loses nothing.
        const { done, value } = await reader.read();
        if (done) return;
        hear();
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (line === "") {
            if (frame.data !== undefined) yield frame;
            frame = {};
          } else if (!line.startsWith(":")) {
            const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line); // the server's data is one line
            frame[field] = text;
          }
        }
      }
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }
}

/** The items of a conversation, kept up to date by what `follow` yields. */
export class Conversation {
  #entries = new Map(); // item_id -> {item, seq it is as of}

  get items() {
    return [...this.#entries.values()].map((entry) => entry.item);
  }

  take(message) {
    if (message.type === "snapshot") {
      const entries = message.pages.flatMap(({ items, seq }) => items.map((item) => [item.item_id, { item, seq }]));
      this.#entries = new Map(entries);
    } else if (message.type === "event" && message.event.kind.startsWith("item.")) {
      const { seq, payload } = message.event;
      const id = payload.item?.item_id ?? payload.item_id;
      const entry = this.#entries.get(id) ?? { item: {}, seq: 0 };
      if (seq <= entry.seq) return; // a later page of the snapshot has it already
      const { field, delta } = payload;
      const change = field ? { [field]: (entry.item[field] ?? "") + delta } : payload.set;
      this.#entries.set(id, { item: payload.item ?? { ...entry.item, ...change }, seq });
    }
  }
}

/** The network failed (a TypeError), the server says to come again, or a proxy says that it is away. 401 never is. */
function isPassing(error) {
  const isOfProxy = error.code === "unknown" && error.status >= 502;
  return error instanceof TypeError || error.status === 429 || error.status === 503 || isOfProxy;
}

/** The JSON of an answer; null where there is none, as in an error of a proxy. */
const bodyOf = (response) => response.json().catch(() => null);

/** Waits longer each time, and not all clients alike. */
async function pause(attempt, atLeastMs = 0, signal = undefined) {
  const most = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** Math.min(attempt, 10));
  const ms = Math.max(atLeastMs || 0, most * (0.5 + Math.random() / 2));
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => resolve(clearTimeout(timer)), { once: true });
  });
}

if (globalThis.process?.argv?.[1]?.endsWith("client.mjs")) {
  const [baseUrl, token, provider = "demo", prompt = "say Hello!"] = process.argv.slice(2);
  const lake = new Lake(baseUrl, token);
  const { body: session } = await lake.request("POST", "/v1/sessions", { provider });
  const { body: turn } = await lake.request("POST", `/v1/sessions/${session.id}/turns`, { input: [prompt] });
  for await (const { event } of lake.follow(session.id)) {
    if (event?.kind === "item.delta" && event.payload.field === "text") process.stdout.write(event.payload.delta);
    if (event?.turn_id === turn.turn_id && /^turn\.(completed|failed|interrupted)$/.test(event.kind)) break;
  }
  console.log();
}
