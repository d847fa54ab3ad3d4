//! Where the bytes of a version can be.

use bytes::Bytes;

/// Where finished bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Small content: the bytes go into the catalog, in the committing transaction.
    Inline(Bytes),
    /// The bytes are a durable blob in the blob store.
    Stored,
}
