//! Which pages of other origins may read an answer: the CORS rules of the bucket it is about.
//!
//! These rules replace no right: a request that a rule lets through is still refused without one.

use crate::domain::cors::{CorsOperation, find_rule};
use crate::domain::ids::{BucketId, ClaimedFileId};
use crate::operations::App;
use crate::operations::error::Error;

/// How a request names its bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place<'r> {
    BucketName(String),
    BucketId(&'r str),
    /// Any file in it, unfinished large ones too.
    FileId(String),
}

/// What a browser is told about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Who may read the answer: the origin that asked, or `*`.
    pub(crate) origin: String,
    /// The headers that a page may read.
    pub(crate) expose_headers: Vec<String>,
    /// How long the answer to a preflight holds, in seconds.
    pub(crate) max_age_s: i64,
}

/// Looks for the rule that opens an operation to a page. `headers` are those a preflight asks for.
/// None when no rule does, or when there is no such bucket.
pub(crate) fn find_opening(
    app: &App,
    place: &Place<'_>,
    operation: CorsOperation,
    origin: &str,
    headers: &[&str],
) -> Result<Option<Opening>, Error> {
    let of_id = |id: Option<BucketId>| match id {
        Some(id) => app.facts.bucket(&app.catalog, id),
        None => Ok(None),
    };
    let known = match place {
        Place::BucketName(name) => app.facts.bucket_named(&app.catalog, name)?,
        Place::BucketId(id) => of_id(BucketId::parse(id))?,
        Place::FileId(id) => of_id(ClaimedFileId::parse(id).map(|claimed| claimed.bucket))?,
    };
    let Some(known) = known else { return Ok(None) };
    let rule = find_rule(&known.value.settings.cors_rules, operation, origin, headers);
    Ok(rule.map(|rule| Opening {
        origin: rule.shown_origin(origin).to_owned(),
        expose_headers: rule.expose_headers.clone().unwrap_or_default(),
        max_age_s: rule.max_age_seconds,
    }))
}
