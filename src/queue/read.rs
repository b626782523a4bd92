//! Looking at the queue.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use crate::run::{RunId, RunName, Slug};

use super::error::QueueError;
use super::job::{Job, Status};
use super::row::{Columns, number};
use super::{Queue, Reader};

/// Which runs to list. What is left open matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFilter {
    /// Of this collection.
    pub collection: Slug,
    /// Of this task.
    pub task: Option<Slug>,
    /// In one of these states; none named means any.
    pub statuses: Vec<Status>,
    /// Submitted by this routine.
    pub routine: Option<String>,
}

/// Which part of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Counted from 1.
    pub number: u64,
    /// Rows on a page.
    pub limit: u64,
}

/// Sums over the runs of a collection or a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many there are of each status; a status with none is left out.
    pub by_status: BTreeMap<Status, u64>,
    /// Input tokens that did not touch the cache.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to the cache.
    pub cache_write_tokens: u64,
    /// The known costs, in millionths of a US dollar.
    pub cost_micros: u64,
    /// Runs that ended and whose cost nobody knows: the sum is too low by theirs.
    pub n_unknown_costs: u64,
    /// How long the runs took that ended and whose duration is known.
    pub durations: Option<Durations>,
}

/// How long runs took, in milliseconds (nearest rank).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// How many runs these are of.
    pub n: u64,
    /// Half of them took no longer.
    pub p50_ms: u64,
    /// 95 of 100 took no longer.
    pub p95_ms: u64,
}

/// How much waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    /// Runs that could be leased now.
    pub due: u64,
    /// Runs that wait for their time.
    pub later: u64,
    /// How long the oldest of those that are due has waited since it was due.
    pub oldest: Option<Duration>,
    /// How many rows there are of each status; a status with none is left out.
    pub by_status: BTreeMap<Status, u64>,
}

const GET: &str = "SELECT * FROM jobs WHERE collection = $1 AND task = $2 AND id = $3";

const SPEC: &str = "SELECT spec FROM jobs WHERE collection = $1 AND task = $2 AND id = $3";

const BY_WORKFLOW: &str = "SELECT collection, task, id FROM jobs WHERE workflow_id = $1 ORDER BY created_at DESC, id DESC";

const BY_ID: &str = "SELECT collection, task, id FROM jobs WHERE collection = $1 AND id = $2 ORDER BY created_at DESC, task";

/// `$3` lists the statuses as `,one,two,`; the `CASE` is [`Job::standing`]. The casts tell PostgreSQL the types of parameters that
/// are compared with nothing but NULL.
const LIST: &str =
    "SELECT collection, task, id, kind, status, reason, step, attempt, retries, priority,
    run_at, lease_owner, lease_expires, cancel_requested, session_id, exit_code,
    triggered_by_routine, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    cost_micros, cost_basis, duration_ms, created_at, begun_at, started_at, finished_at,
    updated_at FROM jobs WHERE collection = $1
    AND (CAST($2 AS TEXT) IS NULL OR task = $2)
    AND (CAST($3 AS TEXT) IS NULL OR replace($3, ',' ||
    CASE WHEN step > 0 AND status IN ('queued', 'leased') THEN 'running' ELSE status END
    || ',', '') <> $3)
    AND (CAST($4 AS TEXT) IS NULL OR triggered_by_routine = $4)
    ORDER BY created_at DESC, id DESC LIMIT $5 OFFSET $6";

const TOTAL: &str = "SELECT COUNT(*) AS n FROM jobs WHERE collection = $1
    AND (CAST($2 AS TEXT) IS NULL OR task = $2)
    AND (CAST($3 AS TEXT) IS NULL OR replace($3, ',' ||
    CASE WHEN step > 0 AND status IN ('queued', 'leased') THEN 'running' ELSE status END
    || ',', '') <> $3)
    AND (CAST($4 AS TEXT) IS NULL OR triggered_by_routine = $4)";

const STATS: &str = "SELECT
    CASE WHEN step > 0 AND status IN ('queued', 'leased') THEN 'running' ELSE status END
    AS standing, COUNT(*) AS n,
    CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,
    CAST(SUM(output_tokens) AS BIGINT) AS output_tokens,
    CAST(SUM(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
    CAST(SUM(cache_write_tokens) AS BIGINT) AS cache_write_tokens,
    CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) AS cost_micros,
    COUNT(*) - COUNT(cost_micros) AS n_unknown_costs,
    COUNT(CASE WHEN finished_at IS NOT NULL THEN duration_ms END) AS n_durations
    FROM jobs WHERE collection = $1 AND (CAST($2 AS TEXT) IS NULL OR task = $2)
    GROUP BY
    CASE WHEN step > 0 AND status IN ('queued', 'leased') THEN 'running' ELSE status END";

const NTH_DURATION: &str = "SELECT duration_ms AS n FROM jobs
    WHERE collection = $1 AND (CAST($2 AS TEXT) IS NULL OR task = $2) AND duration_ms IS NOT NULL
    AND finished_at IS NOT NULL
    ORDER BY duration_ms LIMIT 1 OFFSET $3";

const DEPTH: &str = "SELECT COUNT(*) AS n, COUNT(CASE WHEN run_at <= $1 THEN 1 END) AS due,
    MIN(CASE WHEN run_at <= $1 THEN run_at END) AS oldest FROM jobs WHERE status = 'queued'";

const BY_STATUS: &str = "SELECT status, COUNT(*) AS n FROM jobs GROUP BY status";

impl Queue {
    /// The row of a run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, name: &RunName) -> Result<Option<Job>, QueueError> {
        let row = self
            .named(GET, name)
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(QueueError::act("look a run up"))?;
        row.map(|row| Columns(&row).job()).transpose()
    }

    /// What a run was to do, as it was frozen at submit.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spec(&self, name: &RunName) -> Result<Option<String>, QueueError> {
        let row = self
            .named(SPEC, name)
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(QueueError::act("look a run up"))?;
        row.map(|row| Columns(&row).get("spec")).transpose()
    }

    /// The runs of this one-word name, newest first. There can be several, of several collections:
    /// the caller takes the one that its client may see.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_by_workflow_id(&self, id: &str) -> Result<Vec<RunName>, QueueError> {
        let rows = sqlx::query(self.sql(BY_WORKFLOW))
            .bind(id)
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(QueueError::act("look a workflow id up"))?;
        rows.iter().map(|row| Columns(row).name()).collect()
    }

    /// The runs of a collection that have this id, newest first: ids are unique inside a task alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_by_id(
        &self,
        collection: &Slug,
        id: &RunId,
    ) -> Result<Vec<RunName>, QueueError> {
        let rows = sqlx::query(self.sql(BY_ID))
            .bind(collection.as_str())
            .bind(id.as_str())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(QueueError::act("look a run's id up"))?;
        rows.iter().map(|row| Columns(row).name()).collect()
    }

    /// One page of the runs, newest first, and how many there are in all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        filter: &ListFilter,
        page: Page,
    ) -> Result<(Vec<Job>, u64), QueueError> {
        let failed = || QueueError::act("list the runs");
        let mut reader = self.reader().await?;
        let first = page.number.saturating_sub(1).saturating_mul(page.limit);
        let rows = self
            .filtered(LIST, filter)
            .bind(number(page.limit))
            .bind(number(first))
            .fetch_all(&mut *reader)
            .await
            .map_err(failed())?;
        let jobs = rows.iter().map(|row| Columns(row).job()).collect::<Result<_, _>>()?;
        let row = self.filtered(TOTAL, filter).fetch_one(&mut *reader).await.map_err(failed())?;
        Ok((jobs, Columns(&row).count("n")?))
    }

    /// Sums over a collection, or over one task of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stats(&self, collection: &Slug, task: Option<&Slug>) -> Result<Stats, QueueError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(self.sql(STATS))
            .bind(collection.as_str())
            .bind(task.map(Slug::as_str))
            .fetch_all(&mut *reader)
            .await
            .map_err(QueueError::act("sum the runs up"))?;
        let mut stats = Stats::default();
        let mut n = 0;
        for columns in rows.iter().map(Columns) {
            let status = Status::read(columns.get("standing")?)?;
            stats.by_status.insert(status, columns.count("n")?);
            stats.input_tokens += columns.count("input_tokens")?;
            stats.output_tokens += columns.count("output_tokens")?;
            stats.cache_read_tokens += columns.count("cache_read_tokens")?;
            stats.cache_write_tokens += columns.count("cache_write_tokens")?;
            stats.cost_micros += columns.count("cost_micros")?;
            if status.is_terminal() {
                stats.n_unknown_costs += columns.count("n_unknown_costs")?;
            }
            n += columns.count("n_durations")?;
        }
        if n > 0 {
            let p50_ms = self.nth_duration(&mut reader, (collection, task), rank(n, 50)).await?;
            let p95_ms = self.nth_duration(&mut reader, (collection, task), rank(n, 95)).await?;
            stats.durations = Some(Durations { n, p50_ms, p95_ms });
        }
        Ok(stats)
    }

    async fn nth_duration(
        &self,
        reader: &mut Reader,
        (collection, task): (&Slug, Option<&Slug>),
        n: u64,
    ) -> Result<u64, QueueError> {
        let row = sqlx::query(self.sql(NTH_DURATION))
            .bind(collection.as_str())
            .bind(task.map(Slug::as_str))
            .bind(number(n))
            .fetch_optional(&mut **reader)
            .await
            .map_err(QueueError::act("sum the durations up"))?;
        // A run can be replaced between the statements.
        row.map_or(Ok(0), |row| Columns(&row).count("n"))
    }

    /// How much waits, and how much there is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn depth(&self, now: Timestamp) -> Result<Depth, QueueError> {
        let failed = || QueueError::act("measure the queue");
        let mut reader = self.reader().await?;
        let row = sqlx::query(self.sql(DEPTH))
            .bind(now.as_millisecond())
            .fetch_one(&mut *reader)
            .await
            .map_err(failed())?;
        let columns = Columns(&row);
        let due = columns.count("due")?;
        let oldest: Option<i64> = columns.get("oldest")?;
        let waited = |since: i64| u64::try_from(now.as_millisecond() - since).unwrap_or(0);
        let mut depth = Depth {
            due,
            later: columns.count("n")?.saturating_sub(due),
            oldest: oldest.map(|since| Duration::from_millis(waited(since))),
            by_status: BTreeMap::new(),
        };
        let rows =
            sqlx::query(self.sql(BY_STATUS)).fetch_all(&mut *reader).await.map_err(failed())?;
        for columns in rows.iter().map(Columns) {
            depth.by_status.insert(columns.status()?, columns.count("n")?);
        }
        Ok(depth)
    }

    fn named<'q>(
        &self,
        text: &'static str,
        name: &'q RunName,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        sqlx::query(self.sql(text))
            .bind(name.collection.as_str())
            .bind(name.task.as_str())
            .bind(name.id.as_str())
    }

    fn filtered<'q>(
        &self,
        text: &'static str,
        filter: &'q ListFilter,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        let words = filter.statuses.iter().map(|status| format!(",{status},"));
        let statuses = (!filter.statuses.is_empty()).then(|| words.collect::<String>());
        sqlx::query(self.sql(text))
            .bind(filter.collection.as_str())
            .bind(filter.task.as_ref().map(Slug::as_str))
            .bind(statuses)
            .bind(filter.routine.as_deref())
    }
}

/// The place of a percentile among `n` sorted values, from 0 (nearest rank).
fn rank(n: u64, percent: u64) -> u64 {
    (n.saturating_mul(percent)).div_ceil(100).saturating_sub(1)
}
