//! What agents do: tools, MCP servers, sub-agents, long words.

use expect_test::expect;
use serde_json::Value;

use crate::support::{Stage, Story};

stories! {
    a_failing_tool_is_joined_with_its_error_and_the_run_goes_on,
    an_mcp_server_answers_a_tool_call,
    an_mcp_server_that_is_not_there_is_warned_of,
    an_mcp_server_that_hangs_is_warned_of,
    a_sub_agents_steps_stand_under_its_call,
    an_answer_of_ten_megabytes_is_kept_whole,
}

/// An MCP server with one tool, which gives its text back.
pub(crate) const ECHO_SERVER: &str = r#"
schema='{"type":"object","properties":{"text":{"type":"string"}}}'
while IFS= read -r line; do
    [[ $line =~ \"id\":([0-9]+) ]] || continue
    id=${BASH_REMATCH[1]}
    case $line in
    *'"method":"initialize"'*)
        [[ $line =~ \"protocolVersion\":\"([0-9-]+)\" ]]
        result='{"protocolVersion":"'${BASH_REMATCH[1]}'","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}' ;;
    *'"method":"tools/list"'*)
        result='{"tools":[{"name":"say","description":"Says it.","inputSchema":'$schema'}]}' ;;
    *)
        [[ $line =~ \"text\":\"([a-z]+)\" ]]
        result='{"content":[{"type":"text","text":"echo: '${BASH_REMATCH[1]}'"}]}' ;;
    esac
    echo '{"jsonrpc":"2.0","id":'$id',"result":'$result'}'
done
"#;

/// A run with one MCP server.
fn served(server: &str, script: &str) -> Story {
    Story {
        runbook: format!("---\nmcp_servers:\n  tiny: {server}\n---\n# Ask the server\n"),
        ..Story::scripted(script)
    }
}

async fn a_failing_tool_is_joined_with_its_error_and_the_run_goes_on(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - text: I try three things at once.
    tools:
      - Bash: { command: "echo one; echo two >&2; exit 3" }
      - Read: { file_path: /app/nothing.txt }
      - NoSuchTool: { x: 1 }
  - text: None worked.
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/35/0/0/0/0
        message: I try three things at once.
        Bash {"command":"echo one; echo two >&2; exit 3"} -> FAILED Exit code 3\none\ntwo
        Read {"file_path":"/app/nothing.txt"} -> FAILED File does not exist. Note: your current working directory is /app.
        NoSuchTool {"x":1} -> FAILED <tool_use_error>Error: No such tool available: NoSuchTool</tool_use_error>
        message: None worked.
        result success: None worked.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_mcp_server_answers_a_tool_call(stage: &Stage) {
    let story = Story {
        assets: vec![("server.sh", ECHO_SERVER)],
        ..served(
            "{ command: bash, args: [/app/assets/server.sh] }",
            "turns: [{ tools: [{ mcp__tiny__say: { text: hello } }] }, { text: It answered. }]",
        )
    };
    let scene = story.run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/10/0/0/0/0
        message: 
        mcp__tiny__say {"text":"hello"} -> echo: hello
        message: It answered.
        result success: It answered.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    let servers = &scene.trajectory["agent"]["mcp_servers"];
    assert_eq!(*servers, serde_json::json!([{ "name": "tiny", "status": "connected" }]));
}

async fn an_mcp_server_that_is_not_there_is_warned_of(stage: &Stage) {
    let scene =
        served("{ command: no-such-server }", "turns: [{ text: I go on. }]").run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/2/0/0/0/0
        message: I go on.
        result success: I go on.
        ! The MCP server `tiny` was `failed` when a turn began: its tools were missing, at least at first.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_mcp_server_that_hangs_is_warned_of(stage: &Stage) {
    let scene = served("{ command: sleep, args: [\"1000\"] }", "turns: [{ text: I go on. }]")
        .run(stage)
        .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/2/0/0/0/0
        message: I go on.
        result success: I go on.
        ! The MCP server `tiny` was `pending` when a turn began: its tools were missing, at least at first.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn a_sub_agents_steps_stand_under_its_call(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - text: I send one out.
    tools:
      - Agent: { description: Count, prompt: "Count the files of /app.", subagent_type: general-purpose }
    usage: { input: 100, output: 20, cache_write_5m: 40 }
  - text: It counted.
    usage: { input: 130, output: 6, cache_read: 40 }
subagents:
  - when: Count the files
    turns:
      - thinking: A listing will do.
        tools: [{ Bash: { command: "ls /app | wc -l" } }]
        usage: { input: 1000, output: 250, cache_write_1h: 9 }
      - text: Two files.
        usage: { input: 1100, output: 30 }
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 2330/306/40/40/9/0
        message: I send one out.
        Agent {"description":"Count","prompt":"Count the files of /app.","subagent_type":"general-purpose"} -> Two files.\nagentId: ID (use SendMessage with to: 'ID' to continue this agent)\n<usage>total_tokens: 1130\ntool_uses: 1\n
          user: Count the files of /app.
          message: 
          Bash {"command":"ls /app | wc -l"} -> 2
        message: It counted.
        result success: It counted.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
    let steps = scene.trajectory["agent_steps"].as_array().unwrap();
    let call = steps.iter().find(|step| step["name"] == "Agent").unwrap();
    let inner = steps.iter().filter(|step| step["parent_tool_call"].is_string());
    assert!(inner.clone().count() > 0);
    assert!(inner.map(|step| &step["parent_tool_call"]).all(|id| *id == call["call_id"]));
}

async fn an_answer_of_ten_megabytes_is_kept_whole(stage: &Stage) {
    /// Times that ten bytes are said.
    const TIMES: usize = 1 << 20;
    let scene = Story::scripted(format!(
        "turns: [{{ text_repeat: {{ text: \"0123456789\", times: {TIMES} }}, usage: {{ input: 9, output: 2621440 }} }}]"
    ))
    .run(stage)
    .await;
    assert_eq!(scene.ending(), "completed");
    let whole = "0123456789".repeat(TIMES);
    let lines: Vec<Value> = scene
        .log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let said: Vec<bool> = lines
        .iter()
        .filter_map(|line| match line["type"].as_str() {
            Some("assistant") => line["message"]["content"][0]["text"].as_str(),
            _ => line["result"].as_str(),
        })
        .map(|text| text == whole)
        .collect();
    assert_eq!(said, [true, true], "the answer as a message and as the result");
    // What is clipped in the record says so.
    let answer = &scene.trajectory["agent_steps"][0]["text"];
    let kept = answer["text"].as_str().unwrap().len() as u64;
    assert_eq!(kept + answer["n_truncated_bytes"].as_u64().unwrap(), 10 << 20);
    assert!(kept < 1 << 20, "{kept}");
}
