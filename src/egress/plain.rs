//! A plain request: passed on by a connection of its own, and its answer back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HOST, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response, Uri, Version};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};

use super::dial;
use super::meter::{Attempt, IDLE_LIMIT, Meter, Way};
use super::policy::Denial;
use super::refusal::Refusal;
use super::server::Gate;
use super::target::Target;

/// How long a host may take for the head of its answer, its request's body included.
const ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Headers that speak of one connection and not of the request.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Another of them, by a name that no standard has.
const PROXY_CONNECTION: &str = "proxy-connection";

/// A connection to a host; `None` once it has ended.
type Connection = Option<http1::Connection<TokioIo<TcpStream>, Metered>>;

/// Passes a plain request on.
pub(super) async fn pass(
    gate: &Arc<Gate>,
    request: Request<Incoming>,
    target: &Target,
    mut attempt: Attempt,
) -> Response<Body> {
    match answer(gate, request, target, &mut attempt).await {
        Ok((answer, connection)) => {
            attempt.answers(answer.status());
            let (mut head, body) = answer.into_parts();
            strip(&mut head.headers);
            head.version = Version::HTTP_11;
            let meter = attempt.meter();
            let body = Answer { body: Metered::new(body, meter, Way::Down), connection, attempt };
            Response::from_parts(head, Body::new(body))
        }
        Err(refusal) => attempt.refuse(&refusal),
    }
}

async fn answer(
    gate: &Gate,
    request: Request<Incoming>,
    target: &Target,
    attempt: &mut Attempt,
) -> Result<(Response<Incoming>, Connection), Refusal> {
    let addresses = &mut attempt.record().addresses;
    let grant = dial::checked(&gate.policy, &gate.resolver, target, addresses).await?;
    let stream = dial::connect(&gate.policy, addresses, target.port()).await?;
    attempt.goes_on(&grant);
    let unreachable = |e: hyper::Error| Refusal::Unreachable(e.to_string());
    let shaken = http1::handshake::<_, Metered>(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(unreachable)?;
    let mut connection = Some(connection);
    let request = passed_on(request, target, attempt.meter());
    let asking = async {
        let sent = sender.send_request(request);
        let mut sent = std::pin::pin!(sent);
        tokio::select! {
            biased;
            answer = sent.as_mut() => answer,
            // The host has closed it; what it said before is here already.
            () = ended(&mut connection) => sent.await,
        }
    };
    let answer = timeout(ANSWER_LIMIT, asking).await.map_err(|_| Refusal::Silent)?;
    Ok((answer.map_err(unreachable)?, connection))
}

/// Drives a connection to its end.
async fn ended(connection: &mut Connection) {
    if let Some(running) = connection {
        // How it ended is told by what is asked on it.
        let _ = running.await;
    }
    *connection = None;
}

/// The request as the host gets it: written to itself, without what was meant for the proxy.
fn passed_on(request: Request<Incoming>, target: &Target, meter: Arc<Meter>) -> Request<Metered> {
    let (mut head, body) = request.into_parts();
    strip(&mut head.headers);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // A path that was read once is one.
    head.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    head.version = Version::HTTP_11;
    let host = match target.port() {
        80 => target.host().to_owned(),
        port => format!("{}:{port}", target.host()),
    };
    if let Ok(host) = HeaderValue::from_str(&host) {
        head.headers.insert(HOST, host);
    }
    // One request, one connection.
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Request::from_parts(head, Metered::new(body, meter, Way::Up))
}

/// Removes what speaks of one connection, and what that says is another of these.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = (headers.get_all(header::CONNECTION).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Without it the body's end would be another than the one that was read.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(PROXY_CONNECTION);
}

/// A body whose bytes are counted, and that ends when nothing comes for too long.
struct Metered {
    body: Incoming,
    meter: Arc<Meter>,
    way: Way,
    silence: Pin<Box<Sleep>>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    #[error("nothing came for too long")]
    Silent,
    #[error("this run has moved too many bytes")]
    TooMuch,
}

impl Metered {
    fn new(body: Incoming, meter: Arc<Meter>, way: Way) -> Self {
        Self { body, meter, way, silence: Box::pin(tokio::time::sleep(IDLE_LIMIT)) }
    }
}

impl hyper::body::Body for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.silence.as_mut().poll(cx));
            return Poll::Ready(Some(Err(BodyError::Silent)));
        };
        self.silence = Box::pin(tokio::time::sleep(IDLE_LIMIT));
        let n = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        if n > 0 && !self.meter.count(self.way, n) {
            return Poll::Ready(Some(Err(BodyError::TooMuch)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer on its way back, with the connection that it comes from.
struct Answer {
    body: Metered,
    connection: Connection,
    attempt: Attempt,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(connection) = &mut this.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            this.connection = None;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Err(e)) = &frame {
            match e {
                BodyError::TooMuch => this.attempt.is_denied(Denial::TooMany),
                BodyError::Broken(_) | BodyError::Silent => this.attempt.breaks(e.to_string()),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
