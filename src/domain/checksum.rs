//! Checksums that S3 clients send along with content, to be compared and to be shown again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc, checksum_combine};
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

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// The bytes of a CRC, the largest first.
    fn bytes_of(self, crc: u64) -> Vec<u8> {
        let bytes = crc.to_be_bytes();
        bytes.get(bytes.len() - self.value_bytes()..).unwrap_or_default().to_vec()
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

/// What a checksum of a file is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChecksumKind {
    Full,
    /// The checksums of the parts, one after the other.
    Composite,
}

impl ChecksumKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Composite].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What is kept of the checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptChecksum {
    pub(crate) algorithm: ChecksumAlgorithm,
    pub(crate) kind: ChecksumKind,
    /// In base64, with the number of parts behind a composite one. None while the parts of a file
    /// that is to have one are still to come.
    pub(crate) value: Option<String>,
}

impl KeptChecksum {
    /// That of a file that came in one piece.
    pub(crate) fn of_whole(checksum: &Checksum) -> Self {
        let value = Some(checksum.base64());
        Self { algorithm: checksum.algorithm, kind: ChecksumKind::Full, value }
    }

    /// What the uploader of parts wants; None when there is no such combination.
    pub(crate) fn wanted(algorithm: ChecksumAlgorithm, kind: Option<ChecksumKind>) -> Option<Self> {
        let kind = match (algorithm, kind) {
            (ChecksumAlgorithm::Crc64Nvme, Some(ChecksumKind::Composite))
            | (ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, Some(ChecksumKind::Full)) => {
                return None;
            }
            (_, Some(kind)) => kind,
            (ChecksumAlgorithm::Crc64Nvme, None) => ChecksumKind::Full,
            (_, None) => ChecksumKind::Composite,
        };
        Some(Self { algorithm, kind, value: None })
    }

    /// The same with the value that the checksums of parts make, each with the size of its part.
    /// None when one of them has none of that algorithm.
    pub(crate) fn over_parts<'p>(
        &self,
        parts: impl Iterator<Item = (Option<&'p Checksum>, u64)> + Clone,
    ) -> Option<Self> {
        let algorithm = self.algorithm;
        let complete = parts
            .clone()
            .all(|(checksum, _)| checksum.is_some_and(|checksum| checksum.algorithm == algorithm));
        let mut known = parts.filter_map(|(checksum, size)| Some((checksum?, size)));
        if !complete {
            return None;
        }
        let value = match self.kind {
            ChecksumKind::Composite => {
                let (mut hasher, mut count) = (ChecksumHasher::new(algorithm), 0_u32);
                for (checksum, _) in known {
                    hasher.update(&checksum.value);
                    count += 1;
                }
                format!("{}-{count}", hasher.finish().base64())
            }
            ChecksumKind::Full => {
                let crc = algorithm.crc()?;
                let (first, _) = known.next()?;
                let sum = known.fold(number(&first.value), |sum, (checksum, size)| {
                    checksum_combine(crc, sum, number(&checksum.value), size)
                });
                Checksum { algorithm, value: algorithm.bytes_of(sum) }.base64()
            }
        };
        Some(Self { value: Some(value), ..self.clone() })
    }

    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (algorithm, rest) = text.split_once(' ')?;
        let (kind, value) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self {
            algorithm: ChecksumAlgorithm::parse(algorithm)?,
            kind: ChecksumKind::parse(kind)?,
            value: Some(value.to_owned()).filter(|value| !value.is_empty()),
        })
    }
}

/// `ALGORITHM KIND`, and the value behind a space when it is known.
impl fmt::Display for KeptChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm.as_str(), self.kind.as_str())?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, " {value}"))
    }
}

/// The number that the bytes of a CRC are, the largest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte))
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
            State::Crc(crc) => algorithm.bytes_of(crc.finalize()),
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
    fn s3_119_checksums_of_parts_make_one_of_the_whole() {
        let of = |algorithm, text: &[u8]| {
            let mut hasher = ChecksumHasher::new(algorithm);
            hasher.update(text);
            hasher.finish()
        };
        for &algorithm in ChecksumAlgorithm::ALL {
            let parts: Vec<(Checksum, u64)> = [&b"1234"[..], b"5", b"6789"]
                .iter()
                .map(|text| (of(algorithm, text), text.len() as u64))
                .collect();
            let all = parts.iter().map(|(checksum, size)| (Some(checksum), *size));
            for kind in [ChecksumKind::Full, ChecksumKind::Composite] {
                let Some(wanted) = KeptChecksum::wanted(algorithm, Some(kind)) else { continue };
                let kept = wanted.over_parts(all.clone()).expect("each part has one");
                let expected = match kind {
                    ChecksumKind::Full => of(algorithm, b"123456789").base64(),
                    ChecksumKind::Composite => {
                        let joined: Vec<u8> =
                            parts.iter().flat_map(|(checksum, _)| checksum.value.clone()).collect();
                        format!("{}-3", of(algorithm, &joined).base64())
                    }
                };
                assert_eq!(
                    kept.value.as_deref(),
                    Some(expected.as_str()),
                    "{algorithm:?} {kind:?}"
                );
                for one in [&kept, &wanted] {
                    assert_eq!(KeptChecksum::parse(&one.to_string()).as_ref(), Some(one));
                }
                let lacking = all.clone().chain([(None, 1)]);
                assert_eq!(wanted.over_parts(lacking), None);
            }
        }
        let none = |algorithm, kind| KeptChecksum::wanted(algorithm, Some(kind)).is_none();
        assert!(none(ChecksumAlgorithm::Crc64Nvme, ChecksumKind::Composite));
        assert!(none(ChecksumAlgorithm::Sha256, ChecksumKind::Full));
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
