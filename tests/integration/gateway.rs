//! The gateway as a process: what it does without its server, and how it ends.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runbookd::gateway::{Contact, GatewayOrder, LaunchError, Place, Program, Who};
use runbookd::guard::Guardrails;
use runbookd::provider::{Credential, Route, Wire};
use runbookd::reach::Reach;
use runbookd::secret::Secret;
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::{gateway, processes_with};

/// Longer than a gateway takes to start or to end on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const RUN: &str = "team/story/0123abcd";
const KEY: &str = "sk-ant-made-up-and-real";

/// A folder where a gateway can serve.
struct Scene {
    folder: tempfile::TempDir,
    place: Place,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Deeper than the path of a socket may be.
        let deep = folder.path().join("a".repeat(120)).join("models");
        std::fs::create_dir_all(&deep).unwrap();
        let place = Place::new(deep.join("0123abcd-1"));
        place.make().unwrap();
        Self { folder, place }
    }

    fn order(&self, lifetime: Duration) -> GatewayOrder {
        let lifetime = SignedDuration::try_from(lifetime).unwrap();
        GatewayOrder {
            purse: None,
            run: RUN.to_owned(),
            route: Route {
                upstream: "http://127.0.0.1:9".to_owned(),
                control: None,
                credential: Credential::ApiKey(Secret::new(KEY.to_owned())),
                wire: Wire::Messages,
                vertex: None,
            },
            token: Secret::new("sk-ant-made-up-token".to_owned()),
            guard: Guardrails::default(),
            secrets: Vec::new(),
            reach: Reach::Private,
            provider_tools: [].into(),
            ledger: self.ledger(),
            last_seq: 0,
            egress: None,
            deadline: Timestamp::now() + lifetime,
            log_filter: None,
        }
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("gateway.jsonl")
    }

    async fn start(&self) -> Child {
        gateway().start(&self.order(SOON * 10), &self.place).await.unwrap()
    }

    fn processes(&self) -> Vec<String> {
        processes_with(self.folder.path().to_str().unwrap())
    }
}

async fn ends(mut child: Child) -> Option<i32> {
    timeout(SOON, child.wait()).await.expect("it ends").unwrap().code()
}

#[tokio::test]
async fn a_gateway_says_who_it_is_and_ends_when_it_is_told() {
    let scene = Scene::new();
    let child = scene.start().await;
    let pid = child.id().unwrap();
    let mut contact = Contact::open(&scene.place).await.unwrap().expect("it serves");
    let who = contact.who().await.unwrap();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    assert_eq!(who, Who { control: 1, run: RUN.to_owned(), pid, version });
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ"));
    // Who is not root may not even look.
    assert_eq!(environment.unwrap_or_default(), "", "it has nothing of ours");
    contact.end().await;
    assert_eq!(ends(child).await, Some(0));
    assert!(Contact::open(&scene.place).await.unwrap().is_none());
    assert!(scene.ledger().is_file());
}

#[tokio::test]
async fn a_place_has_one_gateway_and_the_next_one_takes_it_over() {
    let scene = Scene::new();
    let first = scene.start().await;
    let second = gateway().start(&scene.order(SOON), &scene.place).await;
    assert!(matches!(second, Err(LaunchError::Busy)), "{second:?}");
    Contact::open(&scene.place).await.unwrap().unwrap().abort().await;
    assert_eq!(ends(first).await, Some(0));
    let third = scene.start().await;
    Contact::open(&scene.place).await.unwrap().unwrap().end().await;
    assert_eq!(ends(third).await, Some(0));
}

#[tokio::test]
async fn a_gateway_that_hangs_is_killed() {
    let scene = Scene::new();
    let child = scene.start().await;
    let contact = Contact::open(&scene.place).await.unwrap().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    contact.abort().await;
    assert_eq!(ends(child).await, None);
    assert_eq!(scene.processes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_gateway_that_everybody_forgot_ends_at_its_deadline() {
    let scene = Scene::new();
    let child = gateway().start(&scene.order(Duration::from_secs(1)), &scene.place).await.unwrap();
    assert_eq!(ends(child).await, Some(0));
    let log = std::fs::read_to_string(scene.place.log()).unwrap();
    assert!(log.contains("deadline"), "{log}");
}

#[tokio::test]
async fn a_gateway_whose_folder_is_gone_ends() {
    let scene = Scene::new();
    let child = scene.start().await;
    scene.place.remove().unwrap();
    assert_eq!(ends(child).await, Some(0));
    assert_eq!(scene.processes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_gateway_that_must_not_or_cannot_serve_says_why_and_is_gone() {
    let scene = Scene::new();
    let narrow = GatewayOrder { reach: Reach::Public, ..scene.order(SOON) };
    let refused = gateway().start(&narrow, &scene.place).await;
    assert!(
        matches!(&refused, Err(LaunchError::Refused(why)) if why.contains("private")),
        "{refused:?}"
    );
    let nowhere = GatewayOrder { ledger: PathBuf::from("/made/up/ledger"), ..scene.order(SOON) };
    let failed = gateway().start(&nowhere, &scene.place).await;
    assert!(
        matches!(&failed, Err(LaunchError::Failed(why)) if why.contains("ledger")),
        "{failed:?}"
    );
    let other = Program { path: PathBuf::from("/bin/true"), ..gateway() };
    let broken = other.start(&scene.order(SOON), &scene.place).await;
    assert!(matches!(broken, Err(LaunchError::Broken { .. })), "{broken:?}");
    assert_eq!(scene.processes(), Vec::<String>::new());
}
