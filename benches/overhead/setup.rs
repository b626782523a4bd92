//! What both sides of a comparison share: the CLI, the image, the script, the folders.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runbookd::config::Settings;
use runbookd::run::RuntimeName;
use runbookd::toolchain::{AgentCli, Target, Toolchain, ToolchainSettings};
use tempfile::TempDir;

use crate::common::Outcome;

/// The model's words.
pub(crate) const SCRIPT: &str = include_str!("script.yaml");

/// The model that the runbook names.
pub(crate) const MODEL: &str = "claude-sonnet-4-6";

/// The longest that one side may take. It takes seconds, unless an engine hangs; the runbook's own
/// limit comes first, so that the sandbox is removed in order.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(180);

/// What both sides share.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The pinned CLI, from runbookd's own cache.
    pub(crate) cli: PathBuf,
    pub(crate) image: String,
    folder: TempDir,
}

impl Setup {
    /// Has the CLI; downloads it once where it is not cached.
    pub(crate) async fn new(image: Option<String>, default_image: &str) -> Outcome<Self> {
        let settings = Settings::from_env()?;
        let image = image.or(settings.image);
        let toolchain = Toolchain::new(ToolchainSettings {
            cache_dir: settings.cache_dir,
            registry: settings.registry,
            registry_token: settings.registry_token,
            extra_ca: settings.extra_ca,
        })?;
        let cli = AgentCli::from(RuntimeName::ClaudeCode);
        let installed = toolchain.fetch(cli, Target::host()?, &|_| {}).await?;
        Ok(Self {
            cli: installed.path,
            image: image.unwrap_or_else(|| default_image.to_owned()),
            folder: tempfile::Builder::new().prefix("runbookd-bench-").tempdir()?,
        })
    }

    /// A folder that goes with the benchmark.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A file beside this one.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/overhead").join(name)
}
