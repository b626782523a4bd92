//! Every provider, end to end: the real CLI speaks each wire format to a scripted server, and every
//! request that arrives has the right path, the right credential and the right model.

use std::collections::BTreeSet;

use runbookd::plan::Overrides;
use runbookd::provider::scripted::{
    Delivery, Fingerprint, LedgerEntry, Listen, Script, ScriptedProvider, Wire,
};
use runbookd::run::{Network, ProviderTool};
use serde_json::json;

use crate::support::{Scene, Stage, Story, host};

stories! {
    anthropic_is_reached_by_key,
    anthropic_is_reached_by_a_subscriptions_token,
    a_gateway_is_reached_by_its_token,
    bedrock_is_reached_by_bearer_token,
    bedrock_is_reached_by_static_keys,
    openrouter_is_reached_with_and_without_the_version_in_its_url,
    vertex_is_reached_through_a_gateway_that_signs,
    vertex_is_reached_by_a_service_account_whose_key_stays_outside,
    the_key_is_nowhere_in_the_sandbox,
    a_tool_of_the_service_passes_where_it_is_asked_for_and_granted,
    the_ledger_equals_what_was_sent_also_when_streams_break,
}

/// A sub-agent of the small model, then a file, then the end.
const SCRIPT: &str = r#"
turns:
  - text: I ask a helper first.
    tools:
      - Agent: { description: Count the files, prompt: "Count the files in /app, please.", subagent_type: Explore }
    usage: { input: 900, output: 70, cache_write_5m: 40 }
  - text: I write the result.
    tools:
      - Bash: { command: "echo 3 > /app/results/count.txt", description: Write it }
    usage: { input: 300, output: 60, cache_read: 40 }
  - text: Done.
    usage: { input: 200, output: 20, cache_read: 40 }
subagents:
  - when: Count the files
    turns:
      - text: There are three.
        usage: { input: 500, output: 30 }
"#;

/// What a provider is told and what must arrive.
struct Wired {
    provider: &'static str,
    keys: Vec<(&'static str, &'static str)>,
    /// The variable with the server's address, and the path behind it.
    base: (&'static str, &'static str),
    model: &'static str,
    /// How the agent's account compares with the wire's.
    reconciliation: &'static str,
}

impl Wired {
    async fn run(self, stage: &Stage) -> (Scene, Vec<LedgerEntry>) {
        self.run_script(stage, SCRIPT).await
    }

    async fn run_script(self, stage: &Stage, script: &str) -> (Scene, Vec<LedgerEntry>) {
        let address = "0.0.0.0:0".parse().unwrap();
        let script = Script::parse(script).unwrap();
        let server = ScriptedProvider::start(script, Listen::Tcp(address)).await.unwrap();
        let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
        let url = format!("http://{}:{}{}", host(stage.kind), address.port(), self.base.1);
        let given = self.keys.iter();
        let mut keys: Vec<(&'static str, &'static str)> =
            given.map(|(name, value)| (*name, &*value.replace("{url}", &url).leak())).collect();
        keys.push((self.base.0, url.leak()));
        let story = Story {
            provider: Some(self.provider),
            keys,
            overrides: Overrides {
                agent: Some("claude-code".to_owned()),
                model: Some(self.model.to_owned()),
                // A gateway needs no network of the sandbox's; an agent with the credential does.
                network: Some(match self.reconciliation {
                    "agent_only" => Network::Open,
                    _ => Network::Public,
                }),
                model_retries: Some(2),
                ..Overrides::default()
            },
            ..Story::scripted("")
        };
        let scene = story.run(stage).await;
        let sent: serde_json::Map<_, _> = server
            .usage_by_model()
            .into_iter()
            .map(|(model, sent)| (model, json!([sent.input, sent.output, sent.cache_read])))
            .collect();
        let ledger = server.stop().await;
        assert_eq!(scene.trajectory["status"], "completed", "{}", scene.outline());
        let counted: serde_json::Map<_, _> = scene.trajectory["usage"]["models"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(m, u)| (m.clone(), json!([u["input"], u["output"], u["cache_read"]])))
            .collect();
        assert_eq!(counted, sent);
        assert_eq!(scene.trajectory["usage"]["reconciliation"], self.reconciliation);
        assert_eq!(scene.trajectory["steps"]["run"]["config"]["model"], self.model);
        assert_eq!(scene.trajectory["steps"]["run"]["config"]["model_provider"], self.provider);
        (scene, ledger)
    }
}

/// Each different request for a message: wire, path, model.
fn asked(ledger: &[LedgerEntry]) -> BTreeSet<String> {
    let messages = ledger.iter().filter(|entry| entry.method == "POST");
    messages
        .map(|entry| {
            assert!(!entry.unexpected, "{entry:?}");
            let model = entry.model.as_deref().unwrap_or("none");
            format!("{:?} {} {model}", entry.wire, entry.path)
        })
        .collect()
}

/// Each different credential that came.
fn credentials(ledger: &[LedgerEntry]) -> BTreeSet<String> {
    ledger.iter().map(|entry| serde_json::to_string(&entry.auth).unwrap()).collect()
}

fn key_is(key: &str) -> BTreeSet<String> {
    let print = Fingerprint::of(key).to_string();
    BTreeSet::from([json!({ "api_key": print, "authorization": null }).to_string()])
}

fn bearer_is(token: &str) -> BTreeSet<String> {
    let authorization = json!({ "scheme": "bearer", "token": Fingerprint::of(token).to_string() });
    BTreeSet::from([json!({ "api_key": null, "authorization": authorization }).to_string()])
}

fn set<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.map(str::to_owned).into()
}

async fn anthropic_is_reached_by_key(stage: &Stage) {
    let wired = Wired {
        provider: "anthropic",
        keys: vec![("ANTHROPIC_API_KEY", "sk-ant-api03-made-up")],
        base: ("ANTHROPIC_BASE_URL", ""),
        model: "claude-sonnet-4-6",
        reconciliation: "exact",
    };
    let (_, ledger) = wired.run(stage).await;
    assert_eq!(
        asked(&ledger),
        set([
            "Anthropic /v1/messages claude-haiku-4-5-20251001",
            "Anthropic /v1/messages claude-sonnet-4-6",
        ])
    );
    assert_eq!(credentials(&messages(ledger)), key_is("sk-ant-api03-made-up"));
}

async fn anthropic_is_reached_by_a_subscriptions_token(stage: &Stage) {
    let wired = Wired {
        provider: "anthropic",
        keys: vec![("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-made-up")],
        base: ("ANTHROPIC_BASE_URL", ""),
        model: "claude-opus-4-7",
        reconciliation: "exact",
    };
    let (_, ledger) = wired.run(stage).await;
    assert_eq!(credentials(&messages(ledger)), bearer_is("sk-ant-oat01-made-up"));
}

async fn a_gateway_is_reached_by_its_token(stage: &Stage) {
    let wired = Wired {
        provider: "anthropic",
        keys: vec![("ANTHROPIC_AUTH_TOKEN", "made-up-gateway-token")],
        base: ("ANTHROPIC_BASE_URL", "/anthropic/v1/"),
        model: "claude-sonnet-4-6",
        reconciliation: "exact",
    };
    let (_, ledger) = wired.run(stage).await;
    assert!(messages(ledger.clone()).iter().all(|entry| entry.path == "/anthropic/v1/messages"));
    assert_eq!(credentials(&messages(ledger)), bearer_is("made-up-gateway-token"));
}

const BEDROCK_PATHS: [&str; 2] = [
    "Bedrock /model/us.anthropic.claude-haiku-4-5-20251001-v1:0/invoke-with-response-stream us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "Bedrock /model/us.anthropic.claude-sonnet-4-6/invoke-with-response-stream us.anthropic.claude-sonnet-4-6",
];

async fn bedrock_is_reached_by_bearer_token(stage: &Stage) {
    let wired = Wired {
        provider: "bedrock",
        // The bearer token wins over keys that are set as well.
        keys: vec![
            ("AWS_BEARER_TOKEN_BEDROCK", "ABSK-made-up"),
            ("AWS_ACCESS_KEY_ID", "AKIAMADEUP"),
            ("AWS_SECRET_ACCESS_KEY", "made-up-secret"),
        ],
        base: ("ANTHROPIC_BEDROCK_BASE_URL", ""),
        model: "us.anthropic.claude-sonnet-4-6",
        reconciliation: "exact",
    };
    let (_, ledger) = wired.run(stage).await;
    assert_eq!(asked(&ledger), set(BEDROCK_PATHS));
    assert_eq!(credentials(&messages(ledger)), bearer_is("ABSK-made-up"));
}

async fn bedrock_is_reached_by_static_keys(stage: &Stage) {
    let wired = Wired {
        provider: "bedrock",
        keys: vec![
            ("AWS_ACCESS_KEY_ID", "AKIAMADEUP"),
            ("AWS_SECRET_ACCESS_KEY", "made-up-secret"),
            ("AWS_SESSION_TOKEN", "made-up-session"),
            ("AWS_REGION", "us-west-2"),
        ],
        base: ("ANTHROPIC_BEDROCK_BASE_URL", ""),
        model: "us.anthropic.claude-sonnet-4-6",
        reconciliation: "exact",
    };
    let (_, ledger) = wired.run(stage).await;
    assert_eq!(asked(&ledger), set(BEDROCK_PATHS));
    let signed = json!({
        "api_key": null,
        "authorization": {
            "scheme": "sigv4",
            "access_key_id": Fingerprint::of("AKIAMADEUP").to_string(),
            "session_token": Fingerprint::of("made-up-session").to_string(),
            "region": "us-west-2",
            "service": "bedrock",
        },
    });
    assert_eq!(credentials(&messages(ledger)), set([&signed.to_string()]));
}

async fn openrouter_is_reached_with_and_without_the_version_in_its_url(stage: &Stage) {
    for path in ["/api", "/api/v1/"] {
        let wired = Wired {
            provider: "openrouter",
            keys: vec![("OPENROUTER_API_KEY", "sk-or-made-up")],
            base: ("OPENROUTER_BASE_URL", path),
            model: "anthropic/claude-sonnet-4.6",
            reconciliation: "exact",
        };
        let (_, ledger) = wired.run(stage).await;
        assert_eq!(
            asked(&ledger),
            set([
                "OpenRouter /api/v1/messages anthropic/claude-haiku-4.5",
                "OpenRouter /api/v1/messages anthropic/claude-sonnet-4.6",
            ])
        );
        assert_eq!(credentials(&messages(ledger)), bearer_is("sk-or-made-up"));
    }
}

async fn vertex_is_reached_through_a_gateway_that_signs(stage: &Stage) {
    let wired = Wired {
        provider: "vertex",
        keys: vec![
            ("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1"),
            ("GOOGLE_CLOUD_PROJECT", "proj-x"),
            ("CLOUD_ML_REGION", "europe-west1"),
        ],
        base: ("ANTHROPIC_VERTEX_BASE_URL", ""),
        model: "claude-sonnet-4-6",
        reconciliation: "exact",
    };
    let (_, ledger) = wired.run(stage).await;
    let folder = "/projects/proj-x/locations/europe-west1/publishers/anthropic/models";
    assert_eq!(
        asked(&ledger),
        set([
            &format!(
                "Vertex {folder}/claude-haiku-4-5@20251001:streamRawPredict claude-haiku-4-5@20251001"
            ),
            &format!("Vertex {folder}/claude-sonnet-4-6:streamRawPredict claude-sonnet-4-6"),
        ])
    );
    assert!(messages(ledger).iter().all(|entry| entry.wire == Wire::Vertex));
}

/// The agent looks for what Google's library would read.
const LOOK_FOR_THE_KEY_FILE: &str = "
turns:
  - tools:
      - Bash:
          command: ( ls /run/runbookd/in; env ) | grep -ic google > /app/results/found.txt
          description: Look for the key file
  - text: Done.
";

async fn vertex_is_reached_by_a_service_account_whose_key_stays_outside(stage: &Stage) {
    let key_file = include_str!("../golden/made-up-service-account.json");
    let key_file = key_file.replace("https://oauth2.googleapis.com/token", "{url}/token");
    let wired = Wired {
        provider: "vertex",
        keys: vec![
            ("GOOGLE_APPLICATION_CREDENTIALS_JSON", key_file.leak()),
            ("GOOGLE_CLOUD_PROJECT", "proj-x"),
        ],
        base: ("ANTHROPIC_VERTEX_BASE_URL", ""),
        model: "claude-sonnet-4-6",
        reconciliation: "exact",
    };
    let (scene, ledger) = wired.run_script(stage, LOOK_FOR_THE_KEY_FILE).await;
    assert_eq!(scene.text("results/found.txt").trim(), "0");
    let (tokens, messages): (Vec<_>, Vec<_>) =
        messages(ledger).into_iter().partition(|entry| entry.path == "/token");
    assert_eq!(tokens.len(), 1, "a token is used for as long as it is good");
    assert!(messages.len() > 1);
    assert_eq!(credentials(&messages), bearer_is("ya29.made-up-and-minted"));
    assert_eq!(scene.trajectory["steps"]["run"]["config"]["credentials"], "gateway");
}

/// The requests that ask a model.
fn messages(mut ledger: Vec<LedgerEntry>) -> Vec<LedgerEntry> {
    ledger.retain(|entry| entry.method == "POST");
    ledger
}

/// The agent looks for the key everywhere that it can read. It is spelled so that no mask can hide a
/// find.
const SEARCH: &str = r#"
turns:
  - tools:
      - Bash:
          command: |
            half=key-that; word="made-up-$half-is-real"
            b64=$(printf %s "$word" | base64 -w0 | cut -c1-30)
            hex=$(printf %s "$word" | od -An -tx1 | tr -d ' \n')
            places="/proc/[0-9]*/environ /proc/[0-9]*/cmdline"
            # No process has the pattern among its arguments, where it would be found itself.
            pattern() { printf '%s|%s|%s\n' "$word" "$b64" "$hex"; }
            { cat $places; env; grep -rahsE -f <(pattern) /app /logs /tmp /home /run /etc /opt/runbookd/in "$HOME"; } 2>/dev/null |
              tr '\0' '\n' | grep -aE -f <(pattern) | grep -av 'half=key-that' | wc -l > /app/results/found.txt
            env | grep -c '^ANTHROPIC_API_KEY=sk-ant-api03-runbookd-' > /app/results/tokens.txt
            printenv GRADER_KEY | cut -c1-22 > /app/results/grader.txt
          description: Look for the key
  - text: Done.
"#;

async fn the_key_is_nowhere_in_the_sandbox(stage: &Stage) {
    const KEY: &str = "made-up-key-that-is-real";
    let address = "0.0.0.0:0".parse().unwrap();
    let script = Script::parse(SEARCH).unwrap();
    let server = ScriptedProvider::start(script, Listen::Tcp(address)).await.unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
    let url = format!("http://{}:{}", host(stage.kind), address.port());
    let story = Story {
        provider: Some("anthropic"),
        keys: vec![
            ("ANTHROPIC_API_KEY", KEY),
            ("GRADER_KEY", KEY),
            ("ANTHROPIC_BASE_URL", url.leak()),
        ],
        // A runbook that wants the key as its own secret gets the token as well.
        runbook: "---\nsecrets:\n  GRADER_KEY: { required: true }\n---\n# Look\n".to_owned(),
        overrides: Overrides { network: Some(Network::None), ..Overrides::default() },
        ..Story::scripted("")
    };
    let scene = story.run(stage).await;
    let asked = messages(server.stop().await);
    assert_eq!(credentials(&asked), key_is(KEY));
    assert_eq!(scene.text("results/found.txt").trim(), "0");
    assert_eq!(scene.text("results/tokens.txt").trim(), "1");
    assert_eq!(scene.trajectory["steps"]["run"]["config"]["credentials"], "gateway");
    assert_eq!(scene.trajectory["usage"]["reconciliation"], "exact");
    assert_eq!(scene.text("results/grader.txt").trim(), "sk-ant-api03-runbookd-");
    for file in scene.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY), "{}", file.display());
    }
}

/// The agent has the model service search the web.
const WEB_SEARCH: &str = "
turns:
  - tools: [ { WebSearch: { query: made-up news } } ]
  - text: Done.
";

async fn a_tool_of_the_service_passes_where_it_is_asked_for_and_granted(stage: &Stage) {
    for (runbook, field) in
        [("# Look\n", "withheld"), ("---\nprovider_tools: [web_search]\n---\n# Look\n", "granted")]
    {
        let address = "0.0.0.0:0".parse().unwrap();
        let script = Script::parse(WEB_SEARCH).unwrap();
        let server = ScriptedProvider::start(script, Listen::Tcp(address)).await.unwrap();
        let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
        let url = format!("http://{}:{}", host(stage.kind), address.port());
        let story = Story {
            provider: Some("anthropic"),
            keys: vec![
                ("ANTHROPIC_API_KEY", "sk-ant-api03-made-up"),
                ("ANTHROPIC_BASE_URL", url.leak()),
            ],
            runbook: runbook.to_owned(),
            overrides: Overrides {
                network: Some(Network::None),
                granted_tools: [ProviderTool::WebSearch].into(),
                ..Overrides::default()
            },
            ..Story::scripted("")
        };
        let scene = story.run(stage).await;
        assert_eq!(scene.trajectory["status"], "completed", "{}", scene.outline());
        let asked = messages(server.stop().await);
        let searches = asked.iter().filter(|entry| {
            entry.json().is_some_and(|body| body["tools"].to_string().contains("web_search_"))
        });
        let lines = scene.text("logs/gateway.jsonl");
        let marked = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["outcome"] != "in_flight" && line[field] == json!(["web_search"]));
        let is_granted = field == "granted";
        assert_eq!(searches.count() > 0, is_granted, "{lines}");
        let outcomes: BTreeSet<String> =
            marked.map(|line| line["outcome"].as_str().unwrap().to_owned()).collect();
        assert_eq!(outcomes, set([if is_granted { "complete" } else { "refused" }]), "{lines}");
    }
}

/// Streams that are cut and answers that are refused, on the way to a success.
const TROUBLE: &str = "
turns:
  - fail: { status: 529 }
  - drop: mid_block
  - text: I write it.
    tools: [ { Bash: { command: echo 1 > /app/results/a.txt, description: Write } } ]
    usage: { input: 700, output: 60, cache_read: 40, cache_write_5m: 9 }
  - fail: { status: 429, retry_after: 1 }
  - text: Done.
    usage: { input: 200, output: 20 }
";

async fn the_ledger_equals_what_was_sent_also_when_streams_break(stage: &Stage) {
    let wires = [
        ("anthropic", ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", ""), "claude-sonnet-4-6"),
        (
            "bedrock",
            ("AWS_BEARER_TOKEN_BEDROCK", "ANTHROPIC_BEDROCK_BASE_URL", ""),
            "us.anthropic.claude-sonnet-4-6",
        ),
        (
            "openrouter",
            ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "/api"),
            "anthropic/claude-sonnet-4.6",
        ),
    ];
    for (provider, (key, base, path), model) in wires {
        let wired = Wired {
            provider,
            keys: vec![(key, "sk-made-up-and-unlike-others")],
            base: (base, path),
            model,
            reconciliation: "exact",
        };
        let (scene, ledger) = wired.run_script(stage, TROUBLE).await;
        let is_cut = |entry: &&LedgerEntry| entry.delivery == Delivery::Cut;
        let n_cut = ledger.iter().filter(is_cut).count();
        let wire = &scene.trajectory["usage"]["wire"];
        assert_eq!(wire["requests"]["failed"], 2, "{provider}: {wire}");
        assert_eq!(wire["requests"]["broken"], n_cut, "{provider}: {wire}");
        let lost = &wire["broken_off"][model];
        // The cut stream had told the input of the turn that it answered.
        assert_eq!(json!([lost["input"], lost["cache_read"]]), json!([700, 40]), "{provider}");
        let lines = scene.text("logs/gateway.jsonl");
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(last["outcome"], "complete", "{provider}");
        let is_told = last["first_byte_ms"].is_u64() && last["provider_request_id"].is_string();
        assert!(is_told, "{provider}: {last}");
    }
}
