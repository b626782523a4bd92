//! The command line where no sandbox is made: what is refused, with which code and which words.

use expect_test::expect;

use crate::support::Home;

/// The exit code and the standard error of the binary.
async fn said(home: &Home, arguments: &[&str], env: &[(&str, &str)]) -> String {
    let child = home.command(arguments).envs(env.iter().copied()).spawn().unwrap();
    let ran = crate::support::Ran::of(child).await;
    let words = ran.stderr.replace(home.path().to_str().unwrap(), "HOME");
    format!("{}: {}{words}", ran.code.unwrap(), ran.stdout)
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_every_problem_and_what_to_do() {
    let home = Home::new();
    let plain = home.file("plain.md", "# Do it\n");
    let wrong = home.file(
        "wrong.md",
        "---\nagent: codex\nmodel_provider: openai\nsnapshot: python312\nsecrets:\n  TOKEN: { env: SHOP_TOKEN, required: true }\n---\n# Do it\n",
    );
    let broken = home.file("broken.md", "---\nprimary_outputs: {a: b}\n---\n# Do it\n");
    let mistake = home.file("mistake.yaml", "turns:\n  - txt: Done.\n");
    let mut text = String::new();
    for arguments in [
        &["run", plain.as_str()][..],
        &["run", &wrong],
        &["run", &broken],
        &["run", "nothing.md"],
        &["run", &plain, "--file", "nothing.csv"],
        &["run", &plain, "--model-provider", "scripted"],
        &["run", &plain, "--script", "nothing.yaml"],
        &["run", &plain, "--script", &mistake],
        &["run", &plain, "--timeout", "0", "--model", "a model"],
    ] {
        text.push_str(&said(&home, arguments, &[]).await);
    }
    expect![[r#"
        4: runbookd: there is no credential for anthropic: set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_AUTH_TOKEN. Set the variable, or choose another `model_provider`.
        4: runbookd: The agent `codex` is not known: write `agent: claude-code`, the one that this version runs (line 2).
        runbookd: The model provider `openai` cannot be reached with claude-code: write one of `anthropic`, `bedrock`, `openrouter`, `vertex`, `scripted` (line 3).
        runbookd: There is no snapshot `python312`; the nearest is `python312-uv`: write one of prism-playwright, python312-uv, add it to the folder RUNBOOKD_SNAPSHOTS, or give an image that has its tools, with `image:` or `--image` (line 4).
        runbookd: The runbook needs the secret `TOKEN`: set SHOP_TOKEN in the environment (line 5).
        4: runbookd: `primary_outputs` must be a list of paths, such as `[report.md, data.csv]`, and is a mapping (line 2).
        4: runbookd: nothing.md cannot be read: No such file or directory (os error 2)
        4: runbookd: There is no credential for anthropic: set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_AUTH_TOKEN.
        runbookd: The file `nothing.csv` cannot be given: No such file or directory (os error 2).
        4: runbookd: The scripted provider needs a script: give one with `--script FILE`.
        4: runbookd: nothing.yaml cannot be read: No such file or directory (os error 2)
        4: runbookd: Could not read the script: turns[0]: unknown field `txt`, expected one of `thinking`, `text`, `text_repeat`, `tools`, `stop`, `usage`, `delay_ms`, `chunk_delay_ms`, `fail`, `drop`, `hang`, `raw`, `times` at line 2 column 5.
        4: runbookd: The model `a model` does not tell which agent is meant: write `agent: claude-code`, the one that this version runs.
        runbookd: The time limit is 0 s: write 1 to 604800.
    "#]].assert_eq(&text);
    assert!(!home.path().join("results").exists(), "nothing was made");
}

#[tokio::test]
async fn f7_a_missing_required_secret_is_named_before_the_start() {
    let home = Home::new();
    home.file(
        "shop.md",
        "---\nsecrets:\n  TOKEN: { env: SHOP_TOKEN, required: true }\n  OTHER: { env: SHOP_OTHER, required: true }\n---\n# X\n",
    );
    home.file("script.yaml", "turns: [{ text: x }]");
    let run = ["run", "shop.md", "--script", "script.yaml"];
    let words = said(&home, &run, &[("SHOP_OTHER", "made-up-other")]).await;
    expect![[r#"
        4: runbookd: The runbook needs the secret `TOKEN`: set SHOP_TOKEN in the environment (line 2).
    "#]].assert_eq(&words);
    assert!(!home.path().join("results").exists(), "nothing was made");
}

#[tokio::test]
async fn f13_without_a_key_the_variable_of_each_provider_is_named() {
    let home = Home::new();
    home.file("plain.md", "# X\n");
    let mut text = String::new();
    for provider in ["anthropic", "bedrock", "openrouter", "vertex"] {
        text.push_str(&said(&home, &["run", "plain.md", "--model-provider", provider], &[]).await);
    }
    expect![[r#"
        4: runbookd: there is no credential for anthropic: set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_AUTH_TOKEN. Set the variable, or choose another `model_provider`.
        4: runbookd: there is no credential for bedrock: set AWS_BEARER_TOKEN_BEDROCK or AWS_ACCESS_KEY_ID. Set the variable, or choose another `model_provider`.
        4: runbookd: there is no credential for openrouter: set OPENROUTER_API_KEY. Set the variable, or choose another `model_provider`.
        4: runbookd: There is no project for vertex: set ANTHROPIC_VERTEX_PROJECT_ID or GOOGLE_CLOUD_PROJECT.
        runbookd: There is no credential for vertex: set GOOGLE_APPLICATION_CREDENTIALS_JSON or CLAUDE_CODE_SKIP_VERTEX_AUTH.
    "#]].assert_eq(&text);
    assert!(!home.path().join("results").exists(), "nothing was made");
}

#[tokio::test]
async fn a_run_that_cannot_be_resumed_is_refused_before_anything_is_made() {
    let home = Home::new();
    let words = said(&home, &["run", "--resume", "00000010"], &[]).await;
    expect![[r#"
        4: runbookd: there is no run `00000010` in results: check the id, or name the folder with `--results`
    "#]].assert_eq(&words);
    let words = said(&home, &["run", "--resume", "../escape"], &[]).await;
    assert!(words.starts_with("2: ") && words.contains("does not name a run"), "{words}");
    assert!(!home.path().join("results").exists(), "nothing was made");
}

#[tokio::test]
async fn a_wrong_command_line_is_told_from_a_refusal() {
    let home = Home::new();
    let plain = home.file("plain.md", "# Do it\n");
    for arguments in [
        &["run"][..],
        &["walk"],
        &["run", &plain, "--var", "no-equals-sign"],
        &["run", &plain, "--network", "some"],
        &["run", &plain, "--memory", "much"],
        &["demo", "--yes"],
    ] {
        let words = said(&home, arguments, &[]).await;
        assert!(words.starts_with("2: "), "{arguments:?}: {words}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named_at_once() {
    let home = Home::new();
    let mut text = String::new();
    for env in [
        &[("npm_config_registry", "registry.example.org"), ("HOME", ""), ("RUNBOOKD_CACHE", "")][..],
        &[("RUNBOOKD_ENGINE", "podman")],
    ] {
        text.push_str(&said(&home, &["demo"], env).await);
    }
    expect![[r#"
        78: runbookd: neither RUNBOOKD_STATE nor HOME is set: set RUNBOOKD_STATE to a folder
        runbookd: neither RUNBOOKD_CACHE nor HOME is set: set RUNBOOKD_CACHE to a folder
        runbookd: npm_config_registry is `registry.example.org`: it must be an http or https URL such as https://registry.npmjs.org/
        78: runbookd: RUNBOOKD_ENGINE: `podman` is not an engine: use auto, docker or bubblewrap
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn results_that_cannot_be_written_are_said() {
    let home = Home::new();
    home.file("results", "a file");
    let words = said(&home, &["demo", "--engine", "bubblewrap"], &[]).await;
    expect![[r#"
        74: runbookd: could not make the folder `results`: File exists (os error 17)
    "#]]
    .assert_eq(&words);
}

#[tokio::test]
async fn without_docker_the_package_to_install_is_named() {
    let home = Home::new();
    let nowhere = [("DOCKER_HOST", "unix:///nowhere/docker.sock")];
    let words = said(&home, &["demo", "--engine", "docker"], &nowhere).await;
    expect![[r#"
        69: runbookd: no sandbox engine is ready: Docker does not answer at /nowhere/docker.sock (Socket not found: /nowhere/docker.sock; install and start `docker.io`, or check your rights on the socket)
    "#]].assert_eq(&words);
}

#[tokio::test]
async fn without_any_engine_the_way_to_one_is_named() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED without_any_engine_the_way_to_one_is_named: only root can hide programs");
        return;
    }
    let home = Home::new();
    let hidden = home.path().join("empty");
    std::fs::create_dir(&hidden).unwrap();
    // In a mount namespace of its own no program is installed at all.
    let mut command = tokio::process::Command::new("unshare");
    command
        .args([
            "--mount",
            "bash",
            "-c",
            "mount --bind \"$1\" /usr/local/bin; mount --bind \"$1\" /usr/bin; exec \"$2\" demo",
        ])
        .arg("bash")
        .arg(&hidden)
        .arg(env!("CARGO_BIN_EXE_runbookd"))
        .env("HOME", home.path())
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .current_dir(home.path());
    let output = command.output().await.unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{words}");
    expect![[r#"
        runbookd: no sandbox engine is ready: Docker does not answer at /nowhere/docker.sock (Socket not found: /nowhere/docker.sock; install and start `docker.io`, or check your rights on the socket); Bubblewrap is not installed (install the package `bubblewrap`)
        runbookd: start it again with `--setup` to have Bubblewrap installed; it asks first
    "#]].assert_eq(&words);
}

#[tokio::test]
async fn a_cold_cache_without_a_registry_says_how_to_fill_it() {
    let home = Home::new();
    let dead = [
        ("npm_config_registry", "http://127.0.0.1:1/"),
        ("RUNBOOKD_CACHE", "cache"),
        ("RUNBOOKD_ENGINE", "bubblewrap"),
    ];
    let words = said(&home, &["demo"], &dead).await;
    assert!(words.starts_with("69: "), "{words}");
    for part in ["npm_config_registry", "http://127.0.0.1:1/", "cache/claude-code/2.1.126"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(home.trajectories()[0]["failure"]["code"], "agent_unavailable");
}
