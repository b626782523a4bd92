//! What reaches the agent: its instruction whole and as text, the files and values it was given.

use expect_test::expect;

use crate::support::{Scene, Stage, Story};

stories! {
    a_runbook_of_a_megabyte_arrives_whole_where_the_model_takes_it,
    a_runbook_of_a_megabyte_arrives_as_a_file_where_it_does_not,
    a_prompt_that_looks_like_a_command_is_text,
    a_prompt_that_looks_like_front_matter_is_text,
    a_file_that_a_prompt_mentions_is_not_attached,
    template_variables_reach_the_prompt,
    f11_declared_variables_without_a_value_are_listed,
    f19_the_agent_is_told_to_do_the_work_and_cannot_ask,
    given_files_stand_under_both_names,
}

/// A runbook of a megabyte that ends with a mark.
fn megabyte() -> String {
    format!("# Long\n\n{}\nthe last line\n", "0123456789abcde\n".repeat(1 << 16))
}

/// The agent's own record of what it was told.
fn session(scene: &Scene) -> String {
    let files = scene.files();
    let session = files.iter().find(|file| {
        file.extension().is_some_and(|e| e == "jsonl")
            && file.to_str().unwrap().contains("/sessions/")
    });
    std::fs::read_to_string(session.expect("a session file")).unwrap()
}

/// Runs a runbook whose model has one word to say.
async fn told(stage: &Stage, runbook: &str) -> Scene {
    let story =
        Story { runbook: runbook.to_owned(), ..Story::scripted("turns: [{ text: Done. }]") };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    scene
}

async fn a_runbook_of_a_megabyte_arrives_whole_where_the_model_takes_it(stage: &Stage) {
    let mut story = Story { runbook: megabyte(), ..Story::scripted("turns: [{ text: Done. }]") };
    story.overrides.model = Some("claude-opus-4-7".to_owned());
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(scene.ledger.len(), 1, "no summary is made of it");
    let n_bytes = scene.ledger[0]["n_request_bytes"].as_u64().unwrap();
    assert!(n_bytes > 1 << 20, "{n_bytes}");
    assert!(session(&scene).contains("the last line"));
}

async fn a_runbook_of_a_megabyte_arrives_as_a_file_where_it_does_not(stage: &Stage) {
    let story = Story {
        runbook: megabyte(),
        ..Story::scripted(
            "turns: [{ tools: [{ Bash: { command: \"cp /run/runbookd/in/instruction.md /app/results/\" } }] }, { text: Done. }]",
        )
    };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(scene.text("results/instruction.md"), scene.text("instruction.md"));
    assert!(scene.text("instruction.md").ends_with("the last line\n"));
    let n_bytes = scene.ledger[0]["n_request_bytes"].as_u64().unwrap();
    assert!(n_bytes < 200_000, "{n_bytes}");
}

async fn a_prompt_that_looks_like_a_command_is_text(stage: &Stage) {
    let scene = told(stage, "/cost\n\nSay what it costs.\n").await;
    assert_eq!(scene.ledger.len(), 1, "the model was asked");
    assert!(session(&scene).contains(r"/cost\n\nSay what it costs."));
}

async fn a_prompt_that_looks_like_front_matter_is_text(stage: &Stage) {
    let scene = told(stage, "---\nagent: claude-code\n---\n---\n--verbose\n").await;
    assert_eq!(scene.ledger.len(), 1, "the model was asked");
    assert!(session(&scene).contains(r"---\n--verbose"));
}

async fn a_file_that_a_prompt_mentions_is_not_attached(stage: &Stage) {
    let story = Story {
        runbook: "Look at @/app/assets/notes.md and @/etc/hostname.\n".to_owned(),
        assets: vec![("notes.md", "what only the file says")],
        ..Story::scripted("turns: [{ text: Done. }]")
    };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let session = session(&scene);
    assert!(session.contains("@/app/assets/notes.md"));
    assert!(!session.contains("what only the file says"));
}

async fn template_variables_reach_the_prompt(stage: &Stage) {
    let story = Story {
        runbook: "# Greet {{name}}\n\nWrite to {{results_dir}}; leave {{unknown}}.\n".to_owned(),
        variables: vec![("name", "Ada"), ("stray", "x")],
        ..Story::scripted("turns: [{ text: Done. }]")
    };
    let scene = story.run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/1/0/0/0/0
        message: Done.
        result success: Done.
        ! The variable `stray` was given, but the runbook has no place for it.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    assert!(
        session(&scene).contains(r"# Greet Ada\n\nWrite to /app/results; leave {{unknown}}."),
        "{}",
        session(&scene)
    );
    assert_eq!(scene.trajectory["init_params"], serde_json::json!({ "name": "Ada", "stray": "x" }));
}

async fn given_files_stand_under_both_names(stage: &Stage) {
    let story = Story {
        assets: vec![("sales.csv", "a,b\n"), ("Read me", "please\n")],
        ..Story::scripted(
            "turns: [{ tools: [{ Bash: { command: \"cd /app/assets; grep -r . >/app/results/found\" } }] }, { text: Done. }]",
        )
    };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let id = scene.report.name.id.as_str();
    let found = scene.text("results/found").replace(id, "ID");
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["ID.00.csv:a,b", "ID.01:please", "Read me:please", "sales.csv:a,b"]);
    assert_eq!(scene.text("assets/sales.csv"), "a,b\n");
}

async fn f11_declared_variables_without_a_value_are_listed(stage: &Stage) {
    let story = Story {
        runbook: "# Report\n\n## Parameters\n\n| Parameter | Template variable | Default |\n|---|---|---|\n| Topic | `{{topic}}` | - |\n| Depth | `{{depth}}` | `2` |\n| Tone | `{{tone}}` | *(required)* |\n\n## Steps\n\nWrite about {{topic}} in {{tone}}, {{depth}} deep.\n"
            .to_owned(),
        ..Story::scripted("turns: [{ text: Done. }]")
    };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let unfilled: Vec<&str> = scene
        .warnings()
        .into_iter()
        .filter(|warning| warning.contains("has no value and stays as it is written"))
        .filter_map(|warning| warning.split('`').nth(1))
        .collect();
    assert_eq!(unfilled, ["topic", "tone"]);
}

async fn f19_the_agent_is_told_to_do_the_work_and_cannot_ask(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - text: Before I start I would like to know something.
    tools:
      - AskUserQuestion: { questions: [{ question: "Which?", header: Which, options: [{ label: A, description: a }, { label: B, description: b }], multiSelect: false }] }
  - text: The runbook asks me to write a report. Shall I begin?
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/65/0/0/0/0
        message: Before I start I would like to know something.
        AskUserQuestion {"questions":[{"question":"Which?","header":"Which","options":[{"label":"A","description":"a"},{"label":"B","description":"b"}],"multiSelect":false}]} -> FAILED <tool_use_error>Error: No such tool available: AskUserQuestion. AskUserQuestion exists but is not enabled in this context. Use one of the available tools instea…
        message: The runbook asks me to write a report. Shall I begin?
        result success: The runbook asks me to write a report. Shall I begin?
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
    let told = session(&scene);
    for words in ["Do all of it now; do not only read it", "Nobody can answer questions"] {
        assert!(told.contains(words), "{words}");
    }
    let init: serde_json::Value =
        serde_json::from_slice(scene.log.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let tools = init["tools"].as_array().unwrap();
    assert!(tools.len() > 5 && !tools.iter().any(|tool| tool == "AskUserQuestion"), "{tools:?}");
}
