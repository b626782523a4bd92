// Every public method of @jetty/sdk's client, against the server of JETTY_API_URL and JETTY_API_TOKEN.
import assert from "node:assert/strict";
import {
    JettyApiError, JettyAuthError, JettyClient, JettyNotFoundError, JettyRunFailedError, parseWorkflowId,
} from "@jetty/sdk";

const AUTHOR = "tests@example.com";
const real = new JettyClient();
const called = new Set();
const client = new Proxy(real, {
    get(target, name) {
        const value = target[name];
        if (typeof value !== "function") return value;
        called.add(name);
        return value.bind(target);
    },
});

// The workflow that Jetty's own examples deploy: the runbook, front matter included, is a parameter.
const workflow = {
    init_params: {
        agent: "claude-code", model: "claude-sonnet-4-6", model_provider: "anthropic",
        instruction: '---\nversion: "1.0.0"\nevaluation: programmatic\nsecrets:\n  MADE_UP_SECRET: {}\n---\n# Grade\n\nGrade {{subject}}.\n',
        vars: {}, file_paths: [],
    },
    step_configs: { run: {
        cpus: 1, memory: "2G", activity: "runbook",
        agent_path: "init_params.agent", model_path: "init_params.model",
        instruction_path: "init_params.instruction", files_path: "init_params.file_paths",
        template_variables_path: "init_params.vars",
    } },
    steps: ["run"],
};
const secretParams = { MADE_UP_SECRET: "made-up" };
const files = [{ filename: "case.json", data: '{"case": 1}', contentType: "application/json" }];
const fault = async (promise) => promise.then(() => assert.fail("it was not refused"), (error) => error);

// Collections.
assert.deepEqual((await client.listCollections()).map((one) => one.name), ["team"]);
assert.equal((await client.getCollection("team")).name, "team");
const changed = await client.setEnvironmentVars("team", { EXTRA: "1", GONE: "2" });
assert.deepEqual(Object.keys(changed.environment_variables).sort(),
    ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "EXTRA", "GONE"]);
await client.setEnvironmentVars("team", { GONE: null });
const environment = await client.getCollectionEnvironment("team");
assert.deepEqual(Object.keys(environment.environment_variables).sort(),
    ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "EXTRA"]);
assert.ok(!JSON.stringify(environment).includes("sk-ant-made-up"), "values are not shown");

// Tasks: deployed as the examples do, who look first and make what is not there.
const missing = await fault(client.getTask("team", "grader"));
assert.ok(missing instanceof JettyNotFoundError && missing.status === 404, missing);
assert.match(missing.body, /grader/);
const task = await client.createTask("team", "grader", workflow, "Grades cases");
assert.deepEqual([task.name, task.description, task.workflow], ["grader", "Grades cases", workflow]);
const taken = await fault(client.createTask("team", "grader", workflow));
assert.ok(taken instanceof JettyApiError && taken.status === 409, taken);
assert.equal((await client.updateTask("team", "grader", { description: "Better" })).description, "Better");
assert.deepEqual((await client.listTasks("team")).map((one) => one.name), ["grader"]);
assert.deepEqual((await client.getTask("team", "grader")).workflow, workflow);
await client.createTask("team", "with space", workflow);
assert.equal((await client.getTask("team", "with space")).name, "with space");
assert.equal(typeof (await client.deleteTask("team", "with space")).message, "string");

// Trial and templates.
assert.equal((await client.getTrialStatus("team")).active, false);
assert.equal(typeof await client.activateTrial("team"), "object");
const { templates } = await client.listStepTemplates();
assert.ok(templates.some((one) => one.name === "runbook"));
assert.equal((await client.getStepTemplate("runbook")).name, "runbook");

// Runs.
let polls = 0;
const run = await client.runAndWait("team", "grader", { vars: { subject: "the case" } },
    { files, secretParams, pollMs: 100, timeoutMs: 120_000, onPoll: () => { polls += 1; } });
assert.ok(polls >= 1);
assert.deepEqual([run.status, run.name, run.error], ["completed", "team/grader", null]);
assert.deepEqual([run.total_steps, run.completed_steps], [["run"], ["run"]]);
assert.deepEqual(Object.keys(run.steps), ["run"]);
const outputs = run.steps.run.outputs;
assert.equal(outputs.success, true);
assert.ok(outputs.usage.input_tokens > 0 && outputs.usage.output_tokens > 0, JSON.stringify(outputs));
assert.match(run.init_params.file_paths[0], /^team\/.*case\.json$/);
assert.ok(!JSON.stringify(run).includes('"made-up"'), "secrets are not recorded");

// Files.
const keyOf = (end) => outputs.files.map((file) => file.path ?? file).find((key) => key.endsWith(end));
const grade = await client.downloadFile(keyOf("grade.json"));
assert.equal(new TextDecoder().decode(grade.bytes), '{"score": 5}\n');
assert.match(grade.filename, /grade\.json$/);
assert.match(grade.contentType, /^application\/json/);
const seen = await client.downloadFile(keyOf("seen.json"));
assert.equal(new TextDecoder().decode(seen.bytes), '{"case": 1}');
const secret = await client.downloadFile(keyOf("secret.txt"));
assert.equal(new TextDecoder().decode(secret.bytes).trim(), "8", "the secret is there, with a newline");

// The same, by hand: with files, without waiting, and waiting on the connection.
const started = await client.runWithFiles("team", "grader", { vars: { subject: "x" } }, files, { secretParams });
const { trajectoryId } = parseWorkflowId(started.workflow_id);
assert.equal(started.workflow_id, `team-grader--${trajectoryId}`);
assert.equal((await client.getTrajectory("team", "grader", trajectoryId)).trajectory_id, trajectoryId);
const synced = await client.runWorkflowSync("team", "grader", { vars: { subject: "x" } },
    { secretParams, subscriptionCredential: "anthropic" });
assert.equal(synced.status, "completed", JSON.stringify(synced));
assert.equal(typeof synced.workflow_id, "string");
const alone = await client.runWorkflow("team", "grader", {}, { secretParams });
assert.match(alone.message, /started/);
const refused = await fault(client.runWorkflow("team", "grader", { file_paths: ["team/nowhere"] }, { secretParams }));
assert.ok(refused instanceof JettyApiError && refused.status === 400, refused);
const script = "turns: [{ fail: { status: 400, type: invalid_request_error, message: no }, times: forever }]";
const broken = await fault(client.runAndWait("team", "grader", { model_provider: "scripted", script },
    { secretParams, pollMs: 100, timeoutMs: 120_000 }));
assert.ok(broken instanceof JettyRunFailedError && broken.status === "failed", broken);
assert.match(broken.trajectoryError, /400/);

// Trajectories and what is told of them.
for (const id of [trajectoryId, alone.trajectory_id]) {
    for (let status; status !== "completed";) {
        ({ status } = await client.getTrajectory("team", "grader", id));
        assert.ok(["pending", "running", "completed"].includes(status), status);
    }
}
const page = await client.listTrajectories("team", "grader", 2);
assert.deepEqual([page.trajectories.length, page.page, page.limit, page.has_more], [2, 1, 2, true]);
assert.ok(page.total >= 4);
const second = await client.listTrajectories("team", "grader", 2, 2);
assert.notEqual(second.trajectories[0].trajectory_id, page.trajectories[0].trajectory_id);
assert.equal(typeof await client.getStats("team", "grader"), "object");
await client.addLabel("team", "grader", trajectoryId, "quality", "high", AUTHOR);
const [label] = (await client.getTrajectory("team", "grader", trajectoryId)).labels;
assert.deepEqual([label.key, label.value, label.author], ["quality", "high", AUTHOR]);
const logs = await client.getWorkflowLogs(started.workflow_id);
assert.ok(logs.events.length > 0 && logs.events.every((event) => typeof event.level === "string"));
const ingested = await client.ingestTrajectory("team", "eve-evals", {
    input: { question: 1 }, output: "two", scores: { accuracy: 0.5 }, labels: { "eval.pass": "true" },
    cost_usd: 0.25, trajectory_id: "session-turn_0", source: "eve", author: AUTHOR,
});
assert.deepEqual([ingested.trajectory_id, ingested.name, ingested.status],
    ["session-turn_0", "team/eve-evals", "completed"]);
assert.deepEqual(Object.fromEntries(ingested.labels.map(({ key, value }) => [key, value])),
    { "score.accuracy": "0.5", "eval.pass": "true", cost_est_usd: "0.25" });
const eve = await client.getTrajectory("team", "eve-evals", "session-turn_0");
assert.deepEqual([eve.init_params.input, eve.steps.eval.outputs.output], [{ question: 1 }, "two"]);

// Routines.
const routine = ["team", "grader", "nightly"];
const made = await client.createRoutine("team", "grader", {
    name: "nightly", cadence: { type: "daily", hour_utc: 3 }, secret_params: secretParams,
    init_params_overrides: { vars: { subject: "the night" } },
});
assert.equal(made.name, "nightly");
const odd = await fault(client.createRoutine("team", "grader",
    { name: "odd", cadence: { type: "hourly" }, init_params_overrides: { nothing: 1 } }));
assert.ok(odd.status === 400 && odd.body.includes("nothing"), odd);
assert.equal((await client.listRoutines("team")).routines.length, 1);
assert.equal((await client.listRoutines("team", "grader")).routines.length, 1);
assert.ok((await client.getRoutine(...routine)).next_run_at);
assert.equal((await client.updateRoutine(...routine, { cadence: { type: "weekly", day_of_week: "mon", hour_utc: 4 } })).cadence.type, "weekly");
assert.equal((await client.pauseRoutine(...routine)).paused, true);
assert.equal((await client.resumeRoutine(...routine)).paused, false);
const now = await client.runRoutineNow(...routine);
const fired = parseWorkflowId(now.workflow_id).trajectoryId;
for (let status; status !== "completed";) {
    ({ status } = await client.getTrajectory("team", "grader", fired));
    assert.ok(["pending", "running", "completed"].includes(status), status);
}
const runs = await client.listRoutineRuns(...routine, 5);
assert.deepEqual(runs.trajectories.map((one) => one.trajectory_id), [fired]);
assert.equal(typeof await client.deleteRoutine(...routine), "object");
assert.ok(await fault(client.getRoutine(...routine)) instanceof JettyNotFoundError);

// Refusals, in the SDK's own words.
const foreign = new JettyClient({ token: "mlc_00000000000000000000000000000000" });
const unknown = await fault(foreign.listCollections());
assert.ok(unknown instanceof JettyAuthError && unknown.status === 401, unknown);
for (const nowhere of [
    () => client.getCollection("nowhere"), () => client.getTrajectory("team", "grader", "00000000"),
    () => client.getStepTemplate("nothing"), () => client.downloadFile("team/grader/0000/nothing.txt"),
    () => client.runWorkflow("team", "nothing", {}), () => client.getWorkflowLogs("team-grader--00000000"),
]) assert.ok(await fault(nowhere()) instanceof JettyNotFoundError);
assert.equal(typeof (await client.deleteTask("team", "grader")).message, "string");

const own = new Set(["constructor", "seg", "buildRunForm"]);
const methods = Object.getOwnPropertyNames(JettyClient.prototype).filter((name) => !own.has(name));
assert.deepEqual(methods.filter((name) => !called.has(name)), [], "methods without a story");
