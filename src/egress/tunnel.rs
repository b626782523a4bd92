//! What comes behind a CONNECT: TLS whose greeting names the same host, HTTP that is judged request
//! by request, or, on a port that somebody named, anything.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::dial;
use super::hello::{ACCESS_DENIED, Hello, read_hello};
use super::meter::{Attempt, Meter, Way};
use super::policy::{Denial, Grant};
use super::refusal::Refusal;
use super::request;
use super::server::Gate;
use super::target::{HTTPS_PORT, Target};
use crate::run::{WEB_PORTS, one_spelling};

/// How long the client's side may take to become a tunnel. Its answer has just gone.
const UPGRADE_LIMIT: Duration = Duration::from_secs(30);

/// How much goes at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// A CONNECT that was let through.
pub(super) struct Tunnel {
    pub(super) upgrade: OnUpgrade,
    pub(super) upstream: TcpStream,
    pub(super) target: Target,
    pub(super) grant: Grant,
    pub(super) attempt: Attempt,
}

/// The client's side, from its first byte.
type Client = (ReadHalf<TokioIo<Upgraded>>, WriteHalf<TokioIo<Upgraded>>);

/// Connects to what a CONNECT names.
pub(super) async fn open(
    gate: &Gate,
    target: Target,
    attempt: &mut Attempt,
) -> Result<(TcpStream, Target, Grant), Refusal> {
    let addresses = &mut attempt.record().addresses;
    let grant = dial::checked(&gate.policy, &gate.resolver, &target, addresses).await?;
    if let Some(address) = target.literal()
        && target.port() == HTTPS_PORT
        && !gate.policy.admits_tls_to(&grant, address, target.port())
    {
        return Err(Denial::TlsToAddress.into());
    }
    let upstream = dial::connect(&gate.policy, addresses, target.port()).await?;
    attempt.goes_on(&grant);
    attempt.answers(axum::http::StatusCode::OK);
    Ok((upstream, target, grant))
}

/// Passes on what comes, until one side has had enough.
pub(super) async fn pass(tunnel: Tunnel, gate: Arc<Gate>, stop: CancellationToken) {
    let Tunnel { upgrade, mut upstream, target, grant, mut attempt } = tunnel;
    let Ok(Ok(upgraded)) = timeout(UPGRADE_LIMIT, upgrade).await else {
        attempt.breaks("the client went away".to_owned());
        return;
    };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(upgraded));
    let mut bytes = Vec::new();
    let hello = {
        let read = read_hello(&mut from_client, &mut bytes);
        let may_listen = !WEB_PORTS.contains(&target.port());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            read = read => read,
            // Where the other side speaks first there is no greeting to wait for.
            _ = upstream.readable(), if may_listen => Ok(Hello::Nothing),
        }
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(e) => return attempt.breaks(e.to_string()),
    };
    match judge(&gate, (&target, &grant), &hello) {
        Passage::Open => {
            let head = attempt.meter().count(Way::Up, bytes.len());
            if head && upstream.write_all(&bytes).await.is_ok() {
                both_ways((from_client, to_client), upstream, &mut attempt, &stop).await;
            }
        }
        Passage::Http => {
            // Each request is an attempt of its own, with a connection of its own.
            drop((upstream, attempt));
            let from_client = Cursor::new(bytes).chain(from_client);
            let stream = TokioIo::new(tokio::io::join(from_client, to_client));
            request::serve_behind(stream, (gate, target), stop).await;
        }
        Passage::Denied(denial) => {
            attempt.is_denied(denial);
            if matches!(hello, Hello::Tls(_) | Hello::BrokenTls) {
                let _ = to_client.write_all(&ACCESS_DENIED).await;
            }
            let _ = to_client.shutdown().await;
        }
    }
}

/// What may become of a tunnel.
enum Passage {
    Open,
    Http,
    Denied(Denial),
}

fn judge(gate: &Gate, (target, grant): (&Target, &Grant), hello: &Hello) -> Passage {
    let port = target.port();
    match hello {
        Hello::Tls(Some(name)) if one_spelling(name).as_deref() == Some(target.host()) => {
            Passage::Open
        }
        // To an address no name is sent.
        Hello::Tls(None) => match target.literal() {
            Some(address) if gate.policy.admits_tls_to(grant, address, port) => Passage::Open,
            Some(_) => Passage::Denied(Denial::TlsToAddress),
            None => Passage::Denied(Denial::SniMismatch),
        },
        Hello::Tls(Some(_)) => Passage::Denied(Denial::SniMismatch),
        Hello::BrokenTls => Passage::Denied(Denial::NotTls),
        Hello::Http if port == HTTPS_PORT => Passage::Denied(Denial::NotTls),
        Hello::Http => Passage::Http,
        Hello::Other | Hello::Nothing if port == HTTPS_PORT => Passage::Denied(Denial::NotTls),
        Hello::Other | Hello::Nothing if WEB_PORTS.contains(&port) => {
            Passage::Denied(Denial::NotWeb)
        }
        Hello::Other | Hello::Nothing => Passage::Open,
    }
}

async fn both_ways(
    (from_client, to_client): Client,
    mut upstream: TcpStream,
    attempt: &mut Attempt,
    stop: &CancellationToken,
) {
    let meter = attempt.meter();
    let (from_host, to_host) = upstream.split();
    let up = pump(from_client, to_host, (&meter, Way::Up));
    let down = pump(from_host, to_client, (&meter, Way::Down));
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        ended = async { tokio::try_join!(up, down) } => ended,
        () = meter.idle() => Err(PumpError::Silent),
    };
    match ended {
        // Many clients do not say goodbye.
        Ok(_) | Err(PumpError::Broken(_)) => {}
        Err(PumpError::TooMuch) => attempt.is_denied(Denial::TooMany),
        Err(e @ PumpError::Silent) => attempt.breaks(e.to_string()),
    }
}

/// Why a direction ended early.
#[derive(Debug, thiserror::Error)]
enum PumpError {
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("nothing passed for too long")]
    Silent,
    #[error("this run has moved too many bytes")]
    TooMuch,
}

/// One direction, to its end.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (meter, way): (&Meter, Way),
) -> Result<(), PumpError> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let n = from.read(&mut piece).await?;
        let Some(read) = piece.get(..n).filter(|read| !read.is_empty()) else {
            return Ok(to.shutdown().await?);
        };
        to.write_all(read).await?;
        if !meter.count(way, n) {
            return Err(PumpError::TooMuch);
        }
    }
}
