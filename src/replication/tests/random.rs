//! Random runs: seeds x acts, with crashes and faults, checked against the invariants after every
//! act and against a model at the end. The seed of a failing run is in its message.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::replication::{self as rows, Lease};
use crate::catalog::tx::find;
use crate::clock::Clock as _;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::{BucketId, FileNumber};
use crate::domain::replication::{
    JobState, Reason, ReplicationConfiguration, ReplicationStatus, shown_status,
};
use crate::domain::time::Millis;
use crate::operations::accounts::Operator;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::replication_jobs::{RetryQuery, retry_jobs};
use crate::replication::destination::faulty::Fault;
use crate::testing::{DESTINATION_RIGHTS, Pair, SOURCE_RIGHTS, TestHouse, mapping, rule, rules};

const SEEDS: u64 = 200;
const ACTS: usize = 200;

/// What the model remembers: each upload that was answered with `pending`, by its file number.
#[derive(Default)]
struct Model {
    expected: BTreeMap<i64, FileVersion>,
    /// Every upload that nobody deleted, whatever its status.
    uploaded: BTreeSet<FileNumber>,
    /// Every replica that was ever seen; no act deletes one.
    replicas: BTreeSet<FileNumber>,
}

struct Run {
    house: TestHouse,
    pair: Pair,
    second: BucketId,
    model: Model,
    seed: u64,
    state: u64,
}

impl Run {
    fn draw(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    async fn act(&mut self) {
        let name = format!("n{}", self.draw(6));
        match self.draw(20) {
            0..=6 => {
                let length = usize::try_from(self.draw(64)).unwrap();
                let version = self.house.upload(self.pair.source, &name, &vec![1; length]).await;
                self.model.uploaded.insert(version.number);
                if version.replication == Some(ReplicationStatus::Pending) {
                    self.model.expected.insert(version.number.0, version);
                }
            }
            7 => {
                let bucket = self.pair.source.to_string();
                // Hiding what is hidden or not there is refused, which is part of the game.
                drop(hide_file(&self.house.app, &self.house.caller, &bucket, &name).await);
            }
            8 => self.delete_one().await,
            9 => self.change_rules().await,
            10 => self.break_mapping().await,
            11 => self.replace_source_key().await,
            12 => {
                let by = i64::try_from(self.draw(600_000)).unwrap();
                self.house.clock.advance(by);
            }
            13 => {
                if self.draw(2) == 0 {
                    self.claim_one().await;
                }
                self.house.crash_and_reopen().await;
            }
            14 => {
                let fault = match self.draw(3) {
                    0 => Fault::Panic,
                    1 => Fault::Fail(Reason::Timeout),
                    _ => Fault::Fail(Reason::IoError),
                };
                self.house.plan.plan(self.pair.destination, 1, fault);
            }
            15 => {
                let operator = Operator::of_data_folder();
                retry_jobs(&self.house.app, &operator, RetryQuery::default()).await.unwrap();
            }
            _ => {
                self.house.engine.step_once().await.unwrap();
            }
        }
    }

    async fn delete_one(&mut self) {
        let versions = self.house.versions(self.pair.source);
        if versions.is_empty() {
            return;
        }
        let at = usize::try_from(self.draw(versions.len() as u64)).unwrap();
        let (name, id) = (versions[at].name.as_str(), versions[at].id().to_string());
        delete_version(&self.house.app, &self.house.caller, name, &id, false).await.unwrap();
        self.model.expected.remove(&versions[at].number.0);
        self.model.uploaded.remove(&versions[at].number);
    }

    /// A worker takes a job and is never heard of again.
    async fn claim_one(&mut self) {
        let ready = self.house.jobs().into_iter().find(|job| job.state == JobState::Ready);
        let Some(job) = ready else { return };
        let lease = Lease { owner: "never heard of".to_owned(), until: Millis(i64::MAX) };
        let claimed = self.house.app.catalog.write("claim", move |tx| {
            Ok(rows::claim(tx, &job.lane, job.origin, job.next_attempt_at, &lease, 1)?)
        });
        assert_eq!(claimed.await.unwrap().len(), 1);
    }

    async fn change_rules(&mut self) {
        let mut wanted = vec![rule("rule-one", self.pair.destination)];
        if self.draw(2) == 0 {
            wanted.push(rule("rule-two", self.second));
        }
        if self.draw(3) == 0 {
            wanted[0].is_enabled = false;
        }
        if self.draw(3) == 0 {
            wanted[0].include_existing_files = true;
        }
        let wanted = match self.draw(4) {
            0 => ReplicationConfiguration::default(),
            _ => rules(&self.pair.source_key, wanted),
        };
        self.house.configure(self.pair.source, wanted).await.unwrap();
    }

    async fn break_mapping(&mut self) {
        let wanted = match self.draw(2) {
            0 => ReplicationConfiguration::default(),
            _ => mapping(&self.pair.source_key, &self.pair.destination_key),
        };
        self.house.configure(self.pair.destination, wanted).await.unwrap();
    }

    async fn replace_source_key(&mut self) {
        let house = &self.house;
        house.delete_key(&self.pair.source_key).await;
        self.pair.source_key = house.key(&SOURCE_RIGHTS).await;
        if house.find_key(&self.pair.destination_key).is_none() {
            self.pair.destination_key = house.key(&DESTINATION_RIGHTS).await;
        }
        for destination in [self.pair.destination, self.second] {
            let mapped = mapping(&self.pair.source_key, &self.pair.destination_key);
            house.configure(destination, mapped).await.unwrap();
        }
        let again = rules(&self.pair.source_key, vec![rule("rule-one", self.pair.destination)]);
        house.configure(self.pair.source, again).await.unwrap();
    }

    /// I1, I3, I5, I6, I7, I11: what must hold at any moment.
    fn check(&mut self, at: usize) {
        let seed = self.seed;
        let sources: BTreeMap<_, _> =
            self.house.versions(self.pair.source).into_iter().map(|v| (v.number, v)).collect();
        let jobs = self.house.jobs();
        self.house.assert_booked_right(&format!("I4, seed {seed}, act {at}"));
        assert!(
            self.model.uploaded.iter().all(|number| sources.contains_key(number)),
            "I11, seed {seed}, act {at}"
        );
        let miscounted = "SELECT CAST(COUNT(*) AS BIGINT) FROM blobs b
                           WHERE refs <> (SELECT COUNT(*) FROM files f WHERE f.blob_id = b.blob_id)";
        let miscounted =
            self.house.app.catalog.read(|tx| Ok(find(tx, miscounted, &[], |row| row.int(0))?));
        assert_eq!(miscounted, Ok(Some(0)), "uses of blobs, seed {seed}, act {at}");
        for (number, version) in &sources {
            let states = jobs.iter().filter(|job| job.file_number == *number).map(|job| job.state);
            assert_eq!(
                version.replication,
                shown_status(false, states),
                "I3, seed {seed}, act {at}"
            );
        }
        let mut there = BTreeSet::new();
        for bucket in [self.pair.destination, self.second] {
            let mut origins = Vec::new();
            let replicas = self.house.versions(bucket);
            for replica in &replicas {
                assert_eq!(replica.replication, Some(ReplicationStatus::Replica), "seed {seed}");
                assert_eq!(replica.action, Action::Upload, "no hide marker travels, seed {seed}");
                origins.push(replica.origin);
                there.insert(replica.number);
                assert!(
                    jobs.iter().all(|job| job.file_number != replica.number),
                    "I5, seed {seed}"
                );
                if let Some(source) = sources.get(&replica.origin) {
                    let equal =
                        (source.sha1, source.size, source.upload_at, &source.info, &source.name)
                            == (
                                replica.sha1,
                                replica.size,
                                replica.upload_at,
                                &replica.info,
                                &replica.name,
                            );
                    assert!(equal, "I6, seed {seed}, act {at}");
                    assert_eq!(replica.blob, source.blob, "the same bytes, seed {seed}");
                }
            }
            let count = origins.len();
            origins.sort_unstable();
            origins.dedup();
            assert_eq!(
                origins.len(),
                count,
                "I1: a version has one replica, seed {seed}, act {at}"
            );
            let order: Vec<_> = replicas
                .iter()
                .map(|r| (r.name.clone(), std::cmp::Reverse((r.upload_at, r.origin))))
                .collect();
            assert!(order.is_sorted(), "I7, seed {seed}");
        }
        assert!(there.is_superset(&self.model.replicas), "I11, seed {seed}, act {at}");
        self.model.replicas = there;
    }

    /// I2: at rest, what was pending or existed when a rule asked for it is carried, or failed for
    /// a reason that is on record.
    async fn check_at_rest(&mut self) {
        let seed = self.seed;
        let mut asking = rule("rule-one", self.pair.destination);
        asking.include_existing_files = true;
        // Whatever the rules were before, this one asks anew.
        for wanted in
            [ReplicationConfiguration::default(), rules(&self.pair.source_key, vec![asking])]
        {
            self.house.configure(self.pair.source, wanted).await.unwrap();
        }
        self.house.drain().await;
        self.check(ACTS);
        let jobs = self.house.jobs();
        let to_destination: BTreeSet<FileNumber> = jobs
            .iter()
            .filter(|job| job.of_rule().destination == self.pair.destination)
            .map(|job| job.file_number)
            .collect();
        assert!(to_destination.is_superset(&self.model.uploaded), "seed {seed}: scanned");
        for number in self.model.expected.keys() {
            let has_job = jobs.iter().any(|job| job.file_number.0 == *number);
            assert!(has_job, "seed {seed}: no job for {number:x}");
        }
        for job in jobs {
            let there = self.house.versions(job.of_rule().destination);
            let carried = there.iter().any(|replica| replica.origin == job.file_number);
            match job.state {
                JobState::Done => assert!(carried, "seed {seed}: done without a replica"),
                JobState::Failed => {
                    assert!(!carried, "seed {seed}: failed with a replica");
                    assert!(job.last_reason.is_some(), "seed {seed}: no reason");
                }
                JobState::Cancelled => {
                    assert!(!carried, "seed {seed}: cancelled with a replica");
                    assert!(!self.model.uploaded.contains(&job.file_number), "seed {seed}");
                }
                other => panic!("seed {seed}: {other:?} at rest"),
            }
        }
    }
}

async fn run(seed: u64) {
    let house = TestHouse::open_in_memory().await;
    let pair = house.pair().await;
    let second = house.bucket("second-target").await;
    house.configure(second, mapping(&pair.source_key, &pair.destination_key)).await.unwrap();
    let mut run = Run { house, pair, second, model: Model::default(), seed, state: seed };
    for at in 0..ACTS {
        run.act().await;
        if at % 10 == 0 {
            run.check(at);
        }
    }
    assert!(run.house.clock.now().0 > 0);
    run.check_at_rest().await;
}

/// The seeds are spread over a few tests, so that they run side by side.
async fn share(part: u64) {
    for seed in (0..SEEDS).filter(|seed| seed % 4 == part) {
        run(seed).await;
    }
}

#[tokio::test]
async fn replication_76_204_218_random_runs_hold_every_invariant_first_share() {
    share(0).await;
}

#[tokio::test]
async fn replication_76_204_218_random_runs_hold_every_invariant_second_share() {
    share(1).await;
}

#[tokio::test]
async fn replication_76_204_218_random_runs_hold_every_invariant_third_share() {
    share(2).await;
}

#[tokio::test]
async fn replication_76_204_218_random_runs_hold_every_invariant_fourth_share() {
    share(3).await;
}
