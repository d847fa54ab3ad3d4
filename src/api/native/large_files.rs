//! The operations on large files, and the addresses their parts are sent to.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::api::Http;
use crate::api::body::{Incoming, with_idle_limit};
use crate::api::native::upload::{announced, missing_header};
use crate::api::native::wire::part_json;
use crate::api::native::{
    Call, Reply, authorization, encryption, json_answer, locks, reply, unwritable,
};
use crate::domain::content_type;
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::FileInfo;
use crate::domain::large_file::PartNumber;
use crate::domain::names::FileName;
use crate::domain::refusal::{bad_auth_token, bad_request};
use crate::domain::usage::Class;
use crate::operations::authorize::parse_bucket_id;
use crate::operations::error::Error;
use crate::operations::large_files::{
    self, NamedParts, NewLargeFile, UnfinishedQuery, part_ticket,
};
use crate::operations::usage::admit_transactions;

pub(crate) async fn start(call: Call) -> Reply {
    let fields = &call.fields;
    let bucket = fields.text("bucketId")?.to_owned();
    let name = FileName::parse(fields.text("fileName")?)?;
    let content_type =
        content_type::resolve("contentType", fields.text("contentType")?, name.as_str())?;
    let info = fields.opt_text_map("fileInfo")?.unwrap_or_default();
    let info = FileInfo::from_entries(info, &name)?;
    // b2sdk spells it with underscores.
    let custom_time = match fields.opt_number_text("customUploadTimestamp")? {
        None => fields.opt_number_text("custom_upload_timestamp")?,
        given => given,
    };
    let encryption = encryption::asked_in(fields, "serverSideEncryption")?;
    let key_md5 = match &encryption {
        AskedEncryption::Customer(key) => Some(key.md5()),
        AskedEncryption::Default | AskedEncryption::Managed => None,
    };
    let lock = locks::of_fields(fields)?;
    let wanted = NewLargeFile {
        bucket,
        name,
        content_type,
        info,
        encryption,
        custom_time,
        lock,
        checksum: None,
        replica: call.replica.clone(),
    };
    let started = large_files::start(call.app(), &call.caller, wanted).await?;
    Ok(call.reader().started(&started, key_md5).json())
}

pub(crate) async fn upload_url(call: Call) -> Reply {
    let pair = large_files::part_pair(call.app(), &call.caller, call.fields.text("fileId")?)?;
    let url = format!(
        "{}/b2api/v{}/b2_upload_part/{}/{}",
        call.base_url, call.version.0, pair.file, pair.mark
    );
    reply(&json!({"authorizationToken": pair.token, "fileId": pair.file, "uploadUrl": url}))
}

pub(crate) async fn upload_part(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    rest: &str,
) -> Result<HttpResponse, Error> {
    let (file, mark) = rest.split_once('/').unwrap_or((rest, ""));
    let token = authorization(request)?.ok_or_else(bad_auth_token)?;
    let ticket = part_ticket(&http.app, token, file, mark)?;
    let headers = request.headers();
    let number =
        headers.get("X-Bz-Part-Number").ok_or_else(|| missing_header("X-Bz-Part-Number"))?;
    let number = number.to_str().ok().and_then(|digits| digits.parse().ok());
    let number = PartNumber::of_caller(number.ok_or_else(|| bad_request("Bad X-Bz-Part-Number"))?)?;
    let (announced, asked) = (announced(headers)?, encryption::asked(headers)?);
    admit_transactions(&http.app, ticket.account(), Class::A, 1)?;
    let body = with_idle_limit(payload, http);
    let sent = large_files::upload_part(&http.app, ticket, number, announced, asked, body);
    let (file, part) = sent.await?;
    reply(&part_json(&file, &part)).map(json_answer)
}

pub(crate) async fn list_parts(call: Call) -> Reply {
    let fields = &call.fields;
    let page = large_files::list_parts(
        call.app(),
        &call.caller,
        fields.text("fileId")?,
        fields.opt_int("startPartNumber")?,
        fields.opt_int("maxPartCount")?,
    )?;
    let parts: Vec<_> = page.parts.iter().map(|part| part_json(&page.file, part)).collect();
    reply(&json!({"nextPartNumber": page.next, "parts": parts}))
}

pub(crate) async fn list_unfinished(call: Call) -> Reply {
    let fields = &call.fields;
    let query = UnfinishedQuery {
        bucket: fields.text("bucketId")?.to_owned(),
        prefix: fields.opt_text("namePrefix")?.unwrap_or_default().to_owned(),
        start_id: fields.opt_text("startFileId")?.map(str::to_owned),
        max_count: fields.opt_int("maxFileCount")?,
    };
    let bucket = query.bucket.clone();
    let page = large_files::list_unfinished(call.app(), &call.caller, query).await?;
    let bucket = parse_bucket_id(&bucket)?;
    Ok(call.reader().page(&page, bucket, true).map_err(unwritable)?)
}

pub(crate) async fn finish(call: Call) -> Reply {
    let id = call.fields.text("fileId")?;
    let sha1s = call.fields.texts("partSha1Array")?;
    let (app, named) = (call.app(), NamedParts::Sha1s(sha1s));
    let file = match &call.replica {
        None => large_files::finish(app, &call.caller, id, named).await?,
        Some(mark) => {
            large_files::finish_replica(app, &call.caller, id, named, mark.clone()).await?
        }
    };
    Ok(call.reader().file(&file, false).json())
}

pub(crate) async fn cancel(call: Call) -> Reply {
    let id = call.fields.text("fileId")?;
    let file = large_files::cancel(call.app(), &call.caller, id).await?;
    reply(&json!({
        "accountId": call.caller.account(),
        "bucketId": file.bucket,
        "fileId": file.id(),
        "fileName": file.name.as_str(),
    }))
}
