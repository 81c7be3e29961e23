//! The calls of a minute that a replica may make: its share of the tenant's budget, by how many replicas live.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use vouch_proto::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);

/// What a tenant may be asked in a minute, and by how many.
#[derive(Debug, Clone)]
pub(super) struct CallBudget {
    /// Calls of a minute, of all replicas together; `None` for any number.
    pub(super) calls_per_minute: Option<usize>,
    /// How many replicas live, this one among them.
    pub(super) replicas: watch::Receiver<usize>,
}

/// The share of one replica, and what it has spent of it.
#[derive(Debug)]
pub(super) struct Share {
    budget: CallBudget,
    now: usize,
    /// What it grows to, and when: what those that are gone have spent is over then.
    grows: Option<(usize, Timestamp)>,
    /// When the calls of the last minute began, the oldest first.
    spent: VecDeque<Timestamp>,
}

impl Share {
    /// Of a budget, from `now` on. Where others live already, they may have spent all of it just before: the share of
    /// whoever joins them comes little by little within its first minute.
    pub(super) fn new(budget: CallBudget, now: Timestamp) -> Self {
        let share = part(&budget);
        let mut spent = VecDeque::new();
        if budget.calls_per_minute.is_some() && *budget.replicas.borrow() > 1 {
            let calls = u32::try_from(share).unwrap_or(u32::MAX);
            let begun = now.minus(MINUTE);
            spent.extend((1..=calls).map(|call| begun.plus(MINUTE * call / calls)));
        }
        Self { budget, now: share, grows: None, spent }
    }

    /// Of a budget that nobody shares.
    #[cfg(test)]
    pub(super) fn alone(calls_per_minute: Option<usize>) -> Self {
        let (_, replicas) = watch::channel(1);
        Self::new(CallBudget { calls_per_minute, replicas }, Timestamp::from_millis(0))
    }

    /// Calls of the minute before `now`, and the most of a minute.
    pub(super) fn spent(&mut self, now: Timestamp) -> (usize, Option<usize>) {
        if self.budget.calls_per_minute.is_none() {
            return (0, None);
        }
        while self.spent.front().is_some_and(|first| first.plus(MINUTE) <= now) {
            self.spent.pop_front();
        }
        let target = part(&self.budget);
        if target <= self.now {
            (self.now, self.grows) = (target, None);
        } else {
            match self.grows {
                Some((grown, at)) if grown == target && at <= now => (self.now, self.grows) = (target, None),
                Some((grown, _)) if grown == target => {}
                Some(_) | None => self.grows = Some((target, now.plus(MINUTE))),
            }
        }
        (self.spent.len(), Some(self.now))
    }

    /// Notes a call.
    pub(super) fn spend(&mut self, now: Timestamp) {
        if self.budget.calls_per_minute.is_some() {
            self.spent.push_back(now);
        }
    }

    /// When there is room for more, at the earliest; `None` where time changes nothing.
    pub(super) fn freed_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.spent(now);
        let first = self.spent.front().map(|first| first.plus(MINUTE));
        first.into_iter().chain(self.grows.map(|(_, at)| at)).min()
    }
}

/// Of several replicas each has the same.
fn part(budget: &CallBudget) -> usize {
    let replicas = (*budget.replicas.borrow()).max(1);
    (budget.calls_per_minute.unwrap_or(usize::MAX) / replicas).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn shared(calls: usize, replicas: usize) -> (watch::Sender<usize>, CallBudget) {
        let (sender, replicas) = watch::channel(replicas);
        (sender, CallBudget { calls_per_minute: Some(calls), replicas })
    }

    /// A replica that calls whenever it may: when, in seconds.
    struct Greedy(Share, Vec<i64>);

    impl Greedy {
        fn second(&mut self, second: i64) {
            while self.0.spent(at(second)).0 < self.0.spent(at(second)).1.unwrap() {
                self.0.spend(at(second));
                self.1.push(second);
            }
        }
    }

    fn most_in_a_minute(all: &[&Greedy], from: i64, to: i64) -> usize {
        let calls = |start: i64| {
            all.iter().flat_map(|one| &one.1).filter(|at| (start..start + 60).contains(*at)).count()
        };
        (from..to).map(calls).max().unwrap()
    }

    #[test]
    fn two_replicas_together_never_ask_more_than_the_budget() {
        let (replicas, budget) = shared(60, 1);
        let mut first = Greedy(Share::new(budget.clone(), at(0)), vec![]);
        (0..90).for_each(|second| first.second(second));
        assert_eq!(most_in_a_minute(&[&first], 0, 90), 60);
        replicas.send_replace(2);
        let mut second = Greedy(Share::new(budget, at(90)), vec![]);
        for now in 90..400 {
            first.second(now);
            second.second(now);
        }
        let both = [&first, &second];
        assert_eq!(most_in_a_minute(&both, 150, 340), 60);
        assert!(most_in_a_minute(&both, 0, 150) <= 90, "the minute of joining");
        // One dies: what it has spent counts until its minute is over.
        replicas.send_replace(1);
        (400..600).for_each(|now| first.second(now));
        let both = [&first, &second];
        assert_eq!(most_in_a_minute(&both, 340, 540), 60);
        assert_eq!(most_in_a_minute(&[&first], 470, 530), 60, "all of it is the other's now");
    }

    #[test]
    fn a_share_is_never_nothing_and_no_budget_is_no_bound() {
        let (_sender, budget) = shared(10, 30);
        assert_eq!(Share::new(budget, at(0)).spent(at(0)).1, Some(1));
        let mut free = Share::alone(None);
        (0..1000).for_each(|_| free.spend(at(0)));
        assert_eq!((free.spent(at(0)), free.freed_at(at(0))), ((0, None), None));
    }

    #[test]
    fn what_is_spent_is_kept_for_a_minute_and_no_longer() {
        let mut share = Share::alone(Some(3));
        (0..3).for_each(|second| share.spend(at(second)));
        assert_eq!((share.spent(at(59)), share.freed_at(at(59))), ((3, Some(3)), Some(at(60))));
        assert_eq!(share.spent(at(60)).0, 2);
        assert_eq!(share.spent(at(62)).0, 0);
    }
}
