//! Replication streams as pure rules: what a stream may ask for, which versions it takes, what its
//! queue holds and what happens when that is full.
//!
//! Source: replication.md B1, B3, B4 and B5.

use serde_json::{Map, Value};

use crate::domain::encryption::Encryption;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::names::check_prefix;
use crate::domain::refusal::{Refusal, bad_request};
use crate::domain::remote::{
    RemoteBucket, RemoteId, StreamId, check_description, check_name, overlaid,
};
use crate::domain::replication::{JobState, ReplicationStatus};
use crate::domain::time::Millis;

/// What a queue may hold when nobody says (documented).
pub(crate) const QUEUE_BYTES_DEFAULT: i64 = 67_108_860;
/// The least that may be said (documented).
pub(crate) const QUEUE_BYTES_MIN: i64 = 33_554_430;
/// How long an entry may wait when nobody says: a week (documented).
pub(crate) const MAX_AGE_S_DEFAULT: i64 = 604_800;
/// What an entry costs beside its bytes, so that a queue of empty files is not an empty queue.
pub(crate) const ENTRY_BYTES: i64 = 256;

/// What becomes of an upload for whose job the queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnQueueFull {
    /// It is remembered outside of the queue and carried when there is room.
    #[default]
    Spill,
    /// It is not carried, which is counted.
    Drop,
    /// It is refused.
    Reject,
}

/// What may be said about a stream beyond InfluxDB's fields; the serde form is the catalog's.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StreamOptions {
    pub(crate) file_name_prefix: String,
    pub(crate) exclude_prefixes: Vec<String>,
    /// Put in front of names at the remote.
    pub(crate) destination_prefix: String,
    pub(crate) include_existing_files: bool,
    pub(crate) include_replicas: bool,
    pub(crate) on_queue_full: OnQueueFull,
    /// Carry versions that were deleted while they waited.
    pub(crate) pin_deleted: bool,
}

/// Prefixes that a stream may leave out.
const EXCLUDED_MAX: usize = 100;

impl StreamOptions {
    /// These options with what a caller said about some of them.
    pub(crate) fn with(&self, fields: &Map<String, Value>) -> Result<Self, Refusal> {
        overlaid(self, fields)
    }

    fn check(&self) -> Result<(), Refusal> {
        // Accepted and not done it would lose what somebody counts on.
        if self.pin_deleted {
            return Err(bad_request("pinDeleted is not supported yet: leave it out or false"));
        }
        check_prefix("fileNamePrefix", &self.file_name_prefix)?;
        check_prefix("destinationPrefix", &self.destination_prefix)?;
        if self.destination_prefix.starts_with('/') || self.destination_prefix.contains("//") {
            return Err(bad_request("destinationPrefix must begin like a file name"));
        }
        if self.exclude_prefixes.len() > EXCLUDED_MAX {
            let text = format!("excludePrefixes must hold at most {EXCLUDED_MAX} prefixes");
            return Err(bad_request(text));
        }
        self.exclude_prefixes.iter().try_for_each(|one| check_prefix("excludePrefixes", one))
    }

    /// Whether the stream is about a name.
    pub(crate) fn takes_name(&self, name: &str) -> bool {
        name.starts_with(&self.file_name_prefix)
            && !self.exclude_prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// The figures of a queue. Bytes include [`ENTRY_BYTES`] for each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct QueueSums {
    pub(crate) entries: i64,
    /// Of all unfinished entries.
    pub(crate) current_bytes: i64,
    /// What of them the remote has not acknowledged.
    pub(crate) remaining_bytes: i64,
    /// Jobs that wait outside of the queue; they count nowhere else.
    pub(crate) spilled: i64,
}

/// How much an entry of this size takes of a queue.
pub(crate) fn cost_bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX / 2).saturating_add(ENTRY_BYTES)
}

impl QueueSums {
    /// What one job adds to the figures of its stream.
    pub(crate) fn of_job(state: JobState, size: u64, confirmed: u64) -> Self {
        if state == JobState::Spilled {
            return Self { spilled: 1, ..Self::default() };
        }
        if !state.is_queued() {
            return Self::default();
        }
        let cost = cost_bytes(size);
        let confirmed = i64::try_from(confirmed).unwrap_or_default();
        Self { entries: 1, current_bytes: cost, remaining_bytes: cost - confirmed, spilled: 0 }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            current_bytes: self.current_bytes + other.current_bytes,
            remaining_bytes: self.remaining_bytes + other.remaining_bytes,
            spilled: self.spilled + other.spilled,
        }
    }

    /// What changes when a job goes from one to the other.
    pub(crate) fn change(before: Self, after: Self) -> Self {
        Self {
            entries: after.entries - before.entries,
            current_bytes: after.current_bytes - before.current_bytes,
            remaining_bytes: after.remaining_bytes - before.remaining_bytes,
            spilled: after.spilled - before.spilled,
        }
    }

    /// Whether an entry of this size finds room. One always may enter an empty queue, else a file
    /// larger than the queue could never go. Nothing overtakes what waits outside.
    pub(crate) fn admits(self, size: u64, max_bytes: i64) -> bool {
        let fits = self.current_bytes.saturating_add(cost_bytes(size)) <= max_bytes;
        self.spilled == 0 && (fits || self.entries == 0)
    }

    /// Whether what waits outside may come in: a tenth of the queue is free, or nothing is in it.
    pub(crate) fn takes_spilled(self, max_bytes: i64) -> bool {
        self.spilled > 0 && (self.entries == 0 || self.current_bytes <= max_bytes / 10 * 9)
    }
}

/// A stream: what is written to a bucket here is carried on to a bucket of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) account: AccountId,
    /// The organization as it was written by who made the stream.
    pub(crate) org_id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) remote: RemoteId,
    pub(crate) local_bucket: BucketId,
    pub(crate) remote_bucket_id: Option<String>,
    /// Empty where there is an id.
    pub(crate) remote_bucket_name: String,
    pub(crate) max_queue_bytes: i64,
    /// 0 for ever.
    pub(crate) max_age_s: i64,
    pub(crate) drop_non_retryable: bool,
    pub(crate) is_paused: bool,
    pub(crate) options: StreamOptions,
    pub(crate) sums: QueueSums,
    /// What the remote answered last, 0 when it did not answer; None before the first attempt.
    pub(crate) latest: Option<(i64, String)>,
    pub(crate) created_at: Millis,
    pub(crate) updated_at: Millis,
}

/// Why a stream does not take a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Not about it, which is nothing to count.
    Other,
    /// Encrypted with a key that only the customer has.
    CustomerKey,
}

/// Longest id or name of a bucket at a remote, in bytes.
const REMOTE_BUCKET_BYTES_MAX: usize = 255;
/// Longer would not fit the time line.
const MAX_AGE_S_MAX: i64 = i64::MAX / 1000;

/// The bucket at the remote, as a caller names it: by its id or its name, and an empty one is none.
/// None when there is neither.
pub(crate) fn named_bucket(
    id: Option<&str>,
    name: Option<&str>,
) -> Result<Option<RemoteBucket>, Refusal> {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let bucket = match (given(id), given(name)) {
        (Some(_), Some(_)) => {
            return Err(bad_request("remoteBucketID and remoteBucketName are mutually exclusive"));
        }
        (Some(id), None) => RemoteBucket::Id(id),
        (None, Some(name)) => RemoteBucket::Name(name),
        (None, None) => return Ok(None),
    };
    let (field, text) = match &bucket {
        RemoteBucket::Id(id) => ("remoteBucketID", id),
        RemoteBucket::Name(name) => ("remoteBucketName", name),
    };
    let unfit = |b: u8| b <= b' ' || b == 127 || b == b'?' || b == b'#';
    if text.len() > REMOTE_BUCKET_BYTES_MAX || text.bytes().any(unfit) {
        return Err(bad_request(format!("{field} is not a name of a bucket")));
    }
    Ok(Some(bucket))
}

impl Stream {
    /// Checks what callers say about a stream.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        check_description(self.description.as_deref())?;
        if self.max_queue_bytes < QUEUE_BYTES_MIN {
            let text = format!("maxQueueSize too small, must be at least {QUEUE_BYTES_MIN}");
            return Err(bad_request(text));
        }
        if !(0..=MAX_AGE_S_MAX).contains(&self.max_age_s) {
            return Err(bad_request("maxAgeSeconds must be greater than or equal to 0"));
        }
        self.options.check()
    }

    /// Points the stream to a bucket at its remote.
    pub(crate) fn set_remote_bucket(&mut self, bucket: RemoteBucket) {
        (self.remote_bucket_id, self.remote_bucket_name) = match bucket {
            RemoteBucket::Id(id) => (Some(id), String::new()),
            RemoteBucket::Name(name) => (None, name),
        };
    }

    /// Whether another stream puts the same names into another place, or under other names.
    pub(crate) fn leads_elsewhere(&self, other: &Self) -> bool {
        self.remote != other.remote
            || self.remote_bucket() != other.remote_bucket()
            || self.options.destination_prefix != other.options.destination_prefix
    }

    /// Where the versions go.
    pub(crate) fn remote_bucket(&self) -> RemoteBucket {
        match &self.remote_bucket_id {
            Some(id) => RemoteBucket::Id(id.clone()),
            None => RemoteBucket::Name(self.remote_bucket_name.clone()),
        }
    }

    /// What a name of ours is at the remote.
    pub(crate) fn remote_name(&self, name: &str) -> String {
        format!("{}{name}", self.options.destination_prefix)
    }

    /// Whether the stream carries a version: content that was written here, not hides and not
    /// unfinished files.
    pub(crate) fn takes(&self, version: &FileVersion) -> Result<(), NotTaken> {
        let is_replica = version.replication == Some(ReplicationStatus::Replica);
        if version.action != Action::Upload
            || !self.options.takes_name(version.name.as_str())
            || (is_replica && !self.options.include_replicas)
        {
            return Err(NotTaken::Other);
        }
        if matches!(version.encryption, Encryption::Customer { .. }) {
            return Err(NotTaken::CustomerKey);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: i64 = QUEUE_BYTES_MIN;

    #[test]
    fn replication_172_173_176_a_queue_counts_bytes_and_something_for_each_entry() {
        let empty = QueueSums::of_job(JobState::Ready, 0, 0);
        assert_eq!((empty.current_bytes, empty.remaining_bytes), (256, 256));
        let some = QueueSums::of_job(JobState::Leased, 1000, 400);
        assert_eq!((some.current_bytes, some.remaining_bytes), (1256, 856));
        let all = QueueSums::of_job(JobState::Parked, 1000, 1000);
        assert_eq!((all.entries, all.remaining_bytes), (1, 256));
        for ended in [JobState::Done, JobState::Dropped, JobState::Cancelled, JobState::Failed] {
            assert_eq!(QueueSums::of_job(ended, 1000, 400), QueueSums::default());
        }
        let spilled = QueueSums::of_job(JobState::Spilled, 1000, 0);
        assert_eq!((spilled.spilled, spilled.entries, spilled.current_bytes), (1, 0, 0));
    }

    #[test]
    fn f62_replication_180_a_file_larger_than_the_queue_enters_an_empty_one() {
        let huge = 10 * MAX as u64;
        assert!(QueueSums::default().admits(huge, MAX));
        let one = QueueSums::of_job(JobState::Ready, 0, 0);
        assert!(!one.admits(huge, MAX));
        assert!(one.admits((MAX - 512) as u64, MAX));
        assert!(!one.admits((MAX - 511) as u64, MAX));
    }

    #[test]
    fn what_waits_outside_is_not_overtaken_and_comes_in_when_a_tenth_is_free() {
        let waiting = QueueSums { spilled: 1, ..QueueSums::default() };
        assert!(!waiting.admits(0, MAX));
        assert!(waiting.takes_spilled(MAX));
        let nearly = QueueSums { entries: 1, current_bytes: MAX / 10 * 9, ..waiting };
        assert!(nearly.takes_spilled(MAX));
        assert!(
            !QueueSums { current_bytes: nearly.current_bytes + 1, ..nearly }.takes_spilled(MAX)
        );
    }

    #[test]
    fn a_stream_takes_names_below_its_prefix_that_are_not_excluded() {
        let options = StreamOptions {
            file_name_prefix: "photos/".to_owned(),
            exclude_prefixes: vec!["photos/raw/".to_owned()],
            ..StreamOptions::default()
        };
        assert!(options.takes_name("photos/a"));
        assert!(!options.takes_name("photos/raw/a"));
        assert!(!options.takes_name("a"));
    }

    #[test]
    fn a_bucket_at_a_remote_has_an_id_or_a_name() {
        let id = || Some(RemoteBucket::Id("4a48fe88".to_owned()));
        let name = || Some(RemoteBucket::Name("offsite".to_owned()));
        assert_eq!(named_bucket(Some("4a48fe88"), None), Ok(id()));
        assert_eq!(named_bucket(Some("4a48fe88"), Some("")), Ok(id()));
        assert_eq!(named_bucket(Some(""), Some("offsite")), Ok(name()));
        assert_eq!(named_bucket(None, Some("")), Ok(None));
        for (id, name) in [(Some("a"), Some("b")), (Some("a b"), None), (None, Some("a?b"))] {
            assert!(named_bucket(id, name).is_err());
        }
    }
}
