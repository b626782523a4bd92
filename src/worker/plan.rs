//! From a request to a plan: everything that can be known to fail fails here, all at once. Pure but
//! for a look at the files that the run is given.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::request::RunRequest;
use crate::provider;
use crate::provider::scripted::Script;
use crate::run::{
    Asset, Limits, Network, ProviderName, RunFailure, RunId, RunName, RunPlan, RuntimeName,
};
use crate::runbook::{Part, Rendered, Runbook};
use crate::secret::{Keyring, Secret};

/// Where a run leaves what it made, inside the sandbox.
pub const RESULTS_DIR: &str = "/app/results";

/// The model where neither the request nor the runbook names one.
const DEFAULT_MODEL: &str = "claude-sonnet-4-6";

/// What the agent is told before the runbook. Agents that are only given a document summarise it or
/// ask what to do with it.
const PREAMBLE: &str = "\
You carry out a runbook on your own, in a sandbox. Do all of it now; do not only read it or \
summarise it. Nobody can answer questions: where something is open, decide, go on, and write down \
what you assumed. Put every output under /app/results. Files that you were given are in \
/app/assets. The runbook follows.

";

/// Limits where neither the request nor the runbook sets them.
mod default {
    use std::time::Duration;

    /// Most public runbooks end within 20 minutes; an hour leaves room and still ends a stuck run.
    pub(super) const WALL: Duration = Duration::from_secs(3600);
    /// After its answer the CLI ends within seconds; a child that holds it open must not.
    pub(super) const LINGER: Duration = Duration::from_secs(30);
    /// The CLI's own default, about three minutes of waiting.
    pub(super) const MODEL_RETRIES: u32 = 10;
    /// The CLI takes 150 MB; the rest is for compilers, browsers and data.
    pub(super) const MEMORY_BYTES: u64 = 4 << 30;
    /// As Jetty gives by default.
    pub(super) const N_CPUS: f64 = 2.0;
    /// The CLI needs about 10; builds and browsers need hundreds. A fork bomb stops here.
    pub(super) const N_PIDS: u32 = 1024;
    /// A long run writes tens of megabytes; a gigabyte is a flood.
    pub(super) const OUTPUT_BYTES: u64 = 1 << 30;
}

/// The bounds of what a request or a runbook may set.
mod bound {
    /// A week. Longer is a mistake in the unit.
    pub(super) const MAX_WALL_SEC: u64 = 7 * 24 * 3600;
    /// Less than this and the CLI itself does not start.
    pub(super) const MIN_MEMORY_BYTES: u64 = 256 << 20;
    /// The smallest share that makes progress.
    pub(super) const MIN_N_CPUS: f64 = 0.1;
    /// More than any machine has.
    pub(super) const MAX_N_CPUS: f64 = 1024.0;
}

/// The names that a new run draws.
#[derive(Debug, Clone)]
pub struct Draw {
    /// The run's id.
    pub run_id: RunId,
    /// The agent session's id.
    pub session_id: Uuid,
}

/// Decides everything about a run before anything is started.
///
/// # Errors
/// [`RunFailure::Refused`] with every problem, or [`RunFailure::NoCredentials`] when the provider's
/// key is all that is missing.
pub fn plan(request: &RunRequest, keyring: &Keyring, draw: Draw) -> Result<RunPlan, RunFailure> {
    let runbook = Runbook::parse(&request.runbook)
        .map_err(|e| RunFailure::Refused { problems: vec![format!("the runbook, {e}")] })?;
    let mut planner = Planner { request, runbook: &runbook, problems: vec![], notes: vec![] };
    let runtime = planner.runtime();
    let provider = planner.provider();
    let model = planner.model(provider);
    let image = planner.image();
    let limits = planner.limits();
    let network = planner.network();
    let secrets = planner.secrets(keyring);
    let assets = planner.assets();
    let instruction = planner.instruction();
    planner.unknown_keys();
    let Planner { problems, notes, .. } = planner;
    let credentials = provider::access(provider, runtime, keyring);
    match credentials {
        Err(missing) if problems.is_empty() => Err(RunFailure::NoCredentials {
            provider: missing.provider.as_str().to_owned(),
            variable: missing.variable.to_owned(),
        }),
        Err(missing) => Err(RunFailure::Refused {
            problems: problems.into_iter().chain([missing.to_string()]).collect(),
        }),
        Ok(_) if !problems.is_empty() => Err(RunFailure::Refused { problems }),
        Ok(_) => Ok(RunPlan {
            name: RunName {
                collection: request.collection.clone(),
                task: request.task.clone(),
                id: draw.run_id,
            },
            runtime,
            provider,
            model,
            script: request.script.clone().filter(|_| provider == ProviderName::Scripted),
            image,
            network,
            limits,
            init_params: request
                .variables
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect(),
            runbook: request.runbook.clone(),
            instruction,
            session_id: draw.session_id,
            assets,
            secrets,
            mcp_servers: runbook.front_matter().mcp_servers.clone(),
            primary_outputs: runbook.front_matter().primary_outputs.clone(),
            notes,
        }),
    }
}

/// A plan in the making: what is wrong and what is worth saying collect here.
struct Planner<'a> {
    request: &'a RunRequest,
    runbook: &'a Runbook,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Planner<'_> {
    fn runtime(&mut self) -> RuntimeName {
        let front_matter = self.runbook.front_matter();
        let named = self.request.overrides.agent.as_ref().or(front_matter.agent.as_ref());
        match named.map(String::as_str) {
            None | Some("claude-code") => {}
            Some(other) => self.problems.push(format!(
                "the agent `{other}` is not known: write `agent: claude-code`, the one that this version runs"
            )),
        }
        RuntimeName::ClaudeCode
    }

    fn provider(&mut self) -> ProviderName {
        let front_matter = self.runbook.front_matter();
        // A script is a part of the request, so it wins over the runbook.
        let scripted = self.request.script.as_ref().map(|_| "scripted");
        let named = self.request.overrides.model_provider.as_deref().or(scripted);
        let named = named.or(front_matter.model_provider.as_deref());
        let provider = match named {
            None | Some("anthropic") => ProviderName::Anthropic,
            Some("scripted") => ProviderName::Scripted,
            Some(other) => {
                self.problems.push(format!(
                    "the model provider `{other}` is not known: write `anthropic` or `scripted`, \
                     the ones that this version reaches"
                ));
                ProviderName::Anthropic
            }
        };
        match self.request.script.as_deref().map(Script::parse) {
            None if provider == ProviderName::Scripted => self.problems.push(
                "the scripted provider needs a script: give one with `--script FILE`".to_owned(),
            ),
            None | Some(Ok(_)) => {}
            Some(Err(e)) => self.problems.push(super::error_chain(&e)),
        }
        provider
    }

    fn model(&mut self, provider: ProviderName) -> String {
        let named =
            self.request.overrides.model.as_ref().or(self.runbook.front_matter().model.as_ref());
        let model = named.map_or(DEFAULT_MODEL, String::as_str);
        if provider == ProviderName::Anthropic && model.contains('/') {
            let bare = model.rsplit('/').next().unwrap_or(model).replace('.', "-");
            self.problems.push(format!(
                "the model `{model}` is spelled for a router, and Anthropic's API does not know \
                 it: write `{bare}`"
            ));
        }
        if model.starts_with('-') || model.chars().any(|c| c.is_control() || c.is_whitespace()) {
            self.problems.push(format!(
                "the model `{}` is not a model's name: it has spaces or begins with `-`",
                model.escape_debug()
            ));
        }
        model.to_owned()
    }

    fn image(&mut self) -> Option<String> {
        let front_matter = self.runbook.front_matter();
        let image = self.request.overrides.image.as_ref().or(front_matter.image.as_ref());
        match (&front_matter.snapshot, image) {
            (Some(snapshot), None) => self.problems.push(format!(
                "the snapshot `{snapshot}` cannot be built by this version: give an image that has \
                 its tools, with `image:` or `--image`"
            )),
            (Some(snapshot), Some(image)) => {
                self.notes.push(format!(
                    "The image `{image}` is used instead of the snapshot `{snapshot}`."
                ));
            }
            (None, _) => {}
        }
        image.cloned()
    }

    fn limits(&mut self) -> Limits {
        let (overrides, front_matter) = (&self.request.overrides, self.runbook.front_matter());
        let wall = overrides.wall.or(front_matter.timeout);
        let wall = wall.unwrap_or(default::WALL);
        if wall.is_zero() || wall.as_secs() > bound::MAX_WALL_SEC {
            self.problems.push(format!(
                "the time limit is {} s: write 1 to {}",
                wall.as_secs(),
                bound::MAX_WALL_SEC
            ));
        }
        let memory_bytes = overrides.memory_bytes.or(front_matter.memory_bytes);
        let memory_bytes = memory_bytes.unwrap_or(default::MEMORY_BYTES);
        if memory_bytes < bound::MIN_MEMORY_BYTES {
            self.problems.push(format!(
                "the memory limit is {memory_bytes} bytes: the agent needs at least {}",
                bound::MIN_MEMORY_BYTES
            ));
        }
        let n_cpus = overrides.n_cpus.or(front_matter.n_cpus).unwrap_or(default::N_CPUS);
        if !(bound::MIN_N_CPUS..=bound::MAX_N_CPUS).contains(&n_cpus) {
            self.problems.push(format!(
                "the processor limit is {n_cpus}: write {} to {}",
                bound::MIN_N_CPUS,
                bound::MAX_N_CPUS
            ));
        }
        let max_turns = overrides.max_turns.or(front_matter.max_turns);
        if max_turns == Some(0) {
            self.problems.push("the turn limit is 0: write at least 1, or leave it out".to_owned());
        }
        Limits {
            wall,
            linger: default::LINGER,
            max_turns,
            model_retries: overrides.model_retries.unwrap_or(default::MODEL_RETRIES),
            memory_bytes,
            n_cpus,
            n_pids: default::N_PIDS,
            output_bytes: default::OUTPUT_BYTES,
        }
    }

    fn network(&self) -> Network {
        let from_runbook = self.runbook.front_matter().network_enabled;
        let from_runbook = from_runbook.map(|on| if on { Network::Open } else { Network::None });
        self.request.overrides.network.or(from_runbook).unwrap_or(Network::Open)
    }

    /// The declared secrets that have a value.
    fn secrets(&mut self, keyring: &Keyring) -> BTreeMap<String, Secret> {
        let mut found = BTreeMap::new();
        for (name, secret) in &self.runbook.front_matter().secrets {
            match keyring.get(&secret.env) {
                Some(value) => {
                    found.insert(secret.env.clone(), value.clone());
                }
                None if secret.required => self.problems.push(format!(
                    "the runbook needs the secret `{}`: set {} in the environment",
                    name, secret.env
                )),
                None => self
                    .notes
                    .push(format!("The optional secret `{}` is not set ({}).", name, secret.env)),
            }
        }
        found
    }

    fn assets(&mut self) -> Vec<Asset> {
        let mut assets: Vec<Asset> = Vec::new();
        for path in &self.request.assets {
            match asset(path) {
                Ok(asset) if assets.iter().any(|other| other.name == asset.name) => {
                    self.problems
                        .push(format!("two files are called `{}`: rename one", asset.name));
                }
                Ok(asset) => assets.push(asset),
                Err(problem) => self.problems.push(problem),
            }
        }
        assets
    }

    fn instruction(&mut self) -> String {
        let mut values = self.runbook.defaults();
        values.insert("results_dir".to_owned(), RESULTS_DIR.to_owned());
        values.extend(self.request.variables.clone());
        let Rendered { text, filled, unfilled } = self.runbook.render(Part::Whole, &values);
        for variable in unfilled {
            self.notes.push(format!(
                "The variable `{}` (line {}) has no value and stays as it is written.",
                variable.name, variable.line
            ));
        }
        for name in self.request.variables.keys().filter(|name| !filled.contains(name)) {
            self.notes.push(format!(
                "The variable `{name}` was given, but the runbook has no place for it."
            ));
        }
        format!("{PREAMBLE}{text}")
    }

    fn unknown_keys(&mut self) {
        for key in &self.runbook.front_matter().unknown {
            self.notes.push(format!(
                "The front matter's key `{}` (line {}) is not known and does nothing.",
                key.name, key.line
            ));
        }
    }
}

/// A file for the run, by its base name.
fn asset(path: &Path) -> Result<Asset, String> {
    let shown = path.display();
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| format!("`{shown}` does not name a file"))?;
    let metadata =
        path.metadata().map_err(|e| format!("the file `{shown}` cannot be given: {e}"))?;
    if !metadata.is_file() {
        return Err(format!("`{shown}` is not a regular file: give files one by one"));
    }
    Ok(Asset { name: name.to_owned(), host_path: path.to_owned() })
}
