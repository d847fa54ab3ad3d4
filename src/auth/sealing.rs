//! Secrets at rest: sealed with a key that is kept outside of the database, and compared without
//! telling by time how much was right.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::domain::ids::CLUSTER;
use crate::domain::key::Secret;
use crate::entropy::{self, Entropy};

/// Length of a sealing key in bytes.
pub(crate) const SEALING_KEY_BYTES: usize = 32;

/// A sealed secret cannot be opened: the sealing key is not the one it was sealed with, or the
/// bytes were altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret cannot be opened: the sealing key does not belong to this data folder")]
pub(crate) struct Unsealable;

/// The key that secrets are sealed with; its memory is wiped when dropped.
pub(crate) struct SealingKey(Zeroizing<[u8; SEALING_KEY_BYTES]>);

impl SealingKey {
    pub(crate) fn draw(entropy: &dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0; SEALING_KEY_BYTES]);
        entropy.fill(key.as_mut_slice());
        Self(key)
    }

    /// Reads the content of the key's file, which is wiped; None when it has another length.
    pub(crate) fn read(content: Vec<u8>) -> Option<Self> {
        let content = Zeroizing::new(content);
        let mut key = Zeroizing::new([0; SEALING_KEY_BYTES]);
        if content.len() != SEALING_KEY_BYTES {
            return None;
        }
        key.copy_from_slice(&content);
        Some(Self(key))
    }

    /// The key itself. Each call is a place where it could leak.
    pub(crate) fn expose(&self) -> &[u8; SEALING_KEY_BYTES] {
        &self.0
    }
}

/// Seals and opens secrets with AES-256-GCM. Each secret is bound to its owner's name.
pub(crate) struct Sealer(LessSafeKey);

impl Sealer {
    pub(crate) fn new(key: &[u8; SEALING_KEY_BYTES]) -> Result<Self, Unsealable> {
        UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map(Self).map_err(|_| Unsealable)
    }

    /// Shape of the answer: a random nonce, then the ciphertext with its tag.
    pub(crate) fn seal(
        &self,
        owner: &str,
        secret: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, Unsealable> {
        let nonce: [u8; NONCE_LEN] = entropy::bytes(entropy);
        // With room for the tag, so that no copy of the secret is left behind when it is appended.
        let mut sealed = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(secret);
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(owner.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| Unsealable)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The secret, whose memory is wiped when dropped.
    pub(crate) fn open(
        &self,
        owner: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut opened)
            .map_err(|_| Unsealable)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }
}

/// Compares secrets in a time that depends on their lengths only. An empty secret equals nothing.
pub(crate) fn secrets_match(given: &[u8], known: &[u8]) -> bool {
    !known.is_empty() && verify_slices_are_equal(given, known).is_ok()
}

/// Draws the secret of an application key: `K`, the cluster digits and 27 letters or digits.
pub(crate) fn draw_secret(entropy: &dyn Entropy) -> Secret {
    let mut letters = String::with_capacity(31);
    letters.push('K');
    letters.push_str(CLUSTER);
    while letters.len() < 31 {
        let drawn: [u8; 24] = entropy::bytes(entropy);
        // The two other letters of base64 need escaping in shells and addresses.
        let plain = STANDARD.encode(drawn);
        letters.extend(plain.chars().filter(char::is_ascii_alphanumeric));
    }
    letters.truncate(31);
    Secret::new(letters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_and_owner() {
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer::new(&[7; 32]).expect("a key of the right length");
        let sealed = sealer.seal("owner", b"the secret", &entropy).expect("seals");
        assert!(!sealed.windows(6).any(|w| w == b"secret"), "no plain text inside");
        let opened = sealer.open("owner", &sealed).expect("opens");
        assert_eq!(opened.as_slice(), b"the secret");
        assert_eq!(sealer.open("other", &sealed), Err(Unsealable));
        let other = Sealer::new(&[8; 32]).expect("a key of the right length");
        assert_eq!(other.open("owner", &sealed), Err(Unsealable));
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(sealer.open("owner", &flipped), Err(Unsealable), "bit flipped at {at}");
        }
        assert_eq!(sealer.open("owner", b"short"), Err(Unsealable));
    }

    #[test]
    fn an_empty_secret_equals_nothing() {
        assert!(!secrets_match(b"", b""));
        assert!(!secrets_match(b"a", b""));
        assert!(secrets_match(b"ab", b"ab"));
        assert!(!secrets_match(b"ab", b"abc"));
    }

    #[test]
    fn drawn_secrets_look_like_backblaze_ones() {
        let entropy = SeededEntropy::new(2);
        let (one, two) = (draw_secret(&entropy), draw_secret(&entropy));
        assert_eq!(one.expose().len(), 31);
        assert!(one.expose().starts_with("K000"));
        assert_ne!(one.expose(), two.expose());
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }
}
