//! What makes a runbook weaker than it could be: the structure that works, checked as warnings.
//!
//! The rules are those of Jetty's structural check, with its defects mended.

use std::sync::LazyLock;

use regex::Regex;

use super::document::Runbook;
use super::template::first_variable;
use crate::run::{Code, Finding, Place};

/// A rule that asks for something in the text.
struct Wanted {
    code: Code,
    pattern: LazyLock<Regex>,
    advice: &'static str,
}

/// One rule a line: its code, what must be found, and what to write where it is not.
static WANTED: [Wanted; 7] = [
    wanted(Code::NoObjective, || heading("Objective"), "write a section `## Objective`"),
    wanted(
        Code::NoRequiredOutputs,
        || heading("REQUIRED OUTPUT FILES"),
        "write a section `## REQUIRED OUTPUT FILES` with a table of files",
    ),
    wanted(
        Code::NoFinalChecklist,
        || heading("Final Checklist"),
        "write a section `## Final Checklist`",
    ),
    wanted(
        Code::NoValidationReport,
        || regex(r"validation_report\.json"),
        "ask for `validation_report.json` with `overall_passed`",
    ),
    wanted(
        Code::NoEvaluationSection,
        || regex(r"(?i)evaluat|rubric"),
        "say how the outputs are evaluated",
    ),
    wanted(
        Code::NoIterationBound,
        || regex(r"(?i)max(imum)?\s+\d+\s+round|iterat\w*[^\n]*max|(up to|at most)\s+\d+"),
        "bound the rounds, such as `max 3 rounds`",
    ),
    wanted(
        Code::NoOutputVerification,
        || regex(r"(?i)final output verification|verification script"),
        "end with a verification of the outputs",
    ),
];

static TODO: LazyLock<Regex> = LazyLock::new(|| regex(r"\{TODO:"));

const fn wanted(code: Code, pattern: fn() -> Regex, advice: &'static str) -> Wanted {
    Wanted { code, pattern: LazyLock::new(pattern), advice }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns are valid")
}

/// A heading of the second level, with or without a step's number before it.
fn heading(title: &str) -> Regex {
    regex(&format!(r"(?mi)^##\s+(Step\s+\d+:\s*)?{title}"))
}

impl Runbook {
    /// What could be better about the text.
    #[must_use]
    pub fn lint(&self) -> Vec<Finding> {
        let text = self.body();
        let mut findings = Vec::new();
        if text.len() == self.text().len() {
            findings.push(Finding::new(
                Code::NoFrontMatter,
                "there is no front matter: begin with `---`, `agent: …`, `---`",
            ));
        }
        if self.front_matter().primary_outputs.is_empty() {
            findings.push(Finding::new(
                Code::NoPrimaryOutputs,
                "no output is declared: name the most important ones under `primary_outputs:`",
            ));
        }
        for Wanted { code, pattern, advice } in &WANTED {
            if !pattern.is_match(text) {
                findings.push(Finding::new(*code, format!("the text lacks a part: {advice}")));
            }
        }
        if let Some(variable) = first_variable(text)
            && self.parameters().is_empty()
        {
            findings.push(Finding::new(
                Code::VariablesWithoutParameters,
                format!("`{{{{{variable}}}}}` is not declared: write a section `## Parameters`"),
            ));
        }
        if let Some(found) = TODO.find(text) {
            let at = self.text().len() - text.len() + found.start();
            let line = self.text()[..at].matches('\n').count() + 1;
            findings.push(
                Finding::new(Code::LeftOverTodo, "a `{TODO: …}` of the template is left over")
                    .at(Some(Place { line, column: 1 })),
            );
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<&'static str> {
        let lint = Runbook::parse(text.as_bytes()).unwrap().lint();
        lint.iter().map(|finding| finding.code.as_str()).collect()
    }

    const GOOD: &str = "---\nprimary_outputs: [a.md]\n---\n# T\n## Objective\nx {{topic}}\n\
        ## Parameters\n\n| Parameter | Default |\n|---|---|\n| topic | `x` |\n\n\
        ## Step 1: REQUIRED OUTPUT FILES\nvalidation_report.json\n## Evaluate\nmax 3 rounds\n\
        ## FINAL OUTPUT VERIFICATION\n## Final Checklist\n";

    #[test]
    fn a_runbook_of_the_known_structure_has_no_findings() {
        assert_eq!(codes(GOOD), Vec::<&str>::new());
    }

    #[test]
    fn each_missing_part_is_found_by_its_own_code() {
        for (part, code) in [
            ("## Objective", "no-objective"),
            ("REQUIRED OUTPUT FILES", "no-required-outputs"),
            ("## Final Checklist", "no-final-checklist"),
            ("validation_report.json", "no-validation-report"),
            ("## Evaluate", "no-evaluation-section"),
            ("max 3 rounds", "no-iteration-bound"),
            ("FINAL OUTPUT VERIFICATION", "no-output-verification"),
            ("primary_outputs: [a.md]", "no-primary-outputs"),
            ("## Parameters", "variables-without-parameters"),
        ] {
            assert_eq!(codes(&GOOD.replace(part, "version: 1")), [code], "{part}");
        }
        assert_eq!(codes(&format!("{GOOD}{{TODO: more}}")), ["left-over-todo"]);
        assert!(codes("# Only a title").contains(&"no-front-matter"));
    }
}
