//! What a gateway needs to stand between a sandbox and a model service, so that the credential
//! never enters the sandbox.

use serde::{Deserialize, Serialize};

use super::{Access, SCRIPTED_SOCKET};
use crate::secret::Secret;

/// Over a socket the CLI only speaks http, and never looks the host's name up.
const AT_THE_SOCKET: &str = "http://localhost";

/// How a model service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic's Messages API, from itself, a gateway or OpenRouter.
    Messages,
    /// Amazon Bedrock: the model in the path, streams in AWS's frames.
    Bedrock,
    /// Google Vertex AI: the model in the path, streams as Anthropic's.
    Vertex,
}

/// How a model service learns who asks.
#[derive(Debug, Clone)]
pub enum Credential {
    /// In `x-api-key`.
    ApiKey(Secret),
    /// In `authorization`.
    Bearer(Secret),
    /// By a signature with keys of AWS's.
    Aws(AwsKeys),
    /// By an access token of Google's, which is made from a service account's key file.
    ServiceAccount {
        /// The key file's text.
        key_file: Secret,
        /// Where tokens are to be had.
        token_uri: String,
    },
    /// It does not: it signs itself.
    None,
}

/// Keys with which requests to AWS are signed.
#[derive(Debug, Clone)]
pub struct AwsKeys {
    /// The key's name.
    pub id: Secret,
    /// The key.
    pub secret: Secret,
    /// The token of the session that the keys are of, where they are of one.
    pub session: Option<Secret>,
    /// Where the service is.
    pub region: String,
}

impl Credential {
    /// What nobody may see of it, and the sandbox gets a token for.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::ApiKey(secret) | Self::Bearer(secret) => Some(secret),
            Self::Aws(keys) => Some(&keys.secret),
            Self::ServiceAccount { key_file, .. } => Some(key_file),
            Self::None => None,
        }
    }

    /// What is shown to a service beside that, and nobody else may see.
    #[must_use]
    pub fn session(&self) -> Option<&Secret> {
        match self {
            Self::Aws(keys) => keys.session.as_ref(),
            Self::ApiKey(_) | Self::Bearer(_) | Self::ServiceAccount { .. } | Self::None => None,
        }
    }
}

/// Whose models are asked at Vertex AI, and where. Its paths name both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexPlace {
    /// The project, which pays.
    pub project: String,
    /// The region, or `global`.
    pub location: String,
}

/// Where a gateway sends a run's requests, and as whom.
#[derive(Debug, Clone)]
pub struct Route {
    /// What comes before the paths that the CLI asks for, without a slash at its end.
    pub upstream: String,
    /// What comes before the paths that list models, where they are served elsewhere.
    pub control: Option<String>,
    /// As whom.
    pub credential: Credential,
    /// How.
    pub wire: Wire,
    /// The one place that is asked at Vertex AI.
    pub vertex: Option<VertexPlace>,
}

impl Route {
    /// Every address that is asked.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        let token_uri = match &self.credential {
            Credential::ServiceAccount { token_uri, .. } => Some(token_uri),
            Credential::ApiKey(_)
            | Credential::Bearer(_)
            | Credential::Aws(_)
            | Credential::None => None,
        };
        [&self.upstream].into_iter().chain(&self.control).chain(token_uri).map(String::as_str)
    }
}

/// How an access changes when a gateway takes the credential's place.
#[derive(Debug, Clone)]
pub(super) struct Broker {
    pub(super) route: Route,
    /// The variable with the service's address.
    pub(super) base_variable: &'static str,
    /// The variable with the credential; the run's token takes its place.
    pub(super) credential_variable: &'static str,
    /// How the CLI and people know such a credential.
    pub(super) token_prefix: &'static str,
    /// Variables that nobody needs then.
    pub(super) drops: &'static [&'static str],
    /// Variables that are needed then.
    pub(super) adds: &'static [(&'static str, &'static str)],
}

impl Access {
    /// Whether a gateway can take the credential's place.
    #[must_use]
    pub fn can_be_brokered(&self) -> bool {
        self.broker.is_some()
    }

    /// Every address that a gateway would ask, where one can take the credential's place.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.broker.iter().flat_map(|broker| broker.route.places())
    }

    /// The addresses of the service, whoever asks it.
    #[must_use]
    pub fn service_urls(&self) -> Vec<&str> {
        match &self.broker {
            Some(Broker { route, .. }) => {
                std::iter::once(&route.upstream).chain(&route.control).map(String::as_str).collect()
            }
            None => self.direct_urls.iter().map(String::as_str).collect(),
        }
    }

    /// What the sandbox gets in place of a value: the run's token for the real credential, whatever
    /// variable a runbook wants it in.
    #[must_use]
    pub fn stand_in(&self, value: &Secret) -> Secret {
        match &self.stand_in {
            Some((real, token)) if value.expose().trim() == real.expose() => token.clone(),
            Some(_) | None => value.clone(),
        }
    }

    /// The same access through a gateway at the socket: the sandbox gets a token that means nothing
    /// outside it, made of `unique`. `None` where a gateway cannot stand in for it.
    #[must_use]
    pub fn brokered(mut self, unique: &str) -> Option<Brokered> {
        let broker = self.broker.take()?;
        let token = Secret::new(format!("{}runbookd-{unique}", broker.token_prefix));
        self.env.retain(|(name, _)| {
            *name != broker.base_variable
                && *name != broker.credential_variable
                && !broker.drops.contains(name)
        });
        // They hold credentials, and nothing else.
        self.files.clear();
        broker.adds.iter().for_each(|(name, value)| self.set(name, value));
        self.set("ANTHROPIC_UNIX_SOCKET", SCRIPTED_SOCKET);
        self.set(broker.base_variable, AT_THE_SOCKET);
        self.set_secret(broker.credential_variable, &token);
        let real = broker.route.credential.secret();
        self.stand_in = real.map(|real| (real.clone(), token.clone()));
        Some(Brokered { access: self, route: broker.route, token })
    }
}

/// An access through a gateway.
#[derive(Debug)]
pub struct Brokered {
    /// What the sandbox gets.
    pub access: Access,
    /// Where the gateway sends what comes.
    pub route: Route,
    /// What the sandbox shows to the gateway.
    pub token: Secret,
}
