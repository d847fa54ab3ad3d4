//! What a bucket does with what is in it: CORS, encryption, Object Lock, lifecycle, logging.

use actix_web::http::StatusCode;

use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, invalid_request, malformed_xml, not_implemented,
    s3_refuse,
};
use crate::api::s3::headers::{retention_mode, shown_mode};
use crate::api::s3::lifecycle::{read_rules, write_rules};
use crate::api::s3::xml::{Element, Writer};
use crate::api::s3::{Call, Reply, empty, xml_answer};
use crate::domain::bucket::{Logging, RuleNames};
use crate::domain::capability::Capability;
use crate::domain::cors::{self, CorsOperation, CorsRule, RULES_MAX};
use crate::domain::encryption::{ALGORITHM, AskedDefault, DefaultEncryption};
use crate::domain::lock::{BucketLockChange, DefaultChange, DefaultRetention, Period, PeriodUnit};
use crate::operations::authorize::{bucket_of_caller, bucket_of_name};
use crate::operations::buckets::{BucketChange, LoggingChange, change_bucket};
use crate::operations::error::Error;

/// Changes the bucket with the right of the call, and answers nothing more.
async fn change(
    call: &Call,
    capability: Capability,
    change: BucketChange,
    status: StatusCode,
) -> Reply {
    let bucket = call.bucket_for(capability)?;
    change_bucket(call.app(), call.caller()?, bucket.id, capability, change).await?;
    Ok(empty(status))
}

// CORS.

const METHODS: [(&str, CorsOperation); 5] = [
    ("GET", CorsOperation::S3Get),
    ("HEAD", CorsOperation::S3Head),
    ("PUT", CorsOperation::S3Put),
    ("POST", CorsOperation::S3Post),
    ("DELETE", CorsOperation::S3Delete),
];

/// What names of rules begin with that no client gave one.
const UNNAMED_RULE: &str = "s3-rule-";
/// Characters of the name of a rule at most, as on AWS.
const CORS_ID_CHARACTERS_MAX: usize = 255;

fn no_cors() -> S3Refusal {
    s3_refuse(404, "NoSuchCORSConfiguration", "The CORS configuration does not exist")
}

pub(crate) async fn cors(call: Call) -> Reply {
    let bucket = call.bucket()?;
    let mut xml = Writer::new("CORSConfiguration");
    let mut any = false;
    for rule in &bucket.settings.cors_rules {
        let methods = METHODS.iter().filter(|(_, is)| rule.allowed_operations.contains(is));
        let methods: Vec<&str> = methods.map(|(name, _)| *name).collect();
        if methods.is_empty() {
            // A rule for the Native API alone.
            continue;
        }
        any = true;
        xml.begin("CORSRule");
        match bucket.settings.cors_names.get(&rule.name) {
            Some(id) => xml.text("ID", id),
            None if rule.name.starts_with(UNNAMED_RULE) => {}
            None => xml.text("ID", &rule.name),
        }
        for header in rule.allowed_headers.iter().flatten() {
            xml.text("AllowedHeader", header);
        }
        for method in methods {
            xml.text("AllowedMethod", method);
        }
        for origin in &rule.allowed_origins {
            xml.text("AllowedOrigin", origin);
        }
        for header in rule.expose_headers.iter().flatten() {
            xml.text("ExposeHeader", header);
        }
        if rule.max_age_seconds > 0 {
            xml.text("MaxAgeSeconds", &rule.max_age_seconds.to_string());
        }
        xml.end();
    }
    if any { Ok(xml_answer(xml)) } else { Err(no_cors().into()) }
}

/// A rule, and what it is called where that cannot be its name here.
fn cors_rule(rule: &Element, number: usize) -> Result<(CorsRule, Option<String>), S3Refusal> {
    let texts = |name: &str| rule.all(name).map(|one| one.text().to_owned()).collect::<Vec<_>>();
    let some = |texts: Vec<String>| Some(texts).filter(|texts| !texts.is_empty());
    let mut operations = Vec::new();
    for method in texts("AllowedMethod") {
        let known = METHODS.iter().find(|(name, _)| *name == method);
        let (_, operation) = known.ok_or_else(|| {
            invalid_request(format!(
                "Found unsupported HTTP method in CORS config. Unsupported method is {}",
                crate::domain::refusal::shorten(&method)
            ))
        })?;
        operations.push(*operation);
    }
    let origins = texts("AllowedOrigin");
    if operations.is_empty() || origins.is_empty() {
        return Err(malformed_xml());
    }
    let max_age_seconds = match rule.opt_text("MaxAgeSeconds")? {
        None => 0,
        Some(text) => text.parse().map_err(|_| malformed_xml())?,
    };
    let mut made = CorsRule {
        name: format!("{UNNAMED_RULE}{number}"),
        allowed_origins: origins,
        allowed_operations: operations,
        allowed_headers: some(texts("AllowedHeader")),
        expose_headers: some(texts("ExposeHeader")),
        max_age_seconds,
    };
    let Some(id) = rule.opt_text("ID")?.filter(|id| !id.is_empty()) else {
        return Ok((made, None));
    };
    if id.chars().count() > CORS_ID_CHARACTERS_MAX {
        return Err(malformed_xml());
    }
    let named = CorsRule { name: id.to_owned(), ..made.clone() };
    if !id.starts_with(UNNAMED_RULE) && cors::check_rules(std::slice::from_ref(&named)).is_ok() {
        made = named;
        return Ok((made, None));
    }
    Ok((made, Some(id.to_owned())))
}

pub(crate) async fn set_cors(mut call: Call) -> Reply {
    call.bucket()?;
    let document = call.document("CORSConfiguration").await?;
    let rules = document.all("CORSRule").enumerate();
    let named: Vec<(CorsRule, Option<String>)> =
        rules.map(|(at, rule)| cors_rule(rule, at + 1)).collect::<Result<_, _>>()?;
    let names = named.iter().filter_map(|(rule, id)| Some((rule.name.clone(), id.clone()?)));
    let cors_names = Some(names.collect());
    let rules: Vec<CorsRule> = named.into_iter().map(|(rule, _)| rule).collect();
    if rules.is_empty() || rules.len() > RULES_MAX {
        return Err(malformed_xml().into());
    }
    cors::check_rules(&rules).map_err(|refusal| invalid_request(refusal.message))?;
    let wanted = BucketChange { cors_rules: Some(rules), cors_names, ..BucketChange::default() };
    change(&call, Capability::WriteBuckets, wanted, StatusCode::OK).await
}

pub(crate) async fn delete_cors(call: Call) -> Reply {
    let wanted = BucketChange { cors_rules: Some(Vec::new()), ..BucketChange::default() };
    change(&call, Capability::WriteBuckets, wanted, StatusCode::NO_CONTENT).await
}

// Encryption.

pub(crate) async fn encryption(call: Call) -> Reply {
    let bucket = call.bucket()?;
    if bucket.settings.encryption == DefaultEncryption::None {
        return Err(s3_refuse(
            404,
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        )
        .into());
    }
    let mut xml = Writer::new("ServerSideEncryptionConfiguration");
    xml.begin("Rule");
    xml.begin("ApplyServerSideEncryptionByDefault");
    xml.text("SSEAlgorithm", ALGORITHM);
    xml.end();
    xml.text("BucketKeyEnabled", "false");
    Ok(xml_answer(xml))
}

pub(crate) async fn set_encryption(mut call: Call) -> Reply {
    call.bucket()?;
    let document = call.document("ServerSideEncryptionConfiguration").await?;
    document.only(&["Rule"])?;
    let rule = document.one("Rule")?;
    let is_known = rule.only(&["ApplyServerSideEncryptionByDefault", "BucketKeyEnabled"]).is_ok();
    if !is_known || rule.opt_text("BucketKeyEnabled")?.is_some_and(|text| text != "false") {
        // Keys of KMS for buckets, and kinds of encryption that are forbidden.
        return Err(not_implemented().into());
    }
    let default = rule.one("ApplyServerSideEncryptionByDefault")?;
    match default.one("SSEAlgorithm")?.text() {
        ALGORITHM if default.opt("KMSMasterKeyID")?.is_none() => {}
        "aws:kms" | "aws:kms:dsse" | ALGORITHM => {
            return Err(invalid_argument("Only AES256 can be the default encryption").into());
        }
        _ => return Err(malformed_xml().into()),
    }
    let encryption = Some(AskedDefault::Managed);
    let wanted = BucketChange { encryption, ..BucketChange::default() };
    change(&call, Capability::WriteBucketEncryption, wanted, StatusCode::OK).await
}

pub(crate) async fn delete_encryption(call: Call) -> Reply {
    let encryption = Some(AskedDefault::OfServer);
    let wanted = BucketChange { encryption, ..BucketChange::default() };
    change(&call, Capability::WriteBucketEncryption, wanted, StatusCode::NO_CONTENT).await
}

// Object Lock.

pub(crate) async fn object_lock(call: Call) -> Reply {
    let lock = call.bucket()?.settings.file_lock;
    if !lock.is_file_lock_enabled {
        return Err(s3_refuse(
            404,
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        )
        .into());
    }
    let mut xml = Writer::new("ObjectLockConfiguration");
    xml.text("ObjectLockEnabled", "Enabled");
    if let Some(default) = lock.default_retention {
        xml.begin("Rule");
        xml.begin("DefaultRetention");
        xml.text("Mode", shown_mode(default.mode));
        let unit = match default.period.unit() {
            PeriodUnit::Days => "Days",
            PeriodUnit::Years => "Years",
        };
        xml.number(unit, default.period.duration());
    }
    Ok(xml_answer(xml))
}

/// The default retention in a document.
fn default_retention(document: &Element) -> Result<DefaultChange, S3Refusal> {
    let Some(rule) = document.opt("Rule")? else { return Ok(DefaultChange::Clear) };
    rule.only(&["DefaultRetention"])?;
    let default = rule.one("DefaultRetention")?;
    default.only(&["Mode", "Days", "Years"])?;
    let mode = retention_mode(default.one("Mode")?.text()).ok_or_else(malformed_xml)?;
    let (count, unit) = match (default.opt_text("Days")?, default.opt_text("Years")?) {
        (Some(days), None) => (days, "days"),
        (None, Some(years)) => (years, "years"),
        _ => return Err(malformed_xml()),
    };
    let count: i64 = count.parse().map_err(|_| malformed_xml())?;
    let period = Period::of_caller(count, unit).map_err(|_| {
        s3_refuse(
            400,
            "InvalidRetentionPeriod",
            "Default retention period must be a positive integer value, and not too large.",
        )
    })?;
    Ok(DefaultChange::Set(DefaultRetention { mode, period }))
}

pub(crate) async fn set_object_lock(mut call: Call) -> Reply {
    call.bucket()?;
    let document = call.document("ObjectLockConfiguration").await?;
    document.only(&["ObjectLockEnabled", "Rule"])?;
    if document.one("ObjectLockEnabled")?.text() != "Enabled" {
        return Err(malformed_xml().into());
    }
    let default_retention = default_retention(&document)?;
    let file_lock = BucketLockChange { enable: Some(true), default_retention };
    let wanted = BucketChange { file_lock, ..BucketChange::default() };
    change(&call, Capability::WriteBucketRetentions, wanted, StatusCode::OK).await
}

// Lifecycle.

/// The right that the caller has to look at rules or to set them: one of two will do, since keys
/// made before there was a right for rules have only that for buckets.
fn one_of(call: &Call, own: Capability, wide: Capability) -> Result<Capability, S3Error> {
    Ok(if call.caller()?.may(own) { own } else { wide })
}

pub(crate) async fn lifecycle(call: Call) -> Reply {
    let right = one_of(&call, Capability::ReadBucketLifecycleRules, Capability::ReadBuckets)?;
    let bucket = call.bucket_for(right)?;
    let settings = &bucket.settings;
    if settings.lifecycle_rules.is_empty() {
        return Err(s3_refuse(
            404,
            "NoSuchLifecycleConfiguration",
            "The lifecycle configuration does not exist.",
        )
        .into());
    }
    Ok(xml_answer(write_rules(&settings.lifecycle_rules, &settings.lifecycle_names)))
}

pub(crate) async fn set_lifecycle(mut call: Call) -> Reply {
    let right = one_of(&call, Capability::WriteBucketLifecycleRules, Capability::WriteBuckets)?;
    call.bucket_for(right)?;
    let document = call.document("LifecycleConfiguration").await?;
    let (rules, names) = read_rules(&document, call.profile())?;
    let wanted = BucketChange {
        lifecycle_rules: Some(rules),
        lifecycle_names: Some(names),
        ..BucketChange::default()
    };
    change(&call, right, wanted, StatusCode::OK).await
}

pub(crate) async fn delete_lifecycle(call: Call) -> Reply {
    let right = one_of(&call, Capability::WriteBucketLifecycleRules, Capability::WriteBuckets)?;
    let wanted = BucketChange {
        lifecycle_rules: Some(Vec::new()),
        lifecycle_names: Some(RuleNames::new()),
        ..BucketChange::default()
    };
    change(&call, right, wanted, StatusCode::NO_CONTENT).await
}

// Replication.

/// What Cloud Replication does here, as S3 shows it; it is set natively.
pub(crate) async fn replication(call: Call) -> Reply {
    let bucket = call.bucket()?;
    let Some(source) = &bucket.settings.replication.as_replication_source else {
        return Err(s3_refuse(
            404,
            "ReplicationConfigurationNotFoundError",
            "The replication configuration was not found",
        )
        .into());
    };
    let mut xml = Writer::new("ReplicationConfiguration");
    xml.text("Role", &source.source_application_key_id);
    let state = |is_on: bool| if is_on { "Enabled" } else { "Disabled" };
    for rule in &source.replication_rules {
        // Names of buckets that the caller does not reach are not told.
        let known = rule.destination().and_then(|id| {
            let caller = call.caller().ok()?;
            caller.require_bucket(Capability::ReadBucketReplications, id).ok()?;
            bucket_of_caller(call.app(), caller, id).ok()
        });
        let name = known.as_ref().map_or(&*rule.destination_bucket_id, |known| known.name.as_str());
        xml.begin("Rule");
        xml.text("ID", &rule.name);
        xml.text("Priority", &rule.priority.to_string());
        xml.text("Status", state(rule.is_enabled));
        xml.begin("Filter");
        xml.text("Prefix", &rule.file_name_prefix);
        xml.end();
        xml.begin("Destination");
        xml.text("Bucket", &format!("arn:aws:s3:::{name}"));
        xml.end();
        xml.begin("DeleteMarkerReplication");
        xml.text("Status", state(false));
        xml.end();
        xml.begin("ExistingObjectReplication");
        xml.text("Status", state(rule.include_existing_files));
        xml.end();
        xml.end();
    }
    Ok(xml_answer(xml))
}

// Logging.

pub(crate) async fn logging(call: Call) -> Reply {
    let bucket = call.bucket()?;
    let mut xml = Writer::new("BucketLoggingStatus");
    if let Some(logging) = &bucket.settings.logging {
        // A target that has been deleted since is no longer one.
        if let Ok(target) = bucket_of_caller(call.app(), call.caller()?, logging.target) {
            xml.begin("LoggingEnabled");
            xml.text("TargetBucket", target.name.as_str());
            xml.text("TargetPrefix", &logging.prefix);
            xml.begin("TargetObjectKeyFormat");
            xml.begin("SimplePrefix");
        }
    }
    Ok(xml_answer(xml))
}

pub(crate) async fn set_logging(mut call: Call) -> Reply {
    call.bucket()?;
    let document = call.document("BucketLoggingStatus").await?;
    document.only(&["LoggingEnabled"])?;
    let logging = match document.opt("LoggingEnabled")? {
        None => LoggingChange::Clear,
        Some(enabled) => {
            enabled.only(&["TargetBucket", "TargetPrefix", "TargetObjectKeyFormat"])?;
            let format = enabled.opt("TargetObjectKeyFormat")?;
            if format.is_some_and(|format| format.only(&["SimplePrefix"]).is_err()) {
                return Err(not_implemented().into());
            }
            let name = enabled.one("TargetBucket")?.text();
            let right = Capability::WriteBucketLogging;
            let target = match bucket_of_name(call.app(), call.caller()?, right, name) {
                Err(Error::Refused(_)) => Err(S3Error::from(s3_refuse(
                    400,
                    "InvalidTargetBucketForLogging",
                    "The target bucket for logging does not exist, or is not owned by you.",
                ))),
                found => found.map_err(S3Error::from),
            }?;
            let prefix = enabled.opt("TargetPrefix")?.map_or("", Element::raw_text).to_owned();
            LoggingChange::Set(Logging { target: target.id, prefix })
        }
    };
    let wanted = BucketChange { logging, ..BucketChange::default() };
    change(&call, Capability::WriteBucketLogging, wanted, StatusCode::OK).await
}
