//! How a runtime reaches a model service: the variables that it reads, and which of them are secret.
//!
//! Each rule was established by driving Claude Code 2.1.126 against every wire format.

mod anthropic;
mod bedrock;
mod broker;
mod openrouter;
mod vertex;

pub use broker::{AwsKeys, Brokered, Credential, Route, VertexPlace, Wire};

use broker::Broker;

use crate::run::{Code, Finding, ProviderName, RuntimeName};
use crate::secret::{Keyring, Secret};

/// Where the socket of a model service in this process stands inside the sandbox: the scripted
/// provider's, or the gateway's.
pub const SCRIPTED_SOCKET: &str = "/run/runbookd/model/model.sock";

/// A model service as one sandbox sees it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Variables for the agent CLI.
    pub env: Vec<(&'static str, Secret)>,
    /// Files for the agent CLI that only the sandbox may hold: path inside, contents.
    pub files: Vec<(&'static str, Secret)>,
    /// Those values among them that nobody may see.
    pub secrets: Vec<Secret>,
    /// What a person should know about this access.
    pub findings: Vec<Finding>,
    /// The real credential and the token in its place, where a gateway is in between.
    stand_in: Option<(Secret, Secret)>,
    /// The addresses of the service, where no gateway can take the credential's place.
    direct_urls: Vec<String>,
    /// How a gateway can take the credential's place, where one can.
    broker: Option<Broker>,
}

impl Access {
    /// Adds a variable that everybody may see.
    fn set(&mut self, name: &'static str, value: &str) {
        self.env.push((name, Secret::new(value.to_owned())));
    }

    /// Adds a variable that nobody may see.
    fn set_secret(&mut self, name: &'static str, value: &Secret) {
        self.env.push((name, value.clone()));
        self.secrets.push(value.clone());
    }

    /// Passes a variable on as it is, where it is set.
    fn pass(&mut self, name: &'static str, keyring: &Keyring) {
        self.env.extend(keyring.get(name).map(|value| (name, value.clone())));
    }
}

/// The variables with which `runtime` reaches `provider`.
///
/// # Errors
/// Every [`Finding`] that keeps it from being reached: a credential that is missing, malformed, or
/// in conflict with another one.
pub fn access(
    provider: ProviderName,
    runtime: RuntimeName,
    keyring: &Keyring,
) -> Result<Access, Vec<Finding>> {
    let RuntimeName::ClaudeCode = runtime;
    match provider {
        ProviderName::Anthropic => anthropic::access(keyring),
        ProviderName::Bedrock => bedrock::access(keyring),
        ProviderName::OpenRouter => openrouter::access(keyring),
        ProviderName::Vertex => vertex::access(keyring),
        ProviderName::Scripted => Ok(scripted()),
    }
}

/// The variables that can hold a provider's credential, the usual one first.
#[must_use]
pub fn credentials(provider: ProviderName) -> &'static [&'static str] {
    match provider {
        ProviderName::Anthropic => &anthropic::CREDENTIALS,
        ProviderName::Bedrock => &bedrock::CREDENTIALS,
        ProviderName::OpenRouter => &openrouter::CREDENTIALS,
        ProviderName::Vertex => &vertex::CREDENTIALS,
        ProviderName::Scripted => &[],
    }
}

fn scripted() -> Access {
    let mut access = Access::default();
    access.set("ANTHROPIC_UNIX_SOCKET", SCRIPTED_SOCKET);
    // Over the socket only http works, and the host name is never looked up.
    access.set("ANTHROPIC_BASE_URL", "http://localhost");
    // Without any credential the CLI finds itself logged out.
    access.set("ANTHROPIC_API_KEY", "sk-ant-scripted-needs-no-key");
    access
}

/// No credential: the finding names the variables.
fn missing(provider: ProviderName) -> Finding {
    let variables = credentials(provider).join(" or ");
    Finding::new(
        Code::MissingKey,
        format!("there is no credential for {}: set {variables}", provider.as_str()),
    )
}

/// A base URL as the CLI wants it: it appends `/v1/messages` itself, so one `/v1` at the end and
/// slashes behind it have to go.
///
/// # Errors
/// A [`Finding`] when it is not an http or https URL, or holds a password.
fn base_url(variable: &str, value: &Secret) -> Result<String, Finding> {
    let text = value.expose().trim().trim_end_matches('/');
    let text = text.strip_suffix("/v1").unwrap_or(text).trim_end_matches('/');
    let usable = url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none()
    });
    if usable {
        return Ok(text.to_owned());
    }
    // The value is not repeated: it may hold a token.
    Err(Finding::new(
        Code::MalformedCredential,
        format!(
            "{variable} is not a base URL: write one such as https://gateway.example.org, without a password in it"
        ),
    ))
}

#[cfg(test)]
pub(super) mod testing {
    //! Shared by the providers' tests.

    use super::*;

    /// The access that these variables give, as `NAME=value` lines, or the codes of its findings.
    pub(super) fn given(
        access: fn(&Keyring) -> Result<Access, Vec<Finding>>,
        vars: &[(&str, &str)],
    ) -> String {
        let keyring =
            vars.iter().map(|&(n, v)| (n.to_owned(), Secret::new(v.to_owned()))).collect();
        match access(&keyring) {
            Ok(access) => {
                let env = access.env.iter().map(|(n, v)| format!("{n}={}", v.expose()));
                let files = access.files.iter().map(|(path, _)| format!("file {path}"));
                let notes = access.findings.iter().map(|f| format!("! {}", f.message));
                env.chain(files).chain(notes).collect::<Vec<_>>().join("\n")
            }
            Err(findings) => {
                let lines = findings.iter().map(|f| format!("{}: {}", f.code, f.message));
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_accepted_with_and_without_its_version() {
        let url = |text: &str| base_url("X", &Secret::new(text.to_owned())).map_err(|f| f.code);
        for text in ["https://h/api", "https://h/api/", "https://h/api/v1", " https://h/api/v1/ "] {
            assert_eq!(url(text), Ok("https://h/api".to_owned()), "{text:?}");
        }
        for text in ["h/api", "ftp://h", "https://user:password@h", ""] {
            assert_eq!(url(text), Err(Code::MalformedCredential), "{text:?}");
        }
    }
}
