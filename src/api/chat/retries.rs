//! OpenAI's clients send a request again by themselves after a silence or a broken connection. They
//! count that in a header and send no `Idempotency-Key`, so we give the first one its key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::api::auth::Caller;
use crate::catalog::Scope;

/// How often the client has sent the request before.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// How long a request is remembered. Clients wait ten minutes for an answer, and seconds before they
/// send again.
const REMEMBERED_FOR: Duration = Duration::from_secs(1800);

/// Most requests that are remembered. Of more, the oldest is forgotten.
const MAX_REMEMBERED: usize = 4096;

/// The requests of late, by what they were.
#[derive(Debug, Default)]
pub struct Retries {
    recent: Mutex<HashMap<[u8; 32], Given>>,
}

/// The key that a request was given.
#[derive(Debug, Clone)]
struct Given {
    key: String,
    at: Timestamp,
}

impl Retries {
    /// The key of a request that has none: its first one's where the client sends it again, else a
    /// new one.
    pub(super) fn key(
        &self,
        (caller, headers): (&Caller, &HeaderMap),
        body: &[u8],
        now: Timestamp,
    ) -> String {
        let digest = digest(caller, body);
        let is_repeated = headers
            .get(RETRY_COUNT)
            .and_then(|count| count.to_str().ok()?.trim().parse::<u32>().ok())
            .is_some_and(|count| count > 0);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, given| is_fresh(given.at, now));
        if let Some(given) = recent.get(&digest).filter(|_| is_repeated) {
            return given.key.clone();
        }
        if recent.len() >= MAX_REMEMBERED {
            let oldest = recent.iter().min_by_key(|(_, given)| given.at).map(|(digest, _)| *digest);
            oldest.map(|digest| recent.remove(&digest));
        }
        let key = format!("chat-{}", Uuid::new_v4());
        recent.insert(digest, Given { key: key.clone(), at: now });
        key
    }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(at)).unwrap_or_default() < REMEMBERED_FOR
}

/// What tells requests apart: whose they are and every byte of them.
fn digest(caller: &Caller, body: &[u8]) -> [u8; 32] {
    let scope = match &caller.scope {
        Scope::Admin => "/",
        Scope::Collection(collection) => collection.as_str(),
    };
    let mut hash = Sha256::new();
    for part in [scope.as_bytes(), caller.token.as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(body);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(token: &str) -> Caller {
        Caller { scope: Scope::Admin, token: token.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_what_a_client_sends_again_by_itself_has_the_first_ones_key() {
        let retries = Retries::default();
        let (first, again) =
            (HeaderMap::new(), HeaderMap::from_iter([(RETRY_COUNT, "1".parse().unwrap())]));
        let me = caller("me");
        let one = retries.key((&me, &first), b"a", at(0));
        assert_eq!(retries.key((&me, &again), b"a", at(1)), one);
        assert_eq!(retries.key((&me, &again), b"a", at(2)), one);
        assert_ne!(retries.key((&me, &again), b"b", at(2)), one);
        assert_ne!(retries.key((&caller("you"), &again), b"a", at(2)), one);
        let two = retries.key((&me, &first), b"a", at(3));
        assert_ne!(two, one, "a person may send the same twice");
        assert_eq!(retries.key((&me, &again), b"a", at(4)), two);
        assert_ne!(retries.key((&me, &again), b"a", at(4_000)), two, "it is forgotten");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let retries = Retries::default();
        for n in 0..MAX_REMEMBERED + 10 {
            let second = i64::try_from(n / 10).unwrap();
            retries.key((&caller("me"), &HeaderMap::new()), &n.to_le_bytes(), at(second));
        }
        assert_eq!(retries.recent.lock().unwrap().len(), MAX_REMEMBERED);
    }
}
