//! Streams through a remote in memory: the rows of the fault matrix (replication.md C13) in the
//! column of streams, the queue (E12), retries and breaker (E13), and exactly once (E14).

use crate::catalog::remotes::StoredRemote;
use crate::catalog::replication::{self as rows, Job, JobFilter, JobOrigin, Lease};
use crate::catalog::{remotes, streams};
use crate::clock::Clock as _;
use crate::domain::file::{FileInfo, FileVersion};
use crate::domain::ids::BucketId;
use crate::domain::remote::StreamId;
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::domain::replication::JobState;
use crate::domain::stream::{OnQueueFull, QUEUE_BYTES_MIN, QueueSums, Stream};
use crate::domain::time::Millis;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::remote_tokens::seal_token;
use crate::replication::destination::fake::{Verb, fault};
use crate::testing::TestHouse;

impl TestHouse {
    pub(super) fn stream_jobs(&self, stream: StreamId) -> Vec<Job> {
        let filter = JobFilter { stream: Some(stream), ..JobFilter::default() };
        self.app.catalog.read(|tx| Ok(rows::list_jobs(tx, &filter, 100_000)?)).unwrap()
    }

    /// The only job of a stream: its state, its attempts, its reason, and what was answered last.
    fn stream_job(&self, stream: StreamId) -> (JobState, u32, Option<String>, Option<i64>) {
        let jobs = self.stream_jobs(stream);
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let job = &jobs[0];
        (job.state, job.attempts, job.last_reason.clone(), job.last_status)
    }

    pub(super) fn stream_now(&self, id: StreamId) -> Stream {
        self.app.catalog.read(|tx| Ok(streams::find_stream(tx, id)?)).unwrap().unwrap()
    }

    pub(super) fn sums(&self, id: StreamId) -> QueueSums {
        let counted = self.app.catalog.read(|tx| Ok(streams::recount_sums(tx, id)?)).unwrap();
        let kept = self.stream_now(id).sums;
        assert_eq!(kept, counted, "what is kept and what is counted");
        kept
    }

    async fn change_stream(&self, id: StreamId, change: impl FnOnce(&mut Stream)) {
        let mut stream = self.stream_now(id);
        change(&mut stream);
        let stored = self
            .app
            .catalog
            .write("change_stream", move |tx| Ok(streams::update_stream(tx, &stream)?));
        stored.await.unwrap();
    }

    /// Gives the remote of a stream another token, as an operator would.
    async fn give_token(&self, id: StreamId, token: &str) {
        let remote = self.stream_now(id).remote;
        let sealed_token = seal_token(&self.app, remote, token).unwrap();
        let stored = self.app.catalog.write("test_token", move |tx| {
            let stored = remotes::find_remote(tx, remote)?.unwrap();
            let stored = StoredRemote { sealed_token: sealed_token.clone(), ..stored };
            Ok(remotes::update_remote(tx, &stored)?)
        });
        stored.await.unwrap();
    }

    pub(super) async fn limit_queue(&self, id: StreamId, bytes: i64, on_queue_full: OnQueueFull) {
        self.change_stream(id, |stream| {
            stream.max_queue_bytes = bytes;
            stream.options.on_queue_full = on_queue_full;
        })
        .await;
    }

    pub(super) async fn engine_upkeep(&self) {
        self.engine.tend().await.unwrap();
    }

    /// Claims the job of a stream in the name of a process that never comes back.
    async fn claim_by_another_run(&self) {
        let (lane, now) = {
            let heads =
                self.app.catalog.read(|tx| Ok(rows::due_heads(tx, self.app.waits.now(), "", 10)?));
            (heads.unwrap().remove(0).lane, self.app.waits.now())
        };
        let lease = Lease { owner: "another".to_owned(), until: Millis(i64::MAX) };
        let claimed = self.app.catalog.write("claim", move |tx| {
            Ok(rows::claim(tx, &lane, JobOrigin::Upload, now, &lease, 1)?)
        });
        assert_eq!(claimed.await.unwrap().len(), 1);
    }

    /// Steps and moves the clock until the stream has nothing left.
    pub(super) async fn drain_stream(&self, stream: StreamId) {
        for _ in 0..200 {
            self.settle().await;
            if self.stream_jobs(stream).iter().all(|job| !job.state.is_unfinished()) {
                return;
            }
            self.clock.advance(1_000_000);
        }
        panic!("unfinished jobs stay: {:?}", self.stream_jobs(stream));
    }
}

async fn begin() -> (TestHouse, BucketId, StreamId) {
    let house = TestHouse::open().await;
    let bucket = house.bucket("local-files").await;
    let stream = house.stream(bucket, |_| {}).await;
    (house, bucket, stream)
}

fn busy(status: u16, retry_after_ms: Option<i64>) -> RemoteFault {
    RemoteFault { status, retry_after_ms, ..fault(AnswerClass::Busy) }
}

fn body(letter: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| letter.wrapping_add(u8::try_from(at / 4096 % 256).unwrap())).collect()
}

#[tokio::test]
async fn replication_169_172_186_an_upload_is_carried_and_shows_no_status() {
    let (house, bucket, stream) = begin().await;
    assert_eq!(house.sums(stream), QueueSums::default());
    assert_eq!(house.stream_now(stream).latest, None, "165: nothing before the first attempt");
    let version = house.upload(bucket, "dir/a file", b"hello").await;
    hide_file(&house.app, &house.caller, &bucket.to_string(), "dir/a file").await.unwrap();
    assert_eq!(house.status(&version), None);
    assert_eq!(house.sums(stream).remaining_bytes, 5 + 256);
    house.settle().await;
    assert_eq!(house.status(&version), None, "completed streams say nothing either");
    let held = house.remote.held();
    assert_eq!(held.len(), 1, "the hide is not carried");
    assert_eq!(
        (held[0].file.name.as_str(), held[0].bytes.as_slice()),
        ("dir/a file", &b"hello"[..])
    );
    assert_eq!(held[0].file.upload_at, version.upload_at);
    assert!(held[0].file.origin.ends_with(&version.id().to_string()));
    assert_eq!(house.sums(stream), QueueSums::default());
    assert_eq!(house.stream_now(stream).latest, Some((200, String::new())));
}

#[tokio::test]
async fn f1_f65_replication_166_189_refused_connections_are_retried_with_growing_waits() {
    let (house, bucket, stream) = begin().await;
    house.upload(bucket, "f", b"x").await;
    house.remote.plan(Verb::Put, 3, fault(AnswerClass::Unreachable));
    for attempt in 1..=3_u32 {
        assert_eq!(house.settle().await, 1);
        let (state, attempts, reason, status) = house.stream_job(stream);
        assert_eq!((state, attempts, status), (JobState::Ready, attempt, Some(0)));
        assert_eq!(reason.as_deref(), Some("remote_unreachable"));
        let (code, message) = house.stream_now(stream).latest.unwrap();
        assert!(code == 0 && !message.is_empty(), "{code} {message}");
        let longest = 500_i64 << (attempt - 1);
        house.clock.advance(longest / 2 - 1);
        assert_eq!(house.settle().await, 0, "not before half of {longest} ms");
        house.clock.advance(longest / 2 + 1);
    }
    assert_eq!(house.settle().await, 1);
    assert_eq!(house.stream_job(stream).0, JobState::Done);
    assert_eq!(house.stream_now(stream).latest, Some((200, String::new())));
    assert_eq!(house.remote.held().len(), 1);
}

#[tokio::test]
async fn f4_f5_replication_190_a_remote_that_asks_to_be_left_alone_is() {
    let (house, bucket, stream) = begin().await;
    for status in [503, 429] {
        house.upload(bucket, &format!("f{status}"), b"x").await;
        house.remote.plan(Verb::Put, 1, busy(status, Some(120_000)));
        assert_eq!(house.settle().await, 1);
        house.clock.advance(119_999);
        assert_eq!(house.settle().await, 0);
        house.clock.advance(1);
        assert_eq!(house.settle().await, 1);
    }
    assert!(house.stream_jobs(stream).iter().all(|job| job.state == JobState::Done));
}

#[tokio::test]
async fn f7_twelve_answers_of_500_wait_up_to_a_quarter_of_an_hour_and_never_fail() {
    let (house, bucket, stream) = begin().await;
    house.upload(bucket, "f", b"x").await;
    house.remote.plan(Verb::Put, 12, busy(500, None));
    for _ in 0..12 {
        // Past the breaker too, which opens meanwhile.
        house.clock.advance(900_000);
        assert_eq!(house.settle().await, 1);
        assert_eq!(house.stream_job(stream).0, JobState::Ready);
    }
    assert_eq!(house.stream_job(stream).1, 12);
    let waits = house.stream_jobs(stream)[0].next_attempt_at.0 - house.app.waits.now().0;
    assert!((450_000..=900_000).contains(&waits), "{waits}");
    house.clock.advance(900_000);
    house.settle().await;
    assert_eq!(house.stream_job(stream).0, JobState::Done);
}

#[tokio::test]
async fn f8_f10_replication_185_195_a_file_that_is_refused_for_good_blocks_no_other() {
    let (house, bucket, stream) = begin().await;
    house.remote.plan(Verb::Put, 8, fault(AnswerClass::Rejected));
    house.upload(bucket, "refused", b"xx").await;
    for _ in 0..8 {
        assert_eq!(house.settle().await, 1);
        let before = house.remote.calls(Verb::Put);
        house.clock.advance(899_999);
        assert_eq!(house.settle().await, 0, "one attempt in a quarter of an hour");
        assert_eq!(house.remote.calls(Verb::Put), before);
        house.clock.advance(1);
    }
    let (state, _, reason, status) = house.stream_job(stream);
    assert_eq!((state, status), (JobState::Ready, Some(400)));
    assert_eq!(reason.as_deref(), Some("remote_rejected"));
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Rejected));
    house.upload(bucket, "z-other", b"x").await;
    house.settle().await;
    house.settle().await;
    assert!(
        house
            .remote
            .held()
            .iter()
            .any(|held| held.file.name == "z-other" || held.file.name == "refused"),
        "eight refusals of one file have not opened the breaker"
    );
}

#[tokio::test]
async fn f9_replication_184_with_the_drop_flag_it_is_dropped_and_counted() {
    let (house, bucket, stream) = begin().await;
    house.change_stream(stream, |stream| stream.drop_non_retryable = true).await;
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Rejected));
    house.upload(bucket, "refused", &[7; 1000]).await;
    house.settle().await;
    let (state, _, reason, status) = house.stream_job(stream);
    assert_eq!((state, status), (JobState::Dropped, Some(400)));
    assert_eq!(reason.as_deref(), Some("remote_rejected"));
    assert_eq!(house.app.metrics.stream(stream).bytes_dropped.value(), 1000);
    assert_eq!(house.sums(stream), QueueSums::default());
    house.upload(bucket, "other", b"x").await;
    house.settle().await;
    assert_eq!(house.remote.held().len(), 1);
}

#[tokio::test]
async fn f12_f13_replication_155_194_a_wrong_key_opens_the_breaker_and_a_new_one_cures_it() {
    let (house, bucket, stream) = begin().await;
    house.remote.plan(Verb::Put, 100, fault(AnswerClass::Unauthorized));
    for number in 0..20 {
        house.upload(bucket, &format!("f{number:02}"), b"x").await;
    }
    house.settle().await;
    assert_eq!(house.remote.calls(Verb::Put), 5, "then the breaker is open");
    let spent = |house: &TestHouse| -> u32 {
        house.stream_jobs(stream).iter().map(|job| job.attempts).sum()
    };
    assert_eq!(spent(&house), 5);
    house.clock.advance(100);
    assert_eq!(house.settle().await, 0, "while it is open nothing is tried");
    house.remote.mend();
    house.give_token(stream, "id:another-secret").await;
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 20);
    assert_eq!(house.remote.tokens().last().map(String::as_str), Some("another-secret"));
}

#[tokio::test]
async fn f14_f15_replication_caps_and_missing_buckets_are_given_time() {
    for (class, least_ms) in
        [(AnswerClass::CapExceeded, 300_000), (AnswerClass::BucketMissing, 60_000)]
    {
        let (house, bucket, stream) = begin().await;
        house.upload(bucket, "f", b"x").await;
        house.remote.plan(Verb::Put, 1, fault(class));
        house.settle().await;
        house.clock.advance(least_ms - 1);
        assert_eq!(house.settle().await, 0, "{class:?}");
        house.clock.advance(1);
        house.settle().await;
        assert_eq!(house.stream_job(stream).0, JobState::Done, "{class:?}");
    }
}

/// A file of ten parts of 5,000 bytes.
pub(super) async fn upload_large(house: &TestHouse, bucket: BucketId, name: &str) -> FileVersion {
    house.upload(bucket, name, &body(1, 50_000)).await
}

#[tokio::test]
async fn f16_replication_174_192_207_only_parts_that_are_not_confirmed_are_sent_again() {
    let (house, bucket, stream) = begin().await;
    upload_large(&house, bucket, "large").await;
    house.remote.plan(Verb::PutPart, 1, busy(500, None));
    house.settle().await;
    let confirmed = house.stream_jobs(stream)[0].confirmed;
    let sums = house.sums(stream);
    assert_eq!(sums.current_bytes, 50_256);
    assert_eq!(sums.remaining_bytes, 50_256 - i64::try_from(confirmed).unwrap());
    house.drain_stream(stream).await;
    let held = house.remote.held();
    assert_eq!(held[0].bytes, body(1, 50_000));
    assert_eq!(held[0].part_sizes.len(), 10);
    let again = house.remote.sent_bytes() - 50_000;
    assert!(again <= 4 * 5_000, "only what was on its way: {again}");
    assert_eq!(house.remote.open_sessions(), 0);
    assert_eq!(house.remote.calls(Verb::Start), 1);
}

#[tokio::test]
async fn f17_f18_p4_p5_a_restart_goes_on_with_the_parts_that_are_there() {
    let (mut house, bucket, stream) = begin().await;
    upload_large(&house, bucket, "large").await;
    // The part arrives, and the process ends before it knows.
    house.remote.lose_answer(Verb::PutPart);
    house.settle().await;
    let sent = house.remote.sent_bytes();
    house.crash_and_reopen().await;
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held()[0].bytes, body(1, 50_000));
    assert!(house.remote.calls(Verb::ListParts) >= 1, "the listing tells");
    assert_eq!(house.remote.sent_bytes(), 50_000, "nothing twice of {sent}");
    assert!(house.app.metrics.stream(stream).resumed_parts.value() >= 1);
}

#[tokio::test]
async fn f19_replication_208_a_session_that_the_remote_forgot_is_begun_anew() {
    let (house, bucket, stream) = begin().await;
    upload_large(&house, bucket, "large").await;
    house.remote.plan(Verb::PutPart, 1, busy(500, None));
    house.settle().await;
    let attempts = house.stream_job(stream).1;
    house.remote.forget_sessions();
    house.clock.advance(10_000);
    house.settle().await;
    assert_eq!(house.stream_job(stream).0, JobState::Done);
    assert_eq!(house.stream_job(stream).1, attempts, "no attempt was counted for it");
    assert_eq!(house.app.metrics.stream(stream).restarted_sessions.value(), 1);
    assert_eq!(house.remote.held()[0].bytes, body(1, 50_000));
}

#[tokio::test]
async fn f20_f21_p6_replication_205_209_a_lost_answer_is_followed_by_a_look() {
    for (verb, size) in [(Verb::Finish, 50_000), (Verb::Put, 5)] {
        for arrives in [true, false] {
            let (house, bucket, stream) = begin().await;
            house.upload(bucket, "f", &body(1, size)).await;
            if arrives {
                house.remote.lose_answer(verb);
            } else {
                house.remote.plan(verb, 1, fault(AnswerClass::Unreachable));
            }
            house.drain_stream(stream).await;
            assert_eq!(house.remote.held().len(), 1, "{verb:?} {arrives}");
            assert_eq!(house.remote.held()[0].bytes, body(1, size));
            assert_eq!(house.remote.open_sessions(), 0);
            let adopted = house.app.metrics.stream(stream).adopted.value();
            assert_eq!(adopted, u64::from(arrives), "{verb:?} {arrives}");
        }
    }
}

#[tokio::test]
async fn f22_p7_p10_an_outcome_that_was_never_written_is_found_at_the_remote() {
    let (mut house, bucket, stream) = begin().await;
    let version = house.upload(bucket, "f", b"x").await;
    house.remote.lose_answer(Verb::Put);
    house.settle().await;
    house.crash_and_reopen().await;
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 1);
    assert!(house.remote.held()[0].file.origin.ends_with(&version.id().to_string()));
}

#[tokio::test]
async fn f42_replication_94_a_version_that_is_deleted_while_it_waits_is_cancelled() {
    let (house, bucket, stream) = begin().await;
    let version = upload_large(&house, bucket, "large").await;
    house.remote.plan(Verb::PutPart, 1, busy(500, None));
    house.settle().await;
    delete_version(&house.app, &house.caller, "large", &version.id().to_string(), false)
        .await
        .unwrap();
    let (state, _, reason, _) = house.stream_job(stream);
    assert_eq!((state, reason.as_deref()), (JobState::Cancelled, Some("source_deleted")));
    assert_eq!(house.sums(stream), QueueSums::default());
    assert_eq!(house.settle().await, 0);
    house.engine_upkeep().await;
    assert_eq!(house.remote.open_sessions(), 0, "what was begun there is given up");
    assert!(house.remote.held().is_empty());
}

#[tokio::test]
async fn f59_replication_177_what_does_not_fit_waits_outside_and_arrives() {
    let (house, bucket, stream) = begin().await;
    house.limit_queue(stream, 10_000, OnQueueFull::Spill).await;
    house.remote.plan(Verb::Put, 1, busy(503, Some(5_000)));
    for number in 0..30 {
        house.upload(bucket, &format!("f{number:02}"), &[7; 1000]).await;
    }
    let sums = house.sums(stream);
    assert!(sums.current_bytes <= 10_000 && sums.spilled == 30 - sums.entries, "{sums:?}");
    house.drain_stream(stream).await;
    let names: Vec<String> = house.remote.held().into_iter().map(|held| held.file.name).collect();
    assert_eq!(names.len(), 30);
    assert_eq!(house.sums(stream), QueueSums::default());
}

#[tokio::test]
async fn f60_replication_178_a_stream_that_drops_counts_what_it_did_not_take() {
    let (house, bucket, stream) = begin().await;
    house.limit_queue(stream, 2_000, OnQueueFull::Drop).await;
    house.upload(bucket, "first", &[7; 1000]).await;
    house.upload(bucket, "second", &[7; 1000]).await;
    let figures = house.app.metrics.stream(stream);
    assert_eq!(figures.files_failed_to_queue.value(), 1);
    assert_eq!(figures.bytes_failed_to_queue.value(), 1000);
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 1);
}

#[tokio::test]
async fn f61_replication_179_a_stream_that_rejects_fails_the_upload_as_a_whole() {
    let (house, bucket, stream) = begin().await;
    house.limit_queue(stream, 2_000, OnQueueFull::Reject).await;
    house.upload(bucket, "first", &[7; 1000]).await;
    let refused = house.try_upload(bucket, "second", &[7; 1000], FileInfo::default()).await;
    let crate::operations::error::Error::Refused(refusal) = refused.unwrap_err() else {
        panic!("a refusal was expected");
    };
    assert_eq!((refusal.code.status(), refusal.retry_after_s), (503, Some(5)));
    assert_eq!(house.versions(bucket).len(), 1, "no version stands");
    house.drain_stream(stream).await;
    house.upload(bucket, "second", &[7; 1000]).await;
}

#[tokio::test]
async fn f62_f64_replication_180_181_a_huge_file_enters_an_empty_queue_and_a_lower_limit_drops_nothing()
 {
    let (house, bucket, stream) = begin().await;
    house.limit_queue(stream, 100, OnQueueFull::Drop).await;
    house.upload(bucket, "huge", &[7; 10_000]).await;
    assert_eq!(house.sums(stream).entries, 1);
    house.limit_queue(stream, QUEUE_BYTES_MIN, OnQueueFull::Spill).await;
    for number in 0..5 {
        house.upload(bucket, &format!("f{number}"), &[7; 1000]).await;
    }
    house.limit_queue(stream, 100, OnQueueFull::Spill).await;
    assert_eq!(house.sums(stream).entries, 6);
    house.upload(bucket, "later", b"x").await;
    assert_eq!(house.sums(stream).spilled, 1);
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 7);
}

#[tokio::test]
async fn f63_replication_182_183_what_waits_too_long_is_dropped_unless_nothing_is_too_long() {
    let (house, bucket, stream) = begin().await;
    house.change_stream(stream, |stream| stream.max_age_s = 3_600).await;
    house.remote.plan(Verb::Put, 1_000_000, busy(503, None));
    house.upload(bucket, "old", &[7; 100]).await;
    house.settle().await;
    house.clock.advance(3_599_000);
    house.engine_upkeep().await;
    assert_eq!(house.stream_job(stream).0, JobState::Ready);
    house.clock.advance(61_000);
    house.engine_upkeep().await;
    let (state, _, reason, _) = house.stream_job(stream);
    assert_eq!((state, reason.as_deref()), (JobState::Dropped, Some("expired")));
    assert_eq!(house.app.metrics.stream(stream).bytes_dropped.value(), 100);
    assert_eq!(house.sums(stream), QueueSums::default());
    house.change_stream(stream, |stream| stream.max_age_s = 0).await;
    house.upload(bucket, "kept", &[7; 100]).await;
    for _ in 0..10 {
        house.clock.advance(100_000_000);
        house.engine_upkeep().await;
        house.settle().await;
    }
    house.remote.mend();
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 1);
}

#[tokio::test]
async fn replication_187_a_paused_stream_starts_nothing_and_others_go_on() {
    let (house, bucket, stream) = begin().await;
    let other = house.stream(bucket, |stream| stream.name = "other".to_owned()).await;
    house.change_stream(stream, |stream| stream.is_paused = true).await;
    house.upload(bucket, "f", b"x").await;
    house.settle().await;
    assert_eq!(house.stream_job(stream).0, JobState::Ready);
    assert_eq!(house.stream_job(other).0, JobState::Done);
    house.upload(bucket, "g", b"x").await;
    assert_eq!(house.sums(stream).entries, 2, "the queue grows");
    house.change_stream(stream, |stream| stream.is_paused = false).await;
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 4);
}

#[tokio::test]
async fn f66_replication_211_damaged_bytes_are_never_carried() {
    let (house, bucket, stream) = begin().await;
    let version = house.upload(bucket, "f", &body(1, 18_000)).await;
    super::damage::flip(&house, &version, 8 * 17_000).await;
    house.settle().await;
    let (state, _, reason, _) = house.stream_job(stream);
    assert_eq!((state, reason.as_deref()), (JobState::Ready, Some("source_corrupt")));
    assert!(house.remote.held().is_empty());
}

#[tokio::test]
async fn f67_replication_212_a_wrong_checksum_is_tried_three_times_and_then_the_source_is_read() {
    let (house, bucket, stream) = begin().await;
    house.upload(bucket, "f", &body(1, 18_000)).await;
    house.remote.plan(Verb::Put, 4, fault(AnswerClass::ChecksumMismatch));
    for _ in 0..4 {
        house.settle().await;
        assert_eq!(house.stream_job(stream).2.as_deref(), Some("checksum_mismatch"));
        house.clock.advance(1_000_000);
    }
    house.settle().await;
    assert_eq!(house.stream_job(stream).0, JobState::Done);
}

#[tokio::test]
async fn versions_of_a_name_go_one_after_the_other_where_timestamps_are_not_kept() {
    let (house, bucket, stream) = begin().await;
    house.remote.forget_timestamps();
    for number in 0..3_u8 {
        house.upload(bucket, "same", &[number; 10]).await;
        house.clock.advance(10);
    }
    house.remote.plan(Verb::Put, 1, busy(503, None));
    house.drain_stream(stream).await;
    let bytes: Vec<u8> = house.remote.held().iter().map(|held| held.bytes[0]).collect();
    assert_eq!(bytes, [0, 1, 2]);
    assert_eq!(house.app.metrics.stream(stream).errors().values().sum::<u64>(), 1);
}

#[tokio::test]
async fn f53_a_loop_ends_the_carrying_of_a_file() {
    let (house, bucket, stream) = begin().await;
    house.upload(bucket, "f", b"x").await;
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Loop));
    house.settle().await;
    let (state, _, reason, status) = house.stream_job(stream);
    assert_eq!((state, status), (JobState::Dropped, Some(409)));
    assert_eq!(reason.as_deref(), Some("replication_loop"));
}

#[tokio::test]
async fn replication_175_210_a_stream_job_that_is_lost_five_times_is_parked_and_stays_counted() {
    let (mut house, bucket, stream) = begin().await;
    house.upload(bucket, "f", &[7; 100]).await;
    for _ in 0..5 {
        house.claim_by_another_run().await;
        house.crash_and_reopen().await;
        assert_eq!(house.settle().await, 0, "taken back, and left alone for a while");
        house.clock.advance(400_000);
    }
    let (state, _, reason, _) = house.stream_job(stream);
    assert_eq!((state, reason.as_deref()), (JobState::Parked, Some("internal_poison")));
    assert_eq!(house.settle().await, 0);
    let sums = house.sums(stream);
    assert_eq!((sums.current_bytes, sums.remaining_bytes), (356, 356));
}

#[tokio::test]
async fn replication_159_what_another_account_says_of_a_bucket_leads_nobody_elses_files_anywhere() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    // A stranger has a remote, and says that the destination is reached through it.
    let stranger = house.another_account().await;
    let own = house.bucket_of(&stranger, "of-a-stranger").await;
    let stream = house.stream(own, |_| {}).await;
    let remote = house.stream_now(stream).remote;
    let (destination, account) = (pair.destination, stranger.account());
    let named = house.app.catalog.write("name_bucket", move |tx| {
        let stored = remotes::find_remote(tx, remote)?.unwrap();
        let remote = crate::domain::remote::Remote { account, ..stored.remote.clone() };
        remotes::delete_remote(tx, remote.id)?;
        let id = remote.id;
        remotes::insert_remote(tx, &StoredRemote { remote, ..stored })?;
        Ok(remotes::put_remote_bucket(tx, destination, id)?)
    });
    named.await.unwrap();
    let id = pair.destination.to_string();
    crate::operations::buckets::delete_bucket(&house.app, &house.caller, &id).await.unwrap();
    let version = house.upload(pair.source, "secret", b"x").await;
    house.settle().await;
    assert_eq!(house.status(&version), Some("failed"));
    assert_eq!(house.only_job().1.as_deref(), Some("dest_bucket_missing"));
    assert!(house.remote.held().is_empty() && house.remote.tokens().is_empty());
}

/// A version whose job is made after that of a newer one, as a walk does.
async fn late_job(house: &TestHouse, stream: StreamId, version: &FileVersion) {
    let (version, now) = (version.clone(), house.app.waits.now());
    let made = house.app.catalog.write("late_job", move |tx| {
        let mut stream = streams::find_stream(tx, stream)?.unwrap();
        Ok(rows::insert_stream_job(tx, &mut stream, &version, JobOrigin::Scan, now)?)
    });
    assert_eq!(made.await.unwrap(), rows::StreamEnqueued::Queued);
}

#[tokio::test]
async fn replication_131_an_old_version_never_hides_a_newer_one_where_timestamps_are_not_kept() {
    for newer_has_arrived in [true, false] {
        let house = TestHouse::open().await;
        house.remote.forget_timestamps();
        let bucket = house.bucket("local-files").await;
        let old = house.upload(bucket, "same", b"old").await;
        house.clock.advance(10);
        let stream = house.stream(bucket, |_| {}).await;
        house.upload(bucket, "same", b"new").await;
        if newer_has_arrived {
            house.settle().await;
        }
        late_job(&house, stream, &old).await;
        house.drain_stream(stream).await;
        let held: Vec<Vec<u8>> = house.remote.held().into_iter().map(|one| one.bytes).collect();
        let jobs = house.stream_jobs(stream);
        if newer_has_arrived {
            assert_eq!(held, [b"new"]);
            let reason = jobs[1].last_reason.as_deref();
            assert_eq!((jobs[1].state, reason), (JobState::Cancelled, Some("superseded")));
        } else {
            assert_eq!(held, [b"old", b"new"], "the older one went first");
        }
        assert_eq!(house.sums(stream), QueueSums::default());
    }
}

#[tokio::test]
async fn f8_f62_a_blocked_file_does_not_keep_one_that_is_larger_than_the_queue_outside() {
    let (house, bucket, stream) = begin().await;
    house.limit_queue(stream, 10_000, OnQueueFull::Spill).await;
    house.remote.plan(Verb::Put, 1, fault(AnswerClass::Rejected));
    house.upload(bucket, "blocked", &[7; 9_500]).await;
    house.settle().await;
    assert_eq!(house.stream_job(stream).2.as_deref(), Some("remote_rejected"));
    house.upload(bucket, "huge", &[7; 15_000]).await;
    house.upload(bucket, "small", b"x").await;
    house.engine_upkeep().await;
    house.settle().await;
    let names: Vec<String> = house.remote.held().into_iter().map(|one| one.file.name).collect();
    assert_eq!(names, ["huge", "small"]);
    assert_eq!(house.sums(stream).entries, 1, "the blocked one is still there");
}

#[tokio::test]
async fn an_expired_file_that_is_retried_is_young_again() {
    let (house, bucket, stream) = begin().await;
    house.change_stream(stream, |stream| stream.max_age_s = 60).await;
    house.remote.plan(Verb::Put, 1, busy(503, None));
    house.upload(bucket, "old", b"x").await;
    house.settle().await;
    house.clock.advance(200_000);
    house.engine_upkeep().await;
    assert_eq!(house.stream_job(stream).0, JobState::Dropped);
    let job = house.stream_jobs(stream).remove(0);
    let now = house.app.waits.now();
    let reopened =
        house.app.catalog.write("retry", move |tx| Ok(rows::retry_stream_job(tx, &job, now)?));
    assert!(reopened.await.unwrap());
    assert_eq!(house.sums(stream).entries, 1);
    house.settle().await;
    assert_eq!(house.stream_job(stream).0, JobState::Done);
}

#[tokio::test]
async fn replication_187_a_file_that_is_reopened_goes_where_its_stream_leads_today() {
    let (house, bucket, stream) = begin().await;
    house.change_stream(stream, |stream| stream.is_paused = true).await;
    house.upload(bucket, "f", b"x").await;
    let now = house.app.waits.now();
    let purged = house.app.catalog.write("purge", move |tx| Ok(rows::purge(tx, stream, now, 10)?));
    assert_eq!(purged.await.unwrap(), 1);
    let other = house.stream(bucket, |stream| stream.name = "other".to_owned()).await;
    let remote = house.stream_now(other).remote;
    house.change_stream(stream, |stream| stream.remote = remote).await;
    let job = house.stream_jobs(stream).remove(0);
    let reopened =
        house.app.catalog.write("retry", move |tx| Ok(rows::retry_stream_job(tx, &job, now)?));
    assert!(reopened.await.unwrap());
    assert_eq!(house.settle().await, 0, "the stream is paused");
    assert_eq!(house.stream_jobs(stream)[0].target, remotes::target_of_remote(remote));
}

#[tokio::test]
async fn replication_209_a_session_whose_cancel_fails_is_given_up_later() {
    let (house, bucket, stream) = begin().await;
    upload_large(&house, bucket, "large").await;
    house.remote.lose_answer(Verb::Finish);
    house.settle().await;
    house.remote.plan(Verb::Cancel, 1, busy(503, None));
    house.drain_stream(stream).await;
    assert_eq!(house.remote.held().len(), 1);
    let left = || house.app.catalog.read(|tx| Ok(remotes::count_orphans(tx)?)).unwrap();
    assert_eq!(left(), 1, "remembered");
    house.clock.advance(60_000);
    house.engine_upkeep().await;
    assert_eq!(left(), 0);
}
