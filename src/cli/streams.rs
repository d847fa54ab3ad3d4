//! `kiln remote`, and what `kiln replication` does with streams: what can be asked for, the calls
//! that it takes, and how the answers look.
//!
//! The calls are those of InfluxDB's API, so that the command line can do what every client can, and
//! the flags and columns are those of its command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};
use serde_json::{Map, Value, json};

use super::{Form, fields, listing, text};
use crate::config::REMOTE_TOKEN_VARIABLE;
use crate::house::{AdminError, ApiCall};

// Switches take a value, so that what is on can be turned off again: --paused, --paused=false.

/// Performs one call.
pub(super) type Ask<'a> = &'a dyn Fn(ApiCall) -> Result<Value, AdminError>;

#[derive(Debug, Subcommand)]
pub(super) enum RemoteAction {
    /// Make a connection to another server: a kiln, Backblaze B2 or an S3 store.
    #[command(after_help = "\
Examples:
  export KILN_REMOTE_API_TOKEN=KEYID:APPLICATIONKEY
  kiln remote create --name offsite --remote-url https://kiln.example.org
  kiln remote create --name b2 --remote-url b2+https://api.backblazeb2.com
  kiln remote create --name s3 --remote-url 's3+https://s3.example.org?region=eu-1&style=path' \\
    --remote-api-token-file token.txt

The token is kept sealed and never shown again. Nothing is sent before there is a stream:
see `kiln replication create`.")]
    Create {
        /// Name of the connection.
        #[arg(short, long)]
        name: String,
        /// A text for people.
        #[arg(short, long)]
        description: Option<String>,
        /// Account the connection belongs to; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        /// Address of the other server, with peer+, b2+ or s3+ in front to say what speaks there.
        #[arg(long, value_name = "URL")]
        remote_url: String,
        #[command(flatten)]
        token: TokenFlags,
        /// Organization at the other server; kept for clients of InfluxDB, not used.
        #[arg(long, value_name = "ID")]
        remote_org_id: Option<String>,
        #[command(flatten)]
        more: RemoteFlags,
        #[command(flatten)]
        switches: RemoteSwitches,
        #[command(flatten)]
        form: Form,
    },
    /// List connections and whether they are reached.
    #[command(visible_aliases = ["find", "ls"], after_help = "Example:\n  kiln remote list --json")]
    List {
        /// Only the one of this name.
        #[arg(short, long)]
        name: Option<String>,
        /// Account whose connections to list; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        /// Only those to this address.
        #[arg(long, value_name = "URL")]
        remote_url: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Change a connection; what is not named stays. The next attempt uses what changed.
    #[command(after_help = "\
Example:
  KILN_REMOTE_API_TOKEN=KEYID:NEWKEY kiln remote update --id 0b00000000000001")]
    Update {
        /// The connection, as `kiln remote list` shows it.
        #[arg(short, long)]
        id: String,
        /// Another name.
        #[arg(short, long)]
        name: Option<String>,
        /// Another text for people.
        #[arg(short, long)]
        description: Option<String>,
        /// Account the connection belongs to; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        /// Another address.
        #[arg(long, value_name = "URL")]
        remote_url: Option<String>,
        #[command(flatten)]
        token: TokenFlags,
        /// Another organization at the other server.
        #[arg(long, value_name = "ID")]
        remote_org_id: Option<String>,
        #[command(flatten)]
        more: RemoteFlags,
        #[command(flatten)]
        switches: RemoteSwitches,
        #[command(flatten)]
        form: Form,
    },
    /// Delete a connection that no stream uses any more.
    #[command(after_help = "\
Example:
  kiln remote delete --id 0b00000000000001 --delete-replications")]
    Delete {
        /// The connection.
        #[arg(short, long)]
        id: String,
        /// Account the connection belongs to; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        /// Delete the streams that use it first, with what waits in their queues.
        #[arg(long)]
        delete_replications: bool,
        #[command(flatten)]
        form: Form,
    },
    /// List the buckets of another kiln that replication rules may lead to, add one or remove one.
    #[command(after_help = "\
Examples:
  kiln remote buckets --id 0b00000000000001 --add 4a48fe8875c6214145260818
  kiln remote buckets --id 0b00000000000001")]
    Buckets {
        /// The connection.
        #[arg(short, long)]
        id: String,
        /// Id of a bucket there that is from now on reached through this connection.
        #[arg(long, value_name = "ID", conflicts_with = "remove")]
        add: Option<String>,
        /// Id of a bucket there that is no longer reached.
        #[arg(long, value_name = "ID")]
        remove: Option<String>,
        /// Account the connection belongs to; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        #[command(flatten)]
        form: Form,
    },
}

/// Where the token comes from: not from the command line if that can be helped, where everybody on
/// the machine can read it.
#[derive(Debug, Args)]
pub(super) struct TokenFlags {
    /// What opens the other server: keyId:applicationKey, or for S3 accessKeyId:secret. Others on
    /// this machine can read command lines: better use the file, or `KILN_REMOTE_API_TOKEN`.
    #[arg(long, value_name = "TOKEN", conflicts_with = "remote_api_token_file")]
    remote_api_token: Option<String>,
    /// File whose content, without surrounding white space, is the token.
    #[arg(long, value_name = "PATH")]
    remote_api_token_file: Option<PathBuf>,
}

/// What may be said about a connection beyond InfluxDB's fields.
#[derive(Debug, Args)]
pub(super) struct RemoteFlags {
    /// What speaks there, when the address does not say it: peer, b2 or s3.
    #[arg(long, value_name = "TYPE", value_parser = ["peer", "b2", "s3"])]
    remote_type: Option<String>,
    /// Region that requests to an S3 store are signed for.
    #[arg(long, value_name = "NAME")]
    remote_region: Option<String>,
    /// How buckets of an S3 store are addressed: path or virtual.
    #[arg(long, value_name = "STYLE", value_parser = ["path", "virtual"])]
    addressing: Option<String>,
    /// Files under way to it at a time.
    #[arg(long, value_name = "N")]
    max_concurrency: Option<i64>,
    /// Bytes a second at most, of all streams to it together; 0 for no limit.
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(i64).range(0..))]
    bandwidth: Option<i64>,
    /// Another bandwidth at some time of the day, HH:MM-HH:MM=BYTES; may be given several times.
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    bandwidth_window: Vec<Window>,
    /// Bytes of a part of a large file.
    #[arg(long, value_name = "BYTES")]
    part_size: Option<i64>,
    /// From this size on a file goes in parts.
    #[arg(long, value_name = "BYTES")]
    multipart_threshold: Option<i64>,
    /// Where copies say what they are copies of: fileInfo or none.
    #[arg(long, value_name = "WHERE", value_parser = ["fileInfo", "none"])]
    marker: Option<String>,
}

/// A time of day and its bandwidth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window(String, String, i64);

fn window(text: &str) -> Result<Window, String> {
    let read = || {
        let (times, rate) = text.split_once('=')?;
        let (from, to) = times.split_once('-')?;
        Some(Window(from.to_owned(), to.to_owned(), rate.parse().ok()?))
    };
    read().ok_or_else(|| "must be HH:MM-HH:MM=BYTES such as 22:00-06:00=1048576".to_owned())
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct RemoteSwitches {
    /// Take any certificate of this server; =false takes none that the system does not trust.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    allow_insecure_tls: Option<bool>,
    /// The server is Backblaze B2 and lets this account set upload times.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    custom_timestamps: Option<bool>,
    /// Send nothing to it; =false goes on.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    paused: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(super) enum StreamAction {
    /// Make a stream: what is written to a bucket here is carried on to a bucket of a remote.
    #[command(
        group = clap::ArgGroup::new("from").required(true).args(["local_bucket_id", "local_bucket"]),
        group = clap::ArgGroup::new("to").required(true).args(["remote_bucket", "remote_bucket_id"]),
        after_help = "\
Examples:
  kiln replication create --name to-offsite --remote-id 0b00000000000001 \\
    --local-bucket photos --remote-bucket photos-copy
  kiln replication create --name logs --remote-id 0b00000000000001 --local-bucket logs \\
    --remote-bucket all-logs --destination-prefix site-7/ --include-existing-files --validate"
    )]
    Create {
        /// Name of the stream.
        #[arg(short, long)]
        name: String,
        /// A text for people.
        #[arg(short, long)]
        description: Option<String>,
        /// Account the stream belongs to; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        /// The remote, as `kiln remote list` shows it.
        #[arg(long, value_name = "ID")]
        remote_id: String,
        /// Id of the bucket here.
        #[arg(long, value_name = "ID")]
        local_bucket_id: Option<String>,
        /// Name of the bucket here.
        #[arg(long, value_name = "NAME")]
        local_bucket: Option<String>,
        #[command(flatten)]
        to: RemoteBucketFlags,
        #[command(flatten)]
        queue: QueueFlags,
        #[command(flatten)]
        more: StreamFlags,
        #[command(flatten)]
        switches: StreamSwitches,
        /// Only try whether the remote could be written to; make nothing.
        #[arg(long)]
        validate: bool,
        #[command(flatten)]
        form: Form,
    },
    /// List streams with their queues.
    #[command(visible_aliases = ["find", "ls"], after_help = "Example:\n  kiln replication list --json")]
    List {
        /// Only the one of this name.
        #[arg(short, long)]
        name: Option<String>,
        /// Account whose streams to list; without it, the first account.
        #[arg(long, value_name = "ID")]
        org_id: Option<String>,
        /// Only those to this remote.
        #[arg(long, value_name = "ID")]
        remote_id: Option<String>,
        /// Only those from this bucket.
        #[arg(long, value_name = "ID")]
        local_bucket_id: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Change a stream; what is not named stays.
    #[command(after_help = "\
Example:
  kiln replication update --id 0c00000000000001 --max-age 0 --drop-non-retryable-data")]
    Update {
        #[command(flatten)]
        at: StreamAt,
        /// Another name.
        #[arg(short, long)]
        name: Option<String>,
        /// Another text for people.
        #[arg(short, long)]
        description: Option<String>,
        /// Another remote.
        #[arg(long, value_name = "ID")]
        remote_id: Option<String>,
        #[command(flatten)]
        to: RemoteBucketFlags,
        #[command(flatten)]
        queue: QueueFlags,
        #[command(flatten)]
        more: StreamFlags,
        #[command(flatten)]
        switches: StreamSwitches,
        /// Only try whether the stream would still work; change nothing.
        #[arg(long)]
        validate: bool,
    },
    /// Delete a stream and its queue; what was carried stays at the remote.
    Delete(StreamAt),
    /// Try whether the remote can be written to; nothing is left there.
    Validate(StreamAt),
    /// Send nothing more; what comes waits in the queue.
    Pause(StreamAt),
    /// Go on with a paused stream.
    Resume(StreamAt),
    /// Empty the queue; what waited is not sent, files stay where they are.
    Purge(StreamAt),
    /// Carry files that are here already: those that never were, and those that are gone there.
    #[command(after_help = "\
Example:
  kiln replication resync --id 0c00000000000001 --prefix 2026/ --dry-run")]
    Resync {
        #[command(flatten)]
        at: StreamAt,
        /// Only files uploaded before this moment, such as 2026-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        older_than: Option<String>,
        /// Only files whose names begin so.
        #[arg(long)]
        prefix: Option<String>,
        /// Only count them.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the files of a stream and how far each is.
    #[command(after_help = "\
Example:
  kiln replication files --id 0c00000000000001 --state parked")]
    Files {
        #[command(flatten)]
        at: StreamAt,
        /// Only files in this state.
        #[arg(long, value_parser = super::state_names())]
        state: Option<String>,
        /// Only files after this one: the last number of the page before.
        #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(0..))]
        after: Option<i64>,
        /// Most files to list, 1 to 1000 [default: 100].
        #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
        limit: Option<u16>,
    },
    /// Compare both sides, name by name, and say what is missing or different there.
    #[command(after_help = "\
Example:
  kiln replication diff --id 0c00000000000001

What it finds is carried again by `kiln replication resync`.")]
    Diff {
        #[command(flatten)]
        at: StreamAt,
        /// Go on here: what the page before said.
        #[arg(long, value_name = "MARK")]
        from: Option<String>,
    },
}

/// Which stream is meant.
#[derive(Debug, Args)]
pub(super) struct StreamAt {
    /// The stream, as `kiln replication list` shows it.
    #[arg(short, long)]
    id: String,
    /// Account the stream belongs to; without it, the first account.
    #[arg(long, value_name = "ID")]
    org_id: Option<String>,
    #[command(flatten)]
    form: Form,
}

/// The bucket at the remote.
#[derive(Debug, Args)]
pub(super) struct RemoteBucketFlags {
    /// Name of the bucket there.
    #[arg(long, value_name = "NAME", conflicts_with = "remote_bucket_id")]
    remote_bucket: Option<String>,
    /// Id of the bucket there.
    #[arg(long, value_name = "ID")]
    remote_bucket_id: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct QueueFlags {
    /// What may wait in the queue, at least 33554430 [default: 67108860].
    #[arg(long, value_name = "BYTES")]
    max_queue_bytes: Option<i64>,
    /// Seconds that a file may wait before it is given up, 0 for ever [default: 604800].
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<i64>,
    /// Give a file up that the remote refuses for good.
    #[arg(long, conflicts_with = "no_drop_non_retryable_data")]
    drop_non_retryable_data: bool,
    /// Keep such a file in the queue and try it again now and then.
    #[arg(long)]
    no_drop_non_retryable_data: bool,
}

/// What may be said about a stream beyond InfluxDB's fields.
#[derive(Debug, Args)]
pub(super) struct StreamFlags {
    /// Only files whose names begin so.
    #[arg(long, value_name = "PREFIX")]
    file_name_prefix: Option<String>,
    /// No files whose names begin so; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    exclude_prefix: Vec<String>,
    /// Put this in front of names there.
    #[arg(long, value_name = "PREFIX")]
    destination_prefix: Option<String>,
    /// What becomes of uploads that find the queue full: spill, drop or reject.
    #[arg(long, value_name = "WHAT", value_parser = ["spill", "drop", "reject"])]
    on_queue_full: Option<String>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StreamSwitches {
    /// Carry files too that are here already.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    include_existing_files: Option<bool>,
    /// Carry replicas too.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    include_replicas: Option<bool>,
    /// Carry versions that are deleted while they wait; not supported yet.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pin_deleted: Option<bool>,
    /// Send nothing; =false goes on.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    paused: Option<bool>,
}

/// Which files of a stream are tried again.
#[derive(Debug, Args)]
pub(super) struct RetryFlags {
    /// With --id: only files in this state.
    #[arg(long, requires = "id", value_parser = super::state_names())]
    state: Option<String>,
    /// With --id: only this file; may be given several times.
    #[arg(long, value_name = "ID", requires = "id")]
    file_id: Vec<String>,
}

/// What came of it: the value for programs and the page for people.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) value: Value,
    pub(super) page: String,
}

/// Fields that are there.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn of(org_id: Option<String>) -> Self {
        Self::default().put("orgID", org_id)
    }

    fn put(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    fn put_list(self, name: &str, values: Vec<String>) -> Self {
        self.put(name, (!values.is_empty()).then_some(values))
    }

    fn to(self, method: &'static str, path: impl Into<String>) -> ApiCall {
        ApiCall { method, path: path.into(), fields: self.0 }
    }
}

const REMOTES: &str = "/api/v2/remotes";
const STREAMS: &str = "/api/v2/replications";

/// The address of one remote or stream. An id comes from the command line, so nothing in it may lead
/// elsewhere.
fn at(root: &str, id: &str, what: &str) -> String {
    format!("{root}/{}{what}", crate::domain::percent::encode(id).replace('/', "%2F"))
}

impl RemoteFlags {
    fn add(self, fields: Fields) -> Fields {
        let windows: Vec<Value> = self
            .bandwidth_window
            .into_iter()
            .map(|Window(from, to, rate)| json!({"from": from, "to": to, "bytesPerSecond": rate}))
            .collect();
        let bandwidth =
            self.bandwidth.map(|rate| if rate == 0 { Value::Null } else { rate.into() });
        fields
            .put("remoteType", self.remote_type)
            .put("region", self.remote_region)
            .put("addressing", self.addressing)
            .put("maxConcurrency", self.max_concurrency)
            .put("bandwidthBytesPerSecond", bandwidth)
            .put("bandwidthWindows", (!windows.is_empty()).then_some(windows))
            .put("partSizeBytes", self.part_size)
            .put("multipartThresholdBytes", self.multipart_threshold)
            .put("marker", self.marker)
    }
}

impl RemoteSwitches {
    fn add(self, fields: Fields) -> Fields {
        fields
            .put("allowInsecureTLS", self.allow_insecure_tls)
            .put("customTimestamps", self.custom_timestamps)
            .put("paused", self.paused)
    }
}

impl TokenFlags {
    /// The token, from the flag, the file or the environment.
    fn read(self, environment: &[(String, OsString)]) -> Result<Option<String>, AdminError> {
        let Self { remote_api_token: given, remote_api_token_file: file } = self;
        if given.is_some() {
            return Ok(given);
        }
        if let Some(path) = file {
            let read = std::fs::read_to_string(&path);
            let token = read.map_err(|source| AdminError::TokenFile { path, source })?;
            return Ok(Some(token.trim().to_owned()));
        }
        let variable = environment.iter().find(|(name, _)| name == REMOTE_TOKEN_VARIABLE);
        Ok(variable.map(|(_, value)| value.to_string_lossy().trim().to_owned()))
    }
}

impl RemoteBucketFlags {
    fn add(self, fields: Fields) -> Fields {
        fields
            .put("remoteBucketName", self.remote_bucket)
            .put("remoteBucketID", self.remote_bucket_id)
    }
}

impl QueueFlags {
    fn add(&self, fields: Fields) -> Fields {
        let drops = match (self.drop_non_retryable_data, self.no_drop_non_retryable_data) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        fields
            .put("maxQueueSizeBytes", self.max_queue_bytes)
            .put("maxAgeSeconds", self.max_age)
            .put("dropNonRetryableData", drops)
    }
}

impl StreamFlags {
    fn add(self, fields: Fields) -> Fields {
        fields
            .put("fileNamePrefix", self.file_name_prefix)
            .put_list("excludePrefixes", self.exclude_prefix)
            .put("destinationPrefix", self.destination_prefix)
            .put("onQueueFull", self.on_queue_full)
    }
}

impl StreamSwitches {
    fn add(self, fields: Fields) -> Fields {
        fields
            .put("includeExistingFiles", self.include_existing_files)
            .put("includeReplicas", self.include_replicas)
            .put("pinDeleted", self.pin_deleted)
            .put("paused", self.paused)
    }
}

impl RemoteAction {
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Create { form, .. }
            | Self::List { form, .. }
            | Self::Update { form, .. }
            | Self::Buckets { form, .. }
            | Self::Delete { form, .. } => *form,
        }
    }

    pub(super) fn perform(
        self,
        environment: &[(String, OsString)],
        ask: Ask<'_>,
    ) -> Result<Done, AdminError> {
        let value = match self {
            Self::Create {
                name,
                description,
                org_id,
                remote_url,
                token,
                remote_org_id,
                more,
                switches,
                form: _,
            } => {
                let org_id = org_id.map_or_else(|| first_org(ask), Ok)?;
                let token = token.read(environment)?.ok_or(AdminError::NoRemoteToken)?;
                let fields = Fields::of(Some(org_id))
                    .put("name", Some(name))
                    .put("description", description)
                    .put("remoteURL", Some(remote_url))
                    .put("remoteAPIToken", Some(token))
                    .put("remoteOrgID", remote_org_id);
                ask(switches.add(more.add(fields)).to("POST", REMOTES))?
            }
            Self::List { name, org_id, remote_url, form: _ } => {
                let org_id = org_id.map_or_else(|| first_org(ask), Ok)?;
                let fields =
                    Fields::of(Some(org_id)).put("name", name).put("remoteURL", remote_url);
                let value = ask(fields.to("GET", REMOTES))?;
                let page = remotes("No remote connections.", &value["remotes"]);
                return Ok(Done { value, page });
            }
            Self::Update {
                id,
                name,
                description,
                org_id,
                remote_url,
                token,
                remote_org_id,
                more,
                switches,
                form: _,
            } => {
                let fields = Fields::of(org_id)
                    .put("name", name)
                    .put("description", description)
                    .put("remoteURL", remote_url)
                    .put("remoteAPIToken", token.read(environment)?)
                    .put("remoteOrgID", remote_org_id);
                ask(switches.add(more.add(fields)).to("PATCH", at(REMOTES, &id, "")))?
            }
            Self::Buckets { id, add, remove, org_id, form: _ } => {
                let at = |query: &str| at(REMOTES, &id, &format!("/buckets{query}"));
                let fields = || Fields::of(org_id.clone());
                if let Some(bucket) = add {
                    ask(fields().put("bucketID", Some(bucket)).to("POST", at("")))?;
                }
                if let Some(bucket) = remove {
                    let bucket = crate::domain::percent::encode(&bucket);
                    ask(fields().to("DELETE", at(&format!("?bucketID={bucket}"))))?;
                }
                let value = ask(fields().to("GET", at("")))?;
                let page = listing("No buckets.", &["BUCKET ID"], &value["bucketIDs"], |bucket| {
                    vec![text(bucket)]
                });
                return Ok(Done { value, page });
            }
            Self::Delete { id, org_id, delete_replications, form: _ } => {
                return delete_remote(&id, org_id.as_ref(), delete_replications, ask);
            }
        };
        let page = remotes("", &json!([value]));
        Ok(Done { value, page })
    }
}

fn delete_remote(
    id: &str,
    org_id: Option<&String>,
    with_streams: bool,
    ask: Ask<'_>,
) -> Result<Done, AdminError> {
    let fields = || Fields::of(org_id.cloned());
    let remote = ask(fields().to("GET", at(REMOTES, id, "")))?;
    let mut deleted = Vec::new();
    if with_streams {
        let org_id = remote["orgID"].as_str().unwrap_or_default().to_owned();
        let of_remote = Fields::of(Some(org_id)).put("remoteID", Some(id));
        let mut found = ask(of_remote.to("GET", STREAMS))?;
        if let Value::Array(streams) = found["replications"].take() {
            for stream in streams {
                let stream_id = stream["id"].as_str().unwrap_or_default();
                ask(fields().to("DELETE", at(STREAMS, stream_id, "")))?;
                deleted.push(stream);
            }
        }
    }
    ask(fields().to("DELETE", at(REMOTES, id, "")))?;
    let mut page =
        format!("Remote {} ({}) is deleted.\n", text(&remote["id"]), text(&remote["name"]));
    for stream in &deleted {
        page += &stream_is(stream, "deleted");
    }
    let value = json!({"deletedReplications": deleted, "remote": remote});
    Ok(Done { value, page })
}

/// The organization that the first account is: who does not say whose means that one.
fn first_org(ask: Ask<'_>) -> Result<String, AdminError> {
    let found = ask(Fields::default().to("GET", "/api/v2/orgs"))?;
    Ok(found["orgs"][0]["id"].as_str().unwrap_or_default().to_owned())
}

fn stream_is(stream: &Value, what: &str) -> String {
    format!("Replication stream {} ({}) is {what}.\n", text(&stream["id"]), text(&stream["name"]))
}

impl StreamAction {
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Create { form, .. } | Self::List { form, .. } => *form,
            Self::Update { at, .. }
            | Self::Delete(at)
            | Self::Validate(at)
            | Self::Pause(at)
            | Self::Resume(at)
            | Self::Purge(at)
            | Self::Resync { at, .. }
            | Self::Files { at, .. }
            | Self::Diff { at, .. } => at.form,
        }
    }

    pub(super) fn perform(self, ask: Ask<'_>) -> Result<Done, AdminError> {
        match self {
            Self::Create {
                name,
                description,
                org_id,
                remote_id,
                local_bucket_id,
                local_bucket,
                to,
                queue,
                more,
                switches,
                validate,
                form: _,
            } => {
                let org_id = org_id.map_or_else(|| first_org(ask), Ok)?;
                let fields = Fields::of(Some(org_id))
                    .put("name", Some(name))
                    .put("description", description)
                    .put("remoteID", Some(remote_id))
                    .put("localBucketID", local_bucket_id)
                    .put("localBucketName", local_bucket);
                let fields = switches.add(more.add(queue.add(to.add(fields))));
                let path = if validate { "/api/v2/replications?validate=true" } else { STREAMS };
                Ok(made_or_valid(ask(fields.to("POST", path))?))
            }
            Self::List { name, org_id, remote_id, local_bucket_id, form: _ } => {
                let org_id = org_id.map_or_else(|| first_org(ask), Ok)?;
                let fields = Fields::of(Some(org_id))
                    .put("name", name)
                    .put("remoteID", remote_id)
                    .put("localBucketID", local_bucket_id);
                let value = ask(fields.to("GET", STREAMS))?;
                let page = streams("No replication streams.", &value["replications"]);
                Ok(Done { value, page })
            }
            Self::Update {
                at: stream,
                name,
                description,
                remote_id,
                to,
                queue,
                more,
                switches,
                validate,
            } => {
                let fields = Fields::of(stream.org_id)
                    .put("name", name)
                    .put("description", description)
                    .put("remoteID", remote_id);
                let fields = switches.add(more.add(queue.add(to.add(fields))));
                let what = if validate { "?validate=true" } else { "" };
                Ok(made_or_valid(ask(fields.to("PATCH", at(STREAMS, &stream.id, what)))?))
            }
            Self::Delete(stream) => {
                let fields = || Fields::of(stream.org_id.clone());
                let value = ask(fields().to("GET", at(STREAMS, &stream.id, "")))?;
                ask(fields().to("DELETE", at(STREAMS, &stream.id, "")))?;
                Ok(Done { page: stream_is(&value, "deleted"), value })
            }
            Self::Validate(stream) => Ok(made_or_valid(post(stream, "/validate", ask)?)),
            Self::Pause(stream) => {
                let value = post(stream, "/pause", ask)?;
                Ok(Done { page: stream_is(&value, "paused"), value })
            }
            Self::Resume(stream) => {
                let value = post(stream, "/resume", ask)?;
                Ok(Done { page: stream_is(&value, "going on"), value })
            }
            Self::Purge(stream) => {
                let value = post(stream, "/purge", ask)?;
                Ok(Done {
                    page: format!("Files taken out of the queue: {}\n", text(&value["purged"])),
                    value,
                })
            }
            Self::Resync { at: stream, older_than, prefix, dry_run } => {
                let fields = Fields::of(stream.org_id)
                    .put("olderThan", older_than)
                    .put("prefix", prefix)
                    .put("dryRun", Some(dry_run));
                let value = ask(fields.to("POST", at(STREAMS, &stream.id, "/resync")))?;
                let page = resynced(&value);
                Ok(Done { value, page })
            }
            Self::Files { at: stream, state, after, limit } => {
                let fields = Fields::of(stream.org_id)
                    .put("state", state)
                    .put("after", after)
                    .put("limit", limit);
                let value = ask(fields.to("GET", at(STREAMS, &stream.id, "/files")))?;
                let page = files(&value);
                Ok(Done { value, page })
            }
            Self::Diff { at: stream, from } => {
                let fields = Fields::of(stream.org_id).put("from", from);
                let value = ask(fields.to("GET", at(STREAMS, &stream.id, "/diff")))?;
                let page = differences(&value);
                Ok(Done { value, page })
            }
        }
    }
}

/// Tries files of a stream again.
pub(super) fn retry(
    id: &str,
    org_id: Option<String>,
    flags: RetryFlags,
    ask: Ask<'_>,
) -> Result<Done, AdminError> {
    let fields = Fields::of(org_id).put("state", flags.state).put_list("fileIds", flags.file_id);
    let value = ask(fields.to("POST", at(STREAMS, id, "/retry")))?;
    Ok(Done { page: format!("Files tried again: {}\n", text(&value["retried"])), value })
}

fn post(stream: StreamAt, what: &str, ask: Ask<'_>) -> Result<Value, AdminError> {
    ask(Fields::of(stream.org_id).to("POST", at(STREAMS, &stream.id, what)))
}

/// What was made or changed; nothing comes back from a mere try.
fn made_or_valid(value: Value) -> Done {
    if value.is_null() {
        let page = "The remote can be written to.\n".to_owned();
        return Done { value: json!({"valid": true}), page };
    }
    Done { page: streams("", &json!([value])), value }
}

/// Bytes as people read them.
fn size(value: &Value) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(bytes) = value.as_u64() else { return text(value) };
    let mut unit = None;
    let mut whole = bytes;
    let mut tenths = 0;
    for name in UNITS {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = Some(name);
    }
    unit.map_or_else(|| format!("{bytes} B"), |unit| format!("{whole}.{tenths} {unit}"))
}

fn remotes(nothing: &str, values: &Value) -> String {
    let head = [
        "ID",
        "Name",
        "Org ID",
        "Remote URL",
        "Remote Org ID",
        "Allow Insecure TLS",
        "Type",
        "State",
        "Last Online",
    ];
    listing(nothing, &head, values, |remote| {
        let state = match (remote["paused"].as_bool(), &remote["state"]) {
            (Some(true), _) => "paused".to_owned(),
            (_, state) => text(state),
        };
        vec![
            text(&remote["id"]),
            text(&remote["name"]),
            text(&remote["orgID"]),
            text(&remote["remoteURL"]),
            text(&remote["remoteOrgID"]),
            text(&remote["allowInsecureTLS"]),
            text(&remote["remoteType"]),
            state,
            text(&remote["lastOnlineAt"]),
        ]
    })
}

fn streams(nothing: &str, values: &Value) -> String {
    let head = [
        "ID",
        "Name",
        "Org ID",
        "Remote ID",
        "Local Bucket ID",
        "Remote Bucket ID",
        "Remote Bucket Name",
        "Remaining Bytes to be Synced",
        "Current Queue Bytes on Disk",
        "Max Queue Bytes",
        "Latest Status Code",
        "Drop Non-Retryable Data",
        "Paused",
        "Latest Error Message",
    ];
    listing(nothing, &head, values, |stream| {
        vec![
            text(&stream["id"]),
            text(&stream["name"]),
            text(&stream["orgID"]),
            text(&stream["remoteID"]),
            text(&stream["localBucketID"]),
            text(&stream["remoteBucketID"]),
            text(&stream["remoteBucketName"]),
            size(&stream["remainingBytesToBeSynced"]),
            size(&stream["currentQueueSizeBytes"]),
            size(&stream["maxQueueSizeBytes"]),
            text(&stream["latestResponseCode"]),
            text(&stream["dropNonRetryableData"]),
            text(&stream["paused"]),
            text(&stream["latestErrorMessage"]),
        ]
    })
}

fn files(answer: &Value) -> String {
    let head = ["JOB", "STATE", "TRIES", "SIZE", "CONFIRMED", "PARTS", "FILE", "FILE ID", "REASON"];
    let mut page = listing("No files.", &head, &answer["files"], |file| {
        let parts = match file["partsTotal"].as_u64() {
            None | Some(0) => "-".to_owned(),
            Some(total) => format!("{}/{total}", text(&file["partsDone"])),
        };
        let reason = match (&file["reason"], &file["error"]) {
            (reason, Value::Null) => text(reason),
            (reason, error) => format!("{}: {}", text(reason), text(error)),
        };
        vec![
            text(&file["jobId"]),
            text(&file["state"]),
            text(&file["attempts"]),
            size(&file["contentLength"]),
            size(&file["bytesConfirmed"]),
            parts,
            text(&file["fileName"]),
            text(&file["fileId"]),
            reason,
        ]
    });
    page.push_str(&super::way_on(answer));
    page
}

fn resynced(answer: &Value) -> String {
    if let Some(scan) = answer["scanId"].as_u64() {
        return format!(
            "Walk {scan} looks for what is to be carried: see `kiln replication files`.\n"
        );
    }
    let files = |files: &str, bytes: &str| {
        format!("{} files, {}", text(&answer[files]), size(&answer[bytes]))
    };
    fields(&[
        ("Never carried", files("files", "bytes")),
        ("Carried before", files("arrivedFiles", "arrivedBytes")),
        ("Waiting", format!("{} files", text(&answer["waitingFiles"]))),
        ("Not to be carried", format!("{} files", text(&answer["skippedFiles"]))),
    ])
}

fn differences(answer: &Value) -> String {
    let head = ["WHAT", "JOB", "SIZE", "FILE", "FILE ID"];
    let same = format!("No differences in {} versions.", text(&answer["compared"]));
    let mut page = listing(&same, &head, &answer["differences"], |one| {
        vec![
            text(&one["difference"]),
            text(&one["state"]),
            size(&one["contentLength"]),
            text(&one["fileName"]),
            text(&one["fileId"]),
        ]
    });
    if let Some(next) = answer["nextFrom"].as_str() {
        page.push_str("\nThere are more: add --from ");
        page.push_str(&super::safe(next));
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use clap::FromArgMatches as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        action: Both,
    }

    #[derive(Debug, Subcommand)]
    enum Both {
        #[command(subcommand)]
        Remote(RemoteAction),
        #[command(subcommand)]
        Replication(StreamAction),
    }

    /// Performs a line and answers what came of it and the calls that it took. `answers` holds, by
    /// the beginning of `METHOD path`, what calls bring.
    fn perform(
        line: &[&str],
        environment: &[(&str, &str)],
        answers: &[(&str, Value)],
    ) -> (Result<Done, AdminError>, Vec<ApiCall>) {
        let words = std::iter::once("kiln").chain(line.iter().copied());
        let matches =
            <Line as clap::CommandFactory>::command().try_get_matches_from(words).unwrap();
        let line = Line::from_arg_matches(&matches).unwrap();
        let calls = RefCell::new(Vec::new());
        let ask = |call: ApiCall| {
            let asked = format!("{} {}", call.method, call.path);
            calls.borrow_mut().push(call);
            let found = answers.iter().find(|(start, _)| asked.starts_with(start));
            Ok(found.map(|(_, answer)| answer.clone()).unwrap_or_default())
        };
        let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
        let environment: Vec<_> = environment.iter().map(variable).collect();
        let done = match line.action {
            Both::Remote(action) => action.perform(&environment, &ask),
            Both::Replication(action) => action.perform(&ask),
        };
        (done, calls.into_inner())
    }

    fn orgs() -> (&'static str, Value) {
        ("GET /api/v2/orgs", json!({"orgs": [{"id": "00000123456789ab"}, {"id": "second"}]}))
    }

    fn remote() -> Value {
        json!({"id": "0b", "name": "offsite", "orgID": "00000123456789ab", "allowInsecureTLS": false,
            "remoteURL": "https://x.example", "remoteOrgID": null, "paused": false,
            "remoteType": null, "state": "closed", "lastOnlineAt": null})
    }

    fn stream() -> Value {
        json!({"id": "0c", "name": "to-offsite", "orgID": "00000123456789ab", "remoteID": "0b",
            "localBucketID": "b".repeat(24), "remoteBucketID": null, "remoteBucketName": "copies",
            "remainingBytesToBeSynced": 0, "currentQueueSizeBytes": 1536,
            "maxQueueSizeBytes": 67_108_860, "dropNonRetryableData": false, "paused": true})
    }

    #[test]
    fn replication_149_the_token_comes_from_a_flag_a_file_or_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "id:from-file\n").unwrap();
        let file = file.to_str().unwrap();
        let create = ["remote", "create", "--name", "n", "--remote-url", "https://x.example"];
        let variable = [(REMOTE_TOKEN_VARIABLE, "id:from-variable")];
        for (more, environment, token) in [
            (&["--remote-api-token", "id:from-flag"][..], &variable[..], Some("id:from-flag")),
            (&["--remote-api-token-file", file], &variable, Some("id:from-file")),
            (&[], &variable, Some("id:from-variable")),
            (&[], &[], None),
        ] {
            let line = [&create, more].concat();
            let (done, calls) = perform(&line, environment, &[orgs(), ("POST", remote())]);
            let Some(token) = token else {
                let said = done.unwrap_err().to_string();
                assert!(said.contains(REMOTE_TOKEN_VARIABLE), "{said}");
                continue;
            };
            let fields = &calls.last().unwrap().fields;
            assert_eq!(fields["remoteAPIToken"], token);
            assert_eq!(fields["orgID"], "00000123456789ab", "the first account's");
            assert!(!done.unwrap().page.contains("from-"), "it is not shown");
        }
        let missing = ["--remote-api-token-file", "/nonexistent/token"];
        let (done, _) = perform(&[&create[..], &missing].concat(), &[], &[orgs()]);
        assert!(done.unwrap_err().to_string().contains("/nonexistent/token"));
    }

    #[test]
    fn replication_147_flags_become_the_fields_that_influxdb_has_for_them() {
        let line = [
            "remote",
            "update",
            "-i",
            "0b",
            "-n",
            "other",
            "-d",
            "text",
            "--remote-url",
            "https://y",
            "--remote-org-id",
            "5",
            "--allow-insecure-tls",
            "--max-concurrency",
            "2",
            "--bandwidth",
            "0",
            "--bandwidth-window",
            "22:00-06:00=1024",
            "--paused=false",
            "--remote-region",
            "r",
        ];
        let (_, calls) = perform(&line, &[], &[("PATCH", remote())]);
        assert_eq!((calls[0].method, calls[0].path.as_str()), ("PATCH", "/api/v2/remotes/0b"));
        let expected = json!({"name": "other", "description": "text", "remoteURL": "https://y",
            "remoteOrgID": "5", "allowInsecureTLS": true, "maxConcurrency": 2, "paused": false,
            "bandwidthBytesPerSecond": null, "region": "r", "bandwidthWindows":
            [{"from": "22:00", "to": "06:00", "bytesPerSecond": 1024}]});
        assert_eq!(Value::Object(calls[0].fields.clone()), expected);
        let line = [
            "replication",
            "create",
            "--name",
            "s",
            "--remote-id",
            "0b",
            "--local-bucket",
            "photos",
            "--remote-bucket",
            "copies",
            "--max-queue-bytes",
            "33554430",
            "--max-age",
            "60",
            "--drop-non-retryable-data",
            "--org-id",
            "0123456789ab",
            "--exclude-prefix",
            "a/",
            "--exclude-prefix",
            "b/",
            "--include-existing-files",
            "--on-queue-full",
            "reject",
        ];
        let (_, calls) = perform(&line, &[], &[("POST", stream())]);
        assert_eq!((calls[0].method, calls[0].path.as_str()), ("POST", "/api/v2/replications"));
        let expected = json!({"name": "s", "orgID": "0123456789ab", "remoteID": "0b",
            "localBucketName": "photos", "remoteBucketName": "copies", "maxAgeSeconds": 60,
            "maxQueueSizeBytes": 33_554_430, "dropNonRetryableData": true, "onQueueFull": "reject",
            "excludePrefixes": ["a/", "b/"], "includeExistingFiles": true});
        assert_eq!(Value::Object(calls[0].fields.clone()), expected);
        let line =
            ["replication", "update", "--id", "0c", "--no-drop-non-retryable-data", "--validate"];
        let (done, calls) = perform(&line, &[], &[]);
        assert_eq!(calls[0].path, "/api/v2/replications/0c?validate=true");
        assert_eq!(calls[0].fields["dropNonRetryableData"], false);
        assert_eq!(done.unwrap().page, "The remote can be written to.\n");
    }

    #[test]
    fn deleting_a_remote_can_take_its_streams_along() {
        let answers = [
            ("GET /api/v2/remotes/0b", remote()),
            ("GET /api/v2/replications", json!({"replications": [stream()]})),
        ];
        let asked = |calls: &[ApiCall]| -> Vec<String> {
            calls.iter().map(|call| format!("{} {}", call.method, call.path)).collect()
        };
        let (_, calls) = perform(&["remote", "delete", "--id", "0b"], &[], &answers);
        assert_eq!(asked(&calls), ["GET /api/v2/remotes/0b", "DELETE /api/v2/remotes/0b"]);
        let line = ["remote", "delete", "--id", "0b", "--delete-replications"];
        let (done, calls) = perform(&line, &[], &answers);
        let expected = [
            "GET /api/v2/remotes/0b",
            "GET /api/v2/replications",
            "DELETE /api/v2/replications/0c",
            "DELETE /api/v2/remotes/0b",
        ];
        assert_eq!(asked(&calls), expected);
        assert_eq!(calls[1].fields["remoteID"], "0b");
        assert!(done.unwrap().page.contains("to-offsite"));
    }

    #[test]
    fn tables_have_the_columns_of_influxdb_and_sizes_for_people() {
        let answers = [orgs(), ("GET /api/v2/replications", json!({"replications": [stream()]}))];
        let (done, _) = perform(&["replication", "ls"], &[], &answers);
        let page = done.unwrap().page;
        let columns = "Remaining Bytes to be Synced  Current Queue Bytes on Disk  Max Queue Bytes  \
                       Latest Status Code  Drop Non-Retryable Data";
        assert!(page.lines().next().unwrap().contains(columns), "{page}");
        for shown in ["0 B ", "1.5 KiB ", "63.9 MiB ", "copies"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        let (done, _) = perform(
            &["remote", "list"],
            &[],
            &[orgs(), ("GET /api/v2/remotes", json!({"remotes": [remote()]}))],
        );
        let page = done.unwrap().page;
        assert!(page.starts_with("ID  Name     Org ID            Remote URL"), "{page}");
        let (done, _) = perform(&["remote", "list"], &[], &[orgs()]);
        assert_eq!(done.unwrap().page, "No remote connections.\n");
        for (bytes, shown) in [
            (0_u64, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (33_554_430, "31.9 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(&bytes.into()), shown);
        }
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        let (_, calls) = perform(&["replication", "pause", "--id", "../x?y#z"], &[], &[]);
        assert_eq!(calls[0].path, "/api/v2/replications/..%2Fx%3Fy%23z/pause");
    }

    #[test]
    fn lines_that_contradict_themselves_are_refused() {
        for line in [
            "remote create --name n --remote-url u --remote-api-token a --remote-api-token-file b",
            "remote create --name n",
            "remote update --name n",
            "remote update --id 1 --bandwidth-window 8-9",
            "remote update --id 1 --bandwidth=-1",
            "remote create --name n --remote-url u --remote-type influx",
            "replication create --name n --remote-id 1 --local-bucket b",
            "replication create --name n --remote-id 1 --remote-bucket b",
            "replication create --name n --remote-id 1 --local-bucket b --remote-bucket c --remote-bucket-id d",
            "replication update --id 1 --drop-non-retryable-data --no-drop-non-retryable-data",
            "replication files --id 1 --limit 0",
            "replication files --id 1 --state lost",
            "replication pause",
        ] {
            let words = std::iter::once("kiln").chain(line.split(' '));
            let read = <Line as clap::CommandFactory>::command().try_get_matches_from(words);
            assert!(read.is_err(), "{line}");
        }
    }
}
