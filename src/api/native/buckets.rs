//! `b2_create_bucket`, `b2_update_bucket`, `b2_list_buckets`, `b2_delete_bucket`.

use serde_json::json;

use crate::api::native::{Call, Reply, cors, encryption, lifecycle, locks, replication, reply};
use crate::operations::buckets::{self, BucketChange, BucketFilter, LoggingChange, NewBucket};

pub(crate) async fn create(call: Call) -> Reply {
    let fields = &call.fields;
    let wanted = NewBucket {
        name: fields.text("bucketName")?.to_owned(),
        kind: fields.text("bucketType")?.to_owned(),
        info: fields.opt_text_map("bucketInfo")?.unwrap_or_default(),
        cors_rules: cors::parse(fields)?.unwrap_or_default(),
        lifecycle_rules: lifecycle::parse(fields)?.unwrap_or_default(),
        file_lock: locks::bucket_change(fields)?,
        encryption: encryption::default_in(fields)?,
        replication: replication::parse(fields, fields.asks_for("replicationConfiguration")?)?,
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
        encryption: encryption::default_in(fields)?,
        replication: replication::parse(fields, fields.has("replicationConfiguration"))?,
        lifecycle_names: None,
        cors_names: None,
        logging: LoggingChange::Keep,
        if_revision_is: fields.opt_int("ifRevisionIs")?,
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
