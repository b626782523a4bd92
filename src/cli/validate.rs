//! `runbookd validate` and `runbookd explain`: what the checks before a run find, without a run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::args::{Format, ValidateArguments};
use super::complain;
use super::exit::ExitCode;
use super::parts;
use super::run::draw;
use crate::config::Settings;
use crate::plan::{Overrides, RunRequest, Setting, plan};
use crate::run::{Allowance, Code, Finding, ImageRules, Networks, Severity, Slug};
use crate::runbook::Runbook;
use crate::secret::Keyring;
use crate::snapshot::Snapshots;

/// Checks every file and tells what was found.
pub(super) fn validate(arguments: &ValidateArguments, settings: &Settings) -> ExitCode {
    let snapshots = match parts::snapshots(settings) {
        Ok(snapshots) => snapshots,
        Err(code) => return code,
    };
    let mut reports = Vec::new();
    for path in &arguments.runbooks {
        match std::fs::read(path) {
            Ok(runbook) => {
                reports.push((path.as_path(), check(runbook, &settings.keyring, &snapshots)))
            }
            Err(e) => {
                complain(&format!("{} cannot be read: {e}", path.display()));
                return ExitCode::Refused;
            }
        }
    }
    let text = match arguments.format {
        Format::Text => lines(&reports, text_line),
        Format::Github => lines(&reports, github_line),
        Format::Json => json_text(&reports),
    };
    put(&text);
    let is_refused = reports.iter().flat_map(|(_, findings)| findings).any(Finding::is_error);
    if is_refused { ExitCode::Refused } else { ExitCode::Success }
}

/// Tells what a code means.
pub(super) fn explain(word: &str) -> ExitCode {
    if let Some(code) = Code::ALL.into_iter().find(|code| code.as_str() == word) {
        put(&format!("{} ({})\n\n{}\n", code, code.severity(), code.about()));
        return ExitCode::Success;
    }
    let known = Code::ALL.map(Code::as_str).join("\n  ");
    complain(&format!("`{word}` is not a code. The codes are:\n  {known}"));
    ExitCode::Usage
}

type Report<'a> = (&'a Path, Vec<Finding>);

/// Everything that a run would find, and the lint.
fn check(runbook: Vec<u8>, keyring: &Keyring, snapshots: &Snapshots) -> Vec<Finding> {
    let (Ok(collection), Ok(task)) = (Slug::new("local"), Slug::new("validate")) else {
        return Vec::new();
    };
    let lint = Runbook::parse(&runbook).map(|runbook| runbook.lint()).unwrap_or_default();
    let request = RunRequest {
        runbook,
        collection,
        task,
        variables: BTreeMap::new(),
        init_params: serde_json::Map::new(),
        assets: Vec::new(),
        script: None,
        former: None,
        ceilings: Allowance::default(),
        overrides: Overrides::default(),
    };
    // Where it will run, another operator decides.
    let setting = Setting { snapshots, networks: &Networks::all(), images: &ImageRules::all() };
    let mut findings = plan(&request, keyring, setting, draw()).findings;
    // Which script and which values there will be, and what is granted, is not the runbook's to say.
    findings.retain(|f| {
        let elsewhere = [Code::MissingScript, Code::UnfilledVariable, Code::ProviderToolNotGranted];
        !elsewhere.contains(&f.code)
    });
    findings.extend(lint);
    findings
}

fn lines(reports: &[Report<'_>], line: fn(&str, &Finding) -> String) -> String {
    let mut text = String::new();
    for (path, findings) in reports {
        let path = path.display().to_string();
        for finding in findings {
            text.push_str(&line(&path, finding));
            text.push('\n');
        }
    }
    text
}

/// As compilers write it.
fn text_line(path: &str, finding: &Finding) -> String {
    let place = finding.place.map(|p| format!(":{}:{}", p.line, p.column)).unwrap_or_default();
    let (severity, code) = (finding.code.severity(), finding.code);
    format!("{path}{place}: {severity}[{code}]: {}", finding.message)
}

/// As GitHub's workflow commands want it.
fn github_line(path: &str, finding: &Finding) -> String {
    // https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    let escape = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
    let place =
        finding.place.map(|p| format!(",line={},col={}", p.line, p.column)).unwrap_or_default();
    format!(
        "::{} file={}{place},title={}::{}",
        finding.code.severity(),
        property(path),
        finding.code,
        escape(&finding.message)
    )
}

fn json_text(reports: &[Report<'_>]) -> String {
    let findings: Vec<Value> = reports
        .iter()
        .flat_map(|(path, findings)| findings.iter().map(move |finding| json_value(path, finding)))
        .collect();
    let n_errors =
        findings.iter().filter(|finding| finding["severity"] == json!(Severity::Error)).count();
    json!({ "format_version": 1, "n_errors": n_errors, "findings": findings }).to_string() + "\n"
}

fn json_value(path: &Path, finding: &Finding) -> Value {
    json!({
        "file": path,
        "line": finding.place.map(|place| place.line),
        "column": finding.place.map(|place| place.column),
        "severity": finding.code.severity(),
        "code": finding.code.as_str(),
        "message": finding.message,
    })
}

fn put(text: &str) {
    // A reader that went away needs no answer.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Place;

    #[test]
    fn a_finding_is_written_in_each_format() {
        let finding = Finding::new(Code::WrongSlug, "100% wrong: write `x`")
            .at(Some(Place { line: 4, column: 1 }));
        assert_eq!(
            text_line("a.md", &finding),
            "a.md:4:1: error[wrong-slug]: 100% wrong: write `x`"
        );
        assert_eq!(
            github_line("a,b.md", &finding),
            "::error file=a%2Cb.md,line=4,col=1,title=wrong-slug::100%25 wrong: write `x`"
        );
        let text = json_text(&[(Path::new("a.md"), vec![finding])]);
        assert_eq!(
            text.trim_end(),
            r#"{"format_version":1,"n_errors":1,"findings":[{"file":"a.md","line":4,"column":1,"severity":"error","code":"wrong-slug","message":"100% wrong: write `x`"}]}"#
        );
    }

    /// jetty-api 17: what a server cannot do is refused with every reason at once.
    #[test]
    fn f17_every_problem_is_found_at_once() {
        let runbook = "---\nevaluation: visual\nagent: claude-code\nmodel: google/nano-banana\n\
            model_provider: replicate\nsnapshot: local\nsecrets:\n  K: {required: true}\ncolour: red\n---\n# T\n";
        let findings =
            check(runbook.as_bytes().to_vec(), &Keyring::default(), &Snapshots::built_in());
        let errors: Vec<&str> =
            findings.iter().filter(|f| f.is_error()).map(|f| f.code.as_str()).collect();
        assert_eq!(
            errors,
            ["unknown-evaluation", "unknown-provider", "unknown-snapshot", "missing-secret"]
        );
        assert!(findings.iter().any(|f| f.code == Code::UnknownKey));
        let places: Vec<_> = findings.iter().filter(|f| f.is_error()).map(|f| f.place).collect();
        assert!(places.iter().all(Option::is_some), "{places:?}");
    }
}
