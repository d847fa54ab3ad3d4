//! Buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::auth::caller::{Caller, Grant};
use crate::catalog::{Abort, Error as CatalogError, Tx, buckets, files, lifecycle as walks};
use crate::domain::bucket::{
    Bucket, BucketSettings, BucketType, FIRST_REVISION, Logging, RuleNames, check_bucket_info,
};
use crate::domain::capability::Capability;
use crate::domain::cors::{self, CorsRule};
use crate::domain::encryption::AskedDefault;
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::lifecycle::{self, LifecycleRule};
use crate::domain::lock::{BucketLock, BucketLockChange, DefaultChange};
use crate::domain::names::{BucketName, check_prefix, fold_bucket_name};
use crate::domain::refusal::{Code, Refusal, bad_request, no_such_bucket, refuse, unauthorized};
use crate::domain::replication::{ReplicationConfiguration, check_configuration};
use crate::domain::time::{DAY_MS, Millis};
use crate::entropy;
use crate::operations::App;
use crate::operations::authorize::{bucket_of_caller, parse_bucket_id};
use crate::operations::error::Error;
use crate::operations::{notifications, replication_rules, streams};

/// What a new bucket shall be.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewBucket {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) info: BTreeMap<String, String>,
    pub(crate) cors_rules: Vec<CorsRule>,
    pub(crate) lifecycle_rules: Vec<LifecycleRule>,
    pub(crate) file_lock: BucketLockChange,
    pub(crate) encryption: Option<AskedDefault>,
    pub(crate) replication: Option<ReplicationConfiguration>,
}

/// Makes a bucket in the caller's account.
pub(crate) async fn create_bucket(
    app: &App,
    caller: &Caller,
    wanted: NewBucket,
) -> Result<Bucket, Error> {
    caller.require(Capability::WriteBuckets)?;
    caller.require_unrestricted()?;
    let encryption = wanted.encryption.unwrap_or(AskedDefault::OfServer);
    if encryption != AskedDefault::OfServer {
        caller.require(Capability::WriteBucketEncryption)?;
    }
    if wanted.replication.is_some() {
        replication_rules::require_right(caller)?;
    }
    let file_lock = lock_of_new(caller, wanted.file_lock)?;
    let name = BucketName::parse(&wanted.name)?;
    let kind = BucketType::parse(&wanted.kind)?;
    check_bucket_info(&wanted.info)?;
    cors::check_rules(&wanted.cors_rules)?;
    lifecycle::check_rules(&wanted.lifecycle_rules)?;
    let replication = wanted.replication.unwrap_or_default();
    let replication = check_configuration(replication, None, app.policy.replication_leniency)?;
    let settings = BucketSettings {
        bucket_info: wanted.info,
        cors_rules: wanted.cors_rules,
        lifecycle_rules: wanted.lifecycle_rules,
        file_lock,
        encryption: encryption.settle(app.policy.default_encryption)?,
        replication,
        ..BucketSettings::default()
    };
    let id = BucketId::from_bytes(entropy::bytes(&*app.entropy));
    let (account, now, buckets_max) = (caller.account(), app.clock.now(), app.policy.buckets_max);
    let bucket = app
        .catalog
        .write("create_bucket", move |tx| {
            if buckets::count_buckets(tx, account)? >= buckets_max {
                return Err(refuse(
                    Code::TooManyBuckets,
                    format!("An account may have at most {buckets_max} buckets."),
                )
                .into());
            }
            let bucket = Bucket {
                number: buckets::take_number(tx)?,
                id,
                account,
                name: name.clone(),
                kind,
                revision: FIRST_REVISION,
                created_at: now,
                settings: settings.clone(),
            };
            replication_rules::check_against_catalog(tx, &bucket, &settings.replication, now)?;
            follow_lifecycle_rules(tx, &bucket, &[], now)?;
            buckets::insert_bucket(tx, &bucket).map_err(|error| match error {
                CatalogError::Conflict => Abort::Refused(refuse(
                    Code::DuplicateBucketName,
                    "Bucket name is already in use.",
                )),
                other => Abort::Catalog(other),
            })?;
            Ok(bucket)
        })
        .await?;
    Ok(bucket)
}

/// The lock of a new bucket. A default retention is set by an update only, as on Backblaze; and a
/// request that spells out that it wants no lock needs no right.
fn lock_of_new(caller: &Caller, wanted: BucketLockChange) -> Result<BucketLock, Refusal> {
    let sets_default = matches!(wanted.default_retention, DefaultChange::Set(_));
    if wanted.enable == Some(true) || sets_default {
        caller.require(Capability::WriteBucketRetentions)?;
    }
    if sets_default {
        return Err(bad_request("defaultRetention is set by b2_update_bucket"));
    }
    Ok(BucketLock { is_file_lock_enabled: wanted.enable == Some(true), ..BucketLock::default() })
}

/// What shall become of the access logs of a bucket.
#[derive(Clone, Debug, Default)]
pub(crate) enum LoggingChange {
    #[default]
    Keep,
    Clear,
    Set(Logging),
}

/// What of a bucket shall change; None leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct BucketChange {
    pub(crate) kind: Option<String>,
    pub(crate) info: Option<BTreeMap<String, String>>,
    pub(crate) cors_rules: Option<Vec<CorsRule>>,
    pub(crate) lifecycle_rules: Option<Vec<LifecycleRule>>,
    pub(crate) file_lock: BucketLockChange,
    pub(crate) encryption: Option<AskedDefault>,
    pub(crate) replication: Option<ReplicationConfiguration>,
    /// The names that an S3 client gave to lifecycle rules.
    pub(crate) lifecycle_names: Option<RuleNames>,
    /// What an S3 client called CORS rules, by their names here.
    pub(crate) cors_names: Option<BTreeMap<String, String>>,
    pub(crate) logging: LoggingChange,
    pub(crate) if_revision_is: Option<i64>,
}

/// Changes a bucket: all of it or nothing.
pub(crate) async fn update_bucket(
    app: &App,
    caller: &Caller,
    id: &str,
    change: BucketChange,
) -> Result<Bucket, Error> {
    caller.require(Capability::WriteBuckets)?;
    let id = parse_bucket_id(id)?;
    change_bucket(app, caller, id, Capability::WriteBuckets, change).await
}

/// As [`update_bucket`], for calls that change one thing and have a right of their own for it.
pub(crate) async fn change_bucket(
    app: &App,
    caller: &Caller,
    id: BucketId,
    capability: Capability,
    change: BucketChange,
) -> Result<Bucket, Error> {
    caller.require_bucket(capability, id)?;
    if change.encryption.is_some() {
        caller.require(Capability::WriteBucketEncryption)?;
    }
    if change.replication.is_some() {
        replication_rules::require_right(caller)?;
    }
    if !change.file_lock.is_empty() {
        caller.require(Capability::WriteBucketRetentions)?;
    }
    let grant = Grant::for_bucket(&caller.key, capability, bucket_of_caller(app, caller, id)?)?;
    if let LoggingChange::Set(logging) = &change.logging {
        check_logging(app, caller, logging)?;
    }
    let kind = change.kind.as_deref().map(BucketType::parse).transpose()?;
    if let Some(info) = &change.info {
        check_bucket_info(info)?;
    }
    if let Some(rules) = &change.cors_rules {
        cors::check_rules(rules)?;
    }
    match (&change.lifecycle_rules, &change.lifecycle_names) {
        (None, _) => {}
        (Some(rules), None) => lifecycle::check_rules(rules)?,
        // Rules with names come from S3, which has a limit of its own.
        (Some(rules), Some(_)) => lifecycle::check_each(rules)?,
    }
    let of_server = app.policy.default_encryption;
    let encryption = change.encryption.map(|asked| asked.settle(of_server)).transpose()?;
    let leniency = app.policy.replication_leniency;
    let now = app.clock.now();
    let id = grant.bucket.id;
    let updated = app
        .catalog
        .write("update_bucket", move |tx| {
            let mut bucket = existing(tx, id)?;
            if change.if_revision_is.is_some_and(|wanted| wanted != bucket.revision) {
                return Err(refuse(Code::Conflict, "simultaneous updates to bucket").into());
            }
            let before = bucket.settings.clone();
            let is_source = !before.replication.rules().is_empty();
            bucket.settings.file_lock =
                bucket.settings.file_lock.changed(change.file_lock, is_source)?;
            if let Some(replication) = &change.replication {
                let checked = check_configuration(replication.clone(), Some(id), leniency)?;
                replication_rules::check_against_catalog(tx, &bucket, &checked, now)?;
                bucket.settings.replication = checked;
            }
            bucket.kind = kind.unwrap_or(bucket.kind);
            bucket.settings.encryption = encryption.unwrap_or(bucket.settings.encryption);
            if let Some(info) = &change.info {
                bucket.settings.bucket_info.clone_from(info);
            }
            if let Some(rules) = &change.cors_rules {
                bucket.settings.cors_rules.clone_from(rules);
            }
            if let Some(rules) = &change.lifecycle_rules {
                bucket.settings.lifecycle_rules.clone_from(rules);
            }
            if let Some(names) = &change.lifecycle_names {
                bucket.settings.lifecycle_names.clone_from(names);
            }
            if let Some(names) = &change.cors_names {
                bucket.settings.cors_names.clone_from(names);
            }
            match &change.logging {
                LoggingChange::Keep => {}
                LoggingChange::Clear => bucket.settings.logging = None,
                LoggingChange::Set(logging) => {
                    bucket.settings.logging = Some(logging.clone());
                }
            }
            bucket.revision += 1;
            buckets::update_bucket(tx, &bucket)?;
            let rules_before = before.replication.rules();
            replication_rules::follow_rule_change(tx, &bucket, rules_before, now)?;
            follow_lifecycle_rules(tx, &bucket, &before.lifecycle_rules, now)?;
            Ok(bucket)
        })
        .await?;
    app.wake.replication.notify_one();
    Ok(updated)
}

/// Access logs go to a bucket of the same account.
fn check_logging(app: &App, caller: &Caller, logging: &Logging) -> Result<(), Error> {
    check_prefix("TargetPrefix", &logging.prefix)?;
    bucket_of_caller(app, caller, logging.target)?;
    Ok(())
}

/// Plans the daily walks of a bucket that got its first lifecycle rules, or forgets those of one
/// that has none any more.
fn follow_lifecycle_rules(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    before: &[LifecycleRule],
    now: Millis,
) -> Result<(), CatalogError> {
    match (before.is_empty(), bucket.settings.lifecycle_rules.is_empty()) {
        (true, false) => walks::plan_walks(tx, bucket.id, now.plus(DAY_MS)),
        (false, true) => walks::forget_walks(tx, bucket.id),
        (true, true) | (false, false) => Ok(()),
    }
}

fn existing(tx: &mut dyn Tx, id: BucketId) -> Result<Bucket, Abort> {
    buckets::find_by_id(tx, id)?.ok_or_else(|| no_such_bucket(&id).into())
}

/// Deletes an empty bucket; answers it with the revision after its last.
pub(crate) async fn delete_bucket(app: &App, caller: &Caller, id: &str) -> Result<Bucket, Error> {
    caller.require(Capability::DeleteBuckets)?;
    let id = parse_bucket_id(id)?;
    caller.require_bucket(Capability::DeleteBuckets, id)?;
    let bucket = bucket_of_caller(app, caller, id)?;
    let grant = Grant::for_bucket(&caller.key, Capability::DeleteBuckets, bucket)?;
    let (id, steady) = (grant.bucket.id, app.waits.now());
    let (deleted, streams_gone) = app
        .catalog
        .write("delete_bucket", move |tx| {
            let mut bucket = existing(tx, id)?;
            if files::has_versions(tx, bucket.number)? {
                return Err(refuse(
                    Code::CannotDeleteNonEmptyBucket,
                    "Cannot delete non-empty bucket",
                )
                .into());
            }
            notifications::forget_bucket(tx, &bucket)?;
            let streams_gone = streams::forget_bucket(tx, id, steady)?;
            buckets::delete_bucket(tx, bucket.number)?;
            crate::catalog::replication::forget_bucket(tx, id)?;
            walks::forget_walks(tx, id)?;
            bucket.revision += 1;
            Ok((bucket, streams_gone))
        })
        .await?;
    for stream in streams_gone {
        streams::clear(app, stream).await?;
    }
    Ok(deleted)
}

/// Which buckets a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct BucketFilter {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    /// None shows the types a client can make.
    pub(crate) types: Option<Vec<String>>,
}

/// Every type a client may ask for; only the first two exist here.
const KNOWN_TYPES: [&str; 6] =
    ["allPrivate", "allPublic", "restricted", "share", "shared", "snapshot"];

fn check_types(types: &[String]) -> Result<(), Refusal> {
    if types.is_empty() {
        return Err(bad_request("bucketTypes must not be empty"));
    }
    if types.iter().any(|one| one == "all") {
        if types.len() > 1 {
            return Err(bad_request("bucketTypes: 'all' cannot be combined with other types"));
        }
        return Ok(());
    }
    match types.iter().find(|one| !KNOWN_TYPES.contains(&one.as_str())) {
        Some(unknown) => Err(bad_request(format!(
            "Invalid bucketType: {}",
            crate::domain::refusal::shorten(unknown)
        ))),
        None => Ok(()),
    }
}

/// Lists buckets in the order of their names.
///
/// A key restricted to buckets must name one it reaches. Version 1 knows an exception: without a
/// filter it lists the one bucket of the key (spec: b2-native-api.md section 4.6).
pub(crate) fn list_buckets(
    app: &App,
    caller: &Caller,
    filter: &BucketFilter,
    version: u8,
) -> Result<Vec<Bucket>, Error> {
    caller.require(Capability::ListBuckets)?;
    if let Some(types) = &filter.types {
        check_types(types)?;
    }
    let account = caller.account();
    let all = app.catalog.read(|tx| Ok(buckets::list_buckets(tx, account)?))?;
    let folded = filter.name.as_deref().map(fold_bucket_name);
    let named = |bucket: &Bucket| {
        filter.id.as_ref().is_none_or(|id| *id == bucket.id.to_string())
            && folded.as_ref().is_none_or(|folded| *folded == bucket.name.folded())
    };
    let filtered = filter.id.is_some() || filter.name.is_some();
    if let Some(reachable) = &caller.key.buckets {
        let reachable: BTreeSet<&BucketId> = reachable.iter().collect();
        let hit = all.iter().any(|bucket| named(bucket) && reachable.contains(&bucket.id));
        let names_own_gone = filter
            .id
            .as_deref()
            .and_then(BucketId::parse)
            .is_some_and(|id| reachable.contains(&id) && filter.name.is_none());
        let lone = version == 1 && reachable.len() == 1;
        if (filtered && !hit && !names_own_gone) || (!filtered && !lone) {
            return Err(unauthorized().into());
        }
    }
    let shown = |bucket: &Bucket| {
        named(bucket)
            && caller.key.reaches_bucket(bucket.id)
            && filter.types.as_ref().is_none_or(|types| {
                types.iter().any(|one| one == "all" || one == bucket.kind.as_str())
            })
    };
    Ok(all.into_iter().filter(shown).collect())
}

/// All buckets of the caller's account in the order of their names. A key that is bound to buckets
/// sees the others only when it may know all names.
pub(crate) fn list_all(app: &App, caller: &Caller) -> Result<Vec<Bucket>, Error> {
    caller.require(Capability::ListBuckets)?;
    if caller.key.buckets.is_some() {
        caller.require(Capability::ListAllBucketNames)?;
    }
    let account = caller.account();
    Ok(app.catalog.read(|tx| Ok(buckets::list_buckets(tx, account)?))?)
}

/// Whose bucket has this name, if there is one.
pub(crate) fn owner_of_name(app: &App, name: &str) -> Result<Option<AccountId>, Error> {
    Ok(app.facts.bucket_named(&app.catalog, name)?.map(|known| known.value.account))
}

/// A bucket by its name, for operators.
pub(crate) fn bucket_named(app: &App, name: &str) -> Result<Arc<Bucket>, Error> {
    match app.facts.bucket_named(&app.catalog, name)? {
        Some(known) => Ok(known.value),
        None => Err(bad_request(format!("no bucket is named {name}")).into()),
    }
}
