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

/// How a request proved who sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum Auth {
    /// Not at all.
    Absent,
    /// By `x-api-key`.
    ApiKey {
        /// The key.
        key: Fingerprint,
    },
    /// By `authorization: Bearer …`.
    Bearer {
        /// The token.
        token: Fingerprint,
    },
    /// By `x-api-key` and by `authorization: Bearer …`.
    Both {
        /// The key.
        key: Fingerprint,
        /// The token.
        token: Fingerprint,
    },
    /// By AWS's signature, version 4. Whether it is right is not looked at.
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
    /// By an `authorization` of another form, or by a mixture that no client has reason to send.
    Unknown,
}

impl Auth {
    /// Reads the headers of a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let key = text(API_KEY).map(Fingerprint::of);
        let Some(authorization) = text(AUTHORIZATION.as_str()) else {
            return key.map_or(Self::Absent, |key| Self::ApiKey { key });
        };
        let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if scheme.eq_ignore_ascii_case("bearer") && !rest.trim().is_empty() {
            let token = Fingerprint::of(rest.trim());
            return match key {
                Some(key) => Self::Both { key, token },
                None => Self::Bearer { token },
            };
        }
        match sigv4_scope(authorization) {
            Some((access_key_id, region, service)) if key.is_none() => Self::SigV4 {
                access_key_id: Fingerprint::of(access_key_id),
                session_token: text(SESSION_TOKEN).map(Fingerprint::of),
                region: region.to_owned(),
                service: service.to_owned(),
            },
            Some(_) | None => Self::Unknown,
        }
    }
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

    #[test]
    fn each_scheme_is_known() {
        let (key, token) = ("sk-ant-made-up-key", "made-up-token");
        let bearer = format!("Bearer {token}");
        let (key_print, token_print) = (Fingerprint::of(key), Fingerprint::of(token));
        assert_eq!(auth(&[]), Auth::Absent);
        assert_eq!(auth(&[("x-api-key", key)]), Auth::ApiKey { key: key_print.clone() });
        assert_eq!(
            auth(&[("authorization", &bearer)]),
            Auth::Bearer { token: token_print.clone() }
        );
        assert_eq!(
            auth(&[("authorization", &bearer.replace("Bearer", "bearer"))]),
            Auth::Bearer { token: token_print.clone() }
        );
        assert_eq!(
            auth(&[("x-api-key", key), ("authorization", &bearer)]),
            Auth::Both { key: key_print, token: token_print }
        );
    }

    const SIGNED: &str = "AWS4-HMAC-SHA256 \
        Credential=AKIAMADEUP/20261120/eu-west-1/bedrock/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=92ea71";

    #[test]
    fn a_signature_tells_its_key_and_its_region() {
        let signed = |session_token| Auth::SigV4 {
            access_key_id: Fingerprint::of("AKIAMADEUP"),
            session_token,
            region: "eu-west-1".to_owned(),
            service: "bedrock".to_owned(),
        };
        assert_eq!(auth(&[("authorization", SIGNED)]), signed(None));
        assert_eq!(auth(&[("authorization", &SIGNED.replace(", ", ","))]), signed(None));
        let with_session = [("authorization", SIGNED), ("x-amz-security-token", "made-up")];
        assert_eq!(auth(&with_session), signed(Some(Fingerprint::of("made-up"))));
    }

    #[test]
    fn what_is_neither_is_unknown() {
        for headers in [
            &[("authorization", "Basic bWFkZTp1cA==")][..],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "")],
            &[("authorization", "AWS4-HMAC-SHA256 Signature=92ea71")],
            &[("authorization", "AWS4-HMAC-SHA256 Credential=AKIA/eu-west-1/bedrock/aws4_request")],
            &[(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIA/20261120/eu-west-1/bedrock/aws5",
            )],
            &[("authorization", SIGNED), ("x-api-key", "sk-ant-made-up")],
        ] {
            assert_eq!(auth(headers), Auth::Unknown, "{headers:?}");
        }
    }

    #[test]
    fn the_ledger_is_written_with_the_scheme_first() {
        let line = |headers: &[(&str, &str)]| serde_json::to_string(&auth(headers)).unwrap();
        let lines = [line(&[]), line(&[("x-api-key", "abc")]), line(&[("authorization", SIGNED)])];
        expect![[r#"
            {"scheme":"absent"}
            {"scheme":"api_key","key":"ba7816bf8f01cfea"}
            {"scheme":"sigv4","access_key_id":"1aab1147d481fed1","session_token":null,"region":"eu-west-1","service":"bedrock"}"#]]
        .assert_eq(&lines.join("\n"));
    }
}
