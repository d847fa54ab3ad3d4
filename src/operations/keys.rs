//! Application keys.

use std::collections::BTreeSet;

use crate::auth::caller::Caller;
use crate::auth::sealing::draw_secret;
use crate::catalog::accounts;
use crate::catalog::keys::{self, StoredKey};
use crate::catalog::{Abort, buckets};
use crate::domain::capability::{Capabilities, Capability};
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::key::{KEY_DURATION_S_END, Key, Secret, check_bucket_key};
use crate::domain::names::{check_key_name, check_prefix};
use crate::domain::refusal::{
    Code, Refusal, bad_request, no_such_bucket, refuse, shorten, unsupported_version,
};
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::error::Error;

/// What a new key shall be.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    pub(crate) name: String,
    pub(crate) capabilities: Vec<String>,
    /// None reaches all buckets; names or ids that are no ids of buckets are refused.
    pub(crate) buckets: Option<Vec<String>>,
    pub(crate) name_prefix: Option<String>,
    pub(crate) duration_s: Option<i64>,
    pub(crate) version: u8,
}

/// Buckets a key may be restricted to at most (ours).
const KEY_BUCKETS_MAX: usize = 1000;

struct Checked {
    capabilities: Capabilities,
    buckets: Option<Vec<BucketId>>,
}

fn check(wanted: &NewKey) -> Result<Checked, Refusal> {
    check_key_name(&wanted.name)?;
    if wanted.capabilities.is_empty() {
        return Err(bad_request("capabilities must not be empty"));
    }
    let mut capabilities = Vec::with_capacity(wanted.capabilities.len());
    for name in &wanted.capabilities {
        let known = Capability::parse(name)
            .ok_or_else(|| bad_request(format!("unknown capability: {}", shorten(name))))?;
        capabilities.push(known);
    }
    let capabilities = capabilities.into_iter().collect();
    if let Some(duration) = wanted.duration_s
        && !(1..KEY_DURATION_S_END).contains(&duration)
    {
        return Err(bad_request(format!(
            "validDurationInSeconds must be between 1 and {}: {duration}",
            KEY_DURATION_S_END - 1
        )));
    }
    if let Some(prefix) = &wanted.name_prefix {
        check_prefix("namePrefix", prefix)?;
    }
    let buckets = match &wanted.buckets {
        None => None,
        Some(ids) if ids.is_empty() => return Err(bad_request("bucketIds must not be empty")),
        Some(ids) if ids.len() > KEY_BUCKETS_MAX => {
            return Err(bad_request(format!("bucketIds must hold at most {KEY_BUCKETS_MAX} ids")));
        }
        Some(ids) => {
            check_bucket_key(capabilities)?;
            let parse =
                |id: &String| BucketId::parse(id).ok_or_else(|| no_such_bucket(&shorten(id)));
            let ids = ids.iter().map(parse).collect::<Result<BTreeSet<_>, _>>()?;
            Some(ids.into_iter().collect())
        }
    };
    Ok(Checked { capabilities, buckets })
}

/// Makes a key for the caller's account.
pub(crate) async fn create_key(
    app: &App,
    caller: &Caller,
    wanted: NewKey,
) -> Result<(Key, Secret), Error> {
    caller.require(Capability::WriteKeys)?;
    caller.require_unrestricted()?;
    create_key_in(app, caller.account(), wanted).await
}

/// Makes a key for any account.
pub(crate) async fn create_key_as_operator(
    app: &App,
    _operator: &Operator,
    account: AccountId,
    wanted: NewKey,
) -> Result<(Key, Secret), Error> {
    create_key_in(app, account, wanted).await
}

async fn create_key_in(
    app: &App,
    account: AccountId,
    wanted: NewKey,
) -> Result<(Key, Secret), Error> {
    let checked = check(&wanted)?;
    let now = app.clock.now();
    // The id is part of the seal, so it is taken first; an id that is not used in the end is no loss.
    let id = app
        .catalog
        .write("take_key_id", move |tx| {
            accounts::take_key_id(tx, account)?
                .ok_or_else(|| Abort::Refused(bad_request(format!("no such account: {account}"))))
        })
        .await?;
    let secret = draw_secret(&*app.entropy);
    let sealed_secret = app.sealer.seal(id.as_str(), secret.expose().as_bytes(), &*app.entropy)?;
    let key = Key {
        id,
        account,
        name: wanted.name,
        capabilities: checked.capabilities,
        buckets: checked.buckets,
        name_prefix: wanted.name_prefix.filter(|prefix| !prefix.is_empty()),
        expires_at: wanted.duration_s.map(|seconds| now.plus(seconds * 1000)),
        is_master: false,
        made_by_version: wanted.version,
    };
    let stored = StoredKey { key: key.clone(), sealed_secret };
    app.catalog
        .write("create_key", move |tx| {
            for &id in stored.key.buckets.iter().flatten() {
                match buckets::find_by_id(tx, id)? {
                    Some(bucket) if bucket.account == account => {}
                    _ => return Err(no_such_bucket(&id).into()),
                }
            }
            Ok(keys::insert_key(tx, &stored, now)?)
        })
        .await?;
    Ok((key, secret))
}

/// One page of keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyPage {
    pub(crate) keys: Vec<Key>,
    pub(crate) next: Option<KeyId>,
}

/// Lists keys of the caller's account in the order of their ids. Versions before 4 leave out keys
/// restricted to several buckets.
pub(crate) fn list_keys(
    app: &App,
    caller: &Caller,
    from: &str,
    limit: Option<i64>,
    version: u8,
) -> Result<KeyPage, Error> {
    caller.require(Capability::ListKeys)?;
    let limit = match limit {
        None | Some(0) => 100,
        Some(count @ 1..=10_000) => count,
        Some(count) => {
            return Err(
                refuse(Code::OutOfRange, format!("maxKeyCount out of range: {count}")).into()
            );
        }
    };
    list_keys_in(app, caller.account(), from, limit, version)
}

/// Lists the keys of any account.
pub(crate) fn list_keys_as_operator(
    app: &App,
    _operator: &Operator,
    account: AccountId,
) -> Result<Vec<Key>, Error> {
    Ok(list_keys_in(app, account, "", 10_000, 4)?.keys)
}

fn list_keys_in(
    app: &App,
    account: AccountId,
    from: &str,
    limit: i64,
    version: u8,
) -> Result<KeyPage, Error> {
    let now = app.clock.now();
    let wanted = usize::try_from(limit).unwrap_or(100);
    let shown = |key: &Key| key.is_known_to(version);
    let mut from = from.to_owned();
    let mut listed: Vec<Key> = Vec::new();
    loop {
        let batch =
            app.catalog.read(|tx| Ok(keys::list_keys(tx, account, &from, now, limit + 1)?))?;
        let more = batch.len() > wanted;
        let last = batch.last().map(|key| format!("{}\u{1}", key.id));
        listed.extend(batch.into_iter().filter(shown));
        match last {
            Some(after) if more && listed.len() <= wanted => from = after,
            _ => break,
        }
    }
    let next = listed.get(wanted).map(|key| key.id.clone());
    listed.truncate(wanted);
    Ok(KeyPage { keys: listed, next })
}

/// Deletes a key of the caller's account; its tokens die with it. Versions before 4 have no answer
/// that shows a key for several buckets, and refuse to delete it.
pub(crate) async fn delete_key(
    app: &App,
    caller: &Caller,
    id: &str,
    version: u8,
) -> Result<Key, Error> {
    caller.require(Capability::DeleteKeys)?;
    delete_key_in(app, Some(caller.account()), id, version).await
}

/// Deletes a key of any account.
pub(crate) async fn delete_key_as_operator(
    app: &App,
    _operator: &Operator,
    id: &str,
) -> Result<Key, Error> {
    delete_key_in(app, None, id, 4).await
}

async fn delete_key_in(
    app: &App,
    account: Option<AccountId>,
    id: &str,
    version: u8,
) -> Result<Key, Error> {
    let id = KeyId::named(id);
    let deleted = app
        .catalog
        .write("delete_key", move |tx| {
            let absent = || {
                Abort::Refused(bad_request(format!("Key not present: {}", shorten(id.as_str()))))
            };
            let stored = keys::find_key(tx, &id)?.ok_or_else(absent)?;
            if account.is_some_and(|account| account != stored.key.account) {
                return Err(absent());
            }
            if stored.key.is_master {
                return Err(bad_request("the master application key cannot be deleted").into());
            }
            if !stored.key.is_known_to(version) {
                return Err(unsupported_version(version).into());
            }
            keys::delete_key(tx, &id)?;
            Ok(stored.key)
        })
        .await?;
    Ok(deleted)
}
