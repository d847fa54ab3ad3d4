//! Where everything meets: opening a data folder, starting the server, stopping it in order.
//!
//! Start: settings, lock, sealing key, catalog (migrated), blobs (probed), key ring, account, workers,
//! listeners last. Stop: listeners, requests in flight, workers, catalog.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::{App as WebApp, HttpServer, web};
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::api::admin::command::AdminCommand;
use crate::api::admin::manage;
use crate::api::s3::{Profile, S3Settings};
use crate::api::{Http, HttpSettings, TestControls, admin, influx};
use crate::auth::key_ring::{BadRing, KeyRing, RingFile};
use crate::auth::sealing::{SEALING_KEY_BYTES, Sealer, SealingKey};
use crate::auth::token::{self, TokenKind, Tokens};
use crate::blobs::disk::{DiskOptions, DiskStore};
use crate::blobs::metered::{BlobMetrics, MeteredStore};
use crate::blobs::{self, BlobStore};
use crate::catalog::ring_keys::{self, RingKeyRow};
use crate::catalog::sqlite::{Options as SqliteOptions, Sqlite};
use crate::catalog::{self, Catalog, server_facts};
use crate::clock::{Clock, SystemClock, Waits};
use crate::config::{
    self, Certificate, ChecksumSupport, Config, LargeMetadata, LogFormat, NewBuckets,
};
use crate::domain::encryption::DefaultEncryption;
use crate::domain::ids::{AccountId, BlobId, Numbers};
use crate::domain::key::Secret;
use crate::domain::large_file::PartSizes;
use crate::domain::replication::{BACKOFF_MS_MAX, Leniency};
use crate::domain::webhook::TargetPolicy;
use crate::entropy::{self, Entropy, OsEntropy};
use crate::jobs::deliver::{Courier, Delivery};
use crate::jobs::lifecycle::Lifecycle;
use crate::jobs::sweep::Sweep;
use crate::jobs::upkeep::Upkeep;
use crate::metrics::Metrics;
use crate::operations::accounts::{
    FirstAccount, NewAccount, Operator, draw_account, ensure_first_account, list_accounts,
};
use crate::operations::dead_tokens::DeadTokens;
use crate::operations::error::Error as OperationError;
use crate::operations::facts::Facts;
use crate::operations::left_behind::LeftBehind;
use crate::operations::lock_clock::LockClock;
use crate::operations::replication_jobs::JobCounts;
use crate::operations::signatures::SignaturePolicy;
use crate::operations::test_mode::Strikes;
use crate::operations::upload_slots::UploadSlots;
use crate::operations::usage::Usage;
use crate::operations::{App, Policy, Wake};
use crate::outbound::{self, AdminRequest, Webhooks};
use crate::replication::destination::Destination;
use crate::replication::destination::local::Local;
use crate::replication::destination::remote::RemoteLines;
use crate::replication::destination::store::Remotes;
use crate::replication::inquiry::Inquiry;
use crate::replication::network::Network;
use crate::replication::{Engine, EngineOptions};
use crate::tls::{self, Tls, TlsError, TlsFiles};

/// How long requests in flight may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(30);
/// Where the first master application key is shown to the operator.
const INITIAL_KEY_FILE: &str = "initial-key.env";
/// Says where the running server can be reached; there only while it runs.
const RUNNING_FILE: &str = "running.json";

/// Why the server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{doing} {}: {source}", .path.display())]
    Folder {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another kiln is running on the data folder {}{}", .path.display(), .at)]
    InUse { path: PathBuf, at: String },
    #[error("the sealing key {} is missing: the secrets in this data folder cannot be opened without it; put the file back, or name it with --sealing-key-file", .0.display())]
    SealingKeyMissing(PathBuf),
    #[error("the sealing key {} must hold exactly {SEALING_KEY_BYTES} bytes", .0.display())]
    SealingKeyLength(PathBuf),
    #[error("{} holds keys and may be used by others than its owner (mode {mode:o}): run `chmod 600 {}`, and replace the keys if somebody may have read them", .path.display(), .path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("others than its owner may write in the folder {} (mode {mode:o}) and replace the keys in it: run `chmod 700 {}`", .path.display(), .path.display())]
    FolderOpenToOthers { path: PathBuf, mode: u32 },
    #[error(
        "bodies are wrapped with key {0} of the key ring, and the catalog does not know it any more: the catalog is damaged; put back the data folder and its key ring from one backup"
    )]
    KeyRingUnlisted(i64),
    #[error("the key ring {} is missing: nothing that is encrypted with SSE-B2 can be read without it; put the file back, or name it with --key-ring-file", .0.display())]
    KeyRingMissing(PathBuf),
    #[error("the key ring {} is unreadable: {problem}", .path.display())]
    KeyRingUnreadable { path: PathBuf, problem: BadRing },
    #[error("the key ring {} is not the one of this data folder: its key {number} is {}", .path.display(), if *.absent { "missing, and blobs are wrapped with it" } else { "another one" })]
    KeyRingOther { path: PathBuf, number: i64, absent: bool },
    #[error("open the catalog: {0}")]
    Catalog(catalog::Error),
    #[error("open the blob store: {}", chain(.0))]
    Blobs(blobs::Error),
    #[error("{}", operation_text(.0))]
    Operation(OperationError),
    #[error("listen on {address}: {source}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{setting} {} {problem}", .path.display())]
    CaFile { setting: &'static str, path: PathBuf, problem: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("start the runtime: {0}")]
    Runtime(io::Error),
    /// Bytes or commits could not be made durable; the server stopped rather than go on.
    #[error(
        "storage failure: {0}; nothing was acknowledged after it. Check the disk, then start again"
    )]
    StorageFailure(String),
}

impl StartError {
    pub(crate) fn is_storage_failure(&self) -> bool {
        matches!(self, Self::StorageFailure(_))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn operation_text(error: &OperationError) -> String {
    match error {
        OperationError::Refused(refusal) if !refusal.message.is_empty() => {
            refusal.message.clone().into_owned()
        }
        other => chain(other),
    }
}

impl From<OperationError> for StartError {
    fn from(error: OperationError) -> Self {
        Self::Operation(error)
    }
}

/// A data folder that this process holds alone.
pub(crate) struct Opened {
    pub(crate) app: Arc<App>,
    data_dir: PathBuf,
    _lock: File,
}

/// Puts something around the blob store.
type WrapBlobs = Box<dyn FnOnce(Arc<dyn BlobStore>) -> Arc<dyn BlobStore> + Send>;

/// What a test may put in the place of the real things.
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Wraps the blob store.
    pub(crate) wrap_blobs: WrapBlobs,
}

impl Parts {
    pub(crate) fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(OsEntropy),
            wrap_blobs: Box::new(|blobs| blobs),
        }
    }
}

fn folder_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Folder { doing, path, source }
}

fn sync_folder(path: &Path) -> Result<(), StartError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(folder_error("sync the folder", path))
}

/// Writes a file that only its owner may read, durably, under its final name at once.
fn write_private(path: &Path, content: &[u8]) -> Result<(), StartError> {
    let real = put_private(path, content, File::sync_all)?;
    match real.parent() {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Writes a file that only its owner may read and that means nothing once this process has ended,
/// under its final name at once.
fn write_passing(path: &Path, content: &[u8]) -> Result<(), StartError> {
    put_private(path, content, |_| Ok(())).map(drop)
}

/// Where a file really lies, or will: behind every symbolic link.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.file_name()) {
        (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Ok(folder.unwrap_or(Path::new(".")).canonicalize()?.join(name))
        }
        (resolved, _) => resolved,
    }
}

/// Answers where the file really lies. What is written first has a name that no other file has and
/// is never followed anywhere, so that nothing but `path` is replaced.
fn put_private(
    path: &Path,
    content: &[u8],
    sync: impl FnOnce(&File) -> io::Result<()>,
) -> Result<PathBuf, StartError> {
    let put = || {
        let real = real_path(path)?;
        let mut fresh = real.clone().into_os_string();
        // Not the entropy of a test: a name that comes twice would meet what a crash left behind.
        fresh.push(format!(".{}.tmp", hex::encode(entropy::bytes::<8>(&OsEntropy))));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let written = file
            .write_all(content)
            .and_then(|()| sync(&file))
            .and_then(|()| std::fs::rename(&fresh, &real));
        if written.is_err() {
            // The first error is the one to tell.
            std::fs::remove_file(&fresh).ok();
        }
        written.map(|()| real)
    };
    put().map_err(folder_error("write the file", path))
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), StartError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(folder_error("make the folder", path))
}

/// Removes a temporary folder; what cannot be removed is left to the system.
pub(crate) fn remove_folder(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, "remove a temporary folder");
    }
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    make_private_folder(path)?;
    let real = path.canonicalize().map_err(folder_error("find the data folder", path))?;
    close_empty_folder(&real);
    require_closed_folder(&real)?;
    match real.parent() {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// The bits of a mode that let the group or all others do anything, and those that let them write.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
/// In a folder with this bit nobody but its owner replaces a file.
const STICKY: u32 = 0o1000;

/// Refuses a file of keys that others may read or change. One that is not there is no matter.
fn require_closed_file(path: &Path) -> Result<(), StartError> {
    let mode = match std::fs::metadata(path) {
        Ok(facts) => facts.mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(folder_error("look at the file", path)(error)),
    };
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(StartError::OpenToOthers { path: path.to_owned(), mode })
}

/// Refuses a folder in which others may put a file of theirs in the place of one of keys. One that
/// they may only look into shows them names and no more: the files in it are closed.
fn require_closed_folder(path: &Path) -> Result<(), StartError> {
    let facts = std::fs::metadata(path).map_err(folder_error("look at the folder", path))?;
    let mode = facts.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(StartError::FolderOpenToOthers { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Closes an empty folder that was made by somebody else to become a data folder. Where that is not
/// allowed, what it is open for is looked at next.
fn close_empty_folder(path: &Path) {
    let is_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).ok();
    }
}

/// Whether a name is one that [`put_private`] gives to what it writes for the file `of`.
fn is_unfinished(name: &str, of: &str) -> bool {
    let drawn = name.strip_prefix(of).and_then(|rest| rest.strip_prefix('.'));
    drawn.and_then(|rest| rest.strip_suffix(".tmp")).is_some_and(|drawn| {
        drawn.len() == 16 && drawn.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Removes what a crash left behind while a file was replaced. Nobody else writes it meanwhile: the
/// lock of the data folder is held. What cannot be removed is told and does no harm.
fn remove_unfinished(path: &Path) {
    let remove = || {
        let real = real_path(path)?;
        let (Some(folder), Some(of)) = (real.parent(), real.file_name().and_then(|of| of.to_str()))
        else {
            return Ok(());
        };
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| is_unfinished(name, of)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    if let Err::<(), io::Error>(error) = remove() {
        tracing::warn!(file = %path.display(), %error, "remove what a crash left behind of a file");
    }
}

fn lock(data_dir: &Path) -> Result<File, StartError> {
    let path = data_dir.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(folder_error("open the lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let at = running_endpoint(data_dir).map(|at| format!(", it answers at {at}"));
            Err(StartError::InUse { path: data_dir.to_owned(), at: at.unwrap_or_default() })
        }
        Err(std::fs::TryLockError::Error(source)) => {
            Err(StartError::Folder { doing: "lock", path, source })
        }
    }
}

fn running_fact(data_dir: &Path, name: &str) -> Option<String> {
    let text = std::fs::read(data_dir.join(RUNNING_FILE)).ok()?;
    let facts: Value = serde_json::from_slice(&text).ok()?;
    facts.get(name)?.as_str().map(str::to_owned)
}

fn running_endpoint(data_dir: &Path) -> Option<String> {
    running_fact(data_dir, "endpoint")
}

/// Reads the sealing key; a folder without a catalog gets a new one.
fn sealing_key(path: &Path, is_new: bool, entropy: &dyn Entropy) -> Result<SealingKey, StartError> {
    require_closed_file(path)?;
    match std::fs::read(path) {
        Ok(content) => {
            SealingKey::read(content).ok_or_else(|| StartError::SealingKeyLength(path.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !is_new {
                return Err(StartError::SealingKeyMissing(path.to_owned()));
            }
            let key = SealingKey::draw(entropy);
            write_private(path, key.expose())?;
            Ok(key)
        }
        Err(error) => Err(folder_error("read the sealing key", path)(error)),
    }
}

/// Keeps the key ring in a file of its own.
struct KeyRingFile(PathBuf);

impl RingFile for KeyRingFile {
    fn keep(&self, text: &[u8]) -> io::Result<()> {
        write_private(&self.0, text).map_err(io::Error::other)
    }
}

/// Opens the key ring and compares it with what the catalog knows of it; a catalog that knows of
/// none gets a new one.
fn open_key_ring(
    path: &Path,
    catalog: &Catalog,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<KeyRing, StartError> {
    let broken = |abort: catalog::Abort| StartError::Operation(abort.into());
    let known = catalog.read(|tx| Ok(ring_keys::list_ring_keys(tx)?)).map_err(broken)?;
    let unlisted = catalog.read(|tx| Ok(ring_keys::find_unlisted(tx)?)).map_err(broken)?;
    if let Some(number) = unlisted {
        return Err(StartError::KeyRingUnlisted(number));
    }
    let real = real_path(path).map_err(folder_error("find the key ring", path))?;
    require_closed_file(&real)?;
    if let Some(folder) = real.parent() {
        require_closed_folder(folder)?;
    }
    let file = Box::new(KeyRingFile(real));
    let ring = match std::fs::read(path) {
        Ok(text) => KeyRing::read(text, file)
            .map_err(|problem| StartError::KeyRingUnreadable { path: path.to_owned(), problem })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !known.is_empty() {
                return Err(StartError::KeyRingMissing(path.to_owned()));
            }
            KeyRing::make(file, clock.now(), entropy)
                .map_err(folder_error("write the key ring", path))?
        }
        Err(error) => return Err(folder_error("read the key ring", path)(error)),
    };
    let held = ring.list();
    for row in known {
        let (number, path) = (row.number, path.to_owned());
        match held.iter().find(|key| key.number == number) {
            Some(key) if key.fingerprint == row.fingerprint.as_slice() => {}
            Some(_) => return Err(StartError::KeyRingOther { path, number, absent: false }),
            None => {
                let in_use = catalog.read(|tx| Ok(ring_keys::is_in_use(tx, number)?));
                if in_use.map_err(broken)? {
                    return Err(StartError::KeyRingOther { path, number, absent: true });
                }
            }
        }
    }
    // A crash may have come between the file and the row; older keys without a row are retired.
    if let Some(current) = held.iter().find(|key| key.is_current) {
        let row = RingKeyRow {
            number: current.number,
            made_at: current.made_at,
            fingerprint: current.fingerprint.to_vec(),
        };
        let written =
            catalog.write("note_ring_key", move |tx| Ok(ring_keys::insert_ring_key(tx, &row)?));
        futures_executor(written).map_err(broken)?;
    }
    Ok(ring)
}

/// Opens the data folder of `config`, making it when it is not there.
pub(crate) fn open(config: &Config, parts: Parts) -> Result<Opened, StartError> {
    let data_dir = &config.data_dir;
    make_data_dir(data_dir)?;
    let lock = lock(data_dir)?;
    for path in [&config.sealing_key_file, &config.key_ring_file] {
        remove_unfinished(path);
    }
    for name in OWN_FILES {
        remove_unfinished(&data_dir.join(name));
    }
    let catalog_path = data_dir.join("meta.db");
    let is_new =
        !catalog_path.try_exists().map_err(folder_error("look for the catalog", &catalog_path))?;
    let key = sealing_key(&config.sealing_key_file, is_new, &*parts.entropy)?;
    let sealer = Sealer::new(key.expose()).map_err(|error| StartError::Operation(error.into()))?;
    let options = SqliteOptions {
        wal_pages_soft: u64::from(config.catalog.wal_pages_soft),
        wal_pages_hard: u64::from(config.catalog.wal_pages_hard),
        read_connections: config.catalog.read_connections,
    };
    let sqlite = Sqlite::open(&catalog_path, options).map_err(StartError::Catalog)?;
    let catalog = Catalog::new(sqlite);
    let inline_max = u64::try_from(config.blobs.inline_max).unwrap_or(u64::MAX);
    // SQLite does not say when the sync of its folder failed. The blob store syncs the same folder
    // while it is opened, and does.
    let store = DiskStore::open(data_dir, DiskOptions { inline_max }, Arc::clone(&parts.clock));
    let blob_metrics = Arc::new(BlobMetrics::default());
    let metered = MeteredStore::new(
        (parts.wrap_blobs)(store.map_err(StartError::Blobs)?),
        Arc::clone(&blob_metrics),
    );
    let (tokens, instance) = server_secrets(&catalog, &sealer, &*parts.entropy)?;
    let key_ring = open_key_ring(&config.key_ring_file, &catalog, &*parts.clock, &*parts.entropy)?;
    let numbers = numbers(&catalog, &*parts.clock)?;
    let waits_begun_by = catalog
        .read(|tx| {
            let jobs = catalog::replication::waits_begun_by(tx, BACKOFF_MS_MAX)?;
            Ok(jobs.max(catalog::notifications::noted_at(tx)?))
        })
        .map_err(|abort| StartError::Operation(abort.into()))?;
    let waits = Waits::starting_at(Arc::clone(&parts.clock), waits_begun_by.unwrap_or_default());
    let usage = Usage::of(&catalog)?;
    let tolerance_ms = config.locks.clock_tolerance_s * 1000;
    let lock_clock = LockClock::open(&catalog, &*parts.clock, tolerance_ms);
    let lock_clock =
        futures_executor(lock_clock).map_err(|abort| StartError::Operation(abort.into()))?;
    let app = App {
        catalog,
        blobs: Arc::new(metered),
        clock: parts.clock,
        lock_clock,
        waits,
        entropy: parts.entropy,
        numbers: Arc::new(numbers),
        tokens,
        sealer,
        key_ring,
        instance: instance.into(),
        policy: policy(config),
        facts: Facts::default(),
        dead_tokens: DeadTokens::default(),
        strikes: Strikes::default(),
        usage,
        upload_slots: UploadSlots::default(),
        left_behind: LeftBehind::default(),
        job_counts: JobCounts::default(),
        lifecycle_turn: tokio::sync::Mutex::default(),
        wake: Wake::default(),
        metrics: Arc::new(Metrics::default()),
        blob_metrics,
    };
    Ok(Opened { app: Arc::new(app), data_dir: data_dir.clone(), _lock: lock })
}

/// Numbers that no process before this one has drawn; the catalog knows of them before they are.
fn numbers(catalog: &Catalog, clock: &dyn Clock) -> Result<Numbers, StartError> {
    let wrong = |abort: catalog::Abort| StartError::Operation(abort.into());
    let stored = catalog.read(|tx| Ok(server_facts::number_mark(tx)?)).map_err(wrong)?;
    let numbers = Numbers::starting_at(stored, clock.now());
    let mark = numbers.mark();
    let raised = catalog
        .write("raise_number_mark", move |tx| Ok(server_facts::raise_number_mark(tx, mark)?));
    futures_executor(raised).map_err(wrong)?;
    Ok(numbers)
}

fn policy(config: &Config) -> Policy {
    let replication = &config.replication;
    Policy {
        inline_max: u64::try_from(config.blobs.inline_max).unwrap_or(u64::MAX),
        signatures: SignaturePolicy {
            region: config.region.clone(),
            any_region: config.s3.lenient_region,
            allow_master_key: config.s3.allow_master_key,
        },
        buckets_max: i64::try_from(config.limits.buckets).unwrap_or(i64::MAX),
        strict_v4_keys: config.auth.strict_v4_keys,
        custom_timestamps: config.uploads.custom_timestamps,
        strict_cors_tokens: config.auth.strict_cors_tokens,
        replication_leniency: Leniency {
            accept_empty_rules: replication.accept_empty_rules,
            accept_priority_zero: replication.accept_priority_zero,
        },
        accept_peers: replication.accept_peers,
        copy_large_metadata: replication.large_metadata == LargeMetadata::Copy,
        default_encryption: match config.encryption.default {
            NewBuckets::None => DefaultEncryption::None,
            NewBuckets::SseB2 => DefaultEncryption::Managed,
        },
        part_sizes: PartSizes {
            bytes_min: config.limits.part_size_min,
            bytes_recommended: config.limits.part_size_recommended,
        },
        webhooks: TargetPolicy {
            allow_private: config.notifications.allow_private_targets,
            allow_http: config.notifications.allow_http,
        },
        public_url: config.public_url.clone(),
        event_queue_max: config.notifications.queue_max,
    }
}

/// The keys that tokens are signed with and the id of this instance; made on the first start, in one
/// commit.
fn server_secrets(
    catalog: &Catalog,
    sealer: &Sealer,
    entropy: &dyn Entropy,
) -> Result<(Tokens, String), StartError> {
    const INSTANCE: &str = server_facts::INSTANCE_ID;
    let wrong = |error: catalog::Error| StartError::Operation(error.into());
    let instance = hex::encode(entropy::bytes::<8>(entropy)).into_bytes();
    let mut fresh = vec![(INSTANCE.to_owned(), instance)];
    for kind in TokenKind::ALL {
        let sealed = sealer
            .seal(&kind.fact_name(), &token::draw_secret(entropy), entropy)
            .map_err(|error| StartError::Operation(error.into()))?;
        fresh.push((kind.fact_name(), sealed));
    }
    let kept = catalog.write("keep_server_facts", move |tx| {
        let mut kept = BTreeMap::new();
        for (name, fresh) in &fresh {
            kept.insert(name.clone(), server_facts::keep_fact(tx, name, fresh)?);
        }
        Ok(kept)
    });
    let kept = futures_executor(kept).map_err(|abort| StartError::Operation(abort.into()))?;
    let fact = |name: &str| kept.get(name).map(Vec::as_slice).unwrap_or_default();
    let tokens = Tokens::new(|kind| {
        let name = kind.fact_name();
        sealer.open(&name, fact(&name)).map_err(|error| StartError::Operation(error.into()))
    })?;
    let instance = String::from_utf8(fact(INSTANCE).to_vec())
        .map_err(|_| wrong(catalog::Error::Unreadable { what: "instance id" }))?;
    Ok((tokens, instance))
}

/// Makes new signing keys for tokens where the catalog has none, and uses them from here on.
fn sign_anew(app: &App) -> Result<(), StartError> {
    let (tokens, _) = server_secrets(&app.catalog, &app.sealer, &*app.entropy)?;
    app.tokens.replace(tokens);
    Ok(())
}

/// Waits for a catalog write on a thread that has no runtime yet.
fn futures_executor<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers needs nothing from the system").block_on(future)
}

/// Runs the server until a signal ends it.
pub(crate) fn serve(config: &Config) -> Result<(), StartError> {
    start_logging(config);
    keep_private();
    let greet = |at: &Addresses, first: Option<&NewAccount>| greet(config, at, first);
    live(config, Parts::real(), DRAIN, greet, |app, tls| Box::pin(wait_for_end(app, tls)))
}

/// What ends a server, given what it lives in.
type End<'a> = LocalBoxFuture<'a, Result<(), StartError>>;

/// A whole life: opens the data folder, answers until `ended` comes to its end, and closes it.
/// Requests in flight then have `patience`; without any they are cut off.
fn live(
    config: &Config,
    parts: Parts,
    patience: Duration,
    ready: impl FnOnce(&Addresses, Option<&NewAccount>),
    ended: impl FnOnce(&App, Option<Arc<Tls>>) -> End<'_>,
) -> Result<(), StartError> {
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("kiln-worker")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let opened = open(config, parts)?;
    let first = match workers.block_on(first_account(config, &opened))? {
        FirstAccount::Made(account) => Some(account),
        FirstAccount::Known => None,
        FirstAccount::KeyReplaced => {
            sign_anew(&opened.app)?;
            tracing::warn!("the master application key was replaced: every token is void");
            None
        }
    };
    let tls = open_tls(config, &*opened.app.clock)?;
    let ready = |at: &Addresses| ready(at, first.as_ref());
    let ended = ended(&opened.app, tls.clone());
    let running = run(config, &opened, tls.as_ref(), &workers, patience, ready, ended);
    let outcome = actix_web::rt::System::new().block_on(running);
    opened.app.catalog.close();
    workers.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Where a running server can be reached: full URLs without a trailing slash.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) endpoint: String,
    pub(crate) admin_endpoint: String,
}

/// A server inside of another program, on threads of its own; dropped, it ends at once.
pub(crate) struct Inside {
    pub(crate) addresses: Addresses,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

impl Inside {
    /// Starts a server and waits until it answers. It logs nothing and minds no signals.
    pub(crate) fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            // Whoever does not listen any more has dropped the other end of `ended` too.
            let ready = |at: &Addresses, _: Option<&NewAccount>| drop(tell.send(at.clone()));
            live(&config, parts, Duration::ZERO, ready, |_, _| {
                Box::pin(async move {
                    drop(ended.await);
                    Ok(())
                })
            })
        };
        let thread = std::thread::Builder::new().name("kiln-inside".to_owned()).spawn(run);
        let thread = thread.map_err(StartError::Runtime)?;
        match told.recv() {
            Ok(addresses) => Ok(Self { addresses, end: Some(end), thread: Some(thread) }),
            Err(_) => Err(joined(thread).err().unwrap_or_else(thread_lost)),
        }
    }

    /// Ends the server and waits for its end.
    pub(crate) fn stop(&mut self) -> Result<(), StartError> {
        drop(self.end.take());
        self.thread.take().map_or(Ok(()), joined)
    }
}

fn joined(thread: JoinHandle<Result<(), StartError>>) -> Result<(), StartError> {
    thread.join().unwrap_or_else(|_| Err(thread_lost()))
}

fn thread_lost() -> StartError {
    StartError::Runtime(io::Error::other("the server's thread is lost"))
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "end the server");
        }
    }
}

/// SQLite makes its files with the mode of the process; nobody else may read them. Nor does the memory
/// of the process, which holds keys, go to the disk when it crashes. Not for a server inside of another
/// program, whose own files and crashes this would change: there the folder alone is closed.
fn keep_private() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    // A limit of one byte, not of none: a file of it cannot be written either, and it is the one limit
    // that the kernel minds where dumps are handed to a program. Who forbids even that has forbidden
    // all.
    let most = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "a crash may write keys into a core dump");
    }
}

fn start_logging(config: &Config) {
    let level = config.log.level.as_str();
    // What the web server says of requests that are no HTTP is up to whoever sends them; it would
    // let anybody fill the log.
    let filter = format!("{level},actix_http=off,actix_server=warn,h2=warn,hyper=warn");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second subscriber in one process is a test's; the first one stays.
    let started = match config.log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    drop(started);
}

/// Makes sure that there is a first account.
///
/// A drawn secret stands in its file before the account is committed: a process that ends between
/// the two would leave an account that nobody can ever enter.
async fn first_account(config: &Config, opened: &Opened) -> Result<FirstAccount, StartError> {
    let app = &opened.app;
    let fixed = match &config.master_key {
        Some(fixed) => Some(fixed.clone()),
        None if list_accounts(app)?.is_empty() => {
            let (id, secret) = draw_account(app);
            write_initial_key(&opened.data_dir, id, &secret)?;
            Some((id, secret))
        }
        None => None,
    };
    Ok(ensure_first_account(app, fixed).await?)
}

fn write_initial_key(data_dir: &Path, id: AccountId, secret: &Secret) -> Result<(), StartError> {
    let text = format!("B2_APPLICATION_KEY_ID={id}\nB2_APPLICATION_KEY={}\n", secret.expose());
    write_private(&data_dir.join(INITIAL_KEY_FILE), Secret::new(text).expose().as_bytes())
}

/// Starts listeners and workers, waits for the end, stops them in order.
async fn run(
    config: &Config,
    opened: &Opened,
    tls: Option<&Arc<Tls>>,
    workers: &tokio::runtime::Runtime,
    patience: Duration,
    ready: impl FnOnce(&Addresses),
    ended: End<'_>,
) -> Result<(), StartError> {
    let app = &opened.app;
    // Every blob of this run has a greater id, whatever the clock does from here on.
    let before_this_run = app.numbers.blob(app.clock.now());
    let options = EngineOptions {
        workers: config.replication.workers,
        target_max_inflight: config.replication.target_max_inflight,
        mapping_grace_ms: config.replication.mapping_grace_ms,
    };
    let local: Arc<dyn Destination> = Arc::new(Local);
    let of_remotes =
        Trusted { setting: "replication.ca_file", path: config.replication.ca_file.as_ref() };
    let lines = RemoteLines::new(Arc::clone(&app.clock), of_remotes.read()?.as_deref())
        .map_err(|error| of_remotes.error(error))?;
    let allowed = Some(config.replication.bandwidth_bytes_per_second).filter(|rate| *rate > 0);
    let remotes: Arc<dyn Remotes> = Arc::new(Network::new(lines, Arc::clone(&app.clock), allowed));
    let engine = Engine::new(Arc::clone(app), options, local, Arc::clone(&remotes));
    let grace_ms = i64::try_from(config.blobs.grace_s).unwrap_or(i64::MAX / 2000) * 1000;
    let sweep = Sweep::new(Arc::clone(app), grace_ms);
    let upkeep = Upkeep::new(Arc::clone(app));
    let lifecycle = Lifecycle::new(Arc::clone(app));

    let of_targets =
        Trusted { setting: "notifications.ca_file", path: config.notifications.ca_file.as_ref() };
    let trusted = of_targets.read()?;

    let data = std::net::TcpListener::bind(config.listen);
    let data = data.map_err(|source| listen_error(&config.listen, source))?;
    let admin_socket = std::net::TcpListener::bind(config.admin_listen);
    let admin_socket = admin_socket.map_err(|source| listen_error(&config.admin_listen, source))?;
    for socket in [&data, &admin_socket] {
        limit_slow_readers(socket, config.http.idle_timeout_s);
    }
    let address = |scheme, socket: &std::net::TcpListener, wanted: &std::net::SocketAddr| {
        format!("{scheme}://{}", socket.local_addr().unwrap_or(*wanted))
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let own_ports = [&data, &admin_socket].map(|socket| socket.local_addr().map(|at| at.port()));
    let own_ports = own_ports.into_iter().flatten().collect();
    let webhooks = Webhooks::new(app.policy.webhooks, trusted.as_deref(), own_ports);
    let webhooks: Arc<dyn Courier> = Arc::new(webhooks.map_err(|error| of_targets.error(error))?);
    let delivery = Delivery::new(Arc::clone(app), webhooks, config.notifications.workers);
    let at = Addresses {
        endpoint: address(scheme, &data, &config.listen),
        admin_endpoint: address("http", &admin_socket, &config.admin_listen),
    };
    let http = web::Data::new(Http {
        app: Arc::clone(app),
        engine: Arc::<Engine>::clone(&engine),
        network: Arc::new(Inquiry(remotes)),
        settings: HttpSettings {
            public_url: config.public_url.clone(),
            endpoint: at.endpoint.clone(),
            scheme,
            region: config.region.clone(),
            idle_timeout: Duration::from_secs(config.http.idle_timeout_s),
            json_bytes_max: config.http.json_bytes_max,
            trusted_proxies: config.http.trusted_proxies.0.clone(),
            refuse_checksums: config.s3.checksum_support == ChecksumSupport::Reject,
            streams_on_data: config.streams.on_data_listener,
            test_mode: config.test_mode,
            s3: s3_settings(config),
        },
        controls: config.test_controls.then(TestControls::default),
    });
    let data_http = http.clone();
    let data_server = HttpServer::new(move || {
        WebApp::new().app_data(data_http.clone()).default_service(web::to(crate::api::serve))
    })
    .workers(config.http.workers)
    .backlog(4096)
    .tcp_nodelay(true)
    .client_disconnect_timeout(Duration::from_secs(5))
    .shutdown_timeout(DRAIN.as_secs())
    .disable_signals();
    let data_server = match tls {
        Some(tls) => data_server.listen_rustls_0_23(data, tls.server()?),
        None => data_server.listen(data),
    };
    let data_server = data_server.map_err(|source| listen_error(&config.listen, source))?.run();
    let admin_server = HttpServer::new(move || {
        WebApp::new().app_data(http.clone()).default_service(web::to(admin::serve))
    })
    .workers(1)
    .client_disconnect_timeout(Duration::from_secs(5))
    .shutdown_timeout(DRAIN.as_secs())
    .disable_signals()
    .listen(admin_socket)
    .map_err(|source| listen_error(&config.admin_listen, source))?
    .run();
    let (data_handle, admin_handle) = (data_server.handle(), admin_server.handle());
    let data_task = actix_web::rt::spawn(data_server);
    let admin_task = actix_web::rt::spawn(admin_server);

    let engine_task = workers.spawn(Arc::clone(&engine).run());
    let sweep_task = workers.spawn(sweep_from(Arc::clone(&sweep), before_this_run));
    let upkeep_task = workers.spawn(Arc::clone(&upkeep).run());
    let lifecycle_task = workers.spawn(Arc::clone(&lifecycle).run());
    let tls_task = tls.map(|tls| workers.spawn(follow_certificate(Arc::clone(tls))));
    let delivery_task = workers.spawn(Arc::clone(&delivery).run());
    let facts = json!({
        "accountId": crate::operations::accounts::first_account(app)?.to_string(),
        "adminEndpoint": at.admin_endpoint,
        "endpoint": at.endpoint,
        "pid": std::process::id(),
    });
    let facts = serde_json::to_vec(&facts).unwrap_or_default();
    let running_file = opened.data_dir.join(RUNNING_FILE);
    write_passing(&running_file, &facts)?;
    if let Some(path) = &config.ready_file {
        write_passing(path, &facts)?;
    }
    ready(&at);

    let ended = ended.await;
    let seconds = patience.as_secs();
    tracing::info!("stopping: no new connections, requests in flight have {seconds} s");
    let waits = !patience.is_zero();
    futures_util::future::join(data_handle.stop(waits), admin_handle.stop(waits)).await;
    sweep.stop();
    lifecycle.stop();
    upkeep.stop();
    // The engine and its tasks run on the workers' runtime; only the waiting is done here.
    futures_util::future::join(engine.stop(patience), delivery.stop(patience)).await;
    let workers_ended = futures_util::future::join5(
        engine_task,
        sweep_task,
        lifecycle_task,
        upkeep_task,
        delivery_task,
    );
    drop(tokio::time::timeout(DRAIN, workers_ended).await);
    if let Some(task) = tls_task {
        task.abort();
    }
    drop((data_task, admin_task));
    if let Err(error) = std::fs::remove_file(&running_file) {
        tracing::warn!(%error, "remove {RUNNING_FILE}");
    }
    tracing::info!("stopped");
    ended
}

fn s3_settings(config: &Config) -> S3Settings {
    let profile = match config.s3.profile {
        config::S3Profile::Backblaze => Profile::Backblaze,
        config::S3Profile::Extended => Profile::Extended,
    };
    S3Settings { profile, domains: config.s3.domain.0.clone() }
}

/// Has the kernel end connections whose client takes nothing of an answer for ten idle limits; every
/// connection has this of its listener. The web server asks for the next piece of an answer only when
/// there is room for it, so it would wait for ever, and hold a file open meanwhile.
fn limit_slow_readers(socket: &std::net::TcpListener, idle_timeout_s: u64) {
    let limit_ms = u32::try_from(idle_timeout_s.saturating_mul(10_000)).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(socket, limit_ms) {
        tracing::warn!(%error, "this system cannot end connections of clients that read nothing");
    }
}

/// A setting that names a file of certificates to trust besides the system's.
struct Trusted<'c> {
    setting: &'static str,
    path: Option<&'c PathBuf>,
}

impl Trusted<'_> {
    fn error(&self, problem: impl std::fmt::Display) -> StartError {
        let path = self.path.cloned().unwrap_or_default();
        StartError::CaFile { setting: self.setting, path, problem: problem.to_string() }
    }

    fn read(&self) -> Result<Option<Vec<u8>>, StartError> {
        let Some(path) = self.path else { return Ok(None) };
        let read = std::fs::read(path);
        read.map(Some).map_err(|error| self.error(format_args!("cannot be read: {error}")))
    }
}

fn listen_error(address: &std::net::SocketAddr, source: io::Error) -> StartError {
    StartError::Listen { address: address.to_string(), source }
}

async fn sweep_from(sweep: Arc<Sweep>, before_this_run: BlobId) {
    match sweep.remove_orphans(before_this_run).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed bytes that a crash had left behind"),
        Err(error) => tracing::warn!(%error, "look for bytes that a crash left behind"),
    }
    sweep.run().await;
}

/// How often the files of the certificate are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);
/// Where our own certificate and its key are kept in the data folder.
const OWN_CERTIFICATE: [&str; 2] = ["tls-cert.pem", "tls-key.pem"];
/// What is written into the data folder under a passing name first, besides the keys.
const OWN_FILES: [&str; 4] =
    [INITIAL_KEY_FILE, RUNNING_FILE, OWN_CERTIFICATE[0], OWN_CERTIFICATE[1]];

/// Reads the certificate that the settings name; our own one is made when it is not there.
fn open_tls(config: &Config, clock: &dyn Clock) -> Result<Option<Arc<Tls>>, StartError> {
    let files = match &config.certificate {
        None => return Ok(None),
        Some(Certificate::Files(files)) => files.clone(),
        Some(Certificate::SelfSigned) => own_certificate(config, clock)?,
    };
    Ok(Some(Tls::open(files)?))
}

fn own_certificate(config: &Config, clock: &dyn Clock) -> Result<TlsFiles, StartError> {
    let [certificate, key] = OWN_CERTIFICATE.map(|name| config.data_dir.join(name));
    let files = TlsFiles { certificate, key };
    let is_there =
        |path: &Path| path.try_exists().map_err(folder_error("look for the certificate", path));
    if is_there(&files.certificate)? && is_there(&files.key)? {
        return Ok(files);
    }
    let s3_host = format!("s3.{}.localhost", config.region);
    let mut names = vec!["localhost".to_owned(), "*.localhost".to_owned()];
    names.extend([format!("*.{s3_host}"), s3_host]);
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let at = config.listen.ip();
    if !at.is_unspecified() && !addresses.contains(&at) {
        addresses.push(at);
    }
    let made = tls::self_signed(&names, &addresses, clock.now())?;
    write_private(&files.key, made.key.as_bytes())?;
    write_private(&files.certificate, made.certificate.as_bytes())?;
    Ok(files)
}

/// Has new connections get the certificate that is in its files, whenever it is replaced.
async fn follow_certificate(tls: Arc<Tls>) {
    let mut look = tokio::time::interval(CERTIFICATE_LOOK);
    loop {
        look.tick().await;
        tls.reload_if_changed();
    }
}

/// Waits for a signal, or for a store that can no longer be trusted.
async fn wait_for_end(app: &App, tls: Option<Arc<Tls>>) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Runtime)?;
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            // Without a certificate it means what it means to every program in a terminal.
            _ = hangup.recv() => match &tls {
                Some(tls) => tls.reload(),
                None => return Ok(()),
            },
            _ = look.tick() => {
                if let Some(why) = app.catalog.suspect().or_else(|| app.blobs.suspect()) {
                    return Err(StartError::StorageFailure(why));
                }
            }
        }
    }
}

/// Says where the server is and what to do next. Secrets go to a terminal only, never to a log.
fn greet(config: &Config, at: &Addresses, first: Option<&NewAccount>) {
    let Addresses { endpoint, admin_endpoint } = at;
    let key_file = config.data_dir.join(INITIAL_KEY_FILE);
    let mut text = format!(
        "kiln {} is ready\n  data   {endpoint}\n  admin  {admin_endpoint}\n  folder {}\n",
        env!("CARGO_PKG_VERSION"),
        config.data_dir.display()
    );
    if config.certificate == Some(Certificate::SelfSigned) {
        let [certificate, _] = OWN_CERTIFICATE;
        let certificate = config.data_dir.join(certificate).display().to_string();
        text.push_str("  certificate, signed by nobody else: ");
        text.push_str(&certificate);
        text.push('\n');
    }
    if config.test_controls {
        text.push_str("  TEST CONTROLS ARE ON: anybody on this machine can move the clock, plan faults and remove everything\n");
    }
    if let Some(account) = first.filter(|_| config.master_key.is_none()) {
        text.push_str("\nThis is a new data folder. Its master application key is in\n");
        text.push_str("  ");
        text.push_str(&key_file.display().to_string());
        text.push('\n');
        if io::stdout().is_terminal() {
            let shown = format!("  key id {}\n  key    {}\n", account.id, account.secret.expose());
            text.push_str(&shown);
        }
        let url = config.public_url.as_ref().unwrap_or(endpoint);
        let next = format!(
            "\nNext, with Backblaze's own command line:\n  . {}\n  b2 account authorize --environment {url} \"$B2_APPLICATION_KEY_ID\" \"$B2_APPLICATION_KEY\"\n  b2 bucket create my-bucket allPrivate\n",
            key_file.display()
        );
        text.push_str(&next);
    }
    let mut stdout = io::stdout().lock();
    // A closed terminal is no reason not to serve.
    drop(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Why an administration command did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("there is no data folder at {}: start kiln there first, or name another with --data-dir", .0.display())]
    NoDataFolder(PathBuf),
    #[error("a server runs on this data folder, but {} does not say where", .0.display())]
    UnknownAddress(PathBuf),
    #[error("a server runs on this data folder; asking it needs the master application key: set KILN_MASTER_KEY_ID and KILN_MASTER_KEY, or keep {}", .0.display())]
    NoMasterKey(PathBuf),
    #[error("read the token {}: {source}", .path.display())]
    TokenFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the remote needs a token: set {}, or name a file with --remote-api-token-file",
        config::REMOTE_TOKEN_VARIABLE
    )]
    NoRemoteToken,
    #[error(transparent)]
    Outbound(#[from] outbound::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{}", operation_text(.0))]
    Operation(OperationError),
}

/// One call of the API of remotes and streams. Its fields go into the query of a GET and into the
/// body of anything else.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiCall {
    pub(crate) method: &'static str,
    /// Perhaps with a query.
    pub(crate) path: String,
    pub(crate) fields: Map<String, Value>,
}

/// Where administration commands are performed: in the running server, or here when none runs on
/// the data folder.
pub(crate) struct Desk {
    runtime: tokio::runtime::Runtime,
    config: Config,
    opened: Option<Opened>,
}

impl Desk {
    pub(crate) fn open(config: Config) -> Result<Self, AdminError> {
        keep_private();
        let exists = config.data_dir.join("meta.db").try_exists().unwrap_or(false);
        if !exists {
            return Err(AdminError::NoDataFolder(config.data_dir));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let opened = match open(&config, Parts::real()) {
            Ok(opened) => Some(opened),
            Err(StartError::InUse { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { runtime, config, opened })
    }

    /// Where the running server answers its clients; None when none runs.
    pub(crate) fn endpoint(&self) -> Option<String> {
        if self.opened.is_some() { None } else { running_endpoint(&self.config.data_dir) }
    }

    pub(crate) fn perform(&self, command: AdminCommand) -> Result<Value, AdminError> {
        if let Some(opened) = &self.opened {
            let operator = Operator::of_data_folder();
            let performed = self.runtime.block_on(manage::perform(&opened.app, &operator, command));
            return performed.map_err(AdminError::Operation);
        }
        let (method, path, fields) = command.to_request();
        let request = admin_request(&self.config, method, path, fields)?;
        Ok(self.runtime.block_on(outbound::ask_admin(request))?)
    }

    /// Performs a call of the API of remotes and streams; null where it answers nothing.
    pub(crate) fn call(&self, call: &ApiCall) -> Result<Value, AdminError> {
        let ApiCall { method, path, fields } = call;
        let Some(opened) = &self.opened else {
            let request = admin_request(&self.config, method, path.clone(), fields.clone())?;
            return Ok(self.runtime.block_on(outbound::ask_admin(request))?);
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (query, body) = match *method {
            "GET" => (outbound::query(fields), Vec::new()),
            _ => (query.to_owned(), Value::Object(fields.clone()).to_string().into_bytes()),
        };
        let subject = influx::Subject { app: Arc::clone(&opened.app), network: None };
        let who = influx::Who::Operator(Operator::of_data_folder());
        let asked = influx::Asked { method, path, query: &query, body: &body };
        let answered = self.runtime.block_on(influx::perform(subject, who, asked));
        Ok(answered.map_err(AdminError::Operation)?.body.unwrap_or_default())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(opened) = &self.opened {
            opened.app.catalog.close();
        }
    }
}

fn admin_request(
    config: &Config,
    method: &'static str,
    path: String,
    fields: Map<String, Value>,
) -> Result<AdminRequest, AdminError> {
    let running = config.data_dir.join(RUNNING_FILE);
    let endpoint = running_fact(&config.data_dir, "adminEndpoint")
        .ok_or(AdminError::UnknownAddress(running))?;
    let (key_id, secret) = match &config.master_key {
        Some((id, secret)) => (id.to_string(), secret.clone()),
        None => initial_key(&config.data_dir)?,
    };
    Ok(AdminRequest { endpoint, method, path, fields, key_id, secret })
}

fn initial_key(data_dir: &Path) -> Result<(String, Secret), AdminError> {
    let path = data_dir.join(INITIAL_KEY_FILE);
    require_closed_file(&path)?;
    let text = Secret::new(std::fs::read_to_string(&path).unwrap_or_default());
    let value = |name: &str| {
        text.expose()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    match (value("B2_APPLICATION_KEY_ID"), value("B2_APPLICATION_KEY")) {
        (Some(id), Some(secret)) => Ok((id, Secret::new(secret))),
        _ => Err(AdminError::NoMasterKey(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_key_ring_is_written_where_it_lies_and_touches_no_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let real = at("apart").join("ring");
        std::fs::create_dir(at("apart")).expect("made");
        std::fs::write(&real, b"old").expect("written");
        std::fs::write(at("other"), b"other").expect("written");
        symlink(&real, at("ring")).expect("linked");
        symlink(at("other"), at("ring.new")).expect("linked");
        symlink(at("other"), at("apart").join("ring.new")).expect("linked");

        write_private(&at("ring"), b"new").expect("written");
        assert_eq!(std::fs::read(&real).expect("there"), b"new");
        assert_eq!(std::fs::read(at("other")).expect("there"), b"other");
        assert_eq!(at("ring").read_link().expect("still a link"), real);
        assert_eq!(names(&at("apart")), ["ring", "ring.new"], "nothing is left behind");
        let mode = real.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_ring_that_cannot_be_written_stays_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let ring = folder.path().join("ring.new");
        std::fs::write(&ring, b"old").expect("written");
        let failed = put_private(&ring, b"new", |_| Err(io::Error::other("planned")));
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&ring).expect("there"), b"old");
        assert_eq!(names(folder.path()), ["ring.new"]);
    }
}
