//! `runbookd doctor`: everything that a run needs, all at once, and what mends each.

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::args::DoctorArguments;
use super::exit::ExitCode;
use super::parts::{engine_settings, toolchain_settings};
use crate::config::Settings;
use crate::host::{Purpose, aside, examine_folder, examine_memory};
use crate::provider;
use crate::run::{Check, CheckStatus};
use crate::sandbox::{self, EngineChoice};
use crate::toolchain::{AgentCli, Target, Toolchain, ToolchainError};

/// The version of the JSON's shape.
const FORMAT_VERSION: u32 = 1;

/// How long the engines may take: a greeting and an empty sandbox each, which have limits of their
/// own that are shorter.
const ENGINE_LIMIT: Duration = Duration::from_secs(60);

/// How long the cache and the registry may take. 250 MB are read, on a slow disk too.
const TOOLCHAIN_LIMIT: Duration = Duration::from_secs(60);

/// How long a folder may take. A network file system that is alive answers in milliseconds.
const FOLDER_LIMIT: Duration = Duration::from_secs(10);

/// The agent CLI that a run uses.
const CLI: AgentCli = AgentCli::ClaudeCode;

/// Checks everything and shows it.
pub(super) async fn doctor(
    arguments: &DoctorArguments,
    settings: &Settings,
    faults: Vec<String>,
) -> ExitCode {
    let checks = examine(arguments, settings, faults).await;
    let text = if arguments.json { json_text(&checks) } else { table(&checks) };
    // A reader that went away needs no answer.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if is_possible(&checks) { ExitCode::Success } else { ExitCode::NotReady }
}

async fn examine(
    arguments: &DoctorArguments,
    settings: &Settings,
    mut faults: Vec<String>,
) -> Vec<Check> {
    let named = settings.engine.as_deref().map(str::parse::<EngineChoice>);
    let choice = match (arguments.engine, named) {
        (Some(choice), _) | (None, Some(Ok(choice))) => choice,
        (None, None) => EngineChoice::Auto,
        (None, Some(Err(e))) => {
            faults.push(format!("RUNBOOKD_ENGINE: {e}"));
            EngineChoice::Auto
        }
    };
    let mut engine = engine_settings(settings);
    let mut choice = choice;
    if let Some(image) = &arguments.image {
        engine.default_image = Some(image.clone());
        // Only Docker can start from it, so the other engine would not help.
        choice = if choice == EngineChoice::Auto { EngineChoice::Docker } else { choice };
    }
    let results = arguments.results.clone();
    let (engines, agent, state, cache, results, memory) = tokio::join!(
        within("engine", ENGINE_LIMIT, sandbox::examine(choice, &engine)),
        within("agent-cli", TOOLCHAIN_LIMIT, agent(settings)),
        folder(Purpose::State, settings.state_dir.clone()),
        cache(settings),
        folder(Purpose::Results, results),
        within("memory", FOLDER_LIMIT, async { vec![examine_memory()] }),
    );
    let mut checks = vec![settings_check(&faults)];
    for found in [engines, agent, state, cache, results, memory] {
        checks.extend(found);
    }
    checks.extend(provider::examine(&settings.keyring));
    checks
}

fn settings_check(faults: &[String]) -> Check {
    const NAME: &str = "settings";
    if faults.is_empty() {
        return Check::ok(NAME, "every variable can be used");
    }
    Check::problem(NAME, faults.join("; "), "Set them so; docs/settings.md has them all.")
}

/// The checks, or the one that says that they did not come to an end.
async fn within(
    name: &'static str,
    limit: Duration,
    checks: impl Future<Output = Vec<Check>>,
) -> Vec<Check> {
    let hangs = || {
        let found = format!("no answer within {} s", limit.as_secs());
        vec![Check::problem(name, found, "Find out what hangs: a disk, a daemon or the network.")]
    };
    timeout(limit, checks).await.unwrap_or_else(|_| hangs())
}

async fn agent(settings: &Settings) -> Vec<Check> {
    let toolchain = Toolchain::new(toolchain_settings(settings));
    match (toolchain, Target::host()) {
        (Ok(toolchain), Ok(target)) => {
            // In a runtime of its own: one whose thread waits for a dead disk never ends.
            let examined = aside(move || {
                let runtime = Builder::new_current_thread().enable_all().build().ok()?;
                Some(runtime.block_on(toolchain.examine(CLI, target)))
            });
            let lost = || vec![lost("agent-cli")];
            examined.await.flatten().unwrap_or_else(lost)
        }
        (Err(e), _) => vec![Check::problem("registry", e.to_string(), e.mend())],
        (_, Err(e)) => vec![Check::problem("agent-cli", e.to_string(), e.mend())],
    }
}

/// The folder of the cache. How much room it needs depends on what lies in it.
async fn cache(settings: &Settings) -> Vec<Check> {
    let toolchain = toolchain_settings(settings);
    let needed = aside(move || Toolchain::new(toolchain)?.needed_bytes(CLI, Target::host()?));
    let needed: Option<Result<u64, ToolchainError>> =
        timeout(FOLDER_LIMIT, needed).await.unwrap_or(None);
    // Where that cannot be found out, the check of the CLI tells why.
    let needed_bytes = needed.and_then(Result::ok).unwrap_or(0);
    folder(Purpose::Cache { needed_bytes }, settings.cache_dir.clone()).await
}

async fn folder(purpose: Purpose, path: PathBuf) -> Vec<Check> {
    let name = purpose.name();
    if path.as_os_str().is_empty() {
        return vec![Check::skipped(name, "no folder is set")];
    }
    let looked = async {
        let check = aside(move || examine_folder(purpose, &path)).await;
        vec![check.unwrap_or_else(|| lost(name))]
    };
    within(name, FOLDER_LIMIT, looked).await
}

/// No thread could be made, or it broke.
fn lost(name: &'static str) -> Check {
    Check::problem(name, "could not be looked at", "Start it again; if it stays so, report it.")
}

fn count(checks: &[Check], status: CheckStatus) -> usize {
    checks.iter().filter(|check| check.status == status).count()
}

fn is_possible(checks: &[Check]) -> bool {
    count(checks, CheckStatus::Problem) == 0
}

fn json_text(checks: &[Check]) -> String {
    json!({
        "format_version": FORMAT_VERSION,
        "runbookd": env!("CARGO_PKG_VERSION"),
        "can_run": is_possible(checks),
        "n_problems": count(checks, CheckStatus::Problem),
        "n_warnings": count(checks, CheckStatus::Warning),
        "checks": checks,
    })
    .to_string()
        + "\n"
}

/// A line for each check, what mends it below, and the sum.
fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let word = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Warning => "warning",
            CheckStatus::Problem => "PROBLEM",
            CheckStatus::Skipped => "-",
        };
        text.push_str(&format!("{word:<7}  {:<width$}  {}\n", check.name, check.found));
        let below = |mark: &str, words: &str| format!("{:>9}{:width$}  {mark} {words}\n", "", "");
        text.extend(check.notes.iter().map(|note| below("!", note)));
        text.extend(check.mend.iter().map(|mend| below("=>", mend)));
    }
    text.push_str(&sum(checks));
    text
}

fn sum(checks: &[Check]) -> String {
    let counted = |n: usize, word: &str| match n {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    };
    let problems = counted(count(checks, CheckStatus::Problem), "problem");
    let warnings = counted(count(checks, CheckStatus::Warning), "warning");
    let verdict = if is_possible(checks) { "A run is possible" } else { "No run is possible yet" };
    format!("\n{verdict}: {problems}, {warnings}.\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_told_and_holds_nobody_up() {
        let checks = within("registry", FOLDER_LIMIT, std::future::pending()).await;
        assert_eq!(checks[0].status, CheckStatus::Problem);
        assert_eq!(checks[0].found, "no answer within 10 s");
    }

    #[test]
    fn checks_are_a_table_and_a_json_object() {
        let checks = [
            Check::ok("engine", "auto takes docker 27.0").noting(vec!["No disk limit.".to_owned()]),
            Check::warning("memory", "512 MiB available", "Free some."),
            Check::problem("state-folder", "/x cannot be written", "chmod u+w /x"),
            Check::skipped("bubblewrap", "not looked at"),
        ];
        expect![[r#"
            ok       engine        auto takes docker 27.0
                                   ! No disk limit.
            warning  memory        512 MiB available
                                   => Free some.
            PROBLEM  state-folder  /x cannot be written
                                   => chmod u+w /x
            -        bubblewrap    not looked at

            No run is possible yet: 1 problem, 1 warning.
        "#]]
        .assert_eq(&table(&checks));
        expect![[r#"
            {"format_version":1,"runbookd":"0.1.0","can_run":false,"n_problems":1,"n_warnings":1,"checks":[{"name":"engine","status":"ok","found":"auto takes docker 27.0","mend":null,"notes":["No disk limit."]},{"name":"memory","status":"warning","found":"512 MiB available","mend":"Free some.","notes":[]},{"name":"state-folder","status":"problem","found":"/x cannot be written","mend":"chmod u+w /x","notes":[]},{"name":"bubblewrap","status":"skipped","found":"not looked at","mend":null,"notes":[]}]}
        "#]].assert_eq(&json_text(&checks));
        assert!(sum(&checks[..2]).starts_with("\nA run is possible: no problems, 1 warning"));
    }
}
