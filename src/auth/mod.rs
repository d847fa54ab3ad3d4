//! Proofs: who is calling, and what a secret or a token is worth.
//!
//! Kept here: tokens, signatures of requests and of messages, sealing of secrets and of the keys of
//! blobs, comparison of secrets, the caller and the grant.
//! Deliberately not here: storage; a proof is given the facts it needs. Operations call. The
//! promise that would break first: nobody without the right reaches a bucket or a file.

pub(crate) mod caller;
pub(crate) mod data_keys;
pub(crate) mod key_ring;
pub(crate) mod sealing;
pub(crate) mod signature;
pub(crate) mod sigv4;
pub(crate) mod token;
