//! The gateway as a run has it: a process of the release binary, on a socket.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use runbookd::gateway::{GatewayOrder, Place, Program, PurseOrder};
use runbookd::provider::{Credential, Route, Wire};
use runbookd::reach::Reach;
use runbookd::run::Allowance;
use runbookd::secret::Secret;
use tokio::process::Child;

use crate::common::{Outcome, peak_bytes};

/// Longer than the benchmark takes.
const LIFE: SignedDuration = SignedDuration::from_hours(12);

/// What the sandbox would show.
pub(crate) const TOKEN: &str = "sk-ant-api03-made-up-token-of-a-run";

/// The running gateway.
#[derive(Debug)]
pub(crate) struct Product {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Product {
    /// Starts it before a model service.
    pub(crate) async fn start(upstream: &str) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let place = Place::new(folder.path().join("gate"));
        place.make()?;
        let order = GatewayOrder {
            run: "bench/gateway/0".to_owned(),
            route: Route {
                upstream: upstream.to_owned(),
                control: None,
                credential: Credential::ApiKey(Secret::new("sk-ant-made-up".to_owned())),
                wire: Wire::Messages,
                vertex: None,
            },
            token: Secret::new(TOKEN.to_owned()),
            guard: runbookd::guard::Guardrails::default(),
            secrets: Vec::new(),
            provider_tools: [].into(),
            // As in a run: what a request takes is set aside and settled, on the disk.
            purse: Some(PurseOrder {
                file: folder.path().join("spend.db"),
                collection: "bench".to_owned(),
                allowance: Allowance::default(),
            }),
            egress: None,
            reach: Reach::Private,
            ledger: folder.path().join("gateway.jsonl"),
            last_seq: 0,
            deadline: Timestamp::now() + LIFE,
            log_filter: None,
        };
        let program = Program {
            path: PathBuf::from(env!("CARGO_BIN_EXE_runbookd")),
            environment: Vec::new(),
            reach: Reach::Private,
            provider_tools: [].into(),
            log_filter: None,
        };
        let child = program.start(&order, &place).await?;
        let socket = place.model()?.as_path().canonicalize()?;
        Ok(Self { child, socket, _folder: folder })
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Ends it. Gives the most memory that it had, in bytes.
    pub(crate) async fn stop(mut self) -> Outcome<u64> {
        let process = self.child.id().ok_or("the gateway ended before its time")?;
        let peak = peak_bytes(&process.to_string()).ok_or("the gateway ended before its time")?;
        self.child.kill().await?;
        Ok(peak)
    }
}
