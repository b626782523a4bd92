//! All settings, read from the environment and checked once.
//!
//! Nothing else in the program reads an environment variable. The table in `docs/settings.md` is
//! this module in prose.

mod operator;
mod reader;
mod server;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use url::Url;

use self::operator::{
    disk_ceiling, guardrails, image_rules, provider_tools, share_keys, stall_ceilings,
};
use self::reader::Reader;
pub use self::server::ServerSettings;
use self::snapshots::snapshot_settings;
use crate::budget::read_allowance;
use crate::guard::Guardrails;
use crate::run::{Allowance, DiskShare, ImageRules, ProviderTools, StallCeilings};
use crate::secret::{Keyring, Secret};
use crate::snapshot::SnapshotSettings;
use crate::telemetry::LogFormat;

/// Where npm packages come from when nothing else is said.
const DEFAULT_REGISTRY: &str = "https://registry.npmjs.org/";

/// Where a service account's key file lies. A path of this machine means nothing in a sandbox, so
/// the file's text goes under [`GOOGLE_KEY`].
const GOOGLE_KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// A service account's key as JSON text.
const GOOGLE_KEY: &str = "GOOGLE_APPLICATION_CREDENTIALS_JSON";

/// Where the clients of this API keep their token, below the home.
const TOKEN_FILE: &str = ".config/jetty/token";

/// What is wrong with the environment. All faults at once, so that they are mended at once.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings cannot be used: {}", faults.join("; "))]
pub struct ConfigError {
    /// Whole sentences, each naming the variable and what to write.
    pub faults: Vec<String>,
}

/// Everything that the environment decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where sandboxes live while they run (`RUNBOOKD_STATE`, else `XDG_STATE_HOME/runbookd`, else
    /// `~/.local/state/runbookd`).
    pub state_dir: PathBuf,
    /// Where the pinned agent CLIs are kept (`RUNBOOKD_CACHE`, else `XDG_CACHE_HOME/runbookd`, else
    /// `~/.cache/runbookd`).
    pub cache_dir: PathBuf,
    /// The engine (`RUNBOOKD_ENGINE`: `auto`, `docker` or `bubblewrap`), as text for the command
    /// line to override.
    pub engine: Option<String>,
    /// The image that a run without one starts from (`RUNBOOKD_IMAGE`).
    pub image: Option<String>,
    /// What snapshots are built from: the operator's own (`RUNBOOKD_SNAPSHOTS`, a folder), the image
    /// below them (`RUNBOOKD_BASE_IMAGE`), arguments (`RUNBOOKD_BUILD_ARGS`), authorities.
    pub snapshots: SnapshotSettings,
    /// The Docker daemon's address (`DOCKER_HOST`).
    pub docker_host: Option<String>,
    /// The npm registry (`npm_config_registry` or `NPM_CONFIG_REGISTRY`).
    pub registry: Url,
    /// The registry's token (`NPM_TOKEN`).
    pub registry_token: Option<Secret>,
    /// More certificate authorities (`NODE_EXTRA_CA_CERTS`), a PEM file.
    pub extra_ca: Option<PathBuf>,
    /// Where programs are looked for (`PATH`).
    pub path: String,
    /// What is logged (`RUNBOOKD_LOG`), in `tracing`'s filter syntax.
    pub log_filter: Option<String>,
    /// What a log line looks like (`RUNBOOKD_LOG_FORMAT`: `text` or `json`).
    pub log_format: LogFormat,
    /// What `runbookd serve` listens with and how much it takes on.
    pub server: ServerSettings,
    /// Which server the commands about a server ask, and with which token.
    pub remote: RemoteSettings,
    /// Whether colours are unwanted (`NO_COLOR`).
    pub no_color: bool,
    /// Whether every run may use every variable of this process (`RUNBOOKD_SHARE_KEYS=1`): for who
    /// runs the server for himself alone.
    pub share_keys: bool,
    /// How long a run may do nothing at most, whatever its runbook says
    /// (`RUNBOOKD_STALL_MODEL_SECONDS`, `…_TOOL_SECONDS`, `…_SILENT_SECONDS`, `…_LINGER_SECONDS`).
    pub stall: StallCeilings,
    /// Which images runs may name (`RUNBOOKD_IMAGES`), and on which of them packages may be installed
    /// (`RUNBOOKD_PACKAGE_IMAGES`).
    pub images: ImageRules,
    /// How much of the disk a sandbox may hold at most, whatever its runbook says
    /// (`RUNBOOKD_DISK_BYTES`, `RUNBOOKD_DISK_FILES`).
    pub disk: DiskShare,
    /// What the prompts of every run and chat must not hold (`RUNBOOKD_GUARD_SECRETS` and
    /// `RUNBOOKD_GUARD_PII`: `off`, `mask` or `block`). A collection may only want more.
    pub guard: Guardrails,
    /// Whether secrets are masked in the files of every run (`RUNBOOKD_REDACT_ARTIFACTS=1`).
    pub redact_artifacts: bool,
    /// The most that anybody may spend (`RUNBOOKD_MAX_…_PER_RUN`, `…_PER_DAY`, `…_PER_MONTH`,
    /// `…_PER_MINUTE`): a ceiling, which a collection's environment and a request may narrow.
    pub allowance: Allowance,
    /// Which of the model services' own tools runs may have (`RUNBOOKD_PROVIDER_TOOLS`).
    pub provider_tools: ProviderTools,
    /// Every variable, for provider keys and for the secrets that a runbook declares by name.
    pub keyring: Keyring,
}

/// How this program reaches a server as its client.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// The server's address (`RUNBOOKD_SERVER`, else `JETTY_API_URL`), as text for the command line
    /// to override.
    pub server: Option<String>,
    /// The token (`JETTY_API_TOKEN`).
    pub token: Option<Secret>,
    /// The file with the token where the variable is not set (`~/.config/jetty/token`).
    pub token_file: Option<PathBuf>,
}

impl Settings {
    /// Reads this process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn from_env() -> Result<Self, ConfigError> {
        let (settings, faults) = Self::examine_env();
        if faults.is_empty() { Ok(settings) } else { Err(ConfigError { faults }) }
    }

    /// Reads this process's environment, with every fault. What is faulty has its default, and a
    /// folder that is named nowhere is empty.
    #[must_use]
    pub fn examine_env() -> (Self, Vec<String>) {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            // A variable that is not UTF-8 cannot be one of ours, nor a key.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut vars: BTreeMap<String, String> = vars.collect();
        let key_file = vars.get(GOOGLE_KEY_FILE).map(std::fs::read_to_string);
        if let Some(Ok(key)) = key_file {
            vars.entry(GOOGLE_KEY.to_owned()).or_insert(key);
        }
        Self::examine_vars(vars)
    }

    /// [`Settings::from_env`] with the variables given.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (settings, faults) = Self::examine_vars(vars);
        if faults.is_empty() { Ok(settings) } else { Err(ConfigError { faults }) }
    }

    fn examine_vars(vars: impl IntoIterator<Item = (String, String)>) -> (Self, Vec<String>) {
        // An empty variable is an unset one: `KEY= runbookd …` must not shadow anything.
        let vars: BTreeMap<String, String> =
            vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut faults = Vec::new();
        let text = |name: &str| vars.get(name).cloned();
        let home = text("HOME").map(PathBuf::from);
        let state = ("RUNBOOKD_STATE", "XDG_STATE_HOME", ".local/state");
        let state_dir = own_folder(state, &vars, &mut faults);
        let cache = ("RUNBOOKD_CACHE", "XDG_CACHE_HOME", ".cache");
        let cache_dir = own_folder(cache, &vars, &mut faults);
        let registry = text("npm_config_registry").or_else(|| text("NPM_CONFIG_REGISTRY"));
        let registry = registry_url(registry.as_deref(), &mut faults);
        let log_format = log_format(&vars, &mut faults);
        let server = ServerSettings::from_vars(&vars, &state_dir, &mut faults);
        let share_keys = share_keys(&vars, &mut faults);
        let stall = stall_ceilings(&mut Reader { vars: &vars, faults: &mut faults });
        let disk = disk_ceiling(&mut Reader { vars: &vars, faults: &mut faults });
        let guard = guardrails(&vars, &mut faults);
        let redact_artifacts =
            Reader { vars: &vars, faults: &mut faults }.flag("RUNBOOKD_REDACT_ARTIFACTS");
        let (allowance, unread) = read_allowance(|name| vars.get(name).map(String::as_str));
        faults.extend(unread);
        let provider_tools = provider_tools(&vars, &mut faults);
        let settings = Self {
            state_dir,
            cache_dir,
            engine: text("RUNBOOKD_ENGINE"),
            image: text("RUNBOOKD_IMAGE"),
            snapshots: snapshot_settings(&vars, &mut faults),
            docker_host: text("DOCKER_HOST"),
            registry,
            registry_token: text("NPM_TOKEN").map(Secret::new),
            extra_ca: text("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
            path: text("PATH").unwrap_or_default(),
            log_filter: text("RUNBOOKD_LOG"),
            log_format,
            server,
            remote: RemoteSettings {
                server: text("RUNBOOKD_SERVER").or_else(|| text("JETTY_API_URL")),
                token: text("JETTY_API_TOKEN").map(|token| Secret::new(token.trim().to_owned())),
                token_file: home.map(|home| home.join(TOKEN_FILE)),
            },
            no_color: text("NO_COLOR").is_some(),
            share_keys,
            stall,
            disk,
            images: image_rules(&vars),
            guard,
            redact_artifacts,
            allowance,
            provider_tools,
            keyring: vars.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        };
        (settings, faults)
    }
}

/// A folder by the rules of XDG: its own variable, the one of its kind, or a place in the home.
fn own_folder(
    (own, xdg, below_home): (&str, &str, &str),
    vars: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
) -> PathBuf {
    let path = |name: &str| vars.get(name).map(PathBuf::from);
    let found = path(own).or_else(|| {
        let base = path(xdg).filter(|base| base.is_absolute());
        base.or_else(|| Some(path("HOME")?.join(below_home))).map(|base| base.join("runbookd"))
    });
    found.and_then(|path| absolute(&path)).unwrap_or_else(|| {
        faults.push(format!("neither {own} nor HOME is set: set {own} to a folder"));
        PathBuf::new()
    })
}

/// The registry, or the usual one where the named one is a fault.
fn registry_url(named: Option<&str>, faults: &mut Vec<String>) -> Url {
    let usual = || Url::parse(DEFAULT_REGISTRY).expect("the default registry is a URL");
    match named.map(Url::parse) {
        Some(Ok(url)) if matches!(url.scheme(), "http" | "https") => url,
        None => usual(),
        Some(Ok(_) | Err(_)) => {
            // What stands before an `@` may be a password.
            let named = named.filter(|named| !named.contains('@'));
            let named = named.map_or("not a URL that can be used".to_owned(), |n| format!("`{n}`"));
            faults.push(format!(
                "npm_config_registry is {named}: it must be an http or https URL such as {DEFAULT_REGISTRY}"
            ));
            usual()
        }
    }
}

fn log_format(vars: &BTreeMap<String, String>, faults: &mut Vec<String>) -> LogFormat {
    match vars.get("RUNBOOKD_LOG_FORMAT").map(String::as_str) {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            faults.push(format!("RUNBOOKD_LOG_FORMAT is `{other}`: write `text` or `json`"));
            LogFormat::Text
        }
    }
}

fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}
