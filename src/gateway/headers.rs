//! Which headers pass: those that are known to mean something and to be no credential.

use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::provider::Credential;
use crate::run::{ProviderTool, ProviderTools};
use crate::secret::Secret;

/// Where Anthropic's services want a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The betas that were asked for, in a list.
const BETA: &str = "anthropic-beta";

/// What a service is asked with.
const ASKED_WITH: [&str; 9] = [
    "accept",
    "anthropic-version",
    BETA,
    "content-type",
    "user-agent",
    "x-amzn-bedrock-accept",
    "x-app",
    "x-claude-code-session-id",
    "x-title",
];

/// What the CLI's client library tells of itself begins so.
const OF_THE_LIBRARY: &str = "x-stainless-";

/// How often the CLI's library has tried this request before.
pub(super) const RETRY_COUNT: &str = "x-stainless-retry-count";

/// Betas that let the service reach the network, or files that nobody checked; with the tool that
/// opens them, where one does.
const CLOSED_BETAS: [(&str, Option<ProviderTool>); 7] = [
    ("code-execution-", Some(ProviderTool::CodeExecution)),
    // The service asks a model of its own accord, and tells its tokens apart from the answer's.
    ("compact-", None),
    ("files-api-", None),
    ("mcp-client-", Some(ProviderTool::RemoteMcp)),
    ("mcp-servers-", Some(ProviderTool::RemoteMcp)),
    ("skills-", None),
    ("web-fetch-", Some(ProviderTool::WebFetch)),
];

/// What a service answers with. No name of an organization or an account is among it.
const ANSWERED_WITH: [&str; 10] = [
    "content-type",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-amzn-bedrock-content-type",
    "x-amzn-errortype",
    "x-amzn-requestid",
    "x-generation-id",
    "x-request-id",
    "x-should-retry",
];

/// Where a subscription stands begins so.
const LIMITS: &str = "anthropic-ratelimit-";

/// In which header a service names a request, the usual one first.
pub(super) const REQUEST_IDS: [&str; 4] =
    ["request-id", "x-amzn-requestid", "x-generation-id", "x-request-id"];

/// What of a request's headers goes on, with the real credential.
pub(super) fn asked(
    headers: &HeaderMap,
    credential: &Credential,
    tools: &ProviderTools,
) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        let name_text = name.as_str();
        if name_text == BETA {
            if let Some(value) = open_betas(value, tools) {
                passed.append(name, value);
            }
        } else if ASKED_WITH.contains(&name_text) || name_text.starts_with(OF_THE_LIBRARY) {
            passed.append(name, value.clone());
        }
    }
    match credential {
        Credential::ApiKey(key) => insert(&mut passed, API_KEY, key.expose()),
        Credential::Bearer(token) => {
            insert(&mut passed, AUTHORIZATION, &format!("Bearer {}", token.expose()));
        }
        // A token is shown in its place, or a signature is put on.
        Credential::ServiceAccount { .. } | Credential::Aws(_) | Credential::None => {}
    }
    passed
}

/// What of an answer's headers goes back.
pub(super) fn answered(headers: &HeaderMap) -> HeaderMap {
    let passes = |name: &HeaderName| {
        ANSWERED_WITH.contains(&name.as_str()) || name.as_str().starts_with(LIMITS)
    };
    headers.iter().filter(|(name, _)| passes(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Whether a request shows the run's token, in the place where its CLI puts it.
pub(super) fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let key = headers.get(API_KEY).and_then(|value| value.to_str().ok());
    let expected = token.expose().as_bytes();
    // Time that depends on where two texts differ would tell the token bit by bit.
    [bearer, key].into_iter().flatten().any(|shown| {
        use subtle::ConstantTimeEq as _;
        bool::from(shown.as_bytes().ct_eq(expected))
    })
}

/// Whether a beta is closed, and the tool that opens it, where one does.
pub(super) fn closed_beta(beta: &str) -> Option<Option<ProviderTool>> {
    let beta = beta.trim();
    CLOSED_BETAS.iter().find(|(start, _)| beta.starts_with(start)).map(|(_, opened)| *opened)
}

fn open_betas(value: &HeaderValue, tools: &ProviderTools) -> Option<HeaderValue> {
    let is_closed = |beta: &str| {
        closed_beta(beta).is_some_and(|opened| !opened.is_some_and(|tool| tools.contains(&tool)))
    };
    let list = value.to_str().ok()?;
    let open: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|beta| !beta.is_empty() && !is_closed(beta))
        .collect();
    if open.is_empty() { None } else { HeaderValue::from_str(&open.join(",")).ok() }
}

/// A credential that no header can hold could never have been used; the service says so.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<String> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn only_the_runs_real_credential_goes_on() {
        let given = map(&[
            ("x-api-key", "sk-ant-made-up-by-the-agent"),
            ("authorization", "Bearer made-up-by-the-agent"),
            ("proxy-authorization", "Basic bWFkZS11cA=="),
            ("x-goog-api-key", "made-up"),
            ("cookie", "session=made-up"),
            ("x-amz-security-token", "made-up"),
            ("host", "elsewhere.example.org"),
            ("x-forwarded-for", "10.0.0.1"),
            ("content-type", "application/json"),
            ("x-stainless-retry-count", "1"),
            (
                "anthropic-beta",
                "claude-code-20250219, files-api-2025-04-14,mcp-client-2025-04-04,compact-2026-01-12",
            ),
        ]);
        let kept = [
            "anthropic-beta: claude-code-20250219",
            "content-type: application/json",
            "x-stainless-retry-count: 1",
        ];
        let secret = |text: &str| Secret::new(text.to_owned());
        for (credential, line) in [
            (Credential::ApiKey(secret("sk-ant-made-up")), Some("x-api-key: sk-ant-made-up")),
            (Credential::Bearer(secret("made-up")), Some("authorization: Bearer made-up")),
            (Credential::None, None),
        ] {
            let mut expected: Vec<&str> = kept.into_iter().chain(line).collect();
            expected.sort_unstable();
            assert_eq!(shown(&asked(&given, &credential, &[].into())), expected);
        }
        let opened = asked(&given, &Credential::None, &[ProviderTool::RemoteMcp].into());
        assert_eq!(opened["anthropic-beta"], "claude-code-20250219,mcp-client-2025-04-04");
    }

    #[test]
    fn an_answer_tells_nothing_of_the_account() {
        let given = map(&[
            ("content-type", "text/event-stream"),
            ("request-id", "req_1"),
            ("anthropic-organization-id", "0000-made-up"),
            ("anthropic-ratelimit-unified-status", "allowed"),
            ("set-cookie", "a=b"),
            ("retry-after", "3"),
        ]);
        assert_eq!(
            shown(&answered(&given)),
            [
                "anthropic-ratelimit-unified-status: allowed",
                "content-type: text/event-stream",
                "request-id: req_1",
                "retry-after: 3",
            ]
        );
    }

    #[test]
    fn the_runs_token_is_known_in_either_header_and_no_other_is() {
        let token = Secret::new("sk-ant-api03-runbookd-made-up".to_owned());
        for (headers, expected) in [
            (&[("x-api-key", "sk-ant-api03-runbookd-made-up")][..], true),
            (&[("authorization", "Bearer sk-ant-api03-runbookd-made-up")], true),
            (&[("authorization", "sk-ant-api03-runbookd-made-up")], false),
            (&[("x-api-key", "sk-ant-api03-runbookd-made-u")], false),
            (&[("x-api-key", "")], false),
            (&[], false),
        ] {
            assert_eq!(shows(&map(headers), &token), expected, "{headers:?}");
        }
    }
}
