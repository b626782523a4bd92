//! Guardrails, end to end: the real CLI asks through the gateway, and what must not leave does not.

use runbookd::plan::Overrides;
use runbookd::provider::scripted::{Listen, Script, ScriptedProvider};
use runbookd::run::Network;
use serde_json::{Value, json};

use crate::support::{Scene, Stage, Story, host};

stories! {
    a_card_number_is_masked_before_it_leaves,
    a_blocked_prompt_reaches_nobody_and_is_not_tried_again,
    without_guardrails_nothing_changes,
    results_are_masked_where_that_is_wanted,
}

const CARD: &str = "4111 1111 1111 1111";
const SECRET: &str = "made-up-and-known-0123456789";

/// Reads the card's number out of a file, so that it comes back as a tool's result.
const SCRIPT: &str = r#"
turns:
  - text: I look at the order.
    tools:
      - Bash: { command: "cat /app/assets/order.txt; echo $SHOP_TOKEN; echo done > /app/results/a.txt", description: Read it }
  - text: It is paid.
"#;

/// A run with these settings, and every body that came to its model service.
async fn run(stage: &Stage, settings: &[(&'static str, &'static str)]) -> (Scene, Vec<String>) {
    let address = "0.0.0.0:0".parse().unwrap();
    let script = Script::parse(SCRIPT).unwrap();
    let server = ScriptedProvider::start(script, Listen::Tcp(address)).await.unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
    let url = format!("http://{}:{}", host(stage.kind), address.port());
    let mut keys = vec![
        ("ANTHROPIC_API_KEY", "sk-ant-api03-made-up"),
        ("ANTHROPIC_BASE_URL", &*url.leak()),
        ("SHOP_TOKEN", SECRET),
    ];
    keys.extend(settings);
    let story = Story {
        provider: Some("anthropic"),
        runbook: format!(
            "---\nsecrets:\n  token:\n    env: SHOP_TOKEN\n---\n# An order\n\nPay with {CARD}.\n"
        ),
        assets: vec![("order.txt", "card 5555-5555-5555-4444, mail ada.lovelace@math.cam.ac.uk\n")],
        keys,
        overrides: Overrides {
            agent: Some("claude-code".to_owned()),
            model: Some("claude-sonnet-4-6".to_owned()),
            network: Some(Network::Open),
            model_retries: Some(2),
            ..Overrides::default()
        },
        ..Story::scripted("")
    };
    let scene = story.run(stage).await;
    let asked = server.stop().await;
    let asked = asked.iter().filter(|entry| entry.method == "POST");
    let bodies = asked.map(|entry| entry.body.clone().expect("bodies are kept"));
    (scene, bodies.map(|body| String::from_utf8_lossy(&body).into_owned()).collect())
}

/// Kind and action of what the run's record says was found.
fn found(scene: &Scene) -> Vec<String> {
    let guard = scene.trajectory["usage"]["wire"]["guard"].as_array().cloned().unwrap_or_default();
    let word = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    guard.iter().map(|entry| format!("{} {}", word(entry, "kind"), word(entry, "action"))).collect()
}

async fn a_card_number_is_masked_before_it_leaves(stage: &Stage) {
    let settings = [("RUNBOOKD_GUARD_PII", "mask"), ("RUNBOOKD_GUARD_SECRETS", "mask")];
    let (scene, bodies) = run(stage, &settings).await;
    assert_eq!(scene.trajectory["status"], "completed", "{}", scene.outline());
    assert_eq!(scene.trajectory["usage"]["reconciliation"], "exact");
    assert!(bodies.len() >= 2, "{}", bodies.len());
    for body in &bodies {
        for value in [CARD, "5555-5555-5555-4444", "ada.lovelace", SECRET] {
            assert!(!body.contains(value), "{value}");
        }
        serde_json::from_str::<Value>(body).unwrap();
    }
    let last = bodies.last().unwrap();
    for mask in ["Pay with [redacted:payment_card].", "[redacted:email]", "[redacted:known_secret]"]
    {
        assert!(last.contains(mask), "{mask}");
    }
    assert_eq!(found(&scene), ["email mask", "known_secret mask", "payment_card mask"]);
}

async fn a_blocked_prompt_reaches_nobody_and_is_not_tried_again(stage: &Stage) {
    let (scene, bodies) = run(stage, &[("RUNBOOKD_GUARD_PII", "block")]).await;
    assert_eq!(scene.trajectory["status"], "failed", "{}", scene.outline());
    assert_eq!(bodies, Vec::<String>::new());
    let why = scene.trajectory["error"].as_str().unwrap();
    assert!(why.contains("blocked by policy") && why.contains("payment card"), "{why}");
    assert_eq!(found(&scene), ["payment_card block"]);
    let ledger = std::fs::read_to_string(scene.folder().join("logs/gateway.jsonl")).unwrap();
    assert!(!ledger.contains(CARD), "{ledger}");
    let lines = ledger.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused: Vec<Value> = lines.filter(|line| line["endpoint"] == "message").collect();
    assert!(!refused.is_empty());
    for line in refused {
        let told = [&line["outcome"], &line["status"], &line["n_retries"]];
        assert_eq!(json!(told), json!(["refused", 400, 0]), "{line}");
    }
}

async fn without_guardrails_nothing_changes(stage: &Stage) {
    let (scene, bodies) = run(stage, &[("RUNBOOKD_GUARD_PII", "off")]).await;
    assert_eq!(scene.trajectory["status"], "completed", "{}", scene.outline());
    let last = bodies.last().unwrap();
    assert!(last.contains(CARD) && last.contains("5555-5555-5555-4444") && last.contains(SECRET));
    assert_eq!(found(&scene), Vec::<String>::new());
    // What the provider may know the record need not.
    assert!(!scene.trajectory.to_string().contains(SECRET));
}

async fn results_are_masked_where_that_is_wanted(stage: &Stage) {
    const WRITES: &str = r#"
turns:
  - text: I write it down.
    tools:
      - Bash: { command: "cd /app/results; echo key $SHOP_TOKEN. > a.txt; printf '\\0%s' $SHOP_TOKEN > b.bin; echo it is $SHOP_TOKEN", description: Write it }
  - text: Done.
"#;
    for wanted in ["true", "false"] {
        let story = Story {
            runbook: format!(
                "---\nredact_artifacts: {wanted}\nsecrets:\n  token:\n    env: SHOP_TOKEN\n---\n# A note\n"
            ),
            keys: vec![("SHOP_TOKEN", SECRET)],
            ..Story::scripted(WRITES)
        };
        let scene = story.run(stage).await;
        assert_eq!(scene.trajectory["status"], "completed", "{}", scene.outline());
        let is_masked = wanted == "true";
        let text = scene.text("results/a.txt");
        assert_eq!(text.contains(SECRET), !is_masked, "{text}");
        assert_eq!(text.contains("key [redacted]."), is_masked, "{text}");
        let binary = std::fs::read(scene.folder().join("results/b.bin")).unwrap();
        assert!(binary.ends_with(SECRET.as_bytes()));
        let note = scene.trajectory["warnings"].to_string();
        let expected = "masked in 1 of the 1 texts in results; 1 other files";
        assert_eq!(note.contains(expected), is_masked, "{note}");
        // What the agent said of it is masked in any case.
        assert!(!String::from_utf8_lossy(&scene.log).contains(SECRET));
    }
}
