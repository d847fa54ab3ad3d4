//! Settings: what was typed (`Given`) becomes what the server runs with (`Config`).
//!
//! One table, `SETTINGS`, says for each setting its name, default, check and help; the flags, the
//! environment variables, the TOML keys, `kiln config show` and docs/settings.md all come from
//! it. Not here: acting on a setting, and reading the process environment (it is handed in). The
//! command line calls this room, once per run. The promise that would break first: a setting that
//! is accepted somewhere means the same everywhere, and a mistyped one never passes silently.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::builder::ArgAction;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::Preset::{Computed, Text, Unset};
use self::Shape::{List, Plain, Sealed, Switch};
use crate::domain::ids::AccountId;
use crate::domain::key::Secret;
use crate::tls::TlsFiles;

/// The file read when neither `--config` nor `KILN_CONFIG` names one; it may be missing.
pub(crate) const DEFAULT_FILE: &str = "./kiln.toml";
/// What stands in place of a secret wherever settings are shown.
const MASK: &str = "********";
/// Every environment variable of ours begins with this, and every one that does is ours.
pub(crate) const PREFIX: &str = "KILN_";

/// What the server runs with. A value that exists was checked; units are in the names.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    /// The data listener; port 0 takes any free port.
    pub(crate) listen: SocketAddr,
    /// The admin listener; port 0 takes any free port.
    pub(crate) admin_listen: SocketAddr,
    /// `http(s)://host[:port]` without trailing slash; None means the data listener's own address.
    pub(crate) public_url: Option<String>,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) insecure_http: bool,
    /// None where the data listener speaks plain HTTP.
    pub(crate) certificate: Option<Certificate>,
    /// True only when both listeners are on loopback.
    pub(crate) test_controls: bool,
    pub(crate) test_mode: bool,
    /// The first account's id and master application key; None lets the first start draw them.
    pub(crate) master_key: Option<(AccountId, Secret)>,
    pub(crate) sealing_key_file: PathBuf,
    pub(crate) key_ring_file: PathBuf,
    pub(crate) region: String,
    pub(crate) log: Log,
    pub(crate) http: Http,
    pub(crate) limits: Limits,
    pub(crate) blobs: Blobs,
    pub(crate) locks: Locks,
    pub(crate) catalog: Catalog,
    pub(crate) uploads: Uploads,
    pub(crate) auth: Auth,
    pub(crate) s3: S3,
    pub(crate) encryption: Encryption,
    pub(crate) replication: Replication,
    pub(crate) streams: Streams,
    pub(crate) notifications: Notifications,
}

/// Where the certificate of the data listener comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    Files(TlsFiles),
    /// One of our own in the data folder, which nobody else vouches for.
    SelfSigned,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

/// The web servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Http {
    /// Threads that answer requests.
    pub(crate) workers: usize,
    /// How long a body or a connection may stall.
    pub(crate) idle_timeout_s: u64,
    /// Largest body of a JSON call.
    pub(crate) json_bytes_max: usize,
    pub(crate) trusted_proxies: Addresses,
}

/// Addresses of machines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(pub(crate) Vec<IpAddr>);

/// What clients are held to and told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// Buckets per account.
    pub(crate) buckets: usize,
    /// Bytes; never less than `part_size_min`.
    pub(crate) part_size_recommended: u64,
    /// Bytes; the last part of a file may be smaller.
    pub(crate) part_size_min: u64,
}

/// Where bytes go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blobs {
    /// Bodies of at most this many bytes are kept inside the catalog.
    pub(crate) inline_max: usize,
    /// How long freed bytes stay on disk.
    pub(crate) grace_s: u64,
}

/// Object Lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    /// A clock further ahead of the time that has passed is not believed.
    pub(crate) clock_tolerance_s: i64,
}

/// The metadata database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) read_connections: usize,
    /// Pages of write-ahead log from which it is folded back in the background.
    pub(crate) wal_pages_soft: u32,
    /// Pages from which writers wait for that; always more than `wal_pages_soft`.
    pub(crate) wal_pages_hard: u32,
}

/// What uploads may say of themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uploads {
    pub(crate) custom_timestamps: bool,
}

/// How strictly keys and their tokens are taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Auth {
    pub(crate) strict_v4_keys: bool,
    pub(crate) strict_cors_tokens: bool,
}

/// The S3-compatible API.
#[derive(Clone, Debug, Default)]
pub(crate) struct S3 {
    pub(crate) profile: S3Profile,
    /// Below these, names of hosts begin with those of buckets.
    pub(crate) domain: Domains,
    pub(crate) allow_master_key: bool,
    pub(crate) lenient_region: bool,
    pub(crate) checksum_support: ChecksumSupport,
}

/// Server-side encryption.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encryption {
    pub(crate) default: NewBuckets,
}

/// The replication engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replication {
    pub(crate) accept_empty_rules: bool,
    pub(crate) accept_priority_zero: bool,
    /// Take replicas that other servers send.
    pub(crate) accept_peers: bool,
    pub(crate) large_metadata: LargeMetadata,
    /// How long a missing key mapping is waited for before the job fails.
    pub(crate) mapping_grace_ms: i64,
    pub(crate) workers: usize,
    /// Jobs under way to one target at a time.
    pub(crate) target_max_inflight: usize,
    /// What all remotes together may be sent; 0 without a limit.
    pub(crate) bandwidth_bytes_per_second: u64,
    /// Certificates in PEM form that remotes may show besides those the system trusts.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Remotes and replication streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    /// Answer their API on the data listener too.
    pub(crate) on_data_listener: bool,
}

/// The delivery of event notifications.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifications {
    pub(crate) allow_private_targets: bool,
    pub(crate) allow_http: bool,
    /// Certificates in PEM form that targets may show besides those the system trusts.
    pub(crate) ca_file: Option<PathBuf>,
    /// Events that may wait for one rule.
    pub(crate) queue_max: i64,
    /// Deliveries under way at a time.
    pub(crate) workers: usize,
}

/// Names of domains, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Domains(pub(crate) Vec<String>);

impl Shown for Domains {
    fn shown(&self) -> Value {
        if self.0.is_empty() { Value::Null } else { Value::from(self.0.join(",")) }
    }
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$first:meta])? $variant:ident, $text:literal;)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub(crate) enum $name { $($(#[$first])? $variant,)* }

        impl $name {
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Choice for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant),)*];
        }

        impl Shown for $name {
            fn shown(&self) -> Value {
                Value::from(self.as_str())
            }
        }
    )* };
}

choices! {
    /// The form of log lines.
    LogFormat { #[default] Text, "text"; Json, "json"; }

    /// The least weighty thing that is still logged.
    LogLevel {
        Error, "error"; Warn, "warn"; #[default] Info, "info"; Debug, "debug"; Trace, "trace";
    }

    /// What replication does with a file of more than 2048 bytes of metadata headers.
    LargeMetadata { #[default] Skip, "skip"; Copy, "copy"; }

    /// What becomes of requests that bring a checksum of S3.
    ChecksumSupport { #[default] Accept, "accept"; Reject, "reject"; }

    /// How far the S3-compatible API goes.
    S3Profile { #[default] Backblaze, "backblaze"; Extended, "extended"; }

    /// How new buckets encrypt files that ask for nothing.
    NewBuckets { #[default] None, "none"; SseB2, "sse-b2"; }
}

/// A setting that takes one of a few words.
trait Choice: Copy + 'static {
    const ALL: &'static [(&'static str, Self)];
}

/// How a value looks to the operator; `Null` when there is none.
trait Shown {
    fn shown(&self) -> Value;
}

macro_rules! shown_as_json {
    ($($kind:ty),*) => { $(
        impl Shown for $kind {
            fn shown(&self) -> Value {
                Value::from(self.clone())
            }
        }
    )* };
}
shown_as_json!(bool, u32, u64, usize, i64, String);

impl Shown for PathBuf {
    fn shown(&self) -> Value {
        Value::from(self.display().to_string())
    }
}

impl Shown for SocketAddr {
    fn shown(&self) -> Value {
        Value::from(self.to_string())
    }
}

impl Shown for Addresses {
    fn shown(&self) -> Value {
        let shown: Vec<String> = self.0.iter().map(IpAddr::to_string).collect();
        if shown.is_empty() { Value::Null } else { Value::from(shown.join(",")) }
    }
}

impl Shown for AccountId {
    fn shown(&self) -> Value {
        Value::from(self.to_string())
    }
}

impl Shown for Secret {
    fn shown(&self) -> Value {
        Value::from(MASK)
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> Value {
        self.as_ref().map_or(Value::Null, Shown::shown)
    }
}

/// A `Config` being filled in, with what several settings make together.
struct Draft {
    config: Config,
    master_key_id: Option<AccountId>,
    master_key: Option<Secret>,
    master_key_file: Option<PathBuf>,
    sealing_key_file: Option<PathBuf>,
    key_ring_file: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_self_signed: bool,
}

impl Draft {
    /// Placeholders only; every one is replaced when the rows of the table are read.
    fn blank() -> Self {
        let any_port = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let config = Config {
            data_dir: PathBuf::new(),
            listen: any_port,
            admin_listen: any_port,
            public_url: None,
            ready_file: None,
            insecure_http: false,
            certificate: None,
            test_controls: false,
            test_mode: false,
            master_key: None,
            sealing_key_file: PathBuf::new(),
            key_ring_file: PathBuf::new(),
            region: String::new(),
            log: Log::default(),
            http: Http::default(),
            limits: Limits::default(),
            blobs: Blobs::default(),
            locks: Locks::default(),
            catalog: Catalog::default(),
            uploads: Uploads::default(),
            auth: Auth::default(),
            s3: S3::default(),
            encryption: Encryption::default(),
            replication: Replication::default(),
            streams: Streams::default(),
            notifications: Notifications::default(),
        };
        Self {
            config,
            master_key_id: None,
            master_key: None,
            master_key_file: None,
            sealing_key_file: None,
            key_ring_file: None,
            tls_cert: None,
            tls_key: None,
            tls_self_signed: false,
        }
    }
}

/// What stands behind a setting, for help and for the command line.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A value; the word is what the help calls it.
    Plain(&'static str),
    /// Values with commas between them; the flag may be repeated, and a file may have an array.
    List(&'static str),
    /// True or false; the flag alone means true.
    Switch,
    /// Never a flag (other users of the machine see those) and never shown.
    Sealed,
}

/// What a setting is when nobody gives it.
#[derive(Clone, Copy)]
enum Preset {
    Text(&'static str),
    /// Stays unset; the words say what happens then.
    Unset(&'static str),
    /// Worked out from the machine or from settings further up the table, described in words.
    Computed(&'static str, fn(&Draft) -> String),
}

/// One row of the table.
pub(crate) struct Setting {
    /// The TOML key; flag and environment variable are made from it.
    pub(crate) key: &'static str,
    shape: Shape,
    preset: Preset,
    /// Checks a text and keeps its value; an error is the end of a sentence, "must be ...".
    keep: fn(&mut Draft, &str) -> Result<(), String>,
    shown: fn(&Draft) -> Value,
    help: &'static str,
}

impl Setting {
    /// `a.b_c` is `--a-b-c`, without the dashes in front.
    fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// `a.b_c` is `KILN_A_B_C`.
    pub(crate) fn variable(&self) -> String {
        variable_name(self.key)
    }

    /// The words for the default, as help and page print them.
    fn preset_words(&self) -> &'static str {
        match self.preset {
            Text(words) | Unset(words) | Computed(words, _) => words,
        }
    }

    fn group(&self) -> &'static Group {
        let section = self.key.split_once('.').map_or("", |(section, _)| section);
        GROUPS.iter().find(|group| group.section == section).unwrap_or(&GROUPS[0])
    }
}

fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Settings that are shown together; `section` is the TOML table, empty for the top level.
struct Group {
    section: &'static str,
    heading: &'static str,
}

const GROUPS: [Group; 12] = [
    Group { section: "", heading: "Server settings" },
    Group { section: "log", heading: "Log settings" },
    Group { section: "http", heading: "HTTP settings" },
    Group { section: "limits", heading: "Limits told to clients" },
    Group { section: "blobs", heading: "Blob settings" },
    Group { section: "catalog", heading: "Catalog settings" },
    Group { section: "auth", heading: "Key settings" },
    Group { section: "s3", heading: "S3 settings" },
    Group { section: "encryption", heading: "Encryption settings" },
    Group { section: "replication", heading: "Replication settings" },
    Group { section: "streams", heading: "Replication stream settings" },
    Group { section: "notifications", heading: "Event notification settings" },
];

macro_rules! settings {
    ($($key:literal, $shape:expr, $preset:expr, $($field:ident).+ = $read:expr, $help:literal;)*) => {
        /// Every setting there is, in the order people meet them.
        pub(crate) const SETTINGS: &[Setting] = &[$(
            Setting {
                key: $key,
                shape: $shape,
                preset: $preset,
                keep: |draft, text| {
                    let read: fn(&str) -> Result<_, String> = $read;
                    draft.$($field).+ = read(text)?;
                    Ok(())
                },
                shown: |draft| draft.$($field).+.shown(),
                help: $help,
            },
        )*];
    };
}

settings! {
    "data_dir", Plain("DIR"), Text("./kiln-data"), config.data_dir = path,
    "Folder of everything kiln keeps; made at the first start, readable by its owner only";

    "listen", Plain("ADDR"), Text("127.0.0.1:9700"), config.listen = address,
    "Where clients connect (native API and downloads); port 0 takes a free one";

    "admin_listen", Plain("ADDR"), Text("127.0.0.1:9701"), config.admin_listen = address,
    "Where operators connect (health, metrics, administration commands)";

    "public_url", Plain("URL"), Unset("the address of the data listener"),
    config.public_url = |text| web_origin(text).map(Some),
    "What clients reach the data listener by, when a proxy stands in front: http(s)://HOST[:PORT]";

    "ready_file", Plain("PATH"), Unset("no file"), config.ready_file = |text| path(text).map(Some),
    "File to write, in one step, once the server answers; a JSON object with both addresses";

    "insecure_http", Switch, Text("false"), config.insecure_http = switch,
    "Allow listeners that other machines reach although they speak plain HTTP: put a TLS proxy in front";

    "tls_cert", Plain("PATH"), Unset("plain HTTP"), tls_cert = |text| path(text).map(Some),
    "File of the data listener's certificate and what vouches for it, in PEM; read again when it changes; goes with tls_key";

    "tls_key", Plain("PATH"), Unset("plain HTTP"), tls_key = |text| path(text).map(Some),
    "File of the private key of tls_cert, in PEM";

    "tls_self_signed", Switch, Text("false"), tls_self_signed = switch,
    "For development: TLS with a certificate made for this data folder, tls-cert.pem in it, which clients have to be told to trust";

    "test_controls", Switch, Text("false"), config.test_controls = switch,
    "Open the test controls (clock, replication, faults, reset) on the admin listener; loopback only";

    "test_mode", Switch, Text("true"), config.test_mode = switch,
    "Let requests that ask for it by an X-Bz-Test-Mode header fail, as Backblaze does";

    "master_key_id", Plain("ID"), Unset("drawn at the first start"), master_key_id = |text| account_id(text).map(Some),
    "Account id and id of the master application key: 12 lower-case hex digits; goes with master_key";

    "master_key", Sealed, Unset("drawn at the first start"), master_key = |text| master_secret(text).map(Some),
    "Secret of the master application key: at least 20 printable characters; never a flag";

    "master_key_file", Plain("PATH"), Unset("no file"), master_key_file = |text| path(text).map(Some),
    "File whose content, without surrounding white space, is the master_key; or set KILN_MASTER_KEY";

    "sealing_key_file", Plain("PATH"),
    Computed("sealing.key in data_dir", |draft| {
        draft.config.data_dir.join("sealing.key").display().to_string()
    }),
    sealing_key_file = |text| path(text).map(Some),
    "File of the key that seals stored secrets; keep a copy apart from the data";

    "key_ring_file", Plain("PATH"),
    Computed("key-ring in data_dir", |draft| {
        draft.config.data_dir.join("key-ring").display().to_string()
    }),
    key_ring_file = |text| path(text).map(Some),
    "File of the keys behind SSE-B2; without it such files are lost: keep a copy apart from the data";

    "region", Plain("NAME"), Text("us-west-000"), config.region = region,
    "Region that S3 clients are told and sign with: lower-case letters, digits and dashes";

    "log.format", Plain("FORMAT"), Text("text"), config.log.format = choice,
    "Form of log lines: text or json";

    "log.level", Plain("LEVEL"), Text("info"), config.log.level = choice,
    "Least weighty thing to log: error, warn, info, debug or trace";

    "http.workers", Plain("N"), Computed("the number of CPUs, at most 256", |_| cpus().to_string()),
    config.http.workers = |text| whole(text, 1..=256),
    "Threads that answer requests, 1 to 256";

    "http.idle_timeout_s", Plain("SECONDS"), Text("30"),
    config.http.idle_timeout_s = |text| whole(text, 1..=3600),
    "How long a body may bring nothing, or less than 1 KiB a second, before it is given up, and a tenth of how long a client may take nothing of an answer, 1 to 3600";

    "http.json_bytes_max", Plain("BYTES"), Text("1048576"),
    config.http.json_bytes_max = |text| whole(text, 1024..=67_108_864),
    "Largest body of a JSON call, 1024 to 67108864";

    "http.trusted_proxies", List("ADDRS"), Unset("none"), config.http.trusted_proxies = addresses,
    "Addresses of proxies, with commas between, whose X-Forwarded-Host is believed for S3 signatures and for hosts of buckets";

    "limits.buckets", Plain("N"), Text("100"), config.limits.buckets = |text| whole(text, 1..=1_000_000),
    "Buckets an account may have, 1 to 1000000";

    "limits.part_size_recommended", Plain("BYTES"), Text("100000000"),
    config.limits.part_size_recommended = |text| whole(text, 1..=5_000_000_000),
    "Size of parts of large files that clients are advised to use; at least limits.part_size_min";

    "limits.part_size_min", Plain("BYTES"), Text("5000000"),
    config.limits.part_size_min = |text| whole(text, 1..=5_000_000_000),
    "Smallest part of a large file, except the last; less than 5000000 is for tests";

    "blobs.inline_max", Plain("BYTES"), Text("16384"), config.blobs.inline_max = |text| whole(text, 0..=1_048_576),
    "Bodies up to this size are kept inside the catalog instead of a file each, 0 to 1048576";

    "blobs.grace_s", Plain("SECONDS"), Text("60"), config.blobs.grace_s = |text| whole(text, 0..=2_592_000),
    "How long freed bytes stay on disk before they are removed, at most 30 days";

    "locks.clock_tolerance_s", Plain("SECONDS"), Text("86400"),
    config.locks.clock_tolerance_s = |text| whole(text, 60..=31_536_000),
    "How far the clock may be ahead of the time that has passed before locks no longer run out by it, a minute to a year";

    "catalog.read_connections", Plain("N"), Text("8"),
    config.catalog.read_connections = |text| whole(text, 1..=256),
    "Connections that read the catalog, 1 to 256";

    "catalog.wal_pages_soft", Plain("PAGES"), Text("4000"),
    config.catalog.wal_pages_soft = |text| whole(text, 1..=1_000_000),
    "Length of the write-ahead log from which it is folded back in the background";

    "catalog.wal_pages_hard", Plain("PAGES"), Text("64000"),
    config.catalog.wal_pages_hard = |text| whole(text, 2..=10_000_000),
    "Length of the write-ahead log from which writers wait; more than catalog.wal_pages_soft";

    "uploads.custom_timestamps", Switch, Text("false"), config.uploads.custom_timestamps = switch,
    "Let uploads bring their own upload time, as Backblaze does for accounts with that feature";

    "auth.strict_v4_keys", Switch, Text("false"), config.auth.strict_v4_keys = switch,
    "Refuse keys made through v4 for one bucket on v1 to v3 calls, as Backblaze does";

    "auth.strict_cors_tokens", Switch, Text("false"), config.auth.strict_cors_tokens = switch,
    "Refuse account tokens in downloads by pages of other origins; download tokens still serve them";

    "s3.profile", Plain("WHAT"), Text("backblaze"), config.s3.profile = choice,
    "How far S3 goes: backblaze refuses what Backblaze refuses; extended has conditional writes and object attributes too, and passes over unknown headers";

    "s3.domain", List("DOMAINS"), Unset("no host names for buckets"), config.s3.domain = domains,
    "Domains below which buckets have host names, with commas between: BUCKET.DOMAIN is then the address of a bucket";

    "s3.allow_master_key", Switch, Text("false"), config.s3.allow_master_key = switch,
    "Take S3 requests signed with a master application key, which Backblaze refuses";

    "s3.lenient_region", Switch,
    Computed("true where the data listener is on loopback", |draft| {
        is_loopback(draft.config.listen).to_string()
    }),
    config.s3.lenient_region = switch,
    "Take S3 requests signed for another region: clients that were told none sign for us-east-1";

    "s3.checksum_support", Plain("WHAT"), Text("accept"), config.s3.checksum_support = choice,
    "Checksum headers of S3 requests: accept them, or reject them as Backblaze did until 2025";

    "encryption.default", Plain("WHAT"), Text("none"), config.encryption.default = choice,
    "How new buckets encrypt files that ask for nothing: none, or sse-b2 as Backblaze since 2026";

    "replication.accept_empty_rules", Switch, Text("false"),
    config.replication.accept_empty_rules = switch,
    "Take an empty replicationRules as no rules, which Backblaze refuses";

    "replication.accept_priority_zero", Switch, Text("false"),
    config.replication.accept_priority_zero = switch,
    "Take replication rules of priority 0, which Backblaze refuses";

    "replication.accept_peers", Switch, Text("false"), config.replication.accept_peers = switch,
    "Take replicas that other kilns send, from callers who may write files";

    "replication.large_metadata", Plain("WHAT"), Text("skip"),
    config.replication.large_metadata = choice,
    "Files with more than 2048 bytes of metadata: skip them, as Backblaze does, or copy them";

    "replication.mapping_grace_ms", Plain("MS"), Text("0"),
    config.replication.mapping_grace_ms = |text| whole(text, 0..=604_800_000),
    "How long a job waits for a missing key mapping before it fails, at most 7 days";

    "replication.workers", Plain("N"), Text("8"), config.replication.workers = |text| whole(text, 1..=256),
    "Replication jobs worked on at a time, 1 to 256";

    "replication.target_max_inflight", Plain("N"), Text("4"),
    config.replication.target_max_inflight = |text| whole(text, 1..=256),
    "Replication jobs under way to one target at a time, 1 to 256";

    "replication.bandwidth_bytes_per_second", Plain("N"), Text("0"),
    config.replication.bandwidth_bytes_per_second = |text| whole(text, 0..=1_000_000_000_000),
    "Bytes per second that all remotes together may be sent, 0 without a limit";

    "replication.ca_file", Plain("PATH"), Unset("the system's certificates only"),
    config.replication.ca_file = |text| path(text).map(Some),
    "PEM file of certificates that remotes may show besides those the system trusts";

    "streams.on_data_listener", Switch, Text("false"), config.streams.on_data_listener = switch,
    "Answer /api/v2/remotes, /api/v2/replications and /api/v2/orgs on the data listener too";

    "notifications.allow_private_targets", Switch, Text("false"),
    config.notifications.allow_private_targets = switch,
    "Send events to loopback and private addresses too; whoever may set rules then reaches your network";

    "notifications.allow_http", Switch, Text("false"), config.notifications.allow_http = switch,
    "Take http:// addresses in event notification rules, which Backblaze refuses";

    "notifications.ca_file", Plain("PATH"), Unset("the system's certificates only"),
    config.notifications.ca_file = |text| path(text).map(Some),
    "PEM file of certificates that targets of events may show besides those the system trusts";

    "notifications.queue_max", Plain("N"), Text("10000"),
    config.notifications.queue_max = |text| whole(text, 1..=1_000_000),
    "Events that may wait for one rule before further ones are lost, 1 to 1000000";

    "notifications.workers", Plain("N"), Text("32"),
    config.notifications.workers = |text| whole(text, 1..=256),
    "Deliveries of events under way at a time, 1 to 256";
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(256)
}

// The readers: each takes the text of a setting, none of them an empty one.

fn path(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err("must be a path".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be an IP address and a port such as 127.0.0.1:9700 or [::1]:9700 \
         (names are not looked up)"
            .to_owned()
    })
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn whole<T: TryFrom<u64>>(text: &str, allowed: RangeInclusive<u64>) -> Result<T, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && allowed.contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        format!("must be a whole number from {} to {}", allowed.start(), allowed.end())
    })
}

fn choice<T: Choice>(text: &str) -> Result<T, String> {
    T::ALL.iter().find(|(word, _)| *word == text).map(|&(_, choice)| choice).ok_or_else(|| {
        let words: Vec<&str> = T::ALL.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", "))
    })
}

fn account_id(text: &str) -> Result<AccountId, String> {
    AccountId::parse(text).ok_or_else(|| "must be exactly 12 lower-case hex digits".to_owned())
}

fn region(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.len() > 63 || !text.bytes().all(allowed) {
        return Err("must be at most 63 lower-case letters, digits and dashes".to_owned());
    }
    Ok(text.to_owned())
}

/// Addresses of machines with commas between them.
fn addresses(text: &str) -> Result<Addresses, String> {
    let parsed: Result<Vec<IpAddr>, _> = text.split(',').map(|one| one.trim().parse()).collect();
    parsed.map(Addresses).map_err(|_| {
        "must be IP addresses such as 127.0.0.1 or ::1, with commas between them".to_owned()
    })
}

/// Names of domains with commas between them.
fn domains(text: &str) -> Result<Domains, String> {
    let label = |label: &str| {
        let allowed = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        allowed && (1..=63).contains(&label.len())
    };
    let mut found = Vec::new();
    for domain in text.split(',').map(str::trim) {
        if domain.len() > 190 || !domain.split('.').all(label) {
            return Err("must be names of domains such as s3.example.org, with commas between \
                        them and without ports"
                .to_owned());
        }
        found.push(domain.to_ascii_lowercase());
    }
    Ok(Domains(found))
}

/// Scheme, host and port: what stands before every path that clients are given.
fn web_origin(text: &str) -> Result<String, String> {
    let wrong = || {
        "must be http:// or https:// with a host and at most a port, such as \
         https://b2.example.org"
            .to_owned()
    };
    let trimmed = text.trim_end_matches('/');
    let authority = trimmed
        .strip_prefix("https://")
        .or_else(|| trimmed.strip_prefix("http://"))
        .ok_or_else(wrong)?;
    let (host_is_right, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(wrong)?;
        let ends = after.is_empty() || after.starts_with(':');
        (ends && host.parse::<Ipv6Addr>().is_ok(), after.strip_prefix(':'))
    } else {
        let (host, port) =
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        (!host.is_empty() && host.bytes().all(allowed), port)
    };
    let port_is_right = port.is_none_or(|port| whole::<u16>(port, 1..=65_535).is_ok());
    if host_is_right && port_is_right { Ok(trimmed.to_owned()) } else { Err(wrong()) }
}

/// Words that mark a secret as a default somebody forgot to change.
const FORGOTTEN: [&str; 5] = ["password", "changeme", "minioadmin", "secret", "examplekey"];
/// Fewest characters of a master key, and fewest that must differ (ours).
const SECRET_CHARACTERS_MIN: usize = 20;
const SECRET_DISTINCT_MIN: usize = 8;

/// The errors never repeat the secret.
fn master_secret(text: &str) -> Result<Secret, String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be printable ASCII without spaces".to_owned());
    }
    if text.len() < SECRET_CHARACTERS_MIN {
        return Err(format!("must have at least {SECRET_CHARACTERS_MIN} characters"));
    }
    let lower = text.to_ascii_lowercase();
    if let Some(word) = FORGOTTEN.iter().find(|word| lower.contains(*word)) {
        return Err(format!("must not contain \"{word}\", as forgotten defaults do"));
    }
    let distinct: std::collections::BTreeSet<u8> = text.bytes().collect();
    if distinct.len() < SECRET_DISTINCT_MIN {
        return Err(format!("must have at least {SECRET_DISTINCT_MIN} different characters"));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Where a value came from, in the operator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Variable(String),
    Flag(String),
    /// A program that uses this library.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Program => f.write_str("the program"),
        }
    }
}

/// Why there is no configuration. Each prints as one line that names the setting and its origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{key} ({origin}): {problem}")]
    Wrong { key: &'static str, origin: Origin, problem: String },
    /// `what` names the place too.
    #[error("{what} is not a setting; the nearest is {nearest}")]
    Unknown { what: String, nearest: String },
    #[error("configuration file {}: {problem}", place.display())]
    File { place: PathBuf, problem: String },
}

struct Typed {
    text: String,
    origin: Origin,
}

/// What was typed, the strongest place first: flags, then environment, then file.
///
/// Holds secrets as plain text, so it must not be printable.
pub(crate) struct Given {
    typed: BTreeMap<&'static str, Typed>,
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
}

/// One setting as `kiln config show` prints it.
pub(crate) struct Explained {
    pub(crate) key: &'static str,
    /// Null when unset; secrets are masked.
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl Given {
    /// Collects from all three places; `default_file` is read only when no other file is named.
    pub(crate) fn gather(
        matches: &ArgMatches,
        environment: &[(String, OsString)],
        default_file: &Path,
    ) -> Result<Self, ConfigError> {
        let mut named_file = flag_values(matches, "config").map(PathBuf::from);
        let mut from_environment = BTreeMap::new();
        for (name, value) in environment {
            if name == "KILN_CONFIG" {
                named_file = named_file.or_else(|| Some(PathBuf::from(value)));
            } else if let Some(setting) = SETTINGS.iter().find(|one| one.variable() == *name) {
                from_environment.insert(setting.key, variable(setting, name, value)?);
            } else if !is_foreign(name, value) {
                return Err(unknown_variable(name));
            }
        }
        let file = read_file(named_file, default_file)?;
        let mut typed = BTreeMap::new();
        if let Some((path, text)) = &file {
            file_values(path, text, &mut typed)?;
        }
        typed.extend(from_environment);
        for setting in SETTINGS {
            if let Some(text) = flag_values(matches, setting.key) {
                let origin = Origin::Flag(setting.flag());
                typed.insert(setting.key, Typed { text, origin });
            }
        }
        Ok(Self { typed, file: file.map(|(path, _)| path) })
    }

    fn origin(&self, key: &str) -> Origin {
        self.typed.get(key).map_or(Origin::Default, |typed| typed.origin.clone())
    }

    fn wrong(&self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Wrong { key, origin: self.origin(key), problem: problem.into() }
    }

    /// Reads every row of the table in its order.
    fn draft(&self) -> Result<Draft, ConfigError> {
        let mut draft = Draft::blank();
        for setting in SETTINGS {
            let text = match (self.typed.get(setting.key), setting.preset) {
                (Some(typed), _) => typed.text.clone(),
                (None, Text(text)) => text.to_owned(),
                (None, Computed(_, work_out)) => work_out(&draft),
                (None, Unset(_)) => continue,
            };
            if text.is_empty() {
                return Err(self.wrong(setting.key, "is empty: give a value or leave it out"));
            }
            (setting.keep)(&mut draft, &text).map_err(|problem| match setting.shape {
                Sealed => self.wrong(setting.key, problem),
                Plain(_) | List(_) | Switch => {
                    self.wrong(setting.key, format!("{problem}, not {}", quoted(&text)))
                }
            })?;
        }
        Ok(draft)
    }

    /// Every setting with its value and where it came from, once all of them are right.
    pub(crate) fn explain(&self) -> Result<Vec<Explained>, ConfigError> {
        Config::from_given(self)?;
        let draft = self.draft()?;
        let explained = |setting: &Setting| Explained {
            key: setting.key,
            value: (setting.shown)(&draft),
            origin: self.origin(setting.key),
        };
        Ok(SETTINGS.iter().map(explained).collect())
    }
}

impl Config {
    /// Collects what was typed and checks it.
    pub(crate) fn load(
        matches: &ArgMatches,
        environment: &[(String, OsString)],
        default_file: &Path,
    ) -> Result<Self, ConfigError> {
        Self::from_given(&Given::gather(matches, environment, default_file)?)
    }

    /// Checks each setting alone, then those that depend on each other.
    pub(crate) fn from_given(given: &Given) -> Result<Self, ConfigError> {
        let draft = given.draft()?;
        let master_key = master_key(given, &draft)?;
        let certificate = certificate(given, &draft)?;
        let mut config = draft.config;
        config.master_key = master_key;
        config.certificate = certificate;
        config.sealing_key_file = draft.sealing_key_file.unwrap_or_default();
        config.key_ring_file = draft.key_ring_file.unwrap_or_default();
        check_key_files(given, &config)?;
        check_listeners(given, &config)?;
        if config.limits.part_size_recommended < config.limits.part_size_min {
            let least = config.limits.part_size_min;
            let problem = format!("must be at least limits.part_size_min, which is {least}");
            return Err(given.wrong("limits.part_size_recommended", problem));
        }
        if config.catalog.wal_pages_hard <= config.catalog.wal_pages_soft {
            let soft = config.catalog.wal_pages_soft;
            let problem = format!("must be more than catalog.wal_pages_soft, which is {soft}");
            return Err(given.wrong("catalog.wal_pages_hard", problem));
        }
        Ok(config)
    }

    /// The defaults on free ports, changed by `settings`: keys of the table with their texts, a later
    /// one in the place of an earlier one.
    pub(crate) fn on_free_ports(
        data_dir: &Path,
        settings: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut typed = BTreeMap::new();
        let mut put = |key: &str, text: String| {
            let known = SETTINGS.iter().map(|setting| setting.key);
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                let nearest = nearest(key, known).to_owned();
                return Err(ConfigError::Unknown { what: quoted(key), nearest });
            };
            typed.insert(setting.key, Typed { text, origin: Origin::Program });
            Ok(())
        };
        put("data_dir", data_dir.display().to_string())?;
        put("listen", "127.0.0.1:0".to_owned())?;
        put("admin_listen", "127.0.0.1:0".to_owned())?;
        for (key, text) in settings {
            put(key, text.clone())?;
        }
        Self::from_given(&Given { typed, file: None })
    }
}

/// Both halves of the master application key, or neither.
fn master_key(given: &Given, draft: &Draft) -> Result<Option<(AccountId, Secret)>, ConfigError> {
    let (secret, from) = match (&draft.master_key, &draft.master_key_file) {
        (Some(_), Some(_)) => {
            let other = given.origin("master_key");
            let problem = format!("goes without master_key, which came from {other}; drop one");
            return Err(given.wrong("master_key_file", problem));
        }
        (Some(secret), None) => (Some(secret.clone()), "master_key"),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                let problem = format!("cannot read {}: {}", file.display(), reason(&error));
                given.wrong("master_key_file", problem)
            })?;
            let secret = master_secret(text.trim()).map_err(|problem| {
                given.wrong("master_key_file", format!("the secret in it {problem}"))
            })?;
            (Some(secret), "master_key_file")
        }
        (None, None) => (None, "master_key"),
    };
    match (draft.master_key_id, secret) {
        (Some(id), Some(secret)) => Ok(Some((id, secret))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(given.wrong(
            "master_key_id",
            "needs its secret: set KILN_MASTER_KEY or KILN_MASTER_KEY_FILE, or leave out both",
        )),
        (None, Some(_)) => Err(given.wrong(
            from,
            "needs its id: set KILN_MASTER_KEY_ID to 12 lower-case hex digits, or leave out both",
        )),
    }
}

/// Both files of a certificate, one of our own, or none.
fn certificate(given: &Given, draft: &Draft) -> Result<Option<Certificate>, ConfigError> {
    match (&draft.tls_cert, &draft.tls_key) {
        (Some(_), _) | (_, Some(_)) if draft.tls_self_signed => {
            Err(given.wrong("tls_self_signed", "goes without tls_cert and tls_key; drop one"))
        }
        (Some(certificate), Some(key)) => Ok(Some(Certificate::Files(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        }))),
        (Some(_), None) => Err(given.wrong("tls_cert", "needs its private key: give tls_key")),
        (None, Some(_)) => Err(given.wrong("tls_key", "needs its certificate: give tls_cert")),
        (None, None) => Ok(draft.tls_self_signed.then_some(Certificate::SelfSigned)),
    }
}

/// A mapped address such as `::ffff:127.0.0.1` is loopback too.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The two hold different things, and each is written anew as a whole.
fn check_key_files(given: &Given, config: &Config) -> Result<(), ConfigError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if absolute(&config.sealing_key_file) == absolute(&config.key_ring_file) {
        let problem = "must be another file than sealing_key_file".to_owned();
        return Err(given.wrong("key_ring_file", problem));
    }
    Ok(())
}

fn check_listeners(given: &Given, config: &Config) -> Result<(), ConfigError> {
    let listeners = [("listen", config.listen), ("admin_listen", config.admin_listen)];
    for (key, at) in listeners.into_iter().filter(|(_, at)| !is_loopback(*at)) {
        if config.test_controls {
            let problem = format!("{at} is not loopback, and test_controls are for loopback only");
            return Err(given.wrong(key, problem));
        }
        let speaks_tls = key == "listen" && config.certificate.is_some();
        if !config.insecure_http && !speaks_tls {
            let remedy = if key == "listen" {
                "give --tls-cert and --tls-key, put a TLS proxy in front and pass --insecure-http"
            } else {
                "put a TLS proxy in front and pass --insecure-http"
            };
            let problem = format!(
                "{at} is not loopback and would speak plain HTTP: {remedy}, or listen on 127.0.0.1"
            );
            return Err(given.wrong(key, problem));
        }
    }
    let (data, admin) = (config.listen, config.admin_listen);
    let meets =
        data.ip() == admin.ip() || data.ip().is_unspecified() || admin.ip().is_unspecified();
    if data.port() != 0 && data.port() == admin.port() && meets {
        let (key, other, at) = if given.typed.contains_key("admin_listen") {
            ("admin_listen", "listen", data)
        } else {
            ("listen", "admin_listen", admin)
        };
        return Err(given.wrong(key, format!("must differ from {other}, which is {at}")));
    }
    Ok(())
}

/// The flags of all settings and `--config`, for every command.
pub(crate) fn flags() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("PATH")
        .global(true)
        .help_heading(GROUPS[0].heading)
        .help(format!(
            "TOML file with settings [default: {DEFAULT_FILE} if it is there] [env: KILN_CONFIG]"
        ));
    let settings = SETTINGS
        .iter()
        .zip(FLAG_NAMES.iter())
        .filter(|(setting, _)| !matches!(setting.shape, Sealed))
        .map(|(setting, name)| flag(setting, name));
    std::iter::once(config).chain(settings).collect()
}

/// The names of all flags, in the order of the table; the parser keeps names for ever.
static FLAG_NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| SETTINGS.iter().map(Setting::flag).collect());

fn flag(setting: &Setting, name: &'static str) -> Arg {
    let words = setting.preset_words();
    let arg = Arg::new(setting.key)
        .long(name)
        .global(true)
        .action(ArgAction::Set)
        .help_heading(setting.group().heading)
        .help(format!("{} [default: {words}] [env: {}]", setting.help, setting.variable()))
        // The short help shows what a first run may need, the long help everything.
        .hide_short_help(!setting.group().section.is_empty());
    match setting.shape {
        Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("true|false"),
        Plain(name) => arg.value_name(name),
        List(name) => arg.value_name(name).action(ArgAction::Append),
        Sealed => arg,
    }
}

/// What a flag was given, with commas between where it was repeated.
fn flag_values(matches: &ArgMatches, id: &str) -> Option<String> {
    let texts = matches.try_get_many::<String>(id).ok().flatten()?;
    let texts: Vec<&str> = texts.map(String::as_str).collect();
    (matches.value_source(id) == Some(ValueSource::CommandLine)).then(|| texts.join(","))
}

fn variable(setting: &Setting, name: &str, value: &OsString) -> Result<Typed, ConfigError> {
    let origin = Origin::Variable(name.to_owned());
    let Some(text) = value.to_str() else {
        let problem = "is not UTF-8".to_owned();
        return Err(ConfigError::Wrong { key: setting.key, origin, problem });
    };
    Ok(Typed { text: text.to_owned(), origin })
}

/// Holds the token of a remote for the command that makes or changes one, so that it need not stand
/// on a command line.
pub(crate) const REMOTE_TOKEN_VARIABLE: &str = "KILN_REMOTE_API_TOKEN";

/// Variables that begin like ours without being meant as settings: what one command reads, those of
/// test harnesses, and those that container platforms make for a service which happens to be called
/// kiln.
fn is_foreign(name: &str, value: &OsString) -> bool {
    let points_to_a_service =
        value.to_str().is_some_and(|text| ["tcp://", "udp://"].iter().any(|s| text.starts_with(s)));
    !name.starts_with(PREFIX)
        || name == REMOTE_TOKEN_VARIABLE
        || name.starts_with("KILN_TEST_")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
        || (name.ends_with("_PORT") && points_to_a_service)
}

fn unknown_variable(name: &str) -> ConfigError {
    let bare = name.trim_start_matches(PREFIX).to_ascii_lowercase();
    let known = SETTINGS.iter().map(|setting| setting.key).chain(["config"]);
    ConfigError::Unknown {
        what: format!("environment variable {}", name.escape_debug()),
        nearest: variable_name(nearest(&bare, known)),
    }
}

fn read_file(
    named: Option<PathBuf>,
    default_file: &Path,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let must_be_there = named.is_some();
    let path = named.unwrap_or_else(|| default_file.to_owned());
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be_there => Ok(None),
        Err(error) => Err(ConfigError::File {
            place: path,
            problem: format!("cannot be read: {}", reason(&error)),
        }),
    }
}

/// Operators know "No such file or directory"; the error number behind it says nothing more.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_owned())
}

fn file_values(
    path: &Path,
    text: &str,
    typed: &mut BTreeMap<&'static str, Typed>,
) -> Result<(), ConfigError> {
    let root = DeTable::parse(text).map_err(|error| {
        let line = line_at(text, error.span().map_or(0, |span| span.start));
        let words: Vec<&str> = error.message().split_whitespace().collect();
        ConfigError::File {
            place: path.to_owned(),
            problem: format!("line {line}: {}", words.join(" ")),
        }
    })?;
    let mut open: Vec<(String, &DeTable<'_>)> = vec![(String::new(), root.get_ref())];
    while let Some((section, table)) = open.pop() {
        for (name, value) in table {
            let key = format!("{section}{}", name.get_ref());
            let line = line_at(text, name.span().start);
            let origin = Origin::File { path: path.to_owned(), line };
            let setting = SETTINGS.iter().find(|setting| setting.key == key);
            let below = format!("{key}.");
            let is_section = SETTINGS.iter().any(|setting| setting.key.starts_with(&below));
            match (setting, value.get_ref()) {
                (None, DeValue::Table(inner)) if is_section => open.push((below, inner)),
                (Some(setting), _) => {
                    let (text, wanted) = match setting.shape {
                        List(_) => (list(value), "must be a string or an array of strings"),
                        Plain(_) | Switch | Sealed => {
                            (scalar(value), "must be a string, a whole number, true or false")
                        }
                    };
                    let text = text.ok_or_else(|| ConfigError::Wrong {
                        key: setting.key,
                        origin: origin.clone(),
                        problem: wanted.to_owned(),
                    })?;
                    typed.insert(setting.key, Typed { text, origin });
                }
                (None, _) => {
                    let known = SETTINGS.iter().map(|setting| setting.key);
                    return Err(ConfigError::Unknown {
                        what: format!("{origin}: {}", quoted(&key)),
                        nearest: nearest(&key, known).to_owned(),
                    });
                }
            }
        }
    }
    Ok(())
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// A string, or the strings of an array with commas between them.
fn list(value: &Spanned<DeValue<'_>>) -> Option<String> {
    let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::String(text) => Some(text.clone().into_owned()),
        _ => None,
    };
    match value.get_ref() {
        DeValue::Array(values) => {
            let texts: Option<Vec<String>> = values.iter().map(text).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => text(value),
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|&b| b == b'\n').count() + 1
}

/// In quotes, on one line and not too long, whatever was typed.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("\"{}{dots}\"", short.escape_debug())
}

/// The known key that looks most like `name`, whose dots may be lost or whose table is missing.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> &'static str {
    let name = name.replace('.', "_");
    let apart = |key: &str| {
        let last = key.rsplit('.').next().unwrap_or(key);
        distance(&name, &key.replace('.', "_")).min(distance(&name, last) + 1)
    };
    known.min_by_key(|key| apart(key)).unwrap_or_default()
}

/// How many characters must be put in, taken out or exchanged to turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, letter) in from.chars().take(200).enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (at, &other) in to.iter().enumerate() {
            let exchanged = diagonal + usize::from(letter != other);
            diagonal = row[at + 1];
            row[at + 1] = exchanged.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    const ID: &str = "0123456789ab";
    const KEY: &str = "K000qW3rTy-uI0p+aS/dF";

    /// Settings as if typed on the command line, in the environment and in a file.
    struct Places {
        flags: Vec<String>,
        variables: Vec<(String, OsString)>,
        folder: tempfile::TempDir,
    }

    impl Places {
        fn none() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { flags: vec!["kiln".to_owned()], variables: Vec::new(), folder }
        }

        fn flag(mut self, text: &str) -> Self {
            self.flags.push(text.to_owned());
            self
        }

        fn variable(mut self, name: &str, value: &str) -> Self {
            self.variables.push((name.to_owned(), OsString::from(value)));
            self
        }

        fn file(self, text: &str) -> Self {
            std::fs::write(self.default_file(), text).unwrap();
            self
        }

        fn default_file(&self) -> PathBuf {
            self.folder.path().join("kiln.toml")
        }

        fn given(&self) -> Result<Given, ConfigError> {
            let matches = Command::new("kiln").args(flags()).get_matches_from(&self.flags);
            Given::gather(&matches, &self.variables, &self.default_file())
        }

        fn config(&self) -> Result<Config, ConfigError> {
            Config::from_given(&self.given()?)
        }

        /// The one line that is printed, with the temporary folder's name taken out.
        fn complaint(&self) -> String {
            let line = self.config().expect_err("must be refused").to_string();
            assert!(!line.contains('\n'), "one line: {line}");
            line.replace(&format!("{}/", self.folder.path().display()), "")
        }
    }

    fn variable_of(key: &str, value: &str) -> Places {
        Places::none().variable(&variable_name(key), value)
    }

    /// For each setting: texts that are taken, texts that are refused.
    const EXAMPLES: &[(&str, &[&str], &[&str])] = &[
        ("data_dir", &["/srv/kiln", "a b"], &["", "a\0b"]),
        (
            "listen",
            &["127.0.0.1:0", "[::1]:80"],
            &["localhost:9700", ":9700", "127.0.0.1", "", "x"],
        ),
        ("admin_listen", &["127.0.0.1:0", "[::ffff:127.0.0.1]:80"], &["9701", "127.0.0.1:70000"]),
        (
            "public_url",
            &["http://b2.example.org", "https://[2001:db8::1]:8443/", "http://10.0.0.1:9700"],
            &[
                "b2.example.org",
                "ftp://b2.example.org",
                "https://",
                "https://b2.example.org/path",
                "https://b2.example.org?query",
                "https://user@b2.example.org",
                "https://b2.example.org:0",
                "https://b2.example.org:",
                "https://b2.example.org:+1",
                "https://[::1]x",
                "https://[::1]:",
                "https://[::g]",
                "https://a b",
            ],
        ),
        ("ready_file", &["ready.json"], &[""]),
        ("insecure_http", &["true", "false", "1", "0"], &["yes", "TRUE", ""]),
        ("tls_cert", &[], &[""]),
        ("tls_key", &[], &[""]),
        ("tls_self_signed", &["true", "false"], &["on"]),
        ("test_controls", &["true", "false"], &["on"]),
        ("test_mode", &["true", "false"], &["off"]),
        ("master_key_id", &[], &["", "0123456789AB", "0123456789a", "0123456789abc", "a"]),
        ("master_key", &[], &["", "K000qW3rTy-uI0p+aS/", "aaaaaaaaaaaaaaaaaaaaaaaa"]),
        ("master_key_file", &[], &["", "/nonexistent/file"]),
        ("sealing_key_file", &["/run/keys/sealing"], &[""]),
        ("key_ring_file", &["/run/keys/ring"], &[""]),
        ("region", &["eu-central-003", "x"], &["", "US", "a.b", "a_b"]),
        ("log.format", &["text", "json"], &["JSON", "xml"]),
        (
            "log.level",
            &["error", "warn", "info", "debug", "trace"],
            &["warning", "off", "kiln=debug"],
        ),
        ("http.workers", &["1", "256"], &["0", "257", "-1", "+1", "1.0", "1e2", " 1", "many", ""]),
        ("http.idle_timeout_s", &["1", "3600"], &["0", "3601", "30s"]),
        ("http.json_bytes_max", &["1024", "67108864"], &["1023", "67108865", "1M"]),
        ("http.trusted_proxies", &["127.0.0.1", "::1,192.0.2.1"], &["", "proxy", "127.0.0.1:80"]),
        ("limits.buckets", &["1", "1000000"], &["0", "1000001"]),
        ("limits.part_size_recommended", &["5000000", "5000000000"], &["4999999", "5000000001"]),
        ("limits.part_size_min", &["1", "100000000"], &["0", "100000001"]),
        ("blobs.inline_max", &["0", "1048576"], &["1048577"]),
        ("blobs.grace_s", &["0", "2592000"], &["2592001"]),
        ("locks.clock_tolerance_s", &["60", "31536000"], &["59", "31536001", "-1"]),
        ("catalog.read_connections", &["1", "256"], &["0", "257"]),
        ("catalog.wal_pages_soft", &["1", "63999"], &["0", "64000"]),
        ("catalog.wal_pages_hard", &["4001", "10000000"], &["4000", "10000001"]),
        ("uploads.custom_timestamps", &["true"], &["2"]),
        ("auth.strict_v4_keys", &["true"], &["2"]),
        ("auth.strict_cors_tokens", &["true"], &["no"]),
        ("s3.profile", &["backblaze", "extended"], &["Backblaze", "aws"]),
        ("s3.domain", &["localhost", "s3.example.org,b.example"], &["a..b", "a:80", ",", "a_b"]),
        ("s3.allow_master_key", &["true", "false"], &["master"]),
        ("s3.lenient_region", &["true", "false"], &["us-east-1"]),
        ("s3.checksum_support", &["accept", "reject"], &["Accept", "yes"]),
        ("encryption.default", &["none", "sse-b2"], &["", "SSE-B2", "sse-c", "true"]),
        ("replication.accept_empty_rules", &["true"], &["2"]),
        ("replication.accept_priority_zero", &["true"], &["2"]),
        ("replication.accept_peers", &["true"], &["2"]),
        ("replication.large_metadata", &["skip", "copy"], &["drop"]),
        ("replication.mapping_grace_ms", &["0", "604800000"], &["-1", "604800001"]),
        ("replication.workers", &["1", "256"], &["0", "257"]),
        ("replication.target_max_inflight", &["1", "256"], &["0", "257"]),
        ("replication.bandwidth_bytes_per_second", &["0", "1000000000000"], &["-1", "1k"]),
        ("replication.ca_file", &["/etc/ssl/own-ca.pem"], &[""]),
        ("streams.on_data_listener", &["true"], &["2"]),
        ("notifications.allow_private_targets", &["true"], &["2"]),
        ("notifications.allow_http", &["true"], &["2"]),
        ("notifications.ca_file", &["/etc/ssl/own-ca.pem"], &[""]),
        ("notifications.queue_max", &["1", "1000000"], &["0", "1000001"]),
        ("notifications.workers", &["1", "256"], &["0", "257"]),
    ];

    #[test]
    fn each_setting_takes_what_it_should_and_refuses_the_rest_naming_itself() {
        let named: Vec<&str> = EXAMPLES.iter().map(|(key, ..)| *key).collect();
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(named, known, "every setting has examples");
        for (key, right, wrong) in EXAMPLES {
            for text in *right {
                let config = variable_of(key, text).config();
                assert!(config.is_ok(), "{key} = {text}: {config:?}");
            }
            for text in *wrong {
                let line = variable_of(key, text).complaint();
                // Settings that depend on each other may be told from either side.
                let table = key.split('_').next().unwrap();
                assert!(line.starts_with(table), "{key} = {text}: {line}");
            }
        }
    }

    #[test]
    fn each_accepted_text_arrives_in_the_configuration() {
        for (key, right, _) in EXAMPLES {
            for text in *right {
                let given = variable_of(key, text).given().unwrap();
                let rows = given.explain().unwrap();
                let row = rows.iter().find(|row| row.key == *key).unwrap();
                let shown = row.value.to_string();
                let expected = match *text {
                    "1" if row.value.is_boolean() => "true",
                    "0" if row.value.is_boolean() => "false",
                    other => other.trim_end_matches('/'),
                };
                assert_eq!(shown.trim_matches('"'), expected, "{key}");
                assert_eq!(row.origin, Origin::Variable(variable_name(key)));
            }
        }
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = Places::none().config().unwrap();
        assert_eq!(config.data_dir, Path::new("./kiln-data"));
        assert_eq!(config.sealing_key_file, Path::new("./kiln-data/sealing.key"));
        assert_eq!(config.key_ring_file, Path::new("./kiln-data/key-ring"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:9700");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9701");
        assert_eq!((config.public_url, config.ready_file), (None, None));
        assert_eq!(config.master_key, None);
        assert!(!config.insecure_http && !config.test_controls);
        assert_eq!(config.region, "us-west-000");
        assert_eq!((config.log.format, config.log.level), (LogFormat::Text, LogLevel::Info));
        assert!((1..=256).contains(&config.http.workers));
        assert_eq!((config.http.idle_timeout_s, config.http.json_bytes_max), (30, 1_048_576));
        assert_eq!(config.limits.buckets, 100);
        assert_eq!(config.limits.part_size_recommended, 100_000_000);
        assert_eq!(config.limits.part_size_min, 5_000_000);
        assert_eq!((config.blobs.inline_max, config.blobs.grace_s), (16_384, 60));
        assert_eq!(config.locks.clock_tolerance_s, 86_400);
        assert_eq!(config.catalog.read_connections, 8);
        assert_eq!((config.catalog.wal_pages_soft, config.catalog.wal_pages_hard), (4000, 64_000));
        assert!(!config.auth.strict_v4_keys && !config.uploads.custom_timestamps);
        let replication = config.replication;
        assert!(!replication.accept_empty_rules && !replication.accept_priority_zero);
        assert!(!replication.accept_peers);
        assert_eq!(replication.large_metadata, LargeMetadata::Skip);
        assert_eq!(replication.mapping_grace_ms, 0);
        assert_eq!((replication.workers, replication.target_max_inflight), (8, 4));
        assert_eq!((replication.bandwidth_bytes_per_second, replication.ca_file), (0, None));
    }

    #[test]
    fn the_key_ring_is_not_the_file_of_the_sealing_key() {
        for ring in ["keys", "./keys", ".//keys"] {
            let file = format!("sealing_key_file = \"keys\"\nkey_ring_file = \"{ring}\"\n");
            let text = Places::none().file(&file).complaint();
            assert!(text.contains("key_ring_file") && text.contains("another file"), "{text}");
        }
    }

    #[test]
    fn programs_get_the_defaults_on_free_ports() {
        let config = Config::on_free_ports(Path::new("folder"), &[]).unwrap();
        assert_eq!((config.listen.port(), config.admin_listen.port()), (0, 0));
        assert_eq!(config.sealing_key_file, Path::new("folder/sealing.key"));
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "[http]\nworkers = 3\n";
        let workers = |places: &Places| places.config().unwrap().http.workers;
        let by_file = Places::none().file(file);
        assert_eq!(workers(&by_file), 3);
        let by_variable = by_file.variable("KILN_HTTP_WORKERS", "4");
        assert_eq!(workers(&by_variable), 4);
        let by_flag = by_variable.flag("--http-workers=5");
        assert_eq!(workers(&by_flag), 5);
        let rows = by_flag.given().unwrap().explain().unwrap();
        let row = rows.iter().find(|row| row.key == "http.workers").unwrap();
        assert_eq!(row.origin.to_string(), "flag --http-workers");
    }

    #[test]
    fn lists_are_flags_again_and_again_arrays_or_texts_with_commas() {
        let domains = |places: Places| places.config().unwrap().s3.domain.0;
        let both = ["a.example", "b.example"].map(str::to_owned);
        let flags = Places::none().flag("--s3-domain=a.example").flag("--s3-domain");
        assert_eq!(domains(flags.flag("B.example")), both);
        assert_eq!(domains(Places::none().flag("--s3-domain=a.example,b.example")), both);
        assert_eq!(domains(variable_of("s3.domain", "a.example, b.example")), both);
        for file in ["domain = [\"a.example\", 'b.example']", "domain = \"a.example,b.example\""] {
            assert_eq!(domains(Places::none().file(&format!("[s3]\n{file}\n"))), both);
        }
        let proxies = "[http]\ntrusted_proxies = ['127.0.0.1', '::1']\n";
        assert_eq!(Places::none().file(proxies).config().unwrap().http.trusted_proxies.0.len(), 2);
        for wrong in ["[1]", "[['a']]", "1", "{}"] {
            let line = Places::none().file(&format!("[s3]\ndomain = {wrong}\n")).complaint();
            assert_eq!(line, "s3.domain (kiln.toml:2): must be a string or an array of strings");
        }
        let line = Places::none().file("[s3]\ndomain = []\n").complaint();
        assert!(line.starts_with("s3.domain (kiln.toml:2): is empty"), "{line}");
    }

    #[test]
    fn a_switch_may_be_turned_off_again_by_a_flag() {
        let on = Places::none().file("insecure_http = true\n");
        assert!(on.config().unwrap().insecure_http);
        assert!(!on.flag("--insecure-http=false").config().unwrap().insecure_http);
        let bare = Places::none().flag("--auth-strict-v4-keys").flag("--region").flag("x");
        let config = bare.config().unwrap();
        assert!(config.auth.strict_v4_keys && config.region == "x");
    }

    #[test]
    fn a_named_file_must_be_there_and_the_default_one_need_not() {
        assert!(Places::none().config().is_ok());
        let missing = Places::none().flag("--config=/nonexistent/kiln.toml");
        assert_eq!(
            missing.complaint(),
            "configuration file /nonexistent/kiln.toml: cannot be read: No such file or directory"
        );
        let missing = Places::none().variable("KILN_CONFIG", "/nonexistent/kiln.toml");
        assert!(missing.config().is_err());
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.toml");
        std::fs::write(&other, "region = \"other\"\n").unwrap();
        let named = Places::none()
            .file("region = \"default\"\n")
            .variable("KILN_CONFIG", "/nonexistent/kiln.toml")
            .flag(&format!("--config={}", other.display()));
        assert_eq!(named.config().unwrap().region, "other", "the flag wins here too");
        assert_eq!(named.given().unwrap().file, Some(other));
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line_and_the_nearest_key() {
        let table = [
            ("[http]\n\nworker = 1\n", "kiln.toml:3: \"http.worker\"", "http.workers"),
            ("workers = 1\n", "kiln.toml:1: \"workers\"", "http.workers"),
            ("admin-listen = \"x\"\n", "kiln.toml:1: \"admin-listen\"", "admin_listen"),
            ("# one\n[logs]\n", "kiln.toml:2: \"logs\"", "log.level"),
            ("log = \"debug\"\n", "kiln.toml:1: \"log\"", "log.level"),
            (
                "replication.worker = 1\n",
                "kiln.toml:1: \"replication.worker\"",
                "replication.workers",
            ),
        ];
        for (file, what, nearest) in table {
            let line = Places::none().file(file).complaint();
            assert!(line.starts_with(what), "{line}");
            assert!(nearest == "log.level" || line.ends_with(nearest), "{line}");
        }
    }

    #[test]
    fn unknown_variables_of_ours_are_refused_with_the_nearest_one() {
        let table = [
            ("KILN_HTTP_WORKER", "KILN_HTTP_WORKERS"),
            ("KILN_WORKERS", "KILN_HTTP_WORKERS"),
            ("KILN_DATADIR", "KILN_DATA_DIR"),
            ("KILN_CONFIGS", "KILN_CONFIG"),
            ("KILN_listen", "KILN_LISTEN"),
        ];
        for (name, nearest) in table {
            assert_eq!(
                Places::none().variable(name, "1").complaint(),
                format!("environment variable {name} is not a setting; the nearest is {nearest}")
            );
        }
    }

    #[test]
    fn variables_of_test_harnesses_and_container_platforms_are_left_alone() {
        let places = Places::none()
            .variable("KILN_TEST_ANYTHING", "1")
            .variable(REMOTE_TOKEN_VARIABLE, "id:secret")
            .variable("KILN_SERVICE_HOST", "10.0.0.1")
            .variable("KILN_SERVICE_PORT_HTTP", "9700")
            .variable("KILN_PORT", "tcp://10.0.0.1:9700")
            .variable("KILN_PORT_9700_TCP_ADDR", "10.0.0.1")
            .variable("HOME", "anywhere");
        assert!(places.config().is_ok());
        assert!(Places::none().variable("KILN_PORT", "9700").config().is_err());
        assert!(
            Places::none().variable("KILN_TEST_CONTROLS", "true").config().unwrap().test_controls
        );
    }

    #[test]
    fn complaints_name_the_setting_and_where_it_came_from() {
        let table = [
            (
                Places::none().flag("--http-workers=0"),
                "http.workers (flag --http-workers): must be a whole number from 1 to 256, not \"0\"",
            ),
            (
                variable_of("log.format", "xml\n"),
                "log.format (environment variable KILN_LOG_FORMAT): must be one of text, json, not \
                 \"xml\\n\"",
            ),
            (
                Places::none().file("\n[http]\nworkers = 1.5\n"),
                "http.workers (kiln.toml:3): must be a string, a whole number, true or false",
            ),
            (
                Places::none().file("[data_dir]\n"),
                "data_dir (kiln.toml:1): must be a string, a whole number, true or false",
            ),
            (
                Places::none().file("region = \"\"\n"),
                "region (kiln.toml:1): is empty: give a value or leave it out",
            ),
        ];
        for (places, complaint) in table {
            assert_eq!(places.complaint(), complaint);
        }
        let line = Places::none().file("region = \"a\"\nregion = \"b\"\n").complaint();
        assert!(line.starts_with("configuration file kiln.toml: line 2: "), "{line}");
        let line = Places::none().file("region = [\n\n").complaint();
        assert!(line.starts_with("configuration file kiln.toml: line "), "{line}");
    }

    #[test]
    fn numbers_in_a_file_may_use_every_form_of_toml() {
        let config = Places::none()
            .file(
                "[limits]\npart_size_min = 0x10\npart_size_recommended = 1_000\nbuckets = \"7\"\n",
            )
            .config()
            .unwrap();
        assert_eq!((config.limits.part_size_min, config.limits.part_size_recommended), (16, 1000));
        assert_eq!(config.limits.buckets, 7);
    }

    #[test]
    fn the_master_key_comes_with_both_halves_or_not_at_all() {
        let both = variable_of("master_key_id", ID).variable("KILN_MASTER_KEY", KEY);
        let (id, secret) = both.config().unwrap().master_key.unwrap();
        assert_eq!((id.to_string().as_str(), secret.expose()), (ID, KEY));
        assert!(variable_of("master_key_id", ID).complaint().starts_with("master_key_id"));
        assert!(variable_of("master_key", KEY).complaint().starts_with("master_key ("));
        let by_flag = variable_of("master_key", KEY).flag(&format!("--master-key-id={ID}"));
        assert!(by_flag.config().unwrap().master_key.is_some());
    }

    #[test]
    fn the_master_secret_may_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{KEY}\n")).unwrap();
        let places = variable_of("master_key_file", file.to_str().unwrap())
            .variable("KILN_MASTER_KEY_ID", ID);
        assert_eq!(places.config().unwrap().master_key.unwrap().1.expose(), KEY);
        let twice = places.variable("KILN_MASTER_KEY", KEY).complaint();
        assert!(twice.starts_with("master_key_file") && !twice.contains(KEY), "{twice}");
        std::fs::write(&file, "short").unwrap();
        let short = variable_of("master_key_file", file.to_str().unwrap()).complaint();
        assert!(short.ends_with("the secret in it must have at least 20 characters"), "{short}");
    }

    #[test]
    fn weak_secrets_are_refused_and_no_complaint_repeats_one() {
        let weak = [
            "K000qW3rTy-uI0p+aS/",
            "aaaaaaaaaaaaaaaaaaaaaaaaa",
            "abcabcabcabcabcabcabcabc",
            "MyPassword-0123456789-xyz",
            "changeme-0123456789-xyz-abc",
            "minioadminminioadmin-0123",
            "0123456789-some-Secret-abc",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "with a space 0123456789 abc",
            "caf\u{e9}0123456789-0123456789",
            "tab\t0123456789-0123456789",
        ];
        for secret in weak {
            let line = variable_of("master_key", secret).variable("KILN_MASTER_KEY_ID", ID);
            let line = line.complaint();
            assert!(line.starts_with("master_key ("), "{line}");
            assert!(!line.contains(secret), "{line}");
        }
    }

    #[test]
    fn secrets_are_masked_wherever_settings_are_shown() {
        let places = variable_of("master_key_id", ID).variable("KILN_MASTER_KEY", KEY);
        let given = places.given().unwrap();
        for row in given.explain().unwrap() {
            assert!(!row.value.to_string().contains(KEY), "{}", row.key);
            assert!(row.key != "master_key" || row.value == MASK);
        }
        assert!(!format!("{:?}", places.config().unwrap()).contains(KEY));
    }

    #[test]
    fn the_secret_is_no_flag() {
        assert!(flags().iter().all(|flag| flag.get_long() != Some("master-key")));
        assert_eq!(flags().len(), SETTINGS.len(), "all but the secret, and --config");
    }

    #[test]
    fn open_listeners_need_consent_and_test_controls_need_loopback() {
        for address in ["0.0.0.0:9800", "[::]:9800", "192.0.2.1:9800", "[::ffff:192.0.2.1]:9800"] {
            for key in ["listen", "admin_listen"] {
                let line = variable_of(key, address).complaint();
                assert!(line.starts_with(key) && line.contains("--insecure-http"), "{line}");
                let agreed = variable_of(key, address).flag("--insecure-http");
                assert!(agreed.config().is_ok());
                let line = agreed.flag("--test-controls").complaint();
                assert!(line.starts_with(key) && line.contains("test_controls"), "{line}");
            }
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_stands_in_for_consent() {
        let both = variable_of("tls_cert", "c.pem").variable("KILN_TLS_KEY", "k.pem");
        let files = TlsFiles { certificate: "c.pem".into(), key: "k.pem".into() };
        assert_eq!(both.config().unwrap().certificate, Some(Certificate::Files(files)));
        let own = variable_of("tls_self_signed", "true");
        assert_eq!(own.config().unwrap().certificate, Some(Certificate::SelfSigned));
        assert!(own.flag("--listen=0.0.0.0:9800").config().is_ok());
        let admin = variable_of("tls_self_signed", "true").flag("--admin-listen=0.0.0.0:9801");
        assert!(admin.complaint().starts_with("admin_listen"), "it speaks plain HTTP all the same");
        assert!(variable_of("tls_cert", "c.pem").complaint().contains("tls_key"));
        assert!(variable_of("tls_key", "k.pem").complaint().contains("tls_cert"));
        let all = both.flag("--tls-self-signed");
        assert!(all.complaint().starts_with("tls_self_signed"));
    }

    #[test]
    fn the_two_listeners_differ() {
        assert_eq!(
            variable_of("admin_listen", "127.0.0.1:9700").complaint(),
            "admin_listen (environment variable KILN_ADMIN_LISTEN): must differ from listen, which \
             is 127.0.0.1:9700"
        );
        let line = variable_of("listen", "127.0.0.1:9701").complaint();
        assert!(line.starts_with("listen"), "{line}");
        let covered = variable_of("listen", "0.0.0.0:9701").flag("--insecure-http");
        assert!(covered.complaint().starts_with("listen"));
        assert!(variable_of("listen", "127.0.0.2:9701").config().is_ok());
        let free = variable_of("listen", "127.0.0.1:0").flag("--admin-listen=127.0.0.1:0");
        assert!(free.config().is_ok());
    }

    #[test]
    fn every_setting_has_names_of_its_own() {
        let mut flags: Vec<String> = SETTINGS.iter().map(Setting::flag).collect();
        let mut variables: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
        for names in [&mut flags, &mut variables] {
            names.sort();
            names.dedup();
            assert_eq!(names.len(), SETTINGS.len());
        }
        let replication = SETTINGS.iter().find(|one| one.key == "replication.mapping_grace_ms");
        let replication = replication.unwrap();
        assert_eq!(replication.flag(), "replication-mapping-grace-ms");
        assert_eq!(replication.variable(), "KILN_REPLICATION_MAPPING_GRACE_MS");
    }

    #[test]
    fn distances_count_single_changes() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    /// docs/settings.md as it follows from the table.
    fn page() -> String {
        let mut page = "\
# Settings

This page follows from the table of settings in `src/config.rs`; a test compares the two and, run \
with `KILN_TEST_ACCEPT=1`, writes the page anew.

A setting `a.b_c` is given as the flag `--a-b-c`, as the environment variable `KILN_A_B_C`, or as \
`b_c` in the table `[a]` of a TOML file.
The flag wins over the variable, the variable over the file, the file over the default.
The file is the one that `--config` or `KILN_CONFIG` names, else `./kiln.toml` if it is there.
Relative paths start at the folder kiln is run in, wherever they were given.
A switch is true when its flag stands alone; `--flag=false` turns it off again.
Where values are given with commas between, the flag may be repeated instead, and the file may have an array of strings.

What is no setting is an error that names the nearest one: a key of the file, or a variable that \
begins with `KILN_`.
Only `KILN_REMOTE_API_TOKEN` (see [streams.md](streams.md)), variables that begin with `KILN_TEST_`, \
and those that container platforms make for a service called kiln (`KILN_SERVICE_HOST`, \
`KILN_PORT_9700_TCP` ...), are left alone.

`kiln config show` prints every setting with its value and where that came from, secrets masked; \
`kiln config check` only says whether all is right.
"
        .to_owned();
        for group in &GROUPS {
            let title = if group.section.is_empty() {
                group.heading.to_owned()
            } else {
                format!("{} `[{}]`", group.heading, group.section)
            };
            page.extend(["\n## ", &title, "\n\n"]);
            page += "| setting | flag | environment | default | meaning |\n|---|---|---|---|---|\n";
            for setting in SETTINGS.iter().filter(|one| one.group().section == group.section) {
                let flag = match setting.shape {
                    Plain(name) | List(name) => format!("`--{} {name}`", setting.flag()),
                    Switch => format!("`--{}`", setting.flag()),
                    Sealed => "none".to_owned(),
                };
                let preset = match setting.preset {
                    Text(text) => format!("`{text}`"),
                    Unset(words) | Computed(words, _) => words.to_owned(),
                };
                let (key, variable, help) = (setting.key, setting.variable(), setting.help);
                let row = format!("| `{key}` | {flag} | `{variable}` | {preset} | {help} |\n");
                page.push_str(&row);
            }
        }
        page
    }

    #[test]
    fn the_settings_page_lists_exactly_the_table() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
        if std::env::var_os("KILN_TEST_ACCEPT").is_some() {
            std::fs::write(&place, page()).unwrap();
        }
        let written = std::fs::read_to_string(place).unwrap();
        for (line, expected) in written.lines().zip(page().lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(written, page());
    }
}
