//! The queue, the results and the workers of one story. A process of theirs is a runtime of its own:
//! it can be stopped in the middle of anything, as a kill would, and the next one finds what a
//! killed process leaves.

use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runbookd::catalog::{Catalog, NewTask};
use runbookd::database::{Database, Vault};
use runbookd::egress::EgressSettings;
use runbookd::guard::Guardrails;
use runbookd::intake::{Intake, IntakeSettings, Submission, Uploaded};
use runbookd::job::{JobSecrets, JobSpec};
use runbookd::plan::Overrides;
use runbookd::queue::{Job, LeaseLimits, NewJob, Queue, WorkerId};
use runbookd::reach::Reach;
use runbookd::records::Records;
use runbookd::run::{Allowance, ImageRules, Network, RunId, RunName, Slug, StallCeilings};
use runbookd::sandbox::{Engine, EngineChoice, EngineKind};
use runbookd::secret::{Keyring, Secret};
use runbookd::snapshot::Snapshots;
use runbookd::spend::Spend;
use runbookd::store::Store;
use runbookd::webhook::Outbox;
use runbookd::worker::{
    AgentSource, Claims, Clock, Floors, Parts, PoolParts, PoolSettings, SharedDisk, Shutdown,
    Workers, WorkersStatus,
};
use runbookd::workflow::Workflow;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::stage::{POLL, Stage, gateway, settings, until};
use super::story::pinned;

/// Often, so that every story shows that no sandbox goes that somebody needs.
const REAP_EVERY: Duration = Duration::from_millis(300);

/// A stopped runtime ends its tasks at their next wait, and its threads when they return.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where the queue and the results of a story are.
pub(crate) struct Depot<'a> {
    pub(crate) stage: &'a Stage,
    work: tempfile::TempDir,
    agents: AgentSource,
    /// The time as the workers see it.
    pub(crate) clock: Clock,
}

/// One process of the workers.
pub(crate) struct Process {
    runtime: Option<Runtime>,
    pub(crate) queue: Queue,
    database: Database,
    workers: Workers,
    pub(crate) shutdown: Shutdown,
    running: JoinHandle<()>,
}

fn choice(kind: EngineKind) -> EngineChoice {
    match kind {
        EngineKind::Docker => EngineChoice::Docker,
        EngineKind::Bubblewrap => EngineChoice::Bubblewrap,
    }
}

impl<'a> Depot<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        Self { stage, work: tempfile::tempdir().unwrap(), agents: pinned(), clock: Timestamp::now }
    }

    /// One whose agent CLI is this shell script.
    pub(crate) fn with_agent(stage: &'a Stage, script: &str) -> Self {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("agent");
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self { stage, work, agents: AgentSource::Executable(path), clock: Timestamp::now }
    }

    /// Starts a process with this many slots.
    pub(crate) async fn start(&self, slots: u32) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(NonZeroUsize::MIN.get())
            .enable_all()
            .build()
            .unwrap();
        let choice = choice(self.stage.kind);
        let engine_settings = settings(self.stage.state.path(), &self.stage.owner);
        let (state, results) = (self.stage.state.path().to_owned(), self.results());
        let sockets = self.stage.models();
        let (agents, clock) = (self.agents.clone(), self.clock);
        let (file, key) = (self.path("queue.db"), self.path("vault.key"));
        let shutdown = Shutdown::default();
        let stops = shutdown.clone();
        let made = runtime.spawn(async move {
            let engine = Engine::connect(choice, engine_settings).await.unwrap();
            let database = Database::open(&file).await.unwrap();
            let queue = Queue::new(database.clone());
            let parts = Parts {
                engine,
                claims: Claims::open(state.join("claims")).unwrap(),
                sockets,
                agents,
                egress: EgressSettings::default(),
                snapshots: Snapshots::built_in(),
                guard: Guardrails::default(),
                images: ImageRules::all(),
                redact_artifacts: false,
                gateway: gateway(),
                store: Store::open(&results).unwrap(),
                stall: StallCeilings::default(),
                disk: SharedDisk::unbounded(),
                spend: Spend::open(&state.join(Spend::FILE)).await.unwrap(),
                ceilings: Allowance::default(),
                keyring: Keyring::default(),
                clock,
            };
            let vault = Arc::new(Vault::load(&key).unwrap());
            let records = Records::new(queue.clone(), parts.store.clone());
            let catalog = Catalog::new(database.clone(), Arc::clone(&vault));
            let outbox = Some(Outbox { catalog, records });
            let pool = PoolParts { parts, queue: queue.clone(), vault, outbox };
            let workers = Workers::new(pool, pool_settings(slots));
            let running = tokio::task::spawn({
                let workers = workers.clone();
                async move {
                    let ended = CancellationToken::new();
                    let teller = workers.tell_ends(ended.clone());
                    let work = async {
                        workers.run(&stops).await.unwrap();
                        ended.cancel();
                    };
                    tokio::join!(work, teller);
                }
            });
            (database, queue, workers, running)
        });
        let (database, queue, workers, running) = made.await.unwrap();
        Process { runtime: Some(runtime), queue, database, workers, shutdown, running }
    }

    /// What a run answers with is this script; nothing else of it is special.
    pub(crate) async fn submit(&self, process: &Process, script: &str) -> RunName {
        self.submit_job(process, job(script)).await
    }

    pub(crate) async fn submit_job(&self, process: &Process, job: JobSpec) -> RunName {
        self.submit_with(process, job, &[]).await
    }

    /// [`Depot::submit_job`] with more in the collection's environment.
    pub(crate) async fn submit_with(
        &self,
        process: &Process,
        job: JobSpec,
        environment: &[(&str, &str)],
    ) -> RunName {
        let name = RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("story").unwrap(),
            id: RunId::from_uuid(Uuid::new_v4()),
        };
        let secret = ("MADE_UP_KEY".to_owned(), Secret::new("sk-made-up-in-a-job".to_owned()));
        let secrets = JobSecrets {
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())))
                .chain([secret])
                .collect(),
            webhook_secret: Some(Secret::new("made-up-key-of-a-webhook".to_owned())),
            ..JobSecrets::default()
        };
        let vault = Vault::load(&self.path("vault.key")).unwrap();
        let sealed = vault.seal(secrets.to_plaintext().expose(), &JobSecrets::context(&name));
        let new = NewJob {
            name: name.clone(),
            spec: job.freeze(),
            sealed: Some(sealed.unwrap()),
            session_id: Some(Uuid::new_v4().to_string()),
            priority: 0,
            run_at: None,
            max_attempts: 3,
            idempotency: None,
            triggered_by_routine: None,
        };
        process.on(|queue| async move { queue.submit(new, Timestamp::now()).await.unwrap() }).await;
        name
    }

    /// What the workers of a process tell of ends, and what becomes of it.
    pub(crate) fn catalog(&self, process: &Process) -> Catalog {
        let vault = Vault::load(&self.path("vault.key")).unwrap();
        Catalog::new(process.database.clone(), Arc::new(vault))
    }

    /// Takes a request in as the API does; the files come with it.
    pub(crate) async fn request(
        &self,
        process: &Process,
        script: &str,
        files: Vec<(&'static str, Vec<u8>)>,
    ) -> RunName {
        let workflow = json!({
            "init_params": {
                "instruction": "# A story\n\nDo what the model says.\n", "script": script,
            },
            "step_configs": { "run": {
                "activity": "runbook", "instruction_path": "init_params.instruction",
                "network_enabled": false,
            } },
            "steps": ["run"],
        });
        self.request_workflow(process, workflow, files).await
    }

    /// The same of a task with this workflow.
    pub(crate) async fn request_workflow(
        &self,
        process: &Process,
        workflow: Value,
        files: Vec<(&'static str, Vec<u8>)>,
    ) -> RunName {
        let vault = Arc::new(Vault::load(&self.path("vault.key")).unwrap());
        let catalog = Catalog::new(process.database.clone(), Arc::clone(&vault));
        let store = Store::open(&self.results()).unwrap();
        let spend = self.stage.state.path().join(Spend::FILE);
        let settings = IntakeSettings {
            max_attempts: 3,
            min_free_disk_bytes: 0,
            allowance: Allowance::default(),
            upstream_reach: Reach::Private,
            guard: Guardrails::default(),
            provider_tools: [].into(),
            webhook_reach: Reach::Public,
            shared_keys: None,
            snapshots: Snapshots::built_in(),
            networks: runbookd::run::Networks::default(),
            images: ImageRules::all(),
        };
        process
            .on(move |queue| async move {
                let now = Timestamp::now();
                let team = catalog.create_collection("team", None, now).await.unwrap().name;
                let task = NewTask::new("story", Workflow::parse(&workflow).unwrap());
                catalog.create_task(&team, task, now).await.unwrap();
                let batch = Slug::new("0123456789ab").unwrap();
                let uploads = files.into_iter().map(|(name, bytes)| {
                    let mut upload = store.receive(&team, &batch, name).unwrap();
                    upload.append(&bytes).unwrap();
                    let kept = upload.keep().unwrap();
                    Uploaded { path: kept.path, name: kept.name, n_bytes: kept.n_bytes }
                });
                let wish = Submission {
                    collection: "team".to_owned(),
                    task: "story".to_owned(),
                    uploads: uploads.collect(),
                    ..Submission::default()
                };
                let tasks = tokio_util::task::TaskTracker::new();
                let spend = Spend::open(&spend).await.unwrap();
                let intake = Intake { catalog, queue, store, vault, spend, settings, tasks };
                intake.submit(wish, now).await.unwrap().name
            })
            .await
    }

    pub(crate) fn folder(&self, name: &RunName) -> PathBuf {
        let RunName { collection, task, id } = name;
        self.results().join(format!("{collection}/{task}/{id}"))
    }

    /// The events of a run so far. Their numbers are checked: from 1, without a gap.
    pub(crate) fn events(&self, name: &RunName) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder(name).join("events.jsonl"));
        let text = text.unwrap_or_default();
        // The last line may be in the making.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events: Vec<Value> =
            whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        let updates = events.iter().filter_map(|event| event["update"].as_u64());
        assert!(updates.eq(1..=events.iter().filter(|e| e["update"].is_u64()).count() as u64));
        events
    }

    /// Waits until an event holds this text.
    pub(crate) async fn event(&self, name: &RunName, text: &str) {
        until(|| self.events(name).iter().any(|event| event.to_string().contains(text))).await;
    }

    pub(crate) fn trajectory(&self, name: &RunName) -> Value {
        let text = std::fs::read(self.folder(name).join("trajectory.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// A path that the agent sees below `/app`.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        let sandboxes = self.stage.state.path().join("sandboxes");
        let mut folders = std::fs::read_dir(sandboxes).unwrap();
        folders.next().expect("a sandbox").unwrap().path().join("rw/app").join(path)
    }

    /// The next process has another key for what is sealed.
    pub(crate) fn replace_key(&self) {
        std::fs::remove_file(self.path("vault.key")).unwrap();
    }

    fn results(&self) -> PathBuf {
        self.path("results")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }
}

/// A story that fails shows its runs.
impl Drop for Depot<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.results(), 0);
        }
    }
}

fn show(folder: &Path, depth: usize) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 3 {
            show(&entry.path(), depth + 1);
        } else if entry.file_name() == "events.jsonl" || entry.file_name() == "trajectory.json" {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            println!("== {}\n{text}", entry.path().display());
        }
    }
}

/// A job whose model answers with a script.
pub(crate) fn job(script: &str) -> JobSpec {
    JobSpec {
        step: "run".to_owned(),
        runbook: "# A story\n\nDo what the model says.\n".to_owned(),
        script: Some(script.to_owned()),
        overrides: Overrides {
            network: Some(Network::None),
            model_retries: Some(5),
            ..Overrides::default()
        },
        ..JobSpec::default()
    }
}

fn pool_settings(slots: u32) -> PoolSettings {
    PoolSettings {
        worker: WorkerId::new("worker-of-the-story".to_owned()),
        slots,
        limits: watch::channel(LeaseLimits { per_collection: 10, exceptions: [].into() }).1,
        shared_keys: None,
        floors: Floors { memory_bytes: 0, disk_bytes: 0, folders: vec![] },
        reap_every: REAP_EVERY,
    }
}

impl Process {
    /// Does something with the queue inside the process.
    pub(crate) async fn on<T: Send + 'static, F>(
        &self,
        act: impl FnOnce(Queue) -> F + Send + 'static,
    ) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("it lives");
        runtime.spawn(act(self.queue.clone())).await.unwrap()
    }

    /// The row of a run.
    pub(crate) async fn job(&self, name: &RunName) -> Job {
        let name = name.clone();
        self.on(|queue| async move { queue.get(&name).await.unwrap().expect("the run is known") })
            .await
    }

    /// Waits until a run has ended, and gives its row.
    pub(crate) async fn ended(&self, name: &RunName) -> Job {
        loop {
            let job = self.job(name).await;
            if job.status.is_terminal() {
                return job;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn status(&self) -> WorkersStatus {
        self.workers.status()
    }

    /// Ends the process in the middle of whatever it does.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().expect("it lives");
        self.running.abort();
        drop(self);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_LIMIT)).await.unwrap();
    }

    /// Waits for the process to end in order, after it was told to.
    pub(crate) async fn end(mut self) {
        let runtime = self.runtime.take().expect("it lives");
        (&mut self.running).await.unwrap();
        let database = self.database.clone();
        drop(self);
        runtime.spawn(async move { database.close().await.unwrap() }).await.unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_LIMIT)).await.unwrap();
    }

    /// Stops the process when nothing is to do any more.
    pub(crate) async fn stop(self) {
        self.shutdown.drain.cancel();
        self.end().await;
    }
}

/// A story that fails must not wait for what its process still does.
impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
