//! The figures of streams and of the targets that they go to, as operators see them.

use std::sync::Arc;

use crate::catalog::replication::{self, Breaker};
use crate::catalog::{remotes, streams};
use crate::domain::stream::Stream;
use crate::domain::time::Steady;
use crate::metrics::StreamFigures;
use crate::operations::App;
use crate::operations::error::Error;

/// What a stream is doing.
#[derive(Clone, Debug)]
pub(crate) struct StreamView {
    pub(crate) stream: Stream,
    pub(crate) figures: Arc<StreamFigures>,
    /// How long the oldest unfinished job has waited, in milliseconds; 0 when none waits. It grows
    /// while the stream is paused, too.
    pub(crate) oldest_pending_ms: u64,
    pub(crate) in_flight: i64,
}

/// What stands between the jobs of a target and its being asked.
#[derive(Clone, Debug)]
pub(crate) struct TargetView {
    pub(crate) target: String,
    pub(crate) breaker: BreakerState,
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerState {
    Closed,
    /// One job finds out whether the target is well again.
    HalfOpen,
    Open,
}

impl BreakerState {
    pub(crate) fn of(breaker: &Breaker, now: Steady) -> Self {
        match breaker {
            breaker if breaker.open_until > now => Self::Open,
            breaker if breaker.is_tripped() => Self::HalfOpen,
            _ => Self::Closed,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    pub(crate) fn as_number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// All of it, read at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamsView {
    pub(crate) streams: Vec<StreamView>,
    /// Targets with failures; all others are well.
    pub(crate) targets: Vec<TargetView>,
    pub(crate) remotes: i64,
    /// Unfinished files at remotes that are still to be given up there.
    pub(crate) orphans: i64,
}

/// Looks at all streams. Costs a few searches for each stream, however long its queue.
pub(crate) fn view_streams(app: &App) -> Result<StreamsView, Error> {
    let now = app.waits.now();
    let (found, breakers, remotes, orphans) = app.catalog.read(|tx| {
        let mut found = Vec::new();
        for stream in streams::list_streams(tx, &streams::StreamRows::default())? {
            let oldest = replication::oldest_of_stream(tx, stream.id)?;
            let in_flight = replication::count_leased_of_stream(tx, stream.id)?;
            found.push((stream, oldest, in_flight));
        }
        let breakers = replication::list_breakers(tx)?;
        Ok((found, breakers, remotes::count_remotes(tx, None)?, remotes::count_orphans(tx)?))
    })?;
    let streams = found.into_iter().map(|(stream, oldest, in_flight)| StreamView {
        figures: app.metrics.stream(stream.id),
        oldest_pending_ms: oldest.map_or(0, |at| u64::try_from(now.0 - at.0).unwrap_or_default()),
        in_flight,
        stream,
    });
    let targets = breakers
        .iter()
        .map(|one| TargetView { target: one.target.clone(), breaker: BreakerState::of(one, now) })
        .collect();
    Ok(StreamsView { streams: streams.collect(), targets, remotes, orphans })
}
