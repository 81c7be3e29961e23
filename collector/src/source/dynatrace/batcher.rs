//! Several who ask the same at about the same time are served by one run: who comes while a run is under way gathers for
//! the next. Nobody waits for company when nobody is there.

use crate::source::{Failure, FailureKind};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vouch_proto::Window;

/// How long the first waits for others, real time: about as long as it takes all that wake at the same minute.
const GATHER: Duration = Duration::from_millis(20);
/// Most members of a run; who comes then begins the next.
const MOST_MEMBERS: usize = 2000;
/// Longest window that members' windows are joined to.
const LONGEST_MINUTES: i64 = 15;

type Shared<V> = Arc<Result<V, Failure>>;

/// Gathers askers by what they ask.
#[derive(Debug)]
pub(super) struct Batcher<K, V> {
    open: Mutex<BTreeMap<Lane<K>, Gathering<V>>>,
    /// One run of a kind at a time: the next gathers meanwhile.
    lanes: Mutex<BTreeMap<Lane<K>, Arc<tokio::sync::Mutex<()>>>>,
}

/// What is asked, and for a long window exactly which: only short ones are joined to their hull.
type Lane<K> = (K, Option<Window>);

#[derive(Debug)]
struct Gathering<V> {
    members: BTreeSet<String>,
    window: Window,
    answer: watch::Receiver<Option<Shared<V>>>,
}

/// The part of whoever asks.
enum Part<V> {
    /// Runs for all.
    Leads(watch::Sender<Option<Shared<V>>>),
    /// Waits for whoever runs.
    Follows(watch::Receiver<Option<Shared<V>>>),
    /// Asks for another time than the rest.
    Alone,
}

impl<K, V> Default for Batcher<K, V> {
    fn default() -> Self {
        Self { open: Mutex::default(), lanes: Mutex::default() }
    }
}

/// Leaves a lane, however it ends: whoever is dropped before its run takes its gathering away, and the last one the lane.
struct Leaving<'a, K: Ord, V> {
    batcher: &'a Batcher<K, V>,
    lane: &'a Lane<K>,
    gathers: bool,
}

impl<K: Ord, V> Drop for Leaving<'_, K, V> {
    fn drop(&mut self) {
        if self.gathers {
            self.batcher.open.lock().unwrap_or_else(PoisonError::into_inner).remove(self.lane);
        }
        let mut lanes = self.batcher.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.get(self.lane).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            lanes.remove(self.lane);
        }
    }
}

impl<K: Ord + Clone, V> Batcher<K, V> {
    /// Joins the next run about `key`, for some members over a window. `run` is given all members and the hull of
    /// their windows; it is called for whoever came first.
    pub(super) async fn join<F: Future<Output = Result<V, Failure>>>(
        &self,
        key: &K,
        (members, window): (&BTreeSet<String>, Window),
        run: impl Fn(BTreeSet<String>, Window) -> F,
    ) -> Shared<V> {
        let lane = (key.clone(), (window.minutes() > LONGEST_MINUTES).then_some(window));
        loop {
            match self.take_part(&lane, (members, window)) {
                Part::Alone => return Arc::new(run(members.clone(), window).await),
                Part::Leads(answer) => {
                    let shared = Arc::new(self.lead(&lane, &run).await);
                    answer.send_replace(Some(shared.clone()));
                    return shared;
                }
                Part::Follows(mut answer) => {
                    // Whoever led may have given up; then somebody else leads.
                    if let Ok(known) = answer.wait_for(Option::is_some).await
                        && let Some(shared) = known.clone()
                    {
                        return shared;
                    }
                }
            }
        }
    }

    fn take_part(&self, lane: &Lane<K>, (members, window): (&BTreeSet<String>, Window)) -> Part<V> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(lane) {
            None => {
                let (sender, answer) = watch::channel(None);
                open.insert(lane.clone(), Gathering { members: members.clone(), window, answer });
                Part::Leads(sender)
            }
            Some(gathering) => {
                let start = gathering.window.start().min(window.start());
                let end = gathering.window.end().max(window.end());
                let joins = |hull: &Window| hull.minutes() <= LONGEST_MINUTES || *hull == window;
                let hull = Window::new(start, end).ok().filter(joins);
                match hull {
                    Some(hull) if gathering.members.len() + members.len() <= MOST_MEMBERS => {
                        gathering.window = hull;
                        gathering.members.extend(members.iter().cloned());
                        Part::Follows(gathering.answer.clone())
                    }
                    Some(_) | None => Part::Alone,
                }
            }
        }
    }

    async fn lead<F: Future<Output = Result<V, Failure>>>(
        &self,
        lane: &Lane<K>,
        run: &impl Fn(BTreeSet<String>, Window) -> F,
    ) -> Result<V, Failure> {
        let mut leaving = Leaving { batcher: self, lane, gathers: true };
        tokio::time::sleep(GATHER).await;
        let turns = self
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(lane.clone())
            .or_default()
            .clone();
        let _turn = turns.lock().await;
        leaving.gathers = false;
        let gathered = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(lane);
        match gathered {
            Some(Gathering { members, window, .. }) => run(members, window).await,
            // Nobody else takes it away.
            None => Err(Failure::new(
                FailureKind::Unavailable,
                "the gathered calls were lost; they are asked for again",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use vouch_proto::Timestamp;

    fn window(from: i64, to: i64) -> Window {
        Window::around(Timestamp::from_millis(0), from, to).unwrap()
    }

    fn one(member: &str) -> BTreeSet<String> {
        BTreeSet::from([member.to_owned()])
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_a_run_is_under_way_gathers_for_the_next() {
        let batcher: Batcher<u8, Vec<String>> = Batcher::default();
        let runs = AtomicUsize::new(0);
        let run = |members: BTreeSet<String>, hull: Window| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let mut seen: Vec<String> = members.into_iter().collect();
                seen.push(hull.minutes().to_string());
                Ok(seen)
            }
        };
        let ask = |member: &'static str, after: u64, minutes: (i64, i64)| {
            let (batcher, run) = (&batcher, &run);
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                let answer = batcher.join(&1, (&one(member), window(minutes.0, minutes.1)), run).await;
                answer.as_ref().as_ref().unwrap().clone()
            }
        };
        let (a, b, c, d, e) = tokio::join!(
            ask("a", 0, (0, 1)),
            ask("b", 10, (-3, 1)),
            ask("c", 100, (0, 1)),
            ask("d", 150, (0, 1)),
            ask("e", 160, (-60, -20)),
        );
        assert_eq!(a, ["a", "b", "4"], "one run over the hull");
        assert_eq!((a, c.clone()), (b, d));
        assert_eq!(c, ["c", "d", "1"]);
        assert_eq!(e, ["e", "40"], "another time is asked for alone");
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        assert!(batcher.lanes.lock().unwrap().is_empty() && batcher.open.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_whoever_leads_is_dropped_another_leads() {
        let batcher: Arc<Batcher<u8, u8>> = Arc::default();
        let run = |_: BTreeSet<String>, _: Window| async { Ok(7) };
        let led = {
            let batcher = batcher.clone();
            async move { batcher.join(&1, (&one("a"), window(0, 1)), run).await }
        };
        let dropped = tokio::time::timeout(Duration::from_millis(5), led);
        let follows = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            batcher.join(&1, (&one("b"), window(0, 1)), run).await
        };
        let (gone, answer) = tokio::join!(dropped, follows);
        assert!(gone.is_err());
        assert_eq!(answer.as_ref().as_ref().unwrap(), &7);
        assert!(batcher.lanes.lock().unwrap().is_empty() && batcher.open.lock().unwrap().is_empty());
    }
}
