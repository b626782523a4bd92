//! AWS's signature, version 4, with keys that stay outside of every sandbox.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use crate::provider::AwsKeys;
use crate::run::error_chain;

/// What Bedrock is called in a signature.
const SERVICE: &str = "bedrock";

/// Who made the credentials, in the library's errors.
const MAKER: &str = "runbookd";

/// The headers with the signature of a request to `url`, which must be spelled as it is sent. The
/// error says why nothing can be signed.
pub(super) fn signature(
    keys: &AwsKeys,
    (method, url): (&str, &str),
    body: &[u8],
    now: Timestamp,
) -> Result<HeaderMap, String> {
    let session = keys.session.as_ref().map(|token| token.expose().to_owned());
    let identity = Credentials::new(keys.id.expose(), keys.secret.expose(), session, None, MAKER);
    let identity = identity.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&keys.region)
        .name(SERVICE)
        .time(SystemTime::from(now))
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| error_chain(&e))?
        .into();
    let request = SignableRequest::new(method, url, std::iter::empty(), SignableBody::Bytes(body));
    let request = request.map_err(|e| error_chain(&e))?;
    let (instructions, _) = sign(request, &params).map_err(|e| error_chain(&e))?.into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in instructions.headers() {
        let name = HeaderName::try_from(name).map_err(|e| error_chain(&e))?;
        let mut value = HeaderValue::try_from(value).map_err(|e| error_chain(&e))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use ring::digest::{SHA256, digest};
    use ring::hmac::{HMAC_SHA256, Key, sign as mac};

    use super::*;
    use crate::secret::Secret;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// The signature as AWS's documentation has it, step by step.
    fn by_hand(body: &str) -> String {
        let hash = |text: &str| hex(digest(&SHA256, text.as_bytes()).as_ref());
        // The path as it is sent has its colon encoded; the signature is of that, encoded once more.
        let canonical = format!(
            "POST\n/model/us.m-v1%253A0/invoke\n\n\
             host:bedrock-runtime.us-west-2.amazonaws.com\nx-amz-date:20260101T000000Z\n\
             x-amz-security-token:made-up-session\n\n\
             host;x-amz-date;x-amz-security-token\n{}",
            hash(body)
        );
        let scope = "20260101/us-west-2/bedrock/aws4_request";
        let to_sign = format!("AWS4-HMAC-SHA256\n20260101T000000Z\n{scope}\n{}", hash(&canonical));
        let mut key = b"AWS4made-up-secret".to_vec();
        for part in ["20260101", "us-west-2", "bedrock", "aws4_request", to_sign.as_str()] {
            key = mac(&Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIAMADEUP/{scope}, \
             SignedHeaders=host;x-amz-date;x-amz-security-token, Signature={}",
            hex(&key)
        )
    }

    #[test]
    fn a_request_is_signed_as_the_service_checks_it() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let keys = AwsKeys {
            id: secret("AKIAMADEUP"),
            secret: secret("made-up-secret"),
            session: Some(secret("made-up-session")),
            region: "us-west-2".to_owned(),
        };
        let url = "https://bedrock-runtime.us-west-2.amazonaws.com/model/us.m-v1%3A0/invoke";
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        for body in ["{}", r#"{"max_tokens":1}"#] {
            let headers = signature(&keys, ("POST", url), body.as_bytes(), now).unwrap();
            assert_eq!(headers["authorization"], by_hand(body));
            assert_eq!(headers["x-amz-date"], "20260101T000000Z");
            assert_eq!(headers["x-amz-security-token"], "made-up-session");
        }
    }
}
