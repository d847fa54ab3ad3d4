//! `b2_create_key`, `b2_list_keys`, `b2_delete_key`.

use serde_json::json;

use crate::api::native::{Call, Reply, reply};
use crate::domain::refusal::bad_request;
use crate::domain::usage::Class;
use crate::operations::keys::{self, NewKey};

pub(crate) async fn create(call: Call) -> Reply {
    let fields = &call.fields;
    let capabilities = fields.texts("capabilities")?;
    let name = fields.text("keyName")?.to_owned();
    let one = fields.opt_text("bucketId")?.map(|id| vec![id.to_owned()]);
    let several = fields.opt_texts("bucketIds")?;
    if call.version.0 < 4 && several.is_some() {
        return Err(bad_request("bucketIds needs version 4 of the API, use bucketId").into());
    }
    if one.is_some() && several.is_some() {
        return Err(bad_request("bucketId and bucketIds cannot be combined").into());
    }
    let wanted = NewKey {
        name,
        capabilities,
        buckets: one.or(several),
        name_prefix: fields.opt_text("namePrefix")?.map(str::to_owned),
        duration_s: fields.opt_int("validDurationInSeconds")?,
        version: call.version.0,
    };
    call.check_account()?;
    let (key, secret) = keys::create_key(call.app(), &call.caller, wanted).await?;
    reply(&call.version.key(&key, Some(&secret)))
}

pub(crate) async fn list(call: Call) -> Reply {
    let from = call.fields.opt_text("startApplicationKeyId")?.unwrap_or_default();
    let limit = call.fields.opt_int("maxKeyCount")?;
    call.check_account()?;
    let page = keys::list_keys(call.app(), &call.caller, from, limit, call.version.0)?;
    call.count_entries(Class::C, page.keys.len());
    let shown: Vec<_> = page.keys.iter().map(|key| call.version.key(key, None)).collect();
    reply(&json!({"keys": shown, "nextApplicationKeyId": page.next}))
}

pub(crate) async fn delete(call: Call) -> Reply {
    let id = call.fields.text("applicationKeyId")?;
    let key = keys::delete_key(call.app(), &call.caller, id, call.version.0).await?;
    reply(&call.version.key(&key, None))
}
