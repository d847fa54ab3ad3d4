//! What accounts use: caps that are kept, transactions and bytes that are counted.
//!
//! What is stored is counted and capped in the committing transactions. What is done is counted
//! here in memory, because a commit for each call would cost more than most calls do, and carried
//! into the catalog in batches: a crash loses the counts of the last seconds and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use crate::catalog::usage::BucketUsage;
use crate::catalog::{Abort, Catalog, Tx, accounts, usage};
use crate::domain::ids::AccountId;
use crate::domain::refusal::{Refusal, bad_request};
use crate::domain::usage::{CapChange, Caps, CapsChange, Class, Counts, Day};
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::error::Error;

/// Days that are remembered.
const DAYS_KEPT: i64 = 400;

/// The counts of one account and day.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// What the catalog has.
    kept: Counts,
    /// What it has not yet.
    since: Counts,
}

/// What is counted in memory.
pub(crate) struct Usage {
    /// True once any account had a storage cap.
    storage_is_capped: AtomicBool,
    tallies: Mutex<BTreeMap<(Day, AccountId), Tally>>,
    /// One at a time carries counts into the catalog, or throws them away.
    carrying: tokio::sync::Mutex<()>,
}

impl Usage {
    /// Counts nothing yet; finds out whether storage is capped.
    pub(crate) fn of(catalog: &Catalog) -> Result<Arc<Self>, Error> {
        let capped = catalog.read(|tx| Ok(usage::has_storage_caps(tx)?))?;
        Ok(Arc::new(Self {
            storage_is_capped: AtomicBool::new(capped),
            tallies: Mutex::default(),
            carrying: tokio::sync::Mutex::default(),
        }))
    }

    pub(crate) fn storage_is_capped(&self) -> bool {
        self.storage_is_capped.load(Ordering::Acquire)
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<(Day, AccountId), Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, day: Day, account: AccountId, more: Counts) {
        let mut tallies = self.tallies();
        let tally = tallies.entry((day, account)).or_default();
        tally.since = tally.since.plus(more);
    }
}

/// Counts what an account does, or refuses it when that would be above a cap. Both in one step, so
/// that calls at the same time cannot pass a cap together.
fn admit(app: &App, account: AccountId, more: Counts) -> Result<(), Error> {
    let caps = app.facts.caps(&app.catalog, account)?;
    let day = Day::of(app.clock.now());
    let known = app.usage.tallies().contains_key(&(day, account));
    let kept = if known {
        Counts::default()
    } else {
        // The first call of the day, or of this run of the server.
        let listed = app.catalog.read(|tx| Ok(usage::list_counts(tx, account, day)?))?;
        listed.into_iter().find(|(of, _)| *of == day).map(|(_, counts)| counts).unwrap_or_default()
    };
    let mut tallies = app.usage.tallies();
    let tally = tallies.entry((day, account)).or_insert(Tally { kept, since: Counts::default() });
    caps.admit(tally.kept.plus(tally.since), more)?;
    tally.since = tally.since.plus(more);
    Ok(())
}

/// Counts transactions of a class; refused when the account may have no more of them today.
pub(crate) fn admit_transactions(
    app: &App,
    account: AccountId,
    class: Class,
    units: i64,
) -> Result<(), Error> {
    admit(app, account, Counts::transactions(class, units))
}

/// Counts transactions that are done already.
pub(crate) fn count_transactions(app: &App, account: AccountId, class: Class, units: usize) {
    let units = i64::try_from(units).unwrap_or(i64::MAX);
    app.usage.add(Day::of(app.clock.now()), account, Counts::transactions(class, units));
}

/// Counts the begin of a download, whose refusal has a code of its own.
pub(crate) fn admit_download(app: &App, account: AccountId) -> Result<(), Error> {
    let admitted = admit(app, account, Counts::transactions(Class::B, 1));
    admitted.map_err(|error| match error {
        Error::Refused(_) => crate::domain::refusal::download_cap_exceeded().into(),
        fault @ Error::Fault(_) => fault,
    })
}

/// Bytes that were counted as sent before they are; dropped, it gives back what was not sent.
pub(crate) struct Sending {
    usage: Arc<Usage>,
    day: Day,
    account: AccountId,
    left: i64,
}

/// Counts the bytes of a download; refused when the account may send no more of them today.
pub(crate) fn admit_bytes(app: &App, account: AccountId, bytes: u64) -> Result<Sending, Error> {
    let (left, day) = (signed(bytes), Day::of(app.clock.now()));
    admit(app, account, Counts::downloaded(left))?;
    Ok(Sending { usage: Arc::clone(&app.usage), day, account, left })
}

impl Sending {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX)).max(0);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.left > 0 {
            self.usage.add(self.day, self.account, Counts::downloaded(self.left).negated());
        }
    }
}

/// Counts bytes that were uploaded and committed.
pub(crate) fn count_uploaded(app: &App, account: AccountId, bytes: u64) {
    app.usage.add(Day::of(app.clock.now()), account, Counts::uploaded(signed(bytes)));
}

pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Refuses what would take an account above its storage cap, before its bytes are taken in. The
/// committing transaction decides again.
pub(crate) fn check_room(app: &App, account: AccountId, bytes: u64) -> Result<(), Error> {
    let caps = app.facts.caps(&app.catalog, account)?;
    if caps.storage_bytes.is_none() {
        return Ok(());
    }
    let stored = app.catalog.read(|tx| Ok(usage::stored_bytes(tx, account)?))?;
    Ok(caps.admit_stored(stored, signed(bytes))?)
}

/// Refuses so many bytes more when they would take an account above its storage cap; inside the
/// transaction that stores them.
pub(crate) fn require_room(tx: &mut dyn Tx, account: AccountId, bytes: i64) -> Result<(), Abort> {
    let caps = usage::find_caps(tx, account)?;
    if caps.storage_bytes.is_some() {
        caps.admit_stored(usage::stored_bytes(tx, account)?, bytes)?;
    }
    Ok(())
}

/// Carries what was counted into the catalog; answers whether there was anything.
pub(crate) async fn carry_counts(app: &App) -> Result<bool, Error> {
    let _carrying = app.usage.carrying.lock().await;
    let today = Day::of(app.clock.now());
    let mut batch = Vec::new();
    for (&(day, account), tally) in app.usage.tallies().iter_mut() {
        if tally.since != Counts::default() {
            batch.push((day, account, tally.since));
            tally.kept = tally.kept.plus(tally.since);
            tally.since = Counts::default();
        }
    }
    if batch.is_empty() {
        return Ok(false);
    }
    let rows = batch.clone();
    let written = app.catalog.write("carry_counts", move |tx| {
        for (day, account, counts) in &rows {
            usage::add_counts(tx, *account, *day, counts)?;
        }
        Ok(usage::forget_counts(tx, Day(today.0 - DAYS_KEPT))?)
    });
    let written = written.await;
    let mut tallies = app.usage.tallies();
    if written.is_err() {
        for (day, account, counts) in batch {
            let tally = tallies.entry((day, account)).or_default();
            tally.kept = tally.kept.plus(counts.negated());
            tally.since = tally.since.plus(counts);
        }
    } else {
        // A download that began yesterday may still give bytes back, to a tally of its own.
        tallies.retain(|(day, _), tally| *day >= today || tally.since != Counts::default());
    }
    written?;
    Ok(true)
}

/// Forgets what was counted, together with what `act` does to the catalog.
pub(crate) async fn forget_counts<T>(app: &App, act: impl Future<Output = T>) -> T {
    let _carrying = app.usage.carrying.lock().await;
    let done = act.await;
    app.usage.tallies().clear();
    done
}

/// What one account uses and may.
#[derive(Clone, Debug)]
pub(crate) struct AccountUsage {
    pub(crate) account: AccountId,
    pub(crate) name: String,
    pub(crate) caps: Caps,
    pub(crate) buckets: Vec<BucketUsage>,
    /// Newest first; days on which nothing was done are missing.
    pub(crate) days: Vec<(Day, Counts)>,
}

/// What one account uses, or all do: stored now, done in the last `days` days, today counted.
pub(crate) async fn list_usage(
    app: &App,
    _operator: &Operator,
    account: Option<AccountId>,
    days: i64,
) -> Result<Vec<AccountUsage>, Error> {
    if !(1..=DAYS_KEPT).contains(&days) {
        return Err(bad_request(format!("days must be between 1 and {DAYS_KEPT}")).into());
    }
    carry_counts(app).await?;
    let from = Day(Day::of(app.clock.now()).0 - days + 1);
    let listed = app
        .catalog
        .scan(move |tx| {
            let stored = usage::list_stored(tx)?;
            let mut listed = Vec::new();
            for known in accounts::list_accounts(tx)? {
                if account.is_some_and(|wanted| wanted != known.id) {
                    continue;
                }
                let own = stored.iter().filter(|bucket| bucket.account == known.id);
                listed.push(AccountUsage {
                    account: known.id,
                    caps: usage::find_caps(tx, known.id)?,
                    buckets: own.cloned().collect(),
                    days: usage::list_counts(tx, known.id, from)?,
                    name: known.name,
                });
            }
            Ok(listed)
        })
        .await?;
    match account {
        Some(account) if listed.is_empty() => Err(no_such_account(account).into()),
        _ => Ok(listed),
    }
}

fn no_such_account(account: AccountId) -> Refusal {
    bad_request(format!("no such account: {account}"))
}

/// Changes the caps of an account and answers all of them.
pub(crate) async fn change_caps(
    app: &App,
    _operator: &Operator,
    account: AccountId,
    change: CapsChange,
) -> Result<Caps, Error> {
    if matches!(change.storage_bytes, CapChange::Set(_)) {
        // Before the commit: whoever begins to store after it must look.
        app.usage.storage_is_capped.store(true, Ordering::Release);
    }
    let changed = app
        .catalog
        .write("change_caps", move |tx| {
            if !accounts::list_accounts(tx)?.iter().any(|known| known.id == account) {
                return Err(no_such_account(account).into());
            }
            let caps = change.applied_to(usage::find_caps(tx, account)?);
            if !change.is_nothing() {
                usage::put_caps(tx, account, &caps)?;
            }
            Ok(caps)
        })
        .await?;
    Ok(changed)
}

/// What a recount found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recount {
    pub(crate) buckets: usize,
    /// Buckets whose usage is not what they store: as counted, and as recounted.
    pub(crate) differences: Vec<(BucketUsage, BucketUsage)>,
}

/// Counts what every bucket stores anew and compares it with what was counted along the way. Reads
/// every version there is.
pub(crate) async fn recount(app: &App, _operator: &Operator) -> Result<Recount, Error> {
    let (buckets, differences) = app.catalog.scan(|tx| Ok(usage::differences(tx)?)).await?;
    Ok(Recount { buckets, differences })
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::clock::Clock as _;
    use crate::domain::file::FileInfo;
    use crate::domain::refusal::Code;
    use crate::domain::time::DAY_MS;
    use crate::operations::authorize::upload_pair;
    use crate::testing::TestHouse;

    fn operator() -> Operator {
        Operator::of_data_folder()
    }

    async fn cap(house: &TestHouse, change: CapsChange) -> Caps {
        change_caps(&house.app, &operator(), house.caller.account(), change).await.unwrap()
    }

    async fn cap_storage(house: &TestHouse, bytes: i64) {
        cap(house, CapsChange { storage_bytes: CapChange::Set(bytes), ..CapsChange::default() })
            .await;
    }

    fn code<T>(outcome: Result<T, Error>) -> Option<Code> {
        match outcome {
            Ok(_) => None,
            Err(Error::Refused(refusal)) => Some(refusal.code),
            Err(Error::Fault(fault)) => panic!("{fault:?}"),
        }
    }

    async fn usage_of(house: &TestHouse) -> AccountUsage {
        let account = Some(house.caller.account());
        list_usage(&house.app, &operator(), account, 2).await.unwrap().remove(0)
    }

    #[tokio::test]
    async fn native_398_uploads_at_the_same_time_cannot_pass_the_storage_cap_together() {
        let house = TestHouse::open_in_memory().await;
        let bucket = house.bucket("capped").await;
        cap_storage(&house, 750).await;
        let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
        let uploads =
            names.iter().map(|name| house.try_upload(bucket, name, &[7; 100], FileInfo::default()));
        let ended = join_all(uploads).await;
        assert_eq!(ended.iter().filter(|outcome| outcome.is_ok()).count(), 7);
        for outcome in ended {
            assert!(matches!(code(outcome), None | Some(Code::StorageCapExceeded)));
        }
        house.assert_booked_right("after the rush");
        assert_eq!(usage_of(&house).await.buckets[0].stored.bytes, 700);
        let fits = house.try_upload(bucket, "fits", &[7; 50], FileInfo::default()).await;
        assert_eq!(code(fits), None, "up to the last byte");
        let empty = house.try_upload(bucket, "empty", &[], FileInfo::default()).await;
        assert_eq!(
            code(upload_pair(&house.app, &house.caller, &bucket.to_string())),
            Some(Code::StorageCapExceeded),
            "no URL either"
        );
        assert_eq!(code(empty), Some(Code::StorageCapExceeded), "for want of a URL");
    }

    #[tokio::test]
    async fn native_398_random_uploads_and_deletes_are_admitted_by_the_sum_of_what_is_there() {
        for seed in 0..8_u64 {
            let house = TestHouse::open_in_memory().await;
            let buckets = [house.bucket("capped-one").await, house.bucket("capped-two").await];
            cap_storage(&house, 5_000).await;
            let (mut stored, mut there, mut state) = (0, Vec::new(), seed);
            for act in 0..150 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                let drawn = usize::try_from(state >> 33).unwrap();
                if drawn % 3 == 0 && !there.is_empty() {
                    let (name, id, size): (String, String, usize) =
                        there.swap_remove(drawn % there.len());
                    crate::operations::files::delete_version(
                        &house.app,
                        &house.caller,
                        &name,
                        &id,
                        false,
                    )
                    .await
                    .unwrap();
                    stored -= size;
                    continue;
                }
                let (size, name) = (1 + drawn % 900, format!("f{act}"));
                let bucket = buckets[drawn % 2];
                let body = vec![1; size];
                let outcome = house.try_upload(bucket, &name, &body, FileInfo::default()).await;
                let fits = stored + size <= 5_000;
                assert_eq!(outcome.is_ok(), fits, "seed {seed}, act {act}: {stored} + {size}");
                if let Ok(version) = outcome {
                    there.push((name, version.id().to_string(), size));
                    stored += size;
                }
            }
            house.assert_booked_right("at the end");
            let total: i64 =
                usage_of(&house).await.buckets.iter().map(|bucket| bucket.stored.bytes).sum();
            assert_eq!(total, i64::try_from(stored).unwrap(), "seed {seed}");
        }
    }

    #[tokio::test]
    async fn a_crash_loses_counts_of_the_last_seconds_and_never_what_is_stored() {
        let mut house = TestHouse::open_in_memory().await;
        let bucket = house.bucket("crashing").await;
        let account = house.caller.account();
        admit_transactions(&house.app, account, Class::C, 3).unwrap();
        assert!(carry_counts(&house.app).await.unwrap());
        assert!(!carry_counts(&house.app).await.unwrap(), "nothing is left to carry");
        admit_transactions(&house.app, account, Class::C, 5).unwrap();
        house.upload(bucket, "f", b"abc").await;
        house.crash_and_reopen().await;
        house.assert_booked_right("after the crash");
        let usage = usage_of(&house).await;
        assert_eq!((usage.buckets[0].stored.bytes, usage.buckets[0].stored.versions), (3, 1));
        assert_eq!(usage.days[0].1.class_c, 3, "what was carried");
        admit_transactions(&house.app, account, Class::C, 1).unwrap();
        assert_eq!(usage_of(&house).await.days[0].1.class_c, 4, "and counted on from there");
    }

    #[tokio::test]
    async fn native_398_a_cap_counts_what_was_done_before_a_restart_and_ends_with_the_day() {
        let mut house = TestHouse::open_in_memory().await;
        let account = house.caller.account();
        let change = CapsChange { class_b_per_day: CapChange::Set(4), ..CapsChange::default() };
        cap(&house, change).await;
        for _ in 0..3 {
            admit_transactions(&house.app, account, Class::B, 1).unwrap();
        }
        carry_counts(&house.app).await.unwrap();
        house.crash_and_reopen().await;
        let try_one = |house: &TestHouse| code(admit_download(&house.app, account));
        assert_eq!(try_one(&house), None);
        assert_eq!(try_one(&house), Some(Code::DownloadCapExceeded));
        let units = code(admit_transactions(&house.app, account, Class::B, 1));
        assert_eq!(units, Some(Code::TransactionCapExceeded));
        assert_eq!(code(admit_transactions(&house.app, account, Class::C, 100)), None);
        house.clock.advance(DAY_MS);
        assert_eq!(try_one(&house), None, "a new day");
        let days = usage_of(&house).await.days;
        assert_eq!(days.iter().map(|(_, counts)| counts.class_b).collect::<Vec<_>>(), [1, 4]);
    }

    #[tokio::test]
    async fn bytes_that_were_not_sent_are_given_back() {
        let house = TestHouse::open_in_memory().await;
        let account = house.caller.account();
        let change =
            CapsChange { download_bytes_per_day: CapChange::Set(100), ..CapsChange::default() };
        cap(&house, change).await;
        let mut first = admit_bytes(&house.app, account, 60).unwrap();
        assert_eq!(code(admit_bytes(&house.app, account, 60)), Some(Code::DownloadCapExceeded));
        first.sent(10);
        drop(first);
        let mut second = admit_bytes(&house.app, account, 90).unwrap();
        second.sent(90);
        drop(second);
        assert_eq!(usage_of(&house).await.days[0].1.downloaded_bytes, 100);
        assert_eq!(code(admit_bytes(&house.app, account, 1)), Some(Code::DownloadCapExceeded));
        assert_eq!(code(admit_bytes(&house.app, account, 0)), None);
    }

    #[tokio::test]
    async fn a_recount_notices_books_that_are_wrong() {
        let house = TestHouse::open_in_memory().await;
        let bucket = house.bucket("miscounted").await;
        house.upload(bucket, "f", b"abc").await;
        let number = house.bucket_now(bucket).unwrap().number;
        let right = recount(&house.app, &operator()).await.unwrap();
        assert_eq!((right.buckets, right.differences.len()), (1, 0));
        house
            .app
            .catalog
            .write("miscount", move |tx| Ok(usage::add_stored(tx, number, 0, 5)?))
            .await
            .unwrap();
        let wrong = recount(&house.app, &operator()).await.unwrap();
        let bytes = wrong
            .differences
            .iter()
            .map(|(counted, found)| (counted.stored.bytes, found.stored.bytes));
        assert_eq!(bytes.collect::<Vec<_>>(), [(8, 3)]);
    }
}
