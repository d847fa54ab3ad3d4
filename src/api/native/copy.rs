//! `b2_copy_file` and `b2_copy_part`.

use crate::api::native::wire::part_json;
use crate::api::native::{Call, Reply, encryption, locks, reply};
use crate::domain::content_type;
use crate::domain::file::FileInfo;
use crate::domain::large_file::PartNumber;
use crate::domain::names::FileName;
use crate::domain::refusal::{Refusal, bad_request, missing_field, shorten};
use crate::operations::copy::{self, Metadata, NewCopy, Source};

const DESTINATION: &str = "destinationServerSideEncryption";

fn source(call: &Call) -> Result<Source, Refusal> {
    Ok(Source {
        file_id: call.fields.text("sourceFileId")?.to_owned(),
        range: call.fields.opt_text("range")?.map(str::to_owned),
        key: encryption::key_of_source(&call.fields)?,
    })
}

fn metadata(call: &Call, name: &FileName) -> Result<Metadata, Refusal> {
    let fields = &call.fields;
    let content_type = fields.opt_text("contentType")?;
    let info = fields.opt_text_map("fileInfo")?;
    match fields.opt_text("metadataDirective")?.unwrap_or("COPY") {
        "COPY" if content_type.is_some() || info.is_some() => {
            Err(bad_request("contentType and fileInfo go with metadataDirective REPLACE only"))
        }
        "COPY" => Ok(Metadata::Copy),
        "REPLACE" => {
            let given = content_type.ok_or_else(|| missing_field("contentType"))?;
            Ok(Metadata::Replace {
                content_type: content_type::resolve("contentType", given, name.as_str())?,
                info: FileInfo::from_entries(info.unwrap_or_default(), name)?,
            })
        }
        other => Err(bad_request(format!("Bad metadataDirective: {}", shorten(other)))),
    }
}

pub(crate) async fn copy_file(call: Call) -> Reply {
    let name = FileName::parse(call.fields.text("fileName")?)?;
    let wanted = NewCopy {
        source: source(&call)?,
        bucket: call.fields.opt_text("destinationBucketId")?.map(str::to_owned),
        metadata: metadata(&call, &name)?,
        lock: locks::of_fields(&call.fields)?,
        encryption: encryption::asked_in(&call.fields, DESTINATION)?,
        name,
    };
    let file = copy::copy_file(call.app(), &call.caller, wanted).await?;
    Ok(call.reader().copied(&file).json())
}

pub(crate) async fn copy_part(call: Call) -> Reply {
    let large_file = call.fields.text("largeFileId")?;
    let number = PartNumber::of_caller(call.fields.int("partNumber")?)?;
    let asked = encryption::asked_in(&call.fields, DESTINATION)?;
    let source = source(&call)?;
    let (file, part) =
        copy::copy_part(call.app(), &call.caller, source, large_file, number, asked).await?;
    reply(&part_json(&file, &part))
}
