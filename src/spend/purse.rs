//! The purse of a run, or of a collection's chats: what its requests may take, waited for in order.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::error::SpendError;
use super::open::Spend;
use super::reserve::{Answer, Wish};
use super::settle::Charge;
use crate::budget::{Amounts, Density, Prompt};
use crate::run::{Allowance, Exhausted, Measure, RunName, Slug, Usd, error_chain};

/// How long a request waits for others to end, or for its collection's rate. The agent CLI takes a
/// longer time to come again than this for an error, and gives up on an answer after 300 seconds.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// When to come again for a request that waited for others in vain.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// Most requests of one run that wait. A gateway has room for more connections, and those that wait for
/// money must not take all of it: an agent that asks this often at once is told to come again.
const MAX_WAITING: usize = 64;

/// How long the last requests may take to be settled when a purse is closed. A gateway that takes much
/// longer to end is killed.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// What a request asks for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The length of its prompt.
    pub prompt: Prompt,
    /// Most tokens of its answer.
    pub max_output: u64,
    /// The model.
    pub model: &'a str,
    /// What so many tokens of input and output cost at most; `None` for a model without a price.
    pub price: &'a (dyn Fn(u64, u64) -> Option<Usd> + Send + Sync),
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("model", &self.model).finish_non_exhaustive()
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Other requests that may leave enough.
    Others,
    /// Its collection's rate.
    Rate,
}

/// A request may not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It would pass a limit.
    Exhausted(Exhausted),
    /// What it costs has a limit, and nobody knows its price.
    Unpriced,
    /// It waited in vain, and may be sent again.
    Busy {
        /// For what it waited.
        wait: Wait,
        /// When to come again.
        retry_after: Duration,
    },
    /// Nobody knows what is left.
    Unknown,
}

/// The purse. Clones share it.
#[derive(Debug, Clone)]
pub struct Purse {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    spend: Spend,
    collection: Slug,
    /// Its whole name; empty for chats.
    run: String,
    allowance: Allowance,
    clock: fn() -> Timestamp,
    density: Mutex<Density>,
    /// Held by the request whose turn it is.
    line: tokio::sync::Mutex<()>,
    n_waiting: AtomicUsize,
    /// Tells that a request was settled.
    settled: Notify,
    settling: TaskTracker,
}

impl Purse {
    /// The name under which a run's requests are counted.
    #[must_use]
    pub fn name_of(run: &RunName) -> String {
        run.to_string()
    }

    /// The purse of a run of a collection, by its whole name. What an earlier process left of it stays
    /// spent.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn of_run(
        spend: Spend,
        (collection, run): (Slug, String),
        allowance: Allowance,
        clock: fn() -> Timestamp,
    ) -> Result<Self, SpendError> {
        let n_left = spend.give_up(&run, clock()).await?;
        if n_left > 0 {
            tracing::info!(run, n_left, "requests of an earlier process stay spent");
        }
        Ok(Self::new(spend, collection, (run, allowance), clock))
    }

    /// The purse of requests that belong to no run. Limits of a run do not count for them.
    #[must_use]
    pub fn of_collection(
        spend: Spend,
        collection: Slug,
        allowance: Allowance,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self::new(spend, collection, (String::new(), allowance), clock)
    }

    fn new(
        spend: Spend,
        collection: Slug,
        (run, allowance): (String, Allowance),
        clock: fn() -> Timestamp,
    ) -> Self {
        let parts = Parts {
            spend,
            collection,
            run,
            allowance,
            clock,
            density: Mutex::default(),
            line: tokio::sync::Mutex::new(()),
            n_waiting: AtomicUsize::new(0),
            settled: Notify::new(),
            settling: TaskTracker::new(),
        };
        Self { parts: Arc::new(parts) }
    }

    /// Whether what requests cost has a limit.
    #[must_use]
    pub fn limits_cost(&self) -> bool {
        self.parts.allowance.narrowest(Measure::Cost).is_some()
    }

    /// Sets aside what a request may take, when it is its turn. Dropping it while it waits gives up.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub async fn admit(&self, asked: Asked<'_>) -> Result<Held, NotAdmitted> {
        let parts = &self.parts;
        if self.limits_cost() && (asked.price)(0, 0).is_none() {
            return Err(NotAdmitted::Unpriced);
        }
        let others = NotAdmitted::Busy { wait: Wait::Others, retry_after: COME_AGAIN };
        let Some(_waiting) = Waiting::begin(parts) else { return Err(others) };
        let begun = Instant::now();
        let deadline = begun + WAIT_LIMIT;
        // In order: who came first is first to get what others leave.
        let _turn = timeout_at(deadline, parts.line.lock()).await.map_err(|_| others.clone())?;
        let mut waited = begun.elapsed();
        loop {
            let mut settled = std::pin::pin!(parts.settled.notified());
            // From here on no settling is missed.
            settled.as_mut().enable();
            let (need, prompt_tokens) = self.need(&asked);
            let wish = self.wish(&asked, need, prompt_tokens);
            let pause = Instant::now();
            match parts.spend.reserve(&wish).await {
                Ok(Answer::Reserved(id)) => {
                    return Ok(self.held(Some(id), (need, asked.prompt), waited));
                }
                Ok(Answer::Refused(exhausted)) => return Err(NotAdmitted::Exhausted(exhausted)),
                Ok(Answer::TooSoon(wait)) if pause + wait > deadline => {
                    return Err(NotAdmitted::Busy {
                        wait: Wait::Rate,
                        retry_after: wait.min(WAIT_LIMIT),
                    });
                }
                Ok(Answer::TooSoon(wait)) => sleep(wait).await,
                Ok(Answer::AwaitOthers(again)) => {
                    let _ = timeout(again, settled).await;
                    if Instant::now() > deadline {
                        return Err(others);
                    }
                }
                Err(e) => return self.unknown(&e, (need, asked.prompt), waited),
            }
            waited += pause.elapsed();
        }
    }

    /// What a request takes at most, and its prompt's part of the tokens.
    fn need(&self, asked: &Asked<'_>) -> (Amounts, u64) {
        let density = *self.parts.density.lock().unwrap_or_else(PoisonError::into_inner);
        let prompt = density.tokens(&asked.prompt);
        let cost = (asked.price)(prompt, asked.max_output).map_or(0, Usd::micros);
        (Amounts { cost, tokens: prompt.saturating_add(asked.max_output), requests: 1 }, prompt)
    }

    fn wish<'a>(&'a self, asked: &Asked<'a>, need: Amounts, prompt_tokens: u64) -> Wish<'a> {
        let Parts { collection, run, allowance, clock, .. } = &*self.parts;
        Wish { collection, run, model: asked.model, allowance, need, prompt_tokens, now: clock() }
    }

    fn held(&self, id: Option<Uuid>, (need, prompt): (Amounts, Prompt), waited: Duration) -> Held {
        Held { id, need, prompt, waited, parts: Arc::clone(&self.parts) }
    }

    /// What follows when the file fails: without limits a request goes on uncounted.
    fn unknown(
        &self,
        error: &SpendError,
        request: (Amounts, Prompt),
        waited: Duration,
    ) -> Result<Held, NotAdmitted> {
        let error = error_chain(error);
        if self.parts.allowance.is_none() {
            tracing::warn!(error, "a request is not counted");
            return Ok(self.held(None, request, waited));
        }
        tracing::error!(error, "a request is refused: nobody knows what is left");
        Err(NotAdmitted::Unknown)
    }

    /// Waits until every request that has ended is settled. What cannot be settled in time stays
    /// spent.
    pub async fn close(&self) {
        self.parts.settling.close();
        if timeout(CLOSE_LIMIT, self.parts.settling.wait()).await.is_err() {
            tracing::warn!("requests were not settled in time and stay spent");
        }
    }
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(parts: &'a Parts) -> Option<Self> {
        let waiting = Self(&parts.n_waiting);
        (parts.n_waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was set aside for a request that goes on. Dropped without a word about what it took, all of
/// it is spent.
#[derive(Debug)]
#[must_use]
pub struct Held {
    /// `None` where it is not counted, and once it is settled.
    id: Option<Uuid>,
    need: Amounts,
    prompt: Prompt,
    waited: Duration,
    parts: Arc<Parts>,
}

impl Held {
    /// What was set aside.
    #[must_use]
    pub fn reserved(&self) -> &Amounts {
        &self.need
    }

    /// How long it waited for its turn.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Says what the request took.
    pub fn settle(mut self, charge: Charge) {
        self.end(charge);
    }

    fn end(&mut self, charge: Charge) {
        let Some(id) = self.id.take() else { return };
        let parts = Arc::clone(&self.parts);
        if let Charge::Took(took) = &charge {
            let mut density = parts.density.lock().unwrap_or_else(PoisonError::into_inner);
            density.learn(&self.prompt, took.prompt());
        }
        // At the end of a process there may be nobody left to do it: then it stays spent.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let tracker = parts.settling.clone();
        tracker.spawn_on(
            async move {
                if let Err(e) = parts.spend.settle(id, charge, (parts.clock)()).await {
                    tracing::error!(error = %error_chain(&e), "a request is not settled and stays spent");
                }
                parts.settled.notify_waiters();
            },
            &runtime,
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end(Charge::Kept);
    }
}
