//! The run's gateway while the run lives: met where it runs, started where it does not, started again
//! where it died, and ended with the run.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::absolute;
use std::time::Duration;

use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::account::last_seq;
use super::attend::Clock;
use super::execute::Run;
use super::way_out;
use super::wire::Bygone;
use crate::gateway::{
    Contact, EgressOrder, GatewayOrder, LaunchError, Place, Program, PurseOrder, tail,
};
use crate::host::blocking;
use crate::provider::{Access, Brokered};
use crate::run::{RunFailure, RunName, error_chain};
use crate::store::RunFolder;

/// What a gateway may live longer than its run may take: an image that is built before the agent
/// starts, a setup script, an engine that is away. It is for the gateways that everybody forgot; who
/// looks after a run starts its gateway again.
const GRACE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a run waits for its gateway at its start: for another server's that is about to serve or
/// to end, too.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How soon a gateway that is about to serve or to end is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How soon a gateway that died is started again, at first and at most. The agent CLI tries a request
/// again for about three minutes.
const RESTART_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The gateway of a run, looked after until this is ended, left or dropped. It lives on unless it is
/// ended.
#[derive(Debug)]
pub(super) struct Door {
    stop: CancellationToken,
    keeping: JoinSet<Option<Held>>,
    bygone: Bygone,
}

/// A gateway that serves.
#[derive(Debug)]
struct Held {
    contact: Contact,
    /// Where this process started it, so that it is waited for.
    _child: Option<Child>,
}

/// What it takes to have a gateway.
struct Keeper {
    program: Program,
    /// The next gateway's, but for where the ledger stands by then.
    order: GatewayOrder,
    place: Place,
    name: RunName,
    folder: RunFolder,
    lifetime: Duration,
    clock: Clock,
    /// What the gateways before the next one were asked.
    bygone: Bygone,
}

impl Door {
    /// Has a gateway serve the run, the one that does already or a new one.
    pub(super) async fn open(
        run: &Run<'_>,
        place: Place,
        (brokered, egress): (Brokered, Option<EgressOrder>),
    ) -> Result<Self, RunFailure> {
        let mut keeper = Keeper::new(run, place, (brokered, egress))?;
        let held = keeper.have().await?;
        let bygone = keeper.bygone.clone();
        let stop = CancellationToken::new();
        let mut keeping = JoinSet::new();
        let stopped = stop.clone();
        keeping.spawn(async move { keeper.keep(held, &stopped).await });
        Ok(Self { stop, keeping, bygone })
    }

    /// Which requests nobody will say of that they have ended.
    pub(super) fn bygone(&self) -> &Bygone {
        &self.bygone
    }

    /// Ends the gateway. Then its ledger is whole.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        // The keeper's waits have limits, or end with the token.
        while let Some(kept) = self.keeping.join_next().await {
            match kept {
                Ok(Some(held)) => held.contact.end().await,
                Ok(None) => {}
                Err(e) => tracing::error!(error = %e, "a gateway's keeper broke down"),
            }
        }
    }
}

/// Ends whatever gateway serves a place, at once.
pub(super) async fn end(place: &Place) {
    match Contact::open(place).await {
        Ok(Some(contact)) => contact.abort().await,
        Ok(None) => {}
        Err(e) => tracing::warn!(error = %e, "a gateway of an old run cannot be found"),
    }
}

impl Keeper {
    fn new(
        run: &Run<'_>,
        place: Place,
        (brokered, egress): (Brokered, Option<EgressOrder>),
    ) -> Result<Self, RunFailure> {
        let folder = run.record.folder().clone();
        let limits = &run.plan.limits;
        let lifetime = limits.wall.saturating_add(limits.setup).saturating_add(GRACE);
        let ledger = absolute(folder.gateway_log())
            .map_err(|e| failed(format!("the run's folder has no whole path: {e}")))?;
        let program = run.parts.gateway.clone();
        let order = GatewayOrder {
            run: run.plan.name.to_string(),
            route: brokered.route,
            token: brokered.token,
            guard: run.plan.guard.and(run.parts.guard),
            secrets: run.plan.secret_values().cloned().collect(),
            reach: program.reach,
            provider_tools: run.plan.provider_tools.clone(),
            purse: Some(PurseOrder {
                file: run.parts.spend.path().to_owned(),
                collection: run.plan.name.collection.to_string(),
                allowance: run.plan.allowance,
            }),
            ledger,
            last_seq: 0,
            egress,
            deadline: (run.parts.clock)(),
            log_filter: program.log_filter.clone(),
        };
        let (name, clock) = (run.plan.name.clone(), run.parts.clock);
        let bygone = Bygone::default();
        Ok(Self { program, order, place, name, folder, lifetime, clock, bygone })
    }

    /// Stays with a gateway, and starts another one where it dies; gives the last.
    async fn keep(mut self, held: Held, stop: &CancellationToken) -> Option<Held> {
        let mut held = Some(held);
        let mut pause = RESTART_PAUSES.0;
        loop {
            if let Some(serving) = &held {
                let since = Instant::now();
                let ended = tokio::select! {
                    biased;
                    () = stop.cancelled() => return held,
                    ended = serving.contact.ended() => ended,
                };
                let error = ended.err().map(|e| e.to_string()).unwrap_or_default();
                tracing::warn!(run.id = %self.name.id, error, tail = tail(&self.place), "the gateway of a run ended before the run");
                if since.elapsed() > RESTART_PAUSES.1 {
                    pause = RESTART_PAUSES.0;
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSES.1);
            held = match self.have().await {
                Ok(held) => Some(held),
                Err(failure) => {
                    tracing::warn!(run.id = %self.name.id, "no gateway for a run: {failure}");
                    None
                }
            };
        }
    }

    /// Meets the run's gateway, or starts one.
    async fn have(&mut self) -> Result<Held, RunFailure> {
        let since = Instant::now();
        let mut child = None;
        loop {
            let met = Contact::open(&self.place).await;
            let met = met.map_err(|e| failed(format!("its gateway cannot be looked for: {e}")))?;
            if let Some(mut contact) = met {
                match contact.who().await {
                    Ok(who) if who.serves(&self.order.run) => {
                        return Ok(Held { contact, _child: child });
                    }
                    Ok(who) => {
                        tracing::warn!(run.id = %self.name.id, version = who.version, "a gateway that is of no use to this version is replaced");
                    }
                    Err(e) => {
                        tracing::warn!(run.id = %self.name.id, error = %error_chain(&e), "a gateway that cannot be understood is replaced");
                    }
                }
                contact.end().await;
            }
            if since.elapsed() > START_LIMIT {
                return Err(failed("its gateway did not start in time".to_owned()));
            }
            match self.start().await {
                Ok(started) => child = Some(started),
                // It is about to listen, or to end.
                Err(LaunchError::Busy) => sleep(LOOK_AGAIN).await,
                Err(LaunchError::Refused(why)) => {
                    return Err(RunFailure::Refused { problems: vec![why] });
                }
                Err(
                    e @ (LaunchError::Spawn(_)
                    | LaunchError::Broken { .. }
                    | LaunchError::Slow
                    | LaunchError::Failed(_)),
                ) => return Err(failed(error_chain(&e))),
            }
        }
    }

    async fn start(&mut self) -> Result<Child, LaunchError> {
        let folder = self.folder.clone();
        let seqs = blocking(move || (last_seq(&folder), way_out::last_seq(&folder))).await;
        let (seq, egress_seq) = seqs.map_err(|e| LaunchError::Failed(e.to_string()))?;
        self.order.last_seq = seq.map_err(|e| LaunchError::Failed(error_chain(&e)))?;
        if let Some(egress) = &mut self.order.egress {
            egress.last_seq = egress_seq.map_err(|e| LaunchError::Failed(error_chain(&e)))?;
        }
        let deadline = (self.clock)().saturating_add(self.lifetime);
        self.order.deadline = deadline.unwrap_or(self.order.deadline);
        let started = self.program.start(&self.order, &self.place).await?;
        // Another one would not have started while there was one that could still end them.
        self.bygone.up_to(self.order.last_seq);
        Ok(started)
    }
}

/// What the run's access is through its gateway.
pub(super) fn brokered(access: Access, place: &Place) -> Result<Brokered, RunFailure> {
    let unique =
        unique(place).map_err(|e| failed(format!("no token for the run's gateway: {e}")))?;
    let brokered = access.brokered(&unique);
    brokered
        .ok_or_else(|| failed("the gateway cannot stand in for the credential any more".to_owned()))
}

/// What makes the run's token unlike every other, from the first call on: the next process must know
/// the token that the sandbox has.
fn unique(place: &Place) -> io::Result<String> {
    let path = place.token();
    match std::fs::read_to_string(&path) {
        Ok(unique) if !unique.is_empty() => return Ok(unique),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(_) | Err(_) => {}
    }
    let unique = Uuid::new_v4().simple().to_string();
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(unique.as_bytes())?;
    Ok(unique)
}

fn failed(detail: String) -> RunFailure {
    RunFailure::SandboxFailed { detail }
}
