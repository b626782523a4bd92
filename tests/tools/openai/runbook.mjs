// OpenAI's client for JavaScript carries runbooks out on the server of JETTY_API_URL. JETTY_API_TOKEN
// is an admin's; the model is scripted.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const { JETTY_API_URL: url, JETTY_API_TOKEN: admin } = process.env;
const SAID = "I look around.\nThen I write.\n\nAll done.";
const RUNBOOK = `---
agent: claude-code
model_provider: anthropic
memory: 1G
cpus: 1
---
# Greet

Greet Ada.
`;
const made = await fetch(`${url}/api/v1/api-keys`, {
    method: "POST", headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
    body: JSON.stringify({ name: "story", collection_name: "team" }),
});
const { api_key: apiKey } = await made.json();
const ai = new OpenAI({ baseURL: `${url}/v1`, apiKey });
const ask = (jetty = {}, more = {}, options = {}, on = ai) => on.chat.completions.create({
    model: "claude-sonnet-4-6", jetty: { runbook: true, task: "greet", ...jetty }, ...more,
    messages: [{ role: "system", content: RUNBOOK }, { role: "user", content: "Execute the runbook." }],
}, options);
const fault = (promise) => promise.then(() => assert.fail("it was not refused"), (error) => error);

// In one piece.
const done = await ask();
assert.equal(done.choices[0].message.content, "All done.");
assert.equal(done.id, `chatcmpl-${done.jetty_metadata.trajectory_id}`);
assert.ok(done.usage.prompt_tokens > 0);
assert.equal((await ai.chat.completions.retrieve(done.id)).choices[0].message.content, "All done.");

// As a stream, by both of the client's ways.
let said = "";
for await (const chunk of await ask({}, { stream: true })) said += chunk.choices[0]?.delta.content ?? "";
assert.equal(said, SAID);
const runner = ai.chat.completions.stream({
    model: "claude-sonnet-4-6", jetty: { runbook: true, task: "greet" }, stream_options: { include_usage: true },
    messages: [{ role: "system", content: RUNBOOK }],
});
const whole = await runner.finalChatCompletion();
assert.equal(whole.choices[0].message.content, SAID);
assert.ok(whole.usage.total_tokens > 0);

// Files.
const file = await ai.files.create({ file: await toFile(Buffer.from("bees"), "notes.txt"), purpose: "user_data" });
assert.equal((await ask({ files: [file.id] })).jetty_metadata.status, "completed");

// Refusals and failures, in the client's own words.
const wrong = await fault(ask({ file_paths: [file.id] }));
assert.ok(wrong instanceof OpenAI.BadRequestError && wrong.param === "jetty.file_paths", String(wrong));
const nobody = new OpenAI({ baseURL: `${url}/v1`, apiKey: `mlc_${"0".repeat(32)}` });
assert.ok(await fault(ask({}, {}, {}, nobody)) instanceof OpenAI.AuthenticationError);
assert.ok(await fault(ask({ collection: "other-team" })) instanceof OpenAI.PermissionDeniedError);
const slow = { timeout_sec: 1, agent_env: { NAP: "30" } };
const late = await fault(ask(slow));
assert.ok(late instanceof OpenAI.UnprocessableEntityError && late.code === "timeout", String(late));
const cut = await fault((async () => { for await (const chunk of await ask(slow, { stream: true })) void chunk; })());
assert.ok(cut instanceof OpenAI.APIError && cut.code === "timeout", String(cut));
const impatient = await fault(ask({ agent_env: { NAP: "3" } }, {}, { timeout: 1000, maxRetries: 0 }));
assert.ok(impatient instanceof OpenAI.APIConnectionTimeoutError, String(impatient));
