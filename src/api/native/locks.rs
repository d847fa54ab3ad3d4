//! Object Lock in requests: what a bucket, an upload or a copy is asked for, and
//! `b2_update_file_retention` and `b2_update_file_legal_hold`.

use actix_web::http::header::HeaderMap;
use serde_json::{Map, Value, json};

use crate::api::native::fields::Fields;
use crate::api::native::wire::{RetentionJson, legal_hold};
use crate::api::native::{Call, Reply, reply};
use crate::domain::lock::{
    BucketLockChange, DefaultChange, DefaultRetention, FileLock, Period, Retention, RetentionMode,
};
use crate::domain::refusal::{
    Refusal, bad_request, missing_field, null_field, shorten, wrong_type,
};
use crate::domain::time::Millis;
use crate::operations::locks::{self, Target};

/// Headers by which an upload sets a lock and a download shows it.
pub(crate) const RETENTION_MODE_HEADER: &str = "X-Bz-File-Retention-Mode";
pub(crate) const RETAIN_UNTIL_HEADER: &str = "X-Bz-File-Retention-Retain-Until-Timestamp";
pub(crate) const LEGAL_HOLD_HEADER: &str = "X-Bz-File-Legal-Hold";

/// What a call wants of the lock of a bucket.
pub(crate) fn bucket_change(fields: &Fields) -> Result<BucketLockChange, Refusal> {
    Ok(BucketLockChange {
        enable: fields.opt_bool("fileLockEnabled")?,
        default_retention: default_retention(fields)?,
    })
}

/// Absent and null leave the default retention as it is; without a mode it is cleared.
fn default_retention(fields: &Fields) -> Result<DefaultChange, Refusal> {
    const FIELD: &str = "defaultRetention";
    let Some(value) = fields.opt_structure(FIELD)? else { return Ok(DefaultChange::Keep) };
    let members = object(FIELD, &value)?;
    let period = members.get("period").filter(|period| !period.is_null());
    match (mode(FIELD, members)?, period) {
        (None, None) => Ok(DefaultChange::Clear),
        (None, Some(_)) => Err(bad_request("defaultRetention.period needs a mode")),
        (Some(_), None) => Err(missing_field("defaultRetention.period")),
        (Some(mode), Some(period)) => {
            let period = object("defaultRetention.period", period)?;
            let duration = period.get("duration").and_then(Value::as_i64);
            let duration = duration.ok_or_else(|| wrong_type("period.duration", "an integer"))?;
            let unit = period.get("unit").and_then(Value::as_str);
            let unit = unit.ok_or_else(|| wrong_type("period.unit", "a string"))?;
            let period = Period::of_caller(duration, unit)?;
            Ok(DefaultChange::Set(DefaultRetention { mode, period }))
        }
    }
}

fn object<'v>(name: &str, value: &'v Value) -> Result<&'v Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| wrong_type(name, "an object"))
}

/// The member `mode`; older SDKs spell "none" out.
fn mode(of: &str, members: &Map<String, Value>) -> Result<Option<RetentionMode>, Refusal> {
    match members.get("mode") {
        // It may be misspelt, and would leave free what was to be locked.
        None => Err(missing_field(&format!("{of}.mode"))),
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == "none" => Ok(None),
        Some(Value::String(text)) => parse_mode(text).map(Some),
        Some(_) => Err(wrong_type(&format!("{of}.mode"), "a string")),
    }
}

fn parse_mode(text: &str) -> Result<RetentionMode, Refusal> {
    RetentionMode::parse(text)
        .ok_or_else(|| bad_request(format!("Bad retention mode: {}", shorten(text))))
}

/// Both halves of a retention, or neither.
fn retention_of(
    mode: Option<RetentionMode>,
    until: Option<i64>,
) -> Result<Option<Retention>, Refusal> {
    match (mode, until) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => Ok(Some(Retention { mode, until: Millis(until) })),
        (Some(_), None) => Err(bad_request("a retention mode needs a retainUntilTimestamp")),
        (None, Some(_)) => Err(bad_request("a retainUntilTimestamp needs a retention mode")),
    }
}

fn parse_hold(text: &str) -> Result<bool, Refusal> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(bad_request(format!("Bad legal hold, on or off: {}", shorten(other)))),
    }
}

const FILE_RETENTION: &str = "fileRetention";

/// What the field `fileRetention` holds.
fn file_retention(value: &Value) -> Result<Option<Retention>, Refusal> {
    let members = object(FILE_RETENTION, value)?;
    let until = match members.get("retainUntilTimestamp") {
        None | Some(Value::Null) => None,
        Some(until) => {
            let wrong = || wrong_type("fileRetention.retainUntilTimestamp", "an integer");
            Some(until.as_i64().ok_or_else(wrong)?)
        }
    };
    retention_of(mode(FILE_RETENTION, members)?, until)
}

/// The lock that a JSON call wants for a new file.
pub(crate) fn of_fields(fields: &Fields) -> Result<FileLock, Refusal> {
    let retention = fields.opt_structure(FILE_RETENTION)?;
    Ok(FileLock {
        retention: retention.as_ref().map_or(Ok(None), file_retention)?,
        legal_hold: fields.opt_text("legalHold")?.map(parse_hold).transpose()?,
    })
}

/// The lock that an upload wants.
pub(crate) fn of_headers(headers: &HeaderMap) -> Result<FileLock, Refusal> {
    let text = |name: &str| {
        let wrong = || bad_request(format!("Bad {name}"));
        headers.get(name).map(|value| value.to_str().map_err(|_| wrong())).transpose()
    };
    let mode = text(RETENTION_MODE_HEADER)?.map(parse_mode).transpose()?;
    let until = text(RETAIN_UNTIL_HEADER)?
        .map(str::parse)
        .transpose()
        .map_err(|_| bad_request(format!("Bad {RETAIN_UNTIL_HEADER}")))?;
    Ok(FileLock {
        retention: retention_of(mode, until)?,
        legal_hold: text(LEGAL_HOLD_HEADER)?.map(parse_hold).transpose()?,
    })
}

fn target(call: &Call) -> Result<Target, Refusal> {
    Ok(Target {
        file_name: call.fields.text("fileName")?.to_owned(),
        file_id: call.fields.text("fileId")?.to_owned(),
    })
}

pub(crate) async fn update_retention(call: Call) -> Reply {
    let fields = &call.fields;
    let target = target(&call)?;
    let Some(wanted) = fields.opt_structure(FILE_RETENTION)? else {
        let absent = if fields.has(FILE_RETENTION) { null_field } else { missing_field };
        return Err(absent(FILE_RETENTION).into());
    };
    let wanted = file_retention(&wanted)?;
    let bypass = fields.opt_bool("bypassGovernance")?.unwrap_or(false);
    locks::update_retention(call.app(), &call.caller, target.clone(), wanted, bypass).await?;
    reply(&json!({
        "fileId": target.file_id,
        "fileName": target.file_name,
        "fileRetention": RetentionJson::of(wanted),
    }))
}

pub(crate) async fn update_legal_hold(call: Call) -> Reply {
    let target = target(&call)?;
    let hold = parse_hold(call.fields.text("legalHold")?)?;
    locks::update_legal_hold(call.app(), &call.caller, target.clone(), hold).await?;
    reply(&json!({
        "fileId": target.file_id,
        "fileName": target.file_name,
        "legalHold": legal_hold(hold),
    }))
}
