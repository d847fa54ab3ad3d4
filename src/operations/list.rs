//! Listings of names and of versions, with prefixes, folders and pages.

use crate::auth::caller::{Caller, Grant};
use crate::catalog::files::{self, Start};
use crate::catalog::{Abort, Tx};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::file::FileVersion;
use crate::domain::ids::{ClaimedFileId, FileId};
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
            let start = version_start(tx, &grant.bucket, &query, claimed.as_ref())?;
            Folder::new(&query, size).list(tx, start, &mut |tx, start, each| {
                let bucket = &grant.bucket;
                Ok(files::walk_versions(tx, (bucket.number, bucket.id), start, each)?)
            })
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
    let name = query.start_name.clone().unwrap_or_default();
    let Some(claimed) = claimed else { return Ok(Start::Name(name)) };
    let stored = find_claimed(tx, bucket, claimed)?;
    let (upload_at, origin) = match stored {
        Some(version) => (version.upload_at, version.origin),
        None => (claimed.upload_at, claimed.number),
    };
    Ok(Start::Version { name, upload_at, origin })
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

    fn folder_of(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(self.prefix)?;
        let (inside, _) = rest.split_once(self.delimiter?)?;
        let length = self.prefix.len() + inside.len() + self.delimiter?.len();
        name.get(..length).map(str::to_owned)
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
        if self.page.entries.len() >= self.size {
            self.page.next_name = Some(name.to_owned());
            self.page.next_id = Some(version.id());
            return Step::End;
        }
        self.passed_over = 0;
        self.current = self.folder_of(name);
        self.page.entries.push(match &self.current {
            Some(folder) => Entry::Folder(folder.clone()),
            None => Entry::File(version),
        });
        Step::On
    }
}
