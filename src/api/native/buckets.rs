//! `b2_create_bucket`, `b2_update_bucket`, `b2_list_buckets`, `b2_delete_bucket`.

use serde_json::{Value, json};

use crate::api::native::fields::Fields;
use crate::api::native::{Call, Reply, cors, lifecycle, locks, replication, reply};
use crate::domain::refusal::{Refusal, bad_request};
use crate::operations::buckets::{
    self, BucketChange, BucketFilter, LaterFeature, LaterFeatures, NewBucket,
};

/// Which features of later versions a request asks for. Forms that mean "none" are no request:
/// older SDKs send them always.
fn later_features(fields: &Fields) -> Result<LaterFeatures, Refusal> {
    let asked = [(has_mode(fields, "defaultServerSideEncryption")?, LaterFeature::Encryption)];
    let asked = asked.into_iter().filter(|(asked, _)| *asked);
    Ok(LaterFeatures(asked.map(|(_, feature)| feature).collect()))
}

fn has_mode(fields: &Fields, name: &str) -> Result<bool, Refusal> {
    match fields.opt_structure(name)? {
        None => Ok(false),
        Some(Value::Object(members)) => Ok(match members.get("mode") {
            None | Some(Value::Null) => false,
            Some(Value::String(mode)) => !mode.eq_ignore_ascii_case("none"),
            Some(_) => return Err(bad_request(format!("{name}.mode must be a string"))),
        }),
        Some(_) => Err(bad_request(format!("field {name} must be an object"))),
    }
}

pub(crate) async fn create(call: Call) -> Reply {
    let fields = &call.fields;
    let wanted = NewBucket {
        name: fields.text("bucketName")?.to_owned(),
        kind: fields.text("bucketType")?.to_owned(),
        info: fields.opt_text_map("bucketInfo")?.unwrap_or_default(),
        cors_rules: cors::parse(fields)?.unwrap_or_default(),
        lifecycle_rules: lifecycle::parse(fields)?.unwrap_or_default(),
        file_lock: locks::bucket_change(fields)?,
        replication: replication::parse(fields, fields.asks_for("replicationConfiguration")?)?,
        later: later_features(fields)?,
    };
    call.check_account()?;
    let bucket = buckets::create_bucket(call.app(), &call.caller, wanted).await?;
    reply(&call.reader().bucket(&bucket))
}

pub(crate) async fn update(call: Call) -> Reply {
    let fields = &call.fields;
    let id = fields.text("bucketId")?;
    let change = BucketChange {
        kind: fields.opt_text("bucketType")?.map(str::to_owned),
        info: fields.opt_text_map("bucketInfo")?,
        cors_rules: cors::parse(fields)?,
        lifecycle_rules: lifecycle::parse(fields)?,
        file_lock: locks::bucket_change(fields)?,
        replication: replication::parse(fields, fields.has("replicationConfiguration"))?,
        if_revision_is: fields.opt_int("ifRevisionIs")?,
        later: later_features(fields)?,
    };
    call.check_account()?;
    let bucket = buckets::update_bucket(call.app(), &call.caller, id, change).await?;
    reply(&call.reader().bucket(&bucket))
}

pub(crate) async fn delete(call: Call) -> Reply {
    let id = call.fields.text("bucketId")?;
    call.check_account()?;
    let bucket = buckets::delete_bucket(call.app(), &call.caller, id).await?;
    reply(&call.reader().bucket(&bucket))
}

pub(crate) async fn list(call: Call) -> Reply {
    let fields = &call.fields;
    let filter = BucketFilter {
        id: fields.opt_text("bucketId")?.map(str::to_owned),
        name: fields.opt_text("bucketName")?.map(str::to_owned),
        types: fields.opt_texts("bucketTypes")?,
    };
    call.check_account()?;
    let listed = buckets::list_buckets(call.app(), &call.caller, &filter, call.version.0)?;
    let shown: Vec<_> = listed.iter().map(|bucket| call.reader().bucket(bucket)).collect();
    reply(&json!({"buckets": shown}))
}
