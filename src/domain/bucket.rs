//! Buckets and their settings.

use std::collections::BTreeMap;

use crate::domain::cors::CorsRule;
use crate::domain::encryption::DefaultEncryption;
use crate::domain::event::QueuedRule;
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::lifecycle::LifecycleRule;
use crate::domain::lock::BucketLock;
use crate::domain::names::BucketName;
use crate::domain::refusal::{Refusal, bad_request, shorten};
use crate::domain::replication::ReplicationConfiguration;
use crate::domain::time::Millis;

/// Who may download without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketType {
    AllPrivate,
    AllPublic,
}

impl BucketType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AllPrivate => "allPrivate",
            Self::AllPublic => "allPublic",
        }
    }

    /// The types a client may give a bucket; Backblaze's other types are never made by a call.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "allPrivate" => Ok(Self::AllPrivate),
            "allPublic" => Ok(Self::AllPublic),
            other => Err(bad_request(format!("Invalid bucketType: {}", shorten(other)))),
        }
    }
}

/// Row number of a bucket: short, so that the many rows of files stay small. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BucketNumber(pub(crate) i64);

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) number: BucketNumber,
    pub(crate) id: BucketId,
    pub(crate) account: AccountId,
    pub(crate) name: BucketName,
    pub(crate) kind: BucketType,
    /// 2 for a new bucket, as on the wire; one more for each accepted update.
    pub(crate) revision: i64,
    pub(crate) created_at: Millis,
    pub(crate) settings: BucketSettings,
}

/// The first revision of a bucket that Backblaze shows.
pub(crate) const FIRST_REVISION: i64 = 2;

/// Everything about a bucket that calls set as a whole. Its serde form is what the catalog stores.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BucketSettings {
    pub(crate) bucket_info: BTreeMap<String, String>,
    pub(crate) cors_rules: Vec<CorsRule>,
    pub(crate) file_lock: BucketLock,
    pub(crate) lifecycle_rules: Vec<LifecycleRule>,
    pub(crate) replication: ReplicationConfiguration,
    /// Of new files that ask for nothing themselves.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) encryption: DefaultEncryption,
    /// Event notification rules in the order of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notifications: Vec<QueuedRule>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) lifecycle_names: RuleNames,
    /// What S3 clients called CORS rules whose names cannot be those of B2, by their names here.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cors_names: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) logging: Option<Logging>,
}

/// The names that S3 clients gave to lifecycle rules, by the prefix of the rule: B2's rules have
/// none.
pub(crate) type RuleNames = BTreeMap<String, BTreeMap<String, String>>;

/// Where access logs are to go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Logging {
    pub(crate) target: BucketId,
    pub(crate) prefix: String,
}

/// What says nothing is not stored, so that the stored form does not grow with every feature.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Checks bucket info: at most 10 entries, names like those of file info, 10,000 bytes in all.
pub(crate) fn check_bucket_info(info: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if info.len() > 10 {
        return Err(bad_request("bucketInfo must have no more than 10 entries"));
    }
    for name in info.keys() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.`~!#$%^&*'|+".contains(&b);
        if name.is_empty() || name.len() > 50 || !name.bytes().all(token) {
            return Err(bad_request(format!("Bad bucketInfo name: '{}'", shorten(name))));
        }
        if name.to_ascii_lowercase().starts_with("b2-") {
            return Err(bad_request(format!(
                "bucketInfo names starting with 'b2-' are reserved: {name}"
            )));
        }
    }
    if info.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > 10_000 {
        return Err(bad_request("bucketInfo must be no more than 10000 bytes"));
    }
    match info.iter().find(|(name, _)| name.eq_ignore_ascii_case("cache-control")) {
        Some((_, value)) => crate::domain::file::check_header_value("Cache-Control", value),
        None => Ok(()),
    }
}

impl BucketSettings {
    /// The `Cache-Control` that downloads get when the file has none of its own.
    pub(crate) fn cache_control(&self) -> Option<&str> {
        self.bucket_info
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("cache-control"))
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_110_111_bucket_info_limits() {
        let entry = |name: &str| (name.to_owned(), "v".to_owned());
        let ten: BTreeMap<_, _> = (0..10).map(|i| entry(&format!("k{i}"))).collect();
        assert!(check_bucket_info(&ten).is_ok());
        let eleven: BTreeMap<_, _> = (0..11).map(|i| entry(&format!("k{i}"))).collect();
        assert!(check_bucket_info(&eleven).is_err());
        for wrong in ["a b", "b2-x", "", &"n".repeat(51)] {
            assert!(check_bucket_info(&BTreeMap::from([entry(wrong)])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_stored_form_of_settings_stays_readable() {
        let first = r#"{"bucketInfo":{"a":"b"},"replication":{"asReplicationDestination":null,"asReplicationSource":null}}"#;
        let settings: BucketSettings =
            serde_json::from_str(first).expect("stored by an earlier version");
        assert!(settings.cors_rules.is_empty() && settings.lifecycle_rules.is_empty());
        assert_eq!(settings.file_lock, BucketLock::default());
        let stored = r#"{"bucketInfo":{"a":"b"},"corsRules":[{"allowedHeaders":null,"allowedOperations":["b2_upload_file","s3_put"],"allowedOrigins":["*"],"corsRuleName":"rule-one","exposeHeaders":["etag"],"maxAgeSeconds":1}],"fileLock":{"defaultRetention":{"mode":"governance","period":{"duration":7,"unit":"days"}},"isFileLockEnabled":true},"lifecycleRules":[{"daysFromHidingToDeleting":null,"daysFromUploadingToHiding":1,"fileNamePrefix":"p"}],"replication":{"asReplicationDestination":null,"asReplicationSource":null}}"#;
        let settings: BucketSettings = serde_json::from_str(stored).expect("as stored today");
        assert_eq!(serde_json::to_string(&settings).expect("plain data"), stored);
        let encrypted = BucketSettings { encryption: DefaultEncryption::Managed, ..settings };
        let stored = serde_json::to_string(&encrypted).expect("plain data");
        assert!(stored.ends_with(r#","encryption":"SSE-B2"}"#), "{stored}");
        assert_eq!(serde_json::from_str::<BucketSettings>(&stored).expect("our own"), encrypted);
        assert_eq!(
            serde_json::from_str::<BucketSettings>("{}").expect("all defaults"),
            BucketSettings::default()
        );
    }
}
