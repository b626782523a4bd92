//! All settings, read from the environment and checked once.
//!
//! Nothing else in the program reads an environment variable. The table in `docs/settings.md` is
//! this file in prose.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::budget::read_allowance;
use crate::egress::{EgressSettings, Resolver};
use crate::guard::Guardrails;
use crate::run::{Allowance, Networks, ProviderTool, ProviderTools, StallCeilings};
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

/// Where the API listens: this machine alone can reach it. 8000 is what Jetty's clients try first.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// Connections served at the same time. Each may hold a followed run; a file descriptor each.
const DEFAULT_MAX_CONNECTIONS: usize = 1024;

/// Connections of them from one address: more than a browser and a few programs behind one router
/// need, and few enough to leave places for others.
const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 256;

/// Largest body of JSON. The largest known runbook has 40 KiB, but messages may carry pictures.
const DEFAULT_MAX_JSON_BYTES: usize = 16 * 1024 * 1024;

/// Longest ordinary answer, in seconds. Jetty's SDK gives up after 60.
const DEFAULT_ANSWER_SECONDS: u64 = 30;

/// Free disk that is kept, in bytes: runs write logs of up to 1 GiB.
const DEFAULT_MIN_FREE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Largest body with files, in bytes: data sets, not disk images.
const DEFAULT_MAX_UPLOAD_BYTES: usize = 2 * 1024 * 1024 * 1024;

/// How long `run-sync` waits, in seconds: as long as a run may take when nobody says otherwise.
const DEFAULT_SYNC_SECONDS: u64 = 1200;

/// Runs that one token follows at the same time. A page of runs follows each of its lines.
const DEFAULT_MAX_STREAMS: usize = 64;

/// How long uploads and what became of webhooks are kept, in days: somebody who was away for some weeks
/// still finds them, and a disk does not fill up with them.
const DEFAULT_KEEP_DAYS: u32 = 30;

/// How long runs may go on after a stop, in seconds. What is left then is left running and taken up
/// again by the next start.
const DEFAULT_DRAIN_SECONDS: u64 = 20;

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

/// What `runbookd serve` needs beside the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// The address to listen on (`RUNBOOKD_LISTEN`).
    pub listen: SocketAddr,
    /// The results directory (`RUNBOOKD_RESULTS`, else `results` in the state folder).
    pub results_dir: PathBuf,
    /// How many runs go on at the same time (`RUNBOOKD_SLOTS`); `None` follows the machine.
    pub slots: Option<usize>,
    /// How many connections are served at the same time (`RUNBOOKD_MAX_CONNECTIONS`).
    pub max_connections: usize,
    /// How many of them from one address, other than this machine
    /// (`RUNBOOKD_MAX_CONNECTIONS_PER_ADDRESS`).
    pub max_connections_per_address: usize,
    /// Largest body of JSON, in bytes (`RUNBOOKD_MAX_JSON_BYTES`).
    pub max_json_bytes: usize,
    /// Longest time for an ordinary answer (`RUNBOOKD_ANSWER_SECONDS`).
    pub answer_limit: Duration,
    /// Less free disk than this, in bytes, and no work is taken (`RUNBOOKD_MIN_FREE_BYTES`).
    pub min_free_disk_bytes: u64,
    /// How long runs may go on after the stop was asked for (`RUNBOOKD_DRAIN_SECONDS`).
    pub drain_limit: Duration,
    /// Largest body with files, in bytes (`RUNBOOKD_MAX_UPLOAD_BYTES`).
    pub max_upload_bytes: usize,
    /// How long `run-sync` waits at most (`RUNBOOKD_SYNC_SECONDS`).
    pub sync_wait: Duration,
    /// Runs that one token may follow at the same time (`RUNBOOKD_MAX_STREAMS`).
    pub max_streams: usize,
    /// Whether webhooks may lead to private addresses (`RUNBOOKD_WEBHOOK_PRIVATE=1`).
    pub private_webhooks: bool,
    /// How long uploads are kept (`RUNBOOKD_KEEP_UPLOADS`, in days); `None` keeps them for ever.
    pub keep_uploads: Option<Duration>,
    /// How long it is kept what became of webhooks (`RUNBOOKD_KEEP_DELIVERIES`, in days); `None` keeps
    /// it for ever.
    pub keep_deliveries: Option<Duration>,
    /// What the sandboxes of runs may reach (`RUNBOOKD_NETWORKS`), private addresses that they may
    /// reach (`RUNBOOKD_EGRESS_PRIVATE`), hosts that they may not (`RUNBOOKD_EGRESS_DENY`), and names
    /// that are not looked up (`RUNBOOKD_EGRESS_HOSTS`).
    pub egress: EgressSettings,
    /// Whether the addresses of model services may be private, and without TLS
    /// (`RUNBOOKD_UPSTREAM_PRIVATE=1`).
    pub private_upstreams: bool,
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
        let mut folder = |own: &str, xdg: &str, below_home: &str| {
            let found = text(own).map(PathBuf::from).or_else(|| {
                let base = text(xdg).map(PathBuf::from).filter(|base| base.is_absolute());
                base.or_else(|| home.as_deref().map(|home| home.join(below_home)))
                    .map(|base| base.join("runbookd"))
            });
            found.and_then(|path| absolute(&path)).unwrap_or_else(|| {
                faults.push(format!("neither {own} nor HOME is set: set {own} to a folder"));
                PathBuf::new()
            })
        };
        let state_dir = folder("RUNBOOKD_STATE", "XDG_STATE_HOME", ".local/state");
        let cache_dir = folder("RUNBOOKD_CACHE", "XDG_CACHE_HOME", ".cache");
        let registry = text("npm_config_registry").or_else(|| text("NPM_CONFIG_REGISTRY"));
        let registry = registry_url(registry.as_deref(), &mut faults);
        let log_format = log_format(&vars, &mut faults);
        let server = ServerSettings::from_vars(&vars, &state_dir, &mut faults);
        let share_keys = share_keys(&vars, &mut faults);
        let stall = stall_ceilings(&mut Reader { vars: &vars, faults: &mut faults });
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
            guard,
            redact_artifacts,
            allowance,
            provider_tools,
            keyring: vars.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        };
        (settings, faults)
    }
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

fn snapshot_settings(
    vars: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
) -> SnapshotSettings {
    let words = vars.get("RUNBOOKD_BUILD_ARGS").map_or("", String::as_str);
    SnapshotSettings {
        folder: vars.get("RUNBOOKD_SNAPSHOTS").map(PathBuf::from),
        base_image: vars.get("RUNBOOKD_BASE_IMAGE").cloned(),
        build_args: build_args(words, faults),
        extra_ca: vars.get("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
    }
}

/// The arguments of builds: `NAME=VALUE`, blanks between them.
fn build_args(words: &str, faults: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for word in words.split_whitespace() {
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match word.split_once('=').filter(|(name, _)| is_name(name)) {
            // An image tells its arguments to everybody who has it.
            Some((name, value)) if holds_credentials(value) => faults.push(format!(
                "RUNBOOKD_BUILD_ARGS: the URL of {name} holds credentials, and would stay in the image: use a mirror that needs none"
            )),
            Some((name, value)) => {
                found.insert(name.to_owned(), value.to_owned());
            }
            None => faults.push(
                "RUNBOOKD_BUILD_ARGS: write NAME=VALUE, with blanks between several".to_owned(),
            ),
        }
    }
    found
}

fn holds_credentials(value: &str) -> bool {
    Url::parse(value).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

impl ServerSettings {
    fn from_vars(
        vars: &BTreeMap<String, String>,
        state_dir: &Path,
        faults: &mut Vec<String>,
    ) -> Self {
        let mut read = Reader { vars, faults };
        Self {
            listen: read.or("RUNBOOKD_LISTEN", "an address such as 127.0.0.1:8000", DEFAULT_LISTEN),
            results_dir: vars
                .get("RUNBOOKD_RESULTS")
                .and_then(|path| absolute(Path::new(path)))
                .unwrap_or_else(|| state_dir.join("results")),
            slots: read.at_all("RUNBOOKD_SLOTS", "a number of runs").map(NonZeroUsize::get),
            max_connections: read.number("RUNBOOKD_MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS),
            max_connections_per_address: read.number(
                "RUNBOOKD_MAX_CONNECTIONS_PER_ADDRESS",
                DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            ),
            max_json_bytes: read.number("RUNBOOKD_MAX_JSON_BYTES", DEFAULT_MAX_JSON_BYTES),
            answer_limit: read.seconds("RUNBOOKD_ANSWER_SECONDS", DEFAULT_ANSWER_SECONDS),
            min_free_disk_bytes: read.or(
                "RUNBOOKD_MIN_FREE_BYTES",
                "a number of bytes",
                DEFAULT_MIN_FREE_BYTES,
            ),
            drain_limit: read.seconds("RUNBOOKD_DRAIN_SECONDS", DEFAULT_DRAIN_SECONDS),
            max_upload_bytes: read.number("RUNBOOKD_MAX_UPLOAD_BYTES", DEFAULT_MAX_UPLOAD_BYTES),
            sync_wait: read.seconds("RUNBOOKD_SYNC_SECONDS", DEFAULT_SYNC_SECONDS),
            max_streams: read.number("RUNBOOKD_MAX_STREAMS", DEFAULT_MAX_STREAMS),
            private_webhooks: read.flag("RUNBOOKD_WEBHOOK_PRIVATE"),
            keep_uploads: read.days("RUNBOOKD_KEEP_UPLOADS", DEFAULT_KEEP_DAYS),
            keep_deliveries: read.days("RUNBOOKD_KEEP_DELIVERIES", DEFAULT_KEEP_DAYS),
            egress: read.egress(),
            private_upstreams: read.flag("RUNBOOKD_UPSTREAM_PRIVATE"),
        }
    }
}

/// Reads variables and notes those that cannot be read.
struct Reader<'a> {
    vars: &'a BTreeMap<String, String>,
    faults: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn at_all<T: FromStr>(&mut self, name: &str, wanted: &str) -> Option<T> {
        let text = self.vars.get(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.faults.push(format!("{name} is `{text}`: write {wanted}"));
        }
        value
    }

    fn or<T: FromStr>(&mut self, name: &str, wanted: &str, default: T) -> T {
        self.at_all(name, wanted).unwrap_or(default)
    }

    /// The values of a list with commas between them.
    fn list<T: FromStr>(&mut self, name: &str, wanted: &str) -> Vec<T> {
        let Some(text) = self.vars.get(name) else { return Vec::new() };
        let values = text.split(',').map(|value| value.trim().parse().ok());
        let values: Option<Vec<T>> = values.collect();
        values.unwrap_or_else(|| {
            self.faults.push(format!("{name} is `{text}`: write {wanted}"));
            Vec::new()
        })
    }

    fn egress(&mut self) -> EgressSettings {
        EgressSettings {
            networks: self.or(
                "RUNBOOKD_NETWORKS",
                "some of none, allowlist, public and open, with commas between them",
                Networks::default(),
            ),
            private: self.list(
                "RUNBOOKD_EGRESS_PRIVATE",
                "ranges such as 10.1.0.0/16 or 10.1.2.3:8080, with commas between them",
            ),
            deny: self.list(
                "RUNBOOKD_EGRESS_DENY",
                "hosts such as example.org or *.example.org, with commas between them",
            ),
            resolver: self.or(
                "RUNBOOKD_EGRESS_HOSTS",
                "names and addresses such as mirror.example=10.1.2.3, with commas between them",
                Resolver::default(),
            ),
        }
    }

    fn number(&mut self, name: &str, default: usize) -> usize {
        self.at_all(name, "a number above 0").map_or(default, NonZeroUsize::get)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.or(name, "0 or 1", 0_u8) != 0
    }

    /// A length in days, where 0 is without end.
    fn days(&mut self, name: &str, default: u32) -> Option<Duration> {
        let days = self.or(name, "a number of days, or 0 for ever", default);
        (days > 0).then(|| Duration::from_secs(24 * 3600) * days)
    }

    fn seconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_secs(self.or(name, "a number of seconds", default))
    }
}

fn stall_ceilings(read: &mut Reader<'_>) -> StallCeilings {
    let mut seconds = |name| {
        let seconds: Option<NonZeroU32> = read.at_all(name, "a number of seconds above 0");
        seconds.map(|seconds| Duration::from_secs(seconds.get().into()))
    };
    StallCeilings {
        model: seconds("RUNBOOKD_STALL_MODEL_SECONDS"),
        tool: seconds("RUNBOOKD_STALL_TOOL_SECONDS"),
        silent: seconds("RUNBOOKD_STALL_SILENT_SECONDS"),
        linger: seconds("RUNBOOKD_STALL_LINGER_SECONDS"),
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

fn provider_tools(vars: &BTreeMap<String, String>, faults: &mut Vec<String>) -> ProviderTools {
    let named = vars.get("RUNBOOKD_PROVIDER_TOOLS").map_or("", String::as_str);
    ProviderTool::list(named).unwrap_or_else(|fault| {
        faults.push(format!("RUNBOOKD_PROVIDER_TOOLS: {fault}"));
        ProviderTools::new()
    })
}

fn guardrails(vars: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Guardrails {
    let read = Guardrails::read(|name| vars.get(name).map(String::as_str));
    read.unwrap_or_else(|wrong| {
        faults.extend(wrong.iter().map(ToString::to_string));
        Guardrails::default()
    })
}

fn share_keys(vars: &BTreeMap<String, String>, faults: &mut Vec<String>) -> bool {
    match vars.get("RUNBOOKD_SHARE_KEYS").map(String::as_str) {
        None | Some("0") => false,
        Some("1") => true,
        Some(other) => {
            faults.push(format!(
                "RUNBOOKD_SHARE_KEYS is `{other}`: write 1 to let every run use this process's keys, or 0"
            ));
            false
        }
    }
}

fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::from_vars(vars.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())))
    }

    #[test]
    fn folders_follow_the_xdg_rules_and_can_be_named() {
        let at_home = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]).unwrap();
        assert_eq!(at_home.state_dir, Path::new("/h/.local/state/runbookd"));
        assert_eq!(at_home.cache_dir, Path::new("/h/.cache/runbookd"));
        let named = settings(&[("RUNBOOKD_STATE", "/s"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")])
            .unwrap();
        assert_eq!(named.state_dir, Path::new("/s"));
        assert_eq!(named.cache_dir, Path::new("/c/runbookd"));
    }

    #[test]
    fn every_fault_is_said_at_once() {
        let error = settings(&[("HOME", ""), ("npm_config_registry", "registry.example.org")]);
        let faults = error.unwrap_err().faults;
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn build_arguments_are_names_with_values_and_hold_no_credentials() {
        let read = |args| {
            settings(&[("HOME", "/h"), ("RUNBOOKD_BUILD_ARGS", args)])
                .map(|s| s.snapshots.build_args)
        };
        let expected = [("PYTHON", "3.13"), ("URL", "http://m/x?a=b")];
        let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        assert_eq!(
            read(" PYTHON=3.13  URL=http://m/x?a=b"),
            Ok(expected).map_err(|e: ConfigError| e)
        );
        for wrong in ["PYTHON", "=x", "A-B=c", "URL=https://me:made-up@mirror/"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("RUNBOOKD_BUILD_ARGS") && !error.contains("made-up"), "{error}");
        }
    }

    #[test]
    fn keys_are_shared_only_when_the_operator_says_so() {
        let shares = |value| {
            settings(&[("HOME", "/h"), ("RUNBOOKD_SHARE_KEYS", value)]).map(|s| s.share_keys)
        };
        assert_eq!(["", "0", "1"].map(shares), [Ok(false), Ok(false), Ok(true)]);
        assert!(shares("yes").is_err());
    }

    #[test]
    fn the_server_listens_on_this_machine_alone_unless_it_is_told_otherwise() {
        let server = settings(&[("HOME", "/h")]).unwrap().server;
        assert_eq!(server.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(server.results_dir, Path::new("/h/.local/state/runbookd/results"));
        let error = settings(&[
            ("HOME", "/h"),
            ("RUNBOOKD_LISTEN", "localhost"),
            ("RUNBOOKD_SLOTS", "0"),
            ("RUNBOOKD_LOG_FORMAT", "xml"),
        ]);
        assert_eq!(
            error.unwrap_err().faults,
            [
                "RUNBOOKD_LOG_FORMAT is `xml`: write `text` or `json`",
                "RUNBOOKD_LISTEN is `localhost`: write an address such as 127.0.0.1:8000",
                "RUNBOOKD_SLOTS is `0`: write a number of runs",
            ]
        );
    }

    #[test]
    fn what_is_old_goes_after_a_month_unless_the_operator_says_otherwise() {
        let days = |value| {
            let vars = [("HOME", "/h"), ("RUNBOOKD_KEEP_UPLOADS", value)];
            settings(&vars).map(|s| s.server.keep_uploads.map(|kept| kept.as_secs() / 86_400))
        };
        assert_eq!(["", "0", "7"].map(days), [Ok(Some(30)), Ok(None), Ok(Some(7))]);
        assert!(days("a week").is_err());
    }

    #[test]
    fn the_operator_bounds_how_long_a_run_may_do_nothing() {
        let vars = [
            ("HOME", "/h"),
            ("RUNBOOKD_STALL_TOOL_SECONDS", "90"),
            ("RUNBOOKD_STALL_MODEL_SECONDS", ""),
        ];
        let tool = Some(Duration::from_secs(90));
        let expected = StallCeilings { tool, ..StallCeilings::default() };
        assert_eq!(settings(&vars).unwrap().stall, expected);
        let error = settings(&[("HOME", "/h"), ("RUNBOOKD_STALL_LINGER_SECONDS", "0")]);
        let expected =
            "RUNBOOKD_STALL_LINGER_SECONDS is `0`: write a number of seconds above 0".to_owned();
        assert_eq!(error.unwrap_err().faults, [expected]);
    }

    #[test]
    fn what_sandboxes_may_reach_is_the_operators_to_say() {
        let egress = |vars: &[(&str, &str)]| {
            let vars = vars.iter().chain(&[("HOME", "/h")]).copied().collect::<Vec<_>>();
            settings(&vars).map(|settings| settings.server.egress)
        };
        let usual = egress(&[]).unwrap();
        assert_eq!(usual.networks.to_string(), "none, allowlist, public");
        assert!(usual.private.is_empty() && usual.deny.is_empty());
        let own = egress(&[
            ("RUNBOOKD_NETWORKS", "none,open"),
            ("RUNBOOKD_EGRESS_PRIVATE", "10.1.0.0/16, [fd00::/8]:443"),
            ("RUNBOOKD_EGRESS_DENY", "*.example.org"),
            ("RUNBOOKD_EGRESS_HOSTS", "mirror.example=10.1.2.3"),
        ])
        .unwrap();
        assert_eq!(own.networks.to_string(), "none, open");
        assert_eq!((own.private.len(), own.deny.len()), (2, 1));
        for wrong in [
            ("RUNBOOKD_NETWORKS", "lan"),
            ("RUNBOOKD_EGRESS_PRIVATE", "10.1.0.0/99"),
            ("RUNBOOKD_EGRESS_DENY", "https://example.org"),
            ("RUNBOOKD_EGRESS_HOSTS", "mirror.example"),
        ] {
            let error = egress(&[wrong]).unwrap_err().to_string();
            assert!(error.contains(&format!("{} is `{}`", wrong.0, wrong.1)), "{error}");
        }
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let settings = settings(&[("HOME", "/h"), ("ANTHROPIC_API_KEY", "")]).unwrap();
        assert!(settings.keyring.get("ANTHROPIC_API_KEY").is_none());
    }
}
