//! Takes connections until it is told to stop, and lets what was asked be answered.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::serve::{Listener, ListenerExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::shares::Shares;
use super::write_limit::WriteLimit;

/// From a connection's start, or its last answer, to the end of the next request's head. A client
/// that says nothing must not hold a place.
const HEAD_LIMIT: Duration = Duration::from_secs(60);

/// How long a client may take nothing of its answer. Followed runs send something more often.
const TAKE_LIMIT: Duration = Duration::from_secs(60);

/// How long requests may go on after the stop was asked for. Longer waits (a followed run) are cut:
/// their clients come again.
const ANSWER_GRACE: Duration = Duration::from_secs(10);

/// How long a client that has too many connections may take for hearing it.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// Clients that are told so at the same time. They must not take the places of others.
const MAX_REFUSALS: usize = 32;

/// What such a client hears. It is said before anything of its request is read.
const REFUSAL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
    retry-after: 10\r\nconnection: close\r\ncontent-length: 96\r\n\r\n\
    {\"detail\":\"Too many connections from this address: close some, or use one for several requests\"}";

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// At the same time.
    pub max: usize,
    /// Of them from one address. This machine has no such limit: a proxy on it speaks for everybody.
    pub max_per_address: usize,
}

/// Where a connection comes from.
pub trait Peer {
    /// What counts as one address; `None` for this machine.
    fn place(&self) -> Option<IpAddr>;
}

impl Peer for SocketAddr {
    fn place(&self) -> Option<IpAddr> {
        match self.ip().to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => Some(IpAddr::V4(ip)),
            // Whoever has one of these addresses has all that begin with the same 64 bits.
            IpAddr::V6(ip) => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                Some(IpAddr::V6(network.into()))
            }
        }
    }
}

impl Peer for tokio::net::unix::SocketAddr {
    fn place(&self) -> Option<IpAddr> {
        None
    }
}

/// Serves until `shutdown` is cancelled, then ends gracefully: no new connection, no new request on
/// an old one, and a limited time for the answers that are on their way.
pub async fn serve<L: Listener<Addr: Peer>>(
    mut listener: L,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.max));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let addresses = Shares::new(limits.max_per_address);
    let mut connections = JoinSet::new();
    loop {
        // A place first: what we cannot serve waits in the kernel's queue, which is bounded.
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place.expect("it is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let of_address = peer.place().map(|address| addresses.take(address, 1));
        if let Some(None) = of_address {
            drop(place);
            // Whoever comes faster than this hears nothing.
            if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                connections.spawn(async move {
                    refuse(stream).await;
                    drop(place);
                });
            }
            continue;
        }
        let served = connection(stream, router.clone(), shutdown.clone());
        connections.spawn(async move {
            served.await;
            drop((place, of_address));
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let all_answered = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(ANSWER_GRACE, all_answered).await.is_err() {
        tracing::info!(n_connections = connections.len(), "cut the connections that were left");
        connections.shutdown().await;
    }
}

/// Tells a client that it has too many connections.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let told = async {
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        // What it sent is taken first: else the end of the connection would take the answer back.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    if !matches!(tokio::time::timeout(REFUSAL_LIMIT, told).await, Ok(Ok(_))) {
        tracing::debug!("a client with too many connections did not hear so");
    }
}

/// The listener, with every answer sent at once: answers are small or streamed, never worth waiting
/// for more to send.
pub fn without_delay(listener: TcpListener) -> impl Listener<Addr = SocketAddr> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "a connection sends with delay");
        }
    })
}

fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            Ok::<_, Infallible>(response)
        }
    });
    async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(WriteLimit::new(stream, TAKE_LIMIT)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // The client went away, or never spoke HTTP. Nobody has to act.
            tracing::debug!(error = %error, "a connection broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;

    /// A listener whose clients all come from one address elsewhere.
    struct Elsewhere(TcpListener);

    impl Listener for Elsewhere {
        type Io = TcpStream;
        type Addr = SocketAddr;

        async fn accept(&mut self) -> (TcpStream, SocketAddr) {
            let (stream, _) = self.0.accept().await.unwrap();
            (stream, "192.0.2.7:1".parse().unwrap())
        }

        fn local_addr(&self) -> std::io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let n_bytes = stream.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..n_bytes].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_address_has_so_many_connections_and_hears_why_there_are_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "served"));
        let shutdown = CancellationToken::new();
        let limits = ConnectionLimits { max: 10, max_per_address: 2 };
        let served = serve(Elsewhere(listener), router, limits, shutdown.clone());
        let asked = async {
            let mut open = Vec::new();
            for _ in 0..2 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                assert!(ask(&mut stream).await.ends_with("served"));
                open.push(stream);
            }
            let mut third = TcpStream::connect(address).await.unwrap();
            let refused = ask(&mut third).await;
            assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
            let (head, body) = refused.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{refused}");
            drop(open);
            // The places are free as soon as the server has seen that they were left.
            while !ask(&mut TcpStream::connect(address).await.unwrap()).await.ends_with("served") {}
            shutdown.cancel();
        };
        tokio::join!(served, asked);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_this_machine_is_none() {
        let place = |address: &str| address.parse::<SocketAddr>().unwrap().place();
        for own in ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(place(own), None, "{own}");
        }
        assert_eq!(place("[2001:db8::1]:1"), place("[2001:db8::ffff:1]:2"));
        assert_ne!(place("[2001:db8::1]:1"), place("[2001:db8:0:1::1]:1"));
        assert_eq!(place("[::ffff:192.0.2.1]:1"), place("192.0.2.1:2"));
    }
}
