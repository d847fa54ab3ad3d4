//! The shapes of answers. Members are in alphabetical order, as on Backblaze's wire.
//!
//! Source: b2-native-api.md section 6; where clients need an odd member, it says which.

use serde::Serialize;

use crate::api::native::object_text::ObjectText;
use crate::auth::caller::Caller;
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::cors::CorsRule;
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::encryption::{ALGORITHM, Encryption};
use crate::domain::file::{Action, ContentSha1, FileVersion};
use crate::domain::ids::{AccountId, BucketId, FileId};
use crate::domain::key::{Key, Secret};
use crate::domain::large_file::Part;
use crate::domain::lifecycle::LifecycleRule;
use crate::domain::lock::{BucketLock, Period, Retention};
use crate::domain::replication::{ReplicationConfiguration, ReplicationStatus};
use crate::domain::time::Millis;
use crate::operations::list::{Entry, Page};

/// The version in the path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u8);

/// A value that only some callers may see.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Guarded<T> {
    is_client_authorized_to_read: bool,
    value: Option<T>,
}

impl<T> Guarded<T> {
    fn shown_if(may: bool, value: Option<T>) -> Self {
        Self { is_client_authorized_to_read: may, value: value.filter(|_| may) }
    }
}

/// Retention of a file. Without one b2sdk needs the object with its nulls, not null.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetentionJson {
    mode: Option<&'static str>,
    retain_until_timestamp: Option<i64>,
}

impl RetentionJson {
    pub(crate) fn of(retention: Option<Retention>) -> Self {
        Self {
            mode: retention.map(|retention| retention.mode.as_str()),
            retain_until_timestamp: retention.map(|retention| retention.until.0),
        }
    }
}

/// A legal hold in answers.
pub(crate) fn legal_hold(hold: bool) -> &'static str {
    if hold { "on" } else { "off" }
}

/// Encryption of a file, a part or a bucket's new files; both null where there is none.
#[derive(Serialize)]
pub(crate) struct EncryptionJson {
    algorithm: Option<&'static str>,
    mode: Option<&'static str>,
}

impl EncryptionJson {
    pub(crate) fn of(encryption: &Encryption) -> Self {
        let mode = encryption.mode();
        Self { algorithm: mode.map(|_| ALGORITHM), mode }
    }
}

/// One file version. Hide markers leave out the three members about locks and encryption.
pub(crate) struct FileJson<'a> {
    account_id: AccountId,
    action: &'static str,
    file: &'a FileVersion,
    may_read_retention: bool,
    may_read_legal_hold: bool,
    /// Only in the answer that began a large file with a customer's key.
    customer_key_md5: Option<String>,
    /// Only in listings and hides of version 1: rclone reads no other length there.
    has_size: bool,
}

impl FileJson<'_> {
    /// The answer that shows this version and nothing else.
    pub(crate) fn json(&self) -> Vec<u8> {
        let mut text = String::with_capacity(FILE_TEXT_BYTES);
        self.write(&mut text);
        text.into_bytes()
    }

    fn write(&self, text: &mut String) {
        let file = self.file;
        let mut object = ObjectText::begin(text);
        self.account_id.with_digits(|digits| object.plain("accountId", digits));
        object.plain("action", self.action);
        file.bucket.with_digits(|digits| object.plain("bucketId", digits));
        object.number("contentLength", file.size);
        match file.md5 {
            Some(md5) => md5.with_digits(|digits| object.plain("contentMd5", digits)),
            None => object.json("contentMd5", "null"),
        }
        match file.sha1 {
            ContentSha1::Verified(sha1) => {
                sha1.with_digits(|digits| object.plain("contentSha1", digits));
            }
            other => object.plain("contentSha1", &other.to_string()),
        }
        object.text("contentType", &file.content_type);
        object.plain_by("fileId", |text| file.id().push_to(text));
        object.json("fileInfo", file.info.as_json());
        object.text("fileName", file.name.as_str());
        if file.action != Action::Hide {
            object.object("fileRetention", |guarded| self.write_retention(guarded));
            object.object("legalHold", |guarded| {
                guarded.json("isClientAuthorizedToRead", flag(self.may_read_legal_hold));
                let hold = file.lock.legal_hold.filter(|_| self.may_read_legal_hold);
                guarded.opt_plain("value", hold.map(legal_hold));
            });
        }
        // Lower case; clients that want another case change it themselves.
        object.opt_plain("replicationStatus", file.replication.map(ReplicationStatus::as_str));
        if file.action != Action::Hide {
            let EncryptionJson { algorithm, mode } = EncryptionJson::of(&file.encryption);
            object.object("serverSideEncryption", |encryption| {
                encryption.opt_plain("algorithm", algorithm);
                if let Some(md5) = &self.customer_key_md5 {
                    encryption.plain("customerKeyMd5", md5);
                }
                encryption.opt_plain("mode", mode);
            });
        }
        if self.has_size {
            object.number("size", file.size);
        }
        object.time("uploadTimestamp", file.upload_at);
        object.end();
    }

    fn write_retention(&self, guarded: &mut ObjectText<'_>) {
        guarded.json("isClientAuthorizedToRead", flag(self.may_read_retention));
        if !self.may_read_retention {
            guarded.json("value", "null");
            return;
        }
        let RetentionJson { mode, retain_until_timestamp } =
            RetentionJson::of(self.file.lock.retention);
        guarded.object("value", |value| {
            value.opt_plain("mode", mode);
            value.opt_time("retainUntilTimestamp", retain_until_timestamp.map(Millis));
        });
    }
}

fn flag(is_set: bool) -> &'static str {
    if is_set { "true" } else { "false" }
}

/// Room for most file versions.
const FILE_TEXT_BYTES: usize = 640;

/// A name that stands for all names below it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FolderJson<'a> {
    account_id: AccountId,
    action: &'static str,
    bucket_id: BucketId,
    content_length: u64,
    content_md5: Option<&'static str>,
    content_sha1: Option<&'static str>,
    content_type: Option<&'static str>,
    file_id: Option<&'static str>,
    file_info: NoEntries,
    file_name: &'a str,
    replication_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    upload_timestamp: i64,
}

#[derive(Serialize)]
struct NoEntries {}

/// Who will read an answer.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'c> {
    pub(crate) caller: &'c Caller,
    pub(crate) version: ApiVersion,
}

impl Reader<'_> {
    /// A version as listings and hides show it, or as all other answers do.
    pub(crate) fn file(self, file: &FileVersion, listed: bool) -> FileJson<'_> {
        FileJson {
            account_id: self.caller.account(),
            action: file.action.as_str(),
            file,
            may_read_retention: self.caller.may(Capability::ReadFileRetentions),
            may_read_legal_hold: self.caller.may(Capability::ReadFileLegalHolds),
            customer_key_md5: None,
            has_size: listed && self.version.0 == 1,
        }
    }

    /// A large file that was begun, with the MD5 of the customer's key it is encrypted with.
    pub(crate) fn started(
        self,
        file: &FileVersion,
        customer_key_md5: Option<String>,
    ) -> FileJson<'_> {
        FileJson { customer_key_md5, ..self.file(file, false) }
    }

    /// The version that a copy made, as the answer to the copy shows it.
    pub(crate) fn copied(self, file: &FileVersion) -> FileJson<'_> {
        FileJson { action: "copy", ..self.file(file, false) }
    }

    fn folder(self, bucket: BucketId, name: &str) -> FolderJson<'_> {
        FolderJson {
            account_id: self.caller.account(),
            action: "folder",
            bucket_id: bucket,
            content_length: 0,
            content_md5: None,
            content_sha1: None,
            content_type: None,
            file_id: None,
            file_info: NoEntries {},
            file_name: name,
            replication_status: None,
            size: (self.version.0 == 1).then_some(0),
            upload_timestamp: 0,
        }
    }

    /// A page of a listing, written straight into its text: pages are long.
    pub(crate) fn page(
        self,
        page: &Page,
        bucket: BucketId,
        with_ids: bool,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = String::with_capacity(64 + page.entries.len() * FILE_TEXT_BYTES);
        text.push_str("{\"files\":[");
        for (at, entry) in page.entries.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            match entry {
                Entry::File(file) => self.file(file, true).write(&mut text),
                Entry::Folder(name) => {
                    text.push_str(&serde_json::to_string(&self.folder(bucket, name))?);
                }
            }
        }
        text.push(']');
        if with_ids {
            text.push_str(",\"nextFileId\":");
            text.push_str(&serde_json::to_string(&page.next_id)?);
        }
        text.push_str(",\"nextFileName\":");
        text.push_str(&serde_json::to_string(&page.next_name)?);
        text.push('}');
        Ok(text.into_bytes())
    }

    pub(crate) fn bucket(self, bucket: &Bucket) -> BucketJson<'_> {
        let may = |capability| self.caller.may(capability);
        let settings = &bucket.settings;
        let replication = Some(&settings.replication).filter(|both| !both.is_empty());
        BucketJson {
            account_id: bucket.account,
            bucket_id: bucket.id,
            bucket_info: &settings.bucket_info,
            bucket_name: bucket.name.as_str(),
            bucket_type: bucket.kind.as_str(),
            cors_rules: &settings.cors_rules,
            default_server_side_encryption: Guarded::shown_if(
                may(Capability::ReadBucketEncryption),
                Some(EncryptionJson::of(&settings.encryption.into())),
            ),
            file_lock_configuration: Guarded::shown_if(
                may(Capability::ReadBucketRetentions),
                Some(BucketLockJson::of(settings.file_lock)),
            ),
            lifecycle_rules: &settings.lifecycle_rules,
            options: ["s3"],
            replication_configuration: Guarded::shown_if(
                may(Capability::ReadBucketReplications),
                replication,
            ),
            revision: bucket.revision,
        }
    }
}

/// A part of a large file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartJson {
    content_length: u64,
    content_md5: Md5Digest,
    /// Computed here, whether the uploader said it or not: clients name it when they finish.
    content_sha1: Option<Sha1Digest>,
    file_id: FileId,
    part_number: i64,
    server_side_encryption: EncryptionJson,
    upload_timestamp: i64,
}

/// A part, encrypted like the file it belongs to.
pub(crate) fn part_json(file: &FileVersion, part: &Part) -> PartJson {
    PartJson {
        content_length: part.size,
        content_md5: part.md5,
        content_sha1: part.sha1.digest(),
        file_id: file.id(),
        part_number: part.number.get(),
        server_side_encryption: EncryptionJson::of(&file.encryption),
        upload_timestamp: part.uploaded_at.0,
    }
}

/// Default retention of a bucket. Without one b2sdk needs the object with its nulls, not null.
#[derive(Serialize)]
struct DefaultRetentionJson {
    mode: Option<&'static str>,
    period: Option<Period>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketLockJson {
    default_retention: DefaultRetentionJson,
    is_file_lock_enabled: bool,
}

impl BucketLockJson {
    fn of(lock: BucketLock) -> Self {
        let default = lock.default_retention;
        Self {
            default_retention: DefaultRetentionJson {
                mode: default.map(|default| default.mode.as_str()),
                period: default.map(|default| default.period),
            },
            is_file_lock_enabled: lock.is_file_lock_enabled,
        }
    }
}

/// A bucket. Every member is there in every version: b2sdk reads them all.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BucketJson<'a> {
    account_id: AccountId,
    bucket_id: BucketId,
    bucket_info: &'a std::collections::BTreeMap<String, String>,
    bucket_name: &'a str,
    bucket_type: &'static str,
    cors_rules: &'a [CorsRule],
    default_server_side_encryption: Guarded<EncryptionJson>,
    file_lock_configuration: Guarded<BucketLockJson>,
    lifecycle_rules: &'a [LifecycleRule],
    options: [&'static str; 1],
    replication_configuration: Guarded<&'a ReplicationConfiguration>,
    revision: i64,
}

/// The restriction of a key, null when there is none.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum KeyBuckets<'a> {
    BeforeVersion4 { bucket_id: Option<BucketId> },
    FromVersion4 { bucket_ids: Option<&'a [BucketId]> },
}

/// An application key; the secret is there only in the answer that made it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyJson<'a> {
    account_id: AccountId,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_key: Option<&'a str>,
    application_key_id: &'a str,
    #[serde(flatten)]
    buckets: KeyBuckets<'a>,
    capabilities: Vec<&'static str>,
    expiration_timestamp: Option<i64>,
    key_name: &'a str,
    name_prefix: Option<&'a str>,
    options: [&'static str; 1],
}

impl ApiVersion {
    pub(crate) fn key<'a>(self, key: &'a Key, secret: Option<&'a Secret>) -> KeyJson<'a> {
        let buckets = key.buckets.as_deref();
        KeyJson {
            account_id: key.account,
            application_key: secret.map(Secret::expose),
            application_key_id: key.id.as_str(),
            buckets: if self.0 < 4 {
                let single = buckets.and_then(|ids| ids.first()).copied();
                KeyBuckets::BeforeVersion4 { bucket_id: single }
            } else {
                KeyBuckets::FromVersion4 { bucket_ids: buckets }
            },
            capabilities: key.capabilities.names(),
            expiration_timestamp: key.expires_at.map(|end| end.0),
            key_name: &key.name,
            name_prefix: key.name_prefix.as_deref(),
            options: ["s3"],
        }
    }
}
