//! Who asks, and what that token opens.
//!
//! A path with a `{collection}` is closed to the tokens of other collections before its handler is
//! asked; a handler whose request names the collection elsewhere asks [`Caller::may`] first.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Shared;
use super::error::ApiError;

/// What a collection's token hears at another collection's door.
const FOREIGN: &str = "API key not valid for this collection";

/// Neither a key nor anything else that is known.
const NO_KEY: &str = "Invalid API key or JWT token";

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// One collection, by its name.
    Collection(String),
}

/// Whoever sent the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What the token opens.
    pub scope: Scope,
    /// The token's name, which is no secret.
    pub token: String,
}

impl Caller {
    /// Whether this collection is open to the caller. Ask before anything of it is looked up.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`], whether the collection is there or not.
    pub fn may(&self, collection: &str) -> Result<(), ApiError> {
        match &self.scope {
            Scope::Admin => Ok(()),
            // Names of collections are looked up without regard to case.
            Scope::Collection(own) if own.eq_ignore_ascii_case(collection) => Ok(()),
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

    /// The collection that the token stands for, where it stands for one.
    #[must_use]
    pub fn own_collection(&self) -> Option<&str> {
        match &self.scope {
            Scope::Admin => None,
            Scope::Collection(own) => Some(own),
        }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        // Only behind the open paths nobody stands, and their handlers do not ask.
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Unauthorized(NO_KEY))
    }
}
