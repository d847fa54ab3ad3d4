//! Remotes as pure rules: how the address, the token and the options of a connection to another
//! store are read.
//!
//! Source: replication.md B1 and B3.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;

use crate::domain::ids::AccountId;
use crate::domain::key::Secret;
use crate::domain::refusal::{Refusal, bad_request, shorten};
use crate::domain::time::Millis;

/// Longest name of a remote or a stream, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 2000;
const REMOTE_ORG_BYTES_MAX: usize = 200;
const URL_BYTES_MAX: usize = 2048;
const TOKEN_BYTES_MAX: usize = 4096;

/// Number of a remote, shown as 16 lower-case hex digits; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RemoteId(pub(crate) i64);

/// Number of a stream, shown as 16 lower-case hex digits; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(pub(crate) i64);

/// Reads 16 lower-case hex digits that are not zero, and fit a positive number.
fn parse_id(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let number = (digits && text.len() == 16).then(|| i64::from_str_radix(text, 16).ok());
    number.flatten().filter(|number| *number != 0)
}

macro_rules! shown_id {
    ($name:ident) => {
        impl $name {
            /// Accepts exactly the form that `Display` writes.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                parse_id(text).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}
shown_id!(RemoteId);
shown_id!(StreamId);

/// What speaks at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RemoteKind {
    /// Another kiln: the Native API with the headers of replicas.
    Peer,
    /// Backblaze B2, or what speaks its Native API.
    B2,
    /// An S3 store.
    S3,
}

impl RemoteKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::B2 => "b2",
            Self::S3 => "s3",
        }
    }
}

/// How the buckets of an S3 store are named in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Addressing {
    #[default]
    Path,
    Virtual,
}

/// Where replicas at foreign stores say what they are copies of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Marker {
    #[default]
    FileInfo,
    None,
}

/// A time of day with a bandwidth of its own. `from` and `to` are `HH:MM` in UTC, since nothing here
/// knows of zones; a window whose end is not after its start goes over midnight.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BandwidthWindow {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) bytes_per_second: u64,
}

/// What may be said about a remote beyond InfluxDB's seven fields; the serde form is the catalog's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RemoteOptions {
    /// None: as the address says, else found out when the remote is first spoken to.
    pub(crate) remote_type: Option<RemoteKind>,
    pub(crate) region: Option<String>,
    pub(crate) addressing: Option<Addressing>,
    /// Jobs in flight at a time.
    pub(crate) max_concurrency: u32,
    pub(crate) bandwidth_bytes_per_second: Option<u64>,
    pub(crate) bandwidth_windows: Vec<BandwidthWindow>,
    pub(crate) part_size_bytes: Option<u64>,
    pub(crate) multipart_threshold_bytes: Option<u64>,
    pub(crate) marker: Marker,
    /// The remote takes `X-Bz-Custom-Upload-Timestamp`.
    pub(crate) custom_timestamps: bool,
    pub(crate) paused: bool,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            remote_type: None,
            region: None,
            addressing: None,
            max_concurrency: 4,
            bandwidth_bytes_per_second: None,
            bandwidth_windows: Vec::new(),
            part_size_bytes: None,
            multipart_threshold_bytes: None,
            marker: Marker::FileInfo,
            custom_timestamps: false,
            paused: false,
        }
    }
}

/// Jobs in flight to one remote at most.
const CONCURRENCY_MAX: u32 = 1000;
const BANDWIDTH_WINDOWS_MAX: usize = 48;
const REGION_BYTES_MAX: usize = 100;
/// What stores take as a part, in bytes; one of them at least takes none that is smaller or larger.
const PART_BYTES: std::ops::RangeInclusive<u64> = 5_000_000..=5_000_000_000;

impl RemoteOptions {
    /// These options with what a caller said about some of them.
    pub(crate) fn with(&self, fields: &Map<String, Value>) -> Result<Self, Refusal> {
        overlaid(self, fields)
    }

    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if !(1..=CONCURRENCY_MAX).contains(&self.max_concurrency) {
            let text = format!("maxConcurrency must be between 1 and {CONCURRENCY_MAX}");
            return Err(bad_request(text));
        }
        let region = self.region.as_deref();
        if region.is_some_and(|region| !is_region(region)) {
            return Err(bad_request("region must be 1 to 100 letters, digits or '-'"));
        }
        if self.bandwidth_bytes_per_second == Some(0) {
            return Err(bad_request("bandwidthBytesPerSecond must be more than 0"));
        }
        if self.bandwidth_windows.len() > BANDWIDTH_WINDOWS_MAX {
            let text =
                format!("bandwidthWindows must hold at most {BANDWIDTH_WINDOWS_MAX} windows");
            return Err(bad_request(text));
        }
        for window in &self.bandwidth_windows {
            if minute_of_day(&window.from).is_none() || minute_of_day(&window.to).is_none() {
                return Err(bad_request("bandwidthWindows are from HH:MM to HH:MM"));
            }
            if window.bytes_per_second == 0 {
                return Err(bad_request("bytesPerSecond of a window must be more than 0"));
            }
        }
        let sizes = [
            ("partSizeBytes", self.part_size_bytes),
            ("multipartThresholdBytes", self.multipart_threshold_bytes),
        ];
        for (field, size) in sizes {
            if size.is_some_and(|size| !PART_BYTES.contains(&size)) {
                let (least, most) = (PART_BYTES.start(), PART_BYTES.end());
                return Err(bad_request(format!("{field} must be between {least} and {most}")));
            }
        }
        Ok(())
    }
}

fn is_region(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=REGION_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

impl BandwidthWindow {
    /// Whether the window holds at a minute of the day.
    pub(crate) fn holds_at(&self, minute: u32) -> bool {
        let (Some(from), Some(to)) = (minute_of_day(&self.from), minute_of_day(&self.to)) else {
            return false;
        };
        if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

/// The minute of the day that `HH:MM` names, from 0 to 1439.
fn minute_of_day(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str, end: u32| {
        let is_plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|number| is_plain && *number < end)
    };
    Some(number(hour, 24)? * 60 + number(minute, 60)?)
}

/// `before` with the values of some of its fields replaced; null stands for what is said when nobody
/// says anything. Fields are those of the stored form.
pub(crate) fn overlaid<T: Serialize + DeserializeOwned>(
    before: &T,
    fields: &Map<String, Value>,
) -> Result<T, Refusal> {
    let stored = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(stored)) => stored,
        _ => Map::new(),
    };
    let (known, mut all) = (stored(before), stored(before));
    let read = |all: &Map<String, Value>| serde_json::from_value::<T>(Value::Object(all.clone()));
    for (field, value) in fields {
        if !known.contains_key(field) {
            return Err(bad_request(format!("unknown field {}", shorten(field))));
        }
        if value.is_null() {
            all.remove(field);
        } else {
            all.insert(field.clone(), value.clone());
        }
        if let Err(error) = read(&all) {
            let why = error.to_string();
            return Err(bad_request(format!("{field}: {}", shorten(&why))));
        }
    }
    read(&all).map_err(|error| bad_request(error.to_string()))
}

/// Checks the name of a remote or a stream.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Err(bad_request(format!("name must be between 1 and {NAME_BYTES_MAX} bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err(bad_request("name must not contain control characters"));
    }
    Ok(())
}

/// Checks the description of a remote or a stream.
pub(crate) fn check_description(description: Option<&str>) -> Result<(), Refusal> {
    if description.is_some_and(|text| text.len() > DESCRIPTION_BYTES_MAX) {
        let text = format!("description must be at most {DESCRIPTION_BYTES_MAX} bytes");
        return Err(bad_request(text));
    }
    Ok(())
}

/// A connection to another store. Its token is kept apart, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "it is the organization there, beside the one here")]
pub(crate) struct Remote {
    pub(crate) id: RemoteId,
    pub(crate) account: AccountId,
    /// The organization as it was written by who made the remote; it means the account.
    pub(crate) org_id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) url: String,
    pub(crate) remote_org_id: Option<String>,
    pub(crate) allow_insecure_tls: bool,
    pub(crate) options: RemoteOptions,
    pub(crate) created_at: Millis,
    pub(crate) updated_at: Millis,
}

impl Remote {
    /// Checks what callers say about a remote, its token excepted.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        check_description(self.description.as_deref())?;
        let org = self.remote_org_id.as_deref();
        if org.is_some_and(|org| org.len() > REMOTE_ORG_BYTES_MAX) {
            let text = format!("remoteOrgID must be at most {REMOTE_ORG_BYTES_MAX} bytes");
            return Err(bad_request(text));
        }
        self.options.check()?;
        let address = RemoteAddress::parse(&self.url)?;
        if let (Some(said), Some(meant)) = (self.options.remote_type, address.kind)
            && said != meant
        {
            let (said, meant) = (said.as_str(), meant.as_str());
            return Err(bad_request(format!("remoteType is {said}, remoteURL says {meant}")));
        }
        let region = address.region.as_deref().or(self.options.region.as_deref());
        if address.kind_with(&self.options) == Some(RemoteKind::S3)
            && !region.is_some_and(is_region)
        {
            return Err(bad_request("an S3 store needs its region: remoteURL with ?region=..."));
        }
        Ok(())
    }
}

/// The address of a remote, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteAddress {
    /// None when the address does not say what speaks there.
    pub(crate) kind: Option<RemoteKind>,
    /// `http` or `https`, host and port, perhaps a path; without a slash at its end.
    pub(crate) base: String,
    pub(crate) region: Option<String>,
    pub(crate) addressing: Option<Addressing>,
}

impl RemoteAddress {
    /// Reads `[peer+|b2+|s3+]http[s]://host[:port][/path][?region=...&style=path|virtual]`. What it
    /// repeats of the address holds no user name or password, since those are refused.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > URL_BYTES_MAX {
            return Err(bad_request(format!("remoteURL must be at most {URL_BYTES_MAX} bytes")));
        }
        let (kind, rest) = match text.split_once('+') {
            Some(("peer", rest)) => (Some(RemoteKind::Peer), rest),
            Some(("b2", rest)) => (Some(RemoteKind::B2), rest),
            Some(("s3", rest)) => (Some(RemoteKind::S3), rest),
            _ => (None, text),
        };
        let invalid = || bad_request("remoteURL is not a valid http or https URL");
        let url = Url::parse(rest).map_err(|_| invalid())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(invalid());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad_request("remoteURL must not hold a user name or password"));
        }
        if url.fragment().is_some() {
            return Err(bad_request("remoteURL must not have a fragment"));
        }
        let (mut region, mut addressing) = (None, None);
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("region", value) => region = Some(value.to_owned()),
                ("style", "path") => addressing = Some(Addressing::Path),
                ("style", "virtual") => addressing = Some(Addressing::Virtual),
                (other, _) => {
                    let text = format!("remoteURL has an unknown parameter: {}", shorten(other));
                    return Err(bad_request(text));
                }
            }
        }
        let mut base = url;
        base.set_query(None);
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { kind, base, region, addressing })
    }

    /// What speaks at the remote, as far as its address and options say.
    pub(crate) fn kind_with(&self, options: &RemoteOptions) -> Option<RemoteKind> {
        options.remote_type.or(self.kind)
    }
}

/// What opens a remote: `id:secret`, for S3 perhaps with `:session token`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RemoteToken {
    pub(crate) key_id: String,
    pub(crate) secret: Secret,
    pub(crate) session: Option<Secret>,
}

impl RemoteToken {
    /// Nothing of the token is repeated in a refusal.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let invalid = || bad_request("remoteAPIToken must be keyId:applicationKey");
        if text.len() > TOKEN_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid());
        }
        let mut parts = text.splitn(3, ':');
        let (Some(key_id), Some(secret)) = (parts.next(), parts.next()) else {
            return Err(invalid());
        };
        if key_id.is_empty() || secret.is_empty() {
            return Err(invalid());
        }
        Ok(Self {
            key_id: key_id.to_owned(),
            secret: Secret::new(secret.to_owned()),
            session: parts.next().map(|token| Secret::new(token.to_owned())),
        })
    }
}

impl std::fmt::Debug for RemoteToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RemoteToken")
    }
}

/// The bucket at the other side, by id or by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RemoteBucket {
    Id(String),
    Name(String),
}

impl RemoteBucket {
    /// The catalog's form.
    pub(crate) fn stored(&self) -> String {
        match self {
            Self::Id(id) => format!("id:{id}"),
            Self::Name(name) => format!("name:{name}"),
        }
    }

    /// Reads what [`RemoteBucket::stored`] wrote.
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("id", id) => Some(Self::Id(id.to_owned())),
            ("name", name) => Some(Self::Name(name.to_owned())),
            _ => None,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Of another kiln.
    pub(crate) instance: Option<String>,
    pub(crate) bucket_id: Option<String>,
    pub(crate) has_file_lock: Option<bool>,
}

/// A version in a listing of the other side, as far as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedVersion {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) size: u64,
    /// Hex digits, where the store tells.
    pub(crate) sha1: Option<String>,
    pub(crate) etag: Option<String>,
    /// What our marker says, where it is there and listings show it.
    pub(crate) origin: Option<String>,
    pub(crate) upload_at: Option<Millis>,
}

/// One page of a listing, and where the next one begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListedPage {
    pub(crate) versions: Vec<ListedVersion>,
    pub(crate) next: Option<String>,
}

/// The account that an organization id means: an account id, perhaps with zeros in front of it to
/// sixteen digits.
pub(crate) fn account_of_org(org_id: &str) -> Option<AccountId> {
    let digits = match org_id.len() {
        16 => org_id.strip_prefix("0000")?,
        _ => org_id,
    };
    AccountId::parse(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replication_153_ids_are_sixteen_hex_digits_and_never_zero() {
        let id = RemoteId(0x0b1c_f5e1);
        assert_eq!(id.to_string(), "000000000b1cf5e1");
        assert_eq!(RemoteId::parse("000000000b1cf5e1"), Some(id));
        for wrong in ["0000000000000000", "b1cf5e1", "000000000B1CF5E1", "ffffffffffffffff", ""] {
            assert_eq!(StreamId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_say_what_speaks_there() {
        let read = |text| RemoteAddress::parse(text).unwrap();
        let plain = read("https://b.example:9700/");
        assert_eq!((plain.kind, plain.base.as_str()), (None, "https://b.example:9700"));
        assert_eq!(read("peer+http://10.0.0.1").kind, Some(RemoteKind::Peer));
        let s3 = read("s3+https://s3.example/below/?region=us-west-004&style=virtual");
        assert_eq!(s3.kind, Some(RemoteKind::S3));
        assert_eq!(s3.base, "https://s3.example/below");
        assert_eq!(s3.region.as_deref(), Some("us-west-004"));
        assert_eq!(s3.addressing, Some(Addressing::Virtual));
        for wrong in [
            "",
            "host",
            "ftp://host",
            "sftp+https://host",
            "https://user:word@host",
            "https://host#x",
            "https://host?zone=1",
        ] {
            assert!(RemoteAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn remote(url: &str, options: RemoteOptions) -> Remote {
        Remote {
            id: RemoteId(1),
            account: AccountId::from_bytes([1; 6]),
            org_id: "010101010101".to_owned(),
            name: "offsite".to_owned(),
            description: None,
            url: url.to_owned(),
            remote_org_id: None,
            allow_insecure_tls: false,
            options,
            created_at: Millis(1),
            updated_at: Millis(1),
        }
    }

    fn fields(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn an_s3_store_needs_a_region_and_one_type() {
        let s3 = RemoteOptions { remote_type: Some(RemoteKind::S3), ..RemoteOptions::default() };
        let plain = RemoteOptions::default();
        let check = |url: &str, options: &RemoteOptions| remote(url, options.clone()).check();
        assert!(check("https://any.example", &plain).is_ok());
        assert!(check("https://any.example", &s3).is_err());
        assert!(check("s3+https://any.example", &plain).is_err());
        assert!(check("s3+https://any.example?region=", &plain).is_err());
        assert!(check("s3+https://any.example?region=eu-central-1", &plain).is_ok());
        let with_region = RemoteOptions { region: Some("us-west-004".to_owned()), ..s3.clone() };
        assert!(check("https://any.example", &with_region).is_ok());
        assert!(check("b2+https://any.example", &with_region).is_err(), "two types");
    }

    #[test]
    fn names_and_options_have_limits() {
        assert!(check_name("n").is_ok() && check_name(&"n".repeat(200)).is_ok());
        for wrong in ["", "a\nb", &"n".repeat(201)] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_description(Some(&"d".repeat(2000))).is_ok());
        assert!(check_description(Some(&"d".repeat(2001))).is_err());
        let window = |from: &str, to: &str, bytes_per_second| BandwidthWindow {
            from: from.to_owned(),
            to: to.to_owned(),
            bytes_per_second,
        };
        let options = RemoteOptions::default();
        let wrong = [
            RemoteOptions { max_concurrency: 0, ..options.clone() },
            RemoteOptions { max_concurrency: 1001, ..options.clone() },
            RemoteOptions { region: Some("a b".to_owned()), ..options.clone() },
            RemoteOptions { bandwidth_bytes_per_second: Some(0), ..options.clone() },
            RemoteOptions {
                bandwidth_windows: vec![window("8:00", "10:00", 1)],
                ..options.clone()
            },
            RemoteOptions {
                bandwidth_windows: vec![window("08:00", "24:00", 1)],
                ..options.clone()
            },
            RemoteOptions {
                bandwidth_windows: vec![window("08:00", "10:00", 0)],
                ..options.clone()
            },
            RemoteOptions { part_size_bytes: Some(4_999_999), ..options.clone() },
            RemoteOptions { multipart_threshold_bytes: Some(5_000_000_001), ..options.clone() },
        ];
        for wrong in wrong {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        let windows = vec![window("22:00", "06:30", 1)];
        assert!(RemoteOptions { bandwidth_windows: windows, ..options }.check().is_ok());
        assert_eq!(minute_of_day("23:59"), Some(1439));
    }

    #[test]
    fn options_are_replaced_one_by_one_and_null_sets_them_back() {
        let before = RemoteOptions { max_concurrency: 9, paused: true, ..RemoteOptions::default() };
        let change = json!({"maxConcurrency": null, "remoteType": "s3", "region": "x"});
        let after = before.with(&fields(&change)).unwrap();
        assert_eq!((after.max_concurrency, after.paused), (4, true));
        assert_eq!(after.remote_type, Some(RemoteKind::S3));
        let back = after.with(&fields(&json!({"remoteType": null, "region": null}))).unwrap();
        assert_eq!((back.remote_type, back.region), (None, None));
        for wrong in [json!({"maxConcurrency": -1}), json!({"no": 1}), json!({"remoteType": "ftp"})]
        {
            assert!(before.with(&fields(&wrong)).is_err(), "{wrong}");
        }
        let refused = before.with(&fields(&json!({"paused": "yes"}))).unwrap_err();
        assert!(refused.message.starts_with("paused: "), "{refused}");
    }

    #[test]
    fn a_bucket_at_a_remote_is_read_back_as_it_was_stored() {
        let buckets = [RemoteBucket::Id("4a".to_owned()), RemoteBucket::Name("a:b".to_owned())];
        for bucket in buckets {
            assert_eq!(RemoteBucket::from_stored(&bucket.stored()), Some(bucket));
        }
        assert_eq!(RemoteBucket::from_stored("else:x"), None);
    }

    #[test]
    fn replication_149_a_token_is_neither_shown_nor_repeated() {
        let token = RemoteToken::parse("id:s3cret:session").unwrap();
        assert_eq!(token.key_id, "id");
        assert_eq!(token.secret.expose(), "s3cret");
        assert_eq!(token.session.as_ref().map(Secret::expose), Some("session"));
        assert!(!format!("{token:?}").contains("cret"));
        for wrong in ["s3cret", ":s3cret", "s3cret:", "s3 cret:x"] {
            let refused = RemoteToken::parse(wrong).unwrap_err();
            assert!(!refused.to_string().contains("cret"), "{refused}");
        }
    }

    #[test]
    fn organizations_are_accounts_with_or_without_zeros_in_front() {
        let account = AccountId::parse("632adbf08ef2");
        assert!(account.is_some());
        assert_eq!(account_of_org("632adbf08ef2"), account);
        assert_eq!(account_of_org("0000632adbf08ef2"), account);
        assert_eq!(account_of_org("0001632adbf08ef2"), None);
        assert_eq!(account_of_org(""), None);
    }
}
