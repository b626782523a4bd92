//! Vertex AI: a project, a region, and a service account's key file, or a gateway that signs.

use super::broker::{Broker, Credential, Route, VertexPlace, Wire};
use super::{Access, base_url, missing};
use crate::run::{Code, Finding, ProviderName};
use crate::secret::{Keyring, Secret};

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

/// Where tokens are to be had when the key file does not say.
const DEFAULT_TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// The variable that leads the CLI to the key file.
const KEY_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// Where the key file stands inside the sandbox, where no gateway is in between.
const KEY_FILE: &str = "/run/runbookd/in/google-credentials.json";

pub(super) fn access(keyring: &Keyring) -> Result<Access, Vec<Finding>> {
    let mut access = Access::default();
    let mut faults = Vec::new();
    access.set("CLAUDE_CODE_USE_VERTEX", "1");
    // Google's library would ask the machine's own role.
    access.set("METADATA_SERVER_DETECTION", "none");
    let region = keyring.get(REGION).map_or(DEFAULT_REGION, |region| region.expose().trim());
    if is_region(region) {
        access.set(REGION, region);
    } else {
        faults.push(Finding::new(
            Code::MalformedCredential,
            format!("{REGION} is not the name of a region: write one such as {DEFAULT_REGION}"),
        ));
    }
    let project = project(keyring);
    match &project {
        Some(project) => access.set(PROJECT, project),
        None => faults.push(Finding::new(
            Code::MissingKey,
            format!("there is no project for vertex: set {PROJECT} or {CLOUD_PROJECT}"),
        )),
    }
    let place = VertexPlace { project: project.unwrap_or_default(), location: region.to_owned() };
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
            access.set(KEY_VARIABLE, KEY_FILE);
            access.secrets.extend(private_key(json.expose()));
            access.files.push((KEY_FILE, json.clone()));
            let token_uri = field(json.expose(), "token_uri");
            let token_uri = token_uri.unwrap_or_else(|| DEFAULT_TOKEN_URI.to_owned());
            let credential = Credential::ServiceAccount { key_file: json.clone(), token_uri };
            let upstream = upstream.unwrap_or_else(|| service(region));
            access.direct_urls = vec![upstream.clone()];
            access.broker = Some(broker(upstream, credential, place));
        }
        (Some(_), _) => faults.push(Finding::new(
            Code::MalformedCredential,
            format!("{CREDENTIALS_JSON} is not a service account's key: write the whole JSON file into it"),
        )),
        (None, Some(_)) if keyring.get(BASE_URL).is_some() => {
            access.pass(SKIP_AUTH, keyring);
            access.broker = upstream.map(|upstream| broker(upstream, Credential::None, place));
        }
        (None, Some(_)) => faults.push(Finding::new(
            Code::ConflictingCredentials,
            format!("{SKIP_AUTH} is for a gateway that signs: set {BASE_URL} to its address"),
        )),
        (None, None) => faults.push(missing(ProviderName::Vertex)),
    }
    if faults.is_empty() { Ok(access) } else { Err(faults) }
}

fn project(keyring: &Keyring) -> Option<String> {
    let project = keyring.get(PROJECT).or_else(|| keyring.get(CLOUD_PROJECT))?;
    Some(project.expose().trim().to_owned())
}

/// A gateway shows the real credential. The CLI is told not to ask Google for one of its own, and shows
/// what stands in this variable.
fn broker(upstream: String, credential: Credential, place: VertexPlace) -> Broker {
    Broker {
        route: Route {
            upstream,
            control: None,
            credential,
            wire: Wire::Vertex,
            vertex: Some(place),
        },
        base_variable: BASE_URL,
        credential_variable: "ANTHROPIC_AUTH_TOKEN",
        token_prefix: "",
        drops: &[KEY_VARIABLE, SKIP_AUTH],
        adds: &[(SKIP_AUTH, "1")],
    }
}

/// Where a region's service is.
fn service(region: &str) -> String {
    match region {
        "global" => "https://aiplatform.googleapis.com/v1".to_owned(),
        "us" | "eu" => format!("https://aiplatform.{region}.rep.googleapis.com/v1"),
        region => format!("https://{region}-aiplatform.googleapis.com/v1"),
    }
}

fn is_region(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.bytes().all(legal)
}

fn field(json: &str, name: &str) -> Option<String> {
    let key: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(key.get(name)?.as_str()?.to_owned())
}

fn is_service_account(json: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(json).is_ok_and(|key| {
        let has = |field: &str| key.get(field).is_some_and(serde_json::Value::is_string);
        has("client_email") && has("private_key")
    })
}

/// What of the file must never be seen, line by line as it is usually quoted.
fn private_key(json: &str) -> Vec<Secret> {
    let key = field(json, "private_key").unwrap_or_default();
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    lines.map(|line| Secret::new(line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::given;
    use super::*;

    const A_KEY: &str = r#"{"client_email": "made-up@example.org", "private_key": "-----BEGIN PRIVATE KEY-----\nbWFkZS11cA==\n-----END PRIVATE KEY-----\n"}"#;

    #[test]
    fn a_service_account_is_a_file_in_the_sandbox_where_no_gateway_is_between() {
        assert_eq!(
            given(access, &[(CREDENTIALS_JSON, A_KEY), (CLOUD_PROJECT, "proj-x")]),
            "CLAUDE_CODE_USE_VERTEX=1\nMETADATA_SERVER_DETECTION=none\nCLOUD_ML_REGION=us-east5\n\
             ANTHROPIC_VERTEX_PROJECT_ID=proj-x\n\
             GOOGLE_APPLICATION_CREDENTIALS=/run/runbookd/in/google-credentials.json\n\
             file /run/runbookd/in/google-credentials.json"
        );
    }

    #[test]
    fn behind_a_gateway_nothing_of_the_service_account_is_in_the_sandbox() {
        let vars = [(CREDENTIALS_JSON, A_KEY), (CLOUD_PROJECT, "proj-x"), (REGION, "global")];
        let secret = |value: &str| Secret::new(value.to_owned());
        let keyring = vars.iter().map(|&(name, value)| (name.to_owned(), secret(value)));
        let access = access(&keyring.collect()).unwrap();
        let places: Vec<&str> = access.places().collect();
        assert_eq!(places, ["https://aiplatform.googleapis.com/v1", DEFAULT_TOKEN_URI]);
        let brokered = access.brokered("made-up").unwrap();
        let own = VertexPlace { project: "proj-x".to_owned(), location: "global".to_owned() };
        assert_eq!(brokered.route.vertex, Some(own));
        assert!(brokered.access.files.is_empty());
        let env = brokered.access.env.iter().map(|(n, v)| format!("{n}={}", v.expose()));
        assert_eq!(
            env.collect::<Vec<_>>().join("\n"),
            "CLAUDE_CODE_USE_VERTEX=1\nMETADATA_SERVER_DETECTION=none\nCLOUD_ML_REGION=global\n\
             ANTHROPIC_VERTEX_PROJECT_ID=proj-x\nCLAUDE_CODE_SKIP_VERTEX_AUTH=1\n\
             ANTHROPIC_UNIX_SOCKET=/run/runbookd/model/model.sock\n\
             ANTHROPIC_VERTEX_BASE_URL=http://localhost\nANTHROPIC_AUTH_TOKEN=runbookd-made-up"
        );
        // A runbook that wants the key as its own secret gets the token.
        assert_eq!(brokered.access.stand_in(&secret(A_KEY)).expose(), "runbookd-made-up");
    }

    #[test]
    fn a_region_is_a_name_and_nothing_else() {
        let vars = [(CREDENTIALS_JSON, A_KEY), (CLOUD_PROJECT, "p"), (REGION, "x.example.org/")];
        assert!(given(access, &vars).starts_with("malformed-credential: CLOUD_ML_REGION"));
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
