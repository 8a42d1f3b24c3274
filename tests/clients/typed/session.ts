// The session of docs/API.md ("A whole session") in TypeScript, by types and calls that are generated from the API
// document alone: session.js BASE_URL TOKEN FIFO
//
// It compiles under --strict, which is half of the proof: paths, parameters, bodies, answers and the payload of each
// kind of event are typed. The other half is that it runs. The script around it kills the server at "middle".

import { appendFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Event = components["schemas"]["Event"];
type Kind = Event["kind"];

const [baseUrl, token, fifo] = process.argv.slice(2) as [string, string, string];
const headers = { Authorization: `Bearer ${token}` };
const lake = createClient<paths>({ baseUrl, headers });

function must(condition: unknown, text: string): asserts condition {
  if (!condition) throw new Error(text);
}

// What came, or the error as it was told.
function got<T>(answer: { data?: T; error?: unknown }): T {
  must(answer.data !== undefined, JSON.stringify(answer.error));
  return answer.data;
}

// `kind` narrows the payload: each case below has the fields of its own kind, and the compiler holds it to them.
function told(event: Event): string {
  switch (event.kind) {
    case "item.delta":
      return "delta" in event.payload ? event.payload.delta : "";
    case "turn.completed":
      return `${event.payload.status}: ${event.payload.assistant_text}`;
    case "approval.requested":
      return event.payload.approval.subject.type;
    case "agent.exited":
      return `${event.payload.exit_code ?? event.payload.signal}`;
    case "process.output":
      // @ts-expect-error no assistant answers in a process
      return event.payload.assistant_text;
    default:
      // What is left is every other kind, these not among them.
      return event.kind satisfies Exclude<Kind, "item.delta" | "turn.completed" | "agent.exited">;
  }
}

async function* follow(session: string, query: Record<string, string>): AsyncGenerator<Event> {
  const { data } = await lake.GET("/v1/sessions/{session_id}/events/stream", {
    params: { path: { session_id: session }, query },
    headers: { Accept: "application/x-ndjson" },
    parseAs: "stream",
  });
  must(data, "there is no stream");
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of data as unknown as AsyncIterable<Uint8Array>) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as Event;
  }
}

// The server is away for a moment after the kill.
async function again<T>(call: () => Promise<T>): Promise<T> {
  for (let pause = 50; ; pause = Math.min(pause * 2, 2000)) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      await new Promise((resume) => setTimeout(resume, pause));
    }
  }
}

const session = got(await lake.POST("/v1/sessions", { body: { provider: "demo", title: "First steps" } }));
must(session.status === "ready" && session.live, session.status);
const path = { session_id: session.id };

// A mistake is one for the compiler and for the server.
// @ts-expect-error there is no such field
const wrong: components["schemas"]["SessionCreate"] = { provider: "demo", modle: "x" };
const mistake = await lake.POST("/v1/sessions", { body: wrong });
must(mistake.error?.code === "bad_request", JSON.stringify(mistake.error));

async function start(text: string, when?: "now" | "queue") {
  const body = { input: [text], ...(when && { when }) };
  return lake.POST("/v1/sessions/{session_id}/turns", { params: { path }, body });
}

async function ended(turn_id: string) {
  const params = { path: { ...path, turn_id }, query: { wait_ms: 10_000 } };
  return got(await lake.GET("/v1/sessions/{session_id}/turns/{turn_id}", { params }));
}

// What is accepted, a turn that was waited for, or its text alone: which it is depends on the request.
function turnId(accepted: string | { turn_id: string } | { id: string }): string {
  must(typeof accepted === "object", "a text was not asked for");
  return "turn_id" in accepted ? accepted.turn_id : accepted.id;
}

// A command that has to be allowed.
let turn = turnId(got(await start("run echo hello")));
let approval: components["schemas"]["Approval"] | undefined;
for await (const event of follow(session.id, { until: "approval.requested" })) {
  if (event.kind === "approval.requested") approval = event.payload.approval;
}
must(approval?.subject.command === "echo hello", JSON.stringify(approval));
const answer = { params: { path: { ...path, approval_id: approval.id } }, body: { decision: "accept" } } as const;
const allowed = got(await lake.POST("/v1/sessions/{session_id}/approvals/{approval_id}", answer));
must(allowed.decided_by === "user", JSON.stringify(allowed));
must((await ended(turn)).assistant_text === "The command ended with exit code 0.", "the command did not run");
const twice = await lake.POST("/v1/sessions/{session_id}/approvals/{approval_id}", answer);
must(twice.error?.code === "already_resolved" && twice.error.approval?.id === approval.id, "answered twice");

// An interrupt; the turn that queued runs behind it.
turn = turnId(got(await start("slow 1000 100")));
must((await start("say me too")).error?.code === "turn_active", "two turns run");
const queued = turnId(got(await start("say me too", "queue")));
const interrupt = { params: { path: { ...path, turn_id: turn } } };
const { response } = await lake.POST("/v1/sessions/{session_id}/turns/{turn_id}/interrupt", interrupt);
must(response.status === 202, `${response.status}`);
must((await ended(turn)).status === "interrupted", "it goes on");
must((await ended(queued)).assistant_text === "me too", "it did not run");

// A kill in the middle of a turn: what the agent says meanwhile is there, once and in order.
turn = turnId(got(await start("slow 24 250")));
const filter = { turn_id: turn, kinds: "turn.*,item.delta" };
for await (const event of follow(session.id, { ...filter, limit: "4" })) must(event.turn_id === turn, told(event));
await appendFile(fifo, "middle\n");
const counted = Array.from({ length: 24 }, (_, n) => `${n + 1} `).join("");
const recovered = await again(async () => {
  const events: Event[] = [];
  for await (const event of follow(session.id, { ...filter, until: "turn.completed" })) events.push(event);
  must(events.at(-1)?.kind === "turn.completed", "the stream ended early");
  return events;
});
const deltas = recovered.filter((event) => event.kind === "item.delta").map(told).join("");
must(deltas === counted, deltas);

// The end; the log has no gap.
const closed = got(await lake.POST("/v1/sessions/{session_id}/close", { params: { path } }));
must(closed.status === "closed" && closed.usage && closed.usage.total_tokens, JSON.stringify(closed));
const events = got(await lake.GET("/v1/sessions/{session_id}/events", { params: { path } }));
must(events.every((event, at) => event.seq === at + 1), "there is a gap");
console.log(`${events.length} events, ${new Set(events.map((event) => event.kind)).size} kinds`);
