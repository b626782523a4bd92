//! The endpoints whose answers need no turn of the script: lists of models, token counts, a page.

use serde_json::{Value, json};

use super::reply::Reply;
use super::route::Wire;
use super::script::Script;

/// Bytes of a request that count as one token where tokens are counted.
const BYTES_PER_TOKEN: usize = 4;

/// Date of the models that are listed. It is part of the format and means nothing here.
const MODEL_DATE: &str = "2026-01-01T00:00:00Z";

/// The model that is listed where the script names none.
const DEFAULT_MODEL: &str = "claude-sonnet-4-6";

/// The access token that is given for every claim.
const MINTED_TOKEN: &str = "ya29.made-up-and-minted";

/// How long Google's tokens are good.
const TOKEN_SECONDS: u32 = 3_599;

/// What a web site shows where it has no page. A client of an API meets it when its base URL is
/// wrong.
const NO_PAGE: &str = "<!DOCTYPE html><html lang=\"en\"><head><title>404</title></head>\
    <body><h1>This page could not be found.</h1></body></html>\n";

/// The models of a wire.
pub(super) fn models(wire: Wire, script: &Script) -> Reply {
    match wire {
        Wire::Anthropic | Wire::OpenRouter | Wire::Vertex => Reply::json(200, &model_list(script)),
        // The agent CLI looks here for names of its own models, and does without.
        Wire::Bedrock => Reply::json(200, &json!({ "inferenceProfileSummaries": [] })),
    }
}

fn model_list(script: &Script) -> Value {
    let id = script.model().unwrap_or(DEFAULT_MODEL);
    json!({
        "data": [{ "type": "model", "id": id, "display_name": id, "created_at": MODEL_DATE }],
        "has_more": false,
        "first_id": id,
        "last_id": id,
    })
}

/// How many tokens a request of `n_bytes` would have.
pub(super) fn token_count(wire: Wire, n_bytes: usize) -> Reply {
    let n_tokens = (n_bytes / BYTES_PER_TOKEN).max(1);
    let count = match wire {
        Wire::Anthropic | Wire::OpenRouter | Wire::Vertex => json!({ "input_tokens": n_tokens }),
        Wire::Bedrock => json!({ "inputTokens": n_tokens }),
    };
    Reply::json(200, &count)
}

/// The page of a web site that has no such page.
pub(super) fn no_page() -> Reply {
    Reply::whole(404, "text/html; charset=utf-8", NO_PAGE)
}

/// Whether a form holds a claim with its three parts (RFC 7523). The signature is not looked at.
pub(super) fn is_claim(body: &[u8]) -> bool {
    let fields: Vec<_> = url::form_urlencoded::parse(body).collect();
    let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value);
    let grant = field("grant_type").is_some_and(|grant| grant.ends_with(":jwt-bearer"));
    grant && field("assertion").is_some_and(|claim| claim.split('.').count() == 3)
}

/// An access token as Google gives one. It means nothing.
pub(super) fn token() -> Reply {
    let token = json!({
        "access_token": MINTED_TOKEN, "expires_in": TOKEN_SECONDS, "token_type": "Bearer",
    });
    Reply::json(200, &token)
}
