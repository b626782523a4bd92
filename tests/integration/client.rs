//! The command line as a client of a server: real runs of the real CLI, asked for over HTTP.

use std::process::Stdio;

use runbookd::sandbox::EngineKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;

use crate::support::{Home, Ran, Server, Stage, Web, processes_with, until};

stories! {
    a_runbook_runs_on_a_server_as_it_runs_here,
    what_a_run_reached_is_suggested_as_its_policy,
    a_run_that_is_interrupted_is_stopped_on_the_server,
}

/// A server, and a person who has a token for it.
struct Person {
    home: Home,
    server: Server,
    address: String,
    token: String,
}

impl Person {
    async fn new(engine: &str) -> Self {
        Self::with(engine, &[]).await
    }

    /// A server with these settings.
    async fn with(engine: &str, settings: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let made = home.run(&["token", "create", "person", "--collection", "team"]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let server =
            Server::start(&home, &[&[("RUNBOOKD_ENGINE", engine)], settings].concat()).await;
        let address = format!("http://{}", server.address);
        Self { home, server, address, token: made.stdout.trim().to_owned() }
    }

    fn start(&self, arguments: &[&str], input: Option<&str>) -> Child {
        let mut command = self.home.command(arguments);
        command
            .env("JETTY_API_TOKEN", &self.token)
            .env("JETTY_API_URL", &self.address)
            .env("MADE_UP_SECRET", "sk-made-up-secret");
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        command.spawn().unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.start(arguments, None)).await
    }

    async fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self.start(arguments, Some(input));
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        Ran::of(child).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    async fn stop(self) {
        self.server.signal(Signal::TERM);
        let (code, log) = self.server.ended().await;
        assert_eq!(code, Some(0), "{log}");
    }
}

fn engine(stage: &Stage) -> &'static str {
    match stage.kind {
        EngineKind::Docker => "docker",
        EngineKind::Bubblewrap => "bubblewrap",
    }
}

const RUNBOOK: &str = "---\nprimary_outputs: [out.md]\nsecrets:\n  MADE_UP_SECRET: { required: false }\n---\n# Write\n\nWrite about {{topic}}.\n";

/// Writes what it was given, by a file and by a secret, and says two lines.
const SCRIPT: &str = r#"turns:
  - tools: [{ Bash: { command: "cat /app/assets/notes.txt > /app/results/out.md; printf %s \"$MADE_UP_SECRET\" | wc -c >> /app/results/out.md" } }]
  - text: "The file is written.\nIts second line is a number."
"#;

async fn a_runbook_runs_on_a_server_as_it_runs_here(stage: &Stage) {
    let person = Person::new(engine(stage)).await;
    person.home.file("write.md", RUNBOOK);
    person.home.file("write.yaml", SCRIPT);
    person.home.file("notes.txt", "notes\n");
    let command: Vec<&str> = vec![
        "run",
        "write.md",
        "--server",
        &person.address,
        "--script",
        "write.yaml",
        "--network",
        "none",
        "--file",
        "notes.txt",
        "--var",
        "topic=bees",
        "--secret",
        "MADE_UP_SECRET",
    ];
    let ran = person.run(&[&command[..], &["--json"]].concat()).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let events = ran.events();
    let finished = events.last().unwrap();
    assert_eq!(
        json!([finished["event"], finished["status"], finished["passed"], finished["exit_code"]]),
        json!(["finished", "completed", true, 0])
    );
    let opened = events.iter().find(|event| event["event"] == "opened").unwrap();
    let id = opened["trajectory_id"].as_str().unwrap();
    assert!(opened["folder"].as_str().unwrap().starts_with(&person.address), "{opened}");
    for event in ["phase", "tool_started", "tool_finished", "said", "usage"] {
        assert!(events.iter().any(|found| found["event"] == event), "{event}: {}", ran.stdout);
    }
    // The second time the task is there, and people read the same.
    let again = person.run(&command).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    for line in ["* The file is written.", "verdict  passed", "(the agent's own totals)"] {
        assert!(again.stdout.contains(line), "{line}: {again:?}");
    }
    assert!(!again.stdout.contains("the task team/write"), "{again:?}");
    the_run_is_there(&person, id).await;
    what_fails_has_the_code_that_it_has_here(&person).await;
    let home = person.home.path().to_owned();
    person.stop().await;
    assert_eq!(processes_with(home.to_str().unwrap()), Vec::<String>::new());
}

/// The run can be listed, shown, read and downloaded, by each of its names.
async fn the_run_is_there(person: &Person, id: &str) {
    let listed = person.json(&["runs", "list", "--task", "write"]).await;
    assert_eq!(listed["total"], 2);
    let name = format!("team/write/{id}");
    for run in [id, &name, &format!("team-write--{id}")] {
        let shown = person.json(&["runs", "show", run]).await;
        assert_eq!(json!([shown["trajectory_id"], shown["status"]]), json!([id, "completed"]));
    }
    let table = person.run(&["runs", "list"]).await;
    assert!(table.stdout.contains(&format!("{name}  completed")), "{table:?}");
    let logs = person.run(&["logs", id]).await;
    assert!(logs.stdout.contains("  * The file is written.\n"), "{logs:?}");
    assert!(logs.stdout.contains("  Its second line is a number.\n"), "{logs:?}");
    let followed = person.run(&["logs", "--follow", "--json", id]).await.events();
    let numbers: Vec<u64> = followed.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(followed.last().unwrap()["kind"], "finished");
    let raw = person.run(&["logs", "--raw", id]).await;
    let lines = raw.events();
    assert_eq!(lines.last().unwrap()["type"], "result", "{raw:?}");
    assert!(!raw.stdout.contains("sk-made-up"), "{raw:?}");
    let one = person.run(&["runs", "download", id, "--file", "results/out.md"]).await;
    assert_eq!((one.code, one.stdout.trim()), (Some(0), "out.md"), "{one:?}");
    let written = std::fs::read_to_string(person.home.path().join("out.md")).unwrap();
    assert_eq!(written, "notes\n17\n");
    let all = person.run(&["runs", "download", id, "--output", "all.zip"]).await;
    assert_eq!(all.code, Some(0), "{all:?}");
    let archive = std::fs::File::open(person.home.path().join("all.zip")).unwrap();
    let archive = zip::ZipArchive::new(archive).unwrap();
    assert!(archive.file_names().any(|name| name.is_ok_and(|name| name == "results/out.md")));
}

async fn what_fails_has_the_code_that_it_has_here(person: &Person) {
    person.home.file("done.yaml", "turns: [{ text: Done. }]");
    person.home.file("broken.yaml", "turns: [{ fail: { status: 400 }, times: forever }]");
    let server = person.address.as_str();
    for (script, code, words) in
        [("done.yaml", 3, "missing  out.md"), ("broken.yaml", 1, "Read the provider's words above")]
    {
        let command = ["run", "write.md", "--server", server, "--script", script];
        let ran = person.run(&[&command[..], &["--network", "none"]].concat()).await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    let refused = person.run(&["run", "--server", server, "--task", "nothing"]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("there is no task team/nothing"), "{refused:?}");
    let left = ["run", "write.md", "--server", server, "--script", "done.yaml", "--no-wait"];
    let left = person.run(&[&left[..], &["--network", "none"]].concat()).await;
    assert_eq!(left.code, Some(0), "{left:?}");
    let name = left.stdout.trim().lines().last().unwrap().to_owned();
    let followed = person.run(&["logs", "-f", &name]).await;
    assert!(followed.stdout.contains("  completed in "), "{followed:?}");
}

async fn what_a_run_reached_is_suggested_as_its_policy(stage: &Stage) {
    let web = Web::start().await;
    let port = web.port;
    let person = Person::with(
        engine(stage),
        &[
            ("RUNBOOKD_EGRESS_PRIVATE", &format!("127.0.0.1:{port}")),
            ("RUNBOOKD_EGRESS_HOSTS", "web.test=127.0.0.1,inside.test=10.0.0.1"),
        ],
    )
    .await;
    person.home.file("ask.md", "# Ask\n");
    let ask = format!(
        "cd /app/results; curl -s http://web.test:{port}/ >listed; curl -s http://inside.test/ >inside; true"
    );
    let turns =
        json!({ "turns": [{ "tools": [{ "Bash": { "command": ask } }] }, { "text": "Done." }] });
    person.home.file("ask.yaml", &turns.to_string());
    let run = async |more: &[&str]| {
        let command =
            ["run", "ask.md", "--server", &person.address, "--script", "ask.yaml", "--json"];
        let ran = person.run(&[&command[..], more].concat()).await;
        let events = ran.events();
        let opened = events.iter().find(|event| event["event"] == "opened");
        opened.unwrap_or_else(|| panic!("{ran:?}"))["trajectory_id"].as_str().unwrap().to_owned()
    };
    let suggest =
        async |id: &str| person.run(&["suggest-policy", id, "--server", &person.address]).await;
    let id = run(&["--network", "public"]).await;
    let suggested = suggest(&id).await;
    assert_eq!((suggested.code, suggested.stderr.as_str()), (Some(0), ""), "{suggested:?}");
    let entry = format!("\"web.test:{port}\"");
    let expected = format!(
        "network:\n  mode: allowlist\n  allow:\n    - {entry:<40} # once\n    # - {:<38} # \
         denied (private-address, 1): no allowlist lets it through\n",
        "inside.test"
    );
    assert_eq!(suggested.stdout, expected);
    // With it the run does the same, and nothing else would.
    person.home.file("ask.md", &format!("---\n{}---\n# Ask\n", suggested.stdout));
    let again = run(&[]).await;
    let shown = person.json(&["runs", "show", &again]).await;
    assert_eq!(shown["step_configs"]["run"]["network"], "allowlist", "{shown:#}");
    let egress = &shown["egress"];
    assert_eq!(json!([egress["allowed"], egress["denied"]]), json!([1, 1]), "{shown:#}");
    assert_eq!(egress["denied_hosts"][0]["rule"], "not-in-allowlist");
    let listed = person.run(&["runs", "download", &again, "--file", "results/listed"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let listed = std::fs::read_to_string(person.home.path().join("listed")).unwrap();
    assert_eq!((listed.as_str(), web.n_heard()), ("hello\n", 2));
    // What has no ledger, and what is no run, says so.
    let none = suggest(&run(&["--network", "none"]).await).await;
    assert_eq!(none.code, Some(4), "{none:?}");
    assert!(none.stderr.contains("the run had no proxy"), "{none:?}");
    let unknown = suggest("1a2b3c4d").await;
    assert_eq!(unknown.code, Some(4), "{unknown:?}");
    assert!(unknown.stderr.contains("there is no run `1a2b3c4d`"), "{unknown:?}");
    person.stop().await;
}

async fn a_run_that_is_interrupted_is_stopped_on_the_server(stage: &Stage) {
    let person = Person::new(engine(stage)).await;
    let word = format!("waits-{}-{}", stage.owner, stage.kind);
    person.home.file("wait.md", "# Wait\n");
    person.home.file(
        "wait.yaml",
        &format!(
            "turns: [{{ tools: [{{ Bash: {{ command: \"echo kept >/app/results/a.txt; bash -c 'sleep 1000; : {word}'\" }} }}] }}, {{ text: Done. }}]"
        ),
    );
    let command = ["run", "wait.md", "--server", &person.address, "--script", "wait.yaml"];
    let child = person.start(&[&command[..], &["--network", "none"]].concat(), None);
    until(|| !processes_with(&word).is_empty()).await;
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = Ran::of(child).await;
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stderr.contains("its files are kept"), "{ran:?}");
    assert_eq!(processes_with(&word), Vec::<String>::new());
    let listed = person.json(&["runs", "list", "--status", "cancelled"]).await;
    let id = listed["trajectories"][0]["trajectory_id"].as_str().unwrap();
    let one = person.run(&["runs", "download", id, "--file", "results/a.txt"]).await;
    assert_eq!(one.code, Some(0), "{one:?}");
    assert_eq!(std::fs::read_to_string(person.home.path().join("a.txt")).unwrap(), "kept\n");
    person.stop().await;
}

#[tokio::test]
async fn tasks_and_variables_are_looked_after_without_a_value_ever_coming_back() {
    let person = Person::new("auto").await;
    let set = person.run_with_input(&["env", "set", "KEY"], "sk-made-up-value\n").await;
    assert_eq!((set.code, set.stdout.as_str()), (Some(0), "KEY is set in `team`.\n"), "{set:?}");
    let listed = person.run(&["env", "list"]).await;
    assert_eq!(listed.stdout, "KEY\n");
    let whole = person.run(&["env", "list", "--json"]).await;
    assert!(!whole.stdout.contains("made-up"), "{whole:?}");
    assert_eq!(person.run(&["env", "unset", "KEY"]).await.code, Some(0));
    assert!(person.run(&["env", "list"]).await.stdout.contains("has no variables"));
    for (arguments, input, words) in [
        (["env", "set", "KEY=value"], "", "its value must not be an argument"),
        (["env", "set", "KEY"], "\n", "is empty"),
    ] {
        let ran = person.run_with_input(&arguments, input).await;
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
    person.home.file("hello.md", "# Hello\n");
    let put = ["task", "put", "hello.md", "--task", "greet"];
    assert_eq!(person.run(&put).await.stdout, "The task team/greet is made.\n");
    assert_eq!(person.run(&put).await.stdout, "The task team/greet is changed.\n");
    let shown = person.json(&["task", "show", "greet"]).await;
    assert_eq!(shown["workflow"]["init_params"]["instruction"], "# Hello\n");
    let own = json!({
        "name": "own",
        "workflow": {
            "init_params": { "instruction": "# Own\n" },
            "step_configs": { "go": { "activity": "runbook", "timeout_sec": 60 } },
            "steps": ["go"],
        },
    });
    person.home.file("own.json", &own.to_string());
    assert_eq!(person.run(&["task", "put", "own.json"]).await.code, Some(0));
    let command = ["run", "hello.md", "--server", &person.address, "--task", "own"];
    let refused = person.run(&command).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("has a workflow of its own"), "{refused:?}");
    let tasks = person.run(&["task", "list"]).await;
    assert_eq!(tasks.stdout, "TASK   DESCRIPTION\ngreet\nown\n");
    assert_eq!(person.run(&["task", "delete", "own"]).await.code, Some(0));
    assert_eq!(person.run(&["task", "show", "own"]).await.code, Some(4));
    person.stop().await;
}

#[tokio::test]
async fn whoever_cannot_be_served_is_told_why_and_what_to_do() {
    let person = Person::new("auto").await;
    let health = person.run(&["health"]).await;
    assert_eq!((health.code, health.stdout.as_str()), (Some(0), "ok\n"), "{health:?}");
    let stranger = person.home.run(&["runs", "list", "--server", &person.address]).await;
    assert_eq!(stranger.code, Some(4), "{stranger:?}");
    assert!(stranger.stderr.contains("put a token into JETTY_API_TOKEN"), "{stranger:?}");
    // The stored token is taken where the variable is not set.
    let folder = person.home.path().join(".config/jetty");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), format!("{}\n", person.token)).unwrap();
    let known = person.home.run(&["collection", "list", "--server", &person.address]).await;
    assert_eq!(known.stdout, "NAME  DESCRIPTION\nteam\n", "{known:?}");
    let no_run = person.run(&["runs", "show", "1a2b3c4d"]).await;
    assert_eq!(no_run.code, Some(4), "{no_run:?}");
    assert!(no_run.stderr.contains("there is no run `1a2b3c4d`"), "{no_run:?}");
    let foreign = person.run(&["runs", "list", "--collection", "other"]).await;
    assert_eq!(foreign.code, Some(4), "{foreign:?}");
    assert!(foreign.stderr.contains("API key not valid for this collection"), "{foreign:?}");
    let address = person.address.clone();
    let home = Home::new();
    person.stop().await;
    let gone = home.run(&["health", "--server", &address]).await;
    assert_eq!(gone.code, Some(69), "{gone:?}");
    assert!(gone.stderr.contains("could not reach the server at http://127.0.0.1"), "{gone:?}");
}
