//! Getting the right to work on a run, and keeping it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::error::QueueError;
use super::grant::{Grant, LeaseLimits, Leased, Pulse, WorkerId};
use super::row::{Columns, after, number};
use super::{Connection, LEASE_TTL, Queue};

const REPEATED: &str = "SELECT * FROM jobs WHERE claim_req = $1 AND lease_owner = $2";

const N_LIVE: &str = "SELECT collection, COUNT(*) AS n FROM jobs
    WHERE status IN ('leased', 'running', 'finishing') GROUP BY collection";

/// `$5` lists the collections that are full as `/one/two/`; a name has no slash in it.
const LEASE: &str = "UPDATE jobs SET status = 'leased', attempt = attempt + 1, fence = fence + 1,
    lease_owner = $1, claim_req = $2, claim_fence = fence + 1, lease_expires = $4, updated_at = $3
    WHERE status = 'queued' AND (collection, task, id) = (
        SELECT collection, task, id FROM jobs
        WHERE status = 'queued' AND run_at <= $3
        AND replace($5, '/' || collection || '/', '') = $5
        ORDER BY priority DESC, created_at, id LIMIT 1 {skip})
    RETURNING *";

const ADOPT: &str = "UPDATE jobs SET fence = fence + 1, lease_expires = $2, updated_at = $3
    WHERE lease_owner = $1 AND status IN ('leased', 'running', 'finishing')
    RETURNING *";

const HEARTBEAT: &str = "UPDATE jobs SET lease_expires = $6, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4 AND lease_owner = $7
    AND status IN ('leased', 'running', 'finishing')
    RETURNING cancel_requested";

impl Queue {
    /// Leases the run whose turn it is: the highest priority first, then the oldest. A request that
    /// is repeated, because its answer was lost, gets the same answer; once that lease has passed to
    /// a newer process or has ended, it gets nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lease(
        &self,
        worker: &WorkerId,
        request: Uuid,
        limits: &LeaseLimits,
        now: Timestamp,
    ) -> Result<Option<Leased>, QueueError> {
        let failed = || QueueError::act("lease a run");
        let request = request.to_string();
        let mut tx = self.write().await?;
        let repeated = sqlx::query(self.sql(REPEATED))
            .bind(&request)
            .bind(worker.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed())?;
        if let Some(row) = repeated {
            return still_the_same(&Columns(&row));
        }
        let full = self.full_collections(&mut tx, limits).await?;
        let leased = sqlx::query(self.sql(LEASE))
            .bind(worker.as_str())
            .bind(&request)
            .bind(now.as_millisecond())
            .bind(after(now, LEASE_TTL))
            .bind(full)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed())?
            .map(|row| Columns(&row).leased())
            .transpose()?;
        tx.commit().await.map_err(failed())?;
        Ok(leased)
    }

    /// The collections that may not have another run now, each between slashes. Nobody else can lease
    /// before this transaction ends; on a server with several writers a limit could be passed by
    /// those that count at the same moment.
    async fn full_collections(
        &self,
        connection: &mut Connection,
        limits: &LeaseLimits,
    ) -> Result<String, QueueError> {
        let rows = sqlx::query(self.sql(N_LIVE))
            .fetch_all(connection)
            .await
            .map_err(QueueError::act("count the runs at work"))?;
        let mut n_live: BTreeMap<String, u64> =
            limits.exceptions.keys().map(|name| (name.as_str().to_owned(), 0)).collect();
        for row in &rows {
            n_live.insert(Columns(row).get("collection")?, Columns(row).count("n")?);
        }
        let limit_of = |name: &str| {
            let own = limits.exceptions.iter().find(|(exception, _)| exception.as_str() == name);
            u64::from(own.map_or(limits.per_collection, |(_, limit)| *limit))
        };
        let full = n_live.iter().filter(|(name, n)| **n >= limit_of(name));
        Ok(full.map(|(name, _)| format!("/{name}/")).collect())
    }

    /// Gives a new process of a worker what an older one held, and shuts the older one out. It is
    /// the first thing that a process does. The attempt stays: its sandbox is still there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(
        &self,
        worker: &WorkerId,
        now: Timestamp,
    ) -> Result<Vec<Leased>, QueueError> {
        let failed = || QueueError::act("adopt the runs of this worker");
        let mut tx = self.write().await?;
        let rows = sqlx::query(self.sql(ADOPT))
            .bind(worker.as_str())
            .bind(after(now, LEASE_TTL))
            .bind(now.as_millisecond())
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let mut adopted: Vec<Leased> =
            rows.iter().map(|row| Columns(row).leased()).collect::<Result<_, _>>()?;
        tx.commit().await.map_err(failed())?;
        adopted.sort_by(|a, b| (a.created, &a.grant.name).cmp(&(b.created, &b.grant.name)));
        Ok(adopted)
    }

    /// Renews the leases of a worker, all in one, and says for each what to do, in the same order.
    ///
    /// # Errors
    /// When the database fails; then nothing was renewed.
    pub async fn heartbeat(
        &self,
        worker: &WorkerId,
        grants: &[Grant],
        now: Timestamp,
    ) -> Result<Vec<Pulse>, QueueError> {
        let failed = || QueueError::act("renew a lease");
        let mut tx = self.write().await?;
        self.seen(&mut tx, worker, now).await?;
        let mut pulses = Vec::with_capacity(grants.len());
        for grant in grants {
            let row = sqlx::query(self.sql(HEARTBEAT))
                .bind(grant.name.collection.as_str())
                .bind(grant.name.task.as_str())
                .bind(grant.name.id.as_str())
                .bind(number(grant.fence))
                .bind(now.as_millisecond())
                .bind(after(now, LEASE_TTL))
                .bind(worker.as_str())
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed())?;
            pulses.push(match row.map(|row| row.try_get::<i64, _>(0)).transpose() {
                Ok(None) => Pulse::Lost,
                Ok(Some(0)) => Pulse::Ok,
                Ok(Some(_)) => Pulse::Cancel,
                Err(source) => return Err(failed()(source)),
            });
        }
        tx.commit().await.map_err(failed())?;
        Ok(pulses)
    }
}

/// The answer to a repeated request: nothing, once the lease is not the one that was given then.
fn still_the_same(columns: &Columns<'_>) -> Result<Option<Leased>, QueueError> {
    let given_then: Option<i64> = columns.get("claim_fence")?;
    let same = columns.status()?.is_live() && given_then == Some(number(columns.count("fence")?));
    same.then(|| columns.leased()).transpose()
}
