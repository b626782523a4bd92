// OpenAI's client for JavaScript speaks with a model through the server of JETTY_API_URL. The model is
// the tests' own: its name says what it does.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { JETTY_API_URL: url, JETTY_API_TOKEN: apiKey } = process.env;
const SAID = "Grüß Gott, Welt 🌍!";
const messages = [{ role: "user", content: "Say something." }];
const ai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const create = (model, more = {}) => ai.chat.completions.create({ model, messages, ...more });
const text = async (stream) => {
    let said = "";
    for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? "";
    return said;
};
const fault = (promise) => promise.then(() => assert.fail("it was not refused"), (error) => error);

const completion = await create("gpt-say");
assert.equal(completion.choices[0].message.content, SAID);
assert.equal(completion.usage.total_tokens, 26);
assert.equal(await text(await create("gpt-say", { stream: true })), SAID);
assert.equal(await text(await new OpenAI({ baseURL: url, apiKey }).chat.completions.create(
    { model: "gpt-say", messages, stream: true })), SAID);

const tools = [{ type: "function", function: { name: "look", parameters: { type: "object", properties: {} } } }];
const runner = ai.chat.completions.stream({ model: "gpt-tools", messages, tools });
const { choices: [{ message }] } = await runner.finalChatCompletion();
assert.equal(message.tool_calls[0].function.arguments, '{"at": "the sky"}');

for (const [status, kind] of [
    [400, OpenAI.BadRequestError], [401, OpenAI.AuthenticationError], [403, OpenAI.PermissionDeniedError],
    [404, OpenAI.NotFoundError], [409, OpenAI.ConflictError], [429, OpenAI.RateLimitError],
    [500, OpenAI.InternalServerError],
]) {
    const error = await fault(create(`gpt-fail-${status}`));
    assert.ok(error instanceof kind && error.status === status, String(error));
    assert.equal(error.code, `made_up_${status}`);
    assert.ok(!String(error.message).includes("sk-made-up"));
}
const again = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 500 });
const slow = await fault(again.chat.completions.create({ model: "gpt-hang", messages }));
assert.ok(slow instanceof OpenAI.APIConnectionTimeoutError, String(slow));

// A client that has heard enough.
const stream = await create("gpt-endless", { stream: true });
stream.controller.abort();

const all = await Promise.all(Array.from({ length: 16 }, async () => text(await create("gpt-say", { stream: true }))));
assert.deepEqual([...new Set(all)], [SAID]);
assert.deepEqual((await ai.models.list()).data.map((one) => one.id), ["claude-code"]);
