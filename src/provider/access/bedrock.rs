//! Bedrock: by its bearer token, or by static access keys, with which each request is signed.

use super::broker::{AwsKeys, Broker, Credential, Route, Wire};
use super::{Access, base_url, missing};
use crate::run::{Code, Finding, ProviderName};
use crate::secret::Keyring;

/// Where a credential can stand, the usual place first.
pub(super) const CREDENTIALS: [&str; 2] = [BEARER, KEY_ID];

const BEARER: &str = "AWS_BEARER_TOKEN_BEDROCK";
const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const KEY_SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
const REGION: &str = "AWS_REGION";
const BASE_URL: &str = "ANTHROPIC_BEDROCK_BASE_URL";

/// Where every model of the table is served.
const DEFAULT_REGION: &str = "us-east-1";

pub(super) fn access(keyring: &Keyring) -> Result<Access, Vec<Finding>> {
    let mut access = Access::default();
    let mut faults = Vec::new();
    access.set("CLAUDE_CODE_USE_BEDROCK", "1");
    // Without credentials the CLI would ask the machine's own role.
    access.set("AWS_EC2_METADATA_DISABLED", "true");
    let region = keyring.get(REGION).map_or(DEFAULT_REGION, |region| region.expose().trim());
    if is_region(region) {
        access.set(REGION, region);
    } else {
        faults.push(Finding::new(
            Code::MalformedCredential,
            format!("{REGION} is not the name of a region: write one such as {DEFAULT_REGION}"),
        ));
    }
    let mut upstream = format!("https://bedrock-runtime.{region}.amazonaws.com");
    let mut control = Some(format!("https://bedrock.{region}.amazonaws.com"));
    if let Some(url) = keyring.get(BASE_URL) {
        match base_url(BASE_URL, url) {
            Ok(url) => {
                access.set(BASE_URL, &url);
                (upstream, control) = (url, None);
            }
            Err(fault) => faults.push(fault),
        }
    }
    match (keyring.get(BEARER), keyring.get(KEY_ID), keyring.get(KEY_SECRET)) {
        // The bearer token wins: the CLI takes it first, and two credentials are one too many.
        (Some(token), _, _) => {
            access.set_secret(BEARER, token);
            access.broker = Some(broker((upstream, control), Credential::Bearer(token.clone())));
        }
        (None, Some(id), Some(secret)) => {
            access.set_secret(KEY_ID, id);
            access.set_secret(KEY_SECRET, secret);
            let session = keyring.get(SESSION_TOKEN).cloned();
            if let Some(token) = &session {
                access.set_secret(SESSION_TOKEN, token);
            }
            access.direct_urls = std::iter::once(&upstream).chain(&control).cloned().collect();
            let (id, secret, region) = (id.clone(), secret.clone(), region.to_owned());
            let credential = Credential::Aws(AwsKeys { id, secret, session, region });
            access.broker = Some(broker((upstream, control), credential));
        }
        (None, Some(_), None) => faults.push(half(KEY_ID, KEY_SECRET)),
        (None, None, Some(_)) => faults.push(half(KEY_SECRET, KEY_ID)),
        (None, None, None) => faults.push(missing(ProviderName::Bedrock)),
    }
    if faults.is_empty() { Ok(access) } else { Err(faults) }
}

/// Whatever the real credential is, the CLI shows the run's token as a bearer token.
fn broker((upstream, control): (String, Option<String>), credential: Credential) -> Broker {
    Broker {
        route: Route { upstream, control, credential, wire: Wire::Bedrock, vertex: None },
        base_variable: BASE_URL,
        credential_variable: BEARER,
        token_prefix: "ABSK",
        drops: &[KEY_ID, KEY_SECRET, SESSION_TOKEN],
        adds: &[],
    }
}

fn half(present: &str, absent: &str) -> Finding {
    Finding::new(Code::MissingKey, format!("{present} is set without {absent}: set both"))
}

fn is_region(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let legal = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (3..=4).contains(&parts.len()) && parts.iter().all(legal)
}

#[cfg(test)]
mod tests {
    use super::super::testing::given;
    use super::*;

    #[test]
    fn a_bearer_token_wins_over_access_keys() {
        let keys = [
            (KEY_ID, "AKIAMADEUP"),
            (KEY_SECRET, "made-up-secret"),
            (SESSION_TOKEN, "made-up-session"),
        ];
        let bearer = (BEARER, "ABSK-made-up");
        let start =
            "CLAUDE_CODE_USE_BEDROCK=1\nAWS_EC2_METADATA_DISABLED=true\nAWS_REGION=us-east-1\n";
        assert_eq!(
            given(access, &[keys[0], keys[1], bearer]),
            format!("{start}AWS_BEARER_TOKEN_BEDROCK=ABSK-made-up")
        );
        assert_eq!(
            given(access, &keys),
            format!(
                "{start}AWS_ACCESS_KEY_ID=AKIAMADEUP\nAWS_SECRET_ACCESS_KEY=made-up-secret\nAWS_SESSION_TOKEN=made-up-session"
            )
        );
    }

    /// jetty-api 18: static keys are not ignored; half of them is refused.
    #[test]
    fn f18_what_is_missing_is_named() {
        for (vars, expected) in [
            (
                &[][..],
                "missing-key: there is no credential for bedrock: set AWS_BEARER_TOKEN_BEDROCK or AWS_ACCESS_KEY_ID",
            ),
            (
                &[(KEY_ID, "AKIAMADEUP")],
                "missing-key: AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY",
            ),
            (
                &[(KEY_SECRET, "made-up")],
                "missing-key: AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID",
            ),
            (&[(BEARER, "ABSK-made-up"), (REGION, "here")], "malformed-credential: AWS_REGION"),
        ] {
            let given = given(access, vars);
            assert!(given.starts_with(expected), "{given}");
        }
    }
}
