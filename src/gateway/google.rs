//! Access tokens of Google, made from a service account's key, so that the key stays outside of every
//! sandbox.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::run::error_chain;
use crate::secret::Secret;

/// What a token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// How a token is asked for with a signed claim.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long a claim is good, in seconds: the most that Google takes.
const CLAIM_SECONDS: i64 = 60 * 60;

/// How long before its end a token is not used any more: a request takes a moment to arrive.
const EARLY: Duration = Duration::from_secs(60);

/// How long a token may take to come.
const MINT_LIMIT: Duration = Duration::from_secs(30);

/// Longest answer, in bytes. A token has about a thousand.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What of an error is told, in characters.
const MAX_DETAIL_CHARS: usize = 300;

/// A key that nothing can be signed with.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It is not a service account's key file.
    #[error("the key file of the service account cannot be read")]
    Read(#[source] serde_json::Error),
    /// The private key in it is none.
    #[error("the private key of the service account cannot be used")]
    Key,
}

/// There is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MintError {
    /// The token's address could not be asked, or is out of order.
    #[error("{0}")]
    Unreachable(String),
    /// The key is not taken.
    #[error("{0}")]
    Denied(String),
}

/// The key file, as far as it is needed.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

/// Makes tokens, and keeps the last one while it is good.
pub(super) struct Mint {
    email: String,
    key_id: Option<String>,
    key: RsaKeyPair,
    token_uri: String,
    last: Mutex<Option<Minted>>,
}

struct Minted {
    token: Secret,
    until: Instant,
}

/// What Google answers.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// In seconds.
    expires_in: u64,
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("token_uri", &self.token_uri).finish_non_exhaustive()
    }
}

impl Mint {
    pub(super) fn new(key_file: &Secret, token_uri: String) -> Result<Self, BadKey> {
        let file: KeyFile = serde_json::from_str(key_file.expose()).map_err(BadKey::Read)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes());
        let der = der.map_err(|_| BadKey::Key)?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| BadKey::Key)?;
        let (email, key_id) = (file.client_email, file.private_key_id);
        Ok(Self { email, key_id, key, token_uri, last: Mutex::new(None) })
    }

    /// Where tokens are to be had.
    pub(super) fn place(&self) -> &str {
        &self.token_uri
    }

    /// A token that is good for a while.
    pub(super) async fn token(
        &self,
        client: &reqwest::Client,
        now: Timestamp,
    ) -> Result<Secret, MintError> {
        // Whoever comes meanwhile waits for this one.
        let mut last = self.last.lock().await;
        if let Some(minted) = last.as_ref().filter(|minted| Instant::now() < minted.until) {
            return Ok(minted.token.clone());
        }
        let asked = Instant::now();
        let minted = timeout(MINT_LIMIT, self.mint(client, now)).await;
        let slow = || MintError::Unreachable("it did not answer in time".to_owned());
        let Answer { access_token, expires_in } = minted.map_err(|_| slow())??;
        let token = Secret::new(access_token);
        let until = asked + Duration::from_secs(expires_in).saturating_sub(EARLY);
        *last = Some(Minted { token: token.clone(), until });
        Ok(token)
    }

    async fn mint(&self, client: &reqwest::Client, now: Timestamp) -> Result<Answer, MintError> {
        let form = [("grant_type", GRANT), ("assertion", &self.claim(now)?)];
        let body: String =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let unreachable = |e: reqwest::Error| MintError::Unreachable(error_chain(&e.without_url()));
        let asked = client
            .post(&self.token_uri)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let mut answer = asked.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ANSWER_BYTES {
                return Err(MintError::Unreachable("its answer is too long".to_owned()));
            }
        }
        if status.is_success() {
            // The error would quote the answer, which may hold a token.
            let unread = |_| MintError::Unreachable("its answer holds no token".to_owned());
            return serde_json::from_slice(&text).map_err(unread);
        }
        let detail: String =
            String::from_utf8_lossy(&text).chars().take(MAX_DETAIL_CHARS).collect();
        let detail = format!("{status}: {detail}");
        if status.is_client_error() {
            Err(MintError::Denied(detail))
        } else {
            Err(MintError::Unreachable(detail))
        }
    }

    /// That this account asks, signed (RFC 7523).
    fn claim(&self, now: Timestamp) -> Result<String, MintError> {
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": now.as_second(),
            "exp": now.as_second() + CLAIM_SECONDS,
        });
        let [head, claims] = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{head}.{claims}");
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| MintError::Denied("the private key signs nothing".to_owned()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    const KEY_FILE: &str = include_str!("../../tests/golden/made-up-service-account.json");

    #[test]
    fn a_claim_says_who_asks_for_what_and_is_signed_with_the_accounts_key() {
        let uri = "https://oauth2.example.org/token";
        let mint = Mint::new(&Secret::new(KEY_FILE.to_owned()), uri.to_owned()).unwrap();
        let claim = mint.claim(Timestamp::from_second(1_000_000).unwrap()).unwrap();
        let parts: Vec<&str> = claim.split('.').collect();
        let [head, claims, signature] = parts[..] else { panic!("{claim}") };
        let read = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(read(head), json!({ "alg": "RS256", "typ": "JWT", "kid": "made-up-key-id" }));
        assert_eq!(
            read(claims),
            json!({
                "iss": "made-up@example.iam.gserviceaccount.com", "scope": SCOPE, "aud": uri,
                "iat": 1_000_000, "exp": 1_003_600,
            })
        );
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, mint.key.public());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(public.verify(format!("{head}.{claims}").as_bytes(), &signature).is_ok());
        assert!(!format!("{mint:?}").contains("made-up-key"));
    }

    #[test]
    fn a_key_that_signs_nothing_is_found_at_once() {
        for key in ["", "{}", r#"{"client_email": "a@b", "private_key": "bWFkZS11cA=="}"#] {
            assert!(Mint::new(&Secret::new(key.to_owned()), String::new()).is_err(), "{key}");
        }
    }
}
