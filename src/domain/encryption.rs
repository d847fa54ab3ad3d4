//! Server-side encryption: what callers ask for and see, and the keys they hand in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::domain::digest::md5_of;
use crate::domain::refusal::{Refusal, bad_request};

/// The one algorithm there is, as clients name it.
pub(crate) const ALGORITHM: &str = "AES256";
/// Length of every key here, in bytes.
pub(crate) const KEY_BYTES: usize = 32;

/// How a version is encrypted at rest.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum Encryption {
    #[default]
    None,
    /// SSE-B2: with keys of the server.
    Managed,
    /// SSE-C: with a key of the customer, which is not kept. `key_check` tells whether a key that
    /// is offered later is the same one.
    Customer { key_check: Vec<u8> },
}

impl Encryption {
    /// The mode in answers; None where nothing is encrypted.
    pub(crate) fn mode(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Managed => Some("SSE-B2"),
            Self::Customer { .. } => Some("SSE-C"),
        }
    }
}

/// What a bucket does with new files that ask for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) enum DefaultEncryption {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "SSE-B2")]
    Managed,
}

impl DefaultEncryption {
    pub(crate) fn is_none(self) -> bool {
        self == Self::None
    }
}

/// What a request wants a bucket to do with new files that ask for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskedDefault {
    /// What the server does with new buckets.
    OfServer,
    Managed,
    /// Encrypt with a customer's key, which no bucket can do.
    Customer,
}

impl AskedDefault {
    /// The default to store, on a server whose own is `of_server`.
    pub(crate) fn settle(self, of_server: DefaultEncryption) -> Result<DefaultEncryption, Refusal> {
        match self {
            Self::OfServer => Ok(of_server),
            Self::Managed => Ok(DefaultEncryption::Managed),
            Self::Customer => {
                Err(bad_request("SSE-C cannot be the default encryption of a bucket"))
            }
        }
    }
}

impl From<DefaultEncryption> for Encryption {
    fn from(default: DefaultEncryption) -> Self {
        match default {
            DefaultEncryption::None => Self::None,
            DefaultEncryption::Managed => Self::Managed,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum AskedEncryption {
    /// Whatever the bucket does.
    #[default]
    Default,
    Managed,
    Customer(CustomerKey),
}

impl AskedEncryption {
    /// How new content in a bucket with that default is to be sealed.
    pub(crate) fn in_bucket(self, default: DefaultEncryption) -> Sealing {
        match (self, default) {
            (Self::Default, DefaultEncryption::None) => Sealing::None,
            (Self::Default, DefaultEncryption::Managed) | (Self::Managed, _) => Sealing::Managed,
            (Self::Customer(key), _) => Sealing::Customer(key),
        }
    }
}

impl Encryption {
    /// How a part of a large file that is encrypted so is to be sealed, except that whoever calls
    /// must compare a customer's key with the file's. Only for SSE-C is the key sent again; that
    /// the server encrypts may be repeated.
    pub(crate) fn sealing_of_part(&self, asked: AskedEncryption) -> Result<Sealing, Refusal> {
        match (self, asked) {
            (Self::None, AskedEncryption::Default) => Ok(Sealing::None),
            (Self::Managed, AskedEncryption::Default | AskedEncryption::Managed) => {
                Ok(Sealing::Managed)
            }
            (Self::Customer { .. }, AskedEncryption::Customer(key)) => Ok(Sealing::Customer(key)),
            (Self::Customer { .. }, _) => Err(bad_request(
                "the large file was started with a customer key, which must come with each part",
            )),
            (Self::None, AskedEncryption::Managed) => {
                Err(bad_request("the large file was not started with server-side encryption"))
            }
            (Self::None | Self::Managed, AskedEncryption::Customer(_)) => {
                Err(bad_request("the large file was not started with a customer key"))
            }
        }
    }
}

/// How new content is to be sealed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum Sealing {
    #[default]
    None,
    Managed,
    Customer(CustomerKey),
}

/// The key of one blob. Drawn for it alone, and kept only wrapped.
#[derive(Clone)]
pub(crate) struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl DataKey {
    pub(crate) fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself. Each call is a place where it could leak.
    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Where the key is to be written by whoever unwraps it.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// A key that a customer sent along. Never kept and never printed; its memory is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CustomerKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(..)")
    }
}

impl CustomerKey {
    /// Reads the three values that go together: the algorithm, the key and its MD5, both in
    /// base64. No message repeats any of them.
    pub(crate) fn parse(algorithm: &str, key: &str, md5: &str) -> Result<Self, Refusal> {
        if algorithm != ALGORITHM {
            return Err(bad_request("the encryption algorithm must be AES256"));
        }
        let decoded = STANDARD.decode(key).map(Zeroizing::new).ok();
        let bytes = decoded.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok());
        let bytes = Zeroizing::new(bytes.ok_or_else(|| {
            bad_request("the customer key must be 32 bytes in base64 for the algorithm AES256")
        })?);
        let claimed = STANDARD.decode(md5).unwrap_or_default();
        if claimed != md5_of(std::iter::once(bytes.as_slice())).0 {
            return Err(bad_request("the MD5 of the customer key does not match the key"));
        }
        Ok(Self(bytes))
    }

    #[cfg(test)]
    pub(crate) fn for_tests(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The MD5 of the key in base64, as answers repeat it.
    pub(crate) fn md5(&self) -> String {
        STANDARD.encode(md5_of(std::iter::once(self.0.as_slice())).0)
    }

    /// The key itself. Each call is a place where it could leak.
    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    #[test]
    fn native_325_a_customer_key_has_32_bytes_its_md5_and_its_algorithm() {
        let bytes: Vec<u8> = (0..32).collect();
        let md5 = STANDARD.encode(md5_of(std::iter::once(bytes.as_slice())).0);
        let right = CustomerKey::parse("AES256", KEY, &md5).expect("all three are right");
        assert_eq!((right.expose().as_slice(), right.md5()), (bytes.as_slice(), md5.clone()));
        for (algorithm, key, md5) in [
            ("AES128", KEY, md5.as_str()),
            ("aes256", KEY, &md5),
            ("", KEY, &md5),
            ("AES256", "AAECAwQFBgcICQoLDA0ODw==", &md5),
            ("AES256", "", &md5),
            ("AES256", "not base64", &md5),
            ("AES256", KEY.trim_end_matches('='), &md5),
            ("AES256", KEY, "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("AES256", KEY, ""),
        ] {
            let refusal = CustomerKey::parse(algorithm, key, md5);
            let refusal = refusal.expect_err(&format!("{algorithm} {key} {md5}"));
            assert!(key.is_empty() || !refusal.message.contains(key), "never repeated");
        }
    }

    #[test]
    fn keys_are_never_printed() {
        let data = DataKey::new([0xab; 32]);
        let customer = CustomerKey(Zeroizing::new([0xab; 32]));
        assert_eq!(format!("{data:?} {customer:?}"), "DataKey(..) CustomerKey(..)");
        let sealing = Sealing::Customer(customer);
        assert_eq!(format!("{sealing:?}"), "Customer(CustomerKey(..))");
    }

    #[test]
    fn what_is_not_asked_for_follows_the_bucket() {
        use DefaultEncryption as D;
        assert_eq!(AskedEncryption::Default.in_bucket(D::None), Sealing::None);
        assert_eq!(AskedEncryption::Default.in_bucket(D::Managed), Sealing::Managed);
        assert_eq!(AskedEncryption::Managed.in_bucket(D::None), Sealing::Managed);
    }
}
