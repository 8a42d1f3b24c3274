// What the JavaScript client has to go through, in Node and in a browser alike.
//
// `tell` says a word to the script around it, which kills the server at "middle" and starts it again. Throws when
// anything was missed, came twice, or differs from what the server has in the end.

import { Conversation } from "./client.mjs";

const must = (condition, text) => {
  if (!condition) throw new Error(text);
};

export async function drive(lake, tell) {
  const { body: session } = await lake.request("POST", "/v1/sessions", { provider: "demo" });
  const path = `/v1/sessions/${session.id}`;
  const ask = async (text, when) =>
    (await lake.request("POST", `${path}/turns`, { input: [text], when })).body.turn_id;
  await ask("slow 40 50", "now");
  const conversation = new Conversation();
  const seen = { deltas: 0, caughtUp: 0 };
  let last;
  let second;
  for await (const message of lake.follow(session.id)) {
    conversation.take(message);
    if (message.type === "snapshot") last = message.seq;
    if (message.type === "caught_up") seen.caughtUp += 1;
    if (message.type !== "event") continue;
    const { event } = message;
    must(event.seq === last + 1, `${event.seq} came behind ${last}`);
    last = event.seq;
    if (event.kind === "item.delta" && (seen.deltas += 1) === 5) {
      await tell("middle");
      // The server is away now: this one is sent until it is back, and acts once.
      second = ask("say after the kill", "queue");
    }
    if (event.kind === "turn.completed" && second && event.turn_id === (await second)) break;
  }
  must(seen.caughtUp >= 2, `it was caught up ${seen.caughtUp} times: nothing broke`);
  const turns = (await lake.request("GET", `${path}/turns`)).body;
  const texts = turns.map((turn) => turn.assistant_text);
  const counted = Array.from({ length: 40 }, (_, n) => `${n + 1} `).join("");
  must(JSON.stringify(texts) === JSON.stringify([counted, "after the kill"]), JSON.stringify(texts));
  const items = (await lake.request("GET", `${path}/transcript`)).body;
  const sorted = (value) => JSON.stringify(value, Object.keys(Object.assign({}, ...items)).sort());
  must(sorted(conversation.items) === sorted(items), "the conversation is not the transcript");
  const refused = await new lake.constructor(lake.baseUrl, "wrong").request("GET", "/v1/sessions").catch((e) => e);
  must(refused.code === "unauthorized" && refused.requestId, `${refused}`);
  return `${last} events, ${items.length} items`;
}
