//! What works behind the API of `runbookd serve`: the workers, and the sweep of the queue.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::parts::{agents, choose, engine_settings, gateway, now};
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::daemon::{Foundation, Parts, Stop};
use crate::queue::{LOST_AFTER, LeaseLimits, Queue, WorkerId};
use crate::run::error_chain;
use crate::sandbox::{Engine, EngineSettings};
use crate::webhook::Outbox;
use crate::worker::{
    self, AgentSource, Claims, Floors, MachineSize, PoolParts, PoolSettings, REAP_EVERY,
    SharedDisk, Shutdown, Workers,
};

/// How often the queue is swept. Leases last a minute, so a sweep every few seconds is soon enough.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// The file in the server's folder with the worker's name.
const WORKER_ID: &str = "worker-id";

/// Why nothing can work here, as a fragment for a person.
pub(super) type NoWork = String;

/// Adds what works to the parts, once the engine answers.
pub(super) async fn add(
    foundation: &Foundation,
    settings: &Settings,
    agent_cli: Option<&Path>,
    parts: &mut Parts,
) -> Result<(), NoWork> {
    let slots = settings.server.slots.map_or_else(
        || MachineSize::read().slots(),
        |slots| u32::try_from(slots).unwrap_or(u32::MAX),
    );
    let (limits, limited) = watch::channel(limits(&foundation.api.catalog, slots).await);
    let agents =
        agents(agent_cli, settings).map_err(|_| "the agent CLI cannot be had".to_owned())?;
    let workers = workers(foundation, settings, agents, (slots, limited)).await?;
    foundation.api.readiness.engine_is(true);
    let teller = workers.clone();
    parts.work("teller of ends", |stop| async move { teller.tell_ends(stop.drain).await });
    parts.work("workers", |stop| work(workers, stop));
    let (queue, catalog) = (foundation.api.queue.clone(), foundation.api.catalog.clone());
    parts.work("sweep of the queue", |stop| async move {
        sweep(&queue, &catalog, (slots, limits), stop.drain).await;
    });
    Ok(())
}

async fn workers(
    foundation: &Foundation,
    settings: &Settings,
    agents: AgentSource,
    (slots, limits): (u32, watch::Receiver<LeaseLimits>),
) -> Result<Workers, NoWork> {
    let folder = &foundation.folder;
    let engine = engine(folder, settings).await?;
    let in_folder = |e: io::Error| format!("the folder {}: {e}", folder.display());
    let api = &foundation.api;
    let parts = worker::Parts {
        engine,
        claims: Claims::open(folder.join("claims")).map_err(in_folder)?,
        sockets: folder.join("models"),
        agents,
        egress: settings.server.egress.clone(),
        snapshots: foundation.snapshots.clone(),
        guard: settings.guard,
        images: settings.images.clone(),
        redact_artifacts: settings.redact_artifacts,
        gateway: gateway(settings, api.runs.intake.settings.upstream_reach),
        store: api.store.clone(),
        spend: api.runs.intake.spend.clone(),
        ceilings: api.runs.intake.settings.allowance,
        keyring: [].into_iter().collect(),
        stall: settings.stall,
        disk: SharedDisk::new(settings.server.min_free_disk_bytes / 2, settings.disk),
        clock: now,
    };
    let floors = Floors {
        disk_bytes: settings.server.min_free_disk_bytes,
        ..Floors::usual(vec![folder.clone(), settings.server.results_dir.clone()])
    };
    let pool = PoolParts {
        parts,
        queue: api.queue.clone(),
        vault: foundation.vault.clone(),
        outbox: Some(Outbox { catalog: api.catalog.clone(), records: api.runs.records.clone() }),
    };
    let shared_keys = settings.share_keys.then(|| settings.keyring.clone());
    let worker = worker_id(folder).map_err(in_folder)?;
    let reap_every = REAP_EVERY;
    let settings = PoolSettings { worker, slots, limits, shared_keys, floors, reap_every };
    Ok(Workers::new(pool, settings))
}

/// The engine of the server. Its sandboxes live in the server's own folder, so that a run by hand
/// with the same state folder never takes them for its own.
async fn engine(folder: &Path, settings: &Settings) -> Result<Engine, NoWork> {
    let choice = choose(settings.engine.as_deref())?;
    let settings = EngineSettings { state_dir: folder.to_owned(), ..engine_settings(settings) };
    let settings = EngineSettings { owner: settings.owner.replacen("cli", "srv", 1), ..settings };
    let engine = Engine::connect(choice, settings).await;
    let engine = engine.map_err(|e| format!("{}; `runbookd doctor` says more", error_chain(&e)))?;
    let report = engine.report();
    tracing::info!(engine = %report.kind, version = report.version, "{}", report.why);
    for sentence in &report.unenforced {
        tracing::warn!("{sentence}");
    }
    Ok(engine)
}

/// The name of this server's worker, which stays: a new process takes over what the old one left.
fn worker_id(folder: &Path) -> io::Result<WorkerId> {
    let path = folder.join(WORKER_ID);
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(WorkerId::new(id.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4().to_string();
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            io::Write::write_all(&mut file, id.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(WorkerId::new(id))
        }
        Err(e) => Err(e),
    }
}

/// Works until the parts are to stop. What still goes on after the drain is left to the next process:
/// sandboxes outlive the server.
async fn work(workers: Workers, stop: Stop) {
    let shutdown = Shutdown { drain: stop.drain, leave: stop.force, ..Shutdown::default() };
    if let Err(e) = workers.run(&shutdown).await {
        tracing::error!(error = %error_chain(&e), "the workers could not begin");
    }
}

/// Gives up the runs of workers that are silent for too long, and follows the collections' limits.
async fn sweep(
    queue: &Queue,
    catalog: &Catalog,
    (slots, told): (u32, watch::Sender<LeaseLimits>),
    drain: CancellationToken,
) {
    loop {
        match queue.expire(now(), LOST_AFTER).await {
            Ok(lost) => lost.iter().for_each(|name| {
                tracing::error!(run.id = %name.id, "the worker of run `{name}` is gone, and so is the run");
            }),
            Err(e) => tracing::error!(error = %error_chain(&e), "the queue was not swept"),
        }
        let limits = limits(catalog, slots).await;
        told.send_if_modified(|told| {
            let is_new = *told != limits;
            *told = limits;
            is_new
        });
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

/// How many runs of one collection may go on at a time: all slots, unless it has a limit of its own.
async fn limits(catalog: &Catalog, slots: u32) -> LeaseLimits {
    let exceptions = catalog.concurrency_limits().await.unwrap_or_else(|e| {
        tracing::error!(error = %error_chain(&e), "the limits of the collections were not read");
        [].into()
    });
    LeaseLimits { per_collection: slots, exceptions }
}
