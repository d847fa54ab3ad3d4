//! What is uploaded: incompressible bodies that differ from one another, with their SHA-1 known
//! before any clock runs, and the names they are stored under.

use std::cell::Cell;

use sha1::{Digest, Sha1};

/// The part of a body that differs from the other bodies of its set.
const DISTINCT: usize = 8;

/// A xorshift generator: good enough to defeat compression and to pick requests, and nearly free.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`. The bias of the remainder is of no consequence for picking requests.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("a remainder fits what it was taken by")
    }
}

/// A ring of bodies of one size that share all but their first eight bytes.
pub(crate) struct Bodies {
    shared: Vec<u8>,
    variants: Vec<Variant>,
}

/// What sets one body apart.
pub(crate) struct Variant {
    start: [u8; DISTINCT],
    sha1: [u8; 40],
}

impl Bodies {
    /// Prepares `variants` bodies of `size` bytes; hashing is done here and never while measuring.
    pub(crate) fn prepare(size: usize, variants: usize) -> Self {
        assert!(size >= DISTINCT, "a body has to have room for the bytes that make it unique");
        let mut random = Random::new(size as u64);
        let mut shared = Vec::with_capacity(size);
        while shared.len() < size - DISTINCT {
            shared.extend_from_slice(&random.next().to_le_bytes());
        }
        shared.truncate(size - DISTINCT);
        let variants = (0..variants)
            .map(|_| {
                let start = random.next().to_le_bytes();
                let digest = Sha1::new().chain_update(start).chain_update(&shared).finalize();
                let mut sha1 = [0; 40];
                hex::encode_to_slice(digest, &mut sha1).expect("a SHA-1 has forty digits");
                Variant { start, sha1 }
            })
            .collect();
        Self { shared, variants }
    }

    pub(crate) fn size(&self) -> usize {
        self.shared.len() + DISTINCT
    }

    /// The body for the upload with this number.
    pub(crate) fn get(&self, number: u64) -> (&Variant, &[u8]) {
        let ring = self.variants.len() as u64;
        let place = usize::try_from(number % ring).expect("a place in the ring fits its length");
        (&self.variants[place], &self.shared)
    }

    /// The body for the upload with this number, in one piece.
    pub(crate) fn whole(&self, number: u64) -> Vec<u8> {
        let (variant, shared) = self.get(number);
        [&variant.start, shared].concat()
    }
}

impl Variant {
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    pub(crate) fn sha1(&self) -> &[u8] {
        &self.sha1
    }
}

/// How uploads are named. Every name of one kind has the same length, so that a prepared request
/// head can be filled in place.
#[derive(Clone, Copy)]
pub(crate) enum Names {
    /// One flat sequence.
    Flat,
    /// A hundred folders that fill evenly, so that neighbours in a listing were not neighbours in
    /// time.
    Tree,
}

/// How many folders [`Names::Tree`] has.
pub(crate) const FOLDERS: u64 = 100;
/// What every name of [`Names::Tree`] begins with.
pub(crate) const TREE: &str = "tree/";

impl Names {
    pub(crate) fn get(self, number: u64) -> String {
        match self {
            Self::Flat => format!("flat/{number:012}"),
            Self::Tree => format!("{TREE}d{:02}/f{:07}", number % FOLDERS, number / FOLDERS),
        }
    }

    /// The name at a place in the sorted listing of `files` names of the tree.
    pub(crate) fn sorted(files: u64, place: u64) -> String {
        let each = files / FOLDERS;
        Self::Tree.get((place % each) * FOLDERS + place / each)
    }
}

/// Hands out numbers to all uploads that share it.
#[derive(Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    pub(crate) fn next(&self) -> u64 {
        self.0.replace(self.0.get() + 1)
    }
}
