//! Lifecycle walks by steps: what they do, that they go on after a crash, that whoever comes in
//! between wins.

use std::collections::BTreeMap;

use crate::catalog::files;
use crate::catalog::lifecycle::Counts;
use crate::clock::Clock as _;
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::{Action, FileInfo, FileVersion};
use crate::domain::ids::{BucketId, FileNumber};
use crate::domain::lifecycle::{Act, Facts, LifecycleRule, NameLook};
use crate::domain::lock::{FileLock, Retention, RetentionMode};
use crate::domain::names::FileName;
use crate::domain::time::{DAY_MS, Millis};
use crate::entropy::SeededEntropy;
use crate::operations::accounts::Operator;
use crate::operations::buckets::{BucketChange, delete_bucket, update_bucket};
use crate::operations::files::{delete_version, hide_file};
use crate::operations::large_files::{self, NewLargeFile};
use crate::operations::lifecycle::{Due, Walk, carry_out, preview, run, walk_due};
use crate::testing::TestHouse;

fn rule(prefix: &str, hide: Option<i64>, delete: Option<i64>) -> LifecycleRule {
    LifecycleRule {
        delete_after_days: delete,
        cancel_after_days: None,
        hide_after_days: hide,
        file_name_prefix: prefix.to_owned(),
    }
}

async fn set_rules(house: &TestHouse, bucket: BucketId, rules: Vec<LifecycleRule>) {
    let change = BucketChange { lifecycle_rules: Some(rules), ..BucketChange::default() };
    update_bucket(&house.app, &house.caller, &bucket.to_string(), change).await.unwrap();
}

/// A day and a bit: versions of a name that are made at one moment count as a millisecond apart.
const NEXT_DAY_MS: i64 = DAY_MS + 10_000;

/// A day later, the walk of that day done.
async fn next_day(house: &TestHouse) {
    house.clock.advance(NEXT_DAY_MS);
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 1);
}

async fn start(house: &TestHouse, bucket: BucketId, name: &str) -> FileVersion {
    let wanted = NewLargeFile {
        checksum: None,
        bucket: bucket.to_string(),
        name: FileName::parse(name).unwrap(),
        content_type: "text/plain".to_owned(),
        info: FileInfo::default(),
        lock: FileLock::default(),
        encryption: AskedEncryption::Default,
        custom_time: None,
        replica: None,
    };
    large_files::start(&house.app, &house.caller, wanted).await.unwrap()
}

async fn hide(house: &TestHouse, bucket: BucketId, name: &str) {
    hide_file(&house.app, &house.caller, &bucket.to_string(), name).await.unwrap();
}

async fn lock(house: &TestHouse, number: FileNumber, lock: FileLock) {
    let write = house.app.catalog.write("lock", move |tx| {
        files::set_retention(tx, number, lock.retention)?;
        Ok(files::set_legal_hold(tx, number, lock.legal_hold == Some(true))?)
    });
    write.await.unwrap();
}

fn retained(until: Millis) -> FileLock {
    let retention = Retention { mode: RetentionMode::Compliance, until };
    FileLock { retention: Some(retention), legal_hold: None }
}

/// The versions of a bucket as `name:action`, newest first within a name.
fn shown(house: &TestHouse, bucket: BucketId) -> Vec<String> {
    let versions = house.versions(bucket);
    versions.iter().map(|v| format!("{}:{}", v.name.as_str(), v.action.as_str())).collect()
}

fn due_of(version: &FileVersion, act: Act) -> Due {
    Due::for_tests(act, version)
}

#[tokio::test]
async fn native_359_a_walk_a_day_hides_what_is_old_once() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("photos").await;
    house.upload(bucket, "a/old", b"x").await;
    house.upload(bucket, "b/other", b"x").await;
    set_rules(&house, bucket, vec![rule("a/", Some(2), None)]).await;
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0, "nothing happens at once");
    next_day(&house).await;
    house.upload(bucket, "a/new", b"x").await;
    assert_eq!(shown(&house, bucket), ["a/new:upload", "a/old:upload", "b/other:upload"]);
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0, "one walk a day");
    next_day(&house).await;
    let hidden = ["a/new:upload", "a/old:hide", "a/old:upload", "b/other:upload"];
    assert_eq!(shown(&house, bucket), hidden);
    house.upload(bucket, "a/old", b"again").await;
    next_day(&house).await;
    next_day(&house).await;
    next_day(&house).await;
    assert_eq!(
        shown(&house, bucket),
        [
            "a/new:hide",
            "a/new:upload",
            "a/old:hide",
            "a/old:upload",
            "a/old:hide",
            "a/old:upload",
            "b/other:upload",
        ],
        "each upload is hidden once"
    );
    assert_eq!(house.app.metrics.lifecycle_hidden.value(), 3);
}

#[tokio::test]
async fn native_360_hidden_and_superseded_versions_go_and_then_the_marker() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("photos").await;
    set_rules(&house, bucket, vec![rule("", None, Some(2))]).await;
    house.upload(bucket, "kept", b"one").await;
    house.upload(bucket, "kept", b"two").await;
    house.upload(bucket, "gone", b"x").await;
    next_day(&house).await;
    hide(&house, bucket, "gone").await;
    next_day(&house).await;
    assert_eq!(shown(&house, bucket), ["gone:hide", "gone:upload", "kept:upload"]);
    next_day(&house).await;
    assert_eq!(shown(&house, bucket), ["kept:upload"]);
    let deleted = house.app.metrics.lifecycle_deleted.value();
    assert_eq!(deleted, 3, "the old version, the hidden one and its marker");
    house.sweep_freed().await;
    let caller = &house.caller;
    for version in house.versions(bucket) {
        let id = version.id().to_string();
        delete_version(&house.app, caller, version.name.as_str(), &id, false).await.unwrap();
    }
    delete_bucket(&house.app, caller, &bucket.to_string()).await.unwrap();
    house.clock.advance(DAY_MS);
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0, "its walks went with it");
}

#[tokio::test]
async fn native_361_large_files_that_nobody_finishes_are_canceled() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("photos").await;
    let rule = LifecycleRule { cancel_after_days: Some(1), ..rule("", None, None) };
    set_rules(&house, bucket, vec![rule]).await;
    let old = start(&house, bucket, "large").await;
    lock(&house, old.number, FileLock { retention: None, legal_hold: Some(true) }).await;
    house.clock.advance(DAY_MS - 1);
    start(&house, bucket, "large").await;
    house.upload(bucket, "large", b"x").await;
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0);
    house.clock.advance(1);
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 1);
    assert_eq!(shown(&house, bucket), ["large:upload", "large:start"], "the older one is gone");
    next_day(&house).await;
    assert_eq!(shown(&house, bucket), ["large:upload"]);
    assert_eq!(house.app.metrics.lifecycle_canceled.value(), 2);
}

#[tokio::test]
async fn native_362_reliability_l3_l4_locked_and_unreadable_versions_survive() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("photos").await;
    set_rules(&house, bucket, vec![rule("", None, Some(1))]).await;
    let retained_version = house.upload(bucket, "a-retained", b"x").await;
    let held = house.upload(bucket, "b-held", b"x").await;
    let spoilt = house.upload(bucket, "c-unreadable", b"x").await;
    house.upload(bucket, "d-free", b"x").await;
    let until = house.clock.now().plus(10 * DAY_MS);
    lock(&house, retained_version.number, retained(until)).await;
    lock(&house, held.number, FileLock { retention: None, legal_hold: Some(true) }).await;
    for name in ["a-retained", "b-held", "c-unreadable", "d-free"] {
        hide(&house, bucket, name).await;
    }
    let number = spoilt.number;
    let spoil = house.app.catalog.write("spoil", move |tx| Ok(files::spoil_lock(tx, number)?));
    spoil.await.unwrap();
    next_day(&house).await;
    assert_eq!(house.app.metrics.lifecycle_deleted.value(), 2, "the free one and its marker");
    let spoilt_due = due_of(&spoilt, Act::Delete);
    assert!(!carry_out(&house.app, &spoilt_due).await.unwrap(), "even when asked for by name");
    for _ in 0..8 {
        next_day(&house).await;
    }
    assert_eq!(house.app.metrics.lifecycle_deleted.value(), 2);
    next_day(&house).await;
    assert_eq!(house.app.metrics.lifecycle_deleted.value(), 4, "the retention is over");
    lock(&house, held.number, FileLock { retention: None, legal_hold: Some(false) }).await;
    lock(&house, spoilt.number, FileLock::default()).await;
    next_day(&house).await;
    assert_eq!(shown(&house, bucket), Vec::<String>::new());
}

#[tokio::test]
async fn native_359_360_362_whoever_comes_in_between_wins() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("photos").await;
    set_rules(&house, bucket, vec![rule("", Some(1), Some(1))]).await;
    let uploaded = house.upload(bucket, "raced", b"x").await;
    house.clock.advance(DAY_MS);
    let newer = house.upload(bucket, "raced", b"newer").await;
    let act = due_of(&uploaded, Act::Hide);
    assert!(!carry_out(&house.app, &act).await.unwrap(), "an upload came in between");
    house.clock.advance(DAY_MS);
    lock(&house, uploaded.number, retained(house.clock.now().plus(1))).await;
    let act = due_of(&uploaded, Act::Delete);
    assert!(!carry_out(&house.app, &act).await.unwrap(), "a lock came in between");
    house.clock.advance(1);
    let id = newer.id().to_string();
    delete_version(&house.app, &house.caller, "raced", &id, false).await.unwrap();
    assert!(!carry_out(&house.app, &act).await.unwrap(), "what hid it has gone");
    set_rules(&house, bucket, vec![rule("elsewhere", Some(1), Some(1))]).await;
    let act = due_of(&uploaded, Act::Hide);
    assert!(!carry_out(&house.app, &act).await.unwrap(), "the rule has gone");
    set_rules(&house, bucket, vec![rule("r", Some(1), Some(1))]).await;
    assert!(carry_out(&house.app, &act).await.unwrap());
    assert!(!carry_out(&house.app, &act).await.unwrap(), "twice is once");
    assert_eq!(shown(&house, bucket), ["raced:hide", "raced:upload"]);
    house.clock.advance(DAY_MS);
    assert!(carry_out(&house.app, &due_of(&uploaded, Act::Delete)).await.unwrap());
    assert!(!carry_out(&house.app, &due_of(&uploaded, Act::Delete)).await.unwrap());
    let marker = house.versions(bucket).remove(0);
    start(&house, bucket, "raced").await;
    assert!(!carry_out(&house.app, &due_of(&marker, Act::Delete)).await.unwrap(), "not alone");
}

#[tokio::test]
async fn a_walk_goes_on_after_a_crash_where_it_was_and_holds_one_page_at_a_time() {
    let mut house = TestHouse::open_in_memory().await;
    let bucket = house.bucket("photos").await;
    set_rules(&house, bucket, vec![rule("", None, Some(1))]).await;
    // One name with more versions than a page holds, and more names than one page holds.
    for _ in 0..1100 {
        house.upload(bucket, "m-many", b"").await;
    }
    for number in 0..1150 {
        let name = format!("{}-{number:04}", if number < 600 { 'a' } else { 'z' });
        house.upload(bucket, &name, b"").await;
        hide(&house, bucket, &name).await;
    }
    hide(&house, bucket, "m-many").await;
    house.clock.advance(NEXT_DAY_MS);
    let mut walk = Walk::begin(&house.app, bucket).await.unwrap().unwrap();
    assert!(walk.step(&house.app).await.unwrap());
    let first = house.app.metrics.lifecycle_deleted.value();
    assert!((998..=1000).contains(&first), "{first} in one page");
    house.crash_and_reopen().await;
    let mut walk = Walk::go_on_or_begin(&house.app, bucket).await.unwrap().unwrap();
    assert_eq!(walk.at(), "a-0498", "the last name that was done with");
    assert!(walk.step(&house.app).await.unwrap());
    assert_eq!(walk.at(), "a-0599", "a name is done with when all of it is");
    house.crash_and_reopen().await;
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 1);
    assert_eq!(shown(&house, bucket), Vec::<String>::new());
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0, "the walk is over");
}

#[tokio::test]
async fn stopping_ends_a_walk_between_pages_and_rules_that_go_end_it_for_good() {
    let house = TestHouse::open_in_memory().await;
    let bucket = house.bucket("photos").await;
    set_rules(&house, bucket, vec![rule("", Some(1), None)]).await;
    house.upload(bucket, "a", b"").await;
    house.clock.advance(DAY_MS);
    assert_eq!(walk_due(&house.app, &|| false).await.unwrap(), 0);
    assert_eq!(shown(&house, bucket), ["a:upload"]);
    let mut walk = Walk::go_on_or_begin(&house.app, bucket).await.unwrap().unwrap();
    set_rules(&house, bucket, Vec::new()).await;
    assert!(!walk.step(&house.app).await.unwrap(), "there is nothing to go on with");
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0);
    assert!(Walk::begin(&house.app, bucket).await.unwrap().is_none());
    set_rules(&house, bucket, vec![rule("", Some(1), None)]).await;
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0, "a day from now");
    next_day(&house).await;
    assert_eq!(shown(&house, bucket), ["a:hide", "a:upload"]);
}

#[tokio::test]
async fn replication_110_a_rule_that_hides_the_source_leaves_the_replica() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    set_rules(&house, pair.source, vec![rule("", Some(1), Some(1))]).await;
    house.upload(pair.source, "a", b"x").await;
    house.drain().await;
    house.clock.advance(3 * DAY_MS);
    walk_due(&house.app, &|| true).await.unwrap();
    assert_eq!(shown(&house, pair.source), ["a:hide", "a:upload"]);
    house.drain().await;
    assert_eq!(shown(&house, pair.destination), ["a:upload"]);
    next_day(&house).await;
    house.drain().await;
    assert_eq!(shown(&house, pair.source), Vec::<String>::new());
    assert_eq!(shown(&house, pair.destination), ["a:upload"]);
}

#[tokio::test]
async fn replication_111_a_rule_at_the_destination_counts_from_the_time_of_the_source() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    set_rules(&house, pair.destination, vec![rule("", Some(5), None)]).await;
    house.upload(pair.source, "a", b"x").await;
    house.clock.advance(5 * DAY_MS);
    house.drain().await;
    assert_eq!(shown(&house, pair.destination), ["a:upload"], "it has just arrived");
    walk_due(&house.app, &|| true).await.unwrap();
    assert_eq!(shown(&house, pair.destination), ["a:hide", "a:upload"]);
}

#[tokio::test]
async fn a_preview_says_what_a_run_then_does() {
    let house = TestHouse::open().await;
    let operator = Operator::of_data_folder();
    let bucket = house.bucket("photos").await;
    let looked = preview(&house.app, &operator, "photos", None).await.unwrap();
    assert!(!looked.has_rules);
    assert_eq!(run(&house.app, &operator, "photos").await.unwrap(), None);
    assert!(preview(&house.app, &operator, "absent", None).await.is_err());
    let all = LifecycleRule { cancel_after_days: Some(1), ..rule("", Some(1), Some(1)) };
    set_rules(&house, bucket, vec![all]).await;
    house.upload(bucket, "a", b"12345").await;
    house.upload(bucket, "a", b"123").await;
    start(&house, bucket, "b").await;
    let looked = preview(&house.app, &operator, "photos", None).await.unwrap();
    assert_eq!((looked.has_rules, looked.counts), (true, Counts::default()));
    house.clock.advance(NEXT_DAY_MS);
    let expected = Counts { hidden: 1, deleted: 1, canceled: 1 };
    for limit in [Some(0), Some(2), None] {
        let looked = preview(&house.app, &operator, "photos", limit).await.unwrap();
        assert_eq!((looked.counts, looked.bytes), (expected, 5));
        assert_eq!(looked.acts.len(), limit.unwrap_or(3));
    }
    let looked = preview(&house.app, &operator, "photos", None).await.unwrap();
    let acts: Vec<_> = looked.acts.iter().map(|due| (due.name.as_str(), due.act)).collect();
    assert_eq!(acts, [("a", Act::Hide), ("a", Act::Delete), ("b", Act::Cancel)]);
    assert_eq!(house.versions(bucket).len(), 3, "a preview changes nothing");
    assert_eq!(run(&house.app, &operator, "photos").await.unwrap(), Some(expected));
    assert_eq!(run(&house.app, &operator, "photos").await.unwrap(), Some(Counts::default()));
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 0, "that was the walk of the day");
}

/// What the rules ask of whole names, by the rule and not by the walk: what is left afterwards.
fn expected(versions: &[FileVersion], rules: &[LifecycleRule], now: Millis) -> Vec<String> {
    let mut names: BTreeMap<&str, Vec<&FileVersion>> = BTreeMap::new();
    for version in versions {
        names.entry(version.name.as_str()).or_default().push(version);
    }
    let mut left = Vec::new();
    for (name, versions) in names {
        let mut acts: BTreeMap<FileNumber, Act> = BTreeMap::new();
        if let Some(rule) = rules.iter().find(|rule| rule.applies_to(name)) {
            let mut look = NameLook::new(rule, now);
            for version in &versions {
                let facts = Facts {
                    action: version.action,
                    upload_at: version.upload_at,
                    is_locked: !version.lock.may_delete(now, false),
                };
                acts.extend(look.look(version.number, facts));
            }
            acts.extend(look.end());
        }
        if acts.values().any(|act| *act == Act::Hide) {
            left.push(format!("{name}:hide"));
        }
        let kept = versions
            .iter()
            .filter(|version| matches!(acts.get(&version.number), None | Some(Act::Hide)));
        left.extend(kept.map(|version| format!("{name}:{}", version.action.as_str())));
    }
    left
}

/// One act of somebody on one of few names.
async fn act_at_random(house: &TestHouse, bucket: BucketId, random: &SeededEntropy) {
    let draw = |below: u64| random.next_u64() % below;
    let span = |below: i64| i64::try_from(draw(below.unsigned_abs())).unwrap();
    let stems = ["a", "b", "c", "c/", "c/d", "d", "e"];
    let name = format!("{}{}", stems[usize::try_from(draw(7)).unwrap()], draw(2));
    house.clock.advance(span(DAY_MS / 6));
    let (app, caller) = (&house.app, &house.caller);
    match draw(10) {
        0..=4 => {
            let made = house.upload(bucket, &name, name.as_bytes()).await;
            if draw(5) == 0 {
                let until = house.clock.now().plus(span(4 * DAY_MS));
                lock(house, made.number, retained(until)).await;
            }
        }
        // Refused where there is nothing to hide.
        5 | 6 => drop(hide_file(app, caller, &bucket.to_string(), &name).await),
        7 => drop(start(house, bucket, &name).await),
        _ => {
            let all = house.versions(bucket);
            let Some(version) = all.get(usize::try_from(draw(20)).unwrap()) else { return };
            let (name, id) = (version.name.as_str(), version.id().to_string());
            // Refused where a lock says so.
            drop(delete_version(app, caller, name, &id, false).await);
        }
    }
}

/// The names that show a file, as listings of names see it.
fn heads(house: &TestHouse, bucket: BucketId) -> Vec<String> {
    let place = (house.bucket_now(bucket).unwrap().number, bucket);
    let mut names = Vec::new();
    let walked = house.app.catalog.read(|tx| {
        files::walk_heads(tx, place, "", &mut |version| {
            names.push(version.name.as_str().to_owned());
            true
        })?;
        Ok(())
    });
    walked.unwrap();
    names
}

#[tokio::test]
async fn native_359_to_362_walks_over_random_histories_do_what_the_rules_say() {
    for seed in 0..30_u64 {
        let house = TestHouse::open_in_memory().await;
        let bucket = house.bucket("photos").await;
        let random = SeededEntropy::new(seed);
        let days = |one_in: u64| {
            let unset = random.next_u64().is_multiple_of(one_in);
            (!unset).then(|| i64::try_from(1 + random.next_u64() % 3).unwrap())
        };
        let mut rules: Vec<LifecycleRule> = ["a", "c/", "d"]
            .into_iter()
            .map(|prefix| LifecycleRule {
                cancel_after_days: days(3),
                ..rule(prefix, days(2), days(4))
            })
            .collect();
        rules.retain(|rule| {
            rule.delete_after_days.or(rule.cancel_after_days).or(rule.hide_after_days).is_some()
        });
        set_rules(&house, bucket, rules.clone()).await;
        for _ in 0..10 {
            for _ in 0..random.next_u64() % 12 {
                act_at_random(&house, bucket, &random).await;
            }
            house.clock.advance(DAY_MS);
            let wanted = expected(&house.versions(bucket), &rules, house.clock.now());
            walk_due(&house.app, &|| true).await.unwrap();
            assert_eq!(shown(&house, bucket), wanted, "seed {seed}");
            let mut newest: BTreeMap<String, Action> = BTreeMap::new();
            for version in house.versions(bucket) {
                if version.action != Action::Start {
                    newest.entry(version.name.as_str().to_owned()).or_insert(version.action);
                }
            }
            newest.retain(|_, action| *action == Action::Upload);
            assert_eq!(heads(&house, bucket), newest.into_keys().collect::<Vec<_>>());
        }
    }
}
