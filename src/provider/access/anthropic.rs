//! Anthropic's API: by key, by a subscription's token, or through a gateway that speaks it.

use super::broker::{Broker, Credential, Route, Wire};
use super::{Access, base_url, missing};
use crate::run::{Code, Finding, ProviderName};
use crate::secret::{Keyring, Secret};

/// Where a credential can stand, the usual place first.
pub(super) const CREDENTIALS: [&str; 3] = [KEY, OAUTH, GATEWAY_TOKEN];

const KEY: &str = "ANTHROPIC_API_KEY";
const OAUTH: &str = "CLAUDE_CODE_OAUTH_TOKEN";
const GATEWAY_TOKEN: &str = "ANTHROPIC_AUTH_TOKEN";
const BASE_URL: &str = "ANTHROPIC_BASE_URL";

/// Where Anthropic itself is.
const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// How a key begins.
const KEY_PREFIX: &str = "sk-ant-api03-";

/// How a subscription's token begins (`claude setup-token` prints one).
const OAUTH_PREFIX: &str = "sk-ant-oat";

/// How the tokens of today begin.
const OAUTH_TOKEN_PREFIX: &str = "sk-ant-oat01-";

pub(super) fn access(keyring: &Keyring) -> Result<Access, Vec<Finding>> {
    let mut access = Access::default();
    let mut faults = Vec::new();
    let mut upstream = DEFAULT_BASE_URL.to_owned();
    match keyring.get(BASE_URL).map(|url| base_url(BASE_URL, url)) {
        Some(Ok(url)) => {
            access.set(BASE_URL, &url);
            upstream = url;
        }
        Some(Err(fault)) => faults.push(fault),
        None => {}
    }
    let broker =
        |variable, prefix, credential| Some(broker(&upstream, variable, prefix, credential));
    match (keyring.get(KEY), keyring.get(GATEWAY_TOKEN), keyring.get(OAUTH)) {
        (Some(_), Some(_), _) => faults.push(Finding::new(
            Code::ConflictingCredentials,
            format!(
                "{KEY} and {GATEWAY_TOKEN} are both set, and the agent would send both to the \
                 same address: remove {KEY} to use the gateway, or {GATEWAY_TOKEN} to use the key"
            ),
        )),
        (None, Some(token), _) if keyring.get(BASE_URL).is_some() => {
            access.set_secret(GATEWAY_TOKEN, token);
            access.broker = broker(GATEWAY_TOKEN, "", Credential::Bearer(token.clone()));
        }
        (None, Some(_), _) => faults.push(Finding::new(
            Code::ConflictingCredentials,
            format!(
                "{GATEWAY_TOKEN} is set without {BASE_URL}, so a gateway's token would go to \
                 Anthropic: set {BASE_URL} to the gateway's address"
            ),
        )),
        (Some(key), None, oauth) => {
            if key.expose().trim().starts_with(OAUTH_PREFIX) {
                faults.push(misplaced(KEY, "a subscription's token", OAUTH));
            }
            let key = trimmed(key);
            access.set_secret(KEY, &key);
            access.broker = broker(KEY, KEY_PREFIX, Credential::ApiKey(key));
            if oauth.is_some() {
                access.findings.push(Finding::new(
                    Code::SeveralCredentials,
                    format!("{KEY} and {OAUTH} are both set; the key is used"),
                ));
            }
        }
        (None, None, Some(token)) => {
            if !token.expose().trim().starts_with(OAUTH_PREFIX) {
                let mend = "make one with `claude setup-token`";
                let message = format!("{OAUTH} does not begin with `{OAUTH_PREFIX}`: {mend}");
                faults.push(Finding::new(Code::MalformedCredential, message));
            }
            let token = trimmed(token);
            access.set_secret(OAUTH, &token);
            access.broker = broker(OAUTH, OAUTH_TOKEN_PREFIX, Credential::Bearer(token));
        }
        (None, None, None) => faults.push(missing(ProviderName::Anthropic)),
    }
    if faults.is_empty() { Ok(access) } else { Err(faults) }
}

fn broker(
    upstream: &str,
    credential_variable: &'static str,
    token_prefix: &'static str,
    credential: Credential,
) -> Broker {
    let upstream = upstream.to_owned();
    let route = Route { upstream, control: None, credential, wire: Wire::Messages, vertex: None };
    Broker {
        route,
        base_variable: BASE_URL,
        credential_variable,
        token_prefix,
        drops: &[],
        adds: &[],
    }
}

fn misplaced(variable: &str, what: &str, right: &str) -> Finding {
    Finding::new(Code::MalformedCredential, format!("{variable} holds {what}: set {right} instead"))
}

/// Copied keys often end in a line break, which is not part of them.
fn trimmed(value: &Secret) -> Secret {
    Secret::new(value.expose().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::given;
    use super::*;

    const A_KEY: (&str, &str) = (KEY, "sk-ant-api03-made-up");
    const A_TOKEN: (&str, &str) = (OAUTH, "sk-ant-oat01-made-up");
    const A_GATEWAY: (&str, &str) = (GATEWAY_TOKEN, "made-up-gateway-token");
    const AN_URL: (&str, &str) = (BASE_URL, "https://gw.example.org/v1/");

    #[test]
    fn each_credential_gives_its_own_variables() {
        for (vars, expected) in [
            (&[A_KEY][..], "ANTHROPIC_API_KEY=sk-ant-api03-made-up"),
            (
                &[A_KEY, AN_URL],
                "ANTHROPIC_BASE_URL=https://gw.example.org\nANTHROPIC_API_KEY=sk-ant-api03-made-up",
            ),
            (&[A_TOKEN], "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-made-up"),
            (
                &[A_GATEWAY, AN_URL],
                "ANTHROPIC_BASE_URL=https://gw.example.org\nANTHROPIC_AUTH_TOKEN=made-up-gateway-token",
            ),
            (
                &[A_KEY, A_TOKEN],
                "ANTHROPIC_API_KEY=sk-ant-api03-made-up\n! ANTHROPIC_API_KEY and CLAUDE_CODE_OAUTH_TOKEN are both set; the key is used",
            ),
            (&[(KEY, " sk-ant-api03-made-up\n")], "ANTHROPIC_API_KEY=sk-ant-api03-made-up"),
        ] {
            assert_eq!(given(access, vars), expected);
        }
    }

    #[test]
    fn what_would_go_wrong_is_refused_with_the_variable_that_mends_it() {
        for (vars, expected) in [
            (
                &[][..],
                "missing-key: there is no credential for anthropic: set ANTHROPIC_API_KEY or",
            ),
            (
                &[A_KEY, A_GATEWAY, AN_URL],
                "conflicting-credentials: ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN",
            ),
            (
                &[A_GATEWAY],
                "conflicting-credentials: ANTHROPIC_AUTH_TOKEN is set without ANTHROPIC_BASE_URL",
            ),
            (
                &[(KEY, "sk-ant-oat01-made-up")],
                "malformed-credential: ANTHROPIC_API_KEY holds a subscription's token",
            ),
            (
                &[(OAUTH, "sk-ant-api03-made-up")],
                "malformed-credential: CLAUDE_CODE_OAUTH_TOKEN does not begin",
            ),
            (
                &[A_KEY, (BASE_URL, "gw")],
                "malformed-credential: ANTHROPIC_BASE_URL is not a base URL",
            ),
        ] {
            let given = given(access, vars);
            assert!(given.starts_with(expected), "{given}");
            assert!(!given.contains("made-up"), "a value is shown: {given}");
        }
    }
}
