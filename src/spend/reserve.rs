//! Setting the worst case of a request aside, under every limit at once.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::error::SpendError;
use super::open::{Spend, Write};
use super::row::{amounts, column, count};
use crate::budget::{Amounts, Balance, Balances, Bucket, Decision, Period, decide, period};
use crate::run::{Allowance, Exhausted, Slug, Span};

/// How long a reservation is taken for one in flight. Later its process is dead, or its answer is the
/// longest ever, and nobody waits for it.
const IN_FLIGHT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How often somebody looks again whether others have left enough: those of other processes do not
/// tell.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

const OPEN_TOTAL: &str = "INSERT INTO spend_totals (span, name, at_ms) VALUES ($1, $2, $3)
    ON CONFLICT (span, name) DO NOTHING";

const READ_TOTAL: &str = "SELECT cost_micros, tokens, requests, closed FROM spend_totals
    WHERE span = $1 AND name = $2";

const HELD_BY_RUN: &str = "SELECT CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) AS cost_micros,
    CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens,
    CAST(COALESCE(SUM(requests), 0) AS BIGINT) AS requests
    FROM spend_reservations WHERE run = $1 AND at_ms > $2";

const HELD_IN_DAY: &str = "SELECT CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) AS cost_micros,
    CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens,
    CAST(COALESCE(SUM(requests), 0) AS BIGINT) AS requests
    FROM spend_reservations WHERE collection = $1 AND day = $3 AND at_ms > $2";

const HELD_IN_MONTH: &str = "SELECT CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) AS cost_micros,
    CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens,
    CAST(COALESCE(SUM(requests), 0) AS BIGINT) AS requests
    FROM spend_reservations WHERE collection = $1 AND month = $3 AND at_ms > $2";

const ADD_TO_TOTAL: &str = "UPDATE spend_totals SET cost_micros = cost_micros + $3,
    tokens = tokens + $4, requests = requests + $5 WHERE span = $1 AND name = $2";

const CLOSE_RUN: &str = "UPDATE spend_totals SET closed = $2 WHERE span = 'run' AND name = $1";

const RESERVE: &str = "INSERT INTO spend_reservations (id, collection, run, day, month, model,
    cost_micros, tokens, requests, rate_tokens, rate_limit, at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

pub(super) const READ_RATE: &str = "SELECT level_milli, at_ms FROM spend_rates
    WHERE collection = $1 AND measure = $2";

pub(super) const WRITE_RATE: &str =
    "INSERT INTO spend_rates (collection, measure, level_milli, at_ms)
    VALUES ($1, $2, $3, $4) ON CONFLICT (collection, measure)
    DO UPDATE SET level_milli = excluded.level_milli, at_ms = excluded.at_ms";

/// A request that wants to go on.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// Whose it is.
    pub collection: &'a Slug,
    /// The run, by its whole name; empty for a request without one.
    pub run: &'a str,
    /// The model that is asked.
    pub model: &'a str,
    /// The limits.
    pub allowance: &'a Allowance,
    /// The most that it may take.
    pub need: Amounts,
    /// What its prompt takes of the tokens of a minute.
    pub prompt_tokens: u64,
    /// The time.
    pub now: Timestamp,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may go on. The id is settled once.
    Reserved(Uuid),
    /// Not yet: others in flight may leave enough. Ask again after so long, or when one has ended.
    AwaitOthers(Duration),
    /// Not yet: it comes too soon. Ask again after so long.
    TooSoon(Duration),
    /// It would pass a limit, or its run was refused before.
    Refused(Exhausted),
}

/// The buckets of a collection, as they are after the request where it goes on.
#[derive(Default)]
struct Buckets {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    wait: Duration,
}

impl Spend {
    /// Sets aside what a request may take, or says why not. A run that is refused is refused from
    /// then on.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails. Then nothing is set aside.
    pub async fn reserve(&self, wish: &Wish<'_>) -> Result<Answer, SpendError> {
        let period = period(wish.now);
        let mut tx = self.write().await?;
        if let Some(closed) = open_totals(&mut tx, wish, &period).await? {
            return Ok(Answer::Refused(closed));
        }
        let balances = balances(&mut tx, wish, &period).await?;
        let buckets = buckets(&mut tx, wish).await?;
        match decide(wish.allowance, &balances, &wish.need, &period, buckets.wait) {
            Decision::Go => {
                let id = take(&mut tx, wish, &period, &buckets).await?;
                tx.commit().await.map_err(SpendError::act("set aside what a request may take"))?;
                Ok(Answer::Reserved(id))
            }
            Decision::AwaitOthers => Ok(Answer::AwaitOthers(LOOK_AGAIN)),
            Decision::TooSoon(wait) => Ok(Answer::TooSoon(wait)),
            Decision::Refuse(exhausted) => {
                if !wish.run.is_empty() {
                    close_run(&mut tx, wish.run, &exhausted).await?;
                    tx.commit().await.map_err(SpendError::act("close the purse of a run"))?;
                }
                Ok(Answer::Refused(exhausted))
            }
        }
    }
}

/// The names of the spans that a request counts for.
pub(super) fn spans(
    collection: &str,
    run: &str,
    day: &str,
    month: &str,
) -> Vec<(&'static str, String)> {
    let mut spans = vec![("day", of(collection, day)), ("month", of(collection, month))];
    if !run.is_empty() {
        spans.push(("run", run.to_owned()));
    }
    spans
}

/// A collection's day or month. A collection's name has no blank in it.
pub(super) fn of(collection: &str, period: &str) -> String {
    format!("{collection} {period}")
}

/// Makes the rows that are missing. Gives why the run may ask for nothing more.
async fn open_totals(
    tx: &mut Write,
    wish: &Wish<'_>,
    period: &Period,
) -> Result<Option<Exhausted>, SpendError> {
    let failed = SpendError::act("begin to count");
    for (span, name) in spans(wish.collection.as_str(), wish.run, &period.day, &period.month) {
        sqlx::query(OPEN_TOTAL)
            .bind(span)
            .bind(name)
            .bind(wish.now.as_millisecond())
            .execute(&mut **tx)
            .await
            .map_err(&failed)?;
    }
    if wish.run.is_empty() {
        return Ok(None);
    }
    let row = sqlx::query(READ_TOTAL).bind("run").bind(wish.run).fetch_one(&mut **tx).await;
    let closed: Option<String> = row.and_then(|row| row.try_get("closed")).map_err(failed)?;
    let read = |text: String| serde_json::from_str(&text);
    closed.map(read).transpose().map_err(|e| SpendError::Unreadable(e.to_string()))
}

async fn balances(
    tx: &mut Write,
    wish: &Wish<'_>,
    period: &Period,
) -> Result<Balances, SpendError> {
    let mut found = Balances::default();
    for span in [Span::Run, Span::Day, Span::Month] {
        // What is not limited need not be known.
        if wish.allowance.of(span).is_none() {
            continue;
        }
        let (place, balance) = match span {
            Span::Run => (("run", wish.run.to_owned(), HELD_BY_RUN, ""), &mut found.run),
            Span::Day => {
                let name = of(wish.collection.as_str(), &period.day);
                (("day", name, HELD_IN_DAY, period.day.as_str()), &mut found.day)
            }
            Span::Month => {
                let name = of(wish.collection.as_str(), &period.month);
                (("month", name, HELD_IN_MONTH, period.month.as_str()), &mut found.month)
            }
        };
        *balance = self::balance(tx, wish, place).await?;
    }
    Ok(found)
}

async fn balance(
    tx: &mut Write,
    wish: &Wish<'_>,
    (span, name, held, period): (&str, String, &'static str, &str),
) -> Result<Balance, SpendError> {
    let failed = SpendError::act("read what is spent");
    let taken = sqlx::query(READ_TOTAL).bind(span).bind(name).fetch_optional(&mut **tx).await;
    let Some(taken) = taken.map_err(&failed)? else { return Ok(Balance::default()) };
    let limit = i64::try_from(IN_FLIGHT_LIMIT.as_millis()).unwrap_or(i64::MAX);
    let since = wish.now.as_millisecond().saturating_sub(limit);
    let whose = if span == "run" { wish.run } else { wish.collection.as_str() };
    let held = sqlx::query(held).bind(whose).bind(since);
    let held = if span == "run" { held } else { held.bind(period) };
    let held = held.fetch_one(&mut **tx).await.map_err(failed)?;
    Ok(Balance { taken: amounts(&taken)?, held: amounts(&held)? })
}

/// Looks into the buckets of the collection.
async fn buckets(tx: &mut Write, wish: &Wish<'_>) -> Result<Buckets, SpendError> {
    let rate = wish.allowance.rate;
    let mut buckets = Buckets::default();
    if let Some(limit) = rate.requests {
        let bucket = bucket(tx, (wish.collection.as_str(), "requests"), limit, wish.now).await?;
        buckets.wait = bucket.wait_for(wish.need.requests, limit);
        buckets.requests = Some(bucket.without(wish.need.requests));
    }
    if let Some(limit) = rate.tokens {
        let bucket = bucket(tx, (wish.collection.as_str(), "tokens"), limit, wish.now).await?;
        buckets.wait = buckets.wait.max(bucket.wait_for(wish.prompt_tokens, limit));
        buckets.tokens = Some(bucket.without(wish.prompt_tokens));
    }
    Ok(buckets)
}

pub(super) async fn bucket(
    tx: &mut Write,
    (collection, measure): (&str, &str),
    limit: u64,
    now: Timestamp,
) -> Result<Bucket, SpendError> {
    let failed = SpendError::act("read a collection's rate");
    let row = sqlx::query(READ_RATE).bind(collection).bind(measure).fetch_optional(&mut **tx).await;
    let Some(row) = row.map_err(&failed)? else { return Ok(Bucket::full(limit, now)) };
    let level: i64 = row.try_get("level_milli").map_err(&failed)?;
    let at: i64 = row.try_get("at_ms").map_err(failed)?;
    let at = Timestamp::from_millisecond(at).map_err(|e| SpendError::Unreadable(e.to_string()))?;
    Ok(Bucket { level, at }.filled(limit, now))
}

pub(super) async fn write_bucket(
    tx: &mut Write,
    (collection, measure): (&str, &str),
    bucket: Bucket,
) -> Result<(), SpendError> {
    sqlx::query(WRITE_RATE)
        .bind(collection)
        .bind(measure)
        .bind(bucket.level)
        .bind(bucket.at.as_millisecond())
        .execute(&mut **tx)
        .await
        .map_err(SpendError::act("write a collection's rate"))?;
    Ok(())
}

async fn take(
    tx: &mut Write,
    wish: &Wish<'_>,
    period: &Period,
    buckets: &Buckets,
) -> Result<Uuid, SpendError> {
    let failed = SpendError::act("set aside what a request may take");
    let (id, need, collection) = (Uuid::new_v4(), &wish.need, wish.collection.as_str());
    for (span, name) in spans(collection, wish.run, &period.day, &period.month) {
        let added = [need.cost, need.tokens, need.requests].map(column);
        add_to_total(tx, (span, &name), added).await.map_err(&failed)?;
    }
    for (measure, bucket) in [("requests", buckets.requests), ("tokens", buckets.tokens)] {
        if let Some(bucket) = bucket {
            write_bucket(tx, (collection, measure), bucket).await?;
        }
    }
    sqlx::query(RESERVE)
        .bind(id.to_string())
        .bind(collection)
        .bind(wish.run)
        .bind(&period.day)
        .bind(&period.month)
        .bind(wish.model)
        .bind(column(need.cost))
        .bind(column(need.tokens))
        .bind(column(need.requests))
        .bind(column(wish.prompt_tokens))
        .bind(column(wish.allowance.rate.tokens.unwrap_or(0)))
        .bind(wish.now.as_millisecond())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
    Ok(id)
}

/// Adds dollars, tokens and requests to what a span has taken.
pub(super) async fn add_to_total(
    tx: &mut Write,
    (span, name): (&str, &str),
    [cost, tokens, requests]: [i64; 3],
) -> Result<(), sqlx::Error> {
    let added = sqlx::query(ADD_TO_TOTAL).bind(span).bind(name).bind(cost).bind(tokens);
    added.bind(requests).execute(&mut **tx).await.map(drop)
}

async fn close_run(tx: &mut Write, run: &str, why: &Exhausted) -> Result<(), SpendError> {
    let why = serde_json::to_string(why).expect("our own types have string keys and cannot fail");
    sqlx::query(CLOSE_RUN)
        .bind(run)
        .bind(why)
        .execute(&mut **tx)
        .await
        .map_err(SpendError::act("close the purse of a run"))?;
    Ok(())
}

impl Spend {
    /// What a collection has taken of its day and its month, and what of it is in flight.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn balances(
        &self,
        collection: &Slug,
        allowance: &Allowance,
        now: Timestamp,
    ) -> Result<Balances, SpendError> {
        let need = Amounts::default();
        let wish = Wish { collection, run: "", model: "", allowance, need, prompt_tokens: 0, now };
        // Nothing is written: dropped, the transaction ends.
        balances(&mut self.write().await?, &wish, &period(now)).await
    }

    /// What a collection has taken of a day and a month, and what is in flight of it counts.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn taken(
        &self,
        collection: &Slug,
        now: Timestamp,
    ) -> Result<(Amounts, Amounts), SpendError> {
        let failed = SpendError::act("read what is spent");
        let period = period(now);
        let mut found = [Amounts::default(); 2];
        for ((span, name), place) in
            spans(collection.as_str(), "", &period.day, &period.month).iter().zip(&mut found)
        {
            let row = sqlx::query(READ_TOTAL).bind(*span).bind(name).fetch_optional(self.pool());
            if let Some(row) = row.await.map_err(&failed)? {
                *place = amounts(&row)?;
            }
        }
        let [day, month] = found;
        Ok((day, month))
    }

    /// How many reservations there are of a run: of requests in flight, and of processes that died.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn n_reserved(&self, run: &str) -> Result<u64, SpendError> {
        let sum = sqlx::query("SELECT COUNT(*) AS n FROM spend_reservations WHERE run = $1");
        let row = sum.bind(run).fetch_one(self.pool()).await;
        count(&row.map_err(SpendError::act("count reservations"))?, "n")
    }
}
