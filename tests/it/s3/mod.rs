//! The S3-compatible API on the wire: the numbered statements of its specification, against the
//! built binary.

mod bodies;
mod door;
mod framing;
mod lasting;
mod replication;
mod rights;
mod signatures;
