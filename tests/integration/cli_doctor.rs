//! `runbookd doctor`: what it says of this machine, and of machines that lack something.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use expect_test::{expect, expect_file};
use runbookd::sandbox::EngineKind;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Home, Ran, Stage};

stories! {
    an_engine_that_works_is_said_to_and_a_run_is_possible,
    control_groups_of_this_machine_are_judged_as_a_run_judges_them,
}

const DEAD_DOCKER: (&str, &str) = ("DOCKER_HOST", "unix:///nowhere/docker.sock");
const DEAD_REGISTRY: (&str, &str) = ("npm_config_registry", "http://127.0.0.1:1/");

/// The pinned size of the CLI for this machine, in bytes.
const CLI_BYTES: u64 = if cfg!(target_arch = "x86_64") { 248_105_600 } else { 248_318_528 };

async fn doctor(home: &Home, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
    let arguments = [&["doctor"], arguments].concat();
    Ran::of(home.command(&arguments).envs(env.iter().copied()).spawn().unwrap()).await
}

/// The one JSON object, with the exit code that it must agree with.
async fn report(home: &Home, arguments: &[&str], env: &[(&str, &str)]) -> Value {
    let ran = doctor(home, &[&["--json"], arguments].concat(), env).await;
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.code == Some(0), report["can_run"] == true, "{ran:?}");
    report
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check `{name}`: {report:#}"))
}

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["status"].as_str().unwrap()
}

/// The text with what differs between machines taken out.
fn tidy(home: &Home, text: &str) -> String {
    let text = text.replace(home.path().to_str().unwrap(), "HOME");
    let text = text.replace("linux-arm64", "linux-x64");
    let amounts = regex::Regex::new(r"\d+ (MiB|GiB|MB)").unwrap();
    amounts.replace_all(&text, "N $1").replace("N MiB", "N GiB")
}

async fn an_engine_that_works_is_said_to_and_a_run_is_possible(stage: &Stage) {
    let home = Home::new();
    let engine = stage.kind.to_string();
    let report = report(&home, &["--engine", &engine], &[]).await;
    assert_eq!(report["can_run"], true, "{report:#}");
    let found = check(&report, "engine")["found"].as_str().unwrap();
    assert!(found.starts_with(&format!("asked for by name: {engine} ")), "{found}");
    assert_eq!(status(&report, &engine), "ok");
    let other = match stage.kind {
        EngineKind::Docker => "bubblewrap",
        EngineKind::Bubblewrap => "docker",
    };
    assert_eq!(status(&report, other), "skipped");
    assert!(!home.path().join(".local").exists(), "looking makes no folder");
    assert!(!home.path().join("results").exists(), "looking makes no folder");
}

async fn control_groups_of_this_machine_are_judged_as_a_run_judges_them(stage: &Stage) {
    let home = Home::new();
    let report = report(&home, &["--engine", &stage.kind.to_string()], &[]).await;
    let said = check(&report, "control-groups");
    let notes = check(&report, "engine")["notes"].as_array().unwrap();
    for sentence in stage.engine.report().unenforced {
        // The name of the group that was tried stands in brackets and differs.
        let sentence = sentence.split(" (").next().unwrap();
        let in_notes = notes.iter().any(|note| note.as_str().unwrap().starts_with(sentence));
        let in_found = said["found"].as_str().unwrap().contains(sentence);
        assert!(in_notes || in_found, "{sentence}: {report:#}");
        assert_eq!(in_found, in_found && said["status"] == "warning", "{report:#}");
    }
}

#[tokio::test]
async fn a_machine_without_anything_is_told_everything_at_once_in_json() {
    let home = Home::new();
    let cache = home.path().join("cache").display().to_string();
    let env = [DEAD_DOCKER, DEAD_REGISTRY, ("RUNBOOKD_CACHE", &cache)];
    let mut report = report(&home, &["--engine", "docker"], &env).await;
    // What mends Docker depends on whether this machine is a container.
    assert!(check(&report, "docker")["mend"].as_str().unwrap().contains("or use Bubblewrap"));
    report["checks"][3]["mend"] = Value::Null;
    assert_eq!(report["runbookd"].take(), env!("CARGO_PKG_VERSION"));
    let text = serde_json::to_string_pretty(&report).unwrap();
    expect_file!["../golden/doctor.json"].assert_eq(&(tidy(&home, &text) + "\n"));
}

#[tokio::test]
async fn the_table_names_the_mend_below_what_is_amiss() {
    let home = Home::new();
    home.file("results", "a file");
    let ran = doctor(&home, &["--engine", "docker"], &[DEAD_DOCKER, DEAD_REGISTRY]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text = tidy(&home, &ran.stdout);
    let amiss: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("PROBLEM  results"))
        .take(2)
        .chain(text.lines().filter(|line| line.starts_with("No run")))
        .collect();
    expect![[r#"
        PROBLEM  results-folder       results is not a folder
                                      => Move it away, or name another folder with --results.
        No run is possible yet: 3 problems, 2 warnings."#]]
    .assert_eq(&amiss.join("\n"));
}

#[tokio::test]
async fn faulty_settings_are_a_problem_and_the_rest_is_looked_at_all_the_same() {
    let home = Home::new();
    let env = [
        ("npm_config_registry", "ftp://somebody:made-up-password@example.org"),
        ("RUNBOOKD_ENGINE", "podman"),
        ("HOME", ""),
        ("RUNBOOKD_CACHE", ""),
        DEAD_DOCKER,
    ];
    let report = report(&home, &[], &env).await;
    expect!["neither RUNBOOKD_STATE nor HOME is set: set RUNBOOKD_STATE to a folder; neither RUNBOOKD_CACHE nor HOME is set: set RUNBOOKD_CACHE to a folder; npm_config_registry is not a URL that can be used: it must be an http or https URL such as https://registry.npmjs.org/; RUNBOOKD_ENGINE: `podman` is not an engine: use auto, docker or bubblewrap"].assert_eq(check(&report, "settings")["found"].as_str().unwrap());
    assert_eq!(status(&report, "state-folder"), "skipped");
    assert_ne!(status(&report, "memory"), "problem");
    assert!(!report.to_string().contains("made-up-password"));
}

#[tokio::test]
async fn no_key_is_shown_not_even_in_part() {
    let home = Home::new();
    let names = [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "OPENROUTER_API_KEY",
        "OPENROUTER_BASE_URL",
        "GOOGLE_APPLICATION_CREDENTIALS_JSON",
        "NPM_TOKEN",
        "SHOP_TOKEN",
    ];
    // Letters that no three of stand together in any sentence.
    let value = |seed: usize| -> String {
        let letters = b"QZXJVWKQ";
        (0..24).map(|i| char::from(letters[(seed * 7 + i * i + i / 3) % letters.len()])).collect()
    };
    let values: Vec<String> = (0..names.len()).map(value).collect();
    let whole: Vec<String> = values.iter().map(|v| format!("sk-ant-made-up-{v}")).collect();
    let keys = names.iter().zip(&whole).map(|(name, value)| (*name, value.as_str()));
    let env: Vec<(&str, &str)> = keys.chain([DEAD_DOCKER, DEAD_REGISTRY]).collect();
    for arguments in [&["--json"][..], &[]] {
        let ran = doctor(&home, arguments, &env).await;
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("ANTHROPIC_API_KEY"), "{said}");
        for value in &values {
            for part in value.as_bytes().windows(4) {
                let part = std::str::from_utf8(part).unwrap();
                assert!(!said.contains(part), "{part}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn a_registry_that_refuses_is_a_problem_only_without_the_cli() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let no = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(no).await;
        }
    });
    let cache = home.path().join("cache").display().to_string();
    let registry = ("npm_config_registry", url.as_str());
    let cold = report(&home, &[], &[registry, ("RUNBOOKD_CACHE", &cache)]).await;
    assert_eq!((status(&cold, "agent-cli"), status(&cold, "registry")), ("warning", "problem"));
    let mend = check(&cold, "registry")["mend"].as_str().unwrap();
    assert!(mend.starts_with("Check that the registry's token is set"), "{mend}");
    let warm = report(&home, &[], &[registry]).await;
    assert_eq!((status(&warm, "agent-cli"), status(&warm, "registry")), ("ok", "warning"));
}

#[tokio::test]
async fn a_damaged_cli_that_a_run_would_start_is_a_problem() {
    let home = Home::new();
    let target = if cfg!(target_arch = "x86_64") { "linux-x64" } else { "linux-arm64" };
    let folder = home.path().join("cache/claude-code/2.1.126").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    let file = std::fs::File::create(folder.join("claude")).unwrap();
    file.set_len(CLI_BYTES).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o555)).unwrap();
    let cache = home.path().join("cache").display().to_string();
    let report = report(&home, &[], &[DEAD_REGISTRY, ("RUNBOOKD_CACHE", &cache)]).await;
    assert_eq!(status(&report, "agent-cli"), "problem");
    let mend = check(&report, "agent-cli")["mend"].as_str().unwrap();
    assert!(mend.starts_with("Delete `"), "{mend}");
}

/// Runs a script of the shell in a mount namespace of its own; only root can.
async fn in_own_mounts(home: &Home, script: &str) -> Option<Ran> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can mount");
        return None;
    }
    let mut command = tokio::process::Command::new("unshare");
    command
        .args(["--mount", "bash", "-c", script, "bash"])
        .arg(env!("CARGO_BIN_EXE_runbookd"))
        .env("HOME", home.path())
        .envs([DEAD_DOCKER, DEAD_REGISTRY])
        .current_dir(home.path());
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    })
}

#[tokio::test]
async fn a_read_only_folder_is_found_by_root_too() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("results")).unwrap();
    let script = "mount -t tmpfs -o ro none results; exec \"$1\" doctor --json";
    let Some(ran) = in_own_mounts(&home, script).await else { return };
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(status(&report, "results-folder"), "problem", "{report:#}");
    assert_eq!(ran.code, Some(1));
    let mend = check(&report, "results-folder")["mend"].as_str().unwrap();
    assert!(mend.ends_with("or name another folder with --results."), "{mend}");
}

#[tokio::test]
async fn a_cache_from_which_nothing_may_run_is_found() {
    let home = Home::new();
    std::fs::create_dir(home.path().join(".cache")).unwrap();
    let script = "mount -t tmpfs -o noexec none .cache; exec \"$1\" doctor --json";
    let Some(ran) = in_own_mounts(&home, script).await else { return };
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let found = check(&report, "cache-folder")["found"].as_str().unwrap();
    assert!(found.ends_with("nothing there may run (noexec)"), "{found}");
}

#[tokio::test]
async fn without_any_engine_both_ways_to_one_are_named() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("empty")).unwrap();
    let script =
        "mount --bind empty /usr/local/bin; mount --bind empty /usr/bin; exec \"$1\" doctor --json";
    let Some(ran) = in_own_mounts(&home, script).await else { return };
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.code, Some(1));
    for name in ["engine", "docker", "bubblewrap", "programs"] {
        assert_eq!(status(&report, name), "problem", "{name}: {report:#}");
    }
    let mend = check(&report, "engine")["mend"].as_str().unwrap();
    assert!(mend.contains("runbookd demo --setup"), "{mend}");
}

#[tokio::test]
async fn a_daemon_that_never_answers_is_told_and_holds_nobody_up() {
    let home = Home::new();
    let socket = home.path().join("docker.sock");
    let silent = tokio::net::UnixListener::bind(&socket).unwrap();
    let host = format!("unix://{}", socket.display());
    let report =
        report(&home, &["--engine", "docker"], &[("DOCKER_HOST", &host), DEAD_REGISTRY]).await;
    drop(silent);
    let docker = check(&report, "docker");
    assert_eq!(docker["status"], "problem");
    assert!(docker["found"].as_str().unwrap().contains("no answer within 5 s"), "{docker}");
    assert!(Path::new(&socket).exists(), "the daemon's socket is left alone");
}
