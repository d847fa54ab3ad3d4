//! What a target that hangs costs one that is well, measured in virtual time (replication.md C6, row
//! F71, I10). Nothing here waits for real time: the clock moves when every attempt under way is at
//! its destination.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::clock::Clock as _;
use crate::domain::ids::BucketId;
use crate::domain::replication::JobState;
use crate::operations::App;
use crate::replication::destination::{Carried, Destination, Failure, Progress};
use crate::replication::gate::Passed;
use crate::replication::{Engine, EngineOptions};
use crate::testing::{TestHouse, mapping, rule, rules};

/// Jobs of each of the two targets.
const JOBS: usize = 500;
const TICK_MS: i64 = 50;
/// Five files a second for each target.
const TICKS_BETWEEN_UPLOADS: usize = 4;

/// Destinations that answer when they are told to.
#[derive(Default)]
struct Wires {
    waiting: Mutex<Vec<(BucketId, oneshot::Sender<()>)>>,
}

impl Destination for Wires {
    fn carry<'a>(
        &'a self,
        _: &'a App,
        passed: &'a Passed,
        _: &'a Progress,
    ) -> BoxFuture<'a, Result<Carried, Failure>> {
        async move {
            let (answer, answered) = oneshot::channel();
            self.waiting.lock().unwrap().push((passed.destination.id, answer));
            answered.await.expect("a target either hangs or answers");
            Ok(Carried::Shared)
        }
        .boxed()
    }
}

impl Wires {
    /// Attempts that are at their destination; those that were given up are not.
    fn count(&self) -> usize {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.retain(|(_, answer)| !answer.is_closed());
        waiting.len()
    }

    /// Answers everything that is at `destination`.
    fn answer(&self, destination: BucketId) {
        let mut waiting = self.waiting.lock().unwrap();
        let (well, rest) = waiting.drain(..).partition(|(at, _)| *at == destination);
        *waiting = rest;
        for (_, answer) in well as Vec<(BucketId, oneshot::Sender<()>)> {
            answer.send(()).unwrap_or_default();
        }
    }
}

/// What became of one run.
#[derive(Debug)]
struct Measured {
    /// Of the healthy target's jobs, from their making to their end, sorted; in virtual time.
    lags_ms: Vec<i64>,
    /// Attempts that the dead target has cost.
    burnt: u64,
}

impl Measured {
    fn p99(&self) -> i64 {
        self.lags_ms[self.lags_ms.len() * 99 / 100]
    }
}

struct Bench {
    house: TestHouse,
    engine: Arc<Engine>,
    wires: Arc<Wires>,
}

impl Bench {
    /// The engine starts what it can, and each attempt comes to its destination.
    async fn look(&self) {
        while self.engine.round().await.unwrap() {}
        self.until_settled().await;
    }

    /// Until nothing is under way but what waits for an answer.
    async fn until_settled(&self) {
        let settled = async {
            while self.engine.in_flight() != self.wires.count() {
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(30);
        tokio::time::timeout(patience, settled).await.expect("attempts come to an end");
    }
}

/// Runs `JOBS` jobs to a healthy target and as many to another one, which hangs when `dies` is set and
/// is not used otherwise.
async fn measure(options: EngineOptions, dies: bool) -> Measured {
    let house = TestHouse::open_in_memory().await;
    let dead = house.pair().await;
    let (well_source, well) =
        (house.bucket("well-source").await, house.bucket("well-target").await);
    house.configure(well, mapping(&dead.source_key, &dead.destination_key)).await.unwrap();
    let to_well = rules(&dead.source_key, vec![rule("rule-well", well)]);
    house.configure(well_source, to_well).await.unwrap();
    let wires = Arc::new(Wires::default());
    let destination: Arc<dyn Destination> = Arc::<Wires>::clone(&wires);
    let engine =
        Engine::new(Arc::clone(&house.app), options, destination, Arc::new(house.remote.clone()));
    let bench = Bench { house, engine, wires };
    let mut uploaded = 0;
    // On after the last upload: 10 minutes more for the dead one to burn attempts in.
    for tick in 0..JOBS * TICKS_BETWEEN_UPLOADS + 600 {
        if tick % TICKS_BETWEEN_UPLOADS == 0 && uploaded < JOBS {
            if dies {
                bench.house.upload(dead.source, &format!("d{uploaded}"), b"x").await;
            }
            bench.house.upload(well_source, &format!("w{uploaded}"), b"x").await;
            uploaded += 1;
        }
        bench.look().await;
        bench.house.clock.advance(if uploaded < JOBS { TICK_MS } else { 1_000 });
        bench.wires.answer(well);
        bench.until_settled().await;
    }
    let jobs = bench.house.jobs();
    let of_well = || jobs.iter().filter(|job| job.of_rule().destination == well);
    assert_eq!(of_well().count(), JOBS);
    assert!(
        jobs.iter().all(|job| job.of_rule().destination == well || job.state != JobState::Done)
    );
    // Lags of those made near the end would be in ticks of a second.
    let mut lags_ms: Vec<i64> = of_well()
        .take(JOBS - 1)
        .map(|job| job.finished_at.expect("it is done").0 - job.enqueued_at.0)
        .collect();
    lags_ms.sort_unstable();
    Measured { lags_ms, burnt: bench.house.app.metrics.replication_retries.value() }
}

#[tokio::test]
async fn f71_replication_198_a_thousand_jobs_a_target_that_hangs_leaves_the_lag_of_a_healthy_one_alone()
 {
    let options = EngineOptions { workers: 8, target_max_inflight: 4, mapping_grace_ms: 0 };
    let alone = measure(options.clone(), false).await;
    let beside_a_dead_one = measure(options, true).await;
    assert_eq!(alone.p99(), TICK_MS, "each is carried in its own tick");
    assert_eq!(beside_a_dead_one.lags_ms, alone.lags_ms, "to the millisecond");
    // Four that hang for a minute, four more, and the breaker lets one in at a time from then on.
    let burnt = beside_a_dead_one.burnt;
    assert!((8..=20).contains(&burnt), "{burnt} attempts burnt in eleven minutes");
}

/// The negative control: without the limit of a target the dead one takes all workers.
#[tokio::test]
async fn f71_without_a_limit_for_targets_the_measure_sees_the_harm() {
    let options = EngineOptions { workers: 8, target_max_inflight: 8, mapping_grace_ms: 0 };
    let harmed = measure(options, true).await;
    assert!(harmed.p99() > 20 * TICK_MS, "{:?}", harmed.p99());
}
