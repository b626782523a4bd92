//! The longest that an ordinary answer may take.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Shared;
use super::error::ApiError;

/// Gives a request up that takes too long. What it had begun to write is written whole or not at all:
/// a transaction ends with the connection that carries it.
pub(super) async fn enforce(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let limit = api.settings.answer_limit;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooSlow(format!(
            "The answer took longer than {} s and was given up; ask again",
            limit.as_secs()
        ))
        .into_response(),
    }
}
