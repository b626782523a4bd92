//! `runbookd serve`: the API and what works behind it, until it is told to stop.

use std::io::IsTerminal as _;
use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::ServeArguments;
use super::exit::ExitCode;
use super::parts::now;
use super::{complain, say, serve_work};
use crate::api::ConnectionLimits;
use crate::config::Settings;
use crate::daemon::{
    DoorError, Doors, Ending, Foundation, FoundationError, Housekeeping, Parts, Signals, Tokens,
};
use crate::routines::Scheduler;
use crate::run::error_chain;
use crate::webhook::{Post, PostError, Sender};

/// What the first token is called.
const FIRST_TOKEN: &str = "first";

/// Wishes to stop that are kept. The second one forces; more change nothing.
const MAX_SIGNALS: usize = 2;

/// Serves until it is told to stop.
pub(super) async fn serve(arguments: &ServeArguments, settings: &Settings) -> ExitCode {
    let settings = with_arguments(arguments, settings);
    match start(arguments, &settings).await {
        Ok(ending) => ended(ending),
        Err(refusal) => refusal.tell(),
    }
}

/// Why the server does not start.
#[derive(Debug)]
enum Refusal {
    Foundation(FoundationError),
    Doors(DoorError),
    /// Other machines could reach it, and that was not said.
    Exposed(SocketAddr),
    /// Other machines could reach it, and nobody has a token.
    NoToken(SocketAddr),
    /// Webhooks could not be sent.
    Post(PostError),
    /// Nothing can work here.
    NoWork(serve_work::NoWork),
    /// The system does not tell of signals.
    Signals(std::io::Error),
}

impl Refusal {
    fn tell(&self) -> ExitCode {
        match self {
            Self::Foundation(e) => {
                complain(&error_chain(e));
                ExitCode::Unavailable
            }
            Self::Doors(e) => {
                complain(&error_chain(e));
                ExitCode::Unavailable
            }
            Self::Post(e) => {
                complain(&error_chain(e));
                ExitCode::Unavailable
            }
            Self::Exposed(address) => {
                complain(&format!(
                    "other machines could reach {address}: add --allow-remote if they may, and put \
                     TLS before it; or listen on 127.0.0.1"
                ));
                ExitCode::BadConfig
            }
            Self::NoToken(address) => {
                complain(&format!(
                    "nobody could use {address}, for no token opens anything: make one first with \
                     `runbookd token create NAME --admin`"
                ));
                ExitCode::BadConfig
            }
            Self::NoWork(why) => {
                complain(why);
                ExitCode::Unavailable
            }
            Self::Signals(e) => {
                complain(&format!("could not listen for signals: {e}"));
                ExitCode::Unavailable
            }
        }
    }
}

async fn start(arguments: &ServeArguments, settings: &Settings) -> Result<Ending, Refusal> {
    let address = settings.server.listen;
    let is_remote = !address.ip().is_loopback();
    if is_remote && !arguments.allow_remote {
        return Err(Refusal::Exposed(address));
    }
    let foundation = Foundation::open(settings, now).await.map_err(Refusal::Foundation)?;
    let served = with_foundation(&foundation, settings, arguments).await;
    foundation.close().await;
    served
}

async fn with_foundation(
    foundation: &Foundation,
    settings: &Settings,
    arguments: &ServeArguments,
) -> Result<Ending, Refusal> {
    let is_remote = !settings.server.listen.ip().is_loopback();
    let (signals, mut listeners) = stop_signals().map_err(Refusal::Signals)?;
    greet(foundation, is_remote.then_some(settings.server.listen)).await?;
    let doors =
        Doors::open(settings.server.listen, &foundation.socket).await.map_err(Refusal::Doors)?;
    tracing::info!(address = %doors.address(), results = %settings.server.results_dir.display(),
        "listening on http://{}, documentation at /docs", doors.address());
    let mut parts = Parts::default();
    let limits = ConnectionLimits {
        max: settings.server.max_connections,
        max_per_address: settings.server.max_connections_per_address,
    };
    doors.serve(foundation, limits, &mut parts);
    let agent_cli = arguments.agent_cli.as_deref();
    let added = serve_work::add(foundation, settings, agent_cli, &mut parts).await;
    added.map_err(Refusal::NoWork)?;
    clockwork(foundation, settings, &mut parts)?;
    let readiness = &foundation.api.readiness;
    let ending = parts.run(signals, settings.server.drain_limit, || readiness.drain()).await;
    listeners.shutdown().await;
    Ok(ending)
}

/// Adds what works by the clock: routines, the telling of runs that ended, the removal of what is old.
fn clockwork(
    foundation: &Foundation,
    settings: &Settings,
    parts: &mut Parts,
) -> Result<(), Refusal> {
    let api = &foundation.api;
    let intake = api.runs.intake.clone();
    let post = Post::new(intake.settings.webhook_reach).map_err(Refusal::Post)?;
    let scheduler = Scheduler { catalog: api.catalog.clone(), intake };
    let sender = Sender { catalog: api.catalog.clone(), post };
    let housekeeping = Housekeeping {
        catalog: api.catalog.clone(),
        store: api.store.clone(),
        keep_uploads: settings.server.keep_uploads,
        keep_deliveries: settings.server.keep_deliveries,
    };
    parts.work("housekeeping", |stop| async move { housekeeping.run(now, stop.drain).await });
    parts.work("scheduler", |stop| async move { scheduler.run(now, stop.drain).await });
    parts.work("sender of webhooks", |stop| async move { sender.run(now, stop.drain).await });
    Ok(())
}

/// Sees to it that somebody has a token, and says how to get one.
async fn greet(foundation: &Foundation, remote: Option<SocketAddr>) -> Result<(), Refusal> {
    let tokens = foundation.tokens().await.map_err(Refusal::Foundation)?;
    if tokens == Tokens::Some {
        return Ok(());
    }
    // Where no person looks on, standard output is a log, and a log must not hold a token. And what
    // somebody switched off is not to be made up for.
    if tokens == Tokens::None && std::io::stdout().is_terminal() {
        let made = foundation.make_admin_token(FIRST_TOKEN).await.map_err(Refusal::Foundation)?;
        say(&format!(
            "There is no token yet. Here is one that opens everything; it is shown this once:\n\n  \
             {}\n\nMake others with `runbookd token create`.",
            made.expose()
        ));
        return Ok(());
    }
    if let Some(address) = remote {
        return Err(Refusal::NoToken(address));
    }
    complain("no token opens anything: make one with `runbookd token create NAME --admin`");
    Ok(())
}

fn ended(ending: Ending) -> ExitCode {
    match ending {
        Ending::Drained | Ending::Forced => ExitCode::Success,
        // The log has told why.
        Ending::Broke(_) => ExitCode::RunFailed,
    }
}

/// SIGTERM and SIGINT, as wishes to stop.
fn stop_signals() -> std::io::Result<(Signals, JoinSet<()>)> {
    let (wish, signals) = mpsc::channel(MAX_SIGNALS);
    let mut listeners = JoinSet::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        listeners.spawn(pass_on(signal(kind)?, wish.clone()));
    }
    Ok((signals, listeners))
}

async fn pass_on(mut signal: Signal, wish: mpsc::Sender<()>) {
    while signal.recv().await.is_some() {
        // A full channel holds more wishes than are needed.
        let _ = wish.try_send(());
    }
}

/// The settings, with what the command line says over them.
fn with_arguments(arguments: &ServeArguments, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if let Some(listen) = arguments.listen {
        settings.server.listen = listen;
    }
    if let Some(results) = &arguments.results {
        settings.server.results_dir = results.clone();
    }
    if let Some(slots) = arguments.slots {
        settings.server.slots = Some(slots.get());
    }
    if let Some(engine) = arguments.engine {
        settings.engine = Some(engine.to_string());
    }
    settings
}
