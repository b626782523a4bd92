//! Answers to paths and methods that are not there. They say what is.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::Method;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::PathItem;

use super::error::ApiError;

/// Where a client finds every path.
const WHERE_ALL_IS: &str = "`GET /openapi.json` lists everything";

/// Every path that is there, with its methods.
#[derive(Debug, Clone)]
pub(super) struct Known(Arc<Vec<(String, Vec<&'static str>)>>);

impl Known {
    pub(super) fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter();
        Self(Arc::new(paths.map(|(path, item)| (path.clone(), methods(item))).collect()))
    }

    /// The answer for a path that is not there.
    pub(super) fn no_path(&self, request: &Request) -> ApiError {
        let path = request.uri().path();
        let group = group(path);
        let near: Vec<String> = self
            .0
            .iter()
            .filter(|(known, _)| group.is_some() && self::group(known) == group)
            .map(|(known, methods)| format!("{} {known}", methods.join("|")))
            .collect();
        let there = if near.is_empty() {
            let groups: BTreeSet<&str> =
                self.0.iter().filter_map(|(known, _)| self::group(known)).collect();
            let groups: Vec<&str> = groups.into_iter().collect();
            format!("below /api/v1/ there are {}", groups.join(", "))
        } else {
            format!("there are {}", near.join(", "))
        };
        ApiError::NotFound(format!(
            "There is no {} {path}: {there}; {WHERE_ALL_IS}",
            request.method()
        ))
    }

    /// The answer for a method that a path does not have.
    pub(super) fn no_method(&self, matched: &str, method: &Method) -> ApiError {
        let known = self.0.iter().find(|(known, _)| known == matched);
        let allow = known.map_or_else(String::new, |(_, methods)| methods.join(", "));
        let detail = format!("There is no {method} {matched}: use {allow}; {WHERE_ALL_IS}");
        ApiError::MethodNotAllowed { detail, allow }
    }
}

/// What a path is about: the segment after `/api/v1/`.
fn group(path: &str) -> Option<&str> {
    path.strip_prefix("/api/v1/")?.split('/').next().filter(|group| !group.is_empty())
}

fn methods(item: &PathItem) -> Vec<&'static str> {
    [
        ("GET", item.get.is_some()),
        ("POST", item.post.is_some()),
        ("PUT", item.put.is_some()),
        ("PATCH", item.patch.is_some()),
        ("DELETE", item.delete.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| is_there.then_some(name))
    .collect()
}
