//! What is frozen when a run is submitted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::secrets::JobSecrets;
use crate::plan::{Draw, GivenFile, Overrides, RunRequest};
use crate::run::{Allowance, Caps, RunName, Usd};
use crate::secret::Secret;
use crate::workflow::RunbookStep;

/// The newest version of a job's frozen text. It grows when a field changes its meaning; a reader
/// refuses a version that it does not know, because a job that is misread runs something else.
pub const JOB_VERSION: u32 = 2;

/// The version of a job of one step, which older programs read too.
const ONE_STEP: u32 = 1;

/// What is frozen when a run is submitted. The text of a job in the queue; it holds no secret.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JobSpec {
    /// The step of the task's workflow that the run belongs to.
    pub step: String,
    /// The runbook, front matter and all.
    pub runbook: String,
    /// Values for the runbook's template variables.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// What the client passed, as the record shows it.
    #[serde(default)]
    pub init_params: Map<String, Value>,
    /// Files for `/app/assets`.
    #[serde(default)]
    pub files: Vec<JobFile>,
    /// What the scripted provider answers.
    #[serde(default)]
    pub script: Option<String>,
    /// What is decided by the request or the task and not by the runbook.
    #[serde(default)]
    pub overrides: Overrides,
    /// Who is told of the end; the key that signs the call is sealed.
    #[serde(default)]
    pub webhook_url: Option<String>,
    /// The steps that follow, in their order. What they are to do is sealed: it is decided when the
    /// steps before them have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<LaterStep>,
}

/// A step that follows. Part of a job's frozen text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterStep {
    /// Its name.
    pub step: String,
    /// The stored files that it is given and that were there when the run was submitted, as they
    /// were named.
    #[serde(default)]
    pub named: Vec<String>,
    /// The same files in the step's folder.
    #[serde(default)]
    pub files: Vec<JobFile>,
}

/// A file of a job. Part of its frozen text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFile {
    /// What the run calls it, a single path segment.
    pub name: String,
    /// Where it lies, relative to the results directory.
    pub path: PathBuf,
}

/// A frozen text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Another version wrote it.
    #[error("the job has version {found}, and this program reads up to version {JOB_VERSION}")]
    Version {
        /// The version that it names.
        found: u32,
    },
    /// It is not a job's text.
    #[error("the job's text cannot be read")]
    Parse(#[from] serde_json::Error),
}

/// The text as it is written.
#[derive(Serialize)]
struct Frozen<'a> {
    version: u32,
    job: &'a JobSpec,
}

/// The text as it is read, in two steps: another version may have any other form.
#[derive(Deserialize)]
struct Thawed<'a> {
    version: u32,
    #[serde(borrow)]
    job: &'a serde_json::value::RawValue,
}

impl JobSpec {
    /// The text for the queue.
    #[must_use]
    pub fn freeze(&self) -> String {
        let version = if self.later.is_empty() { ONE_STEP } else { JOB_VERSION };
        let frozen = Frozen { version, job: self };
        serde_json::to_string(&frozen).expect("our own types have string keys and cannot fail")
    }

    /// Reads a text from the queue.
    ///
    /// # Errors
    /// [`SpecError`] when it is not a job of a version that is known.
    pub fn thaw(text: &str) -> Result<Self, SpecError> {
        let thawed: Thawed<'_> = serde_json::from_str(text)?;
        if !(ONE_STEP..=JOB_VERSION).contains(&thawed.version) {
            return Err(SpecError::Version { found: thawed.version });
        }
        Ok(serde_json::from_str(thawed.job.get())?)
    }

    /// What is frozen of a step, and the environment that its agent is given.
    #[must_use]
    pub fn of_step(step: RunbookStep) -> (Self, BTreeMap<String, Secret>) {
        let secret = |(name, value): (String, String)| (name, Secret::new(value));
        let agent_env = step.agent_env.into_iter().map(secret).collect();
        let overrides = Overrides {
            agent: step.agent,
            model: step.model,
            model_provider: step.model_provider,
            image: step.image,
            snapshot: step.snapshot,
            apt_packages: Some(step.apt_packages).filter(|packages| !packages.is_empty()),
            network: step.network,
            network_enabled: step.network_enabled,
            wall: step.timeout_sec.map(Duration::from_secs),
            max_turns: step.max_turns,
            caps: Caps {
                cost: step.max_cost_usd.and_then(Usd::new),
                tokens: step.max_tokens,
                requests: step.max_requests,
            },
            memory_bytes: step.memory_bytes,
            disk_bytes: step.disk_bytes,
            n_cpus: step.cpus,
            mcp_servers: step.mcp_servers,
            prompt: step.prompt,
            ..Overrides::default()
        };
        let spec = Self {
            step: step.name,
            runbook: step.instruction,
            variables: step.template_variables,
            script: step.script,
            overrides,
            ..Self::default()
        };
        (spec, agent_env)
    }

    /// The names of all its steps, in their order.
    #[must_use]
    pub fn step_names(&self) -> Vec<&str> {
        let later = self.later.iter().map(|later| later.step.as_str());
        std::iter::once(self.step.as_str()).chain(later).collect()
    }

    /// The request for the planner. `root` is the results directory, where the job's files lie.
    #[must_use]
    pub fn request(
        &self,
        name: &RunName,
        secrets: &JobSecrets,
        (root, ceilings): (&Path, Allowance),
    ) -> RunRequest {
        let file = |file: &JobFile| GivenFile {
            path: root.join(&file.path),
            name: Some(file.name.clone()),
        };
        RunRequest {
            runbook: self.runbook.clone().into_bytes(),
            collection: name.collection.clone(),
            task: name.task.clone(),
            variables: self.variables.clone(),
            init_params: self.init_params.clone(),
            assets: self.files.iter().map(file).collect(),
            script: self.script.clone(),
            former: None,
            ceilings,
            overrides: Overrides {
                step: Some(self.step.clone()).filter(|step| !step.is_empty()),
                agent_env: secrets.agent_env.clone(),
                ..self.overrides.clone()
            },
        }
    }

    /// The names that a job's plan draws: always the same.
    #[must_use]
    pub fn draw(name: &RunName, session_id: Uuid) -> Draw {
        Draw { run_id: name.id.clone(), session_id }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::run::Network;

    #[test]
    fn a_frozen_job_is_read_back_whole() {
        let overrides = Overrides {
            model: Some("m".to_owned()),
            network: Some(Network::None),
            wall: Some(Duration::from_secs(90)),
            n_cpus: Some(1.5),
            mcp_servers: [("docs".to_owned(), json!({"type": "http"}))].into(),
            ..Overrides::default()
        };
        let job = JobSpec {
            step: "run".to_owned(),
            runbook: "---\nagent: claude-code\n---\n# Übung\n".to_owned(),
            variables: [("a".to_owned(), "b".to_owned())].into(),
            init_params: json!({"a": "b", "n": [1, 2.5]}).as_object().unwrap().clone(),
            files: vec![JobFile { name: "in.csv".to_owned(), path: "team/_u/1/in.csv".into() }],
            script: Some("turns: []".to_owned()),
            overrides,
            webhook_url: Some("https://example.org/hook".to_owned()),
            later: vec![LaterStep {
                step: "review".to_owned(),
                named: vec!["team/_u/1/in.csv".to_owned()],
                files: vec![JobFile { name: "in.csv".to_owned(), path: "team/x".into() }],
            }],
        };
        assert_eq!(job.step_names(), ["run", "review"]);
        let text = job.freeze();
        let thawed = JobSpec::thaw(&text).unwrap();
        assert_eq!(format!("{thawed:?}"), format!("{job:?}"));
        assert_eq!(thawed.freeze(), text);
    }

    #[test]
    fn a_variable_of_the_agent_never_gets_into_the_frozen_text() {
        let mut job = JobSpec::default();
        let secret = Secret::new("sk-ant-made-up-1".to_owned());
        job.overrides.agent_env.insert("KEY".to_owned(), secret);
        assert!(!job.freeze().contains("made-up"));
    }

    #[test]
    fn a_job_of_one_step_is_written_as_it_always_was() {
        let text = JobSpec { step: "run".to_owned(), ..JobSpec::default() }.freeze();
        assert!(text.starts_with(r#"{"version":1,"#) && !text.contains("later"), "{text}");
        assert_eq!(JobSpec::thaw(&text).unwrap().step_names(), ["run"]);
    }

    #[test]
    fn a_job_of_another_version_is_refused() {
        let error = JobSpec::thaw(r#"{"version":3,"job":{"form":"new"}}"#).unwrap_err();
        assert!(matches!(error, SpecError::Version { found: 3 }));
        assert!(matches!(JobSpec::thaw("{}"), Err(SpecError::Parse(_))));
    }
}
