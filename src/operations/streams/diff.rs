//! Comparing what a stream should have carried with what the remote has, page by page in the order of
//! names.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::auth::caller::Caller;
use crate::catalog::files::{self, ScanCursor};
use crate::catalog::{replication, streams};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::file::FileVersion;
use crate::domain::ids::FileNumber;
use crate::domain::refusal::{Refusal, bad_request};
use crate::domain::remote::{ListedVersion, StreamId};
use crate::domain::replication::JobState;
use crate::domain::stream::Stream;
use crate::domain::stream_diff::{Finding, LocalVersion, compare_versions};
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::controls::{RemotePlace, StreamNetwork};
use crate::operations::error::Error;
use crate::operations::streams::queue::{before_names, cursor_at, place_of as place_in_catalog};
use crate::operations::streams::{existing_with_names, failed, place_of, remote_of, said};

/// Findings of a page, about.
const ITEMS: usize = 1000;
/// Versions that are compared for a page, about.
const COMPARED: u64 = 10_000;
/// Pages that the remote is asked for, for one page of ours, unless a name has very many versions.
const PAGES: usize = 10;
/// Pages that the versions of one name may fill.
const PAGES_OF_NAME: usize = 1000;
/// Versions of ours that are read at a time.
const READ: usize = 500;

/// A version that is not at the remote as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiffItem {
    pub(crate) file_id: String,
    pub(crate) file_name: String,
    /// With the prefix of the stream in front.
    pub(crate) remote_name: String,
    pub(crate) size: u64,
    pub(crate) upload_at: Millis,
    pub(crate) finding: Finding,
    /// Of its job: one that still waits is no surprise. None when it never had one.
    pub(crate) state: Option<JobState>,
}

/// One page of differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiffPage {
    pub(crate) items: Vec<DiffItem>,
    /// Versions that were compared for this page.
    pub(crate) compared: u64,
    /// Where the next page begins; None after the last.
    pub(crate) next: Option<String>,
}

/// Where a comparison has got to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    /// The last name that is done.
    after: String,
    /// Where the remote is to be asked from; None for its beginning.
    from: Option<String>,
    /// The remote has nothing more.
    ended: bool,
}

impl Position {
    fn written(&self) -> Option<String> {
        serde_json::to_vec(self).ok().map(hex::encode)
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let read = hex::decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.ok_or_else(|| bad_request("from is not where a page ended"))
    }
}

/// Versions of one name.
struct Group<T> {
    name: String,
    versions: Vec<T>,
}

/// Our side: what the stream takes, by names, the oldest version of each first.
struct Ours<'a> {
    app: &'a App,
    bucket: &'a Bucket,
    stream: &'a Stream,
    cursor: Option<ScanCursor>,
    read: VecDeque<FileVersion>,
}

impl Ours<'_> {
    /// The next name that has versions the stream takes.
    async fn next(&mut self) -> Result<Option<Group<FileVersion>>, Error> {
        loop {
            let Some(name) = self.fill().await? else { return Ok(None) };
            let mut versions = Vec::new();
            while self.read.front().is_some_and(|version| version.name.as_str() == name) {
                versions.extend(self.read.pop_front());
            }
            versions.retain(|version| self.stream.takes(version).is_ok());
            if !versions.is_empty() {
                return Ok(Some(Group { name, versions }));
            }
        }
    }

    /// Reads until all versions of the first name are there; answers that name.
    async fn fill(&mut self) -> Result<Option<String>, Error> {
        loop {
            let (first, last) = (self.read.front(), self.read.back());
            let is_whole = first.map(|one| &one.name) != last.map(|one| &one.name);
            if is_whole || self.cursor.is_none() {
                return Ok(first.map(|one| one.name.as_str().to_owned()));
            }
            let (place, from) = (place_in_catalog(self.bucket), self.cursor.take());
            let batch = self
                .app
                .catalog
                .scan(move |tx| Ok(files::list_for_scan(tx, place, from.as_ref(), READ)?))
                .await?;
            if batch.len() == READ {
                self.cursor = batch.last().map(cursor_at);
            }
            let prefix = &self.stream.options.file_name_prefix;
            for version in batch {
                if version.name.as_str().starts_with(prefix.as_str()) {
                    self.read.push_back(version);
                } else {
                    self.cursor = None;
                    break;
                }
            }
        }
    }
}

/// The other side.
struct Theirs<'a> {
    network: &'a dyn StreamNetwork,
    place: &'a RemotePlace,
    prefix: String,
    /// Each with the place its page was asked for from.
    read: VecDeque<(ListedVersion, Option<String>)>,
    from: Option<String>,
    ended: bool,
    pages: usize,
}

impl Theirs<'_> {
    /// The versions of a name; those of names before it are passed over. Names must be asked for in
    /// their order.
    async fn of(&mut self, name: &str) -> Result<Vec<ListedVersion>, Error> {
        let begun = self.pages;
        loop {
            while self.read.front().is_some_and(|(listed, _)| listed.name.as_str() < name) {
                self.read.pop_front();
            }
            let goes_on = self.read.back().is_none_or(|(listed, _)| listed.name == name);
            if !goes_on || self.ended {
                break;
            }
            if self.read.len() > 1 && self.pages - begun > PAGES_OF_NAME {
                return Err(bad_request("a name has too many versions at the remote").into());
            }
            self.ask().await?;
        }
        let mut versions = Vec::new();
        while self.read.front().is_some_and(|(listed, _)| listed.name == name) {
            versions.extend(self.read.pop_front().map(|(listed, _)| listed));
        }
        Ok(versions)
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let listed = self.network.list(self.place, &self.prefix, self.from.as_deref()).await;
        let page = listed.map_err(|fault| failed("the remote cannot be listed", &said(&fault)))?;
        self.pages += 1;
        self.read.extend(page.versions.into_iter().map(|version| (version, self.from.clone())));
        self.ended = page.next.is_none();
        self.from = page.next.or_else(|| self.from.take());
        Ok(())
    }

    /// From where on the remote is to be asked again, for names that were not asked for yet.
    fn position(&self) -> (Option<String>, bool) {
        match self.read.front() {
            Some((_, from)) => (from.clone(), false),
            None => (self.from.clone(), self.ended),
        }
    }
}

/// Compares the versions that a stream takes with those at its remote, from where a page before ended.
/// What is found is repaired by a resync.
pub(crate) async fn diff(
    app: &App,
    network: &dyn StreamNetwork,
    caller: &Caller,
    id: StreamId,
    from: Option<&str>,
) -> Result<DiffPage, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    caller.require(Capability::ListFiles)?;
    let position = from.map(Position::parse).transpose()?;
    let (stream, bucket, stored) = app.catalog.read(|tx| {
        let (stream, bucket) =
            existing_with_names(tx, caller, id, Capability::ReadBucketReplications)?;
        let stored = remote_of(tx, &stream)?;
        Ok((stream, bucket, stored))
    })?;
    let place = place_of(app, &stream, &stored)?;
    let cursor = match &position {
        None => before_names(&stream.options.file_name_prefix),
        Some(position) => after_name(&position.after),
    };
    let mut ours =
        Ours { app, bucket: &bucket, stream: &stream, cursor: Some(cursor), read: VecDeque::new() };
    let mut theirs = Theirs {
        network,
        place: &place,
        prefix: stream.remote_name(&stream.options.file_name_prefix),
        read: VecDeque::new(),
        ended: position.as_ref().is_some_and(|position| position.ended),
        from: position.and_then(|position| position.from),
        pages: 0,
    };
    let mut page = DiffPage { items: Vec::new(), compared: 0, next: None };
    while let Some(group) = ours.next().await? {
        let there = theirs.of(&stream.remote_name(&group.name)).await?;
        page.compared += group.versions.len() as u64;
        compare(app, &stream, &group, &there, &mut page.items)?;
        if page.items.len() >= ITEMS || page.compared >= COMPARED || theirs.pages >= PAGES {
            let (from, ended) = theirs.position();
            page.next = Position { after: group.name, from, ended }.written();
            break;
        }
    }
    Ok(page)
}

fn compare(
    app: &App,
    stream: &Stream,
    group: &Group<FileVersion>,
    there: &[ListedVersion],
    items: &mut Vec<DiffItem>,
) -> Result<(), Error> {
    let ours: Vec<LocalVersion> =
        group.versions.iter().map(|version| comparable(app, version)).collect();
    let findings = compare_versions(&ours, there);
    for (version, finding) in group.versions.iter().zip(findings) {
        if finding == Finding::Same {
            continue;
        }
        let job =
            app.catalog.read(|tx| Ok(streams::find_job_of_file(tx, stream.id, version.number)?))?;
        items.push(DiffItem {
            file_id: version.id().to_string(),
            file_name: group.name.clone(),
            remote_name: stream.remote_name(&group.name),
            size: version.size,
            upload_at: version.upload_at,
            finding,
            state: job.map(|(_, state)| state),
        });
    }
    Ok(())
}

fn comparable(app: &App, version: &FileVersion) -> LocalVersion {
    LocalVersion {
        origin: replication::origin_of(&app.instance, &version.id().to_string()),
        size: version.size,
        sha1: version.sha1.digest().map(|digest| digest.to_string()),
        md5: version.md5.map(|digest| digest.to_string()),
        upload_at: version.upload_at,
    }
}

/// Stands after all versions of a name.
fn after_name(name: &str) -> ScanCursor {
    ScanCursor { name: name.to_owned(), upload_at: Millis(i64::MAX), origin: FileNumber(i64::MAX) }
}
