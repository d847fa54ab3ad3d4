//! What a stream asks of a store that is not ours: a few verbs, the same for a peer, for Backblaze B2
//! and for S3.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::domain::digest::Md5Digest;
use crate::domain::file::{ContentSha1, FileInfo};
use crate::domain::lock::FileLock;
use crate::domain::range::ByteRange;
pub(crate) use crate::domain::remote::{Checked, ListedPage, ListedVersion, RemoteBucket};
use crate::domain::remote::{Remote, RemoteToken};
use crate::domain::remote_answer::RemoteFault;
use crate::domain::time::Millis;
use crate::operations::error::Error;
use crate::replication::destination::Progress;

/// A version on its way out, as it is to be at the other side.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingFile {
    pub(crate) bucket: RemoteBucket,
    /// With the prefix of the stream in front.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
    /// As the version has it here. What nobody but us verified is as good as any other.
    pub(crate) sha1: ContentSha1,
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
    /// What is in parts here is to be in the same parts there, however small it is.
    pub(crate) keeps_parts: bool,
}

const MIB: u64 = 1024 * 1024;

impl PartRules {
    /// Whether a file is sent in one piece.
    pub(crate) fn sends_whole(self, size: u64, part_sizes: &[u64]) -> bool {
        size <= self.threshold && (!self.keeps_parts || part_sizes.is_empty())
    }

    /// How a file is cut: as it is here, where the store takes that, else evenly.
    pub(crate) fn cut(self, size: u64, part_sizes: &[u64]) -> Vec<PartPlan> {
        let but_last = part_sizes.get(..part_sizes.len().saturating_sub(1)).unwrap_or_default();
        let keeps = !part_sizes.is_empty()
            && part_sizes.len() <= self.parts_max as usize
            && part_sizes.iter().sum::<u64>() == size
            && but_last.iter().all(|part| *part >= self.smallest);
        let even = || {
            let least = size.div_ceil(u64::from(self.parts_max.max(1)));
            let part = least.max(self.usual).max(self.smallest);
            let part = if part < MIB { part } else { part.next_multiple_of(MIB) };
            let count = size.div_ceil(part).max(1);
            (0..count).map(|at| part.min(size - at * part)).collect()
        };
        let sizes = if keeps { part_sizes.to_vec() } else { even() };
        let mut start = 0;
        let ranges = sizes.into_iter().map(|part| {
            let range = ByteRange { start, end: start + part };
            start += part;
            range
        });
        (1..).zip(ranges).map(|(number, range)| PartPlan { number, range }).collect()
    }
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

/// Opens remotes.
pub(crate) trait Remotes: Send + Sync {
    /// A client for a remote. It is kept for as long as the remote stays as it is.
    fn open<'a>(
        &'a self,
        remote: &'a Remote,
        token: RemoteToken,
    ) -> BoxFuture<'a, Result<Arc<dyn RemoteStore>, RemoteFault>>;

    /// Lets the bytes of one attempt through, at the speed that is allowed, and notes that it gets on.
    fn pace(&self, remote: &Remote, progress: &Progress) -> Arc<dyn Pace>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: PartRules = PartRules {
        threshold: 100 * MIB,
        smallest: 5 * MIB,
        usual: 64 * MIB,
        parts_max: 10_000,
        keeps_parts: false,
    };

    fn sizes(plan: &[PartPlan]) -> Vec<u64> {
        assert!(plan.iter().zip(1..).all(|(part, number)| part.number == number));
        let ends = plan.iter().map(|part| part.range.end);
        assert!(plan.iter().skip(1).map(|part| part.range.start).eq(ends.take(plan.len() - 1)));
        plan.iter().map(|part| part.range.len()).collect()
    }

    #[test]
    fn replication_103_parts_stay_as_they_are_where_the_store_takes_them() {
        let kept = [5 * MIB, 7 * MIB, 1];
        assert_eq!(sizes(&RULES.cut(12 * MIB + 1, &kept)), kept);
        assert_eq!(sizes(&RULES.cut(130 * MIB, &[])), [64 * MIB, 64 * MIB, 2 * MIB]);
        let too_small = [MIB, 129 * MIB];
        assert_eq!(sizes(&RULES.cut(130 * MIB, &too_small)), [64 * MIB, 64 * MIB, 2 * MIB]);
        let not_the_file = [5 * MIB, 7 * MIB];
        assert_eq!(sizes(&RULES.cut(13 * MIB, &not_the_file)), [13 * MIB]);
    }

    #[test]
    fn replication_103_where_parts_are_kept_even_a_small_file_goes_in_them() {
        assert!(RULES.sends_whole(100 * MIB, &[]) && !RULES.sends_whole(100 * MIB + 1, &[]));
        assert!(RULES.sends_whole(2, &[1, 1]));
        let keeping = PartRules { keeps_parts: true, ..RULES };
        assert!(keeping.sends_whole(2, &[]) && !keeping.sends_whole(2, &[1, 1]));
    }

    #[test]
    fn f77_a_file_of_any_size_fits_the_number_of_parts() {
        let few = PartRules { parts_max: 3, ..RULES };
        let size = 1000 * MIB + 1;
        let cut = few.cut(size, &[]);
        assert_eq!(sizes(&cut), [334 * MIB, 334 * MIB, 332 * MIB + 1]);
        assert_eq!(sizes(&few.cut(0, &[])), [0]);
        let many = vec![5 * MIB; 4];
        assert_eq!(few.cut(20 * MIB, &many).len(), 1);
    }
}
