//! Turning credentials and tokens into callers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::auth::caller::{Caller, Grant};
use crate::auth::sealing::secrets_match;
use crate::auth::token::{Claims, TOKEN_LIFE_MS, TokenKind};
use crate::catalog::{Abort, Tx, buckets, config_versions, keys};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::ids::{BucketId, KeyId};
use crate::domain::key::Key;
use crate::domain::names::check_prefix;
use crate::domain::refusal::{
    Code, Refusal, bad_auth_token, bad_request, expired_auth_token, no_such_bucket, shorten,
    token_in_use, unauthorized, unsupported_version,
};
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::error::Error;
use crate::operations::upload_slots::Slot;
use crate::operations::usage::check_room;

/// What `b2_authorize_account` tells.
#[derive(Clone, Debug)]
pub(crate) struct Authorized {
    pub(crate) caller: Caller,
    pub(crate) token: String,
    /// The buckets of a restricted key with their names; None where the bucket is gone.
    pub(crate) buckets: Option<Vec<(BucketId, Option<String>)>>,
}

/// Checks a key id and its secret and issues an account token for API `version`.
pub(crate) fn authorize_account(
    app: &App,
    key_id: &str,
    secret: &str,
    version: u8,
) -> Result<Authorized, Error> {
    let now = app.clock.now();
    let id = KeyId::named(key_id);
    let (stored, config_version) =
        app.catalog.read(|tx| Ok((keys::find_key(tx, &id)?, config_versions::current(tx)?)))?;
    let Some(stored) = stored else { return Err(bad_auth_token().into()) };
    let known = app.sealer.open(id.as_str(), &stored.sealed_secret)?;
    if !secrets_match(secret.as_bytes(), &known) || stored.key.is_expired(now) {
        return Err(bad_auth_token().into());
    }
    check_version(app, &stored.key, version)?;
    let expires_at = now.plus(TOKEN_LIFE_MS);
    let expires_at = stored.key.expires_at.map_or(expires_at, |end| end.min(expires_at));
    let token = app.tokens.issue(TokenKind::Account, &id, expires_at, b"", &*app.entropy);
    let buckets = match &stored.key.buckets {
        None => None,
        Some(ids) => Some(app.catalog.read(|tx| {
            let mut named = Vec::with_capacity(ids.len());
            for &id in ids {
                let bucket = buckets::find_by_id(tx, id)?;
                named.push((id, bucket.map(|bucket| bucket.name.as_str().to_owned())));
            }
            Ok(named)
        })?),
    };
    Ok(Authorized { caller: Caller { key: Arc::new(stored.key), config_version }, token, buckets })
}

fn check_version(app: &App, key: &Key, version: u8) -> Result<(), Refusal> {
    let strict = app.policy.strict_v4_keys && key.made_by_version >= 4 && key.buckets.is_some();
    if !key.is_known_to(version) || (version < 4 && strict) {
        return Err(unsupported_version(version));
    }
    Ok(())
}

/// The caller behind a key id that a genuine token names. The key must still be there.
pub(crate) fn caller_with_key(app: &App, id: &KeyId) -> Result<Caller, Error> {
    let Some(known) = app.facts.key(&app.catalog, id)? else {
        return Err(bad_auth_token().into());
    };
    if known.value.is_expired(app.clock.now()) {
        return Err(expired_auth_token().into());
    }
    Ok(Caller { key: known.value, config_version: known.config_version })
}

/// The claims of a genuine token that has not ended, by itself or otherwise.
pub(crate) fn living(app: &App, kind: TokenKind, token: &str) -> Result<Claims, Refusal> {
    let claims = app.tokens.check(kind, token, app.clock.now())?;
    if app.dead_tokens.has(&claims) { Err(expired_auth_token()) } else { Ok(claims) }
}

/// The caller who holds an account token.
pub(crate) fn caller_with_token(app: &App, token: &str) -> Result<Caller, Error> {
    let claims = living(app, TokenKind::Account, token)?;
    caller_with_key(app, &claims.key)
}

/// The bucket with this id; for the caller, buckets of other accounts do not exist.
pub(crate) fn bucket_of_caller(
    app: &App,
    caller: &Caller,
    id: BucketId,
) -> Result<Arc<Bucket>, Error> {
    Ok(fence(app, caller, id)?.ok_or_else(|| no_such_bucket(&id))?.bucket)
}

/// The bucket of this name, for a caller with `capability` in it. Whoever is bound to buckets is told
/// of others, and of those that are not there, the same: that they are not his.
pub(crate) fn bucket_of_name(
    app: &App,
    caller: &Caller,
    capability: Capability,
    name: &str,
) -> Result<Arc<Bucket>, Error> {
    caller.require(capability)?;
    let Some(known) = app.facts.bucket_named(&app.catalog, name)? else {
        let bound = caller.key.buckets.is_some();
        return Err(if bound { unauthorized() } else { no_such_bucket(&shorten(name)) }.into());
    };
    let bucket = known.value;
    if bucket.account != caller.account() {
        return Err(unauthorized().into());
    }
    caller.require_bucket(capability, bucket.id)?;
    Ok(bucket)
}

/// What an act was allowed by, to be looked at again in the transaction that ends it.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) bucket: Arc<Bucket>,
    key: Arc<Key>,
    /// A version of the configuration not newer than what either was read from.
    config_version: i64,
}

/// The fence around a caller's act on a bucket; None when for the caller there is no such bucket.
pub(crate) fn fence(app: &App, caller: &Caller, id: BucketId) -> Result<Option<Fence>, Error> {
    let known = app.facts.bucket(&app.catalog, id)?;
    let known = known.filter(|known| known.value.account == caller.account());
    Ok(known.map(|known| Fence {
        key: Arc::clone(&caller.key),
        config_version: known.config_version.min(caller.config_version),
        bucket: known.value,
    }))
}

impl Fence {
    /// The bucket as it is now when anything was reconfigured meanwhile, None when nothing was.
    /// Refused when the key or the bucket has gone or changed its rights.
    pub(crate) fn reread(&self, tx: &mut dyn Tx, now: Millis) -> Result<Option<Bucket>, Abort> {
        if config_versions::current(tx)? == self.config_version {
            return Ok(None);
        }
        let stored = keys::find_key(tx, &self.key.id)?.ok_or_else(bad_auth_token)?;
        if stored.key.is_expired(now) || stored.key != *self.key {
            return Err(unauthorized().into());
        }
        let bucket = buckets::find_by_id(tx, self.bucket.id)?;
        bucket.map(Some).ok_or_else(|| no_such_bucket(&self.bucket.id).into())
    }
}

/// Reads a bucket id that a caller sent. One that has not the form of an id names no bucket.
pub(crate) fn parse_bucket_id(text: &str) -> Result<BucketId, Refusal> {
    BucketId::parse(text).ok_or_else(|| no_such_bucket(&shorten(text)))
}

/// An upload URL and its token.
#[derive(Clone, Debug)]
pub(crate) struct UploadPair {
    pub(crate) bucket: BucketId,
    pub(crate) token: String,
    /// Opaque last part of the URL; the token fits this one only.
    pub(crate) mark: String,
}

/// The last part of the upload URL that belongs to a token's nonce, shaped as Backblaze's.
pub(crate) fn mark_of(nonce: &str) -> String {
    let number = u64::from_str_radix(nonce, 16).unwrap_or_default();
    let digits = number % 100_000_000_000;
    format!("c000_v{:07}_t{:04}", digits / 10_000, digits % 10_000)
}

/// Makes an upload URL and token for a bucket.
pub(crate) fn upload_pair(app: &App, caller: &Caller, bucket: &str) -> Result<UploadPair, Error> {
    caller.require(Capability::WriteFiles)?;
    let id = parse_bucket_id(bucket)?;
    caller.require_bucket(Capability::WriteFiles, id)?;
    let bucket = bucket_of_caller(app, caller, id)?;
    let grant = Grant::for_bucket(&caller.key, Capability::WriteFiles, bucket)?;
    check_room(app, caller.account(), 1)?;
    let end = app.clock.now().plus(TOKEN_LIFE_MS);
    let end = caller.key.expires_at.map_or(end, |key_end| key_end.min(end));
    let scope = grant.bucket.id.to_string();
    let token =
        app.tokens.issue(TokenKind::Upload, &caller.key.id, end, scope.as_bytes(), &*app.entropy);
    let claims = app.tokens.check(TokenKind::Upload, &token, app.clock.now())?;
    Ok(UploadPair { bucket: grant.bucket.id, token, mark: mark_of(&claims.nonce) })
}

/// What lets a caller upload into a bucket: an upload token, or a request that is signed itself.
#[derive(Clone, Debug)]
pub(crate) struct UploadTicket {
    pub(crate) caller: Caller,
    pub(crate) fence: Fence,
    /// The upload token, which serves one upload at a time.
    pub(crate) turn: Option<Turn>,
}

impl UploadTicket {
    /// The ticket of a caller who signs each request.
    pub(crate) fn of_caller(app: &App, caller: &Caller, bucket: BucketId) -> Result<Self, Error> {
        caller.require_bucket(Capability::WriteFiles, bucket)?;
        let fence = fence(app, caller, bucket)?.ok_or_else(|| no_such_bucket(&bucket))?;
        Ok(Self { caller: caller.clone(), fence, turn: None })
    }
}

/// An upload token, which serves one upload at a time.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) nonce: String,
    pub(crate) token: String,
}

impl Turn {
    /// Takes the token for one upload; refused while another has it.
    pub(crate) fn take(&self, app: &App) -> Result<Slot, Refusal> {
        app.upload_slots.take(&self.nonce).ok_or_else(|| token_in_use(&self.token))
    }
}

/// Whether the token with these claims belongs to an upload URL.
pub(crate) fn fits_url(claims: &Claims, url_scope: &str, url_mark: &str) -> bool {
    claims.scope == url_scope.as_bytes() && mark_of(&claims.nonce) == url_mark
}

/// Checks an upload token against the URL it was sent to.
pub(crate) fn upload_ticket(
    app: &App,
    token: &str,
    url_bucket: &str,
    url_mark: &str,
) -> Result<UploadTicket, Error> {
    let claims = living(app, TokenKind::Upload, token)?;
    if !fits_url(&claims, url_bucket, url_mark) {
        return Err(bad_auth_token().into());
    }
    let bucket = BucketId::parse(url_bucket).ok_or_else(bad_auth_token)?;
    let Claims { key, nonce, .. } = claims;
    let caller = caller_with_key(app, &key)?;
    let fence = fence(app, &caller, bucket)?.ok_or_else(|| no_such_bucket(&bucket))?;
    Ok(UploadTicket { caller, fence, turn: Some(Turn { nonce, token: token.to_owned() }) })
}

/// Ends an upload URL, for files or for parts, and its token: it rejected an upload, and the client
/// must ask for another. A token that was sent to the wrong URL lives on.
pub(crate) fn retire_upload_url(app: &App, token: &str, url_scope: &str, url_mark: &str) {
    let now = app.clock.now();
    for kind in [TokenKind::Upload, TokenKind::UploadPart] {
        if let Ok(claims) = app.tokens.check(kind, token, now)
            && fits_url(&claims, url_scope, url_mark)
        {
            app.dead_tokens.insert(claims, now);
        }
    }
}

/// Header values that a download authorization binds, by the name of their query parameter.
pub(crate) type Overrides = std::collections::BTreeMap<String, String>;

/// The query parameters that override headers of a download, with the header each sets.
pub(crate) const OVERRIDES: [(&str, &str); 6] = [
    ("b2CacheControl", "Cache-Control"),
    ("b2ContentDisposition", "Content-Disposition"),
    ("b2ContentEncoding", "Content-Encoding"),
    ("b2ContentLanguage", "Content-Language"),
    ("b2ContentType", "Content-Type"),
    ("b2Expires", "Expires"),
];

/// Scope of a download token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DownloadScope {
    bucket: String,
    prefix: String,
    #[serde(default)]
    overrides: Overrides,
}

/// Longest life of a download authorization, in seconds (documented: a week).
const DOWNLOAD_DURATION_S_MAX: i64 = 604_800;

/// What a download authorization is asked for.
#[derive(Clone, Debug)]
pub(crate) struct DownloadAuthorization {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) duration_s: i64,
    pub(crate) overrides: Overrides,
}

/// Issues a token for downloads by name below a prefix.
pub(crate) fn download_authorization(
    app: &App,
    caller: &Caller,
    wanted: DownloadAuthorization,
) -> Result<(BucketId, String), Error> {
    caller.require(Capability::ShareFiles)?;
    let id = parse_bucket_id(&wanted.bucket)?;
    caller.require_bucket(Capability::ShareFiles, id)?;
    if !caller.key.reaches_name(&wanted.prefix) {
        return Err(unauthorized().into());
    }
    if !(1..=DOWNLOAD_DURATION_S_MAX).contains(&wanted.duration_s) {
        return Err(bad_request(format!(
            "validDurationInSeconds must be between 1 and {DOWNLOAD_DURATION_S_MAX}: {}",
            wanted.duration_s
        ))
        .into());
    }
    check_prefix("fileNamePrefix", &wanted.prefix)?;
    check_overrides(&wanted.overrides)?;
    if wanted.overrides.get("b2ContentDisposition").is_some_and(|value| value.contains("*=")) {
        return Err(bad_request("b2ContentDisposition must not use '*' parameters").into());
    }
    let bucket = bucket_of_caller(app, caller, id)?;
    let grant = Grant::for_prefix(&caller.key, Capability::ShareFiles, bucket, &wanted.prefix)?;
    let end = app.clock.now().plus(wanted.duration_s * 1000);
    let end = caller.key.expires_at.map_or(end, |key_end| key_end.min(end));
    let scope = DownloadScope {
        bucket: grant.bucket.id.to_string(),
        prefix: wanted.prefix,
        overrides: wanted.overrides,
    };
    let scope =
        serde_json::to_vec(&scope).map_err(|_| bad_request("fileNamePrefix is unusable"))?;
    let token = app.tokens.issue(TokenKind::Download, &caller.key.id, end, &scope, &*app.entropy);
    Ok((grant.bucket.id, token))
}

/// Bytes of all header overrides of a download together: as much as the metadata of a file may have
/// (the service says "over the header limit", without a number).
const OVERRIDE_BYTES_MAX: usize = 7000;

/// Checks the header overrides of a download.
pub(crate) fn check_overrides(overrides: &Overrides) -> Result<(), Refusal> {
    let bytes = overrides.values().map(String::len).sum::<usize>();
    if bytes > OVERRIDE_BYTES_MAX {
        return Err(bad_request(format!(
            "header overrides must have at most {OVERRIDE_BYTES_MAX} bytes: {bytes}"
        )));
    }
    overrides.iter().try_for_each(|(parameter, value)| check_override(parameter, value))
}

fn check_override(parameter: &str, value: &str) -> Result<(), Refusal> {
    match OVERRIDES.iter().find(|(known, _)| *known == parameter) {
        Some((_, header)) => crate::domain::file::check_header_value(header, value),
        None => Err(bad_request(format!("unknown override {parameter}"))),
    }
}

/// What a download by name may use: an account token, or a download token.
pub(crate) enum DownloadProof {
    Account(Caller),
    /// The key that issued the token still exists; the token says how far it goes.
    Shared {
        prefix: String,
        bucket: BucketId,
        overrides: Overrides,
    },
}

/// Reads the token of a download by name.
pub(crate) fn download_proof(app: &App, token: &str) -> Result<DownloadProof, Error> {
    let now: Millis = app.clock.now();
    let shared = app.tokens.check(TokenKind::Download, token, now);
    let claims = match shared {
        Ok(claims) => claims,
        Err(refusal) if refusal.code == Code::ExpiredAuthToken => return Err(refusal.into()),
        Err(_) => return Ok(DownloadProof::Account(caller_with_token(app, token)?)),
    };
    let scope: Option<DownloadScope> = serde_json::from_slice(&claims.scope).ok();
    let bucket = scope.as_ref().and_then(|scope| BucketId::parse(&scope.bucket));
    let (Some(scope), Some(bucket)) = (scope, bucket) else { return Err(bad_auth_token().into()) };
    caller_with_key(app, &claims.key)?;
    Ok(DownloadProof::Shared { prefix: scope.prefix, bucket, overrides: scope.overrides })
}
