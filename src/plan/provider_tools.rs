//! What the model service may do itself: what the runbook asks for, where the operator grants it.

use super::planner::Planner;
use crate::run::{Code, Finding, ProviderTool, ProviderTools, unknown_provider_tool};

/// The variable of an environment that says which of the model service's tools its runs may have. The
/// server's own is the most that there is; a collection's narrows it.
pub const PROVIDER_TOOLS: &str = "RUNBOOKD_PROVIDER_TOOLS";

/// The key in the front matter.
const KEY: &str = "provider_tools";

impl Planner<'_> {
    pub(super) fn provider_tools(&mut self) -> ProviderTools {
        let asked = self.asked_tools();
        let granted = self.granted_tools();
        for tool in asked.difference(&granted) {
            let finding = Finding::new(
                Code::ProviderToolNotGranted,
                format!(
                    "the runbook asks for the model service's own `{tool}`, which is not granted: \
                     the operator grants it with `{PROVIDER_TOOLS}` or `run --provider-tools`"
                ),
            );
            self.find_at(KEY, finding);
        }
        asked.intersection(&granted).copied().collect()
    }

    fn asked_tools(&mut self) -> ProviderTools {
        let mut asked = ProviderTools::new();
        for word in &self.runbook.front_matter().provider_tools {
            match ProviderTool::from_word(word) {
                Some(tool) => {
                    asked.insert(tool);
                }
                None => {
                    let finding =
                        Finding::new(Code::UnknownProviderTool, unknown_provider_tool(word));
                    self.find_at(KEY, finding);
                }
            }
        }
        asked
    }

    /// What the operator grants, as far as the run's environment does not narrow it.
    fn granted_tools(&mut self) -> ProviderTools {
        let granted = self.request.overrides.granted_tools.clone();
        let Some(narrowed) = self.keyring.get(PROVIDER_TOOLS) else { return granted };
        match ProviderTool::list(narrowed.expose()) {
            Ok(narrowed) => granted.intersection(&narrowed).copied().collect(),
            Err(fault) => {
                self.find(Code::UnknownProviderTool, format!("{PROVIDER_TOOLS}: {fault}"));
                ProviderTools::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Overrides;
    use crate::plan::rehearsal::Rehearsal;

    /// What a runbook gets that asks for `asked`, or the codes of what speaks against it.
    fn planned(asked: &str, granted: &str, narrowed: Option<&str>) -> Result<String, Vec<Code>> {
        let granted_tools = ProviderTool::list(granted).unwrap();
        let overrides = Overrides { granted_tools, ..Overrides::default() };
        let keys: Vec<(&str, &str)> =
            narrowed.map(|text| (PROVIDER_TOOLS, text)).into_iter().collect();
        let front_matter = format!("provider_tools: {asked}");
        let rehearsal = Rehearsal { keys: &keys, ..Rehearsal::of(&front_matter, overrides) };
        let planned = rehearsal.planned();
        let codes = planned.findings.iter().filter(|f| f.is_error()).map(|f| f.code).collect();
        let words =
            |tools: ProviderTools| tools.iter().map(|tool| tool.as_str()).collect::<Vec<_>>();
        planned.plan.map(|plan| words(plan.provider_tools).join(" ")).ok_or(codes)
    }

    #[test]
    fn a_runbook_gets_what_it_asks_for_and_everybody_grants() {
        let refused = |code| Err(vec![code]);
        let not_granted = || refused(Code::ProviderToolNotGranted);
        let unknown = || refused(Code::UnknownProviderTool);
        for (asked, granted, narrowed, expected) in [
            ("[]", "", None, Ok(String::new())),
            ("", "web_search", None, Ok(String::new())),
            ("[web_search]", "web_search, url_media", None, Ok("web_search".to_owned())),
            ("web_search", "web_search", Some("web_search"), Ok("web_search".to_owned())),
            ("[web_search]", "", None, not_granted()),
            ("[web_search]", "web_search", Some(""), not_granted()),
            // An environment of a tenant gives nothing.
            ("[web_fetch]", "web_search", Some("web_fetch"), not_granted()),
            ("[bash]", "web_search", None, unknown()),
            (
                "[web_search]",
                "web_search",
                Some("all"),
                Err(vec![Code::UnknownProviderTool, Code::ProviderToolNotGranted]),
            ),
        ] {
            assert_eq!(
                planned(asked, granted, narrowed),
                expected,
                "{asked} {granted} {narrowed:?}"
            );
        }
    }
}
