//! Chat requests that carry no runbook out.

use axum::response::Response;

use super::error::ChatError;
use super::request::ChatRequest;
use crate::api::Shared;
use crate::api::auth::Caller;
use crate::catalog::Collection;

/// Refuses a request without a runbook: this server asks no model for a client.
#[expect(clippy::unused_async, reason = "a request that is passed on waits for its answer")]
pub(super) async fn passthrough(
    _: Shared,
    _: Caller,
    _: Collection,
    _: ChatRequest,
) -> Result<Response, ChatError> {
    Err(ChatError::field(
        "jetty.runbook",
        "this server carries runbooks out and passes nothing on to a model: set it to `true` and \
         send the runbook as the system message",
    ))
}
