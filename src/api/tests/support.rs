//! An API on a real database and a real store in a temporary folder.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use jiff::Timestamp;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::api::{Api, ApiSettings, Readiness, Shared, router};
use crate::store::Store;

/// More than any answer of the tests.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// An API and the folder that it lives in.
pub(super) struct Bench {
    pub(super) api: Shared,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// 2026-01-01T00:00:00Z, so that whole answers can be compared.
pub(super) fn noon() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

impl Bench {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let readiness = Arc::new(Readiness::default());
        readiness.engine_is(true);
        let api = Api {
            store: Store::open(&folder.path().join("results")).unwrap(),
            clock: noon,
            readiness,
            settings: ApiSettings {
                max_json_bytes: 64 << 10,
                answer_limit: Duration::from_secs(30),
                min_free_disk_bytes: 0,
            },
        };
        Self { api: Arc::new(api), _folder: folder }
    }

    pub(super) fn router(&self) -> Router {
        router(Arc::clone(&self.api))
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, MAX_ANSWER_BYTES).await.unwrap();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}
