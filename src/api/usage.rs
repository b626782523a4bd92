//! What a collection used, by day and model, and what is left of its budgets.

use axum::Json;
use axum::extract::State;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Tenant;
use super::error::{ApiError, Problem};
use super::extract::Query;
use crate::budget::{Amounts, period, read_allowance};
use crate::catalog::Collection;
use crate::run::{Allowance, Caps, Span, Usd};
use crate::secret::Keyring;
use crate::spend::DayUsage;

/// Most days of one question: a year.
const MAX_DAYS: i32 = 366;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(usage))
}

/// Which days are asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Days {
    /// The first day in UTC, such as `2026-11-01`; the first of this month where it is absent.
    from: Option<String>,
    /// The last day in UTC; today where it is absent.
    to: Option<String>,
}

/// Tells what a collection used: requests, tokens by kind and cost, by day (UTC) and model; and what
/// it has spent of its budgets for today and this month.
#[utoipa::path(get, path = "/api/v1/collections/{collection}/usage", tag = "collections",
    params(Days),
    responses((status = 200, description = "`days`, their `total`, and `budgets`.")))]
async fn usage(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    Query(days): Query<Days>,
) -> Result<Json<Value>, ApiError> {
    let now = (api.clock)();
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = day("from", days.from.as_deref(), today.first_of_month())?;
    let to = day("to", days.to.as_deref(), today)?;
    if from > to || from.until(to).map_or(true, |span| span.get_days() >= MAX_DAYS) {
        return Err(fault(
            "from",
            format!("write days from the first to the last, at most {MAX_DAYS}"),
        ));
    }
    let spend = &api.runs.intake.spend;
    let failed = |e| ApiError::internal("could not read what a collection used", e);
    let used = spend.usage(&collection.name, (from, to)).await.map_err(failed)?;
    let spent = spend.spent(&collection.name, now).await.map_err(failed)?;
    let allowance = allowance(&api, &collection).await?;
    let period = period(now);
    let budget = |name: &str, taken: &Amounts, caps: &Caps, span| {
        json!({
            "period": name, "taken": amounts(taken), "limits": limits(caps),
            "opens_at": period.opens(span),
        })
    };
    Ok(Json(json!({
        "collection": collection.name.as_str(),
        "from": from.to_string(),
        "to": to.to_string(),
        "days": used.iter().map(row).collect::<Vec<Value>>(),
        "total": total(&used),
        "budgets": {
            "day": budget(&spent.day, &spent.in_day, &allowance.day, Span::Day),
            "month": budget(&spent.month, &spent.in_month, &allowance.month, Span::Month),
        },
        "limits": {
            "run": limits(&allowance.run),
            "requests_per_minute": allowance.rate.requests,
            "tokens_per_minute": allowance.rate.tokens,
        },
    })))
}

/// What a collection may spend: the operator's word, narrowed by its own environment.
pub(super) async fn allowance(
    api: &Shared,
    collection: &Collection,
) -> Result<Allowance, ApiError> {
    let own: Keyring = api.catalog.environment(&collection.name).await?.into_iter().collect();
    Ok(narrowed(api, &own))
}

/// The same with the environment at hand. What of it cannot be read is a fault of each run, and does
/// not widen anything.
pub(super) fn narrowed(api: &Shared, own: &Keyring) -> Allowance {
    let (of_environment, _) = read_allowance(|name| own.get(name).map(|value| value.expose()));
    of_environment.narrowed(api.runs.intake.settings.allowance)
}

fn day(name: &str, given: Option<&str>, default: Date) -> Result<Date, ApiError> {
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(default) };
    text.parse().map_err(|_| fault(name, format!("`{text}` is not a day: write one as 2026-11-21")))
}

fn fault(name: &str, msg: String) -> ApiError {
    ApiError::Invalid(vec![Problem {
        loc: vec![json!("query"), json!(name)],
        msg,
        kind: "value_error",
    }])
}

fn row(used: &DayUsage) -> Value {
    let mut row = json!({ "day": used.day, "model": used.model });
    if let (Some(row), Value::Object(counts)) = (row.as_object_mut(), counts(used)) {
        row.extend(counts);
    }
    row
}

fn counts(used: &DayUsage) -> Value {
    json!({
        "requests": used.requests,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cache_read_tokens": used.cache_read_tokens,
        "cache_write_tokens": used.cache_write_tokens,
        "cost_usd": used.cost.dollars(),
        "unsettled_requests": used.unsettled_requests,
        "unsettled_cost_usd": used.unsettled_cost.dollars(),
        "unpriced_requests": used.unpriced_requests,
    })
}

fn total(used: &[DayUsage]) -> Value {
    let sum = |count: fn(&DayUsage) -> u64| used.iter().map(count).fold(0, u64::saturating_add);
    counts(&DayUsage {
        day: String::new(),
        model: String::new(),
        requests: sum(|u| u.requests),
        input_tokens: sum(|u| u.input_tokens),
        output_tokens: sum(|u| u.output_tokens),
        cache_read_tokens: sum(|u| u.cache_read_tokens),
        cache_write_tokens: sum(|u| u.cache_write_tokens),
        cost: Usd::from_micros(sum(|u| u.cost.micros())),
        unsettled_requests: sum(|u| u.unsettled_requests),
        unsettled_cost: Usd::from_micros(sum(|u| u.unsettled_cost.micros())),
        unpriced_requests: sum(|u| u.unpriced_requests),
    })
}

fn amounts(taken: &Amounts) -> Value {
    let cost = Usd::from_micros(taken.cost).dollars();
    json!({ "cost_usd": cost, "tokens": taken.tokens, "requests": taken.requests })
}

fn limits(caps: &Caps) -> Value {
    json!({
        "max_cost_usd": caps.cost.map(Usd::dollars),
        "max_tokens": caps.tokens,
        "max_requests": caps.requests,
    })
}
