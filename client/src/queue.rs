//! The work queue of a controller: keys, each at most once in the queue and at most once in work.
//!
//! # Guarantees
//! - A key added while it is in work is worked on once more afterwards; many additions are one.
//! - A key added with a delay is worked on no earlier, and once, at its earliest time.
//! - Nothing is held for a key that is neither queued, delayed, in work, nor failing.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::backoff::{exponential, jittered, random};

/// How many keys may wait. A key is an object's name, so this is how many objects there can be; beyond it
/// [`Queue::take_overflow`] says that keys were dropped.
const MAX_KEYS: usize = 1 << 20;

/// The delay after a key's first failure, as client-go's `DefaultControllerRateLimiter`.
const FIRST_DELAY: Duration = Duration::from_millis(5);

/// The longest delay of a failing key. client-go's is 1,000 s, too long for somebody who has just mended the cause.
const MAX_DELAY: Duration = Duration::from_secs(120);

/// A queue of keys.
pub struct Queue<Q> {
    state: Mutex<State<Q>>,
    changed: Notify,
}

struct State<Q> {
    ready: VecDeque<Q>,
    /// All that is ready, or will be when its work is done.
    wanted: HashSet<Q>,
    in_work: HashSet<Q>,
    /// By time, with a number that keeps those of the same time apart.
    delayed: BTreeMap<(Instant, u64), Q>,
    delayed_at: HashMap<Q, (Instant, u64)>,
    failures: HashMap<Q, u32>,
    counter: u64,
    overflow: bool,
}

impl<Q> Default for Queue<Q> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            in_work: HashSet::new(),
            delayed: BTreeMap::new(),
            delayed_at: HashMap::new(),
            failures: HashMap::new(),
            counter: 0,
            overflow: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<Q: Clone + Eq + Hash> Queue<Q> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be worked on now.
    pub fn add(&self, key: Q) {
        if self.state.lock().want(key) {
            self.changed.notify_one();
        }
    }

    /// To be worked on after a delay. Of several delays the shortest counts.
    pub fn add_after(&self, key: Q, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.state.lock().delay(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// To be worked on again after a failure, with a delay that grows until [`Self::forget`].
    pub fn add_failed(&self, key: Q) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let whole = exponential(FIRST_DELAY, MAX_DELAY, *failures);
        *failures = failures.saturating_add(1);
        state.delay(key, Instant::now() + jittered(whole, random()));
        drop(state);
        self.changed.notify_one();
    }

    /// How often a key has failed in a row.
    pub fn failures(&self, key: &Q) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// A key has succeeded, its failures no longer count.
    pub fn forget(&self, key: &Q) {
        self.state.lock().failures.remove(key);
    }

    /// The next key, now in work: [`Self::done`] must be called with it. `None` when cancelled.
    pub async fn next(&self, cancel: &CancellationToken) -> Option<Q> {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.keys().next().map(|(due, _)| *due)
            };
            let changed = self.changed.notified();
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = changed => {}
                () = until(due) => {}
            }
        }
    }

    /// The work on a key has ended.
    pub fn done(&self, key: &Q) {
        let mut state = self.state.lock();
        state.in_work.remove(key);
        if state.wanted.contains(key) {
            state.ready.push_back(key.clone());
            self.changed.notify_one();
        }
    }

    /// How many keys are ready to be worked on.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether no key is ready to be worked on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether keys were dropped since the last call because there were too many: add all keys again.
    pub fn take_overflow(&self) -> bool {
        std::mem::take(&mut self.state.lock().overflow)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl<Q: Clone + Eq + Hash> State<Q> {
    /// Whether the key has become ready.
    fn want(&mut self, key: Q) -> bool {
        if self.wanted.contains(&key) {
            return false;
        }
        if self.wanted.len() >= MAX_KEYS {
            self.overflow = true;
            return false;
        }
        self.wanted.insert(key.clone());
        if self.in_work.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn delay(&mut self, key: Q, due: Instant) {
        if let Some(at) = self.delayed_at.get(&key).copied() {
            if at.0 <= due {
                return;
            }
            self.delayed.remove(&at);
        } else if self.delayed.len() >= MAX_KEYS {
            self.overflow = true;
            return;
        }
        self.counter += 1;
        let at = (due, self.counter);
        self.delayed.insert(at, key.clone());
        self.delayed_at.insert(key, at);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.delayed_at.remove(&key);
            self.want(key);
        }
    }

    fn take(&mut self) -> Option<Q> {
        let key = self.ready.pop_front()?;
        self.wanted.remove(&key);
        self.in_work.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(queue: &Queue<&'static str>) -> Option<&'static str> {
        tokio::time::timeout(Duration::from_secs(600), queue.next(&CancellationToken::new())).await.ok().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_in_work_once_and_again_afterwards() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(next(&queue).await, Some("a"));
        queue.add("a");
        assert_eq!(next(&queue).await, Some("b"));
        assert!(queue.is_empty());
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(next(&queue).await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_delays_the_shortest_counts() {
        let (queue, start) = (Queue::new(), Instant::now());
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(next(&queue).await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 3);
        queue.done(&"a");
        assert_eq!(next(&queue).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::new();
        for n in 0..4 {
            let start = Instant::now();
            assert_eq!(queue.failures(&"a"), n);
            queue.add_failed("a");
            assert_eq!(next(&queue).await, Some("a"));
            queue.done(&"a");
            let whole = exponential(FIRST_DELAY, MAX_DELAY, n);
            assert!(start.elapsed() >= whole / 2 && start.elapsed() <= whole + Duration::from_millis(2));
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }
}
