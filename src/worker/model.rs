//! The model service of one run: a gateway to a remote one, or a server for the scripted one.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, absolute};

use jiff::Timestamp;

use super::door::{self, Door};
use super::execute::Run;
use super::wire::Bygone;
use super::{account, way_out};
use crate::gateway::{EgressOrder, Place, ShortPath, WayOut};
use crate::host::blocking;
use crate::plan::GUARD_NEEDS_GATEWAY;
use crate::provider::scripted::{LedgerEntry, Listen, Script, ScriptedProvider};
use crate::provider::{Access, SCRIPTED_SOCKET};
use crate::run::{Credentials, RunFailure, error_chain};
use crate::sandbox::{Mount, SandboxId};
use crate::spend::{Purse, Spend};
use crate::store::RunFolder;

/// The model service while a run lasts.
pub(super) struct Model {
    service: Service,
    /// The way out of the sandbox, where that is a proxy that no gateway's process has.
    way_out: Option<WayOut>,
    /// `None` where there is neither.
    place: Option<Place>,
    /// Where the ledgers of both are.
    folder: RunFolder,
}

enum Service {
    /// Somewhere else.
    Remote,
    /// Somewhere else, behind a gateway in a process of its own.
    Gateway {
        door: Door,
        /// The run's name in what is spent.
        run: String,
        spend: Spend,
        clock: fn() -> Timestamp,
    },
    /// In this process.
    Scripted {
        server: ScriptedProvider,
        /// Keeps the path of its socket true.
        _socket: ShortPath,
    },
}

impl Model {
    /// Starts what the plan needs, and says how the sandbox reaches it.
    pub(super) async fn start(
        run: &Run<'_>,
        id: &SandboxId,
        access: Access,
    ) -> Result<(Self, Access), RunFailure> {
        let plan = run.plan;
        let folder = run.record.folder().clone();
        let way_out = way_out::order(run, &access)
            .map_err(|e| failed(format!("the run's folder has no whole path: {e}")))?;
        match (&plan.script, plan.credentials) {
            (None, Credentials::Direct) if !plan.guard.and(run.parts.guard).is_off() => {
                Err(RunFailure::Refused { problems: vec![format!("{GUARD_NEEDS_GATEWAY}.")] })
            }
            (None, Credentials::Gateway) => Self::behind_gateway(run, id, (access, way_out)).await,
            (None, Credentials::Direct) if way_out.is_none() => {
                Ok((Self { service: Service::Remote, way_out: None, place: None, folder }, access))
            }
            (script, _) => {
                let place = place(&run.parts.sockets, id)?;
                made(&place)?;
                let service = match script {
                    Some(script) => scripted(script, &place).await?,
                    None => Service::Remote,
                };
                let opened = way_out.map(|order| WayOut::open(order, &place, run.parts.clock));
                let way_out = opened.transpose();
                let way_out = way_out.map_err(|e| failed(format!("there is no proxy: {e}")))?;
                Ok((Self { service, way_out, place: Some(place), folder }, access))
            }
        }
    }

    async fn behind_gateway(
        run: &Run<'_>,
        id: &SandboxId,
        (access, way_out): (Access, Option<EgressOrder>),
    ) -> Result<(Self, Access), RunFailure> {
        let place = place(&run.parts.sockets, id)?;
        made(&place)?;
        let brokered = door::brokered(access, &place)?;
        let access = brokered.access.clone();
        let door = Door::open(run, place.clone(), (brokered, way_out)).await?;
        let folder = run.record.folder().clone();
        let service = Service::Gateway {
            door,
            run: Purse::name_of(&run.plan.name),
            spend: run.parts.spend.clone(),
            clock: run.parts.clock,
        };
        Ok((Self { service, way_out: None, place: Some(place), folder }, access))
    }

    /// What the sandbox must see of it.
    pub(super) fn mounts(&self) -> Option<Mount> {
        let inside = Path::new(SCRIPTED_SOCKET).parent().unwrap_or(Path::new("/"));
        self.place
            .as_ref()
            .map(|place| Mount { host: place.open(), inside: inside.display().to_string() })
    }

    /// Which requests nobody will say of that they have ended.
    pub(super) fn bygone(&self) -> Bygone {
        match &self.service {
            Service::Gateway { door, .. } => door.bygone().clone(),
            Service::Remote | Service::Scripted { .. } => Bygone::default(),
        }
    }

    /// Ends it, and gives what the scripted provider answered.
    pub(super) async fn stop(self) -> Vec<LedgerEntry> {
        let Self { service, way_out, place, folder } = self;
        if let Some(way_out) = way_out {
            way_out.stop().await;
        }
        let ledger = match service {
            Service::Remote => Vec::new(),
            Service::Gateway { door, run, spend, clock } => {
                door.end().await;
                give_up(&spend, &run, clock()).await;
                Vec::new()
            }
            Service::Scripted { server, .. } => end(server).await,
        };
        let told = blocking(move || {
            account::tell_meters(&folder);
            way_out::tell_meters(&folder);
        });
        if let Err(e) = told.await {
            tracing::error!(error = %e, "the figures of a run's requests were not told");
        }
        if let Some(Err(e)) = place.map(|place| place.remove()) {
            tracing::warn!(error = %e, "the folder of a model service was not removed");
        }
        ledger
    }

    /// Ends what of it is in this process: the sandbox stays, and so does its gateway.
    pub(super) async fn leave(self) -> Vec<LedgerEntry> {
        if let Some(way_out) = self.way_out {
            way_out.stop().await;
        }
        match self.service {
            Service::Remote | Service::Gateway { .. } => Vec::new(),
            Service::Scripted { server, .. } => end(server).await,
        }
    }
}

async fn scripted(script: &str, place: &Place) -> Result<Service, RunFailure> {
    let refused = |problem: String| RunFailure::Refused { problems: vec![problem] };
    let script = Script::parse(script).map_err(|e| refused(error_chain(&e)))?;
    let closed = |e: io::Error| failed(format!("the model service's socket stays closed: {e}"));
    let socket = made(place)?;
    // The one of an earlier process.
    match std::fs::remove_file(socket.as_path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(closed(e)),
        Ok(()) | Err(_) => {}
    }
    let server = ScriptedProvider::start(script, Listen::Unix(socket.as_path().to_owned()));
    let server = server
        .await
        .map_err(|e| failed(format!("the scripted provider did not start: {}", error_chain(&e))))?;
    // The agent has a user of its own; the folder's parent, which is ours alone, keeps others
    // away.
    std::fs::set_permissions(socket.as_path(), Permissions::from_mode(0o666)).map_err(closed)?;
    Ok(Service::Scripted { server, _socket: socket })
}

async fn end(server: ScriptedProvider) -> Vec<LedgerEntry> {
    let ledger = server.ledger();
    server.stop().await;
    ledger
}

/// Where the model service of a sandbox is. A gateway has no folder of ours to begin a path in.
fn place(sockets: &Path, id: &SandboxId) -> Result<Place, RunFailure> {
    let root = absolute(sockets.join(id.as_str()));
    root.map(Place::new).map_err(|e| failed(format!("the state folder has no whole path: {e}")))
}

/// The socket of the model service, in folders that are there.
fn made(place: &Place) -> Result<ShortPath, RunFailure> {
    place
        .make()
        .and_then(|()| place.model())
        .map_err(|e| failed(format!("no folder for the model service's socket: {e}")))
}

fn failed(detail: String) -> RunFailure {
    RunFailure::SandboxFailed { detail }
}

/// What a gateway that was killed had set aside is spent, and nobody waits for it.
async fn give_up(spend: &Spend, run: &str, now: Timestamp) {
    if let Err(e) = spend.give_up(run, now).await {
        tracing::warn!(error = %error_chain(&e), "what requests of a run took is not counted");
    }
}

/// Ends what is left of the model service of a run's sandbox, whose gateway may have died with it.
pub(super) async fn close(
    sockets: &Path,
    id: &SandboxId,
    (spend, run, now): (&Spend, &str, Timestamp),
) {
    remove(sockets, id).await;
    give_up(spend, run, now).await;
}

/// Ends what is left of the model service of a sandbox that is gone.
async fn remove(sockets: &Path, id: &SandboxId) {
    let place = Place::new(sockets.join(id.as_str()));
    door::end(&place).await;
    if let Err(e) = place.remove() {
        tracing::warn!(error = %e, "the folder of a model service was not removed");
    }
}

/// Ends the model services in `sockets` of sandboxes that are not to be kept.
///
/// # Errors
/// When they cannot be listed.
pub async fn sweep(sockets: &Path, keep: impl Fn(&SandboxId) -> bool) -> io::Result<()> {
    let entries = match std::fs::read_dir(sockets) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let id = entry?.file_name().to_str().and_then(|name| SandboxId::new(name).ok());
        if let Some(id) = id.filter(|id| !keep(id)) {
            // Whose it was nobody knows here: what it had set aside is given up when it is old.
            remove(sockets, &id).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Amounts;
    use crate::run::{Allowance, Slug};
    use crate::spend::{Answer, Wish};

    #[tokio::test]
    async fn what_a_gateway_had_set_aside_that_died_with_its_sandbox_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let spend = Spend::open(&folder.path().join(Spend::FILE)).await.unwrap();
        let (collection, allowance) = (Slug::new("team").unwrap(), Allowance::default());
        let need = Amounts { cost: 7, tokens: 7, requests: 1 };
        let now = Timestamp::UNIX_EPOCH;
        for run in ["team/story/x", "team/story/y"] {
            let (collection, allowance) = (&collection, &allowance);
            let wish = Wish { collection, run, model: "m", allowance, need, prompt_tokens: 0, now };
            assert!(matches!(spend.reserve(&wish).await.unwrap(), Answer::Reserved(_)));
        }
        let id = SandboxId::new("x").unwrap();
        close(&folder.path().join("models"), &id, (&spend, "team/story/x", now)).await;
        assert_eq!(spend.n_reserved("team/story/x").await.unwrap(), 0);
        assert_eq!(spend.n_reserved("team/story/y").await.unwrap(), 1);
        let day = "1970-01-01".parse().unwrap();
        let used = spend.usage(&collection, (day, day)).await.unwrap();
        assert_eq!((used[0].unsettled_requests, used[0].unsettled_cost.micros()), (1, 7));
    }
}
