//! Which credentials a request carried, told apart without being kept.

use std::fmt;

use axum::http::header::{AUTHORIZATION, HeaderMap};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Anthropic's own header for a key.
const API_KEY: &str = "x-api-key";

/// Where AWS wants the token of a session, beside the signature.
const SESSION_TOKEN: &str = "x-amz-security-token";

/// The scheme of AWS's signature, version 4.
const SIGV4: &str = "AWS4-HMAC-SHA256";

/// The end of the scope of each such signature, behind date, region and service.
const SIGV4_SCOPE_END: &str = "aws4_request";

/// Bytes of a hash that are shown, two digits each: enough to tell credentials apart.
const FINGERPRINT_BYTES: usize = 8;

/// How a request proved who sends it. The agent CLI sends one header, the other, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Auth {
    /// The key in `x-api-key`.
    pub api_key: Option<Fingerprint>,
    /// What stands in `authorization`.
    pub authorization: Option<Authorization>,
}

/// What stands in `authorization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum Authorization {
    /// `Bearer …`.
    Bearer {
        /// The token.
        token: Fingerprint,
    },
    /// AWS's signature, version 4. Whether it is right is not looked at.
    #[serde(rename = "sigv4")]
    SigV4 {
        /// The id of the key that signed. The key itself is never sent.
        access_key_id: Fingerprint,
        /// The token of the session, where there is one.
        session_token: Option<Fingerprint>,
        /// The region that the signature is for.
        region: String,
        /// The service that the signature is for.
        service: String,
    },
    /// Another scheme, or one of these in a form that is not theirs.
    Unknown,
}

impl Auth {
    /// Reads the headers of a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            api_key: text(headers, API_KEY).map(Fingerprint::of),
            authorization: text(headers, AUTHORIZATION.as_str())
                .map(|authorization| Authorization::of(authorization, headers)),
        }
    }
}

impl Authorization {
    fn of(authorization: &str, headers: &HeaderMap) -> Self {
        let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if scheme.eq_ignore_ascii_case("bearer") && !rest.trim().is_empty() {
            return Self::Bearer { token: Fingerprint::of(rest.trim()) };
        }
        match sigv4_scope(authorization) {
            Some((access_key_id, region, service)) => Self::SigV4 {
                access_key_id: Fingerprint::of(access_key_id),
                session_token: text(headers, SESSION_TOKEN).map(Fingerprint::of),
                region: region.to_owned(),
                service: service.to_owned(),
            },
            None => Self::Unknown,
        }
    }
}

/// A header, where it is there. One that is no text is there, and empty.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The id of the key, the region and the service of an AWS signature.
fn sigv4_scope(authorization: &str) -> Option<(&str, &str, &str)> {
    let parts = authorization.strip_prefix(SIGV4)?.split(',').map(str::trim);
    let credential = parts.into_iter().find_map(|part| part.strip_prefix("Credential="))?;
    let scope: Vec<&str> = credential.split('/').collect();
    match scope[..] {
        [access_key_id, _date, region, service, SIGV4_SCOPE_END] => {
            Some((access_key_id, region, service))
        }
        _ => None,
    }
}

/// The first 16 hexadecimal digits of a credential's SHA-256: it shows which one came, and cannot
/// be turned back into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a credential.
    #[must_use]
    pub fn of(credential: &str) -> Self {
        let hash = Sha256::digest(credential);
        Self(hash.iter().take(FINGERPRINT_BYTES).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use expect_test::expect;

    use super::*;

    fn auth(headers: &[(&str, &str)]) -> Auth {
        let header = |&(name, value): &(&str, &str)| {
            (HeaderName::try_from(name).unwrap(), value.parse().unwrap())
        };
        Auth::of(&headers.iter().map(header).collect())
    }

    #[test]
    fn a_fingerprint_is_the_start_of_the_sha256() {
        // The first 8 bytes of the test vector of FIPS 180-2 for "abc".
        assert_eq!(Fingerprint::of("abc").to_string(), "ba7816bf8f01cfea");
    }

    fn authorization(headers: &[(&str, &str)]) -> Authorization {
        auth(headers).authorization.unwrap()
    }

    #[test]
    fn keys_and_tokens_are_told_apart() {
        let key = ("x-api-key", "sk-ant-made-up-key");
        let bearer = ("authorization", "Bearer made-up-token");
        let api_key = Some(Fingerprint::of("sk-ant-made-up-key"));
        let token = Fingerprint::of("made-up-token");
        let authorization = Some(Authorization::Bearer { token });
        assert_eq!(auth(&[]), Auth::default());
        assert_eq!(auth(&[key]), Auth { api_key: api_key.clone(), ..Auth::default() });
        let by_token = Auth { authorization: authorization.clone(), ..Auth::default() };
        assert_eq!(auth(&[bearer]), by_token);
        assert_eq!(auth(&[("authorization", "bearer  made-up-token")]), by_token);
        assert_eq!(auth(&[key, bearer]), Auth { api_key, authorization });
    }

    const SIGNED: &str = "AWS4-HMAC-SHA256 \
        Credential=AKIAMADEUP/20261120/eu-west-1/bedrock/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=92ea71";

    #[test]
    fn a_signature_tells_its_key_and_its_region() {
        let signed = |session_token| Authorization::SigV4 {
            access_key_id: Fingerprint::of("AKIAMADEUP"),
            session_token,
            region: "eu-west-1".to_owned(),
            service: "bedrock".to_owned(),
        };
        assert_eq!(authorization(&[("authorization", SIGNED)]), signed(None));
        let without_spaces = SIGNED.replace(", ", ",");
        assert_eq!(authorization(&[("authorization", &without_spaces)]), signed(None));
        let with_session = [("authorization", SIGNED), ("x-amz-security-token", "made-up")];
        assert_eq!(authorization(&with_session), signed(Some(Fingerprint::of("made-up"))));
    }

    #[test]
    fn what_is_neither_is_unknown() {
        for header in [
            "Basic bWFkZTp1cA==",
            "Bearer",
            "Bearer ",
            "",
            "AWS4-HMAC-SHA256 Signature=92ea71",
            "AWS4-HMAC-SHA256 Credential=AKIAMADEUP/eu-west-1/bedrock/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AKIAMADEUP/20261120/eu-west-1/bedrock/aws5_request",
        ] {
            assert_eq!(
                authorization(&[("authorization", header)]),
                Authorization::Unknown,
                "{header:?}"
            );
        }
    }

    #[test]
    fn the_ledger_is_written_with_fingerprints() {
        let line = |headers: &[(&str, &str)]| serde_json::to_string(&auth(headers)).unwrap();
        let lines = [
            line(&[]),
            line(&[("x-api-key", "abc"), ("authorization", "Bearer abc")]),
            line(&[("authorization", SIGNED)]),
        ];
        expect![[r#"
            {"api_key":null,"authorization":null}
            {"api_key":"ba7816bf8f01cfea","authorization":{"scheme":"bearer","token":"ba7816bf8f01cfea"}}
            {"api_key":null,"authorization":{"scheme":"sigv4","access_key_id":"1aab1147d481fed1","session_token":null,"region":"eu-west-1","service":"bedrock"}}"#]]
        .assert_eq(&lines.join("\n"));
    }
}
