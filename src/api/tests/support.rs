//! An API on a real database and a real store in a temporary folder.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::api::{
    Api, ApiSettings, Chats, Followers, Readiness, Retries, RunParts, RunSettings, Shared, router,
};
use crate::catalog::{Catalog, Scope};
use crate::database::{Database, Vault};
use crate::guard::Guardrails;
use crate::intake::{Intake, IntakeSettings};
use crate::queue::Queue;
use crate::reach::{Documents, Reach};
use crate::records::Records;
use crate::run::{Networks, Slug};
use crate::secret::Secret;
use crate::snapshot::Snapshots;
use crate::spend::Spend;
use crate::store::Store;

/// More than any answer of the tests.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The collections that every bench has.
pub(super) const TEAM: &str = "team";
pub(super) const OTHER: &str = "other-team";

/// An API with two collections, a token for each, one for the first that opens nothing any more, and
/// an admin's.
pub(super) struct Bench {
    pub(super) api: Shared,
    pub(super) database: Database,
    pub(super) folder: tempfile::TempDir,
    pub(super) admin: Secret,
    pub(super) team: Secret,
    pub(super) other: Secret,
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

/// How long `run-sync` waits here.
const SYNC_WAIT: Duration = Duration::from_secs(5);

/// 2026-01-01T00:00:00Z, so that whole answers can be compared.
pub(super) fn new_year() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn intake_settings() -> IntakeSettings {
    IntakeSettings {
        networks: Networks::default(),
        images: crate::run::ImageRules::all(),
        max_attempts: 3,
        min_free_disk_bytes: 0,
        allowance: crate::run::Allowance::default(),
        upstream_reach: Reach::Public,
        provider_tools: [].into(),
        guard: Guardrails::default(),
        webhook_reach: Reach::Public,
        shared_keys: None,
        snapshots: Snapshots::built_in(),
    }
}

impl Bench {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("runbookd.db")).await.unwrap();
        let vault = Arc::new(Vault::load(&folder.path().join("vault.key")).unwrap());
        let catalog = Catalog::new(database.clone(), Arc::clone(&vault));
        for name in [TEAM, OTHER] {
            catalog.create_collection(name, None, new_year()).await.unwrap();
        }
        let token =
            async |scope| catalog.create_token(&scope, "made up", new_year()).await.unwrap().1;
        let of = |name: &str| Scope::Collection(Slug::new(name).unwrap());
        let (admin, team, other) =
            (token(Scope::Admin).await, token(of(TEAM)).await, token(of(OTHER)).await);
        let readiness = Arc::<Readiness>::default();
        readiness.engine_is(true);
        let queue = Queue::new(database.clone());
        let store = Store::open(&folder.path().join("results")).unwrap();
        let intake = Intake {
            catalog: catalog.clone(),
            queue: queue.clone(),
            store: store.clone(),
            vault,
            spend: Spend::open(&folder.path().join(Spend::FILE)).await.unwrap(),
            settings: intake_settings(),
            tasks: TaskTracker::new(),
        };
        let api = Api {
            runs: RunParts {
                intake,
                records: Records::new(queue.clone(), store.clone()),
                followers: Followers::new(3),
                retries: Retries::default(),
                documents: Documents::new(Reach::Public),
                settings: RunSettings { max_upload_bytes: 4 << 20, sync_wait: SYNC_WAIT },
            },
            catalog,
            queue,
            store,
            clock: new_year,
            chats: Chats::new(Reach::Private),
            readiness,
            settings: ApiSettings {
                max_json_bytes: 64 << 10,
                answer_limit: Duration::from_secs(30),
                min_free_disk_bytes: 0,
            },
            memory: Arc::default(),
        };
        Self { api: Arc::new(api), database, folder, admin, team, other }
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

    /// The bytes of an answer that is no text.
    pub(super) async fn send_bytes(&self, request: Request<Body>) -> Vec<u8> {
        let response = self.router().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        to_bytes(response.into_body(), MAX_ANSWER_BYTES).await.unwrap().to_vec()
    }

    /// Asks without a token.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Asks with a token.
    pub(super) async fn ask(&self, token: &Secret, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", token.expose()))
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()));
        self.send(request.unwrap()).await
    }

    /// Asks one after the other and writes down what was answered: `METHOD path body` a line.
    pub(super) async fn transcript(&self, token: &Secret, requests: &str) -> String {
        let mut told = String::new();
        for line in requests.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let answer = self.ask(token, method, path, words.next().unwrap_or("")).await;
            assert_eq!(answer.header("content-type"), "application/json", "{line}");
            writeln!(told, "{line}\n  {} {}", answer.status, answer.text).unwrap();
        }
        told
    }
}
