//! What every blob store promises, as tests; run for the store on disk in its variants and for
//! the decorators around it. Below them the promises that only the store on disk makes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::blobs::disk::{DiskOptions, DiskStore, Machine, Syncs};
use crate::blobs::faulty::{Fault, Faults, FaultyStore, Verb};
use crate::blobs::metered::{BlobMetrics, MeteredStore};
use crate::blobs::sealed::{self, Cipher, SealedBlob, Sealer, stored_bytes};
use crate::blobs::{BlobReader, BlobStore, BlobWriter, Error};
use crate::clock::ManualClock;
use crate::domain::blob::Placement;
use crate::domain::digest::{BlockChecks, CHECK_BLOCK_BYTES, Digests, Hasher};
use crate::domain::encryption::DataKey;
use crate::domain::ids::{BlobId, Numbers};
use crate::domain::range::ByteRange;
use crate::domain::time::Millis;

const INLINE_MAX: u64 = 1000;
const NOON: Millis = Millis(1_700_000_000_000);
const HOUR_MS: i64 = 60 * 60 * 1000;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A store under test, in a folder of its own.
struct Subject {
    root: TempDir,
    store: Arc<dyn BlobStore>,
    numbers: Numbers,
}

fn open_disk(root: &Path, machine: Machine) -> Result<Arc<DiskStore>, Error> {
    let options = DiskOptions { inline_max: INLINE_MAX };
    DiskStore::open_on(root, options, Arc::new(ManualClock::at(NOON)), machine)
}

impl Subject {
    fn on(machine: Machine) -> Self {
        let root = tempfile::tempdir().expect("a folder for the test");
        let store = open_disk(root.path(), machine).expect("the store opens");
        Self { root, store, numbers: Numbers::starting_at(0, NOON) }
    }

    fn disk() -> Self {
        Self::on(Machine::default())
    }

    fn disk_with_names_only() -> Self {
        Self::on(Machine { unnamed_files: false, ..Machine::default() })
    }

    fn disk_through_the_page_cache() -> Self {
        Self::on(Machine { direct_from_bytes: u64::MAX, ..Machine::default() })
    }

    fn disk_past_the_page_cache() -> Self {
        Self::on(Machine { direct_from_bytes: 0, ..Machine::default() })
    }

    fn disk_with_syncs(syncs: &Arc<TestSyncs>) -> Self {
        let syncs: Arc<dyn Syncs> = Arc::<TestSyncs>::clone(syncs);
        Self::on(Machine { syncs, ..Machine::default() })
    }

    fn metered_disk() -> Self {
        let mut subject = Self::disk();
        subject.store = Arc::new(MeteredStore::new(subject.store, Arc::default()));
        subject
    }

    fn faulty_disk() -> Self {
        let mut subject = Self::disk();
        subject.store = Arc::new(FaultyStore::new(subject.store, Faults::new()));
        subject
    }

    fn blobs(&self) -> PathBuf {
        self.root.path().join("blobs")
    }

    fn id(&self) -> BlobId {
        self.numbers.blob(NOON)
    }

    async fn begin(&self, id: BlobId, size: u64) -> Box<dyn BlobWriter> {
        self.store.begin(id, size, None).await.expect("a blob can be begun")
    }

    /// Writes content up to, but without, its finish.
    async fn write(&self, id: BlobId, content: &Bytes) -> (Box<dyn BlobWriter>, Digests) {
        let mut writer = self.begin(id, length(content)).await;
        for piece in pieces(content) {
            writer.write(piece).await.expect("bytes are taken");
        }
        let digests = writer.digests().await.expect("the content is hashed");
        (writer, digests)
    }

    /// Stores content as a new blob.
    async fn keep(&self, content: &Bytes) -> Kept {
        let id = self.id();
        let (writer, digests) = self.write(id, content).await;
        assert_eq!(writer.finish().await.expect("the blob is finished"), Placement::Stored);
        Kept { id, size: digests.size, checks: digests.checks }
    }

    async fn open(&self, kept: &Kept, range: ByteRange) -> Result<Box<dyn BlobReader>, Error> {
        self.store.open(kept.id, kept.size, range, kept.checks.clone()).await
    }

    async fn read(&self, kept: &Kept, range: ByteRange) -> (Vec<u8>, Option<Error>) {
        match self.open(kept, range).await {
            Ok(reader) => read_out(reader).await,
            Err(error) => (Vec::new(), Some(error)),
        }
    }

    async fn read_whole(&self, kept: &Kept) -> (Vec<u8>, Option<Error>) {
        self.read(kept, ByteRange::whole(kept.size)).await
    }

    async fn listed(&self) -> Vec<BlobId> {
        self.store.list(None, usize::MAX).await.expect("the blobs are listed")
    }

    fn path_of(&self, id: BlobId) -> PathBuf {
        let name = id.to_string();
        let found = files_below(self.root.path()).into_iter().find(|path| path.ends_with(&name));
        found.expect("the blob is a file")
    }
}

/// What the catalog would know of a blob.
#[derive(Clone)]
struct Kept {
    id: BlobId,
    size: u64,
    checks: BlockChecks,
}

fn length(content: &[u8]) -> u64 {
    u64::try_from(content.len()).expect("a length fits")
}

/// Bytes that differ from page to page and from seed to seed.
fn content(size: u64, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::new();
    while length(&bytes) < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(usize::try_from(size).expect("a length fits"));
    Bytes::from(bytes)
}

/// Pieces of odd and changing sizes, as a network delivers them.
fn pieces(content: &Bytes) -> Vec<Bytes> {
    let mut rest = content.clone();
    let mut pieces = Vec::new();
    for size in [1, 4096, 65_537, 0, 300_001, 16_384].into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(rest.split_to(rest.len().min(size)));
    }
    pieces
}

fn digests_of(content: &[u8]) -> Digests {
    let mut hasher = Hasher::new();
    hasher.update(content);
    hasher.finish()
}

async fn read_out(mut reader: Box<dyn BlobReader>) -> (Vec<u8>, Option<Error>) {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await {
        match chunk {
            Ok(chunk) => {
                assert!(!chunk.is_empty(), "a chunk has bytes");
                bytes.extend_from_slice(&chunk);
            }
            Err(error) => {
                assert!(reader.next().await.is_none(), "after an error there is nothing more");
                return (bytes, Some(error));
            }
        }
    }
    assert!(reader.next().await.is_none(), "the end stays the end");
    (bytes, None)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        if entry.file_type().expect("it has a type").is_dir() {
            files.append(&mut files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn is_missing<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Missing(_)))
}

// ---- What every store promises -----------------------------------------------------------------

async fn what_was_written_reads_back_whole_and_by_ranges(subject: Subject) {
    let sizes = [
        INLINE_MAX + 1,
        4096,
        256 * KIB - 1,
        256 * KIB,
        256 * KIB + 1,
        512 * KIB,
        MIB + 4097,
        4 * MIB - 1,
        4 * MIB,
        4 * MIB + 1,
        9 * MIB + 8191,
    ];
    for size in sizes {
        let content = content(size, size);
        let kept = subject.keep(&content).await;
        assert_eq!(kept.checks, digests_of(&content).checks);
        let middle = size / 2;
        let ranges = [
            (0, size),
            (0, 1),
            (size - 1, size),
            (middle, middle),
            (middle, (middle + 70_001).min(size)),
            (1, size),
            (size.saturating_sub(CHECK_BLOCK_BYTES + 5), size - 1),
        ];
        for (start, end) in ranges {
            let (read, error) = subject.read(&kept, ByteRange { start, end }).await;
            assert!(error.is_none(), "{size} bytes, {start} to {end}: {error:?}");
            let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
            assert!(read == content[from..to], "{size} bytes, {start} to {end}");
        }
    }
}

async fn digests_are_those_of_the_content(subject: Subject) {
    for size in [0, 1, INLINE_MAX, INLINE_MAX + 1, 256 * KIB, 4 * MIB + 77] {
        let content = content(size, 5);
        let (_writer, digests) = subject.write(subject.id(), &content).await;
        assert_eq!(digests, digests_of(&content));
    }
}

async fn small_content_is_handed_back(subject: Subject) {
    for size in [0, 1, INLINE_MAX] {
        let content = content(size, 3);
        let (writer, _) = subject.write(subject.id(), &content).await;
        assert_eq!(writer.finish().await.expect("it finishes"), Placement::Inline(content));
    }
    assert_eq!(files_below(subject.root.path()), Vec::<PathBuf>::new());
}

async fn nothing_is_visible_before_finish(subject: Subject) {
    let content = content(600 * KIB, 1);
    let id = subject.id();
    let (writer, digests) = subject.write(id, &content).await;
    let kept = Kept { id, size: digests.size, checks: digests.checks };
    assert!(is_missing(&subject.open(&kept, ByteRange::whole(kept.size)).await));
    assert_eq!(subject.listed().await, Vec::new());
    writer.finish().await.expect("it finishes");
    assert_eq!(subject.listed().await, vec![id]);
    assert_eq!(subject.read_whole(&kept).await.0, content);
}

async fn a_dropped_writer_leaves_nothing(subject: Subject) {
    for size in [10, 5000, 5 * MIB] {
        let content = content(size, 1);
        let mut early = subject.begin(subject.id(), size).await;
        early.write(content.slice(..content.len() / 2)).await.expect("bytes are taken");
        let (late, _) = subject.write(subject.id(), &content).await;
        drop((early, late));
    }
    for _ in 0..100 {
        if files_below(subject.root.path()).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(files_below(subject.root.path()), Vec::<PathBuf>::new());
    assert_eq!(subject.listed().await, Vec::new());
}

async fn more_bytes_than_announced_are_refused(subject: Subject) {
    for size in [10, INLINE_MAX + 10] {
        let mut writer = subject.begin(subject.id(), size).await;
        writer.write(content(size, 1)).await.expect("the announced bytes are taken");
        let outcome = writer.write(Bytes::from_static(b"x")).await;
        assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
    }
}

async fn a_flipped_bit_is_never_read_as_success(subject: Subject) {
    let content = content(2 * MIB + MIB / 2, 9);
    let kept = subject.keep(&content).await;
    let path = subject.path_of(kept.id);
    for position in [0, content.len() / 2, content.len() - 1] {
        let mut wrong = content.to_vec();
        wrong[position] ^= 0x10;
        fs::write(&path, &wrong).expect("the test may write");
        let (read, error) = subject.read_whole(&kept).await;
        let block = length(&content[..position]) / CHECK_BLOCK_BYTES;
        assert!(
            matches!(&error, Some(Error::Damaged { id, corrupt })
                if *id == kept.id && corrupt.block == block),
            "flipped at {position}: {error:?}"
        );
        assert!(length(&read) < (block + 1) * CHECK_BLOCK_BYTES, "the block is not handed out");
        let start = block * CHECK_BLOCK_BYTES;
        let (_, error) = subject.read(&kept, ByteRange { start, end: kept.size }).await;
        assert!(matches!(error, Some(Error::Damaged { .. })), "flipped at {position}: {error:?}");
    }
}

async fn a_blob_of_another_length_is_damaged(subject: Subject) {
    let content = content(MIB + 100, 9);
    let kept = subject.keep(&content).await;
    let path = subject.path_of(kept.id);
    let last = length(&content) / CHECK_BLOCK_BYTES;
    for (wrong, block) in [
        (content.slice(..content.len() - 1), last),
        (content.slice(..10), 0),
        (Bytes::new(), 0),
        (Bytes::from([&content[..], b"x"].concat()), last),
    ] {
        fs::write(&path, &wrong).expect("the test may write");
        let (read, error) = subject.read(&kept, ByteRange { start: 0, end: 5 }).await;
        assert!(
            matches!(&error, Some(Error::Damaged { corrupt, .. }) if corrupt.block == block),
            "{} bytes: {error:?}",
            wrong.len()
        );
        assert_eq!(read, b"");
    }
}

async fn a_blob_never_written_is_missing(subject: Subject) {
    let kept = Kept { id: subject.id(), size: 5000, checks: BlockChecks::default() };
    assert!(is_missing(&subject.open(&kept, ByteRange::whole(5000)).await));
    subject.keep(&content(5000, 1)).await;
    assert!(is_missing(&subject.open(&kept, ByteRange::whole(5000)).await));
}

async fn removing_twice_is_no_error(subject: Subject) {
    let kept = subject.keep(&content(5000, 1)).await;
    let other = subject.keep(&content(6000, 2)).await;
    for _ in 0..2 {
        subject.store.remove(kept.id).await.expect("it is removed");
        assert!(is_missing(&subject.open(&kept, ByteRange::whole(kept.size)).await));
    }
    assert_eq!(subject.listed().await, vec![other.id]);
    subject.store.remove(BlobId(7)).await.expect("a blob of an hour never seen is gone too");
}

async fn a_reader_outlives_the_removal(subject: Subject) {
    let content = content(700 * KIB, 1);
    let kept = subject.keep(&content).await;
    let reader = subject.open(&kept, ByteRange::whole(kept.size)).await.expect("it opens");
    subject.store.remove(kept.id).await.expect("it is removed");
    let (read, error) = read_out(reader).await;
    assert!(error.is_none(), "{error:?}");
    assert!(read == content);
}

async fn listing_is_in_id_order_and_pages(subject: Subject) {
    let mut ids = Vec::new();
    for hours in [30, 0, 1, 0, 900, 24, 1, 0] {
        let now = Millis(NOON.0 + hours * HOUR_MS);
        // The first one asks for a mark, as the worker would that stores them.
        subject.numbers.blob(now);
        if let Some(mark) = subject.numbers.due_mark(now) {
            subject.numbers.raise_mark(mark);
        }
        let id = subject.numbers.blob(now);
        ids.push(id);
    }
    // The other way round, so that the order written is not the order of the ids.
    for id in ids.iter().rev() {
        let (writer, _) = subject.write(*id, &content(2000, 1)).await;
        writer.finish().await.expect("it finishes");
    }
    ids.sort_unstable();
    assert_eq!(subject.listed().await, ids);
    for limit in [0, 1, 3, 8, 9] {
        let page = subject.store.list(None, limit).await.expect("it lists");
        assert_eq!(page, ids[..limit.min(ids.len())]);
    }
    for (at, id) in ids.iter().enumerate() {
        let rest = subject.store.list(Some(*id), 3).await.expect("it lists");
        assert_eq!(rest, ids[at + 1..(at + 4).min(ids.len())]);
    }
    subject.store.remove(ids[3]).await.expect("it is removed");
    assert!(!subject.listed().await.contains(&ids[3]));
}

async fn uploads_side_by_side_do_not_mix(subject: Subject) {
    let one = async |seed: u64| {
        let content = content(700 * KIB + seed * 511 * KIB, seed);
        let kept = subject.keep(&content).await;
        (content, kept)
    };
    for (content, kept) in join_all((0..12).map(one)).await {
        let (read, error) = subject.read_whole(&kept).await;
        assert!(error.is_none(), "{error:?}");
        assert!(read == content);
    }
}

/// Writes sealed content; answers its key and what the catalog would know of the stored form.
async fn keep_sealed(subject: &Subject, content: &Bytes) -> (DataKey, Kept) {
    let (id, key) = (subject.id(), DataKey::new([9; 32]));
    let sealer = Sealer::new(&key, id, length(content)).expect("a key");
    let begun = subject.store.begin(id, length(content), Some(sealer)).await;
    let mut writer = begun.expect("a blob can be begun");
    for piece in pieces(content) {
        writer.write(piece).await.expect("bytes are taken");
    }
    let digests = writer.digests().await.expect("the content is hashed");
    let plain = digests_of(content);
    assert_eq!((digests.size, digests.sha1), (plain.size, plain.sha1), "those of the content");
    assert_eq!(digests.md5, plain.md5);
    assert_eq!(writer.finish().await.expect("the blob is finished"), Placement::Stored);
    (key, Kept { id, size: stored_bytes(digests.size), checks: digests.checks })
}

async fn sealed_content_reads_back_with_its_key_and_is_checked_without(subject: Subject) {
    let sizes = [
        INLINE_MAX + 1,
        64 * KIB,
        256 * KIB - 40,
        256 * KIB,
        MIB + 4097,
        4 * MIB,
        4 * MIB + 256 * KIB - 1,
        9 * MIB + 8191,
    ];
    for size in sizes {
        let content = content(size, size);
        let (key, kept) = keep_sealed(&subject, &content).await;
        let path = subject.path_of(kept.id);
        let stored = fs::read(&path).expect("the test may read");
        assert_eq!(length(&stored), kept.size);
        assert_eq!(digests_of(&stored).checks, kept.checks);
        assert!(!stored.windows(64).any(|w| w == &content[..64]), "nothing readable");
        let (raw, error) = subject.read_whole(&kept).await;
        assert!(error.is_none() && raw == stored, "checked by whoever has no key");
        let open = |start, end| {
            let cipher = Cipher::new(&key, kept.id, size).expect("a key");
            let blob = SealedBlob { cipher, checks: kept.checks.clone() };
            sealed::open(&subject.store, blob, ByteRange { start, end })
        };
        for (start, end) in [(0, size), (0, 1), (size - 1, size), (size / 3, size / 2), (7, 7)] {
            let reader = open(start, end).await.expect("it opens");
            let (read, error) = read_out(reader).await;
            assert!(error.is_none(), "{size} bytes, {start} to {end}: {error:?}");
            let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
            assert!(read == content[from..to], "{size} bytes, {start} to {end}");
        }
        let mut wrong = stored.clone();
        wrong[stored.len() / 2] ^= 4;
        fs::write(&path, &wrong).expect("the test may write");
        let (_, error) = subject.read_whole(&kept).await;
        assert!(matches!(error, Some(Error::Damaged { .. })), "{error:?}");
        let outcome = match open(0, size).await {
            Ok(reader) => read_out(reader).await.1,
            Err(error) => Some(error),
        };
        assert!(matches!(outcome, Some(Error::Damaged { .. })), "{outcome:?}");
    }
}

async fn small_sealed_content_is_handed_back_sealed(subject: Subject) {
    for size in [0, 1, INLINE_MAX] {
        let (content, id) = (content(size, 3), subject.id());
        let key = DataKey::new([9; 32]);
        let sealer = Sealer::new(&key, id, size).expect("a key");
        let mut writer = subject.store.begin(id, size, Some(sealer)).await.expect("it begins");
        writer.write(content.clone()).await.expect("bytes are taken");
        let digests = writer.digests().await.expect("the content is hashed");
        let placed = writer.finish().await.expect("it finishes");
        let Placement::Inline(stored) = placed else { panic!("{placed:?}") };
        assert_eq!(digests.sha1, digests_of(&content).sha1);
        assert_eq!(digests.checks, digests_of(&stored).checks);
        let cipher = Cipher::new(&key, id, size).expect("a key");
        let opened = cipher.open_whole(&stored, ByteRange::whole(size)).expect("it opens");
        assert_eq!(opened, content);
    }
}

async fn sealed_content_that_ends_early_is_refused(subject: Subject) {
    for size in [10, INLINE_MAX + 10, 300 * KIB] {
        let id = subject.id();
        let sealer = Sealer::new(&DataKey::new([9; 32]), id, size).expect("a key");
        let mut writer = subject.store.begin(id, size, Some(sealer)).await.expect("it begins");
        writer.write(content(size - 1, 1)).await.expect("bytes are taken");
        assert!(writer.digests().await.is_err(), "{size}");
    }
}

/// Runs every promise for one kind of store.
macro_rules! keeps_the_promises {
    ($($kind:ident: $($promise:ident)*;)*) => {
        $(mod $kind {
            use super::Subject;

            $(#[tokio::test]
            async fn $promise() {
                super::$promise(Subject::$kind()).await;
            })*
        })*
    };
    ($($kind:ident)*) => {
        keeps_the_promises! {
            $($kind:
                what_was_written_reads_back_whole_and_by_ranges
                digests_are_those_of_the_content
                small_content_is_handed_back
                nothing_is_visible_before_finish
                a_dropped_writer_leaves_nothing
                more_bytes_than_announced_are_refused
                a_flipped_bit_is_never_read_as_success
                a_blob_of_another_length_is_damaged
                a_blob_never_written_is_missing
                removing_twice_is_no_error
                a_reader_outlives_the_removal
                listing_is_in_id_order_and_pages
                uploads_side_by_side_do_not_mix
                sealed_content_reads_back_with_its_key_and_is_checked_without
                small_sealed_content_is_handed_back_sealed
                sealed_content_that_ends_early_is_refused;)*
        }
    };
}

keeps_the_promises! {
    disk
    disk_with_names_only
    disk_through_the_page_cache
    disk_past_the_page_cache
    metered_disk
    faulty_disk
}

// ---- What the store on disk promises besides ---------------------------------------------------

/// Counts syncs, fails them when told to, and remembers which names each sync of a folder covers.
#[derive(Default)]
struct TestSyncs {
    fail_files: AtomicBool,
    fail_folders: AtomicBool,
    folders: AtomicU64,
    covered: Mutex<BTreeSet<String>>,
}

fn planned_failure() -> io::Error {
    rustix::io::Errno::IO.into()
}

impl Syncs for TestSyncs {
    fn file(&self, _file: BorrowedFd<'_>) -> io::Result<()> {
        if self.fail_files.load(Ordering::SeqCst) {
            return Err(planned_failure());
        }
        Ok(())
    }

    fn folder(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        if self.fail_folders.load(Ordering::SeqCst) {
            return Err(planned_failure());
        }
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let names: Vec<String> = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        self.folders.fetch_add(1, Ordering::SeqCst);
        self.covered.lock().unwrap().extend(names);
        Ok(())
    }
}

fn is_suspect<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Suspect(_)))
}

async fn after_a_failed_sync_nothing_is_written(fail: fn(&TestSyncs) -> &AtomicBool) {
    let syncs = Arc::new(TestSyncs::default());
    let subject = Subject::disk_with_syncs(&syncs);
    let content = content(5000, 1);
    let kept = subject.keep(&content).await;
    let (unlucky, _) = subject.write(subject.id(), &content).await;
    let (later, _) = subject.write(subject.id(), &content).await;
    let (later_inline, _) = subject.write(subject.id(), &content.slice(..10)).await;
    assert_eq!(subject.store.suspect(), None);

    fail(&syncs).store(true, Ordering::SeqCst);
    let outcome = unlucky.finish().await;
    fail(&syncs).store(false, Ordering::SeqCst);

    let Err(Error::Suspect(reason)) = outcome else { panic!("{outcome:?}") };
    let root = subject.root.path().display().to_string();
    assert!(reason.contains(&root) && reason.contains("os error 5"), "{reason}");
    assert_eq!(subject.store.suspect(), Some(reason));
    assert!(is_suspect(&later.finish().await), "the disk works again, but that proves nothing");
    assert!(is_suspect(&later_inline.finish().await));
    for size in [10, 5000] {
        assert!(is_suspect(&subject.store.begin(subject.id(), size, None).await));
    }
    assert_eq!(subject.read_whole(&kept).await.0, content, "reading goes on");
    assert!(subject.listed().await.contains(&kept.id));
    subject.store.remove(kept.id).await.expect("removing goes on");
}

#[tokio::test]
async fn a_failed_sync_of_a_file_is_final() {
    after_a_failed_sync_nothing_is_written(|syncs| &syncs.fail_files).await;
}

#[tokio::test]
async fn a_failed_sync_of_a_folder_is_final() {
    after_a_failed_sync_nothing_is_written(|syncs| &syncs.fail_folders).await;
}

#[tokio::test]
async fn a_disk_that_cannot_sync_does_not_start() {
    for fails in ["file", "folder"] {
        let root = tempfile::tempdir().expect("a folder for the test");
        let syncs = Arc::new(TestSyncs::default());
        syncs.fail_files.store(fails == "file", Ordering::SeqCst);
        syncs.fail_folders.store(fails == "folder", Ordering::SeqCst);
        let outcome = open_disk(root.path(), Machine { syncs, ..Machine::default() });
        let Some(Error::Io { doing, source }) = outcome.err() else { panic!("it must not open") };
        assert!(doing.contains("syncing"), "{doing}");
        assert!(source.to_string().contains(&root.path().display().to_string()), "{source}");
    }
}

#[tokio::test]
async fn a_root_that_is_missing_or_a_file_does_not_start() {
    let root = tempfile::tempdir().expect("a folder for the test");
    fs::write(root.path().join("file"), b"").expect("the test may write");
    for name in ["missing", "file"] {
        assert!(open_disk(&root.path().join(name), Machine::default()).is_err(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_finishes_returns_after_a_sync_of_the_folder_that_began_after_the_link() {
    const FINISHERS: u64 = 16;
    let syncs = Arc::new(TestSyncs::default());
    let subject = Subject::disk_with_syncs(&syncs);
    subject.keep(&content(2000, 1)).await;
    let mut writers = Vec::new();
    for seed in 0..FINISHERS {
        let id = subject.id();
        writers.push((id, subject.write(id, &content(2000, seed)).await.0));
    }
    let before = syncs.folders.load(Ordering::SeqCst);
    let finishing = writers.into_iter().map(|(id, writer)| {
        let syncs = Arc::clone(&syncs);
        tokio::spawn(async move {
            writer.finish().await.expect("it finishes");
            let covered = syncs.covered.lock().unwrap().contains(&id.to_string());
            assert!(covered, "a sync that began after the link has ended");
        })
    });
    for finished in join_all(finishing).await {
        finished.expect("no task panics");
    }
    let folder_syncs = syncs.folders.load(Ordering::SeqCst) - before;
    assert!((1..=FINISHERS).contains(&folder_syncs), "{folder_syncs} syncs, never one too many");
}

#[tokio::test]
async fn a_new_folder_is_synced_into_its_parents_before_use() {
    let syncs = Arc::new(TestSyncs::default());
    let subject = Subject::disk_with_syncs(&syncs);
    let _writer = subject.begin(subject.id(), 2000).await;
    let covered = syncs.covered.lock().unwrap();
    for name in ["blobs", "tmp", "2023-11-14", "22", "0000"] {
        assert!(covered.contains(name), "{name} of {covered:?}");
    }
}

#[tokio::test]
async fn what_is_no_plain_file_is_no_blob() {
    let subject = Subject::disk();
    let content = content(5000, 1);
    let kept = subject.keep(&content).await;
    let path = subject.path_of(kept.id);
    let elsewhere = subject.root.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("the test may move");
    let plant: [&dyn Fn(); 3] = [
        &|| symlink(&elsewhere, &path).expect("the test may link"),
        &|| {
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .expect("the test may make a FIFO");
        },
        &|| fs::create_dir(&path).expect("the test may make a folder"),
    ];
    for plant in plant {
        plant();
        let opened = subject.open(&kept, ByteRange::whole(kept.size)).await;
        assert!(is_missing(&opened), "{:?}", opened.err());
        assert_eq!(subject.listed().await, Vec::new());
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("the test may remove");
    }
}

#[tokio::test]
async fn a_folder_behind_a_symbolic_link_is_not_entered() {
    let subject = Subject::disk();
    let kept = subject.keep(&content(5000, 1)).await;
    let folder = subject.blobs().join("2023-11-14");
    let elsewhere = subject.root.path().join("elsewhere");
    fs::rename(&folder, &elsewhere).expect("the test may move");
    symlink(&elsewhere, &folder).expect("the test may link");
    assert!(is_missing(&subject.open(&kept, ByteRange::whole(kept.size)).await));
    assert_eq!(subject.listed().await, Vec::new());
    subject.store.remove(kept.id).await.expect("nothing to remove");
    assert_eq!(files_below(&elsewhere).len(), 1);
}

#[tokio::test]
async fn leftovers_are_cleared_at_the_start() {
    let subject = Subject::disk_with_names_only();
    let kept = subject.keep(&content(5000, 1)).await;
    let (unfinished, _) = subject.write(subject.id(), &content(5000, 1)).await;
    let tmp = subject.root.path().join("tmp");
    fs::write(tmp.join("probe"), b"x").expect("the test may write");
    fs::write(subject.blobs().join("probe"), b"x").expect("the test may write");
    fs::create_dir(tmp.join("lost+found")).expect("the test may make a folder");
    assert_eq!(files_below(&tmp).len(), 2);

    open_disk(subject.root.path(), Machine::default()).expect("it opens again");
    assert_eq!(files_below(subject.root.path()), vec![subject.path_of(kept.id)]);
    assert!(fs::metadata(tmp.join("lost+found")).is_ok(), "folders are not ours");
    drop(unfinished);
}

#[tokio::test]
async fn foreign_files_are_not_listed() {
    let subject = Subject::disk();
    let kept = subject.keep(&content(5000, 1)).await;
    let blobs = subject.blobs();
    let hour = blobs.join("2023-11-14/22");
    let stranger = subject.id();
    for folder in ["lost+found", "2023-11-1x/00/0000", "2023-11-14/xx/0000", "2023-11-14/23/0000"] {
        fs::create_dir_all(blobs.join(folder)).expect("the test may make folders");
        fs::write(blobs.join(folder).join(stranger.to_string()), b"x").expect("it may write");
    }
    for file in ["readme", "0000/notes.txt", "0000/00000000000000AB", "0000/.0000000000000000"] {
        fs::write(hour.join(file), b"x").expect("the test may write");
    }
    fs::write(blobs.join("2020-01-01"), b"x").expect("the test may write");
    assert_eq!(subject.listed().await, vec![kept.id]);
}

#[tokio::test]
async fn only_the_owner_may_look() {
    let subject = Subject::disk();
    let kept = subject.keep(&content(5000, 1)).await;
    let path = subject.path_of(kept.id);
    assert_eq!(mode_of(&path), 0o600);
    assert!(path.ends_with(format!("blobs/2023-11-14/22/0000/{}", kept.id)), "{path:?}");
    for folder in path.ancestors().skip(1).take(4) {
        assert_eq!(mode_of(folder), 0o700, "{folder:?}");
    }
    assert_eq!(mode_of(&subject.root.path().join("tmp")), 0o700);
}

#[tokio::test]
async fn a_full_folder_is_followed_by_the_next() {
    // One file a folder: more folders than are tried by name.
    for (files_per_folder, folders) in [(3, 4), (1, 12)] {
        let machine = || Machine { files_per_folder, ..Machine::default() };
        let mut subject = Subject::on(machine());
        let mut all = Vec::new();
        for seed in 0..12 {
            if seed == 7 {
                subject.store = open_disk(subject.root.path(), machine()).expect("it reopens");
            }
            let content = content(2000, seed);
            all.push((subject.keep(&content).await, content));
        }
        let hour = subject.blobs().join("2023-11-14/22");
        assert_eq!(fs::read_dir(hour).expect("the hour is there").count(), folders);
        for (kept, content) in &all {
            assert_eq!(subject.read_whole(kept).await.0, *content);
        }
        let ids: Vec<BlobId> = all.iter().map(|(kept, _)| kept.id).collect();
        assert_eq!(subject.listed().await, ids);
        for id in ids {
            subject.store.remove(id).await.expect("it is removed");
        }
        assert_eq!(subject.listed().await, Vec::new());
    }
}

#[tokio::test]
async fn folders_tidied_away_are_made_again() {
    for subject in [Subject::disk(), Subject::disk_with_names_only()] {
        let kept = subject.keep(&content(5000, 1)).await;
        subject.store.remove(kept.id).await.expect("it is removed");
        fs::remove_dir_all(subject.blobs().join("2023-11-14")).expect("the test may remove");
        let content = content(5000, 2);
        let kept = subject.keep(&content).await;
        assert_eq!(subject.read_whole(&kept).await.0, content);
    }
}

#[tokio::test]
async fn a_gap_in_the_numbers_hides_nothing() {
    let subject = Subject::disk();
    let content = content(5000, 1);
    let kept = subject.keep(&content).await;
    fs::create_dir(subject.blobs().join("2023-11-14/22/0002")).expect("it may make a folder");
    let path = subject.path_of(kept.id);
    let moved = subject.blobs().join("2023-11-14/22/0002").join(kept.id.to_string());
    fs::rename(path, moved).expect("the test may move");
    fs::remove_dir(subject.blobs().join("2023-11-14/22/0000")).expect("the test may remove");
    assert_eq!(subject.read_whole(&kept).await.0, content);
}

#[tokio::test]
async fn an_id_used_twice_replaces_nothing() {
    for subject in [Subject::disk(), Subject::disk_with_names_only()] {
        let content_before = content(5000, 1);
        let kept = subject.keep(&content_before).await;
        let (writer, _) = subject.write(kept.id, &content(5000, 2)).await;
        let outcome = writer.finish().await;
        assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
        assert_eq!(subject.read_whole(&kept).await.0, content_before);
        assert_eq!(files_below(subject.root.path()).len(), 1);
    }
}

#[tokio::test]
async fn calls_out_of_order_are_refused() {
    let subject = Subject::disk();
    for size in [10, 5000] {
        let (mut writer, _) = subject.write(subject.id(), &content(size, 1)).await;
        assert!(writer.digests().await.is_err(), "digests are told once");
    }
    let unfinished = subject.begin(subject.id(), 5000).await;
    assert!(unfinished.finish().await.is_err(), "nothing is kept that was not hashed");
    assert_eq!(files_below(subject.root.path()), Vec::<PathBuf>::new());
}

// ---- What the decorators do besides ------------------------------------------------------------

#[tokio::test]
async fn everything_is_counted() {
    let mut subject = Subject::disk();
    let metrics = Arc::new(BlobMetrics::default());
    subject.store = Arc::new(MeteredStore::new(subject.store, Arc::clone(&metrics)));
    let kept = subject.keep(&content(300 * KIB, 1)).await;
    let (writer, _) = subject.write(subject.id(), &content(10, 1)).await;
    writer.finish().await.expect("it finishes");
    subject.read(&kept, ByteRange { start: 5, end: 105 }).await;
    subject.store.remove(kept.id).await.expect("it is removed");
    assert!(is_missing(&subject.open(&kept, ByteRange::whole(kept.size)).await));
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(read(&metrics.written_bytes), 300 * KIB + 10);
    assert_eq!(read(&metrics.written_blobs), 2);
    assert_eq!(read(&metrics.opened_blobs), 1);
    assert_eq!(read(&metrics.read_bytes), 100);
    assert_eq!(read(&metrics.removed_blobs), 1);
    assert_eq!(read(&metrics.failures), 1);
}

/// Runs one upload, download and removal and tells which step failed, and how.
async fn first_failure(subject: &Subject) -> Result<(), (Verb, Error)> {
    let (id, content) = (subject.id(), content(5000, 1));
    let begun = subject.store.begin(id, 5000, None).await;
    let mut writer = begun.map_err(|error| (Verb::Begin, error))?;
    writer.write(content).await.map_err(|error| (Verb::Write, error))?;
    let digests = writer.digests().await.map_err(|error| (Verb::Digests, error))?;
    writer.finish().await.map_err(|error| (Verb::Finish, error))?;
    let kept = Kept { id, size: digests.size, checks: digests.checks };
    let opened = subject.open(&kept, ByteRange::whole(5000)).await;
    let (_, error) = read_out(opened.map_err(|error| (Verb::Open, error))?).await;
    error.map_or(Ok(()), |error| Err((Verb::Next, error)))?;
    subject.store.remove(id).await.map_err(|error| (Verb::Remove, error))
}

fn faulty() -> (Subject, Arc<Faults>) {
    let mut subject = Subject::disk();
    let faults = Faults::new();
    subject.store = Arc::new(FaultyStore::new(subject.store, Arc::clone(&faults)));
    (subject, faults)
}

#[tokio::test]
async fn planned_failures_strike_the_planned_call() {
    let (subject, faults) = faulty();
    let verbs = [
        Verb::Begin,
        Verb::Write,
        Verb::Digests,
        Verb::Finish,
        Verb::Open,
        Verb::Next,
        Verb::Remove,
    ];
    for verb in verbs {
        for fault in [Fault::Full, Fault::Io, Fault::Suspect] {
            faults.plan(verb, 1, fault);
            let (struck, error) = first_failure(&subject).await.expect_err("a failure is planned");
            assert_eq!(struck, verb);
            let as_planned = match fault {
                Fault::Full => matches!(error, Error::Full { .. }),
                Fault::Io => matches!(error, Error::Io { .. }),
                _ => matches!(error, Error::Suspect(_)),
            };
            assert!(as_planned, "{verb:?}, {fault:?}: {error:?}");
        }
    }
    let before = faults.calls(Verb::Begin);
    faults.plan(Verb::Begin, 2, Fault::Io);
    assert!(first_failure(&subject).await.is_ok(), "the first call is not the second");
    assert!(first_failure(&subject).await.is_err());
    assert!(first_failure(&subject).await.is_ok(), "a failure strikes once");
    assert_eq!(faults.calls(Verb::Begin), before + 3);
}

#[tokio::test]
async fn a_hanging_call_goes_on_when_released() {
    let (subject, faults) = faulty();
    faults.plan(Verb::Finish, 1, Fault::Hang);
    let done = AtomicI64::new(0);
    let upload = async {
        subject.keep(&content(5000, 1)).await;
        done.store(1, Ordering::SeqCst);
    };
    let release = async {
        faults.until_hanging(1).await;
        assert_eq!(done.load(Ordering::SeqCst), 0);
        assert_eq!(subject.listed().await, Vec::new());
        faults.release();
    };
    tokio::join!(upload, release);
    assert_eq!(subject.listed().await.len(), 1);
}

#[tokio::test]
async fn planned_wrong_bytes_look_like_success() {
    let (subject, faults) = faulty();
    let content = content(300 * KIB, 1);
    let kept = subject.keep(&content).await;
    faults.plan(Verb::Next, 2, Fault::FlippedBit);
    let (read, error) = subject.read_whole(&kept).await;
    assert!(error.is_none());
    assert_eq!(read.iter().zip(&content).filter(|(a, b)| a != b).count(), 1);
    faults.plan(Verb::Next, 1, Fault::Short);
    let (read, error) = subject.read_whole(&kept).await;
    assert!(error.is_none());
    assert!(!read.is_empty() && read.len() < content.len() && content.starts_with(&read));
}
