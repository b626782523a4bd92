//! Vertex AI: a project, a region, and a service account's key file, or a gateway that signs.

use super::broker::{Broker, Credential, Route, Wire};
use super::{Access, base_url, missing};
use crate::run::{Code, Finding, ProviderName};
use crate::secret::Keyring;

/// Where a credential can stand, the usual place first.
pub(super) const CREDENTIALS: [&str; 2] = [CREDENTIALS_JSON, SKIP_AUTH];

/// The service account's key, as JSON text.
const CREDENTIALS_JSON: &str = "GOOGLE_APPLICATION_CREDENTIALS_JSON";
const SKIP_AUTH: &str = "CLAUDE_CODE_SKIP_VERTEX_AUTH";
const PROJECT: &str = "ANTHROPIC_VERTEX_PROJECT_ID";
const CLOUD_PROJECT: &str = "GOOGLE_CLOUD_PROJECT";
const REGION: &str = "CLOUD_ML_REGION";
const BASE_URL: &str = "ANTHROPIC_VERTEX_BASE_URL";

/// Where the models are served that the CLI asks for by default.
const DEFAULT_REGION: &str = "us-east5";

/// Where the key file stands inside the sandbox.
const KEY_FILE: &str = "/run/runbookd/in/google-credentials.json";

pub(super) fn access(keyring: &Keyring) -> Result<Access, Vec<Finding>> {
    let mut access = Access::default();
    let mut faults = Vec::new();
    access.set("CLAUDE_CODE_USE_VERTEX", "1");
    // Google's library would ask the machine's own role.
    access.set("METADATA_SERVER_DETECTION", "none");
    let region = keyring.get(REGION).map_or(DEFAULT_REGION, |region| region.expose().trim());
    access.set(REGION, region);
    match keyring.get(PROJECT).or_else(|| keyring.get(CLOUD_PROJECT)) {
        Some(project) => access.set(PROJECT, project.expose().trim()),
        None => faults.push(Finding::new(
            Code::MissingKey,
            format!("there is no project for vertex: set {PROJECT} or {CLOUD_PROJECT}"),
        )),
    }
    let mut upstream = None;
    if let Some(url) = keyring.get(BASE_URL) {
        match base_url(BASE_URL, url) {
            Ok(url) => {
                access.set(BASE_URL, &url);
                upstream = Some(url);
            }
            Err(fault) => faults.push(fault),
        }
    }
    match (keyring.get(CREDENTIALS_JSON), keyring.get(SKIP_AUTH)) {
        (Some(json), _) if is_service_account(json.expose()) => {
            access.set("GOOGLE_APPLICATION_CREDENTIALS", KEY_FILE);
            access.secrets.extend(private_key(json.expose()));
            access.files.push((KEY_FILE, json.clone()));
            access.direct_urls = upstream.map_or_else(|| service_urls(region), |url| vec![url]);
        }
        (Some(_), _) => faults.push(Finding::new(
            Code::MalformedCredential,
            format!("{CREDENTIALS_JSON} is not a service account's key: write the whole JSON file into it"),
        )),
        (None, Some(_)) if keyring.get(BASE_URL).is_some() => {
            access.pass(SKIP_AUTH, keyring);
            // The CLI shows this one where it is not to ask Google for its own.
            access.broker = upstream.map(|upstream| Broker {
                route: Route {
                    upstream,
                    control: None,
                    credential: Credential::None,
                    wire: Wire::Vertex,
                },
                base_variable: BASE_URL,
                credential_variable: "ANTHROPIC_AUTH_TOKEN",
                token_prefix: "",
            });
        }
        (None, Some(_)) => faults.push(Finding::new(
            Code::ConflictingCredentials,
            format!("{SKIP_AUTH} is for a gateway that signs: set {BASE_URL} to its address"),
        )),
        (None, None) => faults.push(missing(ProviderName::Vertex)),
    }
    if faults.is_empty() { Ok(access) } else { Err(faults) }
}

/// Where Google serves the models of a region.
fn service_urls(region: &str) -> Vec<String> {
    let host = match region {
        "global" => "aiplatform.googleapis.com".to_owned(),
        region => format!("{region}-aiplatform.googleapis.com"),
    };
    vec![format!("https://{host}")]
}

fn is_service_account(json: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(json).is_ok_and(|key| {
        let has = |field: &str| key.get(field).is_some_and(serde_json::Value::is_string);
        has("client_email") && has("private_key")
    })
}

/// What of the file must never be seen, line by line as it is usually quoted.
fn private_key(json: &str) -> Vec<crate::secret::Secret> {
    let key = serde_json::from_str::<serde_json::Value>(json).ok();
    let key = key.as_ref().and_then(|key| key.get("private_key")?.as_str()).unwrap_or_default();
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    lines.map(|line| crate::secret::Secret::new(line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::given;
    use super::*;

    const A_KEY: &str = r#"{"client_email": "made-up@example.org", "private_key": "-----BEGIN PRIVATE KEY-----\nbWFkZS11cA==\n-----END PRIVATE KEY-----\n"}"#;

    #[test]
    fn a_service_account_is_a_file_in_the_sandbox() {
        assert_eq!(
            given(access, &[(CREDENTIALS_JSON, A_KEY), (CLOUD_PROJECT, "proj-x")]),
            "CLAUDE_CODE_USE_VERTEX=1\nMETADATA_SERVER_DETECTION=none\nCLOUD_ML_REGION=us-east5\n\
             ANTHROPIC_VERTEX_PROJECT_ID=proj-x\n\
             GOOGLE_APPLICATION_CREDENTIALS=/run/runbookd/in/google-credentials.json\n\
             file /run/runbookd/in/google-credentials.json"
        );
    }

    #[test]
    fn a_gateway_that_signs_needs_an_address_and_no_key() {
        let skip = (SKIP_AUTH, "1");
        let project = (PROJECT, "proj-x");
        assert!(given(access, &[skip, project]).starts_with("conflicting-credentials"));
        let with_url = given(access, &[skip, project, (BASE_URL, "https://gw.example.org")]);
        assert!(with_url.ends_with("CLAUDE_CODE_SKIP_VERTEX_AUTH=1"), "{with_url}");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let given = given(access, &[]);
        assert!(given.contains("ANTHROPIC_VERTEX_PROJECT_ID or GOOGLE_CLOUD_PROJECT"), "{given}");
        assert!(given.contains("GOOGLE_APPLICATION_CREDENTIALS_JSON"), "{given}");
    }
}
