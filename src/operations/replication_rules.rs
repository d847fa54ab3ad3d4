//! Replication rules inside transactions: checking a configuration against what exists, turning a
//! version into jobs, starting scans.

use crate::catalog::replication::{self, JobOrigin, NewJob};
use crate::catalog::{Abort, Error, Tx, buckets, keys, remotes};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::file::FileVersion;
use crate::domain::ids::KeyId;
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::replication::{
    Ineligible, ReplicationConfiguration, ReplicationRule, check_eligible, winning_rules,
};
use crate::domain::time::{Millis, Steady};

/// One text for every cause, so that key ids cannot be probed (V16, V17).
const BAD_SOURCE_KEY: &str = "replication source application key is invalid or not authorized for \
                              this replication configuration";
/// One text for every cause (V20).
const BAD_DESTINATION_KEY: &str = "replication destination application key is invalid or not \
                                   authorized for this replication configuration";

/// Checks what depends on buckets and keys: V13, V16, V17, V20 and V22.
pub(crate) fn check_against_catalog(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    wanted: &ReplicationConfiguration,
    now: Millis,
) -> Result<(), Abort> {
    let mut unlocked_destination = false;
    if let Some(source) = &wanted.as_replication_source {
        for rule in &source.replication_rules {
            let found = match rule.destination() {
                Some(id) => buckets::find_by_id(tx, id)?,
                None => None,
            };
            if found.is_none() && leads_to_peer(tx, bucket, rule)? {
                // Its keys, its mapping and its lock are for the peer to look at.
                continue;
            }
            let Some(found) = found else {
                let id = shorten(&rule.destination_bucket_id);
                return Err(refuse(Code::BadBucketId, format!("Invalid bucketId: {id}")).into());
            };
            unlocked_destination |= !found.settings.file_lock.is_file_lock_enabled;
        }
        let key = KeyId::named(&source.source_application_key_id);
        check_key(tx, &key, bucket, Capability::ReadFiles, now, BAD_SOURCE_KEY)?;
    }
    if let Some(destination) = &wanted.as_replication_destination {
        // Source keys in the mapping usually belong to another account and are not checked (V21).
        for key in destination.source_to_destination_key_mapping.values() {
            let key = KeyId::named(key);
            check_key(tx, &key, bucket, Capability::WriteFiles, now, BAD_DESTINATION_KEY)?;
        }
    }
    if bucket.settings.file_lock.is_file_lock_enabled && unlocked_destination {
        return Err(bad_request("destination bucket must have file lock enabled").into());
    }
    Ok(())
}

/// Whether a rule leads to a bucket that is reached through a remote of the same account.
fn leads_to_peer(tx: &mut dyn Tx, bucket: &Bucket, rule: &ReplicationRule) -> Result<bool, Error> {
    let Some(destination) = rule.destination() else { return Ok(false) };
    Ok(remotes::find_remote_to(tx, destination, bucket.account)?.is_some())
}

fn check_key(
    tx: &mut dyn Tx,
    id: &KeyId,
    bucket: &Bucket,
    needed: Capability,
    now: Millis,
    text: &'static str,
) -> Result<(), Abort> {
    let fits = keys::find_key(tx, id)?.is_some_and(|stored| {
        let key = stored.key;
        key.account == bucket.account
            && !key.is_expired(now)
            && key.capabilities.has(needed)
            && key.reaches_bucket(bucket.id)
    });
    if fits { Ok(()) } else { Err(bad_request(text).into()) }
}

/// Refuses setting replication without the right to do so (V1).
pub(crate) fn require_right(caller: &crate::auth::caller::Caller) -> Result<(), Refusal> {
    caller.require(Capability::WriteBucketReplications).map_err(|refusal| {
        refuse(refusal.code, "application key lacks capability writeBucketReplications")
    })
}

fn wants_existing(rule: &ReplicationRule) -> bool {
    rule.is_enabled && rule.include_existing_files
}

/// Whether a rule asks for existing files in a way that it did not before.
fn asks_anew(rule: &ReplicationRule, before: &[ReplicationRule]) -> bool {
    wants_existing(rule)
        && !before.iter().any(|old| {
            wants_existing(old)
                && old.destination_bucket_id == rule.destination_bucket_id
                && old.file_name_prefix == rule.file_name_prefix
        })
}

/// Starts, restarts or ends the scan of a bucket whose rules changed from `before` (A9, C10).
pub(crate) fn follow_rule_change(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    before: &[ReplicationRule],
    now: Millis,
) -> Result<(), Error> {
    let rules = bucket.settings.replication.rules();
    if rules == before {
        return Ok(());
    }
    let was_running = replication::supersede_scans(tx, bucket.id, now)? > 0;
    let asked = rules.iter().any(|rule| asks_anew(rule, before));
    if asked || (was_running && rules.iter().any(wants_existing)) {
        replication::start_scan(tx, bucket.id, bucket.revision, now)?;
    }
    Ok(())
}

/// What became of a version in the eyes of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// No rule matches, or every destination has its job already.
    Nothing,
    Jobs(usize),
    /// A rule matches, but the version may not be replicated.
    Skipped(Ineligible),
}

/// Makes the jobs of a version: part of the transaction that commits it, or of a scan.
pub(crate) fn enqueue(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    origin: JobOrigin,
    copy_large_metadata: bool,
    now: Steady,
) -> Result<Enqueued, Error> {
    let Some(source) = &bucket.settings.replication.as_replication_source else {
        return Ok(Enqueued::Nothing);
    };
    let existing = origin == JobOrigin::Scan;
    let winners = winning_rules(&source.replication_rules, version.name.as_str(), existing);
    if winners.is_empty() {
        return Ok(Enqueued::Nothing);
    }
    if let Err(why) = check_eligible(version, copy_large_metadata) {
        return Ok(Enqueued::Skipped(why));
    }
    let file_id = version.id().to_string();
    let mut made = 0;
    for rule in winners {
        let Some(destination) = rule.destination() else { continue };
        let job = NewJob {
            account: bucket.account,
            source_bucket: bucket.id,
            destination,
            file_number: version.number,
            file_id: &file_id,
            file_name: version.name.as_str(),
            source_key: &source.source_application_key_id,
            rule_name: &rule.name,
            origin,
            size: version.size,
        };
        made += usize::from(replication::insert_job(tx, &job, now)?);
    }
    Ok(if made == 0 { Enqueued::Nothing } else { Enqueued::Jobs(made) })
}
