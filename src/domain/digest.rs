//! Digests of content: SHA-1, MD5 and SHA-256 for clients, CRC-32C per block for our own checks.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::Md5;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// Content is checked in blocks of this many bytes. Every read of a part of a block reads the whole
/// of it, so blocks are small; and every block has four bytes beside the content, so they are not
/// smaller (ours).
pub(crate) const CHECK_BLOCK_BYTES: u64 = 64 * 1024;

macro_rules! digest_value {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) [u8; $bytes]);

        impl $name {
            pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Shows the text to `show`, without keeping it.
            pub(crate) fn with_digits<T>(&self, show: impl FnOnce(&str) -> T) -> T {
                let mut digits = [0_u8; $bytes * 2];
                // Cannot fail: there is room for two digits a byte, and digits are ASCII.
                hex::encode_to_slice(self.0, &mut digits).unwrap_or_default();
                show(std::str::from_utf8(&digits).unwrap_or_default())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.with_digits(|digits| f.write_str(digits))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.with_digits(|digits| to.serialize_str(digits))
            }
        }
    };
}

digest_value!(
    /// SHA-1, written as 40 lower-case hex digits.
    Sha1Digest,
    20
);
digest_value!(
    /// MD5, written as 32 lower-case hex digits.
    Md5Digest,
    16
);
digest_value!(
    /// SHA-256, written as 64 lower-case hex digits.
    Sha256Digest,
    32
);

impl Sha256Digest {
    /// Reads hex digits of either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_slice(&hex::decode(text).ok()?)
    }
}

impl Sha1Digest {
    /// Reads hex digits of either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0_u8; 20];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// SHA-1 of no bytes at all; Backblaze shows it on hide markers.
    pub(crate) const OF_NOTHING: Self = Self([
        0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55, 0xbf, 0xef, 0x95, 0x60, 0x18,
        0x90, 0xaf, 0xd8, 0x07, 0x09,
    ]);
}

impl Md5Digest {
    /// Reads hex digits of either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_slice(&hex::decode(text).ok()?)
    }

    /// MD5 of no bytes at all; Backblaze shows it on hide markers.
    pub(crate) const OF_NOTHING: Self = Self([
        0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42,
        0x7e,
    ]);
}

/// CRC-32C of each block of [`CHECK_BLOCK_BYTES`] (the last one may be shorter), four
/// little-endian bytes a block.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct BlockChecks(pub(crate) Vec<u8>);

impl BlockChecks {
    fn of_block(&self, index: u64) -> Option<[u8; 4]> {
        let start = usize::try_from(index.checked_mul(4)?).ok()?;
        self.0.get(start..start.checked_add(4)?)?.try_into().ok()
    }
}

/// All that is known of content once it has been read through. The checks are those of the stored
/// bytes, everything else is of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) size: u64,
    pub(crate) sha1: Sha1Digest,
    pub(crate) md5: Md5Digest,
    pub(crate) checks: BlockChecks,
}

fn new_crc() -> Crc {
    Crc::new(CrcAlgorithm::Crc32Iscsi)
}

fn crc_bytes(crc: &Crc) -> [u8; 4] {
    u32::try_from(crc.finalize() & 0xffff_ffff).unwrap_or_default().to_le_bytes()
}

/// MD5 of several texts one after the other.
pub(crate) fn md5_of<'b>(texts: impl Iterator<Item = &'b [u8]>) -> Md5Digest {
    let mut md5 = Md5::new();
    texts.for_each(|text| md5.update(text));
    Md5Digest(md5.finalize().into())
}

/// SHA-256 of several texts one after the other.
pub(crate) fn sha256_of<'b>(texts: impl Iterator<Item = &'b [u8]>) -> Sha256Digest {
    let mut sha256 = Sha256::new();
    texts.for_each(|text| sha256.update(text));
    Sha256Digest(sha256.finalize().into())
}

/// Computes SHA-256 while content flows by.
#[derive(Default)]
pub(crate) struct Sha256Hasher(Sha256);

impl Sha256Hasher {
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    pub(crate) fn finish(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

/// Computes SHA-1 while content flows by.
#[derive(Clone, Default)]
pub(crate) struct Sha1Hasher(Sha1);

impl Sha1Hasher {
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    pub(crate) fn finish(self) -> Sha1Digest {
        Sha1Digest(self.0.finalize().into())
    }
}

/// Computes MD5 while content flows by.
#[derive(Default)]
pub(crate) struct Md5Hasher(Md5);

impl Md5Hasher {
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    pub(crate) fn finish(self) -> Md5Digest {
        Md5Digest(self.0.finalize().into())
    }
}

/// Computes the checks of blocks while bytes flow by.
struct BlockChecker {
    size: u64,
    block: Crc,
    checks: Vec<u8>,
}

impl BlockChecker {
    fn update(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let room = CHECK_BLOCK_BYTES - self.size % CHECK_BLOCK_BYTES;
            let taken = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(taken);
            self.block.update(now);
            self.size += u64::try_from(taken).unwrap_or(u64::MAX);
            if self.size.is_multiple_of(CHECK_BLOCK_BYTES) {
                self.end_block();
            }
            rest = later;
        }
    }

    fn end_block(&mut self) {
        self.checks.extend_from_slice(&crc_bytes(&self.block));
        self.block = new_crc();
    }

    fn finish(mut self) -> BlockChecks {
        if !self.size.is_multiple_of(CHECK_BLOCK_BYTES) {
            self.end_block();
        }
        BlockChecks(self.checks)
    }
}

/// Computes all digests while content flows by. The checks of blocks are those of the bytes that
/// are stored, which are not the content where it is sealed.
pub(crate) struct Hasher {
    size: u64,
    sha1: Sha1,
    md5: Md5,
    stored: BlockChecker,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let stored = BlockChecker { size: 0, block: new_crc(), checks: Vec::new() };
        Self { size: 0, sha1: Sha1::new(), md5: Md5::new(), stored }
    }

    /// Takes content that is stored as it is.
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        self.content(chunk);
        self.stored(chunk);
    }

    /// Takes content that is stored in another form.
    pub(crate) fn content(&mut self, chunk: &[u8]) {
        self.sha1.update(chunk);
        self.md5.update(chunk);
        self.size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
    }

    /// Takes the form in which content is stored.
    pub(crate) fn stored(&mut self, chunk: &[u8]) {
        self.stored.update(chunk);
    }

    pub(crate) fn finish(self) -> Digests {
        Digests {
            size: self.size,
            sha1: Sha1Digest(self.sha1.finalize().into()),
            md5: Md5Digest(self.md5.finalize().into()),
            checks: self.stored.finish(),
        }
    }
}

/// Compares bytes that are read back with the checks kept when they were written.
///
/// Shape: fed whole blocks in order, starting with any of them.
pub(crate) struct Verifier {
    checks: BlockChecks,
    next: u64,
}

/// Bytes on the disk are not the bytes that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt {
    pub(crate) block: u64,
}

impl Verifier {
    /// Begins with block `first`.
    pub(crate) fn starting_with(first: u64, checks: BlockChecks) -> Self {
        Self { checks, next: first }
    }

    /// Compares the next blocks. Only the last block of all may be shorter than the others, so only
    /// the last call may end inside a block.
    pub(crate) fn update(&mut self, blocks: &[u8]) -> Result<(), Corrupt> {
        let block_bytes = usize::try_from(CHECK_BLOCK_BYTES).unwrap_or(usize::MAX);
        for block in blocks.chunks(block_bytes) {
            let mut crc = new_crc();
            crc.update(block);
            if self.checks.of_block(self.next) != Some(crc_bytes(&crc)) {
                return Err(Corrupt { block: self.next });
            }
            self.next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests_of(bytes: &[u8]) -> Digests {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn digests_of_nothing_are_the_known_ones() {
        let digests = digests_of(b"");
        assert_eq!(digests.sha1, Sha1Digest::OF_NOTHING);
        assert_eq!(digests.md5, Md5Digest::OF_NOTHING);
        assert_eq!(digests.checks, BlockChecks::default());
    }

    #[test]
    fn crc_is_crc32c() {
        // The check value of CRC-32C for the nine digits, as in the catalogues of CRCs.
        assert_eq!(digests_of(b"123456789").checks.0, 0xe306_9283_u32.to_le_bytes());
    }

    #[test]
    fn a_flipped_bit_is_found_in_every_block() {
        let size = CHECK_BLOCK_BYTES * 2 + 10;
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
        let checks = digests_of(&bytes).checks;
        let mut clean = Verifier::starting_with(0, checks.clone());
        assert_eq!(clean.update(&bytes), Ok(()));
        for position in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            let mut verifier = Verifier::starting_with(0, checks.clone());
            assert!(verifier.update(&flipped).is_err(), "bit flipped at {position}");
        }
    }

    #[test]
    fn blocks_are_compared_from_any_of_them_on() {
        let size = CHECK_BLOCK_BYTES * 3 + 5;
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
        let checks = digests_of(&bytes).checks;
        let start = usize::try_from(CHECK_BLOCK_BYTES).unwrap_or(0);
        let mut verifier = Verifier::starting_with(1, checks.clone());
        assert_eq!(verifier.update(&bytes[start..start * 2]), Ok(()));
        assert_eq!(verifier.update(&bytes[start * 2..]), Ok(()));
        let mut verifier = Verifier::starting_with(1, checks.clone());
        assert_eq!(
            verifier.update(&bytes[start * 2..]),
            Err(Corrupt { block: 1 }),
            "another block"
        );
        let mut verifier = Verifier::starting_with(3, checks);
        assert_eq!(verifier.update(&bytes[start * 3..bytes.len() - 1]), Err(Corrupt { block: 3 }));
    }
}
