//! What the agent may do: the request's word over the runbook's, and every rule checked, because the
//! agent CLI accepts any text silently.

use super::planner::Planner;
use crate::run::{Code, Finding, PermissionMode, Permissions, RuntimeName};
use crate::runtime;

impl Planner<'_> {
    pub(super) fn permissions(&mut self) -> Permissions {
        let (front_matter, overrides) = (self.runbook.front_matter(), &self.request.overrides);
        let allowed = overrides.allowed_tools.as_ref().or(front_matter.allowed_tools.as_ref());
        let denied = front_matter.disallowed_tools.iter().flatten();
        let mut permissions = Permissions {
            mode: PermissionMode::BypassPermissions,
            allowed: allowed.cloned(),
            denied: denied.chain(&overrides.disallowed_tools).cloned().collect(),
        };
        let named = overrides.permission_mode.as_ref().or(front_matter.permission_mode.as_ref());
        match named.map(|word| PermissionMode::from_word(word).ok_or(word.clone())) {
            Some(Ok(mode)) => permissions.mode = mode,
            Some(Err(word)) => self.unknown_mode(&word),
            // A list of what is allowed means that the rest is not.
            None if permissions.allowed.is_some() => permissions.mode = PermissionMode::Default,
            None => {}
        }
        if permissions.mode == PermissionMode::BypassPermissions && permissions.allowed.is_some() {
            let finding = Finding::new(
                Code::IdleToolList,
                "`allowed_tools` restricts nothing, because `permission_mode: bypassPermissions` \
                 allows everything: name another mode, or use `disallowed_tools`",
            );
            self.find_at("allowed_tools", finding);
        }
        let lists = [
            ("allowed_tools", permissions.allowed.as_deref().unwrap_or_default()),
            ("disallowed_tools", &permissions.denied),
        ];
        for (key, rules) in lists {
            for fault in rules.iter().filter_map(|rule| tool_rule_fault(rule)) {
                let finding = Finding::new(Code::UnusableToolRule, format!("{fault} (`{key}`)"));
                self.find_at(key, finding);
            }
        }
        permissions
    }

    fn unknown_mode(&mut self, word: &str) {
        let modes = PermissionMode::ALL.map(|mode| format!("`{}`", mode.as_str())).join(", ");
        let finding = Finding::new(
            Code::UnknownPermissionMode,
            format!("the permission mode `{word}` is not known: write one of {modes}"),
        );
        self.find_at("permission_mode", finding);
    }
}

/// Every runtime that there is has the same rules.
fn tool_rule_fault(rule: &str) -> Option<String> {
    runtime::tool_rule_fault(RuntimeName::ClaudeCode, rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Overrides;
    use crate::plan::rehearsal::Rehearsal;

    /// The mode, the lists and the codes that a front matter and a request lead to.
    fn planned(front_matter: &str, overrides: Overrides) -> (Option<Permissions>, Vec<Code>) {
        let planned = Rehearsal::of(front_matter, overrides).planned();
        let codes = planned.findings.iter().map(|finding| finding.code).collect();
        (planned.plan.map(|plan| plan.permissions), codes)
    }

    fn rules(rules: &[&str]) -> Vec<String> {
        rules.iter().map(|&rule| rule.to_owned()).collect()
    }

    #[test]
    fn a_list_of_what_is_allowed_means_that_the_rest_is_not() {
        let of = |front_matter| planned(front_matter, Overrides::default());
        assert_eq!(of("model: claude-sonnet-4-6"), (Some(Permissions::default()), vec![]));
        let mode = PermissionMode::Default;
        let listed = Permissions { mode, allowed: Some(rules(&["Read"])), denied: vec![] };
        assert_eq!(of("allowed_tools: Read"), (Some(listed), vec![]));
        let (_, codes) = of("allowed_tools: Read\npermission_mode: bypassPermissions");
        assert_eq!(codes, [Code::IdleToolList]);
    }

    #[test]
    fn a_request_wins_over_the_runbook_but_cannot_take_a_denial_away() {
        let overrides = Overrides {
            permission_mode: Some("plan".to_owned()),
            allowed_tools: Some(rules(&["Write"])),
            disallowed_tools: rules(&["WebSearch"]),
            ..Overrides::default()
        };
        let front_matter =
            "permission_mode: acceptEdits\nallowed_tools: [Read]\ndisallowed_tools: [WebFetch]";
        let expected = Permissions {
            mode: PermissionMode::Plan,
            allowed: Some(rules(&["Write"])),
            denied: rules(&["WebFetch", "WebSearch"]),
        };
        assert_eq!(planned(front_matter, overrides), (Some(expected), vec![]));
    }

    #[test]
    fn what_the_agent_would_ignore_is_refused() {
        for (front_matter, code) in [
            ("permission_mode: yolo", Code::UnknownPermissionMode),
            ("permission_mode: dontAsk", Code::UnknownPermissionMode),
            ("allowed_tools: [bash]", Code::UnusableToolRule),
            ("disallowed_tools: [\"Bash(git *\"]", Code::UnusableToolRule),
        ] {
            let (plan, codes) = planned(front_matter, Overrides::default());
            assert_eq!((plan, codes), (None, vec![code]), "{front_matter}");
        }
    }
}
