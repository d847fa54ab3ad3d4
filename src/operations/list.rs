//! Listings of names and of versions, with prefixes, folders and pages.

use crate::auth::caller::{Caller, Grant};
use crate::catalog::files::{self, Start};
use crate::catalog::{Abort, Tx};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::{ClaimedFileId, FileId, FileNumber};
use crate::domain::names::successor;
use crate::domain::refusal::{Code, Refusal, bad_request, invalid_file_id, refuse, unauthorized};
use crate::operations::App;
use crate::operations::authorize::{bucket_of_caller, parse_bucket_id};
use crate::operations::error::Error;
use crate::operations::files::find_claimed;

/// Entries of a page when the caller names no number (documented).
const PAGE_DEFAULT: usize = 100;
/// Entries of a page at most (documented).
const PAGE_MAX: i64 = 10_000;
/// Entries that room is made for before there are any.
const ROOM_FOR_ENTRIES: usize = 1000;
/// Rows of one folder that are passed over one by one before the walk jumps behind the folder.
const ROWS_BEFORE_JUMP: usize = 8;

/// Unfinished large files that a page passes over at most; it then ends early.
const UNFINISHED_PER_PAGE_MAX: usize = 10_000;

/// What a listing is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListQuery {
    pub(crate) bucket: String,
    pub(crate) start_name: Option<String>,
    /// Only for versions.
    pub(crate) start_id: Option<String>,
    pub(crate) max_count: Option<i64>,
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    /// Only for versions: begins behind the version that the start names, or behind all versions of
    /// the name, and passes over unfinished large files.
    pub(crate) as_s3: bool,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every entry is a file")]
pub(crate) enum Entry {
    File(FileVersion),
    /// Stands for every name that begins with it.
    Folder(String),
}

/// One page, and where the next one begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) next_name: Option<String>,
    pub(crate) next_id: Option<FileId>,
    /// The first entry is not the newest of its name.
    pub(crate) begins_inside_a_name: bool,
    /// The version that the page ended behind although it was not full, and is not in it.
    pub(crate) ended_behind: Option<(String, FileId)>,
}

/// Checks a page size; 0 asks for the default.
pub(crate) fn page_size(max_count: Option<i64>) -> Result<usize, Refusal> {
    match max_count {
        None | Some(0) => Ok(PAGE_DEFAULT),
        Some(count @ 1..=PAGE_MAX) => Ok(usize::try_from(count).unwrap_or(PAGE_DEFAULT)),
        Some(count) => Err(refuse(Code::OutOfRange, format!("maxFileCount out of range: {count}"))),
    }
}

fn grant(app: &App, caller: &Caller, query: &ListQuery) -> Result<Grant, Error> {
    caller.require(Capability::ListFiles)?;
    let id = parse_bucket_id(&query.bucket)?;
    caller.require_bucket(Capability::ListFiles, id)?;
    if !caller.key.reaches_name(&query.prefix) {
        return Err(unauthorized().into());
    }
    let bucket = bucket_of_caller(app, caller, id)?;
    Ok(Grant::for_prefix(&caller.key, Capability::ListFiles, bucket, &query.prefix)?)
}

/// The names of a bucket that show a file, each with the version it shows.
pub(crate) async fn list_names(
    app: &App,
    caller: &Caller,
    query: ListQuery,
) -> Result<Page, Error> {
    let grant = grant(app, caller, &query)?;
    let size = page_size(query.max_count)?;
    let page = app
        .catalog
        .scan(move |tx| {
            let start = Start::Name(query.start_name.clone().unwrap_or_default());
            Folder::new(&query, size).list(tx, start, &mut |tx, start, each| {
                let Start::Name(from) = start else { return Ok(()) };
                let bucket = &grant.bucket;
                Ok(files::walk_heads(tx, (bucket.number, bucket.id), from, each)?)
            })
        })
        .await?;
    Ok(Page { next_id: None, ..page })
}

/// Every version in a bucket, hide markers too, newest first within a name.
pub(crate) async fn list_versions(
    app: &App,
    caller: &Caller,
    query: ListQuery,
) -> Result<Page, Error> {
    let grant = grant(app, caller, &query)?;
    let size = page_size(query.max_count)?;
    let start_id = query.start_id.clone().filter(|id| !id.is_empty());
    let claimed = match (&start_id, &query.start_name) {
        (Some(_), None) => {
            return Err(bad_request("startFileId requires startFileName").into());
        }
        (Some(id), Some(_)) => Some(ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id))?),
        (None, _) => None,
    };
    let page = app
        .catalog
        .scan(move |tx| {
            let bucket = &grant.bucket;
            let start = version_start(tx, bucket, &query, claimed.as_ref())?;
            let place = (bucket.number, bucket.id);
            let mut folder = Folder::new(&query, size);
            folder.without_unfinished = query.as_s3;
            let mut page = folder.list(tx, start, &mut |tx, start, each| {
                Ok(files::walk_versions(tx, place, start, each)?)
            })?;
            if let Some(Entry::File(first)) = page.entries.first() {
                let newest = files::newest(tx, bucket.number, first.name.as_str())?.finished;
                page.begins_inside_a_name =
                    newest.is_some_and(|newest| (newest.upload_at, newest.origin) != first.place());
            }
            Ok(page)
        })
        .await?;
    Ok(page)
}

/// Where a listing of versions begins. An id that is no longer there still says, by its time, where
/// it would stand.
fn version_start(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    query: &ListQuery,
    claimed: Option<&ClaimedFileId>,
) -> Result<Start, Abort> {
    let mut name = query.start_name.clone().unwrap_or_default();
    let Some(claimed) = claimed else {
        if query.as_s3 && query.start_name.is_some() {
            name = behind(&name, &query.prefix, query.delimiter.as_deref());
        }
        return Ok(Start::Name(name));
    };
    let stored = find_claimed(tx, bucket, claimed)?;
    let (upload_at, origin) = match stored {
        Some(version) => (version.upload_at, version.origin),
        None => (claimed.upload_at, claimed.number),
    };
    // Of equal times the greater origin comes first.
    let origin = if query.as_s3 { FileNumber(origin.0.saturating_sub(1)) } else { origin };
    Ok(Start::Version { name, upload_at, origin })
}

/// Where a listing goes on behind a name, or behind a folder when the name is exactly one.
pub(crate) fn behind(name: &str, prefix: &str, delimiter: Option<&str>) -> String {
    let folder = delimiter.and_then(|delimiter| folder_of(name, prefix, delimiter));
    let behind_folder = folder.filter(|folder| *folder == name).and_then(successor);
    // No name holds control characters, so nothing lies between.
    behind_folder.unwrap_or_else(|| format!("{name}\u{1}"))
}

/// The folder below `prefix` in which a name is, if it is in one.
fn folder_of<'n>(name: &'n str, prefix: &str, delimiter: &str) -> Option<&'n str> {
    let (inside, _) = name.strip_prefix(prefix)?.split_once(delimiter)?;
    name.get(..prefix.len() + inside.len() + delimiter.len())
}

/// Unfinished large files with folders and pages, the oldest first within a name. Behind
/// `start_name`, or behind the one of that name that `start_id` names.
pub(crate) async fn list_unfinished(
    app: &App,
    caller: &Caller,
    query: ListQuery,
) -> Result<Page, Error> {
    let grant = grant(app, caller, &query)?;
    let size = page_size(query.max_count)?;
    let claimed = match (&query.start_id, &query.start_name) {
        (Some(id), Some(_)) => Some(ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id))?),
        _ => None,
    };
    let page = app
        .catalog
        .scan(move |tx| {
            let bucket = &grant.bucket;
            let place = (bucket.number, bucket.id);
            let start = match (&query.start_name, &claimed) {
                (None, _) => Start::Name(String::new()),
                (Some(name), None) => {
                    Start::Name(behind(name, &query.prefix, query.delimiter.as_deref()))
                }
                (Some(name), Some(claimed)) => {
                    let stored = find_claimed(tx, bucket, claimed)?;
                    let (upload_at, origin) = stored
                        .map_or((claimed.upload_at, claimed.number), |version| version.place());
                    // Of equal times the smaller origin comes first here.
                    let origin = FileNumber(origin.0.saturating_add(1));
                    Start::Version { name: name.clone(), upload_at, origin }
                }
            };
            Folder::new(&query, size).list(tx, start, &mut |tx, start, each| {
                let (from, at) = match start {
                    Start::Name(name) => (name, None),
                    Start::Version { name, upload_at, origin } => {
                        (name, Some((*upload_at, *origin)))
                    }
                };
                Ok(files::walk_unfinished(tx, place, from, at, each)?)
            })
        })
        .await?;
    Ok(page)
}

type Walk<'w> =
    dyn FnMut(&mut dyn Tx, &Start, &mut dyn FnMut(FileVersion) -> bool) -> Result<(), Abort> + 'w;

/// Folds names into folders and rows into a page.
struct Folder<'q> {
    prefix: &'q str,
    delimiter: Option<&'q str>,
    size: usize,
    page: Page,
    /// The folder that was listed last; its further rows are passed over.
    current: Option<String>,
    passed_over: usize,
    without_unfinished: bool,
    unfinished: usize,
}

/// What to do after a row.
enum Step {
    On,
    Jump(Start),
    End,
}

impl<'q> Folder<'q> {
    fn new(query: &'q ListQuery, size: usize) -> Self {
        Self {
            prefix: &query.prefix,
            delimiter: query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
            size,
            page: Page {
                entries: Vec::with_capacity(size.min(ROOM_FOR_ENTRIES)),
                ..Page::default()
            },
            current: None,
            passed_over: 0,
            without_unfinished: false,
            unfinished: 0,
        }
    }

    fn list(mut self, tx: &mut dyn Tx, start: Start, walk: &mut Walk<'_>) -> Result<Page, Abort> {
        let mut start = self.not_before_prefix(start);
        loop {
            let mut step = Step::End;
            walk(tx, &start, &mut |version| {
                step = self.take(version);
                matches!(step, Step::On)
            })?;
            match step {
                Step::Jump(to) => start = to,
                Step::On | Step::End => return Ok(self.page),
            }
        }
    }

    fn not_before_prefix(&self, start: Start) -> Start {
        let name = match &start {
            Start::Name(name) | Start::Version { name, .. } => name,
        };
        if name.as_str() < self.prefix { Start::Name(self.prefix.to_owned()) } else { start }
    }

    fn take(&mut self, version: FileVersion) -> Step {
        let name = version.name.as_str();
        if !name.starts_with(self.prefix) {
            return Step::End;
        }
        if let Some(current) = &self.current
            && name.starts_with(current.as_str())
        {
            self.passed_over += 1;
            if self.passed_over < ROWS_BEFORE_JUMP {
                return Step::On;
            }
            return successor(current).map_or(Step::End, |after| Step::Jump(Start::Name(after)));
        }
        if self.without_unfinished && version.action == Action::Start {
            self.unfinished += 1;
            if self.unfinished < UNFINISHED_PER_PAGE_MAX {
                return Step::On;
            }
            self.page.next_name = Some(name.to_owned());
            self.page.ended_behind = Some((name.to_owned(), version.id()));
            return Step::End;
        }
        if self.page.entries.len() >= self.size {
            self.page.next_name = Some(name.to_owned());
            self.page.next_id = Some(version.id());
            return Step::End;
        }
        self.passed_over = 0;
        self.current = self
            .delimiter
            .and_then(|delimiter| folder_of(name, self.prefix, delimiter))
            .map(str::to_owned);
        self.page.entries.push(match &self.current {
            Some(folder) => Entry::Folder(folder.clone()),
            None => Entry::File(version),
        });
        Step::On
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::catalog::Error;
    use crate::catalog::tx::{Row, Value};
    use crate::domain::digest::Md5Digest;
    use crate::domain::encryption::Encryption;
    use crate::domain::file::{ContentSha1, FileInfo};
    use crate::domain::ids::BucketId;
    use crate::domain::lock::FileLock;
    use crate::domain::names::FileName;
    use crate::domain::time::Millis;

    /// Nothing is asked of it: the rows come from the walk.
    struct NoTx;

    impl Tx for NoTx {
        fn execute(&mut self, _: &'static str, _: &[Value<'_>]) -> Result<usize, Error> {
            Err(Error::Closed)
        }

        fn query(
            &mut self,
            _: &'static str,
            _: &[Value<'_>],
            _: &mut dyn FnMut(&dyn Row) -> Result<bool, Error>,
        ) -> Result<(), Error> {
            Err(Error::Closed)
        }

        fn note_config_change(&mut self) {}
    }

    fn version(name: &str) -> FileVersion {
        FileVersion {
            bucket: BucketId::from_bytes([1; 12]),
            number: FileNumber(1),
            name: FileName::stored(name.to_owned()),
            action: Action::Upload,
            upload_at: Millis(0),
            origin: FileNumber(1),
            written_at: Millis(0),
            size: 0,
            sha1: ContentSha1::None,
            md5: Some(Md5Digest::OF_NOTHING),
            parts: None,
            content_type: String::new(),
            info: FileInfo::default(),
            blob: None,
            replication: None,
            lock: FileLock::default(),
            encryption: Encryption::None,
        }
    }

    #[test]
    fn s3_125_a_folder_of_a_hundred_thousand_names_costs_a_few_rows() {
        let names: Vec<String> = (0..100_000)
            .map(|at| format!("{:02}/{at:06}", at % 10))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let query = ListQuery { delimiter: Some("/".to_owned()), ..ListQuery::default() };
        let mut rows = 0_usize;
        let page = Folder::new(&query, 1000)
            .list(&mut NoTx, Start::Name(String::new()), &mut |_, start, each| {
                let Start::Name(from) = start else { return Ok(()) };
                let from = names.partition_point(|name| name < from);
                for name in names.iter().skip(from) {
                    rows += 1;
                    if !each(version(name)) {
                        break;
                    }
                }
                Ok(())
            })
            .expect("rows only");
        assert_eq!(page.entries.len(), 10);
        assert!(rows < 10 * 20, "{rows} rows for 10 folders");
    }

    #[test]
    fn s3_132_a_page_passes_over_unfinished_uploads_up_to_a_number() {
        let begun =
            |at: usize| FileVersion { action: Action::Start, ..version(&format!("{at:06}")) };
        let query = ListQuery::default();
        let (mut rows, mut from, mut pages) = (0_usize, 0, 0);
        let mut found = Vec::new();
        loop {
            let mut folder = Folder::new(&query, 1000);
            folder.without_unfinished = true;
            let page = folder
                .list(&mut NoTx, Start::Name(String::new()), &mut |_, _, each| {
                    for at in from..25_000 {
                        rows += 1;
                        if !each(if at % 12_000 == 5 { version("finished") } else { begun(at) }) {
                            from = at + 1;
                            break;
                        }
                    }
                    Ok(())
                })
                .expect("rows only");
            pages += 1;
            assert_eq!(page.next_name.is_some(), page.ended_behind.is_some());
            assert!(rows <= pages * (UNFINISHED_PER_PAGE_MAX + 1000), "{rows} rows");
            let goes_on = page.ended_behind.is_some();
            found.extend(page.entries);
            if !goes_on {
                break;
            }
        }
        assert_eq!((pages, found.len()), (3, 3));
    }

    /// What a listing shows, by its definition: keys and folders in order, each folder once.
    fn model(names: &BTreeSet<String>, prefix: &str, delimiter: &str, after: &str) -> Vec<String> {
        let mut shown: Vec<String> = Vec::new();
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            let inside = name.strip_prefix(prefix).expect("it begins so");
            let folder = match inside.find(delimiter) {
                Some(at) if !delimiter.is_empty() => {
                    name.get(..prefix.len() + at + delimiter.len()).expect("whole letters")
                }
                _ => name,
            };
            // A folder that the listing begins behind is not shown again.
            let is_behind = name.as_str() > after && folder != after;
            if is_behind && shown.last().is_none_or(|last| last != folder) {
                shown.push(folder.to_owned());
            }
        }
        shown
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn s3_123_pages_are_those_of_a_model(
            names in proptest::collection::btree_set("[ab/%\u{fc}\u{ffff}\u{10000}]{1,6}", 0..60),
            prefix in "[ab/\u{fc}]{0,2}",
            delimiter in "(|/|//|a|b/|%|\u{fc}|\u{10000}|\n)",
            after in "(|[ab/\u{fc}\u{10000}]{0,4})",
            size in 1_usize..9,
        ) {
            let query = ListQuery {
                prefix: prefix.clone(),
                delimiter: Some(delimiter.clone()).filter(|text| !text.is_empty()),
                ..ListQuery::default()
            };
            let list = |start: String| {
                let walk: &mut Walk<'_> = &mut |_, start, each| {
                    let Start::Name(from) = start else { return Ok(()) };
                    for name in names.range(from.clone()..) {
                        if !each(version(name)) {
                            break;
                        }
                    }
                    Ok(())
                };
                Folder::new(&query, size).list(&mut NoTx, Start::Name(start), walk)
            };
            let text = |entry: &Entry| match entry {
                Entry::File(version) => version.name.as_str().to_owned(),
                Entry::Folder(folder) => folder.clone(),
            };
            let begin = |after: &str| {
                if after.is_empty() {
                    String::new()
                } else {
                    behind(after, &prefix, query.delimiter.as_deref())
                }
            };
            let wanted = model(&names, &prefix, &delimiter, &after);
            // Once by where the page says that the next one begins, once behind its last entry.
            for by_token in [true, false] {
                let (mut shown, mut start) = (Vec::new(), begin(&after));
                loop {
                    let page = list(start).expect("rows only");
                    prop_assert!(page.entries.len() <= size);
                    shown.extend(page.entries.iter().map(text));
                    let Some(next) = page.next_name else { break };
                    prop_assert_eq!(page.entries.len(), size);
                    let last = shown.last().expect("a full page");
                    start = if by_token { next } else { begin(last) };
                }
                prop_assert_eq!(&shown, &wanted, "{}", by_token);
            }
        }
    }

    #[test]
    fn s3_123_listings_go_on_behind_a_name_or_a_whole_folder() {
        assert_eq!(behind("a", "", None), "a\u{1}");
        assert_eq!(behind("a/", "", Some("/")), "a0");
        assert_eq!(behind("a/b", "", Some("/")), "a/b\u{1}");
        assert_eq!(behind("a/b/", "a/", Some("/")), "a/b0");
        assert_eq!(behind("a/", "", None), "a/\u{1}");
    }
}
