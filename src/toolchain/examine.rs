//! Whether a run will have its agent CLI: what lies in the cache, and whether the registry answers.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Slot;
use super::client::build_client;
use super::download::Download;
use super::error::ToolchainError;
use super::fetch::{Limits, Toolchain, blocking};
use super::pins::{AgentCli, Pin};
use super::target::Target;
use crate::run::{Check, CheckStatus, error_chain};

const CLI: &str = "agent-cli";
const REGISTRY: &str = "registry";

/// How long the registry may take to begin its answer. A person waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may take, of which the answer is the other part.
const CONNECT: Duration = Duration::from_secs(5);

/// One question, asked once.
const LIMITS: Limits =
    Limits { connect: CONNECT, stall: PATIENCE, attempt: PATIENCE, lock: PATIENCE, pauses: &[] };

/// What the next run will do about what lies in the cache.
enum Stock {
    /// Take it.
    Intact,
    /// Fetch it: nothing is there, or a file that no finished installation leaves.
    ToFetch(ToolchainError),
    /// Fail or, worse, run what nobody pinned.
    Broken(ToolchainError),
}

impl Toolchain {
    /// Reads the pinned `cli` in the cache to its last byte, and asks the registry for it without
    /// taking it. Nothing is written.
    pub async fn examine(&self, cli: AgentCli, target: Target) -> Vec<Check> {
        self.examine_pin(Pin::of(cli, target)).await
    }

    /// The bytes that the next run writes to the cache: none where the CLI is there.
    ///
    /// # Errors
    /// [`ToolchainError::Cache`] when the cache cannot be looked at.
    pub fn needed_bytes(&self, cli: AgentCli, target: Target) -> Result<u64, ToolchainError> {
        let slot = Slot::new(&self.settings.cache_dir, Pin::of(cli, target));
        let total = slot.pin.tarball.n_bytes + slot.pin.executable.n_bytes;
        Ok(if slot.is_installed()? { 0 } else { total })
    }

    pub(super) async fn examine_pin(&self, pin: Pin) -> Vec<Check> {
        let slot = Arc::new(Slot::new(&self.settings.cache_dir, pin));
        let (stock, registry) = tokio::join!(stock(&slot), self.ask(&slot));
        let registry = self.registry_check(&slot.pin, registry);
        // What is in the cache needs no registry.
        let registry = match stock {
            Stock::Intact => registry.spared(CheckStatus::Warning),
            Stock::ToFetch(_) | Stock::Broken(_) => registry,
        };
        vec![cli_check(&slot, stock), registry]
    }

    /// Asks for the package as a run would, and hangs up when the answer begins.
    async fn ask(&self, slot: &Slot) -> Result<(), ToolchainError> {
        let extra_ca = self.settings.extra_ca.clone();
        let client = blocking(move || build_client(extra_ca.as_deref(), &LIMITS)).await?;
        let download = Download {
            client,
            registry: &self.settings.registry,
            token: self.settings.registry_token.as_ref(),
            slot,
            limits: &LIMITS,
        };
        download.ask().await
    }

    fn registry_check(&self, pin: &Pin, answer: Result<(), ToolchainError>) -> Check {
        let trust = match &self.settings.extra_ca {
            Some(path) => format!("the system's and those of {}", path.display()),
            None => "the system's".to_owned(),
        };
        let (cli, version, registry) = (pin.cli, pin.version, &self.settings.registry);
        match answer {
            Ok(()) => Check::ok(
                REGISTRY,
                format!("{registry} answers and has {cli} {version} (certificates: {trust})"),
            ),
            Err(error) => Check::problem(
                REGISTRY,
                format!("{} (certificates: {trust})", error_chain(&error)),
                error.mend(),
            ),
        }
    }
}

async fn stock(slot: &Arc<Slot>) -> Stock {
    let slot = Arc::clone(slot);
    let looked = blocking(move || match slot.verify() {
        Ok(()) => Ok(Stock::Intact),
        Err(error @ ToolchainError::NotInstalled { .. }) => Ok(Stock::ToFetch(error)),
        // Of a file with the right size and mode a run reads no byte: it would be started.
        Err(error @ ToolchainError::Altered { .. }) if slot.is_installed()? => {
            Ok(Stock::Broken(error))
        }
        Err(error @ ToolchainError::Altered { .. }) => Ok(Stock::ToFetch(error)),
        Err(error) => Err(error),
    });
    looked.await.unwrap_or_else(Stock::Broken)
}

fn cli_check(slot: &Slot, stock: Stock) -> Check {
    let pin = &slot.pin;
    let (cli, version, target) = (pin.cli, pin.version, pin.target);
    match stock {
        Stock::Intact => Check::ok(
            CLI,
            format!(
                "{cli} {version} ({target}) is intact at {} ({} MB)",
                slot.executable.display(),
                megabytes(pin.executable.n_bytes)
            ),
        ),
        Stock::ToFetch(error) => Check::warning(
            CLI,
            error_chain(&error),
            format!(
                "Nothing to do: the first run downloads {cli} {version} ({} MB, {} MB unpacked); `runbookd demo` is one.",
                megabytes(pin.tarball.n_bytes),
                megabytes(pin.executable.n_bytes)
            ),
        ),
        Stock::Broken(error) => Check::problem(CLI, error_chain(&error), error.mend()),
    }
}

fn megabytes(n_bytes: u64) -> u64 {
    n_bytes.div_ceil(1_000_000)
}
