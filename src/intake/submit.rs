//! Taking a request in.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::preflight::{Bench, INSTRUCTION, Need, Ready};
use super::target::Target;
use super::{Accepted, IntakeSettings, Submission, Uploaded};
use crate::archive::ArchiveError;
use crate::budget::{Balance, Balances, Decision, decide, period};
use crate::catalog::{Catalog, CatalogError, Collection};
use crate::database::{Vault, VaultError};
use crate::host::blocking;
use crate::inputs::{self, FilesError};
use crate::job::{JobFile, JobSecrets};
use crate::queue::{Idempotency, NewJob, Queue, QueueError, Submitted};
use crate::run::{Exhausted, RunId, RunName};
use crate::spend::{Spend, SpendError};
use crate::store::{StoragePath, Store, StoreError};

/// How often an id is drawn anew. One of eight hexadecimal digits is taken once in thousands of
/// runs of a task; five times in a row means that something else is wrong.
const MAX_DRAWS: usize = 5;

/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// How long requests may take to be taken in once the server stops: an archive of the largest size
/// is unpacked within it. A request that is cut then is sent again by its client.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The parameter of a chat that says where its runbook is.
const RUNBOOK_URL: &str = "runbook_url";

/// A request was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// There is no such collection or task.
    #[error("{0}")]
    Unknown(String),
    /// The run could only fail. Every reason is a sentence.
    #[error("{}", .0.join(" "))]
    Refused(Vec<String>),
    /// The idempotency key was used for another request.
    #[error(
        "the Idempotency-Key was used for another request, which made the run `{}`: send the same request again, or use another key",
        .0.workflow_id()
    )]
    KeyUsed(RunName),
    /// The collection's budget has no room for another run.
    #[error("The collection's budget is used up: {exhausted}.")]
    BudgetUsedUp {
        /// What has no room.
        exhausted: Exhausted,
        /// Until it has.
        wait: Duration,
    },
    /// What is spent could not be read.
    #[error("could not look at what is spent")]
    Spend(#[source] SpendError),
    /// The catalog failed.
    #[error("could not look the task up")]
    Catalog(#[source] CatalogError),
    /// The secrets could not be sealed.
    #[error("could not seal the secrets of a run")]
    Seal(#[source] VaultError),
    /// The disk is nearly full.
    #[error("the disk has no room for the files of a run")]
    NoRoom,
    /// The files could not be put into the run's folder.
    #[error("could not keep the files of a run")]
    Files(#[source] FilesError),
    /// The queue failed.
    #[error("could not put a run into the queue")]
    Queue(#[source] QueueError),
    /// What was left of a refused run could not be removed.
    #[error("could not remove what was left of a run")]
    Discard(#[source] StoreError),
    /// The thread that looked at the request is gone.
    #[error("looking at the request broke off")]
    Gone(#[source] JoinError),
}

/// Takes requests in. Clones share it.
#[derive(Debug, Clone)]
pub struct Intake {
    /// What is known of tasks.
    pub catalog: Catalog,
    /// Where runs wait.
    pub queue: Queue,
    /// Where files are.
    pub store: Store,
    /// What seals secrets.
    pub vault: Arc<Vault>,
    /// What is spent.
    pub spend: Spend,
    /// The rules.
    pub settings: IntakeSettings,
    /// Requests that are being taken in. Each goes on to its end, whether its client waits or not.
    pub tasks: TaskTracker,
}

/// A request that only needs a name.
struct Job {
    ready: Ready,
    collection: Collection,
    task: Target,
    idempotency: Option<Idempotency>,
    routine: Option<String>,
}

impl Intake {
    /// Takes a request in: when this returns, the run is on the disk and can be looked up. What was
    /// begun goes on to its end when nobody waits for it any more, so that nothing is left half made.
    ///
    /// # Errors
    /// [`IntakeError::Refused`] with everything that speaks against it, and nothing is kept.
    pub async fn submit(&self, wish: Submission, now: Timestamp) -> Result<Accepted, IntakeError> {
        let intake = self.clone();
        let taking = async move {
            let uploads = wish.uploads.clone();
            let taken = intake.take(wish, now).await;
            // What came with a request that made no new run belongs to nobody.
            if !matches!(&taken, Ok(accepted) if !accepted.repeated) {
                intake.forget(uploads).await?;
            }
            taken
        };
        self.carry_on(taking).await.map_err(IntakeError::Gone)?
    }

    /// Does what must not be left half done, whether anybody waits for it or not.
    ///
    /// # Errors
    /// The panic of `work`.
    pub async fn carry_on<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        match self.tasks.spawn(work).await {
            // The runtime ends, and nobody is told anything any more.
            Err(taken_back) if taken_back.is_cancelled() => std::future::pending().await,
            done => done,
        }
    }

    /// Waits until the requests that are being taken in are done.
    pub async fn end(&self) {
        self.tasks.close();
        if tokio::time::timeout(END_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!(n_requests = self.tasks.len(), "cut requests that were being taken in");
        }
    }

    async fn take(&self, wish: Submission, now: Timestamp) -> Result<Accepted, IntakeError> {
        let collection = self.catalog.collection(&wish.collection).await;
        let collection = collection.map_err(|e| unknown(e, "Collection not found".to_owned()))?;
        let idempotency = idempotency(&wish)?;
        if let Some(name) = self.made_before(&collection, idempotency.as_ref()).await? {
            return Ok(Accepted { name, repeated: true, notes: Vec::new() });
        }
        let task = self.target(&collection, &wish).await?;
        let environment = self.catalog.environment(&collection.name).await;
        let environment = environment.map_err(IntakeError::Catalog)?;
        let routine = wish.routine.clone();
        let (store, settings) = (self.store.clone(), self.settings.clone());
        let judged = blocking(move || {
            let bench = Bench {
                store: &store,
                settings: &settings,
                collection: &collection.name,
                task: &task,
                environment,
                hidden: &collection.redacted_param_keys,
            };
            bench.judge(wish).map(|judged| (judged, collection, task))
        });
        let (judged, collection, task) =
            judged.await.map_err(IntakeError::Gone)?.map_err(files_failed)?;
        let ready = judged.map_err(IntakeError::Refused)?;
        self.has_room(&collection, ready.need, now).await?;
        self.make_task(&collection, &task, now).await?;
        self.enqueue(Job { ready, collection, task, idempotency, routine }, now).await
    }

    /// Whether the collection's day and month have room for a run's first request. A run that waited
    /// for the next day instead would begin beside all the others that did, and whoever asked would
    /// not know.
    async fn has_room(
        &self,
        collection: &Collection,
        need: Option<Need>,
        now: Timestamp,
    ) -> Result<(), IntakeError> {
        let Some(Need { allowance, amounts }) = need else { return Ok(()) };
        let balances = self.spend.balances(&collection.name, &allowance, now).await;
        let balances =
            Balances { run: Balance::default(), ..balances.map_err(IntakeError::Spend)? };
        match decide(&allowance, &balances, &amounts, &period(now), Duration::ZERO) {
            Decision::Refuse(exhausted) => {
                let opens = exhausted.opens.unwrap_or(now);
                let wait = Duration::try_from(opens.duration_since(now)).unwrap_or_default();
                Err(IntakeError::BudgetUsedUp { exhausted, wait })
            }
            Decision::Go | Decision::AwaitOthers | Decision::TooSoon(_) => Ok(()),
        }
    }

    /// Draws a name and puts the run into the queue.
    async fn enqueue(&self, job: Job, now: Timestamp) -> Result<Accepted, IntakeError> {
        for _ in 0..MAX_DRAWS {
            let id = RunId::from_uuid(Uuid::new_v4());
            let (collection, task) = (job.collection.name.clone(), job.task.name.clone());
            let name = RunName { collection, task, id };
            let files = match self.stage(&name, &job.ready).await? {
                Ok(files) => files,
                Err(error) if error.is_name_taken() => continue,
                Err(error) => return Err(files_failed(error)),
            };
            let has_folder = files.iter().any(|files| !files.is_empty());
            let submitted = self.put(&job, name.clone(), files, now).await;
            if has_folder && !matches!(submitted, Ok(Submitted::New)) {
                let (store, name) = (self.store.clone(), name.clone());
                let discarded = blocking(move || store.discard(&name)).await;
                discarded.map_err(IntakeError::Gone)?.map_err(IntakeError::Discard)?;
            }
            let notes = job.ready.notes.clone();
            match submitted {
                Ok(Submitted::New) => return Ok(Accepted { name, repeated: false, notes }),
                Ok(Submitted::Repeated(name)) => {
                    return Ok(Accepted { name, repeated: true, notes });
                }
                Err(IntakeError::Queue(QueueError::IdTaken(_))) => {}
                Err(error) => return Err(error),
            }
        }
        let name = RunName {
            collection: job.collection.name,
            task: job.task.name,
            id: RunId::from_uuid(Uuid::nil()),
        };
        Err(IntakeError::Queue(QueueError::IdTaken(name)))
    }

    /// The run that the same request made before. Asked before anything is unpacked or put into a
    /// folder; the queue asks again when the run is put into it.
    async fn made_before(
        &self,
        collection: &Collection,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<RunName>, IntakeError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        self.queue.made_before(&collection.name, idempotency).await.map_err(queue_failed)
    }

    /// Seals the run's secrets and puts it into the queue.
    async fn put(
        &self,
        job: &Job,
        name: RunName,
        files: Vec<Vec<JobFile>>,
        now: Timestamp,
    ) -> Result<Submitted, IntakeError> {
        let new = self.new_job(job, name, files)?;
        self.queue.submit(new, now).await.map_err(queue_failed)
    }

    async fn stage(
        &self,
        name: &RunName,
        ready: &Ready,
    ) -> Result<Result<Vec<Vec<JobFile>>, FilesError>, IntakeError> {
        let (store, name, inputs) = (self.store.clone(), name.clone(), ready.inputs.clone());
        let min_free = self.settings.min_free_disk_bytes;
        let staging = blocking(move || inputs::stage(&store, &name, &inputs, min_free));
        staging.await.map_err(IntakeError::Gone)
    }

    fn new_job(
        &self,
        job: &Job,
        name: RunName,
        files: Vec<Vec<JobFile>>,
    ) -> Result<NewJob, IntakeError> {
        let mut spec = job.ready.spec.clone();
        let places = std::iter::once(&mut spec.files);
        let places = places.chain(spec.later.iter_mut().map(|later| &mut later.files));
        places.zip(files).for_each(|(place, files)| *place = files);
        let secrets = job.ready.secrets.to_plaintext();
        let sealed = self.vault.seal(secrets.expose(), &JobSecrets::context(&name));
        Ok(NewJob {
            spec: spec.freeze(),
            sealed: Some(sealed.map_err(IntakeError::Seal)?),
            session_id: Some(Uuid::new_v4().to_string()),
            priority: 0,
            run_at: None,
            max_attempts: self.settings.max_attempts,
            idempotency: job.idempotency.clone(),
            triggered_by_routine: job.routine.clone(),
            name,
        })
    }

    async fn forget(&self, uploads: Vec<Uploaded>) -> Result<(), IntakeError> {
        if uploads.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        let removing = blocking(move || {
            let paths = uploads.iter().filter_map(|upload| StoragePath::parse(&upload.path).ok());
            paths.into_iter().try_for_each(|path| store.remove_upload(&path))
        });
        removing.await.map_err(IntakeError::Gone)?.map_err(IntakeError::Discard)
    }
}

/// An archive that lies about itself is the client's fault, not ours.
fn files_failed(error: FilesError) -> IntakeError {
    if let FilesError::Unpack { path, source: ArchiveError::Refused(fault) } = &error {
        return IntakeError::Refused(vec![format!("`{path}` cannot be unpacked: {fault}.")]);
    }
    if let FilesError::Gone { path } = &error {
        return IntakeError::Refused(vec![format!("The file `{path}` was removed meanwhile.")]);
    }
    if error.is_no_room() { IntakeError::NoRoom } else { IntakeError::Files(error) }
}

fn queue_failed(error: QueueError) -> IntakeError {
    if let QueueError::IdempotencyConflict(name) = error {
        return IntakeError::KeyUsed(name);
    }
    IntakeError::Queue(error)
}

pub(super) fn unknown(error: CatalogError, text: String) -> IntakeError {
    match error {
        CatalogError::NotFound { .. } => IntakeError::Unknown(text),
        CatalogError::Exists { .. }
        | CatalogError::Invalid { .. }
        | CatalogError::Begin(_)
        | CatalogError::Statement { .. }
        | CatalogError::Secret(_)
        | CatalogError::Random
        | CatalogError::Unreadable { .. } => IntakeError::Catalog(error),
    }
}

/// The client's key, and what the request was. Uploads are known by name and size, for their paths
/// are new each time; secrets by name alone.
fn idempotency(wish: &Submission) -> Result<Option<Idempotency>, IntakeError> {
    let Some(key) = wish.idempotency_key.clone() else { return Ok(None) };
    let uploads: Vec<(&str, u64)> =
        wish.uploads.iter().map(|upload| (upload.name.as_str(), upload.n_bytes)).collect();
    let secrets: Vec<&String> = wish.secret_params.keys().collect();
    let mut params = wish.init_params.clone();
    if params.contains_key(RUNBOOK_URL) {
        // The URL is the client's, what stands there today is not.
        params.shift_remove(INSTRUCTION);
    }
    let request =
        serde_json::json!([wish.task, params, uploads, secrets, wish.webhook_url, wish.routine]);
    same_request(key, request.to_string().as_bytes()).map(Some)
}

/// What tells a repeated request: its key, and what it was.
///
/// # Errors
/// [`IntakeError::Refused`] when the key is empty or too long.
pub fn same_request(key: String, request: &[u8]) -> Result<Idempotency, IntakeError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(IntakeError::Refused(vec![format!(
            "The Idempotency-Key must have 1 to {MAX_KEY_BYTES} bytes."
        )]));
    }
    let digest = Sha256::digest(request);
    let fingerprint = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Idempotency { key, fingerprint })
}
