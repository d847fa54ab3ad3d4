//! Remotes as pure rules: how the address, the token and the options of a connection to another
//! store are read.
//!
//! Source: replication.md B1 and B3.

use url::Url;

use crate::domain::ids::AccountId;
use crate::domain::key::Secret;
use crate::domain::refusal::{Refusal, bad_request, shorten};
use crate::domain::time::Millis;

/// Longest name of a remote or a stream, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 200;
/// Longest description, in bytes.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 2000;
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

/// A time of day with a bandwidth of its own. `from` and `to` are `HH:MM`, local to the server; a
/// window whose end is not after its start goes over midnight.
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

/// A connection to another store. Its token is kept apart, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone)]
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
        let s3 = read("s3+https://s3.example/root/?region=us-west-004&style=virtual");
        assert_eq!(s3.kind, Some(RemoteKind::S3));
        assert_eq!(s3.base, "https://s3.example/root");
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
