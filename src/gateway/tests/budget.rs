//! What a request may take is set aside before it goes, and what it took is in the ledger.

use super::*;

struct Bench {
    door: Door,
    spend: Spend,
    server: ScriptedProvider,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(script: &str, allowance: Allowance) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spend = Spend::open(&folder.path().join(Spend::FILE)).await.unwrap();
        let run = (Slug::new("team").unwrap(), "team/story/x".to_owned());
        let clock = || Timestamp::UNIX_EPOCH;
        let purse = Purse::of_run(spend.clone(), run, allowance, clock).await.unwrap();
        let (server, url) = scripted(script).await;
        let door = Door::spending(url, (Wire::Messages, key()), Some(purse));
        Self { door, spend, server, _folder: folder }
    }

    /// The status, the header `retry-after` and the error's message.
    async fn ask(&self, body: Value) -> (u16, Option<String>, String) {
        let answer = self.door.ask("/v1/messages", body).send().await.unwrap();
        let after = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        let said = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let said = said["error"]["message"].as_str().unwrap_or_default().to_owned();
        (status, after, said)
    }

    /// Waits until nothing is set aside any more.
    async fn settled(&self) {
        while self.spend.n_reserved("team/story/x").await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// The ledger, and the cost that is spent.
    async fn closed(self) -> (Told, Usd) {
        let ledger = self.door.closed().await;
        self.server.stop().await;
        let team = Slug::new("team").unwrap();
        let (day, _) = self.spend.taken(&team, Timestamp::UNIX_EPOCH).await.unwrap();
        (ledger, Usd::from_micros(day.cost))
    }
}

fn run_costs(usd: f64) -> Allowance {
    let run = Caps { cost: Usd::new(usd), ..Caps::default() };
    Allowance { run, ..Allowance::default() }
}

#[tokio::test]
async fn what_is_set_aside_is_replaced_by_what_was_taken() {
    let bench = Bench::new(SCRIPT, run_costs(0.01)).await;
    assert_eq!(bench.ask(prompt(true)).await.0, 200);
    let (ledger, spent) = bench.closed().await;
    let record = ledger.records().next().unwrap();
    let charged = record.charged.clone().unwrap();
    // 900 of input at $3, 5 read at $0.30, 70 of output at $15 for a million.
    assert_eq!(charged, Charged { cost_usd: Usd::new(0.003752), tokens: 975, is_reserved: false });
    assert_eq!(spent, Usd::new(0.003752).unwrap());
    let reserved = record.reserved.clone().unwrap();
    assert!(reserved.cost_usd >= spent && reserved.tokens > 700, "{reserved:?}");
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_told_what_was_spent_and_so_is_every_later_one() {
    let bench = Bench::new(SCRIPT, run_costs(0.006)).await;
    assert_eq!(bench.ask(prompt(true)).await.0, 200);
    bench.settled().await;
    for _ in 0..2 {
        let (status, after, said) = bench.ask(prompt(false)).await;
        assert_eq!((status, after), (400, None));
        assert!(
            said.starts_with("budget exceeded: $0.003752 of the $0.006 that this run"),
            "{said}"
        );
    }
    let (ledger, spent) = bench.closed().await;
    assert_eq!(
        outline(&ledger),
        ["Complete message 200", "Refused message 400", "Refused message 400"]
    );
    assert_eq!(
        (ledger.exhausted().map(|e| e.limit), spent),
        (Some(6_000), Usd::new(0.003752).unwrap())
    );
}

#[tokio::test]
async fn what_nobody_knows_the_price_of_is_not_asked() {
    let bench = Bench::new(SCRIPT, run_costs(1.0)).await;
    for (field, value, word) in [
        (
            "model",
            json!("claude-sonnet-9"),
            "the price of the model `claude-sonnet-9` is not known",
        ),
        ("speed", json!("fast"), "`speed` has another price"),
    ] {
        let mut body = prompt(false);
        body[field] = value;
        let (status, _, said) = bench.ask(body).await;
        assert!(status == 400 && said.contains(word), "{said}");
    }
    let (ledger, spent) = bench.closed().await;
    assert_eq!((ledger.exhausted(), spent), (None, Usd::default()));
}

#[tokio::test]
async fn an_answer_that_breaks_off_stays_spent_as_it_was_set_aside_and_an_error_costs_nothing() {
    let script = "turns: [{fail: {status: 500}}, {drop: mid_block}, {text: Hello there.}]";
    let bench = Bench::new(script, run_costs(1.0)).await;
    assert_eq!(bench.ask(prompt(true)).await.0, 500);
    assert_eq!(bench.ask(prompt(true)).await.0, 200);
    let (ledger, spent) = bench.closed().await;
    let charged: Vec<Charged> =
        ledger.records().filter_map(|record| record.charged.clone()).collect();
    let reserved = ledger.records().nth(1).unwrap().reserved.clone().unwrap();
    let nothing = Charged { cost_usd: Some(Usd::default()), tokens: 0, is_reserved: false };
    let kept = Charged { cost_usd: Some(spent), tokens: reserved.tokens, is_reserved: true };
    assert_eq!(charged, [nothing, kept]);
    assert_eq!(spent, reserved.cost_usd);
}

#[tokio::test]
async fn who_asks_much_too_fast_is_told_when_to_come_again() {
    // A prompt of this size waits for longer than anybody waits: the bucket is empty, and slow.
    let rate = Rate { requests: None, tokens: Some(900) };
    let bench = Bench::new(SCRIPT, Allowance { rate, ..Allowance::default() }).await;
    let mut long = prompt(true);
    long["messages"][0]["content"] = json!("x".repeat(8_000));
    assert_eq!(bench.ask(long.clone()).await.0, 200);
    let (status, after, said) = bench.ask(long).await;
    assert_eq!((status, after.as_deref()), (429, Some("61")));
    assert!(said.contains("asks faster than it may"), "{said}");
    bench.closed().await;
}

#[tokio::test]
async fn an_answer_that_is_longer_than_any_is_refused_and_spoils_nothing() {
    let bench = Bench::new(SCRIPT, Allowance::default()).await;
    let mut endless = prompt(true);
    endless["max_tokens"] = json!(u64::MAX);
    for _ in 0..2 {
        let (status, _, said) = bench.ask(endless.clone()).await;
        let expected = "the request cannot be read: `max_tokens` is 18446744073709551615, and one \
                        answer may have at most 1000000";
        assert!(status == 400 && said.starts_with(expected), "{said}");
    }
    assert_eq!(bench.ask(prompt(true)).await.0, 200);
    let (_, spent) = bench.closed().await;
    assert_eq!(spent, Usd::new(0.003752).unwrap());
}

/// Asks a service that answers as `model` with this usage, and gives what was charged.
async fn charged(
    body: Value,
    answer: fn(axum::extract::Request) -> axum::response::Response,
) -> Usd {
    let folder = tempfile::tempdir().unwrap();
    let spend = Spend::open(&folder.path().join(Spend::FILE)).await.unwrap();
    let run = (Slug::new("team").unwrap(), "team/story/x".to_owned());
    let clock = || Timestamp::UNIX_EPOCH;
    let purse = Purse::of_run(spend.clone(), run, run_costs(9.0), clock).await.unwrap();
    let door = Door::spending(service(answer).await, (Wire::Messages, key()), Some(purse));
    assert_eq!(door.ask("/v1/messages", body).send().await.unwrap().status(), 200);
    let ledger = door.closed().await;
    ledger.records().next().unwrap().charged.clone().unwrap().cost_usd.unwrap()
}

#[tokio::test]
async fn the_dearer_of_the_model_that_was_asked_and_the_one_that_answered_is_charged() {
    let dearer = |_| {
        let usage = json!({"input_tokens": 1_000_000, "output_tokens": 0});
        let model = "claude-opus-4-7";
        axum::Json(json!({"type": "message", "model": model, "usage": usage})).into_response()
    };
    let cheaper = |_| {
        let usage = json!({"input_tokens": 1_000_000, "output_tokens": 0});
        let model = "claude-haiku-4-5-20251001";
        axum::Json(json!({"type": "message", "model": model, "usage": usage})).into_response()
    };
    let unknown = |_| {
        let usage = json!({"input_tokens": 1_000_000, "output_tokens": 0});
        axum::Json(json!({"type": "message", "model": "m-1", "usage": usage})).into_response()
    };
    assert_eq!(charged(prompt(false), dearer).await, Usd::new(5.0).unwrap());
    assert_eq!(charged(prompt(false), cheaper).await, Usd::new(3.0).unwrap());
    assert_eq!(charged(prompt(false), unknown).await, Usd::new(3.0).unwrap());
}

#[tokio::test]
async fn searches_and_an_hour_in_the_cache_are_charged_by_their_own_price() {
    let answer = |_| {
        let usage = json!({"input_tokens": 0, "output_tokens": 0,
            "cache_creation_input_tokens": 1_000_000,
            "server_tool_use": {"web_search_requests": 7}});
        let model = "claude-sonnet-4-6";
        axum::Json(json!({"type": "message", "model": model, "usage": usage})).into_response()
    };
    let mut hour = prompt(false);
    hour["messages"][0]["content"] =
        json!([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    assert_eq!(charged(prompt(false), answer).await, Usd::new(3.82).unwrap());
    assert_eq!(charged(hour, answer).await, Usd::new(6.07).unwrap());
}
