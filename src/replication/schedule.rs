//! Which job goes next: deficit round robin over lanes, with bounds for targets.
//!
//! A lane is a target and a source bucket. Pure: it is told what is due and how much room there
//! is, and answers what to claim. So one bucket with a million jobs cannot keep others waiting,
//! and a dead target costs a healthy one nothing (replication.md C6).

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::replication::{BREAKER_FAILURES, Breaker, DueHead, JobOrigin};
use crate::domain::time::Steady;

/// Bytes a lane may carry before the next one has its turn.
const QUANTUM_BYTES: u64 = 8 * 1024 * 1024;
/// What a job costs beside its bytes.
const JOB_COST_BYTES: u64 = 64 * 1024;
/// Files from this size on may not take all the room there is.
pub(crate) const LARGE_BYTES: u64 = 128 * 1024 * 1024;
/// Of so many turns of a lane, one prefers jobs born in a scan.
const TURNS_PER_SCAN: u64 = 4;
const BREAKER_OPEN_MS_MAX: i64 = 300_000;

/// How long a breaker stays open after so many failures in a row, before jitter.
pub(crate) fn breaker_open_ms(failures: u32) -> Option<i64> {
    let beyond = failures.checked_sub(BREAKER_FAILURES)?;
    Some((1000_i64 << beyond.min(20)).min(BREAKER_OPEN_MS_MAX))
}

/// Room for more jobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// Jobs that may start in all.
    pub(crate) slots: usize,
    /// Large files that may start in all.
    pub(crate) large_slots: usize,
    /// Jobs one target may have in flight that has no limit of its own.
    pub(crate) target_max: usize,
    /// Targets with limits of their own.
    pub(crate) limits: BTreeMap<String, usize>,
    /// Lanes that may not start anything.
    pub(crate) paused_lanes: BTreeSet<String>,
    /// Jobs in flight by target.
    pub(crate) in_flight: BTreeMap<String, usize>,
    pub(crate) breakers: Vec<Breaker>,
    pub(crate) now: Steady,
}

impl Room {
    /// Jobs that a target may have in flight when all is well.
    fn max_of_target(&self, target: &str) -> usize {
        self.limits.get(target).copied().unwrap_or(self.target_max)
    }

    fn of_target(&self, target: &str) -> usize {
        let busy = self.in_flight.get(target).copied().unwrap_or_default();
        let breaker = self.breakers.iter().find(|breaker| breaker.target == target);
        let limit = match breaker {
            Some(breaker) if breaker.open_until > self.now => 0,
            // Half open: one real job finds out.
            Some(breaker) if breaker.is_tripped() => self.max_of_target(target).min(1),
            _ => self.max_of_target(target),
        };
        limit.saturating_sub(busy)
    }

    fn admits(&self, head: &DueHead) -> bool {
        let large = head.size >= LARGE_BYTES;
        let room = self.of_target(&head.target);
        let kept_free = usize::from(large && self.max_of_target(&head.target) > 1);
        let may_start = self.slots > 0 && !self.paused_lanes.contains(&head.lane);
        may_start && room > kept_free && (!large || self.large_slots > 0)
    }

    fn take(&mut self, head: &DueHead) {
        self.slots -= 1;
        if head.size >= LARGE_BYTES {
            self.large_slots = self.large_slots.saturating_sub(1);
        }
        *self.in_flight.entry(head.target.clone()).or_default() += 1;
    }
}

/// So many jobs of a lane shall be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) lane: String,
    pub(crate) origin: JobOrigin,
    pub(crate) count: usize,
}

/// Remembers whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    /// The lane that was served last.
    last: Option<String>,
    /// Bytes that the lane served last may still carry in its turn.
    credit: BTreeMap<String, u64>,
    turns: BTreeMap<String, u64>,
}

/// The first due jobs of one lane, by origin.
#[derive(Clone, Copy, Default)]
struct LaneHeads<'h> {
    upload: Option<&'h DueHead>,
    scan: Option<&'h DueHead>,
}

impl Scheduler {
    /// The lane from which due work is to be looked for, so that every lane has its turn.
    pub(crate) fn next_lane(&self) -> &str {
        self.last.as_deref().unwrap_or_default()
    }

    /// Answers what to claim now. `heads` are the first due jobs of lanes from
    /// [`Scheduler::next_lane`] on. When none of them may start, their turn is over.
    pub(crate) fn pick(&mut self, heads: &[DueHead], mut room: Room) -> Vec<Pick> {
        let mut lanes: BTreeMap<&str, LaneHeads<'_>> = BTreeMap::new();
        for head in heads {
            let lane = lanes.entry(&head.lane).or_default();
            match head.origin {
                JobOrigin::Upload => lane.upload = Some(head),
                JobOrigin::Scan => lane.scan = Some(head),
            }
        }
        self.turns.retain(|lane, _| lanes.contains_key(lane.as_str()));
        self.credit.retain(|lane, _| lanes.contains_key(lane.as_str()));
        let mut order: Vec<(&str, LaneHeads<'_>)> = lanes.into_iter().collect();
        let start = match &self.last {
            // The lane served last goes on while it has credit left.
            Some(last) if self.credit.contains_key(last) => {
                order.partition_point(|(lane, _)| *lane < last.as_str())
            }
            Some(last) => order.partition_point(|(lane, _)| *lane <= last.as_str()),
            None => 0,
        };
        let start = start.min(order.len());
        order.rotate_left(start);
        let mut picks: Vec<Pick> = Vec::new();
        let mut goes_on = true;
        // Each round hands every lane a quantum; a lane whose first job is dear saves up.
        loop {
            let mut may_start = false;
            for (lane, heads) in &order {
                if self.choose(lane, *heads).is_some_and(|head| room.admits(head)) {
                    may_start = true;
                    self.serve(lane, *heads, goes_on, &mut room, &mut picks);
                }
                goes_on = false;
            }
            if !may_start {
                break;
            }
        }
        if picks.is_empty()
            && let Some((lane, _)) = order.last()
        {
            self.credit.clear();
            self.last = Some((*lane).to_owned());
        }
        picks
    }

    /// The job of a lane that its turn prefers.
    fn choose<'h>(&self, lane: &str, heads: LaneHeads<'h>) -> Option<&'h DueHead> {
        let turn = self.turns.get(lane).copied().unwrap_or_default();
        let scan_first = turn % TURNS_PER_SCAN == TURNS_PER_SCAN - 1;
        if scan_first { heads.scan.or(heads.upload) } else { heads.upload.or(heads.scan) }
    }

    /// Serves a lane in its turn. A turn that `goes_on` has its quantum already.
    fn serve(
        &mut self,
        lane: &str,
        heads: LaneHeads<'_>,
        goes_on: bool,
        room: &mut Room,
        picks: &mut Vec<Pick>,
    ) {
        let left = self.credit.remove(lane);
        let mut credit = match left {
            Some(left) if goes_on => left,
            other => other.unwrap_or_default() + QUANTUM_BYTES,
        };
        while let Some(head) = self.choose(lane, heads).filter(|head| room.admits(head)) {
            let cost = head.size.saturating_add(JOB_COST_BYTES);
            if cost > credit {
                // It saves up for its next turn; what is left of a turn of cheap jobs is not kept.
                if cost > QUANTUM_BYTES {
                    self.credit.insert(lane.to_owned(), credit);
                }
                return;
            }
            credit -= cost;
            room.take(head);
            *self.turns.entry(lane.to_owned()).or_default() += 1;
            match picks.iter_mut().find(|pick| pick.lane == lane && pick.origin == head.origin) {
                Some(pick) => pick.count += 1,
                None => picks.push(Pick { lane: lane.to_owned(), origin: head.origin, count: 1 }),
            }
            self.last = Some(lane.to_owned());
        }
        self.credit.insert(lane.to_owned(), credit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lane: &str, target: &str, origin: JobOrigin, size: u64) -> DueHead {
        DueHead { lane: lane.to_owned(), target: target.to_owned(), origin, size }
    }

    fn room(slots: usize, target_max: usize) -> Room {
        Room { slots, large_slots: slots / 2, target_max, now: Steady(1000), ..Room::default() }
    }

    /// Ten thousand buckets with a job each for one target, and among them one with a million.
    #[test]
    fn f72_replication_199_every_lane_has_its_turn_before_a_long_one_has_another() {
        let mut jobs: BTreeMap<String, usize> =
            (0..9_999).map(|n| (format!("lane{n:05}"), 1)).collect();
        let long = "lane05000+".to_owned();
        jobs.insert(long.clone(), 1_000_000);
        let mut scheduler = Scheduler::default();
        let (mut of_long, mut of_others) = (0_usize, 0_usize);
        while of_others < 9_999 {
            // What is due is looked up a window at a time, as the engine does.
            let from = scheduler.next_lane().to_owned();
            let window = jobs.range(from.clone()..).chain(jobs.range(..from)).take(64);
            let heads: Vec<DueHead> =
                window.map(|(lane, _)| head(lane, "t", JobOrigin::Upload, 1)).collect();
            // The room of one claim is small; the quantum of a lane is 127 jobs of this size.
            let picks = scheduler.pick(&heads, room(8, 8));
            assert!(!picks.is_empty(), "there is always something to do");
            for pick in picks {
                if pick.lane == long {
                    of_long += pick.count;
                } else {
                    // More than there is may be asked for; a claim takes what there is.
                    of_others += 1;
                }
                let left = jobs.get_mut(&pick.lane).expect("only what is due is picked");
                *left = left.saturating_sub(pick.count);
                if *left == 0 {
                    jobs.remove(&pick.lane);
                }
            }
        }
        assert!((1..=127).contains(&of_long), "one quantum in one round: {of_long}");
    }

    #[test]
    fn replication_200_a_target_never_has_more_in_flight_than_its_limit() {
        let heads = [head("a", "t", JobOrigin::Upload, 1), head("b", "t", JobOrigin::Upload, 1)];
        let mut busy = room(8, 4);
        busy.in_flight.insert("t".to_owned(), 3);
        let picks = Scheduler::default().pick(&heads, busy);
        assert_eq!(picks.iter().map(|pick| pick.count).sum::<usize>(), 1);
    }

    #[test]
    fn replication_198_a_full_target_does_not_hold_up_another() {
        let heads =
            [head("a", "dead", JobOrigin::Upload, 1), head("b", "well", JobOrigin::Upload, 1)];
        let mut busy = room(4, 4);
        busy.in_flight.insert("dead".to_owned(), 4);
        let picks = Scheduler::default().pick(&heads, busy);
        assert_eq!(picks, [Pick { lane: "b".to_owned(), origin: JobOrigin::Upload, count: 4 }]);
    }

    #[test]
    fn replication_194_196_an_open_breaker_admits_nothing_and_a_half_open_one_a_single_job() {
        let heads = [head("a", "t", JobOrigin::Upload, 1)];
        let breaker = |failures, open_until| Breaker {
            target: "t".to_owned(),
            failures,
            open_until: Steady(open_until),
        };
        let picked = |breaker| {
            let with = Room { breakers: vec![breaker], ..room(4, 4) };
            Scheduler::default().pick(&heads, with).iter().map(|pick| pick.count).sum::<usize>()
        };
        assert_eq!(picked(breaker(5, 1001)), 0, "open");
        assert_eq!(picked(breaker(5, 1000)), 1, "half open");
        assert_eq!(picked(breaker(4, 0)), 4, "closed");
        assert_eq!(breaker_open_ms(4), None);
        assert_eq!(breaker_open_ms(5), Some(1000));
        assert_eq!(breaker_open_ms(40), Some(300_000));
    }

    #[test]
    fn replication_127_jobs_of_uploads_and_scans_go_three_to_one() {
        let heads = [head("a", "t", JobOrigin::Upload, 1), head("a", "t", JobOrigin::Scan, 1)];
        let picks = Scheduler::default().pick(&heads, room(8, 8));
        let count = |origin| picks.iter().find(|pick| pick.origin == origin).map(|pick| pick.count);
        assert_eq!((count(JobOrigin::Upload), count(JobOrigin::Scan)), (Some(6), Some(2)));
    }

    #[test]
    fn replication_201_large_files_take_at_most_half_of_the_slots() {
        let heads = [head("a", "t", JobOrigin::Upload, LARGE_BYTES)];
        let picks = Scheduler::default().pick(&heads, room(8, 8));
        assert_eq!(picks.iter().map(|pick| pick.count).sum::<usize>(), 4);
        let one_left = Scheduler::default().pick(&heads, room(8, 1));
        assert_eq!(one_left.len(), 1, "a target with one place takes large files too");
    }
}
