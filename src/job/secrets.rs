//! The secrets of a job. They wait encrypted and apart from its text.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::guard::{GUARD_PII, GUARD_SECRETS};
use crate::run::RunName;
use crate::secret::{Keyring, Secret};

/// The secrets of a job.
#[derive(Debug, Clone, Default)]
pub struct JobSecrets {
    /// The collection's environment, as it was when the run was submitted.
    pub environment: BTreeMap<String, Secret>,
    /// Secrets that came with the request; they win over the environment.
    pub params: BTreeMap<String, Secret>,
    /// Environment variables for the agent.
    pub agent_env: BTreeMap<String, Secret>,
    /// What signs the call at the run's end.
    pub webhook_secret: Option<Secret>,
    /// The task's workflow, where the run has several steps. The parameters that its later steps are
    /// decided from may hold what the record hides, so it waits with the secrets.
    pub workflow: Option<FrozenWorkflow>,
}

/// A workflow with the parameters of a request. As JSON among the secrets of a job.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FrozenWorkflow {
    /// The workflow as it was written.
    pub document: Value,
    /// The task's parameters with the request's over them.
    pub init_params: Map<String, Value>,
}

impl fmt::Debug for FrozenWorkflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrozenWorkflow(…)")
    }
}

/// The secrets of a job cannot be read. Nothing of them is in the error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secrets of the job are not in a form that this program reads")]
pub struct SecretsError;

/// The secrets as the text that is encrypted.
#[derive(Serialize)]
struct Shown<'a> {
    environment: BTreeMap<&'a str, &'a str>,
    params: BTreeMap<&'a str, &'a str>,
    agent_env: BTreeMap<&'a str, &'a str>,
    webhook_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<&'a FrozenWorkflow>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Read {
    environment: BTreeMap<String, String>,
    params: BTreeMap<String, String>,
    agent_env: BTreeMap<String, String>,
    webhook_secret: Option<String>,
    workflow: Option<FrozenWorkflow>,
}

impl JobSecrets {
    /// The place for which the secrets of a run are encrypted: those of one run cannot be opened as
    /// another's.
    #[must_use]
    pub fn context(name: &RunName) -> String {
        format!("job/{}/{}/{}", name.collection, name.task, name.id)
    }

    /// The text that is to be encrypted.
    #[must_use]
    pub fn to_plaintext(&self) -> Secret {
        let shown = Shown {
            environment: exposed(&self.environment),
            params: exposed(&self.params),
            agent_env: exposed(&self.agent_env),
            webhook_secret: self.webhook_secret.as_ref().map(Secret::expose),
            workflow: self.workflow.as_ref(),
        };
        let text = serde_json::to_string(&shown);
        Secret::new(text.expect("our own types have string keys and cannot fail"))
    }

    /// Reads what was decrypted.
    ///
    /// # Errors
    /// [`SecretsError`] when it is not what [`JobSecrets::to_plaintext`] gives.
    pub fn from_plaintext(text: &str) -> Result<Self, SecretsError> {
        let read: Read = serde_json::from_str(text).map_err(|_| SecretsError)?;
        Ok(Self {
            environment: hidden(read.environment),
            params: hidden(read.params),
            agent_env: hidden(read.agent_env),
            webhook_secret: read.webhook_secret.map(Secret::new),
            workflow: read.workflow,
        })
    }

    /// The values that the run may draw on: the collection's and the request's. `shared` are those
    /// of the daemon itself, for an operator who said that runs may use them; they come last.
    #[must_use]
    pub fn keyring(&self, shared: Option<&Keyring>) -> Keyring {
        let own = self.environment.iter().chain(&self.params);
        let own = own.map(|(name, value)| (name.clone(), value.clone()));
        let strictest = GUARDS.into_iter().filter_map(|name| {
            let sources = [self.environment.get(name), self.params.get(name)];
            let said = sources.into_iter().chain([shared.and_then(|shared| shared.get(name))]);
            let strictest = said.flatten().max_by_key(|word| strictness(word.expose()))?;
            Some((name.to_owned(), strictest.clone()))
        });
        shared.cloned().unwrap_or_default().with(own).with(strictest)
    }
}

/// Settings that a request may only make stricter.
const GUARDS: [&str; 3] = [GUARD_SECRETS, GUARD_PII, "RUNBOOKD_REDACT_ARTIFACTS"];

/// What cannot be read is the strictest: it is refused.
fn strictness(word: &str) -> u8 {
    match word.trim() {
        "" | "off" | "0" => 0,
        "mask" => 1,
        "block" | "1" => 2,
        _ => 3,
    }
}

fn exposed(values: &BTreeMap<String, Secret>) -> BTreeMap<&str, &str> {
    values.iter().map(|(name, value)| (name.as_str(), value.expose())).collect()
}

fn hidden(values: BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    values.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        values.iter().map(|&(n, v)| (n.to_owned(), Secret::new(v.to_owned()))).collect()
    }

    #[test]
    fn secrets_are_read_back_and_never_shown() {
        let secrets = JobSecrets {
            environment: values(&[("KEY", "made-up-1")]),
            params: values(&[("P", "made-up-2")]),
            agent_env: values(&[("E", "made-up-3")]),
            webhook_secret: Some(Secret::new("made-up-4".to_owned())),
            workflow: Some(FrozenWorkflow {
                document: serde_json::json!({"steps": ["made-up-5"]}),
                init_params: Map::new(),
            }),
        };
        assert!(!format!("{secrets:?}").contains("made-up"));
        let text = secrets.to_plaintext();
        let read = JobSecrets::from_plaintext(text.expose()).unwrap();
        assert_eq!(read.to_plaintext().expose(), text.expose());
        assert!(JobSecrets::from_plaintext("made-up").is_err());
        assert_eq!(JobSecrets::from_plaintext("{}").unwrap().environment.len(), 0);
    }

    #[test]
    fn a_request_makes_guardrails_stricter_and_never_weaker() {
        let strictest = |environment, params| {
            let secrets = JobSecrets {
                environment: values(&[(GUARD_PII, environment)]),
                params: values(&[(GUARD_PII, params)]),
                ..JobSecrets::default()
            };
            let keyring = secrets.keyring(None);
            keyring.get(GUARD_PII).map(|word| word.expose().to_owned()).unwrap()
        };
        for (environment, params, expected) in [
            ("block", "off", "block"),
            ("mask", "block", "block"),
            ("mask", "", "mask"),
            ("off", "mask", "mask"),
            ("block", "wrong", "wrong"),
        ] {
            assert_eq!(strictest(environment, params), expected);
        }
    }

    #[test]
    fn a_request_wins_over_its_collection_and_the_daemon_comes_last() {
        let secrets = JobSecrets {
            environment: values(&[("A", "collection"), ("B", "collection")]),
            params: values(&[("B", "request")]),
            ..JobSecrets::default()
        };
        let shared: Keyring = values(&[("A", "daemon"), ("C", "daemon")]).into_iter().collect();
        let get = |keyring: &Keyring, name| keyring.get(name).map(|v| v.expose().to_owned());
        let own = secrets.keyring(None);
        let all = secrets.keyring(Some(&shared));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            ["A", "B", "C"].map(|name| get(&own, name)),
            [text("collection"), text("request"), None]
        );
        assert_eq!(
            ["A", "B", "C"].map(|name| get(&all, name)),
            [text("collection"), text("request"), text("daemon")]
        );
    }
}
