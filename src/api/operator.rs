//! The door for whoever owns this machine: the same API without a token, in this process or over a
//! socket that only the owner of the server's folder can open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use axum::{Extension, Router};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tower::ServiceExt as _;

use super::{BoxError, Shared, router};

/// Longest wait for the server's answer. It is on this machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Largest answer that is read, in bytes: a list of tokens.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Marks a request that came through this door. No header can make it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByOperator;

/// The API behind the operator's door.
pub fn operator_router(api: Shared) -> Router {
    router(api).layer(Extension(ByOperator))
}

/// How the operator reaches the API.
#[derive(Debug)]
pub enum OperatorDoor {
    /// In this process: no server is up.
    Here(Shared),
    /// Over the socket of the server that is up.
    Socket(PathBuf),
}

/// What the API answered.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorReply {
    /// Whether it did what was asked.
    pub is_success: bool,
    /// The answer.
    pub body: Value,
}

/// The API could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The server's socket could not be opened.
    #[error("could not reach the server at `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The request could not be written down.
    #[error("could not ask for `{path}`")]
    Request {
        /// The path of the API.
        path: String,
        /// Why.
        source: axum::http::Error,
    },
    /// The server did not answer as it should.
    #[error("could not read the server's answer")]
    Answer(#[source] BoxError),
    /// The server did not answer in time.
    #[error("the server did not answer within {limit_s} s")]
    Silence {
        /// The limit, in seconds.
        limit_s: u64,
    },
}

impl OperatorDoor {
    /// Asks the API. The path is one of its own, with encoded segments.
    ///
    /// # Errors
    /// When no answer came; a refusal is an answer.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<OperatorReply, OperatorError> {
        let wrong = |source| OperatorError::Request { path: path.to_owned(), source };
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| wrong(e.into()))?;
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "runbookd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(wrong)?;
        let answered = async {
            match self {
                Self::Here(api) => {
                    let Ok(response) = operator_router(Arc::clone(api)).oneshot(request).await;
                    read(response).await
                }
                Self::Socket(socket) => over_socket(socket, request).await,
            }
        };
        tokio::time::timeout(ANSWER_LIMIT, answered)
            .await
            .unwrap_or(Err(OperatorError::Silence { limit_s: ANSWER_LIMIT.as_secs() }))
    }
}

async fn over_socket(
    socket: &Path,
    request: Request<Body>,
) -> Result<OperatorReply, OperatorError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| OperatorError::Connect { path: socket.to_owned(), source })?;
    let broken = |e: hyper::Error| OperatorError::Answer(e.into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(response.map(Body::new)).await
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        reply = exchange.as_mut() => reply,
        // The connection may be done a moment before its answer was read.
        _ = connection.as_mut() => exchange.await,
    }
}

async fn read(response: Response<Body>) -> Result<OperatorReply, OperatorError> {
    let is_success = response.status().is_success();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let bytes = body.map_err(OperatorError::Answer)?.to_bytes();
    let body = serde_json::from_slice(&bytes).map_err(|e| OperatorError::Answer(e.into()))?;
    Ok(OperatorReply { is_success, body })
}
