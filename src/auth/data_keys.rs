//! Data keys at rest: each blob has one of its own, wrapped with a key of the key ring or with a
//! customer's key.
//!
//! Shape of a wrapped key: a random salt, then the data key encrypted with AES-256-GCM, then the
//! tag. The key that encrypts is derived (HKDF-SHA-256) from the wrapping key, the salt, the
//! purpose and the id of the blob, so that one wrapping key may wrap any number of data keys, and a
//! wrapped key opens for its own blob only.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::domain::encryption::{CustomerKey, DataKey, KEY_BYTES};
use crate::domain::ids::BlobId;
use crate::entropy::{self, Entropy};

const SALT_BYTES: usize = 16;
/// Every derived key encrypts one message only, so the nonce need not differ.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

const OF_CUSTOMER: &[u8] = b"kiln blob key 1, customer key";
const CHECK: &[u8] = b"kiln customer key check 1";

/// Why a data key could not be wrapped or unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataKeyError {
    /// The key ring in use is not, or no longer, the one that the data key was wrapped with.
    #[error("the key ring has no key {0}: put back the key ring that belongs to the data folder")]
    NoRingKey(i64),
    /// The wrapped form was altered, or belongs to another blob or key.
    #[error("the wrapped key of blob {0} is damaged")]
    Damaged(BlobId),
    /// The blob was sealed with a customer's key, and none was handed in.
    #[error("blob {0} needs the customer's key")]
    NoCustomerKey(BlobId),
    #[error("the library for encryption refused")]
    Library,
}

/// Draws the key of a new blob.
pub(crate) fn draw(entropy: &dyn Entropy) -> DataKey {
    let mut key = DataKey::new([0; KEY_BYTES]);
    entropy.fill(key.space());
    key
}

/// Wraps a data key with `secret`. `purpose` keeps different uses of a secret apart.
pub(crate) fn wrap(
    secret: &[u8; KEY_BYTES],
    purpose: &[u8],
    blob: BlobId,
    key: &DataKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, DataKeyError> {
    let salt: [u8; SALT_BYTES] = entropy::bytes(entropy);
    let wrapping = derived(secret, &salt, purpose, blob)?;
    // With room for the tag, so that no copy of the key is left behind when it is appended.
    let mut sealed = Zeroizing::new(Vec::with_capacity(KEY_BYTES + AES_256_GCM.tag_len()));
    sealed.extend_from_slice(key.expose());
    let nonce = Nonce::assume_unique_for_key(NONCE);
    wrapping
        .seal_in_place_append_tag(nonce, Aad::empty(), &mut *sealed)
        .map_err(|_| DataKeyError::Library)?;
    Ok([&salt[..], &sealed[..]].concat())
}

/// Opens what [`wrap`] made for the same secret, purpose and blob.
pub(crate) fn unwrap(
    secret: &[u8; KEY_BYTES],
    purpose: &[u8],
    blob: BlobId,
    wrapped: &[u8],
) -> Result<DataKey, DataKeyError> {
    let damaged = DataKeyError::Damaged(blob);
    let (salt, sealed) = wrapped.split_at_checked(SALT_BYTES).ok_or(damaged)?;
    let (sealed, tag) = sealed.split_at_checked(KEY_BYTES).ok_or(damaged)?;
    let wrapping = derived(secret, salt, purpose, blob)?;
    let mut key = DataKey::new([0; KEY_BYTES]);
    let nonce = Nonce::assume_unique_for_key(NONCE);
    wrapping
        .open_separate_gather(nonce, Aad::empty(), sealed, tag, key.space())
        .map_err(|_| damaged)?;
    Ok(key)
}

fn derived(
    secret: &[u8; KEY_BYTES],
    salt: &[u8],
    purpose: &[u8],
    blob: BlobId,
) -> Result<LessSafeKey, DataKeyError> {
    let blob = blob.0.to_be_bytes();
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [purpose, &blob];
    let okm = prk.expand(&info, &AES_256_GCM).map_err(|_| DataKeyError::Library)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

/// Wraps a data key with a customer's key.
pub(crate) fn wrap_for_customer(
    customer: &CustomerKey,
    blob: BlobId,
    key: &DataKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, DataKeyError> {
    wrap(customer.expose(), OF_CUSTOMER, blob, key, entropy)
}

/// Opens what [`wrap_for_customer`] made with the same key.
pub(crate) fn unwrap_for_customer(
    customer: &CustomerKey,
    blob: BlobId,
    wrapped: &[u8],
) -> Result<DataKey, DataKeyError> {
    unwrap(customer.expose(), OF_CUSTOMER, blob, wrapped)
}

struct CheckBytes;

impl KeyType for CheckBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn check_value(customer: &CustomerKey, salt: &[u8]) -> Result<[u8; KEY_BYTES], DataKeyError> {
    let mut value = [0; KEY_BYTES];
    let prk = Salt::new(HKDF_SHA256, salt).extract(customer.expose());
    let okm = prk.expand(&[CHECK], CheckBytes).map_err(|_| DataKeyError::Library)?;
    okm.fill(&mut value).map_err(|_| DataKeyError::Library)?;
    Ok(value)
}

/// What is kept with a version so that a wrong key is told before any byte: a random salt, and a
/// value derived from it and the key. It helps nobody to find the key.
pub(crate) fn key_check(
    customer: &CustomerKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, DataKeyError> {
    let salt: [u8; SALT_BYTES] = entropy::bytes(entropy);
    Ok([&salt[..], &check_value(customer, &salt)?].concat())
}

/// Whether a key is the one that `check` was made for.
pub(crate) fn fits(customer: &CustomerKey, check: &[u8]) -> bool {
    let Some((salt, value)) = check.split_at_checked(SALT_BYTES) else { return false };
    check_value(customer, salt).is_ok_and(|own| verify_slices_are_equal(&own, value).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    const BLOB: BlobId = BlobId(77);

    fn customer(seed: u8) -> CustomerKey {
        CustomerKey::for_tests([seed; KEY_BYTES])
    }

    #[test]
    fn a_wrapped_key_opens_with_its_secret_purpose_and_blob_only() {
        let entropy = SeededEntropy::new(1);
        let key = draw(&entropy);
        let wrapped = wrap(&[7; 32], b"one", BLOB, &key, &entropy).expect("wraps");
        assert!(!wrapped.windows(8).any(|w| w == &key.expose()[..8]), "no plain key inside");
        let open = |secret: &[u8; 32], purpose: &[u8], blob, wrapped: &[u8]| {
            unwrap(secret, purpose, blob, wrapped).map(|key| *key.expose())
        };
        assert_eq!(open(&[7; 32], b"one", BLOB, &wrapped), Ok(*key.expose()));
        let damaged = Err(DataKeyError::Damaged(BLOB));
        assert_eq!(open(&[8; 32], b"one", BLOB, &wrapped), damaged);
        assert_eq!(open(&[7; 32], b"two", BLOB, &wrapped), damaged);
        let other = BlobId(78);
        assert_eq!(open(&[7; 32], b"one", other, &wrapped), Err(DataKeyError::Damaged(other)));
        for at in 0..wrapped.len() {
            let mut flipped = wrapped.clone();
            flipped[at] ^= 1;
            assert_eq!(open(&[7; 32], b"one", BLOB, &flipped), damaged, "bit flipped at {at}");
            assert_eq!(open(&[7; 32], b"one", BLOB, &wrapped[..at]), damaged, "cut at {at}");
        }
        let again = wrap(&[7; 32], b"one", BLOB, &key, &entropy).expect("wraps");
        assert_ne!(again, wrapped, "salted");
    }

    #[test]
    fn a_key_check_tells_the_right_key_from_all_others() {
        let entropy = SeededEntropy::new(2);
        let (right, wrong) = (customer(1), customer(2));
        let check = key_check(&right, &entropy).expect("checks");
        assert!(fits(&right, &check) && !fits(&wrong, &check));
        assert_ne!(key_check(&right, &entropy).expect("checks"), check, "salted");
        assert!(!check.windows(8).any(|w| w == &right.expose()[..8]), "not the key");
        for broken in [&check[..check.len() - 1], &check[..10], &[]] {
            assert!(!fits(&right, broken));
        }
        let wrapped = wrap_for_customer(&right, BLOB, &draw(&entropy), &entropy).expect("wraps");
        assert!(unwrap_for_customer(&right, BLOB, &wrapped).is_ok());
        assert!(unwrap_for_customer(&wrong, BLOB, &wrapped).is_err());
    }
}
