//! What a collection used, what is left of its budgets, and what follows when nothing is.

use serde_json::{Value, json};

use super::support::{Bench, TEAM, new_year};
use crate::budget::Amounts;
use crate::run::{Allowance, Slug, Usd};
use crate::spend::{Answer, Charge, Took, Wish};

const PATH: &str = "/api/v1/collections/team/usage";

/// Lets the collection use so much.
async fn spend(bench: &Bench, model: &str, took: Took) {
    let spend = &bench.api.runs.intake.spend;
    let (team, allowance) = (Slug::new(TEAM).unwrap(), Allowance::default());
    let wish = Wish {
        collection: &team,
        run: "",
        model,
        allowance: &allowance,
        need: Amounts { cost: 9_000_000, tokens: 9_000_000, requests: 1 },
        prompt_tokens: 0,
        now: new_year(),
    };
    let Answer::Reserved(id) = spend.reserve(&wish).await.unwrap() else { panic!("no limits") };
    assert!(spend.settle(id, Charge::Took(took), new_year()).await.unwrap());
}

async fn set(bench: &Bench, variables: Value) {
    let body = json!({ "environment_variables": variables }).to_string();
    let path = "/api/v1/collections/team/environment";
    assert_eq!(bench.ask(&bench.team, "PATCH", path, &body).await.status, 200);
}

#[tokio::test]
async fn what_was_used_is_told_by_day_and_model_with_what_is_left() {
    let bench = Bench::new().await;
    let cost = |usd| Usd::new(usd);
    spend(
        &bench,
        "m-1",
        Took { input: 10, output: 5, cache_read: 3, cache_write: 2, cost: cost(0.25) },
    )
    .await;
    spend(&bench, "m-1", Took { input: 1, cost: cost(0.5), ..Took::default() }).await;
    spend(&bench, "odd", Took { output: 7, ..Took::default() }).await;
    set(
        &bench,
        json!({ "RUNBOOKD_MAX_COST_USD_PER_DAY": "2", "RUNBOOKD_MAX_TOKENS_PER_MINUTE": "100" }),
    )
    .await;
    let used = bench.ask(&bench.team, "GET", PATH, "").await.json();
    assert_eq!((&used["from"], &used["to"]), (&json!("2026-01-01"), &json!("2026-01-01")));
    let row = json!({
        "day": "2026-01-01", "model": "m-1", "requests": 2, "input_tokens": 11, "output_tokens": 5,
        "cache_read_tokens": 3, "cache_write_tokens": 2, "cost_usd": 0.75, "unsettled_requests": 0,
        "unsettled_cost_usd": 0.0, "unpriced_requests": 0,
    });
    assert_eq!(used["days"][0], row);
    assert_eq!(
        (&used["days"][1]["unpriced_requests"], &used["days"][2]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(json!([used["total"]["requests"], used["total"]["cost_usd"]]), json!([3, 0.75]));
    let day = json!({
        "period": "2026-01-01", "opens_at": "2026-01-02T00:00:00Z",
        "taken": { "cost_usd": 0.75, "tokens": 28, "requests": 3 },
        "limits": { "max_cost_usd": 2.0, "max_tokens": null, "max_requests": null },
    });
    assert_eq!(used["budgets"]["day"], day);
    assert_eq!(used["limits"]["tokens_per_minute"], 100);
    let other =
        bench.ask(&bench.team, "GET", &format!("{PATH}?from=2025-11-01&to=2025-12-31"), "").await;
    assert_eq!(other.json()["days"], json!([]));
}

#[tokio::test]
async fn days_that_are_none_are_refused() {
    let bench = Bench::new().await;
    for query in ["from=yesterday", "to=2026-13-01", "from=2026-02-01", "from=2020-01-01"] {
        let answer = bench.ask(&bench.team, "GET", &format!("{PATH}?{query}"), "").await;
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn a_run_for_which_the_days_budget_has_no_room_is_refused_until_it_opens() {
    let bench = Bench::new().await;
    set(
        &bench,
        json!({
            "ANTHROPIC_API_KEY": "sk-ant-made-up", "RUNBOOKD_MAX_COST_USD_PER_DAY": "1.00",
        }),
    )
    .await;
    let runbook = "---\nagent: claude-code\nmodel_provider: anthropic\n---\n# Greet\n";
    let body = json!({
        "model": "claude-sonnet-4-6",
        "messages": [{"role": "system", "content": runbook}, {"role": "user", "content": "Go."}],
        "jetty": {"runbook": true, "task": "greet", "timeout_hint": 0},
    });
    let ask =
        async || bench.ask(&bench.team, "POST", "/v1/chat/completions", &body.to_string()).await;
    assert_eq!(ask().await.status, 202);
    spend(&bench, "claude-sonnet-4-6", Took { cost: Usd::new(0.95), ..Took::default() }).await;
    let refused = ask().await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "86401"), "{refused:?}");
    assert!(refused.text.contains("$0.95 of the $1.00 that this collection in a day may cost"));
    assert!(refused.text.contains("it opens again at 2026-01-02T00:00:00Z"), "{}", refused.text);
}
