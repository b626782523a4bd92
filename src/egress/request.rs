//! A request to the proxy: `CONNECT HOST:PORT`, or a plain one with the whole URL in its first line.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{HOST, HeaderMap};
use axum::http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;

use super::meter::Attempt;
use super::plain;
use super::policy::Denial;
use super::refusal::Refusal;
use super::server::Gate;
use super::target::{HTTPS_PORT, Target};
use super::tunnel::{self, Tunnel};

/// From a connection's start, or its last answer, to the end of the next request's head. Clients keep
/// connections for some minutes.
const HEAD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The port of `http://` without one.
const HTTP_PORT: u16 = 80;

/// Where requests on a connection lead.
#[derive(Debug, Clone)]
enum Leads {
    /// Each says it itself, as a proxy's do.
    Anywhere,
    /// Behind a CONNECT: to its target alone.
    To(Target),
}

/// Serves one connection to the proxy.
pub(super) async fn serve<S>(stream: S, gate: Arc<Gate>, stop: CancellationToken)
where
    S: Read + Write + Unpin + Send + 'static,
{
    let tunnel: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let (for_service, opened) = (Arc::clone(&gate), Arc::clone(&tunnel));
    let service = service_fn(move |request: Request<Incoming>| {
        let (gate, opened) = (Arc::clone(&for_service), Arc::clone(&opened));
        async move { Ok::<_, Infallible>(answer(&gate, request, &opened).await) }
    });
    let connection = server().serve_connection(stream, service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        // The agent went away, or somebody in the sandbox does not speak HTTP. Nobody has to act.
        tracing::debug!(error = %e, "a connection of a proxy broke");
    }
    let opened = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(opened) = opened {
        tunnel::pass(opened, gate, stop).await;
    }
}

/// Serves the plain requests behind a CONNECT, to its target alone.
pub(super) async fn serve_behind<S>(
    stream: S,
    (gate, target): (Arc<Gate>, Target),
    stop: CancellationToken,
) where
    S: Read + Write + Unpin + Send + 'static,
{
    let leads = Leads::To(target);
    let service = service_fn(move |request: Request<Incoming>| {
        let (gate, leads) = (Arc::clone(&gate), leads.clone());
        async move { Ok::<_, Infallible>(plain_answer(&gate, request, &leads).await) }
    });
    let connection = server().serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection of a proxy broke");
    }
}

fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    server
}

async fn answer(
    gate: &Arc<Gate>,
    request: Request<Incoming>,
    opened: &Mutex<Option<Tunnel>>,
) -> Response<Body> {
    if request.method() != Method::CONNECT {
        return plain_answer(gate, request, &Leads::Anywhere).await;
    }
    let asked = request.uri().to_string();
    let Some(mut attempt) = Attempt::begin(gate, "CONNECT", &asked) else {
        return Refusal::Denied(Denial::TooMany).response(&asked);
    };
    let target = request.uri().authority().and_then(|a| Target::parse(a.as_str(), None));
    let Some(target) = target else { return attempt.refuse(&Denial::NotForProxy.into()) };
    aim(&mut attempt, &target);
    match tunnel::open(gate, target, &mut attempt).await {
        Ok((upstream, target, grant)) => {
            let upgrade = hyper::upgrade::on(request);
            let tunnel = Tunnel { upgrade, upstream, target, grant, attempt };
            *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
            Response::new(Body::empty())
        }
        Err(refusal) => attempt.refuse(&refusal),
    }
}

async fn plain_answer(
    gate: &Arc<Gate>,
    request: Request<Incoming>,
    leads: &Leads,
) -> Response<Body> {
    let asked = asked(request.uri(), request.headers());
    let Some(mut attempt) = Attempt::begin(gate, request.method().as_str(), &asked) else {
        return Refusal::Denied(Denial::TooMany).response(&asked);
    };
    let target = match target(&request, leads) {
        Ok(target) => target,
        Err(denial) => return attempt.refuse(&denial.into()),
    };
    aim(&mut attempt, &target);
    match may_be_plain(&target).and_then(|()| host_matches(request.headers(), &target)) {
        Ok(()) => plain::pass(gate, request, &target, attempt).await,
        Err(denial) => attempt.refuse(&denial.into()),
    }
}

/// The target belongs into the ledger in its one spelling.
fn aim(attempt: &mut Attempt, target: &Target) {
    target.host().clone_into(&mut attempt.record().host);
    attempt.record().port = target.port();
}

/// What was asked for, where it may be no target.
fn asked(uri: &Uri, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(|authority| authority.as_str()).or(host);
    host.unwrap_or_default().to_owned()
}

/// Where a plain request leads.
fn target(request: &Request<Incoming>, leads: &Leads) -> Result<Target, Denial> {
    let uri = request.uri();
    match leads {
        // Behind a CONNECT a request is written as to the host itself.
        Leads::To(target) if uri.authority().is_none() && request.method() != Method::CONNECT => {
            Ok(target.clone())
        }
        Leads::To(_) => Err(Denial::NotForProxy),
        Leads::Anywhere => {
            if uri.scheme_str() != Some("http") {
                return Err(Denial::NotForProxy);
            }
            let authority = uri.authority().ok_or(Denial::NotForProxy)?;
            Target::parse(authority.as_str(), Some(HTTP_PORT)).ok_or(Denial::NotForProxy)
        }
    }
}

/// What is asked in clear there was meant to be asked in TLS, or is to look as if it was.
fn may_be_plain(target: &Target) -> Result<(), Denial> {
    if target.port() == HTTPS_PORT { Err(Denial::NotTls) } else { Ok(()) }
}

/// Whether there is one `Host` header, and it names the target.
fn host_matches(headers: &HeaderMap, target: &Target) -> Result<(), Denial> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Denial::HostMismatch);
    };
    let named = host.to_str().ok().and_then(|host| Target::parse(host, Some(HTTP_PORT)));
    if named.as_ref() == Some(target) { Ok(()) } else { Err(Denial::HostMismatch) }
}
