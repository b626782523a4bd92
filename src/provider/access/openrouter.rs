//! OpenRouter: it speaks Anthropic's API under `/api`, and takes its key as a bearer token.

use super::super::models::Model;
use super::broker::{Broker, Credential, Route, Wire};
use super::{Access, base_url, missing};
use crate::run::{Finding, ProviderName};
use crate::secret::Keyring;

/// Where a credential can stand.
pub(super) const CREDENTIALS: [&str; 1] = [KEY];

const KEY: &str = "OPENROUTER_API_KEY";
const BASE_URL: &str = "OPENROUTER_BASE_URL";

/// The CLI appends `/v1/messages`. (With the documented `…/api/v1` it asks for `/api/v1/v1/…`.)
const DEFAULT_BASE_URL: &str = "https://openrouter.ai/api";

/// The models behind the CLI's own words, so that side calls and sub-agents are spelled right too.
const MODEL_VARIABLES: [(&str, &str); 4] = [
    ("ANTHROPIC_DEFAULT_SONNET_MODEL", "sonnet"),
    ("ANTHROPIC_DEFAULT_OPUS_MODEL", "opus"),
    ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "haiku"),
    ("ANTHROPIC_SMALL_FAST_MODEL", "haiku"),
];

pub(super) fn access(keyring: &Keyring) -> Result<Access, Vec<Finding>> {
    let mut access = Access::default();
    let mut faults = Vec::new();
    let mut upstream = DEFAULT_BASE_URL.to_owned();
    match keyring.get(BASE_URL).map(|url| base_url(BASE_URL, url)) {
        None => {}
        Some(Ok(url)) => upstream = url,
        Some(Err(fault)) => faults.push(fault),
    }
    access.set("ANTHROPIC_BASE_URL", &upstream);
    match keyring.get(KEY) {
        Some(key) => {
            access.set_secret("ANTHROPIC_AUTH_TOKEN", key);
            let credential = Credential::Bearer(key.clone());
            access.broker = Some(Broker {
                route: Route {
                    upstream,
                    control: None,
                    credential,
                    wire: Wire::Messages,
                    vertex: None,
                },
                base_variable: "ANTHROPIC_BASE_URL",
                credential_variable: "ANTHROPIC_AUTH_TOKEN",
                token_prefix: "sk-or-v1-",
                drops: &[],
                adds: &[],
            });
        }
        None => faults.push(missing(ProviderName::OpenRouter)),
    }
    // As `ANTHROPIC_API_KEY` the CLI would send the key to Anthropic as well. Empty, so that one
    // that an image brings along does not count either.
    access.set("ANTHROPIC_API_KEY", "");
    for (variable, word) in MODEL_VARIABLES {
        if let Some(model) = Model::find(word) {
            access.set(variable, model.openrouter);
        }
    }
    // The block changes with each request, and a router that passes it on never hits its cache.
    access.set("CLAUDE_CODE_ATTRIBUTION_HEADER", "0");
    if faults.is_empty() { Ok(access) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::given;
    use super::*;

    #[test]
    fn the_key_is_a_bearer_token_and_never_an_anthropic_key() {
        let expected = |url: &str| {
            format!(
                "ANTHROPIC_BASE_URL={url}\nANTHROPIC_AUTH_TOKEN=sk-or-made-up\nANTHROPIC_API_KEY=\n\
                 ANTHROPIC_DEFAULT_SONNET_MODEL=anthropic/claude-sonnet-4.6\n\
                 ANTHROPIC_DEFAULT_OPUS_MODEL=anthropic/claude-opus-4.7\n\
                 ANTHROPIC_DEFAULT_HAIKU_MODEL=anthropic/claude-haiku-4.5\n\
                 ANTHROPIC_SMALL_FAST_MODEL=anthropic/claude-haiku-4.5\n\
                 CLAUDE_CODE_ATTRIBUTION_HEADER=0"
            )
        };
        let key = (KEY, "sk-or-made-up");
        assert_eq!(given(access, &[key]), expected(DEFAULT_BASE_URL));
        for url in ["https://proxy.example.org/api/v1", "https://proxy.example.org/api/"] {
            assert_eq!(
                given(access, &[key, (BASE_URL, url)]),
                expected("https://proxy.example.org/api")
            );
        }
        assert!(given(access, &[]).starts_with(
            "missing-key: there is no credential for openrouter: set OPENROUTER_API_KEY"
        ));
    }
}
