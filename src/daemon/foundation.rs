//! What every part stands on: the server's folder, the database, the vault, the store.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use crate::api::{
    Api, ApiSettings, Chats, Followers, Readiness, Retries, RunParts, RunSettings, Shared,
};
use crate::catalog::{Catalog, CatalogError, Scope};
use crate::config::Settings;
use crate::database::{Database, DatabaseError, Vault, VaultError};
use crate::intake::{Intake, IntakeSettings};
use crate::queue::Queue;
use crate::reach::{Documents, Reach};
use crate::records::Records;
use crate::snapshot::{SnapshotError, Snapshots};
use crate::spend::{Spend, SpendError};
use crate::store::{Store, StoreError};

/// The server's folder inside the state folder. Nobody but its owner can open it.
const FOLDER: &str = "server";

/// The database in it.
const DATABASE: &str = "runbookd.db";

/// The key of the values in the database that nobody may read.
const KEY: &str = "vault.key";

/// The socket in it, through which its owner needs no token.
const SOCKET: &str = "operator.sock";

/// How often a run is tried that fails before its agent starts: an engine that restarts is back
/// after the second.
const MAX_ATTEMPTS: u32 = 3;

/// The owner alone.
const PRIVATE: u32 = 0o700;

/// The ground could not be laid.
#[derive(Debug, thiserror::Error)]
pub enum FoundationError {
    /// The server's folder could not be made, or closed to others.
    #[error("could not use the server's folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database could not be opened.
    #[error("could not open the server's database")]
    Database(#[source] DatabaseError),
    /// The key could not be read.
    #[error("could not open the vault of secrets")]
    Vault(#[source] VaultError),
    /// What is spent could not be opened.
    #[error(transparent)]
    Spend(SpendError),
    /// The results directory could not be opened.
    #[error("could not open the results directory")]
    Store(#[source] StoreError),
    /// The operator's snapshots cannot be read.
    #[error("could not read the snapshots")]
    Snapshots(#[source] SnapshotError),
    /// The tokens could not be read or made.
    #[error("could not look after the tokens")]
    Tokens(#[source] CatalogError),
}

impl FoundationError {
    /// Whether another process, most likely the server, has the database.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Database(DatabaseError::InUse { .. }))
    }
}

/// Whether anybody has a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// There is none: nobody was given one, or all are revoked.
    None,
    /// There are some, and all are switched off.
    AllOff,
    /// Somebody has one that opens something.
    Some,
}

/// The ground that the parts stand on. One process has it at a time.
#[derive(Debug)]
pub struct Foundation {
    /// What the API works with.
    pub api: Shared,
    /// The server's folder. Nobody but its owner can open it.
    pub folder: PathBuf,
    /// What can be built to start from.
    pub snapshots: Snapshots,
    /// The vault, for what seals secrets elsewhere.
    pub vault: Arc<Vault>,
    /// Where the operator's door is.
    pub socket: PathBuf,
    database: Database,
}

impl Foundation {
    /// Opens everything, and makes what is missing.
    ///
    /// # Errors
    /// Each says what to do.
    pub async fn open(
        settings: &Settings,
        clock: fn() -> Timestamp,
    ) -> Result<Self, FoundationError> {
        let folder = folder(&settings.state_dir)?;
        let database =
            Database::open(&folder.join(DATABASE)).await.map_err(FoundationError::Database)?;
        let vault = Vault::load(&folder.join(KEY)).map_err(FoundationError::Vault)?;
        let vault = Arc::new(vault);
        let store = Store::open(&settings.server.results_dir).map_err(FoundationError::Store)?;
        let snapshots = Snapshots::open(&settings.snapshots).map_err(FoundationError::Snapshots)?;
        let spend = settings.state_dir.join(Spend::FILE);
        let spend = Spend::open(&spend).await.map_err(FoundationError::Spend)?;
        spend.tidy(clock()).await.map_err(FoundationError::Spend)?;
        let catalog = Catalog::new(database.clone(), Arc::clone(&vault));
        let queue = Queue::new(database.clone());
        let intake = Intake {
            catalog: catalog.clone(),
            queue: queue.clone(),
            store: store.clone(),
            vault: Arc::clone(&vault),
            spend,
            settings: intake_settings(settings, snapshots.clone()),
            tasks: TaskTracker::new(),
        };
        let api = Api {
            runs: RunParts {
                intake,
                records: Records::new(queue.clone(), store.clone()),
                followers: Followers::new(settings.server.max_streams),
                retries: Retries::default(),
                documents: Documents::new(reach(settings)),
                settings: RunSettings {
                    max_upload_bytes: settings.server.max_upload_bytes,
                    sync_wait: settings.server.sync_wait,
                },
            },
            catalog,
            queue,
            store,
            clock,
            readiness: Arc::new(Readiness::default()),
            chats: Chats::new(upstream_reach(settings)),
            settings: ApiSettings {
                max_json_bytes: settings.server.max_json_bytes,
                answer_limit: settings.server.answer_limit,
                min_free_disk_bytes: settings.server.min_free_disk_bytes,
            },
            memory: Arc::default(),
        };
        let socket = folder.join(SOCKET);
        Ok(Self { api: Arc::new(api), folder, snapshots, vault, socket, database })
    }

    /// Whether anybody has a token.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn tokens(&self) -> Result<Tokens, FoundationError> {
        let tokens = self.api.catalog.tokens(None).await.map_err(FoundationError::Tokens)?;
        Ok(match tokens.iter().any(|token| token.is_active) {
            true => Tokens::Some,
            false if tokens.is_empty() => Tokens::None,
            false => Tokens::AllOff,
        })
    }

    /// Makes a token that opens everything, and returns it this once.
    ///
    /// # Errors
    /// When there is one of this name, or the database cannot be written.
    pub async fn make_admin_token(
        &self,
        name: &str,
    ) -> Result<crate::secret::Secret, FoundationError> {
        let now = (self.api.clock)();
        let made = self.api.catalog.create_token(&Scope::Admin, name, now).await;
        made.map(|(_, secret)| secret).map_err(FoundationError::Tokens)
    }

    /// Closes the database. What was committed is safe in any case.
    pub async fn close(self) {
        self.api.runs.intake.spend.close().await;
        drop(self.api);
        if let Err(error) = self.database.close().await {
            tracing::warn!(
                error = crate::run::error_chain(&error),
                "the database was left to the next start to tidy up"
            );
        }
    }
}

/// How runs are taken in.
fn intake_settings(settings: &Settings, snapshots: Snapshots) -> IntakeSettings {
    IntakeSettings {
        networks: settings.server.egress.networks.clone(),
        images: settings.images.clone(),
        max_attempts: MAX_ATTEMPTS,
        min_free_disk_bytes: settings.server.min_free_disk_bytes,
        allowance: settings.allowance,
        upstream_reach: upstream_reach(settings),
        guard: settings.guard,
        provider_tools: settings.provider_tools.clone(),
        webhook_reach: reach(settings),
        shared_keys: settings.share_keys.then(|| settings.keyring.clone()),
        snapshots,
    }
}

/// Where the URLs of clients may lead.
fn reach(settings: &Settings) -> Reach {
    if settings.server.private_webhooks { Reach::Private } else { Reach::Public }
}

fn upstream_reach(settings: &Settings) -> Reach {
    if settings.server.private_upstreams { Reach::Private } else { Reach::Public }
}

/// Where the operator's door of a server with this state folder is.
#[must_use]
pub fn operator_socket(state_dir: &Path) -> PathBuf {
    state_dir.join(FOLDER).join(SOCKET)
}

/// The server's folder, closed to everybody else before anything lies in it.
fn folder(state_dir: &Path) -> Result<PathBuf, FoundationError> {
    let path = state_dir.join(FOLDER);
    let failed = |source| FoundationError::Folder { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(PRIVATE).create(&path).map_err(failed)?;
    std::fs::set_permissions(&path, Permissions::from_mode(PRIVATE)).map_err(failed)?;
    Ok(path)
}
