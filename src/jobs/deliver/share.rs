//! Who gets how many of the workers that deliver events.
//!
//! A target may take its full time for every request. So one host has at most a quarter of the
//! workers, the rules of one account at most half, and those that have been failing half of either;
//! the rest is always there for others.

use std::collections::BTreeMap;

use crate::domain::ids::AccountId;

/// What is known of a queue that is due.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// None when its bucket is gone, and nothing is sent.
    pub(super) account: Option<AccountId>,
    /// Empty when its target cannot be read, and nothing is sent.
    pub(super) host: String,
    pub(super) is_failing: bool,
    /// Events; more workers than these are of no use.
    pub(super) waiting: usize,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    workers: usize,
}

/// The queues that are being worked on.
#[derive(Debug)]
pub(super) struct Flights {
    workers: usize,
    held: BTreeMap<i64, Held>,
}

impl Flights {
    pub(super) fn of(workers: usize) -> Self {
        Self { workers: workers.max(1), held: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn any_free(&self) -> bool {
        self.busy(|_| true) < self.workers
    }

    fn busy(&self, which: impl Fn(&Claim) -> bool) -> usize {
        self.held.values().filter(|held| which(&held.claim)).map(|held| held.workers).sum()
    }

    /// Whether one more worker may go to such a queue.
    fn has_room(&self, claim: &Claim) -> bool {
        let part = |of: usize| (self.workers / of).max(1);
        let of_host = self.busy(|one| one.host == claim.host);
        let of_account = self.busy(|one| one.account == claim.account);
        let failing = self.busy(|one| one.is_failing);
        let failing_of_account = self.busy(|one| one.is_failing && one.account == claim.account);
        self.any_free()
            && of_host < part(4)
            && of_account < part(2)
            && (!claim.is_failing || (failing < part(2) && failing_of_account < part(4)))
    }

    /// Gives a queue a worker; false when it has one, or may have none.
    pub(super) fn begin(&mut self, queue: i64, claim: Claim) -> bool {
        if self.held.contains_key(&queue) || !self.has_room(&claim) {
            return false;
        }
        self.held.insert(queue, Held { claim, workers: 1 });
        true
    }

    /// Gives what is free to queues with more events than workers, in turn. One that has been
    /// failing is tried with one request.
    pub(super) fn widen(&mut self, queues: &[i64]) {
        let mut any_given = true;
        while any_given {
            any_given = false;
            for queue in queues {
                let Some(held) = self.held.get(queue) else { continue };
                let asks = !held.claim.is_failing && held.workers < held.claim.waiting;
                if !asks || !self.has_room(&held.claim) {
                    continue;
                }
                if let Some(held) = self.held.get_mut(queue) {
                    held.workers += 1;
                    any_given = true;
                }
            }
        }
    }

    pub(super) fn workers_of(&self, queue: i64) -> usize {
        self.held.get(&queue).map_or(0, |held| held.workers)
    }

    pub(super) fn end(&mut self, queue: i64) {
        self.held.remove(&queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(account: u8, host: &str, is_failing: bool, waiting: usize) -> Claim {
        let account = Some(AccountId::from_bytes([account; 6]));
        Claim { account, host: host.to_owned(), is_failing, waiting }
    }

    /// How many of a hundred such queues get a worker.
    fn begun(flights: &mut Flights, from: i64, claim: impl Fn(i64) -> Claim) -> usize {
        (from..from + 100).filter(|&queue| flights.begin(queue, claim(queue))).count()
    }

    #[test]
    fn a_host_gets_a_quarter_an_account_half_and_failing_queues_half_of_that() {
        let mut flights = Flights::of(16);
        assert_eq!(begun(&mut flights, 0, |_| claim(1, "slow", false, 9)), 4);
        assert_eq!(begun(&mut flights, 100, |at| claim(1, &format!("h{at}"), true, 9)), 4);
        assert_eq!(begun(&mut flights, 200, |at| claim(1, &format!("h{at}"), false, 9)), 0);
        assert_eq!(begun(&mut flights, 300, |_| claim(2, "slow", false, 9)), 0, "the same host");
        assert_eq!(begun(&mut flights, 400, |at| claim(2, &format!("h{at}"), true, 9)), 4);
        assert_eq!(begun(&mut flights, 500, |at| claim(3, &format!("h{at}"), true, 9)), 0);
        assert_eq!(begun(&mut flights, 600, |at| claim(3, &format!("h{at}"), false, 9)), 4);
        assert!(!flights.any_free());
        assert!(!flights.begin(0, claim(4, "other", false, 1)), "it is under way");
        flights.end(0);
        assert!(flights.any_free() && flights.begin(0, claim(4, "slow", false, 1)));
    }

    #[test]
    fn a_single_worker_serves_everybody_in_turn() {
        let mut flights = Flights::of(0);
        assert!(flights.begin(1, claim(1, "h", true, 9)));
        assert!(!flights.begin(2, claim(2, "i", false, 9)));
        flights.widen(&[1]);
        assert_eq!(flights.workers_of(1), 1);
        flights.end(1);
        assert!(flights.is_empty() && flights.begin(2, claim(2, "i", false, 9)));
    }

    #[test]
    fn what_is_free_goes_to_queues_that_have_use_for_it() {
        let mut flights = Flights::of(16);
        for (queue, host, is_failing, waiting) in
            [(1, "a", false, 100), (2, "b", false, 2), (3, "c", true, 100), (4, "b", false, 100)]
        {
            assert!(flights.begin(queue, claim(1, host, is_failing, waiting)));
        }
        flights.widen(&[1, 2, 3, 4]);
        let workers = [1, 2, 3, 4].map(|queue| flights.workers_of(queue));
        assert_eq!(workers, [3, 2, 1, 2], "eight of the account, four of each host");
    }
}
