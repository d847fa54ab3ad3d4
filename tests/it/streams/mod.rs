//! Replication between servers on the wire: the peer protocol, remotes and streams.

mod peer;
