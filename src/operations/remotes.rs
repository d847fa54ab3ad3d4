//! Remotes: connections to other stores. A remote belongs to an account as a whole, so a key that is
//! restricted to buckets may see remotes and not change them.

use serde_json::{Map, Value};

use crate::auth::caller::Caller;
use crate::catalog::remotes::{self, Presence, RemoteRows, StoredRemote};
use crate::catalog::replication::Breaker;
use crate::catalog::streams::{self, StreamRows};
use crate::catalog::{Abort, Error as CatalogError, Tx, buckets};
use crate::domain::capability::Capability;
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten, unauthorized};
use crate::domain::remote::{Remote, RemoteId, RemoteOptions, RemoteToken, account_of_org};
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::authorize::parse_bucket_id;
use crate::operations::error::Error;
use crate::operations::remote_tokens::seal_token;
use crate::operations::stream_figures::BreakerState;

/// Remotes of an account at most (ours).
const REMOTES_MAX: i64 = 10_000;

/// The account that an organization means to a caller who names it.
pub(crate) fn parse_org(org_id: Option<&str>) -> Result<AccountId, Refusal> {
    org_id.and_then(account_of_org).ok_or_else(|| bad_request("invalid or missing org ID"))
}

/// As [`parse_org`], for acts on one's own organization only.
pub(crate) fn own_org(caller: &Caller, org_id: &str) -> Result<AccountId, Refusal> {
    let account = parse_org(Some(org_id))?;
    if account == caller.account() { Ok(account) } else { Err(unauthorized()) }
}

/// The id of a remote in an address.
pub(crate) fn parse_id(text: &str) -> Result<RemoteId, Refusal> {
    RemoteId::parse(text).ok_or_else(|| bad_request("remote-connection ID is invalid"))
}

fn not_found() -> Refusal {
    refuse(Code::NotFound, "remote connection not found")
}

fn name_taken(error: CatalogError, name: &str) -> Abort {
    match error {
        CatalogError::Conflict => {
            let text = format!("remote connection with name {} already exists", shorten(name));
            Abort::Refused(refuse(Code::Clash, text))
        }
        other => Abort::Catalog(other),
    }
}

/// What a new remote shall be.
#[derive(Clone)]
pub(crate) struct NewRemote {
    pub(crate) org_id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) remote_org_id: Option<String>,
    pub(crate) allow_insecure_tls: bool,
    pub(crate) options: RemoteOptions,
}

/// What of a remote shall change; None leaves a field as it is, and so does an option not named.
#[derive(Clone, Default)]
pub(crate) struct RemoteChange {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) remote_org_id: Option<String>,
    pub(crate) allow_insecure_tls: Option<bool>,
    /// By the names of [`RemoteOptions`]; null sets one back.
    pub(crate) options: Map<String, Value>,
}

/// A remote with what is known of its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownRemote {
    pub(crate) remote: Remote,
    pub(crate) state: BreakerState,
    pub(crate) last_online_at: Option<Millis>,
    /// None while it answers.
    pub(crate) offline_since: Option<Millis>,
}

fn shown(app: &App, remote: Remote, presence: &Presence) -> ShownRemote {
    let now = app.waits.now();
    let of_breaker = |breaker: &Breaker| BreakerState::of(breaker, now);
    let state = presence.breaker.as_ref().map_or(BreakerState::Closed, of_breaker);
    let Presence { last_online_at, offline_since, .. } = *presence;
    ShownRemote { remote, state, last_online_at, offline_since }
}

/// Makes a remote; nothing is asked of it. Its token is kept sealed and shown to nobody.
pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    wanted: NewRemote,
) -> Result<ShownRemote, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    caller.require_unrestricted()?;
    let account = own_org(caller, &wanted.org_id)?;
    let now = app.clock.now();
    let mut remote = Remote {
        id: RemoteId(0),
        account,
        org_id: wanted.org_id,
        name: wanted.name,
        description: wanted.description,
        url: wanted.url,
        remote_org_id: wanted.remote_org_id,
        allow_insecure_tls: wanted.allow_insecure_tls,
        options: wanted.options,
        created_at: now,
        updated_at: now,
    };
    remote.check()?;
    RemoteToken::parse(&wanted.token)?;
    // The id is part of the seal, so it is taken first; one that is not used in the end is no loss.
    remote.id = app.catalog.write("take_remote_id", |tx| Ok(remotes::take_id(tx)?)).await?;
    let stored = StoredRemote { sealed_token: seal_token(app, remote.id, &wanted.token)?, remote };
    let made = app
        .catalog
        .write("create_remote", move |tx| {
            if remotes::count_remotes(tx, Some(account))? >= REMOTES_MAX {
                let text = format!("an account may have at most {REMOTES_MAX} remotes");
                return Err(bad_request(text).into());
            }
            remotes::insert_remote(tx, &stored)
                .map_err(|error| name_taken(error, &stored.remote.name))?;
            Ok(stored.remote.clone())
        })
        .await?;
    Ok(shown(app, made, &Presence::default()))
}

/// Which remotes a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteFilter {
    pub(crate) org_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) url: Option<String>,
}

/// The remotes of the caller's account, oldest first. Of other organizations there are none to be
/// seen.
pub(crate) fn list(
    app: &App,
    caller: &Caller,
    filter: &RemoteFilter,
) -> Result<Vec<ShownRemote>, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    let account = parse_org(filter.org_id.as_deref())?;
    if account != caller.account() {
        return Ok(Vec::new());
    }
    let (name, url) = (filter.name.clone(), filter.url.clone());
    let rows = RemoteRows { account: Some(account), name, url };
    let found = app.catalog.read(|tx| {
        let listed = remotes::list_remotes(tx, &rows)?;
        let with_presence = |remote: Remote| Ok((remotes::presence(tx, remote.id)?, remote));
        Ok(listed.into_iter().map(with_presence).collect::<Result<Vec<_>, CatalogError>>()?)
    })?;
    Ok(found.into_iter().map(|(presence, remote)| shown(app, remote, &presence)).collect())
}

/// A remote of the account, as a transaction sees it.
fn existing(tx: &mut dyn Tx, account: AccountId, id: RemoteId) -> Result<StoredRemote, Abort> {
    let stored = remotes::find_remote(tx, id)?;
    let stored = stored.filter(|stored| stored.remote.account == account);
    stored.ok_or_else(|| not_found().into())
}

/// One remote.
pub(crate) fn get(app: &App, caller: &Caller, id: RemoteId) -> Result<ShownRemote, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    let account = caller.account();
    let (remote, presence) = app.catalog.read(|tx| {
        let remote = existing(tx, account, id)?.remote;
        Ok((remote, remotes::presence(tx, id)?))
    })?;
    Ok(shown(app, remote, &presence))
}

/// Changes a remote: all of it or nothing. The next attempt goes by it, and comes at once: what failed
/// before may be mended.
pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    id: RemoteId,
    change: RemoteChange,
) -> Result<ShownRemote, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    caller.require_unrestricted()?;
    let account = caller.account();
    let sealed_token = match &change.token {
        None => None,
        Some(token) => {
            RemoteToken::parse(token)?;
            Some(seal_token(app, id, token)?)
        }
    };
    let (now, steady) = (app.clock.now(), app.waits.now());
    let (remote, presence) = app
        .catalog
        .write("update_remote", move |tx| {
            let mut stored = existing(tx, account, id)?;
            apply(&mut stored.remote, &change, now)?;
            if let Some(token) = &sealed_token {
                stored.sealed_token.clone_from(token);
            }
            remotes::update_remote(tx, &stored)
                .map_err(|error| name_taken(error, &stored.remote.name))?;
            remotes::forget_failures(tx, id)?;
            let rows = StreamRows { remote: Some(id), ..StreamRows::default() };
            for stream in streams::list_streams(tx, &rows)? {
                streams::make_due(tx, &stream, steady)?;
            }
            Ok((stored.remote, remotes::presence(tx, id)?))
        })
        .await?;
    app.wake.replication.notify_one();
    Ok(shown(app, remote, &presence))
}

fn apply(remote: &mut Remote, change: &RemoteChange, now: Millis) -> Result<(), Refusal> {
    if let Some(name) = &change.name {
        remote.name.clone_from(name);
    }
    if let Some(description) = &change.description {
        remote.description = Some(description.clone());
    }
    if let Some(url) = &change.url {
        remote.url.clone_from(url);
    }
    if let Some(org) = &change.remote_org_id {
        remote.remote_org_id = Some(org.clone()).filter(|org| !org.is_empty());
    }
    remote.allow_insecure_tls = change.allow_insecure_tls.unwrap_or(remote.allow_insecure_tls);
    remote.options = remote.options.with(&change.options)?;
    // Always later than before, so that whoever keeps a client for a remote sees that it is another.
    remote.updated_at = now.max(remote.updated_at.plus(1));
    remote.check()
}

/// Deletes a remote that no stream and no rule goes through.
pub(crate) async fn delete(app: &App, caller: &Caller, id: RemoteId) -> Result<(), Error> {
    caller.require(Capability::WriteBucketReplications)?;
    caller.require_unrestricted()?;
    let account = caller.account();
    app.catalog
        .write("delete_remote", move |tx| {
            existing(tx, account, id)?;
            if remotes::is_used(tx, id)? {
                let text = "remote-connection cannot be deleted as a replication references it";
                return Err(refuse(Code::Clash, text).into());
            }
            remotes::delete_remote(tx, id)?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// Names a bucket of a peer as reached through a remote, so that rules may lead to it.
pub(crate) async fn name_bucket(
    app: &App,
    caller: &Caller,
    id: RemoteId,
    bucket_id: &str,
) -> Result<BucketId, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    caller.require_unrestricted()?;
    let (account, bucket) = (caller.account(), parse_bucket_id(bucket_id)?);
    app.catalog
        .write("name_remote_bucket", move |tx| {
            existing(tx, account, id)?;
            if buckets::find_by_id(tx, bucket)?.is_some() {
                return Err(bad_request(format!("bucket {bucket} is one of this server")).into());
            }
            let named = remotes::find_remote_bucket(tx, bucket)?;
            if named.is_some_and(|other| other != id) {
                let text = format!("bucket {bucket} is reached through another remote");
                return Err(refuse(Code::Clash, text).into());
            }
            Ok(remotes::put_remote_bucket(tx, bucket, id)?)
        })
        .await?;
    Ok(bucket)
}

/// Forgets that a bucket is reached through a remote. Jobs of rules that lead there fail
/// from then on, until they are retried.
pub(crate) async fn forget_bucket(
    app: &App,
    caller: &Caller,
    id: RemoteId,
    bucket_id: &str,
) -> Result<(), Error> {
    caller.require(Capability::WriteBucketReplications)?;
    caller.require_unrestricted()?;
    let (account, bucket) = (caller.account(), parse_bucket_id(bucket_id)?);
    app.catalog
        .write("forget_remote_bucket", move |tx| {
            existing(tx, account, id)?;
            if remotes::find_remote_bucket(tx, bucket)? != Some(id) {
                let text = format!("bucket {bucket} is not reached through this remote");
                return Err(refuse(Code::NotFound, text).into());
            }
            remotes::delete_remote_bucket(tx, bucket)?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// The buckets of peers that are reached through a remote.
pub(crate) fn named_buckets(
    app: &App,
    caller: &Caller,
    id: RemoteId,
) -> Result<Vec<BucketId>, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    let account = caller.account();
    Ok(app.catalog.read(|tx| {
        existing(tx, account, id)?;
        Ok(remotes::list_remote_buckets(tx, id)?)
    })?)
}
