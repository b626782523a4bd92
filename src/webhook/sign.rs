//! The signature by which a receiver knows that a webhook is ours.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secret::Secret;

/// The hexadecimal HMAC-SHA256 of `"{timestamp}.{body}"`: the time is signed too, so that a receiver
/// can refuse what was recorded and sent again.
#[must_use]
pub fn signature(secret: &Secret, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_any_receiver_reckons() {
        // printf '1700000000.{"ok":true}' | openssl dgst -sha256 -hmac made-up-secret
        let secret = Secret::new("made-up-secret".to_owned());
        assert_eq!(
            signature(&secret, 1_700_000_000, br#"{"ok":true}"#),
            "fb60765c1488c4b9ff678ca8650d182ec861fb05df672bdaffcb7b473d4efe31"
        );
        let other = signature(&secret, 1_700_000_001, br#"{"ok":true}"#);
        assert_ne!(signature(&secret, 1_700_000_000, br#"{"ok":true}"#), other);
    }
}
