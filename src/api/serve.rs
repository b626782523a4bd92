//! Takes connections until it is told to stop, and lets what was asked be answered.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::serve::{Listener, ListenerExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::write_limit::WriteLimit;

/// From a connection's start, or its last answer, to the end of the next request's head. A client
/// that says nothing must not hold a place.
const HEAD_LIMIT: Duration = Duration::from_secs(60);

/// How long a client may take nothing of its answer. Followed runs send something more often.
const TAKE_LIMIT: Duration = Duration::from_secs(60);

/// How long requests may go on after the stop was asked for. Longer waits (a followed run) are cut:
/// their clients come again.
const ANSWER_GRACE: Duration = Duration::from_secs(10);

/// Serves until `shutdown` is cancelled, then ends gracefully: no new connection, no new request on
/// an old one, and a limited time for the answers that are on their way.
pub async fn serve(
    mut listener: impl Listener,
    router: Router,
    max_connections: usize,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        // A place first: what we cannot serve waits in the kernel's queue, which is bounded.
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place.expect("it is never closed"),
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            (stream, _) = listener.accept() => stream,
        };
        let served = connection(stream, router.clone(), shutdown.clone());
        connections.spawn(async move {
            served.await;
            drop(place);
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

/// The listener, with every answer sent at once: answers are small or streamed, never worth waiting
/// for more to send.
pub fn without_delay(listener: TcpListener) -> impl Listener {
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
