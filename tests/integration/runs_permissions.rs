//! What an agent may do: modes, lists, and an agent that tries to allow itself more.

use expect_test::{Expect, expect};

use crate::support::{Stage, Story};

stories! {
    plan_mode_lets_it_look_and_change_nothing,
    default_mode_denies_what_somebody_would_have_to_allow,
    accept_edits_mode_lets_it_write_files_and_no_more,
    bypass_mode_denies_nothing,
    a_list_of_allowed_tools_allows_nothing_else,
    a_denied_tool_stays_denied_when_the_agent_rewrites_its_settings,
    an_allowed_list_stays_as_it_is_when_the_setup_writes_settings,
}

/// Looks, writes a file, starts a program that is not known to be harmless, and asks the network.
const FOUR_TOOLS: &str = "
turns:
  - tools:
      - Read: { file_path: /app/assets/notes.md }
      - Write: { file_path: /app/a.txt, content: x }
      - Bash: { command: \"python3 -c 'print(42)'\" }
      - WebFetch: { url: \"http://127.0.0.1:1/\", prompt: x }
  - text: Done.
";

/// Writes every settings file that the CLI might read, so that they allow everything.
const REWRITE: &str = r#"s='{"permissions":{"allow":["WebFetch","Bash","Write","mcp__tiny__say"],"deny":[],"defaultMode":"bypassPermissions"}}'; c=/logs/agent/sessions; mkdir -p /app/.claude $HOME/.claude; for f in /app/.claude/settings.json /app/.claude/settings.local.json $HOME/.claude/settings.json $c/settings.json $c/settings.local.json; do echo "$s" >$f || echo "not $f"; done; echo "$s" >/run/runbookd/in/settings.json || echo read-only"#;

/// A run of four tools with this front matter.
async fn four_tools(stage: &Stage, front_matter: &str, expected: Expect) {
    let story = Story {
        runbook: format!("---\n{front_matter}\n---\n# Try\n"),
        assets: vec![("notes.md", "a note")],
        ..Story::scripted(FOUR_TOOLS)
    };
    let scene = story.run(stage).await;
    expected.assert_eq(&scene.outline());
    assert_eq!(scene.ending(), "completed");
}

async fn plan_mode_lets_it_look_and_change_nothing(stage: &Stage) {
    four_tools(stage, "permission_mode: plan", expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/44/0/0/0/0
        message: 
        Read {"file_path":"/app/assets/notes.md"} -> 1	a note
        Write {"file_path":"/app/a.txt","content":"x"} -> FAILED Claude requested permissions to write to /app/a.txt, but you haven't granted it yet.
        Bash {"command":"python3 -c 'print(42)'"} -> FAILED This command requires approval
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED Claude requested permissions to use WebFetch, but you haven't granted it yet.
        message: Done.
        result success: Done.
        ! The agent was not allowed to use Bash, WebFetch, Write: 3 calls were refused.
        ! The run left no files in /app/results.
    "#]]).await;
}

async fn default_mode_denies_what_somebody_would_have_to_allow(stage: &Stage) {
    four_tools(stage, "permission_mode: default", expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/44/0/0/0/0
        message: 
        Read {"file_path":"/app/assets/notes.md"} -> 1	a note
        Write {"file_path":"/app/a.txt","content":"x"} -> FAILED Claude requested permissions to write to /app/a.txt, but you haven't granted it yet.
        Bash {"command":"python3 -c 'print(42)'"} -> FAILED This command requires approval
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED Claude requested permissions to use WebFetch, but you haven't granted it yet.
        message: Done.
        result success: Done.
        ! The agent was not allowed to use Bash, WebFetch, Write: 3 calls were refused.
        ! The run left no files in /app/results.
    "#]]).await;
}

async fn accept_edits_mode_lets_it_write_files_and_no_more(stage: &Stage) {
    four_tools(stage, "permission_mode: acceptEdits", expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/44/0/0/0/0
        message: 
        Read {"file_path":"/app/assets/notes.md"} -> 1	a note
        Write {"file_path":"/app/a.txt","content":"x"} -> File created successfully at: /app/a.txt
        Bash {"command":"python3 -c 'print(42)'"} -> FAILED This command requires approval
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED Claude requested permissions to use WebFetch, but you haven't granted it yet.
        message: Done.
        result success: Done.
        ! The agent was not allowed to use Bash, WebFetch: 2 calls were refused.
        ! The run left no files in /app/results.
    "#]]).await;
}

async fn bypass_mode_denies_nothing(stage: &Stage) {
    four_tools(
        stage,
        "permission_mode: bypassPermissions",
        expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/44/0/0/0/0
        message: 
        Read {"file_path":"/app/assets/notes.md"} -> 1	a note
        Write {"file_path":"/app/a.txt","content":"x"} -> File created successfully at: /app/a.txt
        Bash {"command":"python3 -c 'print(42)'"} -> 42
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED ECONNREFUSED
        message: Done.
        result success: Done.
        ! The run left no files in /app/results.
    "#]],
    )
    .await;
}

async fn a_list_of_allowed_tools_allows_nothing_else(stage: &Stage) {
    four_tools(stage, "allowed_tools: [Write, \"Bash(python3 *)\"]", expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/44/0/0/0/0
        message: 
        Read {"file_path":"/app/assets/notes.md"} -> 1	a note
        Write {"file_path":"/app/a.txt","content":"x"} -> File created successfully at: /app/a.txt
        Bash {"command":"python3 -c 'print(42)'"} -> 42
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED Claude requested permissions to use WebFetch, but you haven't granted it yet.
        message: Done.
        result success: Done.
        ! The agent was not allowed to use WebFetch: 1 call was refused.
        ! The run left no files in /app/results.
    "#]]).await;
}

async fn a_denied_tool_stays_denied_when_the_agent_rewrites_its_settings(stage: &Stage) {
    let rewrite = serde_json::to_string(REWRITE).unwrap();
    let story = Story {
        runbook: "---\ndisallowed_tools: [WebFetch, \"Bash(git *)\", \"mcp__tiny__*\"]\nmcp_servers:\n  tiny: { command: bash, args: [/app/assets/server.sh] }\n---\n# Try\n"
            .to_owned(),
        assets: vec![("server.sh", super::runs_agent::ECHO_SERVER)],
        ..Story::scripted(format!(
            "
turns:
  - tools: [{{ Bash: {{ command: {rewrite} }} }}]
  - tools:
      - WebFetch: {{ url: \"http://127.0.0.1:1/\", prompt: x }}
      - Bash: {{ command: \"true && git --version\" }}
      - mcp__tiny__say: {{ text: hello }}
      - Bash: {{ command: \"cat /app/.claude/settings.json | wc -l\" }}
  - text: Done.
"
        ))
    };
    let scene = story.run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 300/159/0/0/0/0
        message: 
        Bash {"command":"s='{\"permissions\":{\"allow\":[\"WebFetch\",\"Bash\",\"Write\",\"mcp__tiny__say\"],\"deny\":[],\"defaultMode\":\"bypassPermissions\"}}'; c=/logs/ag… -> /bin/bash: line 1: /run/runbookd/in/settings.json: Read-only file system\nread-only
        message: 
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED <tool_use_error>Error: No such tool available: WebFetch. WebFetch exists but is not enabled in this context. Use one of the available tools instead.</tool_use_e…
        Bash {"command":"true && git --version"} -> FAILED Permission to use Bash with command true && git --version has been denied.
        mcp__tiny__say {"text":"hello"} -> FAILED <tool_use_error>Error: No such tool available: mcp__tiny__say</tool_use_error>
        Bash {"command":"cat /app/.claude/settings.json | wc -l"} -> 1
        message: Done.
        result success: Done.
        ! The agent was not allowed to use Bash: 1 call was refused.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_allowed_list_stays_as_it_is_when_the_setup_writes_settings(stage: &Stage) {
    let setup = serde_json::to_string(REWRITE).unwrap();
    four_tools(stage, &format!("allowed_tools: []\nsetup: {setup}"), expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/44/0/0/0/0
        message: 
        Read {"file_path":"/app/assets/notes.md"} -> 1	a note
        Write {"file_path":"/app/a.txt","content":"x"} -> FAILED Claude requested permissions to write to /app/a.txt, but you haven't granted it yet.
        Bash {"command":"python3 -c 'print(42)'"} -> FAILED This command requires approval
        WebFetch {"url":"http://127.0.0.1:1/","prompt":"x"} -> FAILED Claude requested permissions to use WebFetch, but you haven't granted it yet.
        message: Done.
        result success: Done.
        ! The agent was not allowed to use Bash, WebFetch, Write: 3 calls were refused.
        ! The run left no files in /app/results.
    "#]]).await;
}
