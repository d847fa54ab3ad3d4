//! Acts on remotes and streams (replication.md B1, B3, B7, B10; statements E11, E12 and E15).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::auth::caller::Caller;
use crate::catalog::remotes as remote_rows;
use crate::catalog::streams as rows;
use crate::clock::Clock;
use crate::domain::encryption::{AskedEncryption, CustomerKey};
use crate::domain::ids::BucketId;
use crate::domain::lock::BucketLockChange;
use crate::domain::refusal::{Code, Refusal};
use crate::domain::remote::{Checked, Remote, RemoteId, RemoteOptions, StreamId};
use crate::domain::remote_answer::AnswerClass;
use crate::domain::replication::JobState;
use crate::domain::stream::{
    MAX_AGE_S_DEFAULT, OnQueueFull, QUEUE_BYTES_DEFAULT, QUEUE_BYTES_MIN, QueueSums, StreamOptions,
};
use crate::domain::stream_diff::Finding;
use crate::operations::App;
use crate::operations::authorize::caller_with_key;
use crate::operations::buckets::{NewBucket, create_bucket, delete_bucket};
use crate::operations::error::Error;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::remotes::{self, NewRemote, RemoteChange, RemoteFilter};
use crate::operations::stream_figures::BreakerState;
use crate::operations::streams::{
    self, FilesQuery, NewStream, Resync, RetryWhat, ShownStream, StreamChange, StreamFilter,
};
use crate::replication::destination::fake::{Verb, fault};
use crate::replication::inquiry::Inquiry;
use crate::replication::tests::streams::upload_large;
use crate::testing::{SOURCE_RIGHTS, TestHouse, rule, rules};

const SECRET: &str = "s3cret-of-the-remote";

fn new_remote(caller: &Caller, name: &str) -> NewRemote {
    NewRemote {
        org_id: format!("0000{}", caller.account()),
        name: name.to_owned(),
        description: None,
        url: "peer+https://remote.example".to_owned(),
        token: format!("key-id:{SECRET}"),
        remote_org_id: None,
        allow_insecure_tls: false,
        options: RemoteOptions::default(),
    }
}

fn new_stream(caller: &Caller, remote: RemoteId, bucket: BucketId) -> NewStream {
    NewStream {
        org_id: caller.account().to_string(),
        name: "to-remote".to_owned(),
        description: Some("words".to_owned()),
        remote,
        local_bucket: bucket.to_string(),
        remote_bucket_id: None,
        remote_bucket_name: Some("remote-files".to_owned()),
        max_queue_bytes: None,
        max_age_s: None,
        drop_non_retryable: false,
        options: StreamOptions::default(),
        is_paused: false,
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Refusal {
    match outcome {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

/// A refusal as its code, its status and its text.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> (&'static str, u16, String) {
    let Refusal { code, message, .. } = refusal(outcome);
    (code.as_str(), code.status(), message.into_owned())
}

fn fields(json: &Value) -> Map<String, Value> {
    json.as_object().unwrap().clone()
}

impl TestHouse {
    async fn remote_named(&self, name: &str) -> Remote {
        let made = remotes::create(&self.app, &self.caller, new_remote(&self.caller, name)).await;
        made.unwrap().remote
    }

    async fn make_stream(
        &self,
        bucket: BucketId,
        change: impl FnOnce(&mut NewStream),
    ) -> ShownStream {
        let remote = self.remote_named("made-for-it").await;
        let mut wanted = new_stream(&self.caller, remote.id, bucket);
        change(&mut wanted);
        streams::create(&self.app, &self.caller, wanted).await.unwrap()
    }

    async fn patch(&self, id: StreamId, change: StreamChange) -> Result<ShownStream, Error> {
        streams::update(&self.app, &self.caller, id, change).await
    }

    fn inquiry(&self) -> Inquiry {
        Inquiry(Arc::new(self.remote.clone()))
    }

    fn orphans(&self) -> i64 {
        self.app.catalog.read(|tx| Ok(remote_rows::count_orphans(tx)?)).unwrap()
    }

    fn running_scans(&self) -> usize {
        self.app.catalog.read(|tx| Ok(rows::list_running_scans(tx, None)?)).unwrap().len()
    }

    async fn caller_of(&self, capabilities: &[&str], bucket: BucketId, prefix: &str) -> Caller {
        let key = self
            .key_of(&self.caller.clone(), capabilities, Some(&[bucket]), Some(prefix), None)
            .await;
        caller_with_key(&self.app, &key.id).unwrap()
    }

    async fn locked_bucket(&self, name: &str) -> BucketId {
        let file_lock = BucketLockChange { enable: Some(true), ..BucketLockChange::default() };
        let wanted = NewBucket {
            name: name.to_owned(),
            kind: "allPrivate".to_owned(),
            file_lock,
            ..NewBucket::default()
        };
        create_bucket(&self.app, &self.caller, wanted).await.unwrap().id
    }
}

async fn begin() -> (TestHouse, BucketId) {
    let house = TestHouse::open().await;
    let bucket = house.bucket("local-files").await;
    (house, bucket)
}

#[tokio::test]
async fn replication_149_the_token_of_a_remote_is_kept_sealed_and_is_part_of_no_answer() {
    let (house, _) = begin().await;
    let made =
        remotes::create(&house.app, &house.caller, new_remote(&house.caller, "offsite")).await;
    let made = made.unwrap();
    assert!(!format!("{made:?}").contains(SECRET));
    assert_eq!(made.state, BreakerState::Closed);
    let stored = house.app.catalog.read(|tx| Ok(remote_rows::find_remote(tx, made.remote.id)?));
    let stored = stored.unwrap().unwrap();
    assert!(!stored.sealed_token.windows(6).any(|bytes| bytes == &SECRET.as_bytes()[..6]));
    let wrong = NewRemote { token: SECRET.to_owned(), ..new_remote(&house.caller, "another") };
    let refused = refused(remotes::create(&house.app, &house.caller, wrong).await);
    assert_eq!((refused.0, refused.1), ("bad_request", 400));
    assert!(!refused.2.contains(SECRET), "{}", refused.2);
}

#[tokio::test]
async fn replication_150_151_remotes_are_listed_for_an_organization() {
    let (house, _) = begin().await;
    let list = |filter: &RemoteFilter| remotes::list(&house.app, &house.caller, filter);
    let org = |org: &str| RemoteFilter { org_id: Some(org.to_owned()), ..RemoteFilter::default() };
    let own = house.caller.account().to_string();
    let invalid = ("bad_request", 400, "invalid or missing org ID".to_owned());
    assert_eq!(refused(list(&RemoteFilter::default())), invalid);
    assert_eq!(refused(list(&org("nonsense"))), invalid);
    assert_eq!(list(&org(&own)).unwrap(), []);
    let (one, two) = (house.remote_named("one").await, house.remote_named("two").await);
    assert_eq!(one.org_id, format!("0000{own}"), "as it was sent");
    let names = |filter: &RemoteFilter| {
        let listed = list(filter).unwrap();
        listed.into_iter().map(|shown| shown.remote.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&org(&own)), ["one", "two"]);
    assert_eq!(names(&org(&format!("0000{own}"))), ["one", "two"]);
    assert_eq!(names(&RemoteFilter { name: Some("two".to_owned()), ..org(&own) }), ["two"]);
    assert_eq!(names(&RemoteFilter { url: Some("https://x".to_owned()), ..org(&own) }), [""; 0]);
    assert!(one.id != two.id);
    let other = house.another_account().await;
    assert_eq!(remotes::list(&house.app, &other, &org(&own)).unwrap(), [], "of others");
    let theirs = refused(remotes::get(&house.app, &other, one.id));
    assert_eq!(theirs, ("not_found", 404, "remote connection not found".to_owned()));
    let foreign = NewRemote { org_id: own, ..new_remote(&house.caller, "theirs") };
    let foreign = refused(remotes::create(&house.app, &other, foreign).await);
    assert_eq!((foreign.0, foreign.1), ("unauthorized", 401));
}

#[tokio::test]
async fn replication_152_a_name_is_taken_once_in_an_organization() {
    let (house, _) = begin().await;
    let one = house.remote_named("offsite").await;
    let two = house.remote_named("other").await;
    let again = new_remote(&house.caller, "offsite");
    let again = refused(remotes::create(&house.app, &house.caller, again).await);
    assert_eq!((again.0, again.1), ("conflict", 422));
    let change = RemoteChange { name: Some("offsite".to_owned()), ..RemoteChange::default() };
    let renamed = refused(remotes::update(&house.app, &house.caller, two.id, change).await);
    assert_eq!((renamed.0, renamed.1), ("conflict", 422));
    let other = house.another_account().await;
    let theirs =
        NewRemote { org_id: other.account().to_string(), ..new_remote(&house.caller, "offsite") };
    let theirs = remotes::create(&house.app, &other, theirs).await.unwrap();
    assert_eq!(theirs.remote.name, one.name, "another organization has names of its own");
}

#[tokio::test]
async fn replication_153_ids_that_are_malformed_or_name_nothing_are_told_apart() {
    let (house, _) = begin().await;
    let (app, caller) = (&house.app, &house.caller);
    let malformed = refused::<()>(remotes::parse_id("xyz").map(|_| ()).map_err(Error::from));
    assert_eq!(malformed, ("bad_request", 400, "remote-connection ID is invalid".to_owned()));
    let malformed = refused::<()>(streams::parse_id("0").map(|_| ()).map_err(Error::from));
    assert_eq!(malformed, ("bad_request", 400, "replication ID is invalid".to_owned()));
    let no_remote = ("not_found", 404, "remote connection not found".to_owned());
    let id = remotes::parse_id("0b00000000000009").unwrap();
    assert_eq!(refused(remotes::get(app, caller, id)), no_remote);
    assert_eq!(refused(remotes::update(app, caller, id, RemoteChange::default()).await), no_remote);
    assert_eq!(refused(remotes::delete(app, caller, id).await), no_remote);
    let no_stream = ("not_found", 404, "replication not found".to_owned());
    let id = streams::parse_id("0c00000000000009").unwrap();
    assert_eq!(refused(streams::get(app, caller, id)), no_stream);
    assert_eq!(refused(house.patch(id, StreamChange::default()).await), no_stream);
    assert_eq!(refused(streams::delete(app, caller, id).await), no_stream);
    assert_eq!(refused(streams::purge(app, caller, id).await), no_stream);
    assert_eq!(refused(streams::files(app, caller, id, &FilesQuery::default())), no_stream);
    let inquiry = house.inquiry();
    assert_eq!(refused(streams::validate(app, &inquiry, caller, id).await), no_stream);
    assert_eq!(refused(streams::diff(app, &inquiry, caller, id, None).await), no_stream);
}

#[tokio::test]
async fn replication_154_a_remote_in_use_stays() {
    let (house, bucket) = begin().await;
    let stream = house.make_stream(bucket, |_| {}).await.stream;
    let (app, caller, remote) = (&house.app, &house.caller, stream.remote);
    let in_use = refused(remotes::delete(app, caller, remote).await);
    let text = "remote-connection cannot be deleted as a replication references it";
    assert_eq!(in_use, ("conflict", 422, text.to_owned()));
    assert_eq!(streams::get(app, caller, stream.id).unwrap().stream, stream);
    streams::delete(app, caller, stream.id).await.unwrap();
    let theirs = "4a48fe8875c6214145260818";
    remotes::name_bucket(app, caller, remote, theirs).await.unwrap();
    assert_eq!(refused(remotes::delete(app, caller, remote).await).1, 422, "rules may use it");
    let own = refused(remotes::name_bucket(app, caller, remote, &bucket.to_string()).await);
    assert_eq!(own.1, 400, "a bucket of this server is not elsewhere");
    let named = remotes::named_buckets(app, caller, remote).unwrap();
    assert_eq!(named.iter().map(BucketId::to_string).collect::<Vec<_>>(), [theirs]);
    remotes::forget_bucket(app, caller, remote, theirs).await.unwrap();
    remotes::delete(app, caller, remote).await.unwrap();
    assert_eq!(count(app), (0, 0));
}

#[tokio::test]
async fn replication_155_a_new_token_is_used_by_the_very_next_attempt_which_comes_at_once() {
    let (house, bucket) = begin().await;
    let stream = house.make_stream(bucket, |_| {}).await.stream;
    house.upload(bucket, "a", b"a").await;
    house.remote.plan(Verb::Put, 5, fault(AnswerClass::Unauthorized));
    for _ in 0..5 {
        house.settle().await;
        house.clock.advance(900_000);
    }
    house.remote.mend();
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Unauthorized));
    house.settle().await;
    let shown = remotes::get(&house.app, &house.caller, stream.remote).unwrap();
    assert_eq!(shown.state, BreakerState::Open, "it has failed often enough");
    assert_eq!(house.settle().await, 0);
    let change = RemoteChange { token: Some("id:another".to_owned()), ..RemoteChange::default() };
    let shown = remotes::update(&house.app, &house.caller, stream.remote, change).await.unwrap();
    assert_eq!(shown.state, BreakerState::Closed);
    assert_eq!(house.settle().await, 1, "no wait is left over");
    assert_eq!(house.remote.tokens().last().map(String::as_str), Some("another"));
    assert_eq!(house.stream_jobs(stream.id)[0].state, JobState::Done);
}

#[tokio::test]
async fn a_remote_changes_field_by_field_or_not_at_all() {
    let (house, _) = begin().await;
    let made = house.remote_named("offsite").await;
    let change = |change: RemoteChange| remotes::update(&house.app, &house.caller, made.id, change);
    let options = fields(&json!({"maxConcurrency": 7, "bandwidthBytesPerSecond": 1_000_000}));
    let wanted = RemoteChange {
        description: Some("words".to_owned()),
        remote_org_id: Some("theirs".to_owned()),
        allow_insecure_tls: Some(true),
        options,
        ..RemoteChange::default()
    };
    let changed = change(wanted).await.unwrap().remote;
    assert_eq!((changed.name.as_str(), changed.url), ("offsite", made.url.clone()));
    assert_eq!(changed.options.max_concurrency, 7);
    assert!(changed.allow_insecure_tls && changed.updated_at > made.updated_at);
    let wrong = RemoteChange {
        name: Some("renamed".to_owned()),
        url: Some("ftp://remote.example".to_owned()),
        ..RemoteChange::default()
    };
    assert_eq!(refused(change(wrong).await).1, 400);
    let unknown =
        RemoteChange { options: fields(&json!({"colour": 1})), ..RemoteChange::default() };
    assert_eq!(refused(change(unknown).await).1, 400);
    let back = RemoteChange {
        options: fields(&json!({"bandwidthBytesPerSecond": null})),
        ..RemoteChange::default()
    };
    let back = change(back).await.unwrap().remote;
    assert_eq!((back.name.as_str(), back.options.max_concurrency), ("offsite", 7));
    assert_eq!(back.options.bandwidth_bytes_per_second, None);
}

#[tokio::test]
async fn replication_156_157_158_159_165_a_stream_is_made_with_defaults_and_within_limits() {
    let (house, bucket) = begin().await;
    let remote = house.remote_named("offsite").await;
    let wanted = || new_stream(&house.caller, remote.id, bucket);
    let create = |wanted: NewStream| streams::create(&house.app, &house.caller, wanted);
    let made = create(wanted()).await.unwrap().stream;
    assert_eq!(made.max_queue_bytes, QUEUE_BYTES_DEFAULT);
    assert_eq!(made.max_age_s, MAX_AGE_S_DEFAULT);
    assert_eq!((made.sums, made.latest.clone()), (QueueSums::default(), None));
    assert_eq!(streams::get(&house.app, &house.caller, made.id).unwrap().stream, made);
    let named = |name: &str| NewStream { name: name.to_owned(), ..wanted() };

    let small = NewStream { max_queue_bytes: Some(QUEUE_BYTES_MIN - 1), ..named("small") };
    let text = "maxQueueSize too small, must be at least 33554430";
    assert_eq!(refused(create(small).await), ("bad_request", 400, text.to_owned()));
    let least = NewStream { max_queue_bytes: Some(QUEUE_BYTES_MIN), ..named("least") };
    create(least).await.unwrap();
    let for_ever = NewStream { max_age_s: Some(0), ..named("for ever") };
    assert_eq!(create(for_ever).await.unwrap().stream.max_age_s, 0);
    assert_eq!(refused(create(NewStream { max_age_s: Some(-1), ..named("x") }).await).1, 400);

    let neither = NewStream { remote_bucket_name: None, ..named("x") };
    let text = "one of remote_bucket_id, remote_bucket_name should be provided";
    assert_eq!(refused(create(neither).await), ("unprocessable_entity", 422, text.to_owned()));
    let both = NewStream { remote_bucket_id: Some("4a48".to_owned()), ..named("x") };
    assert_eq!(refused(create(both).await).1, 400, "one excludes the other");
    let by_id = NewStream {
        remote_bucket_id: Some("4a48".to_owned()),
        remote_bucket_name: None,
        ..named("by id")
    };
    let by_id = create(by_id).await.unwrap().stream;
    assert_eq!(by_id.remote_bucket_id.as_deref(), Some("4a48"));
    assert_eq!(by_id.remote_bucket_name, "");

    let text = |text: &str| ("bad_request", 400, text.to_owned());
    let id = "ffffffffffffffffffffffff";
    for wrong in [id, "nonsense"] {
        let no_bucket = NewStream { local_bucket: wrong.to_owned(), ..named("x") };
        let expected = text(&format!("local bucket \"{wrong}\" not found"));
        assert_eq!(refused(create(no_bucket).await), expected);
    }
    let no_remote = NewStream { remote: RemoteId(1), ..named("x") };
    let expected = text("remote \"0000000000000001\" not found");
    assert_eq!(refused(create(no_remote).await), expected);
    let other = house.another_account().await;
    let foreign = house.bucket_of(&other, "their-files").await.to_string();
    let foreign = NewStream { local_bucket: foreign.clone(), ..named("x") };
    assert_eq!(refused(create(foreign).await).1, 400, "buckets of others are not there");
    let taken = refused(create(wanted()).await);
    assert_eq!((taken.0, taken.1), ("conflict", 422));
    assert_eq!(count(&house.app), (1, 4), "nothing else was made");
}

#[tokio::test]
async fn replication_151_streams_are_listed_by_what_they_are_about() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let org = StreamFilter {
        org_id: Some(house.caller.account().to_string()),
        ..StreamFilter::default()
    };
    let list = |filter: StreamFilter| {
        let listed = streams::list(&house.app, &house.caller, &filter)?;
        Ok::<_, Error>(listed.into_iter().map(|shown| shown.stream.id).collect::<Vec<_>>())
    };
    assert_eq!(list(org.clone()).unwrap(), [made.id]);
    let text = |text: Option<&str>| text.map(str::to_owned);
    let by = |name: Option<&str>, remote: Option<&str>, bucket: Option<&str>| StreamFilter {
        name: text(name),
        remote: text(remote),
        local_bucket: text(bucket),
        ..org.clone()
    };
    let (remote, bucket) = (made.remote.to_string(), bucket.to_string());
    assert_eq!(list(by(Some("to-remote"), Some(&remote), Some(&bucket))).unwrap(), [made.id]);
    let none: [StreamId; 0] = [];
    assert_eq!(list(by(Some("other"), None, None)).unwrap(), none);
    assert_eq!(
        list(by(None, Some("0000000000000000"), None)).unwrap_err().to_string(),
        "bad_request: invalid remote ID"
    );
    assert_eq!(
        list(by(None, None, Some("x"))).unwrap_err().to_string(),
        "bad_request: invalid local bucket ID"
    );
    let missing = list(StreamFilter::default()).unwrap_err();
    assert_eq!(missing.to_string(), "bad_request: invalid or missing org ID");
}

#[tokio::test]
async fn replication_160_161_validation_asks_the_remote_and_leaves_nothing() {
    let (house, bucket) = begin().await;
    let (app, caller, inquiry) = (&house.app, &house.caller, house.inquiry());
    let remote = house.remote_named("offsite").await;
    let wanted = || new_stream(caller, remote.id, bucket);
    streams::validate_new(app, &inquiry, caller, wanted()).await.unwrap();
    assert_eq!(house.remote.called(Verb::Check), ["Name(\"remote-files\")"]);
    assert_eq!(count(app).1, 0, "no stream");
    house.remote.plan(Verb::Check, 1, fault(AnswerClass::Unauthorized));
    let failed = refused(streams::validate_new(app, &inquiry, caller, wanted()).await);
    let text = "replication parameters fail validation: the remote answered 401: Unauthorized";
    assert_eq!(failed, ("bad_request", 400, text.to_owned()));
    assert_eq!(count(app).1, 0);
    let wrong = NewStream { max_queue_bytes: Some(1), ..wanted() };
    let wrong = refused(streams::validate_new(app, &inquiry, caller, wrong).await);
    assert!(wrong.2.starts_with("maxQueueSize too small"), "{}", wrong.2);

    let made = streams::create(app, caller, wanted()).await.unwrap().stream;
    streams::validate(app, &inquiry, caller, made.id).await.unwrap();
    house.remote.plan(Verb::Open, 1, fault(AnswerClass::Unreachable));
    let failed = refused(streams::validate(app, &inquiry, caller, made.id).await);
    let text = "replication failed validation: no answer from the remote: Unreachable";
    assert_eq!(failed, ("bad_request", 400, text.to_owned()));
    let change = StreamChange {
        remote_bucket_name: Some("elsewhere".to_owned()),
        ..StreamChange::default()
    };
    let checked = streams::validate_change(app, &inquiry, caller, made.id, change.clone()).await;
    checked.unwrap();
    assert_eq!(house.remote.called(Verb::Check).last().unwrap(), "Name(\"elsewhere\")");
    house.remote.plan(Verb::Check, 1, fault(AnswerClass::BucketMissing));
    let failed = streams::validate_change(app, &inquiry, caller, made.id, change).await;
    let failed = refused(failed);
    assert!(failed.2.starts_with("validation fails after applying update: "), "{}", failed.2);
    assert_eq!(streams::get(app, caller, made.id).unwrap().stream, made, "nothing was changed");
    for verb in [Verb::Put, Verb::Start, Verb::PutPart, Verb::Finish] {
        assert_eq!(house.remote.calls(verb), 0, "{verb:?}");
    }
}

#[tokio::test]
async fn replication_162_a_bucket_is_not_carried_to_itself_however_it_is_reached() {
    let (house, bucket) = begin().await;
    let (app, caller, inquiry) = (&house.app, &house.caller, house.inquiry());
    let remote = house.remote_named("offsite").await;
    let named = |name: &str| NewStream {
        remote_bucket_name: Some(name.to_owned()),
        ..new_stream(caller, remote.id, bucket)
    };
    let here = Checked { instance: Some(app.instance.to_string()), ..Checked::default() };
    let checked = |id: Option<&str>| Checked { bucket_id: id.map(str::to_owned), ..here.clone() };
    let validate = |name: &'static str| {
        let (wanted, inquiry) = (named(name), &inquiry);
        async move { streams::validate_new(app, inquiry, caller, wanted).await }
    };
    house.remote.answer_checks(checked(None));
    let same = refused(validate("Local-Files").await);
    let text = "replication parameters fail validation: the remote bucket is the local bucket";
    assert_eq!(same, ("bad_request", 400, text.to_owned()));
    validate("other-files").await.unwrap();
    house.remote.answer_checks(checked(Some(&bucket.to_string())));
    assert_eq!(refused(validate("any-name").await).2, text, "the id counts");
    let elsewhere =
        Checked { instance: Some("another".to_owned()), ..checked(Some(&bucket.to_string())) };
    house.remote.answer_checks(elsewhere);
    validate("local-files").await.unwrap();
}

#[tokio::test]
async fn validation_wants_a_lock_where_the_local_bucket_has_one() {
    let (house, _) = begin().await;
    let (app, caller, inquiry) = (&house.app, &house.caller, house.inquiry());
    let locked = house.locked_bucket("locked-files").await;
    let remote = house.remote_named("offsite").await;
    let wanted = || new_stream(caller, remote.id, locked);
    let with = |has: Option<bool>| Checked { has_file_lock: has, ..Checked::default() };
    house.remote.answer_checks(with(Some(false)));
    let refused = refused(streams::validate_new(app, &inquiry, caller, wanted()).await);
    assert!(refused.2.ends_with("has file lock, the remote bucket does not"), "{}", refused.2);
    for fits in [Some(true), None] {
        house.remote.answer_checks(with(fits));
        streams::validate_new(app, &inquiry, caller, wanted()).await.unwrap();
    }
}

#[tokio::test]
async fn replication_163_a_change_keeps_what_it_does_not_name() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let change = StreamChange {
        name: Some("renamed".to_owned()),
        remote_bucket_id: Some("4a48".to_owned()),
        max_age_s: Some(60),
        drop_non_retryable: Some(true),
        options: fields(&json!({"excludePrefixes": ["tmp/"], "onQueueFull": "drop"})),
        ..StreamChange::default()
    };
    let changed = house.patch(made.id, change).await.unwrap().stream;
    assert_eq!((changed.local_bucket, &changed.org_id), (made.local_bucket, &made.org_id));
    assert_eq!((changed.remote, changed.max_queue_bytes), (made.remote, made.max_queue_bytes));
    assert_eq!((changed.name.as_str(), changed.max_age_s), ("renamed", 60));
    assert_eq!(changed.remote_bucket_id.as_deref(), Some("4a48"));
    assert_eq!((changed.remote_bucket_name.as_str(), changed.drop_non_retryable), ("", true));
    assert_eq!(changed.options.on_queue_full, OnQueueFull::Drop);
    assert!(changed.options.takes_name("a") && !changed.options.takes_name("tmp/a"));
    assert!(changed.updated_at > made.updated_at);
    let wrong = [
        StreamChange { remote: Some(RemoteId(1)), ..StreamChange::default() },
        StreamChange { max_queue_bytes: Some(1), ..StreamChange::default() },
        StreamChange {
            remote_bucket_id: Some("a".to_owned()),
            remote_bucket_name: Some("b".to_owned()),
            ..StreamChange::default()
        },
        StreamChange { options: fields(&json!({"onQueueFull": "wait"})), ..Default::default() },
    ];
    for wrong in wrong {
        assert_eq!(refused(house.patch(made.id, wrong).await).1, 400);
    }
    assert_eq!(streams::get(&house.app, &house.caller, made.id).unwrap().stream, changed);
}

#[tokio::test]
async fn replication_167_deleting_a_stream_deletes_its_queue_and_cancels_what_it_began() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    upload_large(&house, bucket, "large").await;
    house.upload(bucket, "small", b"small").await;
    house.remote.plan(Verb::PutPart, 1, fault(AnswerClass::Busy));
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Busy));
    house.settle().await;
    assert_eq!(house.remote.open_sessions(), 1);
    streams::delete(&house.app, &house.caller, made.id).await.unwrap();
    assert_eq!(refusal(streams::get(&house.app, &house.caller, made.id)).code, Code::NotFound);
    assert!(house.stream_jobs(made.id).is_empty());
    assert_eq!(house.orphans(), 1);
    house.remote.plan(Verb::Cancel, 1, fault(AnswerClass::Unreachable));
    house.engine_upkeep().await;
    assert_eq!((house.remote.open_sessions(), house.orphans()), (1, 1), "tried again later");
    house.clock.advance(10_000);
    house.engine_upkeep().await;
    assert_eq!((house.remote.open_sessions(), house.orphans()), (0, 0));
    assert!(house.remote.held().is_empty());
}

#[tokio::test]
async fn replication_168_deleting_the_local_bucket_deletes_its_streams() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let version = upload_large(&house, bucket, "large").await;
    house.remote.plan(Verb::PutPart, 1, fault(AnswerClass::Busy));
    house.settle().await;
    let id = version.id().to_string();
    delete_version(&house.app, &house.caller, "large", &id, false).await.unwrap();
    delete_bucket(&house.app, &house.caller, &bucket.to_string()).await.unwrap();
    assert_eq!(refusal(streams::get(&house.app, &house.caller, made.id)).code, Code::NotFound);
    assert!(house.stream_jobs(made.id).is_empty());
    house.engine_upkeep().await;
    assert_eq!(house.remote.open_sessions(), 0);
    remotes::delete(&house.app, &house.caller, made.remote).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_deleted_stream_goes_with_the_upkeep() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    house.upload(bucket, "a", b"a").await;
    let gone = made.id;
    house
        .app
        .catalog
        .write("delete_only", move |tx| Ok(rows::delete_stream(tx, gone)?))
        .await
        .unwrap();
    assert_eq!(house.stream_jobs(made.id).len(), 1);
    house.settle().await;
    assert!(house.remote.held().is_empty(), "it does nothing any more");
    house.upkeep().await;
    assert!(house.stream_jobs(made.id).is_empty());
}

#[tokio::test]
async fn a_stream_that_leads_elsewhere_begins_anew_there() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    upload_large(&house, bucket, "large").await;
    house.remote.plan(Verb::Finish, 1, fault(AnswerClass::Busy));
    house.settle().await;
    let before = house.stream_jobs(made.id).remove(0);
    assert!(before.confirmed > 0 && before.session.is_some());
    let other = house.remote_named("other").await;
    let change = StreamChange {
        remote: Some(other.id),
        options: fields(&json!({"destinationPrefix": "copy/"})),
        ..StreamChange::default()
    };
    house.patch(made.id, change).await.unwrap();
    let after = house.stream_jobs(made.id).remove(0);
    assert_eq!((after.confirmed, after.session.clone()), (0, None));
    assert_eq!(after.target, format!("remote:{}", other.id));
    assert!(after.lane.starts_with(&after.target));
    assert_eq!(house.sums(made.id).remaining_bytes, 50_256, "what was confirmed is elsewhere");
    assert_eq!(house.orphans(), 1);
    house.settle().await;
    assert_eq!(house.remote.held()[0].file.name, "copy/large");
    house.engine_upkeep().await;
    assert_eq!((house.remote.open_sessions(), house.orphans()), (0, 0));
}

#[tokio::test]
async fn replication_187_a_paused_stream_takes_jobs_and_starts_none_until_it_is_resumed() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let paused = streams::set_paused(&house.app, &house.caller, made.id, true).await.unwrap();
    assert!(paused.stream.is_paused);
    house.upload(bucket, "a", b"abc").await;
    assert_eq!(house.settle().await, 0);
    assert_eq!(house.sums(made.id).current_bytes, 259);
    streams::set_paused(&house.app, &house.caller, made.id, false).await.unwrap();
    assert_eq!(house.settle().await, 1);
    assert_eq!(house.remote.held().len(), 1);
}

#[tokio::test]
async fn replication_181_a_higher_limit_lets_in_what_waits_outside() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |wanted| wanted.is_paused = true).await.stream;
    for name in ["a", "b", "c"] {
        house.upload(bucket, name, &[1; 1000]).await;
    }
    // A limit below the least that callers may set, so that a test needs few bytes.
    let id = made.id;
    house.limit_queue(id, 3000, OnQueueFull::Spill).await;
    house.upload(bucket, "d", &[1; 1000]).await;
    let shown = streams::get(&house.app, &house.caller, id).unwrap();
    let outside = house.stream_jobs(id).pop().unwrap();
    assert_eq!((shown.stream.sums.entries, shown.stream.sums.spilled), (3, 1));
    assert_eq!(shown.spill_from, Some(outside.id));
    let change = StreamChange { max_queue_bytes: Some(QUEUE_BYTES_MIN), ..StreamChange::default() };
    let shown = house.patch(id, change).await.unwrap();
    assert_eq!((shown.stream.sums.entries, shown.spill_from), (4, None));
    assert_eq!(house.sums(id).spilled, 0);
}

#[tokio::test]
async fn existing_files_are_carried_when_a_stream_asks_for_them() {
    let (house, bucket) = begin().await;
    for (name, body) in [("in/a", "1"), ("in/b", "22"), ("in/no/c", "333"), ("out", "4444")] {
        house.upload(bucket, name, body.as_bytes()).await;
    }
    house.upload(bucket, "in/a", b"newer").await;
    hide_file(&house.app, &house.caller, &bucket.to_string(), "in/b").await.unwrap();
    let made = house
        .make_stream(bucket, |wanted| {
            wanted.options = StreamOptions {
                file_name_prefix: "in/".to_owned(),
                exclude_prefixes: vec!["in/no/".to_owned()],
                include_existing_files: true,
                ..StreamOptions::default()
            };
        })
        .await
        .stream;
    assert_eq!(house.running_scans(), 1);
    house.settle().await;
    assert_eq!(house.running_scans(), 0);
    let mut names: Vec<String> =
        house.remote.held().iter().map(|held| held.file.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["in/a", "in/a", "in/b"]);
    assert_eq!(house.sums(made.id), QueueSums::default());
    let wider =
        StreamChange { options: fields(&json!({"fileNamePrefix": ""})), ..StreamChange::default() };
    house.patch(made.id, wider).await.unwrap();
    house.settle().await;
    assert_eq!(house.remote.held().len(), 4, "with the prefix more of them");
    let off = fields(&json!({"includeExistingFiles": false}));
    house.patch(made.id, StreamChange { options: off, ..StreamChange::default() }).await.unwrap();
    assert_eq!(house.running_scans(), 0);
}

#[tokio::test]
async fn a_walk_over_existing_files_never_overfills_a_queue() {
    let (house, bucket) = begin().await;
    for number in 0..20 {
        house.upload(bucket, &format!("file{number:02}"), &[1; 1000]).await;
    }
    let id = house
        .stream(bucket, |stream| {
            stream.max_queue_bytes = 5 * 1256;
            stream.options.on_queue_full = OnQueueFull::Drop;
        })
        .await;
    let started = house.app.catalog.write("start", move |tx| {
        Ok(rows::start_scan(tx, id, "", None, false, crate::domain::time::Millis(1))?)
    });
    started.await.unwrap();
    house.engine.step_once().await.unwrap();
    let sums = house.sums(id);
    assert!(sums.entries <= 5 && sums.spilled == 0, "{sums:?}");
    assert_eq!(house.running_scans(), 1);
    house.settle().await;
    assert_eq!(house.remote.held().len(), 20, "room is used as it comes");
    assert_eq!(house.running_scans(), 0);
    assert_eq!(house.app.metrics.stream(id).files_failed_to_queue.value(), 0);
}

#[tokio::test]
async fn replication_224_225_what_was_removed_at_the_remote_is_found_and_carried_again() {
    let (house, bucket) = begin().await;
    let (app, caller, inquiry) = (&house.app, &house.caller, house.inquiry());
    let made = house
        .make_stream(bucket, |wanted| wanted.options.destination_prefix = "copy/".to_owned())
        .await
        .stream;
    for name in ["a", "b", "c", "d"] {
        house.upload(bucket, name, name.as_bytes()).await;
    }
    house.settle().await;
    let diff = || streams::diff(app, &inquiry, caller, made.id, None);
    let page = diff().await.unwrap();
    assert_eq!((page.items.len(), page.compared, page.next), (0, 4, None));
    house.remote.remove("copy/b");
    house.upload(bucket, "e", b"e").await;
    let page = diff().await.unwrap();
    let found: Vec<_> = page
        .items
        .iter()
        .map(|item| (item.file_name.as_str(), item.remote_name.as_str(), item.finding, item.state))
        .collect();
    let missing = Finding::Missing;
    let expected = [
        ("b", "copy/b", missing, Some(JobState::Done)),
        ("e", "copy/e", missing, Some(JobState::Ready)),
    ];
    assert_eq!(found, expected);

    let dry = Resync { is_dry_run: true, ..Resync::default() };
    let counts = streams::resync(app, caller, made.id, dry.clone()).await.unwrap();
    assert_eq!((counts.scan_id, counts.files, counts.bytes), (None, 0, 0));
    assert_eq!((counts.arrived_files, counts.arrived_bytes, counts.waiting_files), (4, 4, 1));
    let narrow = Resync { prefix: "b".to_owned(), ..dry };
    assert_eq!(streams::resync(app, caller, made.id, narrow).await.unwrap().arrived_files, 1);
    assert_eq!(house.running_scans(), 0, "nothing was begun");

    let puts = house.remote.calls(Verb::Put);
    let counts = streams::resync(app, caller, made.id, Resync::default()).await.unwrap();
    assert!(counts.scan_id.is_some());
    house.settle().await;
    assert_eq!(house.remote.calls(Verb::Put) - puts, 2, "only what is not there is sent");
    assert_eq!(house.remote.held().len(), 5);
    assert_eq!(diff().await.unwrap().items, []);
    assert_eq!(house.sums(made.id), QueueSums::default());
    assert_eq!(drift_bytes(app), 0);
}

#[tokio::test]
async fn a_resync_may_be_for_older_versions_only() {
    let (house, bucket) = begin().await;
    house.upload(bucket, "old", b"old").await;
    house.clock.advance(10_000);
    let older_than = Some(house.clock.now());
    house.upload(bucket, "new", b"new").await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let what = Resync { older_than, ..Resync::default() };
    let dry = Resync { is_dry_run: true, ..what.clone() };
    let counts = streams::resync(&house.app, &house.caller, made.id, dry).await.unwrap();
    assert_eq!((counts.files, counts.bytes), (1, 3));
    streams::resync(&house.app, &house.caller, made.id, what).await.unwrap();
    house.settle().await;
    let held = house.remote.held();
    assert_eq!(held.iter().map(|held| held.file.name.as_str()).collect::<Vec<_>>(), ["old"]);
}

#[tokio::test]
async fn replication_224_pages_of_differences_joined_are_the_whole() {
    let (house, bucket) = begin().await;
    let (app, caller, inquiry) = (&house.app, &house.caller, house.inquiry());
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let name = |number: usize| format!("file{number:03}");
    for number in 0..60 {
        house.upload(bucket, &name(number), b"one").await;
        house.upload(bucket, &name(number), b"two").await;
    }
    house.settle().await;
    let gone: Vec<String> = (0..60).filter(|number| number % 7 == 0).map(name).collect();
    for name in &gone {
        house.remote.remove(name);
    }
    // Pages that end between the versions of a name, and within one.
    for by in [1, 3, 4] {
        house.remote.list_by(by);
        let (mut from, mut found, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = streams::diff(app, &inquiry, caller, made.id, from.as_deref()).await;
            let page = page.unwrap();
            found.extend(page.items.into_iter().map(|item| item.file_name));
            pages += 1;
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        assert!(pages > 1, "{by}");
        let expected: Vec<String> =
            gone.iter().flat_map(|name| [name.clone(), name.clone()]).collect();
        assert_eq!(found, expected, "by {by}");
    }
    let wrong = streams::diff(app, &inquiry, caller, made.id, Some("00")).await;
    assert_eq!(refused(wrong).1, 400);
    house.remote.plan(Verb::List, 1, fault(AnswerClass::Busy));
    let failed = refused(streams::diff(app, &inquiry, caller, made.id, None).await);
    assert_eq!(failed.2, "the remote cannot be listed: the remote answered 503: Busy");
}

#[tokio::test]
async fn where_a_remote_keeps_one_version_of_a_name_older_ones_are_not_missed() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    house.remote.forget_versions();
    for body in ["one", "two", "three"] {
        house.upload(bucket, "name", body.as_bytes()).await;
        house.settle().await;
    }
    let inquiry = house.inquiry();
    let diff = || streams::diff(&house.app, &inquiry, &house.caller, made.id, None);
    let page = diff().await.unwrap();
    assert_eq!((page.compared, page.items.len()), (3, 0));
    house.upload(bucket, "name", b"four").await;
    let items = diff().await.unwrap().items;
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].finding, Finding::Different, "what is there is older");
}

#[tokio::test]
async fn replication_175_226_a_purge_and_age_reach_what_waits_outside_of_a_queue() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |wanted| wanted.is_paused = true).await.stream;
    house.limit_queue(made.id, 3000, OnQueueFull::Spill).await;
    let fill = || async {
        for number in 0..6 {
            house.upload(bucket, &format!("file{number}"), &[1; 1000]).await;
        }
        let sums = house.sums(made.id);
        assert_eq!((sums.entries, sums.spilled), (2, 4));
    };
    fill().await;
    assert_eq!(streams::purge(&house.app, &house.caller, made.id).await.unwrap(), 6);
    assert_eq!(house.sums(made.id), QueueSums::default());
    fill().await;
    house.clock.advance((MAX_AGE_S_DEFAULT + 1) * 1000);
    house.engine_upkeep().await;
    assert_eq!(house.sums(made.id), QueueSums::default());
    let states = house.stream_jobs(made.id);
    assert_eq!(states.iter().filter(|job| job.state == JobState::Dropped).count(), 6);
}

#[tokio::test]
async fn replication_226_a_purge_empties_the_queue_and_leaves_the_files() {
    let (house, bucket) = begin().await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    upload_large(&house, bucket, "large").await;
    house.upload(bucket, "small", b"small").await;
    house.remote.plan(Verb::PutPart, 1, fault(AnswerClass::Busy));
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Busy));
    house.settle().await;
    let purged = streams::purge(&house.app, &house.caller, made.id).await.unwrap();
    assert_eq!(purged, 2);
    assert_eq!(house.sums(made.id), QueueSums::default());
    house.engine_upkeep().await;
    assert_eq!(house.remote.open_sessions(), 0);
    assert_eq!(house.versions(bucket).len(), 2);
    house.clock.advance(1_000_000);
    assert_eq!(house.settle().await, 0);
    let what = RetryWhat { state: Some("cancelled".to_owned()), ..RetryWhat::default() };
    assert_eq!(streams::retry(&house.app, &house.caller, made.id, what).await.unwrap(), 2);
    house.settle().await;
    assert_eq!(house.remote.held().len(), 2, "it can be had back");
}

#[tokio::test]
async fn files_show_what_becomes_of_them_and_can_be_retried() {
    let (house, bucket) = begin().await;
    let (app, caller) = (&house.app, &house.caller);
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let done = house.upload(bucket, "done", b"done").await;
    house.settle().await;
    let blocked = house.upload(bucket, "blocked", b"blocked").await;
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Rejected));
    house.settle().await;
    upload_large(&house, bucket, "large").await;
    house.remote.plan(Verb::Finish, 1, fault(AnswerClass::Busy));
    house.settle().await;
    let files = |query: FilesQuery| streams::files(app, caller, made.id, &query).unwrap();
    let all = files(FilesQuery::default());
    let shown: Vec<_> = all
        .files
        .iter()
        .map(|shown| (shown.file.file_name.as_str(), shown.file.state, shown.is_blocked))
        .collect();
    let expected = [
        ("done", JobState::Done, false),
        ("blocked", JobState::Ready, true),
        ("large", JobState::Ready, false),
    ];
    assert_eq!(shown, expected);
    assert_eq!(all.next_after, None);
    let large = &all.files[2].file;
    assert_eq!(large.parts_total, 10);
    assert_eq!((large.parts_done, large.confirmed), (10, 50_000));
    assert_eq!(all.files[1].file.last_reason.as_deref(), Some("remote_rejected"));
    assert_eq!(all.files[1].file.last_status, Some(400));
    assert!(all.files[0].file.remote_file_id.is_some());
    let state = |state: &str| FilesQuery { state: Some(state.to_owned()), ..FilesQuery::default() };
    assert_eq!(files(state("ready")).files.len(), 2);
    let one = files(FilesQuery { limit: Some(1), ..FilesQuery::default() });
    let next = files(FilesQuery { after: one.next_after, limit: Some(2), ..Default::default() });
    assert_eq!(
        next.files.iter().map(|shown| &shown.file.file_name).collect::<Vec<_>>(),
        ["blocked", "large"]
    );
    let wrong = [state("no"), FilesQuery { limit: Some(0), ..FilesQuery::default() }];
    for wrong in wrong {
        assert_eq!(refused(streams::files(app, caller, made.id, &wrong)).1, 400);
    }

    let ids = |ids: &[String]| RetryWhat { file_ids: ids.to_vec(), state: None };
    let both = ids(&[blocked.id().to_string(), done.id().to_string()]);
    assert_eq!(streams::retry(app, caller, made.id, both).await.unwrap(), 1, "one has arrived");
    assert_eq!(house.settle().await, 1);
    assert_eq!(streams::retry(app, caller, made.id, RetryWhat::default()).await.unwrap(), 1);
    house.settle().await;
    assert_eq!(house.remote.held().len(), 3);
    let wrong = RetryWhat { state: Some("done".to_owned()), ..RetryWhat::default() };
    assert_eq!(refused(streams::retry(app, caller, made.id, wrong).await).1, 400);
    assert_eq!(refused(streams::retry(app, caller, made.id, ids(&["x".to_owned()])).await).1, 400);
}

#[tokio::test]
async fn keys_reach_the_streams_of_their_buckets_and_need_the_right_for_each_act() {
    let (house, bucket) = begin().await;
    let other = house.bucket("other-files").await;
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let (app, remote) = (&house.app, made.remote);
    let rights = ["readBucketReplications", "writeBucketReplications", "readFiles", "listFiles"];
    let reader = house.caller_of(&rights[..1], bucket, "").await;
    let stranger = house.caller_of(&rights, other, "").await;
    let writer = house.caller_of(&rights[1..2], bucket, "").await;
    let narrow = house.caller_of(&rights, bucket, "own/").await;

    assert!(streams::get(app, &reader, made.id).is_ok());
    assert_eq!(refusal(streams::get(app, &stranger, made.id)).code, Code::NotFound);
    assert_eq!(refusal(streams::get(app, &writer, made.id)).code, Code::Unauthorized);
    let filter =
        StreamFilter { org_id: Some(reader.account().to_string()), ..StreamFilter::default() };
    assert_eq!(streams::list(app, &reader, &filter).unwrap().len(), 1);
    assert_eq!(streams::list(app, &stranger, &filter).unwrap().len(), 0);
    let no_change = StreamChange::default();
    let unauthorized = Code::Unauthorized;
    let update = |caller: Caller, change: StreamChange| async move {
        streams::update(app, &caller, made.id, change).await
    };
    assert_eq!(refusal(update(reader.clone(), no_change.clone()).await).code, unauthorized);
    assert_eq!(refusal(update(stranger.clone(), no_change.clone()).await).code, Code::NotFound);
    assert_eq!(refusal(streams::delete(app, &reader, made.id).await).code, unauthorized);
    update(writer.clone(), no_change).await.unwrap();
    let elsewhere = StreamChange {
        remote_bucket_name: Some("elsewhere".to_owned()),
        ..StreamChange::default()
    };
    let moved = update(writer.clone(), elsewhere.clone()).await;
    assert_eq!(refusal(moved).code, unauthorized, "files he cannot read would go elsewhere");
    assert_eq!(refusal(update(narrow.clone(), elsewhere).await).code, unauthorized);

    let wanted = |caller: &Caller, bucket: BucketId, prefix: &str| NewStream {
        name: "another".to_owned(),
        options: StreamOptions { file_name_prefix: prefix.to_owned(), ..StreamOptions::default() },
        ..new_stream(caller, remote, bucket)
    };
    let create = |caller: Caller, bucket: BucketId, prefix: &'static str| async move {
        let wanted = wanted(&caller, bucket, prefix);
        streams::create(app, &caller, wanted).await
    };
    assert_eq!(refusal(create(reader.clone(), bucket, "").await).code, unauthorized);
    assert_eq!(refusal(create(writer.clone(), bucket, "").await).code, unauthorized, "readFiles");
    assert_eq!(refusal(create(stranger.clone(), bucket, "").await).code, unauthorized);
    assert_eq!(refusal(create(narrow.clone(), bucket, "").await).code, unauthorized);
    let own = create(narrow.clone(), bucket, "own/photos/").await.unwrap().stream;
    let all = FilesQuery::default();
    assert!(streams::files(app, &narrow, own.id, &all).is_ok());
    assert_eq!(refusal(streams::files(app, &narrow, made.id, &all)).code, unauthorized);
    let inquiry = house.inquiry();
    let names = streams::diff(app, &inquiry, &narrow, made.id, None).await;
    assert_eq!(refusal(names).code, unauthorized, "it would tell of names outside");

    for caller in [&narrow, &stranger] {
        let made = remotes::create(app, caller, new_remote(caller, "theirs")).await;
        assert_eq!(refusal(made).code, unauthorized, "remotes belong to the whole account");
        let changed = remotes::update(app, caller, remote, RemoteChange::default()).await;
        assert_eq!(refusal(changed).code, unauthorized);
        assert_eq!(refusal(remotes::delete(app, caller, remote).await).code, unauthorized);
    }
    assert!(remotes::get(app, &narrow, remote).is_ok());
    assert_eq!(refusal(remotes::get(app, &writer, remote)).code, unauthorized);
}

#[tokio::test]
async fn versions_only_their_customer_can_read_are_counted_and_left() {
    let (house, bucket) = begin().await;
    house.upload(bucket, "plain", b"plain").await;
    let key = AskedEncryption::Customer(CustomerKey::for_tests([5; 32]));
    house.upload_encrypted(bucket, "sealed", b"sealed", key).await.unwrap();
    let made = house.make_stream(bucket, |_| {}).await.stream;
    let dry = Resync { is_dry_run: true, ..Resync::default() };
    let counts = streams::resync(&house.app, &house.caller, made.id, dry).await.unwrap();
    assert_eq!((counts.files, counts.skipped_files), (1, 1));
    streams::resync(&house.app, &house.caller, made.id, Resync::default()).await.unwrap();
    house.settle().await;
    assert_eq!(house.remote.held().len(), 1);
    assert_eq!(house.app.metrics.replication_skipped_customer_key.value(), 1);
    let page = streams::diff(&house.app, &house.inquiry(), &house.caller, made.id, None).await;
    assert_eq!((page.as_ref().unwrap().compared, page.unwrap().items.len()), (1, 0));
}

/// How many remotes and streams there are.
fn count(app: &App) -> (i64, i64) {
    let counted = app.catalog.read(|tx| {
        let remotes = crate::catalog::remotes::count_remotes(tx, None)?;
        Ok((remotes, crate::catalog::streams::count_streams(tx, None)?))
    });
    counted.unwrap()
}

/// By how much the figures of all queues differ from what is counted.
fn drift_bytes(app: &App) -> i64 {
    use crate::catalog::streams::{StreamRows, list_streams, recount_sums};
    let drift = app.catalog.read(|tx| {
        let mut drift = 0;
        for stream in list_streams(tx, &StreamRows::default())? {
            let counted = recount_sums(tx, stream.id)?;
            drift += (stream.sums.current_bytes - counted.current_bytes).abs();
            drift += (stream.sums.remaining_bytes - counted.remaining_bytes).abs();
        }
        Ok(drift)
    });
    drift.unwrap()
}

#[tokio::test]
async fn a_rule_may_lead_to_a_bucket_of_a_peer_that_is_reached_through_a_remote() {
    let (house, bucket) = begin().await;
    let theirs = BucketId::from_bytes([0x4a; 12]);
    let key = house.key(&SOURCE_RIGHTS).await;
    let leads_there = || rules(&key, vec![rule("to-peer", theirs)]);
    let unknown = house.configure(bucket, leads_there()).await.map(|_| ());
    assert_eq!(refusal(unknown).code, Code::BadBucketId);
    let remote = house.remote_named("peer").await;
    let (app, caller) = (&house.app, &house.caller);
    remotes::name_bucket(app, caller, remote.id, &theirs.to_string()).await.unwrap();
    house.configure(bucket, leads_there()).await.unwrap();
    let version = house.upload(bucket, "a", b"a").await;
    assert_eq!(house.status(&version), Some("pending"));
    assert_eq!(house.jobs()[0].target, format!("remote:{}", remote.id));
    let other = house.another_account().await;
    let foreign = house.bucket_of(&other, "their-files").await;
    let their_key = house.key_of(&other, &SOURCE_RIGHTS, None, None, None).await.id;
    let not_theirs = rules(&their_key, vec![rule("to-peer", theirs)]);
    let not_theirs = house.configure_as(&other, foreign, not_theirs).await.map(|_| ());
    assert_eq!(refusal(not_theirs).code, Code::BadBucketId, "the remote is not of that account");
}

#[tokio::test]
async fn what_a_stream_carries_is_named_and_changed_only_by_keys_that_reach_all_of_it() {
    let (house, bucket) = begin().await;
    let app = &house.app;
    let remote = remotes::create(app, &house.caller, new_remote(&house.caller, "r")).await.unwrap();
    let wanted = new_stream(&house.caller, remote.remote.id, bucket);
    let made = streams::create(app, &house.caller, wanted).await.unwrap().stream;
    house.upload(bucket, "of-others/f", b"x").await;
    let rights = ["readBucketReplications", "writeBucketReplications", "listFiles"];
    let narrow = house.caller_of(&rights, bucket, "own/").await;
    let everything = RetryWhat::default();
    assert_eq!(refusal(streams::retry(app, &narrow, made.id, everything).await).code.status(), 401);
    assert_eq!(refusal(streams::purge(app, &narrow, made.id).await).code.status(), 401);
    let resync = streams::resync(app, &narrow, made.id, Resync::default()).await;
    assert_eq!(refusal(resync).code.status(), 401);
    let files = streams::files(app, &narrow, made.id, &FilesQuery::default());
    assert_eq!(refusal(files.map(drop)).code.status(), 401);
    let nameless = house.caller_of(&rights[..2], bucket, "").await;
    let files = streams::files(app, &nameless, made.id, &FilesQuery::default());
    assert_eq!(refusal(files.map(drop)).code.status(), 401, "names want listFiles");
    let wide = house.caller_of(&rights, bucket, "").await;
    assert_eq!(streams::files(app, &wide, made.id, &FilesQuery::default()).unwrap().files.len(), 1);
    assert_eq!(streams::purge(app, &wide, made.id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_walk_gives_way_only_to_one_that_looks_at_all_that_it_would() {
    let (house, bucket) = begin().await;
    let stream = house.stream(bucket, |_| {}).await;
    let start = async |before: Option<i64>, carries_again: bool| {
        let started = house.app.catalog.write("start", move |tx| {
            let now = crate::domain::time::Millis(1);
            let before = before.map(crate::domain::time::Millis);
            Ok(rows::start_scan(tx, stream, "", before, carries_again, now)?)
        });
        started.await.unwrap();
        let running = house.app.catalog.read(|tx| Ok(rows::list_running_scans(tx, Some(stream))?));
        running.unwrap().len()
    };
    assert_eq!(start(None, false).await, 1);
    assert_eq!(start(Some(5), true).await, 2, "it looks at old versions only");
    assert_eq!(start(Some(4), true).await, 3, "at older ones than the second");
    assert_eq!(start(Some(6), true).await, 2, "at all that the two before it would");
    assert_eq!(start(None, false).await, 2, "but not for those that are gone at the remote");
    assert_eq!(start(None, true).await, 1, "at everything");
}
