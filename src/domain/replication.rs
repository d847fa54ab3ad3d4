//! Cloud Replication as pure rules: what a configuration may say, which jobs an upload needs, what
//! status a file shows, how long a retry waits.
//!
//! Source: replication.md A1 to A7 and C8; the rule numbers (V6, G2 ...) are those of that text.

use std::collections::BTreeMap;

use crate::domain::encryption::Encryption;
use crate::domain::file::{Action, FileVersion, header_bytes};
use crate::domain::ids::{BucketId, KeyId};
use crate::domain::names::check_prefix;
use crate::domain::refusal::{Refusal, bad_request, missing_field, shorten};

/// Rules per source bucket, enabled or not (documented).
const RULES_MAX: usize = 2;
/// Largest priority (b2sdk and the Java SDK refuse more).
const PRIORITY_MAX: i64 = 2_147_483_647;
/// Files with more bytes of metadata headers are not replicated (documented).
pub(crate) const METADATA_BYTES_MAX: usize = 2048;

/// Both sides of a bucket's replication; the serde form is the wire's and the catalog's.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReplicationConfiguration {
    pub(crate) as_replication_destination: Option<AsDestination>,
    pub(crate) as_replication_source: Option<AsSource>,
}

impl ReplicationConfiguration {
    pub(crate) fn is_empty(&self) -> bool {
        self.as_replication_destination.is_none() && self.as_replication_source.is_none()
    }

    pub(crate) fn rules(&self) -> &[ReplicationRule] {
        self.as_replication_source.as_ref().map_or(&[], |source| &source.replication_rules)
    }
}

/// The source side of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AsSource {
    pub(crate) replication_rules: Vec<ReplicationRule>,
    pub(crate) source_application_key_id: String,
}

/// The destination side of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AsDestination {
    pub(crate) source_to_destination_key_mapping: BTreeMap<String, String>,
}

/// One rule; all six fields are always present on the wire.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplicationRule {
    pub(crate) destination_bucket_id: String,
    pub(crate) file_name_prefix: String,
    pub(crate) include_existing_files: bool,
    pub(crate) is_enabled: bool,
    pub(crate) priority: i64,
    #[serde(rename = "replicationRuleName")]
    pub(crate) name: String,
}

impl ReplicationRule {
    /// The destination, None when the id has not even the form of one.
    pub(crate) fn destination(&self) -> Option<BucketId> {
        BucketId::parse(&self.destination_bucket_id)
    }

    fn applies_to(&self, file_name: &str) -> bool {
        self.is_enabled && file_name.starts_with(&self.file_name_prefix)
    }
}

/// Where kiln may be kinder than Backblaze; every switch is off unless the operator set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Leniency {
    pub(crate) accept_empty_rules: bool,
    pub(crate) accept_priority_zero: bool,
}

/// Checks what can be checked without looking at buckets and keys (V6 to V12, V18, V19) and
/// answers the configuration to store. `own` is the bucket being configured, None while it is
/// being created (V14).
pub(crate) fn check_configuration(
    mut wanted: ReplicationConfiguration,
    own: Option<BucketId>,
    leniency: Leniency,
) -> Result<ReplicationConfiguration, Refusal> {
    if let Some(source) = &wanted.as_replication_source {
        if source.replication_rules.is_empty() {
            if !leniency.accept_empty_rules {
                return Err(bad_request("replicationRules is empty"));
            }
            wanted.as_replication_source = None;
        } else {
            check_rules(&source.replication_rules, own, leniency)?;
        }
    }
    if let Some(destination) = &wanted.as_replication_destination {
        let mapping = &destination.source_to_destination_key_mapping;
        if mapping.is_empty() {
            return Err(bad_request("sourceToDestinationKeyMapping is empty"));
        }
        if mapping.iter().any(|(from, to)| from.is_empty() || to.is_empty()) {
            return Err(bad_request("sourceToDestinationKeyMapping must not hold empty key ids"));
        }
    }
    Ok(wanted)
}

fn check_rules(
    rules: &[ReplicationRule],
    own: Option<BucketId>,
    leniency: Leniency,
) -> Result<(), Refusal> {
    if rules.len() > RULES_MAX {
        return Err(bad_request("a bucket may have at most 2 replication rules"));
    }
    for (at, rule) in rules.iter().enumerate() {
        let name = &rule.name;
        let allowed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !allowed || !(6..=64).contains(&name.len()) {
            return Err(bad_request(format!("invalid replicationRuleName: {}", shorten(name))));
        }
        if rules.iter().take(at).any(|earlier| earlier.name == *name) {
            return Err(bad_request(format!("duplicate replicationRuleName: {name}")));
        }
        let lowest = i64::from(!leniency.accept_priority_zero);
        if !(lowest..=PRIORITY_MAX).contains(&rule.priority) {
            return Err(bad_request(format!(
                "priority must be between 1 and {PRIORITY_MAX}: {}",
                rule.priority
            )));
        }
        check_prefix("fileNamePrefix", &rule.file_name_prefix)?;
        if rule.destination_bucket_id.is_empty() {
            return Err(missing_field("destinationBucketId"));
        }
        if own.is_some() && rule.destination() == own {
            return Err(bad_request("destinationBucketId must not be the source bucket"));
        }
    }
    Ok(())
}

/// What `replicationStatus` shows: lower case in JSON, upper case in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicationStatus {
    Pending,
    Completed,
    Failed,
    Replica,
}

impl ReplicationStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Replica => "replica",
        }
    }

    pub(crate) fn as_header(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Replica => "REPLICA",
        }
    }
}

/// State of one replication job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    Ready,
    Leased,
    Done,
    Failed,
    Cancelled,
    /// Of a stream whose queue is full; it becomes ready when there is room.
    Spilled,
    /// Of a stream, and lost so often that it is taken for poison. It stays in the queue.
    Parked,
    /// Of a stream, and given up: too old, or refused for good.
    Dropped,
}

impl JobState {
    pub(crate) const ALL: [Self; 8] = [
        Self::Ready,
        Self::Leased,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Spilled,
        Self::Parked,
        Self::Dropped,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Spilled => "spilled",
            Self::Parked => "parked",
            Self::Dropped => "dropped",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub(crate) fn is_unfinished(self) -> bool {
        matches!(self, Self::Ready | Self::Leased | Self::Spilled | Self::Parked)
    }

    /// Whether a job takes room in the queue of its stream.
    pub(crate) fn is_queued(self) -> bool {
        matches!(self, Self::Ready | Self::Leased | Self::Parked)
    }
}

/// The status of a version: a function of its jobs and nothing else (table in replication.md A6).
///
/// A version made by replication is a replica whatever else is true. While anything is still in
/// process the version is pending, so that `failed` is always final.
pub(crate) fn shown_status(
    is_replica: bool,
    jobs: impl IntoIterator<Item = JobState>,
) -> Option<ReplicationStatus> {
    if is_replica {
        return Some(ReplicationStatus::Replica);
    }
    let (mut unfinished, mut failed, mut done) = (false, false, false);
    for state in jobs {
        match state {
            JobState::Ready | JobState::Leased => unfinished = true,
            JobState::Failed => failed = true,
            JobState::Done => done = true,
            // The last three are of streams, which say nothing of the status of a file.
            JobState::Cancelled | JobState::Spilled | JobState::Parked | JobState::Dropped => {}
        }
    }
    match (unfinished, failed, done) {
        (true, _, _) => Some(ReplicationStatus::Pending),
        (false, true, _) => Some(ReplicationStatus::Failed),
        (false, false, true) => Some(ReplicationStatus::Completed),
        (false, false, false) => None,
    }
}

/// Why a version gets no job although a rule matches its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ineligible {
    IsReplica,
    NotUpload,
    LargeMetadata,
    /// Encrypted with a key that only the customer has.
    CustomerKey,
}

/// Whether a version may be replicated at all.
pub(crate) fn check_eligible(
    version: &FileVersion,
    copy_large_metadata: bool,
) -> Result<(), Ineligible> {
    if version.action != Action::Upload {
        return Err(Ineligible::NotUpload);
    }
    if version.replication == Some(ReplicationStatus::Replica) {
        return Err(Ineligible::IsReplica);
    }
    if matches!(version.encryption, Encryption::Customer { .. }) {
        return Err(Ineligible::CustomerKey);
    }
    if !copy_large_metadata && header_bytes(version) > METADATA_BYTES_MAX {
        return Err(Ineligible::LargeMetadata);
    }
    Ok(())
}

/// The rules that make jobs for a file name: one for each destination, the one with the highest
/// priority, the first listed when priorities are equal (A4).
///
/// `existing` asks for a file that was there before: a rule whose `includeExistingFiles` is false
/// then makes no job, but still shields its destination from rules of lower priority.
pub(crate) fn winning_rules<'a>(
    rules: &'a [ReplicationRule],
    file_name: &str,
    existing: bool,
) -> Vec<&'a ReplicationRule> {
    let mut winners: Vec<&ReplicationRule> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.applies_to(file_name)) {
        let rival =
            winners.iter_mut().find(|w| w.destination_bucket_id == rule.destination_bucket_id);
        match rival {
            Some(winner) if rule.priority > winner.priority => *winner = rule,
            Some(_) => {}
            None => winners.push(rule),
        }
    }
    winners.retain(|rule| !existing || rule.include_existing_files);
    winners
}

/// The rule that an operator's retry of a failed job goes by: of the rules that a bucket has now, the
/// one of the same name and destination, else the one that would send the file there today. None
/// when nothing sends it there any more; the job then keeps what it began with.
pub(crate) fn rule_of_retry<'a>(
    rules: &'a [ReplicationRule],
    rule_name: &str,
    destination: BucketId,
    file_name: &str,
) -> Option<&'a ReplicationRule> {
    let leads_there = |rule: &&ReplicationRule| rule.destination() == Some(destination);
    let same = rules.iter().find(|rule| rule.name == rule_name && leads_there(rule));
    same.or_else(|| winning_rules(rules, file_name, false).into_iter().find(leads_there))
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// Why a job ended without a replica, or will be tried again. The text is what operators see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    SourceKeyDeleted, "source_key_deleted";
    SourceKeyExpired, "source_key_expired";
    SourceKeyNoRight, "source_key_no_right";
    SourceKeyScope, "source_key_scope";
    DestBucketMissing, "dest_bucket_missing";
    MappingMissing, "mapping_missing";
    DestKeyDeleted, "dest_key_deleted";
    DestKeyExpired, "dest_key_expired";
    DestKeyAccount, "dest_key_account";
    DestKeyNoRight, "dest_key_no_right";
    DestKeyScope, "dest_key_scope";
    DestLockDisabled, "dest_lock_disabled";
    SourceCorrupt, "source_corrupt";
    InternalPoison, "internal_poison";
    SourceDeleted, "source_deleted";
    MappingAwaited, "mapping_awaited";
    /// The account of the destination is at its storage cap.
    DestCapExceeded, "dest_cap_exceeded";
    /// The default encryption of the destination was changed while the file was copied.
    DestEncryptionChanged, "dest_encryption_changed";
    Timeout, "timeout";
    DiskFull, "disk_full";
    IoError, "io_error";
    /// The remote could not be reached, or gave no answer.
    RemoteUnreachable, "remote_unreachable";
    RemoteUnauthorized, "remote_unauthorized";
    RemoteCapExceeded, "remote_cap_exceeded";
    RemoteBucketMissing, "remote_bucket_missing";
    RemoteBusy, "remote_busy";
    /// What was begun at the remote is not known there any more.
    RemoteSessionLost, "remote_session_lost";
    ChecksumMismatch, "checksum_mismatch";
    /// The remote will never take the file as it is.
    RemoteRejected, "remote_rejected";
    /// The file has been where it is to go.
    ReplicationLoop, "replication_loop";
    /// An older version of the same name goes first, to a store that does not keep timestamps.
    NameAwaited, "name_awaited";
    /// A newer version of the same name has arrived where the times of versions are not kept.
    Superseded, "superseded";
    /// It waited longer than its stream allows.
    Expired, "expired";
    /// An operator emptied the queue of its stream.
    Purged, "purged";
}

/// What follows from a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The job is failed until an operator retries it.
    Fail,
    /// There is nothing left to copy.
    Cancel,
    /// The job of a stream is given up, which is counted.
    Drop,
    /// Try again later; the status stays pending.
    Retry,
}

impl Reason {
    /// Reads what [`Reason::as_str`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }

    /// What follows for the job of a rule.
    pub(crate) fn consequence(self) -> Consequence {
        match self {
            Self::SourceDeleted | Self::Purged => Consequence::Cancel,
            Self::MappingAwaited
            | Self::DestCapExceeded
            | Self::DestEncryptionChanged
            | Self::Timeout
            | Self::DiskFull
            | Self::IoError
            | Self::RemoteUnreachable
            | Self::RemoteUnauthorized
            | Self::RemoteCapExceeded
            | Self::RemoteBucketMissing
            | Self::RemoteBusy
            | Self::RemoteSessionLost
            | Self::ChecksumMismatch
            | Self::NameAwaited => Consequence::Retry,
            _ => Consequence::Fail,
        }
    }

    /// What follows for the job of a stream. `drops` says whether the stream gives up what the remote
    /// will never take; else it stays in the queue and is tried again now and then (B6).
    pub(crate) fn consequence_for_stream(self, drops: bool) -> Consequence {
        match self {
            Self::SourceDeleted | Self::Purged | Self::Superseded => Consequence::Cancel,
            Self::Expired | Self::ReplicationLoop => Consequence::Drop,
            Self::RemoteRejected | Self::SourceCorrupt if drops => Consequence::Drop,
            _ => Consequence::Retry,
        }
    }

    /// Whether the remote will not take the file even with help from outside.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::RemoteRejected | Self::SourceCorrupt | Self::ReplicationLoop)
    }

    /// The least wait before another attempt, in milliseconds: a cap is not raised in a second.
    pub(crate) fn wait_ms_min(self) -> i64 {
        match self {
            Self::DestCapExceeded | Self::RemoteCapExceeded => 300_000,
            Self::RemoteBucketMissing => 60_000,
            Self::RemoteRejected | Self::SourceCorrupt => BACKOFF_MS_MAX,
            _ => 0,
        }
    }

    /// Whether the target as a whole seems ill, so that other jobs for it should wait too.
    pub(crate) fn blames_target(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::RemoteUnreachable | Self::RemoteUnauthorized | Self::RemoteBusy
        )
    }
}

/// Longest wait between attempts; nothing else of replication waits longer.
pub(crate) const BACKOFF_MS_MAX: i64 = 900_000;

/// How long to wait after `failed_attempts` failures in a row (at least one), in milliseconds.
///
/// `jitter_per_mille` spreads the waits; it is cut to 500..=1000 (C8).
pub(crate) fn backoff_ms(failed_attempts: u32, jitter_per_mille: u32) -> i64 {
    let doublings = failed_attempts.saturating_sub(1).min(20);
    let longest = (500_i64 << doublings).min(BACKOFF_MS_MAX);
    longest * i64::from(jitter_per_mille.clamp(500, 1000)) / 1000
}

/// How long a job waits after a worker vanished with it, in milliseconds: 2, 4, 8 ... 300 s.
pub(crate) fn crash_wait_ms(crashes: u32) -> i64 {
    (1000_i64 << crashes.min(20)).min(300_000)
}

/// A replica that takes longer than this is late, which operators are told.
pub(crate) const LATE_MS: i64 = 900_000;

/// A job that was lost this often without any outcome is taken for poison.
pub(crate) const CRASHES_MAX: u32 = 5;

/// Who a source key is, for the mapping at the destination.
pub(crate) fn mapped_key(
    configuration: &ReplicationConfiguration,
    source: &KeyId,
) -> Option<KeyId> {
    let destination = configuration.as_replication_destination.as_ref()?;
    destination.source_to_destination_key_mapping.get(source.as_str()).map(|to| KeyId::named(to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(name: &str, destination: &str, prefix: &str, priority: i64) -> ReplicationRule {
        ReplicationRule {
            destination_bucket_id: destination.repeat(24),
            file_name_prefix: prefix.to_owned(),
            include_existing_files: false,
            is_enabled: true,
            priority,
            name: name.to_owned(),
        }
    }

    fn check(rules: Vec<ReplicationRule>) -> Result<ReplicationConfiguration, Refusal> {
        let source =
            AsSource { replication_rules: rules, source_application_key_id: "k".to_owned() };
        let wanted = ReplicationConfiguration {
            as_replication_source: Some(source),
            as_replication_destination: None,
        };
        check_configuration(wanted, BucketId::parse(&"f".repeat(24)), Leniency::default())
    }

    #[test]
    fn replication_22_23_more_than_two_rules_are_refused_even_when_disabled() {
        let mut third = rule("rule-three", "c", "", 3);
        third.is_enabled = false;
        let two = vec![rule("rule-one", "a", "", 1), rule("rule-two", "b", "", 2)];
        assert!(check(two.clone()).is_ok());
        assert!(check([two, vec![third]].concat()).is_err());
    }

    #[test]
    fn replication_19_20_empty_rules_need_the_switch() {
        let refusal = check(vec![]).expect_err("as Backblaze");
        assert_eq!(refusal.message, "replicationRules is empty");
        let wanted = ReplicationConfiguration {
            as_replication_source: Some(AsSource {
                replication_rules: vec![],
                source_application_key_id: "k".to_owned(),
            }),
            as_replication_destination: None,
        };
        let lenient = Leniency { accept_empty_rules: true, ..Leniency::default() };
        assert_eq!(
            check_configuration(wanted, None, lenient),
            Ok(ReplicationConfiguration::default())
        );
    }

    #[test]
    fn replication_25_26_rule_names() {
        for right in ["abcdef", "-_-_-_", &"n".repeat(64)] {
            assert!(check(vec![rule(right, "a", "", 1)]).is_ok(), "{right}");
        }
        for wrong in ["abcde", &"n".repeat(65), "a.bcdef", "a bcdef", "a/bcdef", "caf\u{e9}bar"] {
            assert!(check(vec![rule(wrong, "a", "", 1)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn replication_27_a_rule_name_is_unique_in_its_bucket() {
        assert!(check(vec![rule("same-name", "a", "", 1), rule("same-name", "b", "", 2)]).is_err());
    }

    #[test]
    fn replication_28_29_30_priorities() {
        for right in [1, 128, PRIORITY_MAX] {
            assert!(check(vec![rule("rule-one", "a", "", right)]).is_ok(), "{right}");
        }
        for wrong in [0, -1, PRIORITY_MAX + 1] {
            assert!(check(vec![rule("rule-one", "a", "", wrong)]).is_err(), "{wrong}");
        }
        assert!(check(vec![rule("rule-one", "a", "", 5), rule("rule-two", "b", "", 5)]).is_ok());
    }

    #[test]
    fn replication_37_38_destination_and_prefix() {
        assert!(check(vec![rule("rule-one", "f", "", 1)]).is_err(), "the source itself");
        assert!(check(vec![rule("rule-one", "a", &"p".repeat(1024), 1)]).is_ok());
        assert!(check(vec![rule("rule-one", "a", &"p".repeat(1025), 1)]).is_err());
        assert!(check(vec![rule("rule-one", "a", "p\0", 1)]).is_err());
    }

    #[test]
    fn replication_62_63_64_one_winner_for_each_destination() {
        let names = |rules: &[ReplicationRule], file: &str| -> Vec<String> {
            winning_rules(rules, file, false).iter().map(|rule| rule.name.clone()).collect()
        };
        let apart = [rule("rule-one", "a", "", 1), rule("rule-two", "b", "", 2)];
        assert_eq!(names(&apart, "x"), ["rule-one", "rule-two"]);
        let together = [rule("rule-one", "a", "", 1), rule("rule-two", "a", "", 2)];
        assert_eq!(names(&together, "x"), ["rule-two"]);
        let equal = [rule("rule-one", "a", "", 2), rule("rule-two", "a", "", 2)];
        assert_eq!(names(&equal, "x"), ["rule-one"]);
        let prefixed = [rule("rule-one", "a", "photos", 1)];
        assert_eq!(names(&prefixed, "photos-old/a"), ["rule-one"], "statement 53");
        assert!(names(&prefixed, "Photos/a").is_empty(), "statement 52");
    }

    #[test]
    fn a_retry_goes_by_the_rule_that_leads_to_the_same_destination_today() {
        let to = |destination: &str| BucketId::parse(&destination.repeat(24)).unwrap();
        let found = |rules: &[ReplicationRule], destination: &str| {
            let rule = rule_of_retry(rules, "rule-one", to(destination), "photos/x");
            rule.map(|rule| rule.name.clone())
        };
        let named = |name: &str| Some(name.to_owned());
        let one = rule("rule-one", "a", "", 1);
        let two = rule("rule-two", "a", "", 2);
        assert_eq!(found(&[two.clone(), one.clone()], "a"), named("rule-one"), "its own");
        assert_eq!(found(std::slice::from_ref(&two), "a"), named("rule-two"), "its heir");
        assert_eq!(found(&[one.clone(), two.clone()], "b"), None, "its own leads elsewhere now");
        let mut asleep = one;
        (asleep.is_enabled, asleep.file_name_prefix) = (false, "other".to_owned());
        assert_eq!(found(&[asleep], "a"), named("rule-one"), "an operator asks, the rule is there");
        let mut heir = two;
        heir.file_name_prefix = "other".to_owned();
        assert_eq!(found(&[heir], "a"), None, "another rule that would not send this file");
        assert_eq!(found(&[], "a"), None);
    }

    #[test]
    fn replication_121_a_rule_without_existing_files_shields_its_destination() {
        let mut low = rule("rule-low", "a", "", 1);
        low.include_existing_files = true;
        let high = rule("rule-high", "a", "photos/", 2);
        let rules = [low, high];
        assert!(winning_rules(&rules, "photos/x", true).is_empty());
        assert_eq!(winning_rules(&rules, "other", true).len(), 1);
    }

    #[test]
    fn replication_66_to_70_status_follows_the_table() {
        use JobState::{Cancelled, Done, Failed, Leased, Ready};
        use ReplicationStatus as S;
        let table: [(&[JobState], Option<S>); 10] = [
            (&[], None),
            (&[Ready], Some(S::Pending)),
            (&[Leased], Some(S::Pending)),
            (&[Done], Some(S::Completed)),
            (&[Failed], Some(S::Failed)),
            (&[Done, Done], Some(S::Completed)),
            (&[Done, Ready], Some(S::Pending)),
            (&[Failed, Done], Some(S::Failed)),
            (&[Failed, Ready], Some(S::Pending)),
            (&[Cancelled], None),
        ];
        for (jobs, shown) in table {
            assert_eq!(shown_status(false, jobs.iter().copied()), shown, "{jobs:?}");
            assert_eq!(shown_status(true, jobs.iter().copied()), Some(S::Replica));
        }
    }

    proptest! {
        /// Replication 76.
        #[test]
        fn status_does_not_depend_on_the_order_of_jobs(picks in proptest::collection::vec(0_usize..5, 0..4)) {
            let jobs: Vec<JobState> = picks.iter().map(|&at| JobState::ALL[at]).collect();
            let mut turned = jobs.clone();
            turned.reverse();
            let shown = shown_status(false, jobs.iter().copied());
            prop_assert_eq!(shown, shown_status(false, turned));
            prop_assert_eq!(shown == Some(ReplicationStatus::Pending), jobs.iter().any(|j| j.is_unfinished()));
        }

        #[test]
        fn no_two_winners_share_a_destination(prefixes in proptest::collection::vec("[ab]{0,2}", 0..3), file in "[ab]{0,4}") {
            let rules: Vec<_> = prefixes.iter().enumerate()
                .map(|(at, prefix)| rule("rule-one", if at % 2 == 0 { "a" } else { "b" }, prefix, 1))
                .collect();
            let winners = winning_rules(&rules, &file, false);
            let mut seen = std::collections::BTreeSet::new();
            prop_assert!(winners.iter().all(|w| seen.insert(&w.destination_bucket_id)));
        }
    }

    #[test]
    fn replication_189_waits_double_up_to_fifteen_minutes() {
        for attempt in 1..=15_u32 {
            let longest = (500_i64 << (attempt - 1)).min(900_000);
            assert_eq!(backoff_ms(attempt, 1000), longest);
            assert_eq!(backoff_ms(attempt, 0), longest / 2, "never less than half");
        }
        assert_eq!(crash_wait_ms(1), 2000);
        assert_eq!(crash_wait_ms(30), 300_000);
    }
}
