//! Claude Code's flags and variables for a headless run.
//!
//! Each was established by driving CLI 2.1.126; the reasons stand beside them.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::json;

use super::tools;
use crate::runtime::invocation::{Assignment, Invocation, Session};

/// Where the CLI keeps its configuration and its session files.
pub const SESSIONS: &str = "/logs/agent/sessions";

/// A folder that the agent can read and not write.
const INPUTS: &str = "/run/runbookd/in";

/// The only settings that the CLI reads. It obeys their denials in every mode, and no file that the
/// agent can write adds to them.
const SETTINGS: &str = "/run/runbookd/in/settings.json";

/// Longest prompt that is passed as it is, in bytes. The CLI estimates tokens as bytes / 4 and
/// silently replaces a prompt beyond about 660 KB by a summary, for models with a window of 200,000
/// tokens.
const MAX_PROMPT_BYTES: usize = 500_000;

/// How the agent addresses a file in a prompt: the CLI attaches the file, wherever it lies.
static MENTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(^|\s)@\S"#).expect("the pattern is valid"));

/// How to start the CLI for `assignment`.
#[must_use]
pub fn invocation(assignment: &Assignment<'_>) -> Invocation {
    let prompt = Prompt::new(assignment);
    let mut files = prompt.files;
    files.push((format!("{INPUTS}/.mcp.json"), mcp_json(assignment)));
    files.push((SETTINGS.to_owned(), tools::settings(assignment.permissions)));
    Invocation {
        args: args(assignment),
        env: env(assignment, &prompt.text),
        files,
        stdin: prompt.text.into_bytes(),
        notes: prompt.notes,
    }
}

fn args(assignment: &Assignment<'_>) -> Vec<String> {
    let mut args = vec![
        "-p".to_owned(),
        "--output-format=stream-json".to_owned(),
        // Without it the CLI refuses stream-json.
        "--verbose".to_owned(),
        format!("--model={}", assignment.model),
        format!("--permission-mode={}", assignment.permissions.mode.as_str()),
        match assignment.session {
            Session::New(id) => format!("--session-id={id}"),
            Session::Resumed(id) => format!("--resume={id}"),
        },
        format!("--mcp-config={INPUTS}/.mcp.json"),
        // A `.mcp.json` or `.claude/settings.json` in the workspace could redirect the traffic. The
        // user's settings are files that the agent and its setup script can write, too.
        "--strict-mcp-config".to_owned(),
        "--setting-sources=".to_owned(),
        format!("--settings={SETTINGS}"),
        // With `=`, because the list flags swallow what follows them.
        format!("--disallowedTools={}", tools::NEVER.join(",")),
    ];
    let granted = tools::granted(assignment.permissions, assignment.mcp_servers);
    if !granted.is_empty() {
        args.push(format!("--allowedTools={}", granted.join(",")));
    }
    args.extend(assignment.max_turns.map(|n| format!("--max-turns={n}")));
    args
}

fn env(assignment: &Assignment<'_>, prompt: &str) -> Vec<(&'static str, String)> {
    let mut env = vec![
        ("CLAUDE_CONFIG_DIR", SESSIONS.to_owned()),
        // Exactly `1`: it also keeps retrying an overloaded Opus.
        ("IS_SANDBOX", "1".to_owned()),
        // No telemetry, no update check, and no title call that sends the key elsewhere.
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("DISABLE_AUTOUPDATER", "1".to_owned()),
        // A background task keeps the process alive after its result.
        ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1".to_owned()),
        // Without it a stalled stream of any other host than Anthropic's stalls for ever.
        ("CLAUDE_ENABLE_STREAM_WATCHDOG", "1".to_owned()),
        ("CLAUDE_CODE_MAX_RETRIES", assignment.model_retries.to_string()),
        ("API_TIMEOUT_MS", "300000".to_owned()),
        // MCP servers get their own variables and not the provider's key.
        ("CLAUDE_CODE_MCP_ALLOWLIST_ENV", "1".to_owned()),
        // Every tool is in every request, whichever provider answers.
        ("ENABLE_TOOL_SEARCH", "false".to_owned()),
    ];
    // Of sub-agents too. What is set aside for an answer is its longest.
    let most = assignment.max_output_tokens.map(|most| most.to_string());
    env.extend(most.map(|most| ("CLAUDE_CODE_MAX_OUTPUT_TOKENS", most)));
    if MENTION.is_match(prompt) {
        env.push(("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1".to_owned()));
    }
    env
}

/// The servers in the file format that Claude Code and other MCP clients share.
fn mcp_json(assignment: &Assignment<'_>) -> Vec<u8> {
    json!({ "mcpServers": assignment.mcp_servers }).to_string().into_bytes()
}

/// What the agent is told, and how.
struct Prompt {
    text: String,
    files: Vec<(String, Vec<u8>)>,
    notes: Vec<String>,
}

impl Prompt {
    fn new(assignment: &Assignment<'_>) -> Self {
        let text = assignment.instruction;
        if text.len() > MAX_PROMPT_BYTES && !takes_a_million_tokens(assignment.model) {
            let path = format!("{INPUTS}/instruction.md");
            let n_bytes = text.len();
            return Self {
                text: format!(
                    "Your instruction is in the file {path} ({n_bytes} bytes, too long for one \
                     message). Read all of it, in parts, and then carry it out."
                ),
                files: vec![(path.clone(), text.as_bytes().to_vec())],
                notes: vec![format!(
                    "The instruction has {n_bytes} bytes; {} takes about {MAX_PROMPT_BYTES} in one \
                     message, so the agent reads it from {path}.",
                    assignment.model
                )],
            };
        }
        // A `/` at the very beginning would be a command of the CLI; behind a line break it is text.
        let text = if text.starts_with('/') { format!("\n{text}") } else { text.to_owned() };
        Self { text, files: Vec::new(), notes: Vec::new() }
    }
}

/// Whether the CLI gives this model a window of a million tokens.
fn takes_a_million_tokens(model: &str) -> bool {
    model.ends_with("[1m]")
        || model.contains("claude-opus-4-7")
        || model.contains("claude-opus-4.7")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{McpServers, Permissions};

    fn invoke(instruction: &str, model: &str, servers: &McpServers) -> Invocation {
        invocation(&Assignment {
            model,
            instruction,
            permissions: &Permissions::default(),
            mcp_servers: servers,
            max_turns: Some(7),
            max_output_tokens: None,
            model_retries: 3,
            session: Session::New(uuid::Uuid::nil()),
        })
    }

    #[test]
    fn the_whole_invocation_is_as_established() {
        let servers = McpServers::from([("files".to_owned(), json!({ "command": "files-mcp" }))]);
        let invocation = invoke("Do it.", "claude-sonnet-4-6", &servers);
        expect_test::expect![[r#"
            -p
            --output-format=stream-json
            --verbose
            --model=claude-sonnet-4-6
            --permission-mode=bypassPermissions
            --session-id=00000000-0000-0000-0000-000000000000
            --mcp-config=/run/runbookd/in/.mcp.json
            --strict-mcp-config
            --setting-sources=
            --settings=/run/runbookd/in/settings.json
            --disallowedTools=AskUserQuestion,EnterPlanMode,ExitPlanMode,EnterWorktree,ExitWorktree,CronCreate,CronDelete,CronList,ScheduleWakeup
            --allowedTools=Bash,Edit,Write,Read,Glob,Grep,LS,WebFetch,NotebookEdit,NotebookRead,TodoRead,TodoWrite,Agent,mcp__files__*
            --max-turns=7"#]]
        .assert_eq(&invocation.args.join("\n"));
        let files = invocation.files.iter();
        let files = files.map(|(path, text)| format!("{path} {}", String::from_utf8_lossy(text)));
        expect_test::expect![[r#"
            /run/runbookd/in/.mcp.json {"mcpServers":{"files":{"command":"files-mcp"}}}
            /run/runbookd/in/settings.json {"skipWebFetchPreflight":true,"permissions":{"allow":[],"deny":[]}}"#]].assert_eq(&files.collect::<Vec<String>>().join("\n"));
        assert_eq!(invocation.stdin, b"Do it.");
    }

    #[test]
    fn a_prompt_is_text_whatever_it_begins_with() {
        let stdin = |text: &str| invoke(text, "m", &McpServers::new()).stdin;
        assert_eq!(stdin("/cost"), b"\n/cost");
        assert_eq!(stdin("---\nagent: x"), b"---\nagent: x");
        let attaches = |text: &str| {
            let env = invoke(text, "m", &McpServers::new()).env;
            !env.iter().any(|(name, _)| *name == "CLAUDE_CODE_DISABLE_ATTACHMENTS")
        };
        assert!(!attaches("@/etc/hosts"));
        assert!(!attaches("see @notes.md"));
        assert!(attaches("write to me@example.org @ noon"));
    }

    #[test]
    fn a_prompt_that_would_be_summarised_is_passed_as_a_file() {
        let long = "x".repeat(1 << 20);
        let passed = invoke(&long, "claude-sonnet-4-6", &McpServers::new());
        assert!(passed.stdin.len() < 300 && passed.notes.len() == 1);
        assert_eq!(passed.files[0].1.len(), 1 << 20);
        for model in ["claude-opus-4-7", "claude-sonnet-4-6[1m]"] {
            assert_eq!(invoke(&long, model, &McpServers::new()).stdin.len(), 1 << 20);
        }
    }
}
