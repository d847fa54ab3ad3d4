//! Drives workers against a server in a closed loop and keeps what was observed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::spawn_local;

use crate::Fallible;
use crate::bodies::Random;
use crate::http::Connection;
use crate::process::{Usage, Watch};

/// One connection's way of doing one operation after the other.
pub(crate) trait Worker {
    /// Does one operation and returns how many body bytes it moved.
    async fn turn(&mut self) -> Fallible<u64>;
}

/// When a round ends; whichever limit comes first.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    time: Duration,
    turns: u64,
}

impl Bound {
    pub(crate) fn time(time: Duration) -> Self {
        Self { time, turns: u64::MAX }
    }

    /// Exactly this many operations, unless ten minutes were not enough for them.
    pub(crate) fn turns(turns: u64) -> Self {
        Self { time: Duration::from_mins(10), turns }
    }

    pub(crate) fn and_turns(self, turns: u64) -> Self {
        Self { turns, ..self }
    }
}

/// What one round of a workload came to.
pub(crate) struct Round {
    pub turns: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub usage: Usage,
    /// Sorted, in microseconds.
    pub latencies: Vec<u32>,
}

impl Round {
    pub(crate) fn new(mut latencies: Vec<u32>, bytes: u64, seconds: f64, usage: Usage) -> Self {
        latencies.sort_unstable();
        Self { turns: latencies.len() as u64, bytes, seconds, usage, latencies }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.turns as f64 / self.seconds
    }

    pub(crate) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// The latency in milliseconds that this share of the operations did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).map_or(0.0, |&micros| f64::from(micros) / 1e3)
    }

    pub(crate) fn cpu_per_thousand(&self) -> f64 {
        self.usage.server * 1e3 / self.turns as f64
    }

    pub(crate) fn cpu_per_gigabyte(&self) -> f64 {
        self.usage.server * 1e9 / self.bytes as f64
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "operations": self.turns,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "rate": self.rate(),
            "p50Ms": self.quantile(0.50),
            "p99Ms": self.quantile(0.99),
            "serverCpuSeconds": self.usage.server,
            "clientCpuSeconds": self.usage.client,
            "foreignCpuShare": self.usage.foreign_share,
        })
    }
}

/// The latency of one operation as it is kept.
pub(crate) fn micros(latency: Duration) -> u32 {
    u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)
}

/// Lets every worker take turns until the bound is reached, and hands the workers back.
pub(crate) async fn drive<W: Worker + 'static>(
    workers: Vec<W>,
    bound: Bound,
    watch: &Watch,
) -> Fallible<(Round, Vec<W>)> {
    let taken = Rc::new(Cell::new(0));
    let before = watch.sample()?;
    let start = Instant::now();
    let deadline = start + bound.time;
    let mut tasks = Vec::with_capacity(workers.len());
    for mut worker in workers {
        let taken = Rc::clone(&taken);
        tasks.push(spawn_local(async move {
            let mut latencies = Vec::with_capacity(4096);
            let mut bytes = 0;
            let mut mark = Instant::now();
            while mark < deadline && taken.get() < bound.turns {
                taken.set(taken.get() + 1);
                bytes += worker.turn().await?;
                let now = Instant::now();
                latencies.push(micros(now - mark));
                mark = now;
            }
            Fallible::Ok((worker, latencies, bytes))
        }));
    }
    // Every task is awaited before a failure is passed on, so that none outlives its workload.
    let mut ended = Vec::with_capacity(tasks.len());
    for task in tasks {
        ended.push(task.await?);
    }
    let seconds = start.elapsed().as_secs_f64();
    let usage = before.until(&watch.sample()?);
    let mut latencies = Vec::new();
    let mut bytes = 0;
    let mut workers = Vec::with_capacity(ended.len());
    for end in ended {
        let (worker, mut own, moved) = end?;
        latencies.append(&mut own);
        bytes += moved;
        workers.push(worker);
    }
    Ok((Round::new(latencies, bytes, seconds, usage), workers))
}

/// As [`drive`], after a short run that is not counted: connections grow their windows and the
/// server its caches.
pub(crate) async fn drive_warm<W: Worker + 'static>(
    workers: Vec<W>,
    bound: Bound,
    watch: &Watch,
) -> Fallible<Round> {
    let warm_up = Bound::time((bound.time / 10).min(Duration::from_secs(1)));
    let (_, workers) = drive(workers, warm_up, watch).await?;
    Ok(drive(workers, bound, watch).await?.0)
}

/// Sends prepared requests without bodies in random order.
pub(crate) struct Ask {
    connection: Connection,
    requests: Rc<Vec<Vec<u8>>>,
    random: Random,
    /// A shorter answer than this is not the one that was asked for.
    at_least: u64,
}

impl Ask {
    pub(crate) fn new(
        connection: Connection,
        requests: &Rc<Vec<Vec<u8>>>,
        seed: u64,
        at_least: u64,
    ) -> Self {
        Self { connection, requests: Rc::clone(requests), random: Random::new(seed + 1), at_least }
    }
}

impl Worker for Ask {
    async fn turn(&mut self) -> Fallible<u64> {
        let picked = self.random.below(self.requests.len());
        let length = self.connection.exchange(&[&self.requests[picked]]).await?;
        if length < self.at_least {
            return Err(format!("an answer of {length} bytes is too short").into());
        }
        Ok(length)
    }
}
