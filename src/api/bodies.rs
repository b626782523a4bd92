//! The bodies of requests as the description shows them. The handlers read them field by field, so
//! that everything that is wrong with one is told at once.
#![expect(dead_code, reason = "they describe what is read field by field")]

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A collection to make.
#[derive(Debug, ToSchema)]
pub(super) struct NewCollection {
    name: String,
    description: Option<String>,
    /// Names and values for the runs of the collection.
    environment_variables: Option<BTreeMap<String, Option<String>>>,
}

/// An API key to make: for a collection, or with the scope `admin`.
#[derive(Debug, ToSchema)]
pub(super) struct NewApiKey {
    name: String,
    collection_name: Option<String>,
    /// `collection` or `admin`.
    scope: Option<String>,
}

/// A task to make. Whatever else a client sends is left alone.
#[derive(Debug, ToSchema)]
pub(super) struct NewTaskBody {
    name: String,
    /// `init_params`, `step_configs`, `steps`.
    workflow: Map<String, Value>,
    description: Option<String>,
    version: Option<String>,
    is_private: Option<bool>,
    is_chat_flow: Option<bool>,
    has_file_uploads: Option<bool>,
    croissant_metadata: Option<Map<String, Value>>,
}

/// A routine to make.
#[derive(Debug, ToSchema)]
pub(super) struct NewRoutineBody {
    name: String,
    /// `type`, and what that type needs.
    cadence: Map<String, Value>,
    /// Only keys that the task declares.
    init_params_overrides: Option<Map<String, Value>>,
    secret_params: Option<BTreeMap<String, String>>,
    paused: Option<bool>,
    webhook_url: Option<String>,
    webhook_secret: Option<String>,
}
