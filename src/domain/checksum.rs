//! Checksums that S3 clients send along with content, to be compared and to be shown again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

macro_rules! algorithms {
    ($($variant:ident, $name:literal, $header:literal, $bytes:literal;)*) => {
        /// How a checksum is computed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ChecksumAlgorithm { $(
            #[doc = concat!("`", $name, "`")]
            $variant,
        )* }

        impl ChecksumAlgorithm {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As headers and XML name it.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The header that carries the value, in lower case.
            pub(crate) fn header(self) -> &'static str {
                match self { $(Self::$variant => $header,)* }
            }

            /// Length of a value in bytes.
            fn value_bytes(self) -> usize {
                match self { $(Self::$variant => $bytes,)* }
            }
        }
    };
}

algorithms! {
    Crc32, "CRC32", "x-amz-checksum-crc32", 4;
    Crc32c, "CRC32C", "x-amz-checksum-crc32c", 4;
    Crc64Nvme, "CRC64NVME", "x-amz-checksum-crc64nvme", 8;
    Sha1, "SHA1", "x-amz-checksum-sha1", 20;
    Sha256, "SHA256", "x-amz-checksum-sha256", 32;
}

impl ChecksumAlgorithm {
    /// Reads a name in either case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str().eq_ignore_ascii_case(name))
    }

    /// The algorithm whose values a header carries; its name in either case.
    pub(crate) fn of_header(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.header().eq_ignore_ascii_case(name))
    }
}

/// A checksum of content.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) algorithm: ChecksumAlgorithm,
    /// As many bytes as the algorithm has; the largest byte of a CRC comes first.
    pub(crate) value: Vec<u8>,
}

impl Checksum {
    /// Reads a value as headers carry it, in base64.
    pub(crate) fn parse(algorithm: ChecksumAlgorithm, text: &[u8]) -> Option<Self> {
        let value = STANDARD.decode(text).ok()?;
        (value.len() == algorithm.value_bytes()).then_some(Self { algorithm, value })
    }

    /// The value as headers carry it.
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.value)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm.as_str(), self.base64())
    }
}

/// Computes a checksum while content flows by.
pub(crate) struct ChecksumHasher {
    algorithm: ChecksumAlgorithm,
    state: State,
}

enum State {
    Crc(Crc),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl ChecksumHasher {
    pub(crate) fn new(algorithm: ChecksumAlgorithm) -> Self {
        let state = match algorithm {
            ChecksumAlgorithm::Crc32 => State::Crc(Crc::new(CrcAlgorithm::Crc32IsoHdlc)),
            ChecksumAlgorithm::Crc32c => State::Crc(Crc::new(CrcAlgorithm::Crc32Iscsi)),
            ChecksumAlgorithm::Crc64Nvme => State::Crc(Crc::new(CrcAlgorithm::Crc64Nvme)),
            ChecksumAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => State::Sha256(Sha256::new()),
        };
        Self { algorithm, state }
    }

    pub(crate) fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    pub(crate) fn update(&mut self, chunk: &[u8]) {
        match &mut self.state {
            State::Crc(crc) => crc.update(chunk),
            State::Sha1(sha1) => sha1.update(chunk),
            State::Sha256(sha256) => sha256.update(chunk),
        }
    }

    pub(crate) fn finish(self) -> Checksum {
        let algorithm = self.algorithm;
        let value = match self.state {
            State::Crc(crc) => {
                let bytes = crc.finalize().to_be_bytes();
                let from = bytes.len() - algorithm.value_bytes();
                bytes.get(from..).unwrap_or_default().to_vec()
            }
            State::Sha1(sha1) => sha1.finalize().to_vec(),
            State::Sha256(sha256) => sha256.finalize().to_vec(),
        };
        Checksum { algorithm, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_the_nine_digits_are_the_known_ones() {
        // The check values of the catalogues of CRCs, and of the standards of the hashes.
        for (algorithm, digits) in [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (
                ChecksumAlgorithm::Sha256,
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
        ] {
            let mut hasher = ChecksumHasher::new(algorithm);
            hasher.update(b"1234");
            hasher.update(b"56789");
            let checksum = hasher.finish();
            assert_eq!(hex::encode(&checksum.value), digits, "{algorithm:?}");
            let again = Checksum::parse(algorithm, checksum.base64().as_bytes());
            assert_eq!(again, Some(checksum));
            assert_eq!(ChecksumAlgorithm::parse(algorithm.as_str()), Some(algorithm));
            assert_eq!(ChecksumAlgorithm::of_header(algorithm.header()), Some(algorithm));
        }
    }

    #[test]
    fn values_of_another_length_or_form_are_refused() {
        let crc = ChecksumAlgorithm::Crc32;
        for wrong in ["", "AAAA", "AAAAAA", "AAAAAA=", "AAAAAAA=", "AAAAAAAAAAA=", "!!!!!!=="] {
            assert_eq!(Checksum::parse(crc, wrong.as_bytes()), None, "{wrong}");
        }
        assert!(Checksum::parse(crc, b"AAAAAA==").is_some());
    }
}
