//! The CLI's tools, and what an agent may do with them.

use serde_json::json;

use super::VERSION;
use crate::run::{McpServers, PermissionMode, Permissions};

/// Tools that run without a question where nobody decides otherwise, as Jetty grants them. `LS`, `NotebookRead` and `TodoRead` are
/// gone from this CLI, which accepts the names silently.
const GRANTED: [&str; 13] = [
    "Bash",
    "Edit",
    "Write",
    "Read",
    "Glob",
    "Grep",
    "LS",
    "WebFetch",
    "NotebookEdit",
    "NotebookRead",
    "TodoRead",
    "TodoWrite",
    "Agent",
];

/// Tools that wait for a person, leave the workspace or outlive the run. In plan mode the agent is
/// stuck, because nobody can approve its plan.
pub(super) const NEVER: [&str; 9] = [
    "AskUserQuestion",
    "EnterPlanMode",
    "ExitPlanMode",
    "EnterWorktree",
    "ExitWorktree",
    "CronCreate",
    "CronDelete",
    "CronList",
    "ScheduleWakeup",
];

/// The tools that this version has. An unknown name in a rule is accepted silently.
const TOOLS: [&str; 23] = [
    "Agent",
    "AskUserQuestion",
    "Bash",
    "CronCreate",
    "CronDelete",
    "CronList",
    "Edit",
    "EnterPlanMode",
    "EnterWorktree",
    "ExitPlanMode",
    "ExitWorktree",
    "Glob",
    "Grep",
    "NotebookEdit",
    "Read",
    "ScheduleWakeup",
    "Skill",
    "TaskOutput",
    "TaskStop",
    "TodoWrite",
    "WebFetch",
    "WebSearch",
    "Write",
];

/// What begins the name of an MCP server's tool.
const MCP: &str = "mcp__";

/// The tools that are granted on the command line. A person who chooses a mode or a list decides
/// alone: with these on top, `plan` would write files.
pub(super) fn granted(permissions: &Permissions, servers: &McpServers) -> Vec<String> {
    if permissions.mode != PermissionMode::BypassPermissions || permissions.allowed.is_some() {
        return Vec::new();
    }
    let mcp_tools = servers.keys().map(|server| format!("{MCP}{server}__*"));
    GRANTED.iter().map(|&tool| tool.to_owned()).chain(mcp_tools).collect()
}

/// The settings file. A list of JSON keeps rules with commas whole.
pub(super) fn settings(permissions: &Permissions) -> Vec<u8> {
    let allowed = permissions.allowed.as_deref().unwrap_or_default();
    json!({
        // WebFetch would ask api.anthropic.com about each domain first.
        "skipWebFetchPreflight": true,
        "permissions": { "allow": allowed, "deny": permissions.denied },
    })
    .to_string()
    .into_bytes()
}

/// What is wrong with a rule, as a fragment with what to write instead.
#[must_use]
pub fn tool_rule_fault(rule: &str) -> Option<String> {
    let (name, detail) = match rule.split_once('(') {
        Some((name, rest)) => (name, Some(rest)),
        None => (rule, None),
    };
    let is_closed = detail.is_none_or(|rest| rest.len() > 1 && rest.ends_with(')'));
    if !is_closed || rule.contains(['\n', '\0']) {
        return Some(format!(
            "the rule `{}` is not written as `Tool`, `Tool(…)` or `mcp__server__tool`",
            rule.escape_debug()
        ));
    }
    let is_mcp = name.strip_prefix(MCP).is_some_and(|rest| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*');
        !rest.is_empty() && rest.chars().all(legal)
    });
    // Jetty's names for tools that are gone stay usable.
    if is_mcp || TOOLS.contains(&name) || GRANTED.contains(&name) {
        return None;
    }
    Some(format!(
        "the rule `{}` names no tool of Claude Code {VERSION}: its tools are {}, and an MCP \
         server's are `mcp__server__tool`",
        rule.escape_debug(),
        TOOLS.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_a_tool_and_is_closed() {
        for rule in [
            "Bash",
            "Bash(git *)",
            "Bash(echo (a, b))",
            "Read(//app/**)",
            "WebFetch(domain:example.com)",
            "mcp__tiny",
            "mcp__tiny__*",
            "mcp__my-server__say",
            "LS",
        ] {
            assert_eq!(tool_rule_fault(rule), None, "{rule}");
        }
        for rule in ["", "bash", "Bash(", "Bash()", "Bash(git", "Bash git", "mcp__", "*", "A\nB"] {
            assert!(tool_rule_fault(rule).is_some(), "{rule}");
        }
    }

    #[test]
    fn whoever_chooses_a_mode_or_a_list_decides_alone() {
        let servers = McpServers::from([("tiny".to_owned(), json!({}))]);
        assert_eq!(granted(&Permissions::default(), &servers).len(), GRANTED.len() + 1);
        let listed = Permissions { allowed: Some(vec![]), ..Permissions::default() };
        let plan = Permissions { mode: PermissionMode::Plan, ..Permissions::default() };
        for permissions in [listed, plan] {
            assert_eq!(granted(&permissions, &servers), Vec::<String>::new());
        }
    }
}
