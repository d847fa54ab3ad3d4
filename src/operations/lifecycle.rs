//! Lifecycle rules at work: daily walks over buckets, a look ahead, a walk on demand.
//!
//! A walk reads the names below each rule's prefix in pages and keeps in the catalog how far it
//! got, so that a restart goes on. It only finds what seems due; each act is a transaction of its
//! own that looks again, so an upload or a lock that came in between wins. The acts are those of
//! callers: hiding, deleting, giving up a large file.

use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::catalog::files::Seen;
pub(crate) use crate::catalog::lifecycle::Counts;
use crate::catalog::lifecycle::{self as walks, Underway};
use crate::catalog::{Abort, Error as CatalogError, Tx, buckets, files};
use crate::domain::bucket::Bucket;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::{BucketId, FileId, FileNumber};
use crate::domain::lifecycle::{Act, Facts, LifecycleRule, NameLook, Standing, due_one, rule_for};
use crate::domain::lock::LockTimes;
use crate::domain::time::{DAY_MS, Millis};
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::buckets::bucket_named;
use crate::operations::effects::{self, Aftermath, Cause, Moment};
use crate::operations::error::Error;
use crate::operations::files::{Over, hide};

/// Versions looked at in one page.
const PAGE: usize = 1000;
/// Acts of a page under way at a time, so that their commits are shared.
const ACTS_AT_A_TIME: usize = 64;

/// A version of which a rule makes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) act: Act,
    pub(crate) id: FileId,
    pub(crate) name: String,
    pub(crate) size: u64,
    /// A hide marker that goes once nothing is left for it to hide.
    is_marker: bool,
}

impl Due {
    /// What a walk would have found of a version.
    #[cfg(test)]
    pub(crate) fn for_tests(act: Act, version: &FileVersion) -> Self {
        Self {
            act,
            id: version.id(),
            name: version.name.as_str().to_owned(),
            size: version.size,
            is_marker: false,
        }
    }

    fn of(bucket: BucketId, seen: Seen) -> Self {
        Self {
            act: Act::Delete,
            id: FileId {
                bucket,
                number: seen.number,
                written_at: seen.written_at,
                upload_at: seen.upload_at,
            },
            name: seen.name,
            size: seen.size,
            is_marker: false,
        }
    }
}

/// From when days are counted: of an unfinished file from its beginning here, since its upload time
/// may be that of a version elsewhere, long ago.
fn counted_from(action: Action, upload_at: Millis, written_at: Millis) -> Millis {
    if action == Action::Start { written_at } else { upload_at }
}

fn facts(seen: &Seen, times: LockTimes) -> Facts {
    Facts {
        action: seen.action,
        upload_at: counted_from(seen.action, seen.upload_at, seen.written_at),
        is_locked: !seen.lock.may_delete(times.locks_run_to, false),
    }
}

/// A look over a bucket, page by page.
#[derive(Clone, Debug)]
struct Look {
    /// The last name that was looked at whole.
    done: String,
    /// In the midst of a name: where, and what was seen of it.
    inside: Option<Inside>,
}

#[derive(Clone, Debug)]
struct Inside {
    name: String,
    upload_at: Millis,
    origin: FileNumber,
    look: NameLook<Due>,
}

/// What one page of a look brought.
#[derive(Debug, Default)]
struct Page {
    due: Vec<Due>,
    ended: bool,
}

impl Look {
    fn behind(done: String) -> Self {
        Self { done, inside: None }
    }

    /// Looks at the next versions of a bucket as it is now.
    fn page(&mut self, tx: &mut dyn Tx, bucket: &Bucket, times: LockTimes) -> Result<Page, Abort> {
        let mut rules: Vec<&LifecycleRule> = bucket.settings.lifecycle_rules.iter().collect();
        rules.sort_by_key(|rule| &rule.file_name_prefix);
        let mut page = Page::default();
        let mut room = PAGE;
        for rule in rules {
            let at = self.inside.as_ref().map_or(&self.done, |inside| &inside.name);
            if *at > rule.file_name_prefix && !rule.applies_to(at) {
                continue;
            }
            if !self.names(tx, bucket, rule, times, &mut room, &mut page.due)? {
                return Ok(page);
            }
            self.leave(&mut page.due);
        }
        page.ended = true;
        Ok(page)
    }

    /// Looks at the names of one rule; false when the page was full before their end.
    fn names(
        &mut self,
        tx: &mut dyn Tx,
        bucket: &Bucket,
        rule: &LifecycleRule,
        times: LockTimes,
        room: &mut usize,
        due: &mut Vec<Due>,
    ) -> Result<bool, Abort> {
        let (first, last) = (Millis(i64::MAX), Millis(i64::MIN + 1));
        let prefix = rule.file_name_prefix.as_str();
        let done = self.done.clone();
        let inside = self.inside.as_ref();
        let inside = inside.map(|inside| (inside.name.clone(), inside.upload_at, inside.origin));
        let behind = match &inside {
            Some((name, upload_at, origin)) => (name.as_str(), *upload_at, *origin),
            None if done.as_str() < prefix => (prefix, first, FileNumber(i64::MAX)),
            None => (done.as_str(), last, FileNumber(i64::MIN + 1)),
        };
        let mut ended = true;
        files::walk_seen(tx, bucket.number, behind, &mut |seen| {
            if !rule.applies_to(&seen.name) {
                return false;
            }
            if *room == 0 {
                ended = false;
                return false;
            }
            *room -= 1;
            self.look(bucket, rule, times, seen, due);
            true
        })?;
        Ok(ended)
    }

    fn look(
        &mut self,
        bucket: &Bucket,
        rule: &LifecycleRule,
        times: LockTimes,
        seen: Seen,
        due: &mut Vec<Due>,
    ) {
        if self.inside.as_ref().is_some_and(|inside| inside.name != seen.name) {
            self.leave(due);
        }
        let inside = self.inside.get_or_insert_with(|| Inside {
            name: seen.name.clone(),
            upload_at: seen.upload_at,
            origin: seen.origin,
            look: NameLook::new(rule, times.rules_run_to(bucket.settings.file_lock)),
        });
        (inside.upload_at, inside.origin) = (seen.upload_at, seen.origin);
        let facts = facts(&seen, times);
        if let Some((version, act)) = inside.look.look(Due::of(bucket.id, seen), facts) {
            due.push(Due { act, ..version });
        }
    }

    /// Is done with the name it is in.
    fn leave(&mut self, due: &mut Vec<Due>) {
        let Some(inside) = self.inside.take() else { return };
        self.done = inside.name;
        if let Some((marker, act)) = inside.look.end() {
            due.push(Due { act, is_marker: true, ..marker });
        }
    }
}

/// The next page of a look, read away from the threads that serve requests. None when the bucket
/// is gone.
async fn next_page(
    app: &App,
    bucket: BucketId,
    mut look: Look,
) -> Result<Option<(Look, Page)>, Error> {
    let times = app.lock_clock.times(&*app.clock);
    let page = app
        .catalog
        .scan(move |tx| {
            let Some(bucket) = buckets::find_by_id(tx, bucket)? else { return Ok(None) };
            let page = look.page(tx, &bucket, times)?;
            Ok(Some((look.clone(), page)))
        })
        .await?;
    Ok(page)
}

/// Does what seemed due, if it still is. Answers whether it was done.
pub(crate) async fn carry_out(app: &App, due: &Due) -> Result<bool, Error> {
    let moment = Moment::of(app);
    let marker = app.numbers.small_file(moment.now);
    let (bucket, number, act) = (due.id.bucket, due.id.number, due.act);
    let done = app
        .catalog
        .write("lifecycle", move |tx| act_on(tx, bucket, number, act, marker, moment))
        .await;
    match done {
        // Nothing is done to what cannot be read, a lock least of all.
        Err(Abort::Catalog(CatalogError::Unreadable { what })) => {
            tracing::warn!(file.id = %due.id, what, "a version is left alone");
            Ok(false)
        }
        Err(Abort::Catalog(CatalogError::Shape { .. })) => {
            tracing::warn!(file.id = %due.id, "an unreadable version is left alone");
            Ok(false)
        }
        outcome => {
            let aftermath = outcome?;
            let has_acted = aftermath.is_some();
            if let Some(aftermath) = aftermath {
                effects::announce(app, aftermath);
            }
            Ok(has_acted)
        }
    }
}

fn act_on(
    tx: &mut dyn Tx,
    bucket: BucketId,
    number: FileNumber,
    act: Act,
    marker: FileNumber,
    moment: Moment,
) -> Result<Option<Aftermath>, Abort> {
    let Some(bucket) = buckets::find_by_id(tx, bucket)? else { return Ok(None) };
    let version = files::find_by_number(tx, (bucket.number, bucket.id), number)?;
    let Some(version) = version else { return Ok(None) };
    if due_now(tx, &bucket, &version, moment)? != Some(act) {
        return Ok(None);
    }
    let aftermath = match act {
        Act::Hide => {
            let why = (Cause::LifecycleHide, Over::File);
            hide(tx, &bucket, &version.name, marker, why, moment)?.1
        }
        Act::Delete => {
            effects::remove(tx, &bucket, &version, Cause::LifecycleDelete, moment, false)?
        }
        Act::Cancel => effects::remove(tx, &bucket, &version, Cause::Cancel, moment, false)?,
    };
    Ok(Some(aftermath))
}

/// What the bucket's rules make of a version at this moment.
fn due_now(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    moment: Moment,
) -> Result<Option<Act>, CatalogError> {
    let rule = rule_for(&bucket.settings.lifecycle_rules, version.name.as_str());
    let Some(rule) = rule else { return Ok(None) };
    let facts = Facts {
        action: version.action,
        upload_at: counted_from(version.action, version.upload_at, version.written_at),
        is_locked: !moment.may_remove(version, false),
    };
    let standing = Standing {
        hidden_since: files::hidden_since(tx, bucket.number, version)?,
        is_alone: files::is_alone(tx, bucket.number, version)?,
    };
    let now = moment.locks.rules_run_to(bucket.settings.file_lock);
    Ok(due_one(rule, facts, standing, now))
}

async fn carry_out_all(app: &App, due: Vec<Due>) -> Result<Counts, Error> {
    // Markers go last: each looks whether anything is left for it to hide.
    let (markers, others): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.is_marker);
    let mut counts = Counts::default();
    for batch in [others, markers] {
        let mut acts = futures_util::stream::iter(batch)
            .map(|due| async move { (due.act, carry_out(app, &due).await) })
            .buffer_unordered(ACTS_AT_A_TIME);
        while let Some((act, done)) = acts.next().await {
            if done? {
                match act {
                    Act::Hide => counts.hidden += 1,
                    Act::Delete => counts.deleted += 1,
                    Act::Cancel => counts.canceled += 1,
                }
            }
        }
    }
    app.metrics.lifecycle_hidden.add(counts.hidden);
    app.metrics.lifecycle_deleted.add(counts.deleted);
    app.metrics.lifecycle_canceled.add(counts.canceled);
    if counts.deleted + counts.canceled > 0 {
        app.wake.sweep.notify_one();
    }
    Ok(counts)
}

/// A walk over one bucket that is under way.
pub(crate) struct Walk {
    underway: Underway,
    look: Look,
}

impl Walk {
    /// Goes on with the walk of a bucket, from where its last note says; else begins one. None when
    /// the bucket has no rules.
    pub(crate) async fn go_on_or_begin(app: &App, bucket: BucketId) -> Result<Option<Self>, Error> {
        match app.catalog.read(|tx| Ok(walks::find_underway(tx, bucket)?))? {
            Some(underway) => {
                let look = Look::behind(underway.after_name.clone());
                Ok(Some(Self { underway, look }))
            }
            None => Self::begin(app, bucket).await,
        }
    }

    /// Begins a walk, giving up one that is under way. None when the bucket has no rules.
    pub(crate) async fn begin(app: &App, bucket: BucketId) -> Result<Option<Self>, Error> {
        let now = app.clock.now();
        let begun = app
            .catalog
            .write("begin_lifecycle_walk", move |tx| {
                Ok(walks::begin_walk(tx, bucket, now, now.plus(DAY_MS))?)
            })
            .await?;
        let underway = Underway {
            bucket,
            started_at: now,
            after_name: String::new(),
            counts: Counts::default(),
        };
        Ok(begun.then(|| Self { underway, look: Look::behind(String::new()) }))
    }

    /// The last name that the walk is done with.
    #[cfg(test)]
    pub(crate) fn at(&self) -> &str {
        &self.underway.after_name
    }

    /// Takes the walk one page further and notes how far it got; true while there is more.
    pub(crate) async fn step(&mut self, app: &App) -> Result<bool, Error> {
        let bucket = self.underway.bucket;
        let Some((look, page)) = next_page(app, bucket, self.look.clone()).await? else {
            return Ok(false);
        };
        let counts = carry_out_all(app, page.due).await?;
        self.look = look;
        // A name is noted when it is done with, so a restart looks at all of its versions again.
        self.underway.after_name.clone_from(&self.look.done);
        self.underway.counts = self.underway.counts.plus(counts);
        let (note, ended) = (self.underway.clone(), page.ended);
        let goes_on = app
            .catalog
            .write("note_lifecycle_walk", move |tx| Ok(walks::note_progress(tx, &note, ended)?))
            .await?;
        if ended {
            app.metrics.lifecycle_walks.one();
        }
        Ok(goes_on && !ended)
    }
}

/// Walks every bucket whose walk is due or under way, until all are done or `goes_on` says no.
/// Answers how many buckets were walked to their end. A fault in one keeps none of the others.
pub(crate) async fn walk_due(
    app: &App,
    goes_on: &(dyn Fn() -> bool + Send + Sync),
) -> Result<u64, Error> {
    let _turn = app.lifecycle_turn.lock().await;
    let now = app.clock.now();
    let due = app.catalog.read(|tx| Ok(walks::list_due(tx, now)?))?;
    let (mut walked, mut fault) = (0, None);
    for bucket in due {
        match walk_bucket(app, bucket, goes_on).await {
            Ok(ended) => walked += u64::from(ended),
            Err(error) => fault = Some(error),
        }
    }
    fault.map_or(Ok(walked), Err)
}

async fn walk_bucket(
    app: &App,
    bucket: BucketId,
    goes_on: &(dyn Fn() -> bool + Send + Sync),
) -> Result<bool, Error> {
    let Some(mut walk) = Walk::go_on_or_begin(app, bucket).await? else { return Ok(false) };
    while goes_on() {
        if !walk.step(app).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a walk would do now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preview {
    pub(crate) has_rules: bool,
    pub(crate) counts: Counts,
    /// Content of the versions that would be deleted.
    pub(crate) bytes: u64,
    /// The first acts, in the order of names; the counts are of all.
    pub(crate) acts: Vec<Due>,
}

/// Acts that a preview lists, when nothing is said and at most.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;

/// Looks through a bucket for what its rules make due now, and does nothing.
pub(crate) async fn preview(
    app: &App,
    _: &Operator,
    bucket_name: &str,
    limit: Option<usize>,
) -> Result<Preview, Error> {
    let bucket: Arc<Bucket> = bucket_named(app, bucket_name)?;
    let limit = limit.unwrap_or(LISTED).min(LISTED_MAX);
    let has_rules = !bucket.settings.lifecycle_rules.is_empty();
    let mut preview = Preview { has_rules, ..Preview::default() };
    let mut look = Look::behind(String::new());
    while let Some((next, page)) = next_page(app, bucket.id, look).await? {
        for due in page.due {
            match due.act {
                Act::Hide => preview.counts.hidden += 1,
                Act::Delete => {
                    preview.counts.deleted += 1;
                    preview.bytes = preview.bytes.saturating_add(due.size);
                }
                Act::Cancel => preview.counts.canceled += 1,
            }
            if preview.acts.len() < limit {
                preview.acts.push(due);
            }
        }
        if page.ended {
            break;
        }
        look = next;
    }
    Ok(preview)
}

/// Walks one bucket now, from its beginning; the next daily walk is a day from now. None when the
/// bucket has no rules.
pub(crate) async fn run(
    app: &App,
    _: &Operator,
    bucket_name: &str,
) -> Result<Option<Counts>, Error> {
    let bucket = bucket_named(app, bucket_name)?;
    let _turn = app.lifecycle_turn.lock().await;
    let Some(mut walk) = Walk::begin(app, bucket.id).await? else { return Ok(None) };
    while walk.step(app).await? {}
    Ok(Some(walk.underway.counts))
}
