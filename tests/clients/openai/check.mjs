// What a user of the `openai` package for Node does, against a running server (see ../openai.sh).

import assert from "node:assert/strict";
import OpenAI from "openai";

const { DEPT_URL: baseURL, DEPT_MAIN_KEY: apiKey, DEPT_SLOW_KEY: slowKey } = process.env;
const model = "flan-t5-small-en";
const asked = "Answer in one sentence: why do people watch films?";
const messages = [{ role: "user", content: asked }];
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

function ok(what, holds) {
  assert.ok(holds, what);
  console.log("ok  node:", what);
}

async function rejects(what, promise, kind, found) {
  const error = await promise.then(
    () => assert.fail(`${what}: nothing was thrown`),
    (error) => error,
  );
  ok(what, error instanceof kind && Object.entries(found).every(([name, value]) => error[name] === value));
}

const ids = [];
for await (const one of client.models.list()) ids.push(one.id);
ok("models are listed", ids[0] === model && ids.includes("sst2"));

const text = await client.completions.create({ model: "sst2", prompt: "sentence: superb .", temperature: 0, logprobs: 1 });
ok("a completion", text.choices[0].text === "positive" && text.choices[0].logprobs.tokens.length >= 1);
let streamed = "";
const completion = await client.completions.create({ model: "sst2", prompt: "sentence: superb .", temperature: 0, stream: true });
for await (const chunk of completion) streamed += chunk.choices[0].text;
ok("a completion streams", streamed === "positive");

const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_completion_tokens: 20 });
const plain = await client.completions.create({ model, prompt: asked, temperature: 0, max_tokens: 20 });
ok("a chat", answer.choices[0].message.content === plain.choices[0].text && answer.usage.total_tokens > 5);
const chunks = [];
const stream = await client.chat.completions.create({
  model, messages, temperature: 0, max_completion_tokens: 20, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) chunks.push(chunk);
ok("a chat streams", chunks.slice(0, -1).map((c) => c.choices[0].delta.content ?? "").join("") === answer.choices[0].message.content);
ok("with its usage", chunks.at(-1).usage.completion_tokens === answer.usage.completion_tokens);
const final = await client.chat.completions.stream({ model, messages, temperature: 0, max_completion_tokens: 20 }).finalChatCompletion();
ok("and is put together", final.choices[0].message.content === answer.choices[0].message.content);

const ask = (more) => client.chat.completions.create({ model, messages, ...more });
await rejects("bad values", ask({ top_p: 2 }), OpenAI.BadRequestError, { param: "top_p" });
await rejects("an unknown model", ask({ model: "gpt-4o" }), OpenAI.NotFoundError, { param: "model" });
const stranger = new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 });
await rejects("a wrong key", stranger.models.list(), OpenAI.AuthenticationError, { code: "unauthorized" });
const slow = new OpenAI({ baseURL, apiKey: slowKey, maxRetries: 0 });
await rejects("too many requests", slow.models.list(), OpenAI.RateLimitError, { code: "quota_exceeded" });
