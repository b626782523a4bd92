//! What a run may spend, with the real CLI: never more by the provider's own count, whoever asks at
//! the same time, and the run says so.

use std::path::PathBuf;

use runbookd::plan::Overrides;
use runbookd::provider::scripted::{LedgerEntry, Listen, Script, ScriptedProvider};
use runbookd::provider::{Billed, estimate};
use runbookd::run::{Caps, Slug, Usd};
use runbookd::spend::Spend;
use serde_json::{Value, json};

use crate::support::{Scene, Stage, Story, host};

stories! {
    eight_sub_agents_at_the_same_time_never_spend_more_than_the_run_may,
    a_run_ends_after_as_many_requests_as_it_may_make,
    two_runs_share_the_day_of_their_collection,
    requests_wait_for_the_rate_of_their_collection,
    a_run_without_a_gateway_is_counted_by_its_own_account,
}

const MODEL: &str = "claude-haiku-4-5";

/// A run behind a gateway, and what its provider counted.
struct Frugal {
    script: String,
    caps: Caps,
    /// More of the collection's environment.
    environment: Vec<(&'static str, &'static str)>,
    spend: Option<PathBuf>,
}

impl Frugal {
    async fn run(self, stage: &Stage) -> (Scene, Vec<LedgerEntry>) {
        let address = "0.0.0.0:0".parse().unwrap();
        let script = Script::parse(&self.script).unwrap();
        let server = ScriptedProvider::start(script, Listen::Tcp(address)).await.unwrap();
        let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
        let url = format!("http://{}:{}", host(stage.kind), address.port());
        let mut keys = self.environment;
        keys.push(("ANTHROPIC_API_KEY", "sk-ant-api03-made-up"));
        keys.push(("ANTHROPIC_BASE_URL", url.leak()));
        let story = Story::scripted("");
        let overrides =
            Overrides { model: Some(MODEL.to_owned()), caps: self.caps, ..story.overrides.clone() };
        let story =
            Story { provider: Some("anthropic"), keys, overrides, spend: self.spend, ..story };
        let scene = story.run(stage).await;
        (scene, server.stop().await)
    }
}

/// What the provider would bill.
fn billed(ledger: &[LedgerEntry]) -> Usd {
    let replies = ledger.iter().filter_map(|entry| {
        let usage = entry.usage.as_ref()?;
        let billed = Billed {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write_5m: usage.cache_write_5m,
            cache_write_1h: usage.cache_write_1h,
            web_searches: 0,
        };
        estimate(entry.model.as_deref()?, &billed)
    });
    Usd::at_least(replies.sum())
}

/// The lines of the gateway's ledger, each request's last.
fn requests(scene: &Scene) -> Vec<Value> {
    let lines = scene.text("logs/gateway.jsonl");
    let lines = lines.lines().filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["outcome"] != "in_flight" && line["outcome"] != "waiting").collect()
}

fn n_asked(ledger: &[LedgerEntry]) -> usize {
    ledger.iter().filter(|entry| entry.usage.is_some()).count()
}

/// Eight helpers at once, each with several turns that take time and tokens.
fn crowd() -> String {
    let agent = |n: usize| {
        format!(
            "      - Agent: {{ description: Count {n}, prompt: \"Helper, count part {n}.\", \
             subagent_type: general-purpose }}\n"
        )
    };
    let agents: String = (1..=8).map(agent).collect();
    let turn = "
      - text: I look.
        tools: [ { Bash: { command: echo 1, description: Look } } ]
        delay_ms: 200
        usage: { input: 4000, output: 700 }";
    format!(
        "
turns:
  - text: I ask eight helpers.
    tools:
{agents}    usage: {{ input: 5000, output: 300 }}
  - text: Done.
    usage: {{ input: 6000, output: 20 }}
subagents:
  - when: Helper, count part
    turns:{}
      - text: Counted.
        usage: {{ input: 4000, output: 100 }}
",
        turn.repeat(24)
    )
}

async fn eight_sub_agents_at_the_same_time_never_spend_more_than_the_run_may(stage: &Stage) {
    let cap = Usd::new(0.10).unwrap();
    let frugal = Frugal {
        script: crowd(),
        caps: Caps { cost: Some(cap), ..Caps::default() },
        environment: Vec::new(),
        spend: None,
    };
    let (scene, ledger) = frugal.run(stage).await;
    let billed = billed(&ledger);
    assert!(billed <= cap, "{billed} of {cap}");
    assert!(billed.micros() > cap.micros() / 2, "it got something for its money: {billed}");
    assert_eq!(scene.trajectory["failure"]["code"], "budget_exceeded", "{}", scene.outline());
    let exhausted = &scene.trajectory["failure"]["exhausted"];
    assert_eq!(
        json!([exhausted["span"], exhausted["measure"], exhausted["limit"]]),
        json!(["run", "cost", 100_000])
    );
    assert!(scene.outline().contains("of the $0.10 that this run may cost are spent"));
    // What was used is known all the same.
    let wire = &scene.trajectory["usage"]["wire"]["models"];
    let counted: u64 =
        wire.as_object().unwrap().values().map(|m| m["input"].as_u64().unwrap()).sum();
    let sent: u64 = ledger.iter().filter_map(|e| e.usage.as_ref()).map(|u| u.input).sum();
    assert_eq!(counted, sent);
    let requests = requests(&scene);
    let refused: Vec<&Value> =
        requests.iter().filter(|request| request["exhausted"].is_object()).collect();
    assert!(
        refused.iter().all(|request| request["n_retries"] == 0 || request["n_retries"].is_null())
    );
    assert!(requests.iter().any(|request| request["waited_ms"].is_u64()), "nobody had to wait");
    let most = scene.trajectory["steps"]["run"]["config"]["max_output_tokens"].as_u64().unwrap();
    assert_eq!(most, 5_000, "a quarter of the money buys so much output");
}

async fn a_run_ends_after_as_many_requests_as_it_may_make(stage: &Stage) {
    let turn = "
  - text: On and on.
    tools: [ { Bash: { command: echo 1, description: Go on } } ]";
    let frugal = Frugal {
        script: format!("turns:{}", turn.repeat(6)),
        caps: Caps { requests: Some(3), ..Caps::default() },
        environment: vec![("RUNBOOKD_MAX_REQUESTS_PER_RUN", "9")],
        spend: None,
    };
    let (scene, ledger) = frugal.run(stage).await;
    assert_eq!(n_asked(&ledger), 3);
    assert_eq!(scene.trajectory["failure"]["code"], "budget_exceeded", "{}", scene.outline());
    let message = scene.trajectory["failure"]["message"].as_str().unwrap();
    assert!(message.contains("3 of the 3 requests that this run may make are made"), "{message}");
    // What a plan takes a first request for.
    let first = requests(&scene)[0]["n_request_bytes"].as_u64().unwrap();
    assert!((30_000..80_000).contains(&first), "{first}");
    // Once, and not again and again: the agent does not try what cannot succeed.
    let refused = requests(&scene).iter().filter(|r| r["exhausted"].is_object()).count();
    assert_eq!(refused, 1);
}

async fn two_runs_share_the_day_of_their_collection(stage: &Stage) {
    let folder = tempfile::tempdir().unwrap();
    let frugal = || Frugal {
        script: "turns: [{text: Hello., usage: {input: 30000, output: 2000}}]".to_owned(),
        caps: Caps::default(),
        environment: vec![("RUNBOOKD_MAX_COST_USD_PER_DAY", "0.10")],
        spend: Some(folder.path().join("spend.db")),
    };
    let mut spent = 0;
    let mut last = None;
    for _ in 0..4 {
        let (scene, ledger) = frugal().run(stage).await;
        spent += billed(&ledger).micros();
        if scene.trajectory["status"] == "failed" {
            last = Some(scene);
            break;
        }
    }
    let last = last.expect("the day's budget does not last for four runs");
    assert!((40_000..=100_000).contains(&spent), "{spent}");
    assert_eq!(last.trajectory["failure"]["code"], "budget_exceeded", "{}", last.outline());
    let exhausted = &last.trajectory["failure"]["exhausted"];
    assert_eq!(json!([exhausted["span"], exhausted["spent"]]), json!(["day", spent]));
    assert!(exhausted["opens"].as_str().unwrap().ends_with("T00:00:00Z"));
}

async fn requests_wait_for_the_rate_of_their_collection(stage: &Stage) {
    let frugal = Frugal {
        script: "
turns:
  - text: One.
    tools: [ { Bash: { command: echo 1, description: One } } ]
  - text: Two.
    tools: [ { Bash: { command: echo 2, description: Two } } ]
  - text: Done.
"
        .to_owned(),
        caps: Caps::default(),
        // Two at once, and the third when half a minute has passed.
        environment: vec![("RUNBOOKD_MAX_REQUESTS_PER_MINUTE", "2")],
        spend: None,
    };
    let (scene, ledger) = frugal.run(stage).await;
    assert_eq!(scene.trajectory["status"], "completed", "{}", scene.outline());
    assert_eq!(n_asked(&ledger), 3);
    let waited: Vec<u64> =
        requests(&scene).iter().filter_map(|request| request["waited_ms"].as_u64()).collect();
    assert!(waited.iter().any(|ms| *ms > 5_000), "{waited:?}");
}

async fn a_run_without_a_gateway_is_counted_by_its_own_account(stage: &Stage) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(Spend::FILE);
    let script = "turns: [{text: Hello., usage: {input: 700, output: 20, cache_read: 5}}]";
    Story { spend: Some(file.clone()), ..Story::scripted(script) }.run(stage).await;
    let spend = Spend::open(&file).await.unwrap();
    let team = Slug::new("stories").unwrap();
    let days = ("2000-01-01".parse().unwrap(), "2999-01-01".parse().unwrap());
    let used = spend.usage(&team, days).await.unwrap();
    let counted: Vec<[u64; 3]> = used
        .iter()
        .map(|used| [used.input_tokens, used.output_tokens, used.cache_read_tokens])
        .collect();
    assert_eq!(counted, [[700, 20, 5]]);
    // A script costs nothing.
    assert_eq!(spend.spent(&team, jiff::Timestamp::now()).await.unwrap().in_day.tokens, 0);
}
