//! `b2_get_file_info`, `b2_hide_file`, `b2_delete_file_version` and the two listings.

use serde_json::json;

use crate::api::native::{Call, Reply, reply, unwritable};
use crate::domain::refusal::Refusal;
use crate::domain::usage::Class;
use crate::operations::authorize::parse_bucket_id;
use crate::operations::files;
use crate::operations::list::{self, ListQuery};

pub(crate) async fn info(call: Call) -> Reply {
    let id = call.fields.text("fileId")?;
    let version = files::file_info(call.app(), &call.caller, id)?;
    Ok(call.reader().file(&version, false).json())
}

pub(crate) async fn hide(call: Call) -> Reply {
    let (bucket, name) = (call.fields.text("bucketId")?, call.fields.text("fileName")?);
    let marker = files::hide_file(call.app(), &call.caller, bucket, name).await?;
    Ok(call.reader().file(&marker, true).json())
}

pub(crate) async fn delete_version(call: Call) -> Reply {
    let (id, name) = (call.fields.text("fileId")?, call.fields.text("fileName")?);
    let bypass = call.fields.opt_bool("bypassGovernance")?.unwrap_or(false);
    files::delete_version(call.app(), &call.caller, name, id, bypass).await?;
    reply(&json!({"fileId": id, "fileName": name}))
}

fn query(call: &Call, with_ids: bool) -> Result<ListQuery, Refusal> {
    let fields = &call.fields;
    let owned = |name: &str| Ok::<_, Refusal>(fields.opt_text(name)?.map(str::to_owned));
    Ok(ListQuery {
        bucket: fields.text("bucketId")?.to_owned(),
        start_name: owned("startFileName")?,
        start_id: if with_ids { owned("startFileId")? } else { None },
        max_count: fields.opt_int("maxFileCount")?,
        prefix: owned("prefix")?.unwrap_or_default(),
        delimiter: owned("delimiter")?,
        as_s3: false,
    })
}

pub(crate) async fn list_names(call: Call) -> Reply {
    let query = query(&call, false)?;
    let bucket = query.bucket.clone();
    let page = list::list_names(call.app(), &call.caller, query).await?;
    call.count_entries(Class::C, page.entries.len());
    let bucket = parse_bucket_id(&bucket)?;
    Ok(call.reader().page(&page, bucket, false).map_err(unwritable)?)
}

pub(crate) async fn list_versions(call: Call) -> Reply {
    let query = query(&call, true)?;
    let bucket = query.bucket.clone();
    let page = list::list_versions(call.app(), &call.caller, query).await?;
    call.count_entries(Class::C, page.entries.len());
    let bucket = parse_bucket_id(&bucket)?;
    Ok(call.reader().page(&page, bucket, true).map_err(unwritable)?)
}
