//! All settings, read from the environment and checked once.
//!
//! Nothing else in the program reads an environment variable. The table in `docs/settings.md` is
//! this file in prose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use url::Url;

use crate::secret::{Keyring, Secret};
use crate::snapshot::SnapshotSettings;

/// Where npm packages come from when nothing else is said.
const DEFAULT_REGISTRY: &str = "https://registry.npmjs.org/";

/// Where a service account's key file lies. A path of this machine means nothing in a sandbox, so
/// the file's text goes under [`GOOGLE_KEY`].
const GOOGLE_KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// A service account's key as JSON text.
const GOOGLE_KEY: &str = "GOOGLE_APPLICATION_CREDENTIALS_JSON";

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
    /// Whether colours are unwanted (`NO_COLOR`).
    pub no_color: bool,
    /// Whether every run may use every variable of this process (`RUNBOOKD_SHARE_KEYS=1`): for who
    /// runs the server for himself alone.
    pub share_keys: bool,
    /// Every variable, for provider keys and for the secrets that a runbook declares by name.
    pub keyring: Keyring,
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
        let share_keys = match text("RUNBOOKD_SHARE_KEYS").as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                faults.push(format!(
                    "RUNBOOKD_SHARE_KEYS is `{other}`: write 1 to let every run use this process's keys, or 0"
                ));
                false
            }
        };
        let registry = registry_url(registry.as_deref(), &mut faults);
        let build_args = build_args(&text("RUNBOOKD_BUILD_ARGS").unwrap_or_default(), &mut faults);
        let settings = Self {
            state_dir,
            cache_dir,
            engine: text("RUNBOOKD_ENGINE"),
            image: text("RUNBOOKD_IMAGE"),
            snapshots: SnapshotSettings {
                folder: text("RUNBOOKD_SNAPSHOTS").map(PathBuf::from),
                base_image: text("RUNBOOKD_BASE_IMAGE"),
                build_args,
                extra_ca: text("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
            },
            docker_host: text("DOCKER_HOST"),
            registry,
            registry_token: text("NPM_TOKEN").map(Secret::new),
            extra_ca: text("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
            path: text("PATH").unwrap_or_default(),
            log_filter: text("RUNBOOKD_LOG"),
            no_color: text("NO_COLOR").is_some(),
            share_keys,
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
    fn keys_are_shared_only_when_the_operator_says_so() {
        let shares = |value| {
            settings(&[("HOME", "/h"), ("RUNBOOKD_SHARE_KEYS", value)]).map(|s| s.share_keys)
        };
        assert_eq!(["", "0", "1"].map(shares), [Ok(false), Ok(false), Ok(true)]);
        assert!(shares("yes").is_err());
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
    fn an_empty_variable_is_an_unset_one() {
        let settings = settings(&[("HOME", "/h"), ("ANTHROPIC_API_KEY", "")]).unwrap();
        assert!(settings.keyring.get("ANTHROPIC_API_KEY").is_none());
    }
}
