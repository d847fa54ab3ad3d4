//! What a stream asks of a store that is not ours: a few verbs, the same for a peer, for Backblaze B2
//! and for S3.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::file::FileInfo;
use crate::domain::lock::FileLock;
use crate::domain::range::ByteRange;
pub(crate) use crate::domain::remote::{Checked, ListedPage, ListedVersion, RemoteBucket};
use crate::domain::remote_answer::RemoteFault;
use crate::domain::time::Millis;
use crate::operations::error::Error;

/// A version on its way out, as it is to be at the other side.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingFile {
    pub(crate) bucket: RemoteBucket,
    /// With the prefix of the stream in front.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
    /// None when it is not known for certain.
    pub(crate) sha1: Option<Sha1Digest>,
    pub(crate) md5: Option<Md5Digest>,
    pub(crate) upload_at: Millis,
    /// Which version of which server this is a copy of.
    pub(crate) origin: String,
    /// Servers that it has been through, ours included.
    pub(crate) hops: Vec<String>,
    pub(crate) lock: FileLock,
    /// Stored with SSE-B2 here, so there too.
    pub(crate) is_encrypted: bool,
    /// The sizes of its parts here, in order; empty for a file of one piece.
    pub(crate) part_sizes: Vec<u64>,
    /// The key id of a rule's source, which a peer maps to a key of its own; None for a stream.
    pub(crate) source_key: Option<String>,
}

/// The content of a version, to be read as often as it takes.
pub(crate) trait Content: Send + Sync {
    /// The bytes of a range, in chunks. An error of ours ends the stream.
    fn open(&self, range: ByteRange) -> BoxStream<'static, Result<Bytes, Error>>;
}

/// One part of a file that is sent in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartPlan {
    /// From 1 on.
    pub(crate) number: u32,
    pub(crate) range: ByteRange,
}

/// A part that the other side has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfirmedPart {
    pub(crate) number: u32,
    pub(crate) size: u64,
    /// What the finishing call names the part by: its SHA-1, or its `ETag`.
    pub(crate) tag: String,
}

/// A version at the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteVersion {
    /// File id, or version id; empty where the store gives none.
    pub(crate) id: String,
    /// The status of the answer that told of it.
    pub(crate) status: u16,
}

/// How large files are cut for a store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartRules {
    /// Files above this size are sent in parts.
    pub(crate) threshold: u64,
    /// Of all parts but the last.
    pub(crate) smallest: u64,
    pub(crate) usual: u64,
    pub(crate) parts_max: u32,
}

/// A store that is not ours. Every verb may fail with a fault that says what it means; none keeps more
/// than a few buffers in memory. What a verb sends is told to `sent`, chunk by chunk, as the sign of
/// life of its attempt.
pub(crate) trait RemoteStore: Send + Sync {
    fn part_rules(&self) -> PartRules;

    /// Whether versions keep the time of their source there, so that their order by name does not
    /// depend on the order of their arrival.
    fn keeps_timestamps(&self) -> bool;

    /// Whether the bucket is there and may be written to, without leaving anything. Answers the
    /// instance id of a kiln and the id of the bucket, where there are such.
    fn check<'a>(&'a self, bucket: &'a RemoteBucket)
    -> BoxFuture<'a, Result<Checked, RemoteFault>>;

    /// The version that an earlier attempt left: by its marker, else by name, size, checksum and time.
    fn find<'a>(
        &'a self,
        file: &'a OutgoingFile,
    ) -> BoxFuture<'a, Result<Option<RemoteVersion>, RemoteFault>>;

    /// Sends a file in one piece.
    fn put<'a>(&'a self, sending: Sending<'a>)
    -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>>;

    /// Begins a file in parts; answers its session.
    fn start<'a>(&'a self, file: &'a OutgoingFile) -> BoxFuture<'a, Result<String, RemoteFault>>;

    fn put_part<'a>(
        &'a self,
        sending: Sending<'a>,
        session: &'a str,
        part: PartPlan,
    ) -> BoxFuture<'a, Result<ConfirmedPart, RemoteFault>>;

    /// All parts of a session that the other side has.
    fn list_parts<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConfirmedPart>, RemoteFault>>;

    fn finish<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
        parts: &'a [ConfirmedPart],
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>>;

    /// Gives a session up; one that is not known is no fault.
    fn cancel<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
        name: &'a str,
        session: &'a str,
    ) -> BoxFuture<'a, Result<(), RemoteFault>>;

    /// Versions in the bucket, in the order of their names; `from` is where a page before ended.
    fn list<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ListedPage, RemoteFault>>;
}

/// A file with its content, and whom to tell of each chunk that is on its way.
#[derive(Clone, Copy)]
pub(crate) struct Sending<'a> {
    pub(crate) file: &'a OutgoingFile,
    pub(crate) content: &'a Arc<dyn Content>,
    /// Waits until so many bytes may be sent (bandwidth) and notes them as progress.
    pub(crate) pace: &'a Arc<dyn Pace>,
}

/// Lets bytes through at the speed that is allowed.
pub(crate) trait Pace: Send + Sync {
    fn admit(&self, bytes: u64) -> BoxFuture<'static, ()>;
}
