// Every tool of jetty-mcp-server over MCP's stdio, against the server of JETTY_API_URL and JETTY_API_TOKEN.
import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const { JETTY_API_TOKEN, PATH } = process.env;
// The slash at the end is a person's usual slip.
const env = { JETTY_API_TOKEN, PATH, JETTY_API_URL: `${process.env.JETTY_API_URL}/` };
const transport = new StdioClientTransport({
    command: process.execPath, args: ["node_modules/jetty-mcp-server/dist/index.js"], env,
});
const client = new Client({ name: "runbookd-tests", version: "1.0.0" });
await client.connect(transport);
const { tools } = await client.listTools();
const called = new Set();

const text = async (name, args = {}) => {
    called.add(name);
    const { content, isError } = await client.callTool({ name, arguments: args }, undefined, { timeout: 120_000 });
    return { text: content[0].text, isError: isError === true };
};
const call = async (name, args) => {
    const answer = await text(name, args);
    assert.ok(!answer.isError, `${name}: ${answer.text}`);
    return JSON.parse(answer.text);
};
const refused = async (name, args) => {
    const answer = await text(name, args);
    assert.ok(answer.isError, `${name}: ${answer.text}`);
    return answer.text;
};

const collection = "team";
const task = "story";
const workflow = {
    init_params: { instruction: "# A story\n\nDo it.\n", model: "claude-sonnet-4-6", model_provider: "anthropic", subject: "" },
    step_configs: { run: { activity: "runbook", instruction_path: "init_params.instruction", agent: "claude-code" } },
    steps: ["run"],
};
assert.deepEqual((await call("list-collections")).map((one) => one.name), [collection]);
assert.equal((await call("get-collection", { collection })).name, collection);
await call("set-environment-vars", { collection, variables: { EXTRA: "1", GONE: "2" } });
await call("set-environment-vars", { collection, variables: { GONE: null } });
const secrets = await call("check-secrets", { collection, required_keys: ["EXTRA", "GONE"] });
assert.deepEqual([secrets.missing, secrets.ready], [["GONE"], false]);

assert.equal((await call("create-task", { collection, name: task, workflow })).name, task);
assert.deepEqual((await call("list-tasks", { collection })).map((one) => one.name), [task]);
assert.equal((await call("update-task", { collection, task, description: "Told" })).description, "Told");
assert.deepEqual((await call("get-task", { collection, task })).workflow, workflow);
assert.match(await refused("get-task", { collection, task: "nothing" }), /404.*nothing/);
assert.equal((await call("get-trial-status", { collection })).active, false);
assert.equal(typeof await call("activate-trial", { collection }), "object");
assert.ok((await call("list-step-templates")).templates.some((one) => one.activity_name === "runbook"));
assert.equal((await call("get-step-template", { name: "runbook" })).activity_name, "runbook");

const synced = await call("run-workflow-sync", { collection, task, init_params: { subject: "it" } });
assert.equal(synced.status, "completed", JSON.stringify(synced));
assert.equal(synced.result.success, true);
const ended = async (trajectory_id) => {
    for (;;) {
        const trajectory = await call("get-trajectory", { collection, task, trajectory_id });
        if (!["pending", "running"].includes(trajectory.status)) return trajectory;
    }
};
const started = await call("run-workflow", { collection, task });
const id = started.workflow_id.split("--").at(-1);
assert.equal((await ended(id)).status, "completed");
const listed = await call("list-trajectories", { collection, task });
assert.deepEqual(listed.trajectories.map((one) => one.trajectory_id), [id, synced.trajectory_id]);
assert.equal(typeof await call("get-stats", { collection, task }), "object");
await call("add-label", { collection, task, trajectory_id: id, key: "quality", value: "high", author: "tests@example.com" });
assert.equal((await ended(id)).labels[0].value, "high");

const routine = { collection, task, name: "hourly" };
const cadence = { type: "hourly", minute_utc: 15 };
assert.equal((await call("create-routine", { ...routine, cadence, init_params_overrides: { subject: "a" }, paused: true })).paused, true);
assert.match(await refused("create-routine", { ...routine, name: "odd", cadence, init_params_overrides: { nothing: 1 } }), /400.*nothing/);
assert.equal((await call("list-routines", { collection })).routines.length, 1);
assert.equal((await call("list-routines", { collection, task })).routines[0].name, "hourly");
assert.equal((await call("update-routine", { ...routine, cadence: { type: "manual" } })).cadence.type, "manual");
assert.equal((await call("resume-routine", routine)).paused, false);
assert.equal((await call("pause-routine", routine)).paused, true);
assert.equal((await call("get-routine", routine)).name, "hourly");
const fired = (await call("run-routine-now", routine)).workflow_id.split("--").at(-1);
assert.equal((await ended(fired)).status, "completed");
const runs = await call("list-routine-runs", { ...routine, limit: 5 });
assert.deepEqual(runs.trajectories.map((one) => one.trajectory_id), [fired]);
assert.equal(typeof await call("delete-routine", routine), "object");

assert.deepEqual(tools.map((tool) => tool.name).filter((name) => !called.has(name)), [], "tools without a story");
await client.close();
