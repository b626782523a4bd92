//! How a run ended, for people: status, verdict, tokens by model, where the results are.

use std::fmt::Write as _;

use super::ending::Ending;
use super::words::{grouped, seconds};
use crate::run::{ValidationReport, Verdict};
use crate::trajectory::{CostBasis, Usage, UsageReport, UsageSource};

/// The whole summary, without a final newline.
pub(super) fn text(ending: &Ending) -> String {
    let mut text = String::from("\n");
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(format!("{} in {}", ending.status, seconds(ending.took)));
    if let Some(failure) = &ending.failure {
        line(format!("  {}", failure.message));
        line(format!("  {}", failure.mend));
    }
    for warning in &ending.warnings {
        line(format!("! {warning}"));
    }
    for words in verdict(&ending.verdict) {
        line(words);
    }
    if !ending.usage.by_model.is_empty() {
        line(String::new());
        line(usage(&ending.usage));
    }
    line(format!("\nresults  {}", ending.place));
    text.trim_end().to_owned()
}

fn verdict(verdict: &Verdict) -> Vec<String> {
    let word = match verdict.passed() {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "nothing to check",
    };
    let mut lines = vec![format!("verdict  {word} ({} files in results)", verdict.n_results)];
    for output in &verdict.primary_outputs {
        let mark = if output.exists { "there" } else { "missing" };
        lines.push(format!("  {mark:<8} {}", output.path));
    }
    match &verdict.validation {
        ValidationReport::Absent | ValidationReport::Read { overall_passed: None } => {}
        ValidationReport::Unreadable { reason } => {
            lines.push(format!("  validation_report.json cannot be read: {reason}"));
        }
        ValidationReport::Read { overall_passed: Some(passed) } => {
            lines.push(format!("  validation_report.json says overall_passed: {passed}"));
        }
    }
    lines.extend(verdict.warnings.iter().map(|warning| format!("! {warning}")));
    lines
}

/// One row a model, and their sum.
fn usage(report: &UsageReport) -> String {
    let total = report.by_model.total();
    let mut rows: Vec<(&str, Usage)> = report.by_model.iter().map(|(m, u)| (m, *u)).collect();
    rows.push(("total", total));
    let width = rows.iter().map(|(model, _)| model.len()).max().unwrap_or(0);
    let mut table = String::new();
    let mut row = |cells: [&str; 7]| {
        let [model, input, output, read, write, requests, cost] = cells;
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{model:<width$}  {input:>11}  {output:>11}  {read:>11}  {write:>11}  {requests:>8}  {cost:>9}"
        );
    };
    row(["model", "input", "output", "cache read", "cache write", "replies", "cost"]);
    for (model, usage) in &rows {
        row([
            model,
            &grouped(usage.input),
            &grouped(usage.output),
            &grouped(usage.cache_read),
            &grouped(usage.cache_write()),
            &grouped(usage.requests_seen),
            &cost(usage),
        ]);
    }
    table + source(report.source)
}

fn cost(usage: &Usage) -> String {
    match (usage.cost_usd, usage.cost_basis) {
        (Some(usd), CostBasis::Reported) => format!("${usd:.4}"),
        (Some(usd), CostBasis::Estimated) => format!("~${usd:.4}"),
        (Some(_), CostBasis::Unknown) | (None, _) => "unknown".to_owned(),
    }
}

fn source(source: UsageSource) -> &'static str {
    match source {
        UsageSource::None => "(nothing is known of the tokens)",
        UsageSource::Live => "(counts so far; the output is a lower bound)",
        UsageSource::AgentResult => "(the agent's own totals)",
        UsageSource::Wire => "(from the gateway: the run was stopped)",
        UsageSource::SessionFiles => "(from the session files: the run was stopped)",
    }
}
