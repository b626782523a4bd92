//! Who asks, and what that token opens.
//!
//! [`guard`] stands before every path but the open ones. It knows the token; and where the path has
//! a `{collection}`, it turns the tokens of other collections away before anything is looked up, and
//! then looks the collection up, so that no handler can forget either.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Shared;
use super::error::ApiError;
use super::memory::Held;
use super::operator::ByOperator;
use crate::catalog::{Authentication, CatalogError, Collection, Scope};
use crate::run::Slug;

/// What a collection's token hears at another collection's door, whether that is there or not.
const FOREIGN: &str = "API key not valid for this collection";

/// Neither a key nor anything else that is known.
const NO_KEY: &str = "Invalid API key or JWT token";

/// It was meant to be a key.
const BAD_FORMAT: &str = "Invalid API key format";

/// A key that opens nothing.
const BAD_KEY: &str = "Invalid or inactive API key";

/// The database cannot tell.
const CANNOT_TELL: &str = "Authentication service temporarily unavailable";

/// What a key begins with.
const KEY_PREFIX: &str = "mlc_";

/// The path parameter that names whose things a path is about.
const COLLECTION: &str = "collection";

/// These paths have their own words for a collection that is not there.
const TASK_PATHS: &str = "/api/v1/tasks/";

/// Whoever sent the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What the token opens.
    pub scope: Scope,
    /// The token's name, which is no secret.
    pub token: String,
}

/// The collection that the path names, open to the caller.
#[derive(Debug, Clone)]
pub struct Tenant(pub Collection);

impl Caller {
    /// Whether this collection is open to the caller. Ask before anything of it is looked up, where
    /// the path has no `{collection}` for [`guard`] to see.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`], whether the collection is there or not.
    pub fn may(&self, collection: &str) -> Result<(), ApiError> {
        match &self.scope {
            Scope::Admin => Ok(()),
            // Names of collections are looked up without regard to case.
            Scope::Collection(own) if own.as_str().eq_ignore_ascii_case(collection) => Ok(()),
            Scope::Collection(_) => Err(ApiError::Forbidden(FOREIGN.to_owned())),
        }
    }

    /// Whether the caller may do what concerns all collections.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] for a collection's token.
    pub fn must_be_admin(&self) -> Result<(), ApiError> {
        match &self.scope {
            Scope::Admin => Ok(()),
            Scope::Collection(own) => Err(ApiError::Forbidden(format!(
                "This needs an admin token; this one is for the collection `{own}` alone"
            ))),
        }
    }

    /// What tells this token from all others: names are unique in a scope only.
    pub(super) fn key(&self) -> String {
        match &self.scope {
            Scope::Admin => format!("/{}", self.token),
            Scope::Collection(collection) => format!("{collection}/{}", self.token),
        }
    }

    /// The collection that the token stands for, where it stands for one.
    #[must_use]
    pub fn own_collection(&self) -> Option<&Slug> {
        match &self.scope {
            Scope::Admin => None,
            Scope::Collection(own) => Some(own),
        }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        // Before the open paths nobody stands, and their handlers do not ask.
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Unauthorized(NO_KEY))
    }
}

impl FromRequestParts<Shared> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            ApiError::internal("a handler asked for a collection", "its path has none")
        })
    }
}

/// Stands before every path that wants a token.
pub(super) async fn guard(
    State(api): State<Shared>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    let admitted = async {
        let caller = identify(&api, &head).await?;
        let tenant = tenant(&api, &caller, params, &head).await?;
        Ok::<_, ApiError>((caller, tenant))
    };
    match admitted.await {
        Ok((caller, tenant)) => {
            let held = Held::nothing(&api.memory, Some(&caller));
            head.extensions.insert(caller);
            head.extensions.insert(held.clone());
            if let Some(tenant) = tenant {
                head.extensions.insert(tenant);
            }
            let answer = next.run(Request::from_parts(head, body)).await;
            held.until_sent(answer)
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn identify(api: &Shared, head: &Parts) -> Result<Caller, ApiError> {
    if head.extensions.get::<ByOperator>().is_some() {
        return Ok(Caller { scope: Scope::Admin, token: "operator".to_owned() });
    }
    let text = bearer(&head.headers).ok_or(ApiError::Unauthorized(NO_KEY))?;
    match api.catalog.authenticate(text, (api.clock)()).await {
        Ok(Authentication::Accepted(token)) => Ok(Caller { scope: token.scope, token: token.name }),
        Ok(Authentication::Malformed) if text.starts_with(KEY_PREFIX) => {
            Err(ApiError::Unauthorized(BAD_FORMAT))
        }
        Ok(Authentication::Malformed) => Err(ApiError::Unauthorized(NO_KEY)),
        Ok(Authentication::Refused) => Err(ApiError::Unauthorized(BAD_KEY)),
        Err(error) => Err(ApiError::Unavailable {
            detail: CANNOT_TELL.to_owned(),
            source: Some(Box::new(error)),
        }),
    }
}

async fn tenant(
    api: &Shared,
    caller: &Caller,
    params: Result<RawPathParams, RawPathParamsRejection>,
    head: &Parts,
) -> Result<Option<Tenant>, ApiError> {
    // What is not text names nothing that is here.
    let params = params.map_err(|e| ApiError::NotFound(e.to_string()))?;
    let Some((_, name)) = params.iter().find(|(param, _)| *param == COLLECTION) else {
        return Ok(None);
    };
    caller.may(name)?;
    match api.catalog.collection(name).await {
        Ok(collection) => Ok(Some(Tenant(collection))),
        Err(CatalogError::NotFound { .. }) => Err(ApiError::NotFound(no_collection(name, head))),
        Err(error) => Err(error.into()),
    }
}

fn no_collection(name: &str, head: &Parts) -> String {
    let matched = head.extensions.get::<MatchedPath>();
    if matched.is_some_and(|path| path.as_str().starts_with(TASK_PATHS)) {
        format!("Collection with name '{name}' not found")
    } else {
        "Collection not found".to_owned()
    }
}

/// The token of the `Authorization` header, in the only scheme that is spoken here.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
