//! `b2_get_bucket_notification_rules`, `b2_set_bucket_notification_rules`.
//!
//! Source: b2-native-api.md section 18. `isSuspended` and `suspensionReason` are ignored: clients
//! send back what they read. Unknown members are refused: a secret under a misspelt name would
//! leave notifications without their signature.

use serde::Serialize;
use serde_json::Value;

use crate::api::native::fields::Members;
use crate::api::native::{Call, Reply, reply};
use crate::domain::event::{EventPattern, Target, WantedRule};
use crate::domain::ids::BucketId;
use crate::domain::key::Secret;
use crate::domain::refusal::{Refusal, wrong_type};
use crate::operations::notifications::{self, ShownRule};

const FIELD: &str = "eventNotificationRules";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RulesJson<'a> {
    bucket_id: BucketId,
    event_notification_rules: Vec<RuleJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleJson<'a> {
    event_types: Vec<&'static str>,
    is_enabled: bool,
    is_suspended: bool,
    /// Shown where it was given; b2sdk's own tests compare the rule with what they sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_events_per_batch: Option<i64>,
    name: &'a str,
    object_name_prefix: &'a str,
    suspension_reason: &'a str,
    target_configuration: TargetJson<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetJson<'a> {
    custom_headers: Option<Vec<HeaderJson<'a>>>,
    hmac_sha256_signing_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_events_per_batch: Option<i64>,
    target_type: &'static str,
    url: &'a str,
}

#[derive(Serialize)]
struct HeaderJson<'a> {
    name: &'a str,
    value: &'a str,
}

fn shown((bucket_id, rules): &(BucketId, Vec<ShownRule>)) -> Reply {
    let event_notification_rules = rules.iter().map(rule_json).collect();
    reply(&RulesJson { bucket_id: *bucket_id, event_notification_rules })
}

fn rule_json(ShownRule { rule, target, suspension_reason }: &ShownRule) -> RuleJson<'_> {
    RuleJson {
        event_types: rule.event_types.iter().map(|&one| EventPattern::as_str(one)).collect(),
        is_enabled: rule.is_enabled,
        is_suspended: !suspension_reason.is_empty(),
        max_events_per_batch: rule.batch_max_of_rule,
        name: &rule.name,
        object_name_prefix: &rule.object_name_prefix,
        suspension_reason,
        target_configuration: TargetJson {
            custom_headers: target.custom_headers.as_ref().map(|headers| {
                headers.iter().map(|(name, value)| HeaderJson { name, value }).collect()
            }),
            hmac_sha256_signing_secret: target.signing_secret.as_ref().map(Secret::expose),
            max_events_per_batch: rule.batch_max_of_target,
            target_type: "webhook",
            url: &target.url,
        },
    }
}

pub(crate) async fn rules(call: Call) -> Reply {
    let id = call.fields.text("bucketId")?;
    shown(&notifications::bucket_rules(call.app(), &call.caller, id)?)
}

pub(crate) async fn set_rules(call: Call) -> Reply {
    let id = call.fields.text("bucketId")?;
    let wanted = call.fields.list(FIELD, rule)?;
    shown(&notifications::set_bucket_rules(call.app(), &call.caller, id, wanted).await?)
}

fn opt_int(members: &Members<'_>, name: &str) -> Result<Option<i64>, Refusal> {
    let read = |value: &Value| value.as_i64().ok_or_else(|| wrong_type(name, "an integer"));
    members.opt(name).map(read).transpose()
}

fn rule(value: &Value) -> Result<WantedRule, Refusal> {
    let known = [
        "eventTypes",
        "isEnabled",
        "isSuspended",
        "maxEventsPerBatch",
        "name",
        "objectNamePrefix",
        "suspensionReason",
        "targetConfiguration",
    ];
    let rule = Members::only("eventNotificationRule", value, &known)?;
    let known =
        ["customHeaders", "hmacSha256SigningSecret", "maxEventsPerBatch", "targetType", "url"];
    let target = rule.members("targetConfiguration", &known)?;
    let secret = "hmacSha256SigningSecret";
    let signing_secret = target
        .opt(secret)
        .map(|value| value.as_str().ok_or_else(|| wrong_type(secret, "a string")))
        .transpose()?
        .map(|text| Secret::new(text.to_owned()));
    Ok(WantedRule {
        name: rule.text("name")?,
        event_types: rule.texts("eventTypes")?,
        is_enabled: rule.flag("isEnabled")?,
        object_name_prefix: rule.text("objectNamePrefix")?,
        batch_max_of_rule: opt_int(&rule, "maxEventsPerBatch")?,
        batch_max_of_target: opt_int(&target, "maxEventsPerBatch")?,
        target_type: target.text("targetType")?,
        target: Target {
            url: target.text("url")?,
            custom_headers: target.opt("customHeaders").map(headers).transpose()?,
            signing_secret,
        },
    })
}

/// A list of names and values, or the object that the b2 command line sends in its place.
fn headers(value: &Value) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = || wrong_type("customHeaders", "an array of objects with name and value");
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let header = Members::only("customHeader", item, &["name", "value"])?;
                Ok((header.text("name")?, header.text("value")?))
            })
            .collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned())))
            .collect(),
        _ => Err(wrong()),
    }
}
