//! The signature under an event notification, by which its receiver knows the sender.

use aws_lc_rs::hmac;

use crate::domain::key::Secret;

/// The value of `X-Bz-Event-Notification-Signature`: `v1=` and 64 lower-case hex digits of the
/// HMAC-SHA256 over exactly the bytes that are sent.
pub(crate) fn event_signature(secret: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    format!("v1={}", hex::encode(hmac::sign(&key, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_381_the_signature_is_hmac_sha256_of_the_bytes_sent() {
        // Case 2 of RFC 4231.
        let secret = Secret::new("Jefe".to_owned());
        assert_eq!(
            event_signature(&secret, b"what do ya want for nothing?"),
            "v1=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
