//! Turning signatures of S3 requests into callers.

use std::sync::Arc;

use crate::auth::caller::Caller;
use crate::auth::sigv4::{self, BadSignature, ChunkSigner, PayloadHash, Rules};
use crate::domain::ids::{AccountId, KeyId};
use crate::operations::App;
use crate::operations::error::Error;

/// What the operator may set about signatures.
#[derive(Clone, Debug)]
pub(crate) struct SignaturePolicy {
    pub(crate) region: String,
    /// Take signatures for any region, and not for ours only.
    pub(crate) any_region: bool,
    /// Take signatures with master application keys.
    pub(crate) allow_master_key: bool,
}

/// Why a request has no caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAuthentic {
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// It cannot be the id of a key, or is that of a master application key.
    #[error("malformed key id")]
    MalformedKeyId,
    #[error("unknown key")]
    UnknownKey(String),
    #[error("the key has expired")]
    KeyExpired,
    #[error(transparent)]
    Failed(#[from] Error),
}

/// A request whose signature has been checked.
#[derive(Debug)]
pub(crate) struct Authentic {
    /// None when nobody has signed.
    pub(crate) caller: Option<Caller>,
    /// What the signer says of the body.
    pub(crate) payload: PayloadHash,
    /// Checks the chunks of the body where they are signed.
    pub(crate) chunks: Option<ChunkSigner>,
}

/// A secret that no key has, so that an unknown key takes as long as a known one.
const NO_SECRET: &str = "K000nobodyknowsthissecretforno1";

/// Finds who signed a request. An unsigned one has no caller, and may do what everybody may.
pub(crate) fn authenticate(
    app: &App,
    request: &sigv4::Request<'_>,
) -> Result<Authentic, NotAuthentic> {
    let policy = &app.policy.signatures;
    let now = app.clock.now();
    let rules = Rules { now, region: &policy.region, any_region: policy.any_region };
    let Some(claim) = sigv4::read_claim(request, &rules)? else {
        let payload = PayloadHash::Unsigned;
        return Ok(Authentic { caller: None, payload, chunks: None });
    };
    let is_master = AccountId::parse(&claim.key).is_some();
    if !(is_application_key(&claim.key) || is_master && policy.allow_master_key) {
        return Err(NotAuthentic::MalformedKeyId);
    }
    let known = app.facts.signing_key(&app.catalog, &KeyId::named(&claim.key));
    let Some(known) = known.map_err(Error::from)? else {
        drop(claim.verify(request, NO_SECRET));
        return Err(NotAuthentic::UnknownKey(claim.key));
    };
    let secret = app.sealer.open(&claim.key, &known.value.sealed_secret).map_err(Error::from)?;
    // Secrets are text; one that is not fits no signature.
    let secret = std::str::from_utf8(&secret).map_err(|_| BadSignature::Mismatch)?;
    let verified = claim.verify(request, secret)?;
    if known.value.key.is_expired(now) {
        return Err(NotAuthentic::KeyExpired);
    }
    let caller = Caller { key: Arc::clone(&known.value.key), config_version: known.config_version };
    Ok(Authentic { caller: Some(caller), payload: claim.payload, chunks: verified.into_chunks() })
}

/// Whether a text has the form of the id of an application key: 25 hex digits.
fn is_application_key(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
