//! The keys behind SSE-B2: what there is, a new one, data keys wrapped anew, old keys retired.
//!
//! A crash between any two steps leaves every blob readable: a key is durable before the catalog
//! knows it, is known there before it wraps anything, and leaves the catalog before it leaves the
//! file.

use std::collections::BTreeMap;

use crate::auth::key_ring::RingKeyFacts;
use crate::catalog::ring_keys::{self, RingKeyRow, WrappedKey};
use crate::domain::blob::Seal;
use crate::domain::ids::BlobId;
use crate::domain::refusal::{bad_request, shorten};
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::error::{Error, Fault};

/// Data keys that are wrapped anew in one transaction: few enough that uploads do not wait.
const BATCH: i64 = 200;

/// A key of the ring, with the number of blobs that are wrapped with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RingKey {
    pub(crate) facts: RingKeyFacts,
    pub(crate) blobs: i64,
}

/// The keys of the ring, oldest first.
pub(crate) fn list_ring(app: &App, _: &Operator) -> Result<Vec<RingKey>, Error> {
    let counts = app.catalog.read(|tx| Ok(ring_keys::count_blobs(tx)?))?;
    let counts: BTreeMap<i64, i64> = counts.into_iter().collect();
    let blobs = |facts: &RingKeyFacts| counts.get(&facts.number).copied().unwrap_or_default();
    let listed = app.key_ring.list().into_iter();
    Ok(listed.map(|facts| RingKey { blobs: blobs(&facts), facts }).collect())
}

fn unkept(source: std::io::Error) -> Error {
    let doing = "write the key ring";
    Error::Fault(Fault { doing, may_retry: false, source: Box::new(source) })
}

/// Makes a new key that wraps everything from now on; answers its number. What is wrapped with
/// older ones stays so until [`rewrap`].
pub(crate) async fn add_ring_key(app: &App, _: &Operator) -> Result<i64, Error> {
    let noted = app.catalog.read(|tx| Ok(ring_keys::newest_ring_key(tx)?))?;
    let added = app.key_ring.add_key(noted, app.clock.now(), &*app.entropy).map_err(unkept)?;
    let row = RingKeyRow {
        number: added.number,
        made_at: added.made_at,
        fingerprint: added.fingerprint.to_vec(),
    };
    app.catalog.write("add_ring_key", move |tx| Ok(ring_keys::insert_ring_key(tx, &row)?)).await?;
    app.key_ring.use_key(added.number);
    tracing::info!(ring_key = added.number, "a new key of the key ring is in use");
    Ok(added.number)
}

/// What one step of wrapping anew did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewrapped {
    pub(crate) done: u64,
    /// Keys that cannot be opened, and stay as they are.
    pub(crate) failed: u64,
    /// Where the next step goes on; None when this was the last one.
    pub(crate) next: Option<String>,
}

fn parse_place(text: &str) -> Option<(i64, BlobId)> {
    let (ring_key, blob) = text.split_once('.')?;
    Some((ring_key.parse().ok()?, BlobId(blob.parse().ok()?)))
}

/// Wraps a bounded number of data keys anew, with the current key. `after` is where an earlier step
/// ended; steps may be repeated, left out, and taken side by side.
pub(crate) async fn rewrap(
    app: &App,
    _: &Operator,
    after: Option<&str>,
) -> Result<Rewrapped, Error> {
    let place = match after {
        None => (0, BlobId(0)),
        Some(text) => {
            parse_place(text).ok_or_else(|| bad_request(format!("Bad after: {}", shorten(text))))?
        }
    };
    let current = app.key_ring.list().into_iter().find(|key| key.is_current);
    let current = current.map_or(0, |key| key.number);
    let outdated =
        app.catalog.read(|tx| Ok(ring_keys::list_outdated(tx, current, place, BATCH)?))?;
    let full = i64::try_from(outdated.len()).unwrap_or(BATCH) == BATCH;
    let next =
        outdated.last().filter(|_| full).map(|last| format!("{}.{}", last.ring_key, last.blob.0));
    let (mut pairs, mut failed) = (Vec::with_capacity(outdated.len()), 0);
    for old in outdated {
        match wrapped_anew(app, &old) {
            Ok(new) => pairs.push((old, new)),
            Err(error) => {
                failed += 1;
                tracing::error!(blob = %old.blob, %error, "wrap the key of a blob anew");
            }
        }
    }
    let done = app
        .catalog
        .write("rewrap", move |tx| {
            let mut done = 0;
            for (old, new) in &pairs {
                done += u64::from(ring_keys::replace_wrapped(tx, old, new)?);
            }
            Ok(done)
        })
        .await?;
    Ok(Rewrapped { done, failed, next })
}

fn wrapped_anew(app: &App, old: &WrappedKey) -> Result<WrappedKey, Error> {
    let key = app.key_ring.unwrap(old.blob, old.ring_key, &old.wrapped)?;
    match app.key_ring.wrap(old.blob, &key, &*app.entropy)? {
        Seal::Managed { ring_key, wrapped } => Ok(WrappedKey { ring_key, blob: old.blob, wrapped }),
        Seal::Plain | Seal::Customer(_) => {
            let source = std::io::Error::other("the key ring made no seal of its own");
            Err(unkept(source))
        }
    }
}

/// Takes the keys out of the ring that are older than the current one and that no blob is wrapped
/// with; answers their numbers.
pub(crate) async fn retire_ring_keys(app: &App, _: &Operator) -> Result<Vec<i64>, Error> {
    let keys = app.key_ring.list();
    let current = keys.iter().find(|key| key.is_current).map_or(0, |key| key.number);
    let older: Vec<i64> =
        keys.iter().map(|key| key.number).filter(|number| *number < current).collect();
    let retired = app
        .catalog
        .write("retire_ring_keys", move |tx| {
            let mut retired = Vec::new();
            for &number in &older {
                // In the transaction that forbids the key: an upload that wrapped with it just
                // before is refused.
                if !ring_keys::is_in_use(tx, number)? {
                    ring_keys::delete_ring_key(tx, number)?;
                    retired.push(number);
                }
            }
            Ok(retired)
        })
        .await?;
    for &number in &retired {
        app.key_ring.retire(number).map_err(unkept)?;
    }
    tracing::info!(?retired, "keys of the key ring retired");
    Ok(retired)
}
