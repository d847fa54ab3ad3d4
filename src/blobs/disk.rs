//! Blobs as plain files on one local file system.
//!
//! Shape: `blobs/<YYYY-MM-DD>/<HH>/<nnnn>/<id>`, one immutable file for a blob, read-only from the
//! moment it has a name. Date and hour are those in which the id was drawn, so they follow from
//! the id; `nnnn` counts up when a folder is full. It does not follow from the id: a reader tries
//! the first few numbers by name (nearly always `0000` is the one) and looks into the hour folder
//! only when they all fail, so reading lists no directory as long as an hour stays below
//! [`LIKELY_FOLDERS`] times [`FILES_PER_FOLDER`] blobs.
//!
//! Order of a write: unnamed file in its folder, bytes, link, sync of the file, sync of the folder.
//! The link comes before the sync because some file systems keep nothing of a nameless file, and it
//! harms nobody because a blob is only looked for after a committed row names it. Where files
//! without a name are not supported the file is written under `tmp/`, synced and renamed.
//!
//! Contents at or below [`DiskOptions::inline_max`] never come here: their writer hands them back.
//!
//! Deliberately absent: rewriting, truncating, and trying a failed sync again. A kernel that could
//! not make bytes durable may have dropped them, so after one such failure the store is suspect
//! and takes no writes until a restart has probed the disk anew.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use rustix::fs::{
    Advice, AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fadvise,
    fcntl_setfl, fstat, fsync, linkat, mkdirat, openat, openat2, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, retry_on_intr};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::blobs::sealed::{SEGMENT, Sealer, stored_bytes};
use crate::blobs::{BlobReader, BlobStore, BlobWriter, Error};
use crate::clock::Clock;
use crate::domain::blob::Placement;
use crate::domain::digest::{BlockChecks, CHECK_BLOCK_BYTES, Corrupt, Digests, Hasher, Verifier};
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;

/// Blobs begun in one numbered folder before the next one is opened: directories stay cheap to
/// search, to list and to sync.
const FILES_PER_FOLDER: u32 = 50_000;
/// Numbered folders that are tried by name before the hour folder is listed.
const LIKELY_FOLDERS: u32 = 8;
/// Hours whose current folder is kept open; ids of older hours are not drawn any more.
const HOURS_KEPT: usize = 4;

/// What one write call carries: bigger ones save nothing and cost memory in every upload.
const BUFFER_BYTES: usize = 256 * 1024;
const _: () = assert!(BUFFER_BYTES.is_multiple_of(SEGMENT), "sealed as they come");
/// Alignment of memory, offset and length that writes past the page cache ask for.
const PAGE_BYTES: usize = 4096;
/// Buffers handed to the pool of threads at a time: one is hashed while the one before it is
/// written. With the one being filled an upload owns three.
const BUFFERS_IN_FLIGHT: usize = 2;
/// Content of this size or more is written past the page cache: it costs half the CPU time, and
/// large content is seldom read back at once.
const DIRECT_FROM_BYTES: u64 = 4 * 1024 * 1024;
/// Idle buffers kept for the next upload.
const BUFFERS_KEPT: usize = 16;

/// What one read hands out.
const CHUNK_BYTES: usize = 128 * 1024;
const _: () = assert!((CHUNK_BYTES as u64).is_multiple_of(CHECK_BLOCK_BYTES), "whole blocks");
/// Idle chunks kept for the next download.
const CHUNKS_KEPT: usize = 16;
/// Reads up to this size get memory of their own size instead of a whole chunk.
const SMALL_READ_BYTES: usize = 32 * 1024;
/// What the kernel is asked to fetch ahead once a read had to wait for the disk.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;

const HOUR_MS: i64 = 60 * 60 * 1000;

const BLOBS: &str = "blobs";
const TMP: &str = "tmp";
/// Names the start-up probe uses; no blob id looks like them.
const PROBE: &str = "probe";
const PROBE_LINKED: &str = "probe-linked";

/// Settings of a [`DiskStore`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskOptions {
    /// Content of at most this many bytes is handed back instead of written to a file.
    pub(crate) inline_max: u64,
}

/// How bytes become durable; a seam of its own so that a test can count the calls and fail them.
pub(crate) trait Syncs: Send + Sync {
    fn file(&self, file: BorrowedFd<'_>) -> io::Result<()>;
    fn folder(&self, folder: BorrowedFd<'_>) -> io::Result<()>;
}

/// The real thing. Not `fdatasync`: the link count of a file just linked must arrive too.
struct KernelSyncs;

impl Syncs for KernelSyncs {
    fn file(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        Ok(retry_on_intr(|| fsync(file))?)
    }

    fn folder(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        Ok(retry_on_intr(|| fsync(folder))?)
    }
}

/// What differs between machines, so that a test can stand in for another machine.
pub(crate) struct Machine {
    pub(crate) syncs: Arc<dyn Syncs>,
    /// Whether to try files without a name at all.
    pub(crate) unnamed_files: bool,
    pub(crate) direct_from_bytes: u64,
    pub(crate) files_per_folder: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            syncs: Arc::new(KernelSyncs),
            unnamed_files: true,
            direct_from_bytes: DIRECT_FROM_BYTES,
            files_per_folder: FILES_PER_FOLDER,
        }
    }
}

/// The store on disk.
pub(crate) struct DiskStore {
    shared: Arc<Shared>,
}

/// What the store, its writers and its tasks have in common.
struct Shared {
    /// Only for messages; everything is opened relative to the folders below.
    root: PathBuf,
    blobs: OwnedFd,
    tmp: OwnedFd,
    inline_max: u64,
    clock: Arc<dyn Clock>,
    machine: Machine,
    /// Whether files without a name work here; found out by the probe.
    unnamed_files: AtomicBool,
    /// Whether reads may be asked not to wait; off once the file system refused.
    nowait_reads: AtomicBool,
    folders: Folders,
    buffers: Arc<Pool>,
    chunks: Arc<Pool>,
    /// The first failure to make bytes durable.
    suspect: OnceLock<String>,
}

impl DiskStore {
    /// Opens the store below `root`, which must exist, after proving that the file system can make
    /// a new file durable there. Blocks; meant for start-up.
    pub(crate) fn open(
        root: &Path,
        options: DiskOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, Error> {
        Self::open_on(root, options, clock, Machine::default())
    }

    /// As [`DiskStore::open`], on a machine of the caller's making.
    pub(crate) fn open_on(
        root: &Path,
        options: DiskOptions,
        clock: Arc<dyn Clock>,
        machine: Machine,
    ) -> Result<Arc<Self>, Error> {
        let open_folder = |path: &Path| {
            openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|cause| failure("opening a data folder", path.display(), cause))
        };
        let root_folder = open_folder(root)?;
        for name in [BLOBS, TMP] {
            match mkdirat(&root_folder, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => (),
                Err(cause) => {
                    let path = root.join(name);
                    return Err(failure("making a data folder", path.display(), cause));
                }
            }
        }
        machine
            .syncs
            .folder(root_folder.as_fd())
            .map_err(|cause| failure("syncing the data folder", root.display(), cause))?;
        let shared = Shared {
            blobs: open_folder(&root.join(BLOBS))?,
            tmp: open_folder(&root.join(TMP))?,
            root: root.to_owned(),
            inline_max: options.inline_max,
            clock,
            unnamed_files: AtomicBool::new(machine.unnamed_files),
            nowait_reads: AtomicBool::new(true),
            machine,
            folders: Folders::default(),
            buffers: Arc::new(Pool::new(BUFFER_BYTES + PAGE_BYTES, BUFFERS_KEPT)),
            chunks: Arc::new(Pool::new(CHUNK_BYTES, CHUNKS_KEPT)),
            suspect: OnceLock::new(),
        };
        shared.clear_tmp()?;
        match shared.probe() {
            Ok(unnamed_files) => shared.unnamed_files.store(unnamed_files, Ordering::Relaxed),
            // A full disk must not keep the server down: reading and removing still work, and
            // removing is what makes room.
            Err(Error::Full { doing }) => {
                tracing::warn!(doing, "the disk is full, so its durability was not probed");
            }
            Err(other) => return Err(other),
        }
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }
}

impl BlobStore for DiskStore {
    fn begin(
        &self,
        id: BlobId,
        size: u64,
        sealer: Option<Sealer>,
    ) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, Error>> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.trusted()?;
            if size <= shared.inline_max {
                let writer: Box<dyn BlobWriter> = Box::new(InlineWriter::new(shared, size, sealer));
                return Ok(writer);
            }
            let folder = if let Some(folder) = shared.folders.current(hour_of(id)) {
                folder
            } else {
                let shared = Arc::clone(shared);
                off_thread("making a folder", move || shared.make_folder(id)).await?
            };
            let opening = Opening { shared: Arc::clone(shared), folder, id, size };
            let writer: Box<dyn BlobWriter> = Box::new(DiskWriter::new(opening, sealer));
            Ok(writer)
        })
    }

    fn open(
        &self,
        id: BlobId,
        size: u64,
        range: ByteRange,
        checks: BlockChecks,
    ) -> BoxFuture<'_, Result<Box<dyn BlobReader>, Error>> {
        Box::pin(async move {
            let file = if let Some(file) = self.shared.find_cached(id) {
                file
            } else {
                let shared = Arc::clone(&self.shared);
                off_thread("opening a blob", move || shared.find(id)).await?
            };
            let reader: Box<dyn BlobReader> =
                Box::new(DiskReader::new(&self.shared, id, file, size, range, checks)?);
            Ok(reader)
        })
    }

    fn remove(&self, id: BlobId) -> BoxFuture<'_, Result<(), Error>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(off_thread("removing a blob", move || shared.remove(id)))
    }

    fn list(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, Error>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(off_thread("listing blobs", move || shared.list(after, limit)))
    }

    fn suspect(&self) -> Option<String> {
        self.shared.suspect.get().cloned()
    }
}

/// Runs blocking `work` on the pool of threads.
async fn off_thread<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|lost| Err(failure(doing, "its task", io::Error::other(lost))))
}

/// An error that names the thing it happened to; lack of space is told apart because the caller
/// can wait for it to pass.
fn failure(doing: &'static str, what: impl fmt::Display, cause: impl Into<io::Error>) -> Error {
    let cause = cause.into();
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { doing },
        kind => Error::Io { doing, source: io::Error::new(kind, format!("{what}: {cause}")) },
    }
}

/// No code runs under these locks that could leave the data behind them half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hour_of(id: BlobId) -> i64 {
    id.drawn_at().0.div_euclid(HOUR_MS)
}

/// `<YYYY-MM-DD>/<HH>`.
fn hour_path(id: BlobId) -> String {
    let (date, hour) = id.drawn_at().folder_names();
    format!("{date}/{hour}")
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The smaller of the two; it fits because `most` does.
fn at_most(bytes: u64, most: usize) -> usize {
    usize::try_from(bytes).map_or(most, |bytes| bytes.min(most))
}

// ---- Trust -------------------------------------------------------------------------------------

impl Shared {
    fn path_of(&self, relative: impl fmt::Display) -> impl fmt::Display {
        format!("{}/{BLOBS}/{relative}", self.root.display())
    }

    fn trusted(&self) -> Result<(), Error> {
        match self.suspect.get() {
            Some(reason) => Err(Error::Suspect(reason.clone())),
            None => Ok(()),
        }
    }

    /// Remembers that bytes may be lost; the first such reason is kept.
    fn distrust(&self, path: impl fmt::Display, cause: &io::Error) -> Error {
        let now = self.clock.now();
        let reason = self
            .suspect
            .get_or_init(|| format!("syncing {path} failed at {}: {cause}", now.readable()));
        tracing::error!(%cause, reason, "the blob store takes no writes any more");
        Error::Suspect(reason.clone())
    }

    fn sync_folder(&self, folder: &OwnedFd, path: &str) -> Result<(), Error> {
        let synced = self.machine.syncs.folder(folder.as_fd());
        synced.map_err(|cause| self.distrust(self.path_of(path), &cause))
    }
}

// ---- Start-up ----------------------------------------------------------------------------------

impl Shared {
    /// Removes what uploads cut short by a crash left behind. Folders are not ours and stay.
    fn clear_tmp(&self) -> Result<(), Error> {
        let doing = "clearing the folder of temporary files";
        let path = self.root.join(TMP);
        let mut removed = 0_u64;
        for entry in Dir::read_from(&self.tmp).map_err(|e| failure(doing, path.display(), e))? {
            let entry = entry.map_err(|e| failure(doing, path.display(), e))?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&self.tmp, entry.file_name(), AtFlags::empty()) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => (),
                Err(cause) => return Err(failure(doing, path.display(), cause)),
            }
        }
        if removed > 0 {
            tracing::info!(removed, "removed temporary files of uploads that were cut short");
        }
        Ok(())
    }

    /// Walks the two ways of making a file durable; tells whether files without a name work.
    fn probe(&self) -> Result<bool, Error> {
        self.clear_probes();
        let verdict = self.probe_rename().and_then(|()| self.probe_unnamed());
        self.clear_probes();
        verdict
    }

    fn clear_probes(&self) {
        for (folder, name) in
            [(&self.tmp, PROBE), (&self.blobs, PROBE), (&self.blobs, PROBE_LINKED)]
        {
            // Most of them are not there; one that cannot be removed makes the probe itself fail.
            unlinkat(folder, name, AtFlags::empty()).ok();
        }
    }

    fn probe_rename(&self) -> Result<(), Error> {
        let path = self.root.join(TMP).join(PROBE);
        let step = |doing, cause: io::Error| failure(doing, path.display(), cause);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.tmp, PROBE, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| step("start-up probe: creating a file", e.into()))?;
        self.probe_bytes(&file, &path)?;
        renameat(&self.tmp, PROBE, &self.blobs, PROBE)
            .map_err(|e| step("start-up probe: renaming a file into the blobs", e.into()))?;
        self.machine
            .syncs
            .folder(self.blobs.as_fd())
            .map_err(|e| step("start-up probe: syncing the folder of blobs", e))
    }

    fn probe_bytes(&self, file: &OwnedFd, path: &Path) -> Result<(), Error> {
        let page = [0x6b_u8; PAGE_BYTES];
        write_all(file, &page, 0)
            .map_err(|e| failure("start-up probe: writing a file", path.display(), e))?;
        self.machine
            .syncs
            .file(file.as_fd())
            .map_err(|e| failure("start-up probe: syncing a file", path.display(), e))
    }

    fn probe_unnamed(&self) -> Result<bool, Error> {
        if !self.machine.unnamed_files {
            return Ok(false);
        }
        let path = self.root.join(BLOBS).join(PROBE_LINKED);
        let file = match open_unnamed(&self.blobs) {
            Ok(file) => file,
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                return Ok(false);
            }
            Err(e) => {
                return Err(failure("start-up probe: opening a nameless file", path.display(), e));
            }
        };
        if link_unnamed(&file, &self.blobs, PROBE_LINKED).is_err() {
            // Without /proc a file cannot be linked in this way; renaming was proven above.
            return Ok(false);
        }
        self.probe_bytes(&file, &path)?;
        Ok(true)
    }
}

fn open_unnamed(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    retry_on_intr(|| openat(folder, ".", flags, Mode::RUSR | Mode::WUSR))
}

fn link_unnamed(file: &OwnedFd, folder: &OwnedFd, name: &str) -> Result<(), Errno> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    retry_on_intr(|| linkat(CWD, unnamed.as_str(), folder, name, AtFlags::SYMLINK_FOLLOW))
}

/// Writes all of `bytes`, however many calls that takes.
fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), io::Error> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| pwrite(file, bytes, offset))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
        offset += as_u64(written);
    }
    Ok(())
}

// ---- Folders -----------------------------------------------------------------------------------

/// The folders that new blobs go into, by the hour.
#[derive(Default)]
struct Folders {
    current: Mutex<BTreeMap<i64, Current>>,
    /// Held while a folder is made, so that it is made once.
    making: Mutex<()>,
}

struct Current {
    folder: Arc<Folder>,
    room: u32,
}

/// A numbered folder, held open.
struct Folder {
    /// Relative to the folder of blobs.
    path: String,
    dir: OwnedFd,
    syncs: Mutex<FolderSyncs>,
    /// Told whenever a sync has ended.
    sync_ended: Notify,
}

impl Folders {
    /// Takes a place in the current folder of an hour.
    fn current(&self, hour: i64) -> Option<Arc<Folder>> {
        let mut current = lock(&self.current);
        let current = current.get_mut(&hour)?;
        current.room = current.room.checked_sub(1)?;
        Some(Arc::clone(&current.folder))
    }

    fn forget(&self, hour: i64) {
        lock(&self.current).remove(&hour);
    }

    fn keep(&self, hour: i64, folder: &Arc<Folder>, room: u32) {
        let mut current = lock(&self.current);
        if current.len() >= HOURS_KEPT {
            current.pop_first();
        }
        current.insert(hour, Current { folder: Arc::clone(folder), room });
    }
}

impl Shared {
    /// Opens the folder that blob `id` goes into, and makes it when it is missing.
    ///
    /// The parents are synced even where nothing was made: a server that died between making a
    /// folder and syncing its parent left one that a power cut would take away.
    fn make_folder(&self, id: BlobId) -> Result<Arc<Folder>, Error> {
        let _one_at_a_time = lock(&self.folders.making);
        let hour = hour_of(id);
        if let Some(folder) = self.folders.current(hour) {
            return Ok(folder);
        }
        let (date_name, hour_name) = id.drawn_at().folder_names();
        let date_dir = self.subfolder(&self.blobs, ".", &date_name)?;
        let hour_path = format!("{date_name}/{hour_name}");
        let hour_dir = self.subfolder(&date_dir, &date_name, &hour_name)?;
        let (number, used) = match self.names(&hour_path, is_number)?.pop() {
            None => (0, 0),
            Some(last) => {
                let number = last.parse::<u32>().unwrap_or(0);
                match self.count_entries(&format!("{hour_path}/{last}"))? {
                    used if used < self.machine.files_per_folder => (number, used),
                    _ => (number + 1, 0),
                }
            }
        };
        let name = format!("{number:04}");
        let dir = self.subfolder(&hour_dir, &hour_path, &name)?;
        let folder = Arc::new(Folder {
            path: format!("{hour_path}/{name}"),
            dir,
            syncs: Mutex::default(),
            sync_ended: Notify::new(),
        });
        let room = self.machine.files_per_folder.saturating_sub(used).saturating_sub(1);
        self.folders.keep(hour, &folder, room);
        Ok(folder)
    }

    fn subfolder(&self, parent: &OwnedFd, parent_path: &str, name: &str) -> Result<OwnedFd, Error> {
        let doing = "making a folder";
        let named = || self.path_of(format!("{parent_path}/{name}"));
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(cause) => return Err(failure(doing, named(), cause)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(parent, name, flags, Mode::empty())
            .map_err(|cause| failure(doing, named(), cause))?;
        self.sync_folder(parent, parent_path)?;
        Ok(folder)
    }

    fn count_entries(&self, path: &str) -> Result<u32, Error> {
        let mut count = 0_u32;
        self.each_entry(path, |_, _| count = count.saturating_add(1))?;
        Ok(count)
    }

    /// Names inside a folder that have the shape `fits` asks for, in order.
    fn names(&self, path: &str, fits: fn(&str) -> bool) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        self.each_entry(path, |name, kind| {
            if fits(name) && matches!(kind, FileType::Directory | FileType::Unknown) {
                names.push(name.to_owned());
            }
        })?;
        // Numbers beyond four digits are longer and must come after.
        names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        Ok(names)
    }

    /// Shows all entries of a folder. A folder that is gone, or is none, has no entries.
    fn each_entry(&self, path: &str, mut show: impl FnMut(&str, FileType)) -> Result<(), Error> {
        let doing = "reading a folder";
        let folder = match self.open_folder(path) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(cause) => return Err(failure(doing, self.path_of(path), cause)),
        };
        for entry in Dir::read_from(&folder).map_err(|e| failure(doing, self.path_of(path), e))? {
            let entry = entry.map_err(|e| failure(doing, self.path_of(path), e))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let kind = match entry.file_type() {
                FileType::Unknown => statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                known => known,
            };
            if !matches!(name, "." | "..") {
                show(name, kind);
            }
        }
        Ok(())
    }

    fn open_folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::empty())
    }

    /// Opens something inside the folder of blobs and refuses to follow any symbolic link.
    fn open_beneath(
        &self,
        path: &str,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match retry_on_intr(|| openat2(&self.blobs, path, flags, Mode::empty(), resolve)) {
            // Old kernels do not have the call and some containers forbid it.
            Err(Errno::NOSYS | Errno::PERM) if !resolve.contains(ResolveFlags::CACHED) => {
                retry_on_intr(|| openat(&self.blobs, path, flags, Mode::empty()))
            }
            outcome => outcome,
        }
    }
}

fn is_date(name: &str) -> bool {
    let digits_or_dash = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    name.len() == 10 && name.bytes().enumerate().all(digits_or_dash)
}

fn is_hour(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_number(name: &str) -> bool {
    name.parse::<u32>().is_ok_and(|number| format!("{number:04}") == name)
}

// ---- Syncs of folders, shared by those who wait for one ----------------------------------------

/// Syncs of one folder, counted.
#[derive(Default)]
struct FolderSyncs {
    started: u64,
    done: u64,
    running: bool,
}

/// What somebody who needs a folder synced has to do.
enum Turn {
    /// Nothing: it happened.
    Done,
    /// Sync it, for all who wait.
    Lead(Lead),
    /// Wait for the sync that is running.
    Wait,
}

/// The duty to sync a folder. Dropping it lets somebody else take it over.
struct Lead {
    folder: Arc<Folder>,
    number: u64,
}

impl Folder {
    /// The number of the first sync that starts after now: the one that covers what was linked
    /// up to now.
    fn next_sync(&self) -> u64 {
        lock(&self.syncs).started + 1
    }

    fn turn(self: &Arc<Self>, number: u64) -> Turn {
        let mut syncs = lock(&self.syncs);
        if syncs.done >= number {
            return Turn::Done;
        }
        if syncs.running {
            return Turn::Wait;
        }
        syncs.running = true;
        syncs.started += 1;
        Turn::Lead(Lead { folder: Arc::clone(self), number: syncs.started })
    }

    /// Waits until the sync with this number is done; runs it when nobody else does.
    async fn synced(self: &Arc<Self>, shared: &Arc<Shared>, number: u64) -> Result<(), Error> {
        loop {
            // Asked for before looking, so that no end is missed in between.
            let ended = self.sync_ended.notified();
            shared.trusted()?;
            match self.turn(number) {
                Turn::Done => return Ok(()),
                Turn::Lead(lead) => {
                    let shared = Arc::clone(shared);
                    off_thread("syncing a folder", move || lead.run(&shared)).await?;
                }
                Turn::Wait => ended.await,
            }
        }
    }
}

impl Lead {
    fn run(self, shared: &Shared) -> Result<(), Error> {
        shared.sync_folder(&self.folder.dir, &self.folder.path)?;
        lock(&self.folder.syncs).done = self.number;
        Ok(())
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        lock(&self.folder.syncs).running = false;
        self.folder.sync_ended.notify_waiters();
    }
}

// ---- Memory ------------------------------------------------------------------------------------

/// Pieces of memory of one size, kept for reuse: fresh ones would have to be zeroed by the
/// kernel, page by page.
struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    bytes: usize,
    most: usize,
}

impl Pool {
    fn new(bytes: usize, most: usize) -> Self {
        Self { free: Mutex::default(), bytes, most }
    }

    fn take(&self) -> Vec<u8> {
        let kept = lock(&self.free).pop();
        kept.unwrap_or_else(|| vec![0; self.bytes])
    }

    fn give(&self, memory: Vec<u8>) {
        let mut free = lock(&self.free);
        if memory.len() == self.bytes && free.len() < self.most {
            free.push(memory);
        }
    }
}

/// Bytes gathered for one write, at an address that writes past the page cache accept.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    room: usize,
    home: Arc<Pool>,
}

impl Buffer {
    /// What ends before a whole buffer is full gets a smaller one.
    fn for_bytes(size: u64, home: &Arc<Pool>) -> Self {
        let room = at_most(size, BUFFER_BYTES);
        let memory = if room == BUFFER_BYTES { home.take() } else { vec![0; room + PAGE_BYTES] };
        let start = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Self { memory, start, len: 0, room, home: Arc::clone(home) }
    }

    /// Copies as much as there is room for and tells how much that was.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room - self.len);
        let start = self.start + self.len;
        if let (Some(to), Some(from)) =
            (self.memory.get_mut(start..start + taken), bytes.get(..taken))
        {
            to.copy_from_slice(from);
            self.len += taken;
        }
        taken
    }

    /// Copies everything if there is room for it; tells whether there was.
    fn fill_whole(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.room - self.len;
        if fits {
            self.fill(bytes);
        }
        fits
    }

    fn is_full(&self) -> bool {
        self.len == self.room
    }

    fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.memory));
    }
}

/// Bytes read, on their way to a client; the memory comes home when the client has them.
struct Chunk {
    memory: Vec<u8>,
    len: usize,
    home: Arc<Pool>,
}

impl Chunk {
    fn of(wanted: usize, home: &Arc<Pool>) -> Self {
        let memory = if wanted <= SMALL_READ_BYTES { vec![0; wanted] } else { home.take() };
        Self { memory, len: wanted, home: Arc::clone(home) }
    }

    fn space(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.memory));
    }
}

// ---- Writing -----------------------------------------------------------------------------------

/// Small content: gathered, sealed if it is to be, and handed back. It never touches the disk.
struct InlineWriter {
    shared: Arc<Shared>,
    content: Vec<u8>,
    announced: u64,
    hasher: Option<Hasher>,
    sealer: Option<Sealer>,
}

impl InlineWriter {
    fn new(shared: &Arc<Shared>, size: u64, sealer: Option<Sealer>) -> Self {
        let stored = if sealer.is_some() { stored_bytes(size) } else { size };
        Self {
            shared: Arc::clone(shared),
            content: Vec::with_capacity(usize::try_from(stored).unwrap_or(0)),
            announced: size,
            hasher: Some(Hasher::new()),
            sealer,
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let hasher = self.hasher.as_mut().ok_or_else(ended)?;
        if as_u64(self.content.len()) + as_u64(chunk.len()) > self.announced {
            return Err(too_long());
        }
        hasher.content(chunk);
        self.content.extend_from_slice(chunk);
        Ok(())
    }

    fn end(&mut self) -> Result<Digests, Error> {
        let mut hasher = self.hasher.take().ok_or_else(ended)?;
        if let Some(mut sealer) = self.sealer.take() {
            sealer.seal(&mut self.content)?;
            sealer.finish()?;
            self.content.extend_from_slice(sealer.tags());
        }
        hasher.stored(&self.content);
        Ok(hasher.finish())
    }
}

impl BlobWriter for InlineWriter {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(self.take(&chunk)))
    }

    fn digests(&mut self) -> BoxFuture<'_, Result<Digests, Error>> {
        Box::pin(std::future::ready(self.end()))
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Placement, Error>> {
        let trusted = self.shared.trusted();
        let placement = trusted.map(|()| Placement::Inline(Bytes::from(self.content)));
        Box::pin(std::future::ready(placement))
    }
}

fn ended() -> Error {
    let source = io::Error::other("the writer has ended or failed before");
    Error::Io { doing: "writing a blob", source }
}

fn too_long() -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidInput, "more bytes than were announced");
    Error::Io { doing: "writing a blob", source }
}

/// All that is needed to open the file of a new blob. It is opened with the first full buffer, on
/// the thread that writes it: an upload that sends nothing holds no file.
struct Opening {
    shared: Arc<Shared>,
    folder: Arc<Folder>,
    id: BlobId,
    size: u64,
}

/// The file of a new blob, before it has its name.
struct Target {
    shared: Arc<Shared>,
    folder: Arc<Folder>,
    id: BlobId,
    file: OwnedFd,
    /// Whether the file has a name in `tmp/` that must not stay.
    in_tmp: AtomicBool,
}

impl Opening {
    fn open(mut self) -> Result<Arc<Target>, Error> {
        if fstat(&self.folder.dir).is_ok_and(|stat| stat.st_nlink == 0) {
            // Somebody who tidies up empty folders took this one away.
            self.shared.folders.forget(hour_of(self.id));
            self.folder = self.shared.make_folder(self.id)?;
        }
        let (file, in_tmp) = match self.open_unnamed()? {
            Some(file) => (file, false),
            None => (self.open_in_tmp()?, true),
        };
        if self.size >= self.shared.machine.direct_from_bytes {
            // A file system that refuses gets its bytes through the page cache.
            fcntl_setfl(&file, OFlags::DIRECT).ok();
        }
        let Self { shared, folder, id, .. } = self;
        let in_tmp = AtomicBool::new(in_tmp);
        Ok(Arc::new(Target { shared, folder, id, file, in_tmp }))
    }

    fn open_unnamed(&self) -> Result<Option<OwnedFd>, Error> {
        if !self.shared.unnamed_files.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match open_unnamed(&self.folder.dir) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                self.shared.unnamed_files.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(cause) => {
                let path = self.shared.path_of(&self.folder.path);
                Err(failure("opening a file for a blob", path, cause))
            }
        }
    }

    fn open_in_tmp(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let name = self.id.to_string();
        retry_on_intr(|| openat(&self.shared.tmp, name.as_str(), flags, Mode::RUSR | Mode::WUSR))
            .map_err(|cause| {
                let path = self.shared.root.join(TMP).join(&name);
                failure("opening a file for a blob", path.display(), cause)
            })
    }
}

impl Target {
    fn path(&self) -> impl fmt::Display {
        self.shared.path_of(format!("{}/{}", self.folder.path, self.id))
    }

    /// Writes a buffer, past the page cache while the file system goes along with it.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        if !bytes.len().is_multiple_of(PAGE_BYTES) {
            self.use_page_cache();
        }
        let written = match write_all(&self.file, bytes, offset) {
            // This is how a file system says that it does not take the address, the length or the
            // rest of a short write in this way; writing again the same bytes at the same place
            // of a file that nobody sees does no harm.
            Err(cause) if cause.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.use_page_cache();
                write_all(&self.file, bytes, offset)
            }
            outcome => outcome,
        };
        written.map_err(|cause| failure("writing a blob", self.path(), cause))
    }

    fn use_page_cache(&self) {
        // If this is refused, the write that follows fails and tells.
        fcntl_setfl(&self.file, OFlags::empty()).ok();
    }

    /// Gives the file its name and makes its bytes durable; the folder is still to be synced.
    fn publish(&self) -> Result<(), Error> {
        let name = self.id.to_string();
        if self.in_tmp.load(Ordering::Relaxed) {
            self.sync()?;
            self.rename(&name).map_err(|e| failure("naming a blob", self.path(), e))?;
            self.in_tmp.store(false, Ordering::Relaxed);
            return Ok(());
        }
        link_unnamed(&self.file, &self.folder.dir, &name)
            .map_err(|e| failure("naming a blob", self.path(), e))?;
        self.sync().inspect_err(|_| {
            // Nobody will ask for it; should this fail too, the sweep finds it.
            unlinkat(&self.folder.dir, name.as_str(), AtFlags::empty()).ok();
        })
    }

    fn rename(&self, name: &str) -> Result<(), Errno> {
        let (tmp, dir) = (&self.shared.tmp, &self.folder.dir);
        match retry_on_intr(|| renameat_with(tmp, name, dir, name, RenameFlags::NOREPLACE)) {
            // Not every file system can promise to replace nothing; ids are never used twice.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                retry_on_intr(|| renameat(tmp, name, dir, name))
            }
            outcome => outcome,
        }
    }

    fn sync(&self) -> Result<(), Error> {
        let synced = self.shared.machine.syncs.file(self.file.as_fd());
        synced.map_err(|cause| self.shared.distrust(self.path(), &cause))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.in_tmp.load(Ordering::Relaxed) {
            // Should this fail, the next start clears it away.
            unlinkat(&self.shared.tmp, self.id.to_string().as_str(), AtFlags::empty()).ok();
        }
    }
}

/// Where a writer's bytes go.
enum Sink {
    Unopened(Opening),
    Open(Arc<Target>),
}

impl Sink {
    fn open(self) -> Result<Arc<Target>, Error> {
        match self {
            Self::Unopened(opening) => opening.open(),
            Self::Open(target) => Ok(target),
        }
    }
}

/// What goes from one buffer's task to the next, in the order of the content.
struct Baton {
    hasher: Hasher,
    sealer: Option<Sealer>,
    sink: Sink,
}

/// Hashes and seals one buffer, lets the next one be hashed, and writes it meanwhile.
fn put(
    baton: Box<Baton>,
    mut buffer: Buffer,
    offset: u64,
    pass: oneshot::Sender<Box<Baton>>,
) -> Result<Buffer, Error> {
    let Baton { mut hasher, mut sealer, sink } = *baton;
    let target = sink.open()?;
    hasher.content(buffer.bytes());
    if let Some(mut sealing) = sealer.take() {
        sealing.seal(buffer.bytes_mut())?;
        // What is stored behind the content goes with its last buffer if it fits in there.
        if !(sealing.is_complete() && buffer.fill_whole(sealing.tags())) {
            sealer = Some(sealing);
        }
    }
    hasher.stored(buffer.bytes());
    // A writer that was dropped takes no baton; its file goes away with the last owner.
    drop(pass.send(Box::new(Baton { hasher, sealer, sink: Sink::Open(Arc::clone(&target)) })));
    target.write(buffer.bytes(), offset)?;
    Ok(buffer)
}

enum Stage {
    /// Nothing is being hashed.
    Ready(Box<Baton>),
    /// A task holds the baton.
    Hashing(oneshot::Receiver<Box<Baton>>),
    /// The digests are told.
    Ended(Sink),
    /// An earlier call failed or was given up half way.
    Broken,
}

/// Content on its way to a file. Its buffers are hashed and written on the pool of threads; no
/// thread is held while the client is slow.
struct DiskWriter {
    shared: Arc<Shared>,
    /// Bytes that the file will have.
    stored: u64,
    /// Announced bytes that have not come yet.
    awaited: u64,
    /// Where the next buffer goes.
    offset: u64,
    filling: Option<Buffer>,
    spare: Option<Buffer>,
    stage: Stage,
    in_flight: VecDeque<JoinHandle<Result<Buffer, Error>>>,
}

impl DiskWriter {
    fn new(opening: Opening, sealer: Option<Sealer>) -> Self {
        let stored = |_: &Sealer| stored_bytes(opening.size);
        Self {
            shared: Arc::clone(&opening.shared),
            stored: sealer.as_ref().map_or(opening.size, stored),
            awaited: opening.size,
            offset: 0,
            filling: None,
            spare: None,
            stage: Stage::Ready(Box::new(Baton {
                hasher: Hasher::new(),
                sealer,
                sink: Sink::Unopened(opening),
            })),
            in_flight: VecDeque::with_capacity(BUFFERS_IN_FLIGHT),
        }
    }

    async fn take(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        self.awaited = self.awaited.checked_sub(as_u64(chunk.len())).ok_or_else(too_long)?;
        while !chunk.is_empty() {
            let (spare, stored, pool) = (&mut self.spare, self.stored, &self.shared.buffers);
            let filling = self.filling.get_or_insert_with(|| {
                spare.take().unwrap_or_else(|| Buffer::for_bytes(stored, pool))
            });
            chunk.advance(filling.fill(&chunk));
            if filling.is_full() {
                self.hand_over().await?;
            }
        }
        Ok(())
    }

    /// Sends the buffer being filled on its way, as soon as few enough are.
    async fn hand_over(&mut self) -> Result<(), Error> {
        self.settle(BUFFERS_IN_FLIGHT - 1).await?;
        let baton = self.baton().await?;
        let Some(buffer) = self.filling.take() else {
            self.stage = Stage::Ready(baton);
            return Ok(());
        };
        let (pass, passed) = oneshot::channel();
        let offset = self.offset;
        self.offset += as_u64(buffer.len);
        self.stage = Stage::Hashing(passed);
        self.in_flight.push_back(spawn_blocking(move || put(baton, buffer, offset, pass)));
        Ok(())
    }

    /// Waits until at most `most` buffers are being hashed or written.
    async fn settle(&mut self, most: usize) -> Result<(), Error> {
        while self.in_flight.len() > most {
            let Some(task) = self.in_flight.front_mut() else { break };
            let done = task.await;
            self.in_flight.pop_front();
            let lost = |cause| failure("writing a blob", "its task", io::Error::other(cause));
            match done.map_err(lost).and_then(|outcome| outcome) {
                Ok(mut buffer) => {
                    buffer.len = 0;
                    self.spare = Some(buffer);
                }
                Err(error) => {
                    self.stage = Stage::Broken;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes the baton once everything handed over is hashed. The stage is broken until the
    /// caller sets another one, so that a call given up half way cannot go on.
    async fn baton(&mut self) -> Result<Box<Baton>, Error> {
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Ready(baton) => Ok(baton),
            Stage::Hashing(passed) => match passed.await {
                Ok(baton) => Ok(baton),
                Err(_dropped) => {
                    // The task that had it failed and tells why.
                    self.settle(0).await?;
                    Err(ended())
                }
            },
            Stage::Ended(_) | Stage::Broken => Err(ended()),
        }
    }

    async fn end(&mut self) -> Result<Digests, Error> {
        if self.filling.is_some() {
            self.hand_over().await?;
        }
        self.settle(0).await?;
        let mut baton = self.baton().await?;
        self.spare = None;
        if let Some(mut sealer) = baton.sealer.take() {
            sealer.finish()?;
            let end = self.offset;
            baton = off_thread("writing a blob", move || {
                baton.hasher.stored(sealer.tags());
                let target = baton.sink.open()?;
                target.write(sealer.tags(), end)?;
                baton.sink = Sink::Open(target);
                Ok(baton)
            })
            .await?;
        }
        let Baton { hasher, sink, .. } = *baton;
        self.stage = Stage::Ended(sink);
        Ok(hasher.finish())
    }

    async fn publish(mut self: Box<Self>) -> Result<Placement, Error> {
        let shared = Arc::clone(&self.shared);
        shared.trusted()?;
        let Stage::Ended(sink) = std::mem::replace(&mut self.stage, Stage::Broken) else {
            return Err(ended());
        };
        let of_task = Arc::clone(&shared);
        let (folder, number) = off_thread("finishing a blob", move || {
            let target = sink.open()?;
            target.publish()?;
            let folder = Arc::clone(&target.folder);
            let number = folder.next_sync();
            // Nobody else at it: done right here, which saves a lone writer a change of threads.
            if let Turn::Lead(lead) = folder.turn(number) {
                lead.run(&of_task)?;
            }
            Ok((folder, number))
        })
        .await?;
        folder.synced(&shared, number).await?;
        Ok(Placement::Stored)
    }
}

impl BlobWriter for DiskWriter {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.take(chunk))
    }

    fn digests(&mut self) -> BoxFuture<'_, Result<Digests, Error>> {
        Box::pin(self.end())
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Placement, Error>> {
        Box::pin(self.publish())
    }
}

impl Drop for DiskWriter {
    fn drop(&mut self) {
        // Closing a large nameless file frees all its blocks, too long a task for a thread that
        // serves others.
        let stage = std::mem::replace(&mut self.stage, Stage::Broken);
        if !matches!(stage, Stage::Broken)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn_blocking(move || drop(stage)));
        }
    }
}

// ---- Reading -----------------------------------------------------------------------------------

impl Shared {
    /// Opens a blob if the kernel can do so from memory alone.
    fn find_cached(&self, id: BlobId) -> Option<OwnedFd> {
        self.open_likely(id, &hour_path(id), ResolveFlags::CACHED).ok()
    }

    /// Opens a blob, wherever in its hour it is.
    fn find(&self, id: BlobId) -> Result<OwnedFd, Error> {
        let hour_path = hour_path(id);
        match self.open_likely(id, &hour_path, ResolveFlags::empty()) {
            Err(Errno::NOENT) => (),
            opened => return opened.map_err(|cause| self.unreadable(id, cause)),
        }
        // A busy hour, or somebody took an empty folder away.
        for number in self.names(&hour_path, is_number)? {
            match self.open_blob(&format!("{hour_path}/{number}/{id}"), ResolveFlags::empty()) {
                Err(Errno::NOENT) => (),
                opened => return opened.map_err(|cause| self.unreadable(id, cause)),
            }
        }
        Err(Error::Missing(id))
    }

    fn open_likely(
        &self,
        id: BlobId,
        hour_path: &str,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        for number in 0..LIKELY_FOLDERS {
            match self.open_blob(&format!("{hour_path}/{number:04}/{id}"), resolve) {
                Err(Errno::NOENT) => (),
                opened => return opened,
            }
        }
        Err(Errno::NOENT)
    }

    fn open_blob(&self, path: &str, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        // Without NONBLOCK opening a planted FIFO would wait for ever.
        self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, resolve)
    }

    fn unreadable(&self, id: BlobId, cause: Errno) -> Error {
        match cause {
            // A symbolic link, a socket or a folder in the place of a blob is none.
            Errno::LOOP | Errno::NXIO | Errno::NOTDIR => Error::Missing(id),
            _ => failure("opening a blob", self.path_of(format!("{}/{id}", hour_path(id))), cause),
        }
    }

    /// Removes a blob. The folder is not synced: a removal undone by a power cut leaves bytes
    /// without a row, never a row without bytes.
    fn remove(&self, id: BlobId) -> Result<(), Error> {
        let doing = "removing a blob";
        let hour_path = hour_path(id);
        let name = id.to_string();
        for number in self.names(&hour_path, is_number)? {
            let path = format!("{hour_path}/{number}");
            let removed = self
                .open_folder(&path)
                .and_then(|folder| unlinkat(&folder, name.as_str(), AtFlags::empty()));
            match removed {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => (),
                Err(cause) => {
                    return Err(failure(doing, self.path_of(format!("{path}/{id}")), cause));
                }
            }
        }
        Ok(())
    }
}

/// A stored blob being read.
struct DiskReader {
    shared: Arc<Shared>,
    id: BlobId,
    file: Arc<OwnedFd>,
    /// What is wanted of the file.
    range: ByteRange,
    /// Where the next read begins: at a block, and so at a page.
    position: u64,
    /// Where the last read ends: behind the block that the range ends in.
    end: u64,
    verifier: Verifier,
}

impl DiskReader {
    /// Takes an open file for blob `id`, if it can be that. A file of another length is damaged
    /// from its shorter end on, and no byte of it is handed out.
    fn new(
        shared: &Arc<Shared>,
        id: BlobId,
        file: OwnedFd,
        size: u64,
        range: ByteRange,
        checks: BlockChecks,
    ) -> Result<Self, Error> {
        let stat = fstat(&file).map_err(|cause| shared.unreadable(id, cause))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Missing(id));
        }
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        if found != size {
            let corrupt = Corrupt { block: found.min(size) / CHECK_BLOCK_BYTES };
            return Err(Error::Damaged { id, corrupt });
        }
        let range = ByteRange { start: range.start, end: range.end.min(size) };
        let first = range.start / CHECK_BLOCK_BYTES;
        let end = if range.len() == 0 {
            first * CHECK_BLOCK_BYTES
        } else {
            range.end.next_multiple_of(CHECK_BLOCK_BYTES).min(size)
        };
        Ok(Self {
            shared: Arc::clone(shared),
            id,
            file: Arc::new(file),
            range,
            position: first * CHECK_BLOCK_BYTES,
            end,
            verifier: Verifier::starting_with(first, checks),
        })
    }

    /// The next whole blocks, compared, without what nobody wants of them.
    async fn chunk(&mut self) -> Result<Bytes, Error> {
        let wanted = at_most(self.end - self.position, CHUNK_BYTES);
        let mut chunk = Chunk::of(wanted, &self.shared.chunks);
        // Part of a block cannot be compared, so what the page cache has only in part is read anew.
        if self.read_cached(chunk.space()) != Some(wanted) {
            chunk = self.read_waiting(chunk).await?;
        }
        if chunk.len != wanted {
            // The file was as long as its row when it was opened.
            let block = (self.position + as_u64(chunk.len)) / CHECK_BLOCK_BYTES;
            return Err(self.damaged(Corrupt { block }));
        }
        self.verifier.update(chunk.as_ref()).map_err(|corrupt| self.damaged(corrupt))?;
        let skipped = at_most(self.range.start.saturating_sub(self.position), wanted);
        let kept = at_most(self.range.end.saturating_sub(self.position), wanted);
        self.position += as_u64(wanted);
        Ok(Bytes::from_owner(chunk).slice(skipped.min(kept)..kept))
    }

    fn damaged(&self, corrupt: Corrupt) -> Error {
        Error::Damaged { id: self.id, corrupt }
    }

    /// Reads what the page cache has; None when that is nothing.
    fn read_cached(&self, space: &mut [u8]) -> Option<usize> {
        if !self.shared.nowait_reads.load(Ordering::Relaxed) {
            return None;
        }
        let mut spaces = [IoSliceMut::new(space)];
        match preadv2(&self.file, &mut spaces, self.position, ReadWriteFlags::NOWAIT) {
            Ok(0) => None,
            Ok(read) => Some(read),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.shared.nowait_reads.store(false, Ordering::Relaxed);
                None
            }
            // What is really wrong comes out when the same read may wait.
            Err(_) => None,
        }
    }

    /// Reads on the pool of threads and has the kernel fetch what comes next meanwhile.
    async fn read_waiting(&self, mut chunk: Chunk) -> Result<Chunk, Error> {
        let file = Arc::clone(&self.file);
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        let (position, end) = (self.position, self.end);
        off_thread("reading a blob", move || {
            let wanted = chunk.len;
            chunk.len = read_full(&file, chunk.space(), position).map_err(|cause| {
                let path = shared.path_of(format!("{}/{id}", hour_path(id)));
                failure("reading a blob", path, cause)
            })?;
            let next = position + as_u64(chunk.len);
            let ahead = NonZeroU64::new(end.saturating_sub(next).min(READ_AHEAD_BYTES));
            if chunk.len == wanted && ahead.is_some() {
                // Only advice: reading goes on without it.
                fadvise(&file, next, ahead, Advice::WillNeed).ok();
            }
            Ok(chunk)
        })
        .await
    }
}

/// Fills `space` as far as the file reaches.
fn read_full(file: &OwnedFd, space: &mut [u8], position: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let read = retry_on_intr(|| pread(file, &mut *rest, position + as_u64(filled)))?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}

impl BlobReader for DiskReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>> {
        Box::pin(async move {
            if self.position >= self.end {
                return None;
            }
            let chunk = self.chunk().await;
            if chunk.is_err() {
                self.position = self.end;
            }
            Some(chunk)
        })
    }
}

// ---- Listing -----------------------------------------------------------------------------------

impl Shared {
    /// Walks the hours from that of `after` on. Ids follow the hours, but within one hour they are
    /// spread over its numbered folders, so an hour is read as a whole and its smallest ids kept.
    fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, Error> {
        let first = after.map(|id| id.drawn_at().folder_names());
        let is_before = |date: &str, hour: &str| {
            first.as_ref().is_some_and(|(d, h)| (date, hour) < (d.as_str(), h.as_str()))
        };
        let mut listed = Vec::new();
        for date in self.names(".", is_date)? {
            if is_before(&date, "99") {
                continue;
            }
            for hour in self.names(&date, is_hour)? {
                if listed.len() >= limit {
                    return Ok(listed);
                }
                if !is_before(&date, &hour) {
                    listed.append(&mut self.list_hour(
                        &date,
                        &hour,
                        after,
                        limit - listed.len(),
                    )?);
                }
            }
        }
        Ok(listed)
    }

    fn list_hour(
        &self,
        date: &str,
        hour: &str,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<BlobId>, Error> {
        let mut smallest = BinaryHeap::new();
        let mut own_hour = None;
        for number in self.names(&format!("{date}/{hour}"), is_number)? {
            self.each_entry(&format!("{date}/{hour}/{number}"), |name, kind| {
                let Some(id) = BlobId::parse(name) else { return };
                if kind != FileType::RegularFile || after.is_some_and(|after| id <= after) {
                    return;
                }
                // A file in the folder of another hour is none of ours: no reader finds it.
                if own_hour != Some(hour_of(id)) {
                    if id.drawn_at().folder_names() != (date.to_owned(), hour.to_owned()) {
                        return;
                    }
                    own_hour = Some(hour_of(id));
                }
                smallest.push(id);
                if smallest.len() > limit {
                    smallest.pop();
                }
            })?;
        }
        Ok(smallest.into_sorted_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_space_is_told_apart() {
        for cause in [Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(failure("writing", "x", cause), Error::Full { doing: "writing" }));
        }
        for cause in [Errno::FBIG, Errno::IO, Errno::ROFS, Errno::MFILE] {
            let Error::Io { source, .. } = failure("writing", "a/b", cause) else {
                panic!("{cause} is not lack of space")
            };
            assert!(source.to_string().starts_with("a/b: "), "{source}");
        }
    }

    /// Who waits for a folder, and for which of its syncs, step by step: tasks that finish at once
    /// may come one after the other all the same, each too late for the sync of the one before it.
    #[test]
    fn finishers_share_the_sync_of_their_folder() {
        let dir = openat(CWD, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let folder = Arc::new(Folder {
            path: "folder".to_owned(),
            dir,
            syncs: Mutex::default(),
            sync_ended: Notify::new(),
        });
        let end = |lead: Lead| lock(&lead.folder.syncs).done = lead.number;
        let first = folder.next_sync();
        let Turn::Lead(leading) = folder.turn(first) else { panic!("nobody else is at it") };

        // The sync that runs may have begun before they linked theirs.
        let numbers: Vec<u64> = (0..16).map(|_| folder.next_sync()).collect();
        assert_eq!(numbers, [first + 1; 16]);
        assert!(numbers.iter().all(|&number| matches!(folder.turn(number), Turn::Wait)));
        end(leading);
        assert!(matches!(folder.turn(first), Turn::Done));

        let Turn::Lead(leading) = folder.turn(first + 1) else { panic!("one of them leads") };
        assert!(numbers.iter().all(|&number| matches!(folder.turn(number), Turn::Wait)));
        end(leading);
        assert!(numbers.iter().all(|&number| matches!(folder.turn(number), Turn::Done)));

        // A leader that fails or dies leaves the duty to the next one.
        let Turn::Lead(lost) = folder.turn(first + 2) else { panic!("nobody else is at it") };
        drop(lost);
        assert!(matches!(folder.turn(first + 2), Turn::Lead(_)));
        assert_eq!(lock(&folder.syncs).done, first + 1);
    }

    #[test]
    fn buffers_are_aligned_and_as_large_as_their_content() {
        let pool = Arc::new(Pool::new(BUFFER_BYTES + PAGE_BYTES, 1));
        for (size, room) in [(1, 1), (5000, 5000), (300_000, BUFFER_BYTES)] {
            let mut buffer = Buffer::for_bytes(size, &pool);
            assert_eq!(buffer.fill(&vec![7; BUFFER_BYTES + 1]), room);
            assert!(buffer.is_full());
            assert_eq!(buffer.bytes(), vec![7; room]);
            assert_eq!(buffer.bytes().as_ptr().align_offset(PAGE_BYTES), 0);
        }
        assert_eq!(lock(&pool.free).len(), 1, "the large one is kept");
    }

    #[test]
    fn only_names_of_our_own_making_are_folders() {
        assert!(is_date("2023-11-14") && is_hour("07") && is_number("0000") && is_number("12345"));
        for name in ["2023-11-1", "2023_11_14", "2023-11-14x", "lost+found", ""] {
            assert!(!is_date(name), "{name}");
        }
        for name in ["7", "007", "x0", ""] {
            assert!(!is_hour(name), "{name}");
        }
        for name in ["1", "00001", "+001", "12x4", ""] {
            assert!(!is_number(name), "{name}");
        }
    }
}
