//! Where the bytes of a version can be, and how they are sealed.

use bytes::Bytes;

use crate::domain::ids::BlobId;

/// Where finished bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Small content: the bytes go into the catalog, in the committing transaction.
    Inline(Bytes),
    /// The bytes are a durable blob in the blob store.
    Stored,
}

/// A stretch of another blob, which is itself not made of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) blob: BlobId,
    /// First byte inside that blob.
    pub(crate) start: u64,
    /// In bytes, at least one.
    pub(crate) size: u64,
}

/// How the bytes of a blob are sealed: each has a data key of its own, kept only wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum Seal {
    #[default]
    Plain,
    /// The data key is wrapped with the key of that number in the key ring.
    Managed { ring_key: i64, wrapped: Vec<u8> },
    /// The data key is wrapped with a key that only the customer has.
    Customer(Vec<u8>),
}
