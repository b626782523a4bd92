// Jetty's grader of examples, as @jetty/sdk has it: files in, a grade and labels out.
import assert from "node:assert/strict";
import { gradeWithJetty, JettyClient } from "@jetty/sdk";

// The model's words come with the task, so that the sandbox needs no network.
const script = `
turns:
  - text: I grade the case.
    tools: [{ Bash: { command: "test -s /app/assets/case.json && echo '{\\"score\\": 5}' >/app/results/grade.json" } }]
  - text: All done.
`;
const client = new JettyClient();
await client.createTask("team", "grader", {
    init_params: {
        agent: "claude-code", model: "claude-sonnet-4-6", model_provider: "scripted", script,
        instruction: "# Grade\n\nGrade the case.\n", vars: {}, file_paths: [],
    },
    step_configs: { run: {
        cpus: 1, memory: "2G", activity: "runbook", network_enabled: false,
        agent_path: "init_params.agent", model_path: "init_params.model",
        instruction_path: "init_params.instruction", files_path: "init_params.file_paths",
        template_variables_path: "init_params.vars",
    } },
    steps: ["run"],
});
const { grade, gradeKey, trajectoryId, trajectory } = await gradeWithJetty(client, "team", "grader", {
    files: [{ filename: "case.json", data: Buffer.from('{"case": 1}'), contentType: "application/json" }],
    labels: ({ score }) => ({ grade: String(score) }),
    pollMs: 100, timeoutMs: 120_000,
});
assert.deepEqual(grade, { score: 5 });
assert.match(gradeKey, /^team\/grader\/.*grade\.json$/);
assert.equal(trajectory.status, "completed");
const { labels } = await client.getTrajectory("team", "grader", trajectoryId);
assert.deepEqual(labels.map(({ key, value, author }) => [key, value, author]), [["grade", "5", "jetty-sdk"]]);
