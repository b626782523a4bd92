//! How a runtime reaches a model service: the variables that it reads.

use crate::run::{ProviderName, RuntimeName};
use crate::secret::{Keyring, Secret};

/// Where the scripted provider's socket stands inside the sandbox.
pub const SCRIPTED_SOCKET: &str = "/run/runbookd/model.sock";

/// The variable that holds the key of Anthropic's API.
const ANTHROPIC_API_KEY: &str = "ANTHROPIC_API_KEY";

/// The provider cannot be used: a credential is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is not set")]
pub struct MissingCredential {
    /// The provider.
    pub provider: ProviderName,
    /// The variable that should hold it.
    pub variable: &'static str,
}

/// A model service as one sandbox sees it.
#[derive(Debug, Clone)]
pub struct Access {
    /// Variables for the agent CLI.
    pub env: Vec<(&'static str, Secret)>,
    /// Those values among them that nobody may see.
    pub secrets: Vec<Secret>,
}

/// The variable that holds a provider's credential.
#[must_use]
pub fn credential(provider: ProviderName) -> &'static str {
    match provider {
        // The scripted provider takes any; the CLI insists on one.
        ProviderName::Anthropic | ProviderName::Scripted => ANTHROPIC_API_KEY,
    }
}

/// The variables with which `runtime` reaches `provider`.
///
/// # Errors
/// [`MissingCredential`] when the keyring lacks the provider's key.
pub fn access(
    provider: ProviderName,
    runtime: RuntimeName,
    keyring: &Keyring,
) -> Result<Access, MissingCredential> {
    match (provider, runtime) {
        (ProviderName::Anthropic, RuntimeName::ClaudeCode) => {
            let key = keyring
                .get(ANTHROPIC_API_KEY)
                .ok_or(MissingCredential { provider, variable: ANTHROPIC_API_KEY })?;
            let mut env = vec![(ANTHROPIC_API_KEY, key.clone())];
            let base_url = "ANTHROPIC_BASE_URL";
            env.extend(keyring.get(base_url).map(|url| (base_url, url.clone())));
            Ok(Access { env, secrets: vec![key.clone()] })
        }
        (ProviderName::Scripted, RuntimeName::ClaudeCode) => {
            let value = |text: &str| Secret::new(text.to_owned());
            let env = vec![
                ("ANTHROPIC_UNIX_SOCKET", value(SCRIPTED_SOCKET)),
                // Over the socket only http works, and the host name is never looked up.
                ("ANTHROPIC_BASE_URL", value("http://localhost")),
                // Without any credential the CLI finds itself logged out.
                (ANTHROPIC_API_KEY, value("sk-ant-scripted-needs-no-key")),
            ];
            Ok(Access { env, secrets: Vec::new() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(access: &Access) -> Vec<&'static str> {
        access.env.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn anthropic_needs_its_key_and_takes_a_base_url() {
        let access = |vars: &[(&str, &str)]| {
            let keyring =
                vars.iter().map(|&(n, v)| (n.to_owned(), Secret::new(v.to_owned()))).collect();
            access(ProviderName::Anthropic, RuntimeName::ClaudeCode, &keyring)
        };
        let missing = access(&[("OPENAI_API_KEY", "sk-made-up")]).unwrap_err();
        assert_eq!(missing.to_string(), "ANTHROPIC_API_KEY is not set");
        let key = ("ANTHROPIC_API_KEY", "sk-ant-made-up");
        assert_eq!(names(&access(&[key]).unwrap()), ["ANTHROPIC_API_KEY"]);
        let with_url = access(&[key, ("ANTHROPIC_BASE_URL", "https://proxy.example.org")]).unwrap();
        assert_eq!(names(&with_url), ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"]);
    }

    #[test]
    fn the_scripted_provider_needs_nothing() {
        let access = access(ProviderName::Scripted, RuntimeName::ClaudeCode, &Keyring::default());
        assert!(access.unwrap().secrets.is_empty());
    }
}
