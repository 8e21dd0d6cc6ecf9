//! Pods that wait for a node: those to be tried now by priority, those that failed until something changes that may
//! help them. No I/O; time is an argument.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::snapshot::PodInfo;

/// The delay of a pod after its first failure, doubled with each further one (kube-scheduler's
/// `podInitialBackoffSeconds`).
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest delay (kube-scheduler's `podMaxBackoffSeconds`).
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// After how long a pod is tried again though nothing changed that may help it.
const MAX_UNSCHEDULABLE: Duration = Duration::from_secs(300);

struct Waiting {
    pod: Arc<PodInfo>,
    attempts: u32,
    place: Place,
}

/// The order of what is to be tried now: by priority, then by arrival.
type Rank = (std::cmp::Reverse<i32>, u64);

enum Place {
    Active(Rank),
    /// Not before this time.
    Backoff(Instant, u64),
    /// Until something helps; since when, and no attempt before the other time.
    Unschedulable {
        since: Instant,
        not_before: Instant,
    },
    /// Being tried.
    Taken,
}

/// The queue.
#[derive(Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, Waiting>,
    active: BTreeMap<Rank, String>,
    backoff: BTreeMap<(Instant, u64), String>,
    counter: u64,
}

impl SchedulingQueue {
    /// A pod is there, or changed in a way that may help it.
    pub fn upsert(&mut self, pod: Arc<PodInfo>) {
        let uid = pod.uid().to_owned();
        let attempts = self.pods.get(&uid).map_or(0, |known| known.attempts);
        if let Some(Waiting { place: Place::Backoff(..), .. }) = self.pods.get(&uid) {
            if let Some(known) = self.pods.get_mut(&uid) {
                known.pod = pod;
            }
            return;
        }
        self.remove(&uid);
        self.activate(pod, attempts);
    }

    /// A pod changed in a way that cannot help it (its status): only what is known of it is renewed.
    pub fn refresh(&mut self, pod: Arc<PodInfo>) {
        match self.pods.get_mut(pod.uid()) {
            Some(known) => known.pod = pod,
            None => self.activate(pod, 0),
        }
    }

    fn activate(&mut self, pod: Arc<PodInfo>, attempts: u32) {
        self.counter += 1;
        let priority = pod.spec().and_then(|spec| spec.priority).unwrap_or_default();
        let rank = (std::cmp::Reverse(priority), self.counter);
        let uid = pod.uid().to_owned();
        self.active.insert(rank, uid.clone());
        self.pods.insert(uid, Waiting { pod, attempts, place: Place::Active(rank) });
    }

    /// A pod waits no more.
    pub fn remove(&mut self, uid: &str) {
        let Some(known) = self.pods.remove(uid) else { return };
        match known.place {
            Place::Active(rank) => drop(self.active.remove(&rank)),
            Place::Backoff(due, number) => drop(self.backoff.remove(&(due, number))),
            Place::Unschedulable { .. } | Place::Taken => {}
        }
    }

    /// The next pod to be tried, now taken.
    pub fn next(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.promote(now);
        let (_, uid) = self.active.pop_first()?;
        let known = self.pods.get_mut(&uid)?;
        known.place = Place::Taken;
        known.attempts = known.attempts.saturating_add(1);
        Some(Arc::clone(&known.pod))
    }

    /// A taken pod fits nowhere: it waits for something that may help.
    pub fn unschedulable(&mut self, uid: &str, now: Instant) {
        if let Some(known) = self.pods.get_mut(uid) {
            let delay =
                skiff_client::backoff::exponential(FIRST_BACKOFF, MAX_BACKOFF, known.attempts.saturating_sub(1));
            known.place = Place::Unschedulable { since: now, not_before: now + delay };
        }
    }

    /// A taken pod could not be bound: it is tried again after a delay.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.counter += 1;
        let Some(known) = self.pods.get_mut(uid) else { return };
        let delay = skiff_client::backoff::exponential(FIRST_BACKOFF, MAX_BACKOFF, known.attempts.saturating_sub(1));
        let due = (now + delay, self.counter);
        known.place = Place::Backoff(due.0, due.1);
        self.backoff.insert(due, uid.to_owned());
    }

    /// Something changed that may help pods that fit nowhere.
    pub fn something_changed(&mut self) {
        self.release(|_, _| true);
    }

    /// When to look again though nothing happens.
    pub fn due(&self) -> Option<Instant> {
        let backoff = self.backoff.keys().next().map(|(due, _)| *due);
        let stale = self.pods.values().filter_map(|known| match known.place {
            Place::Unschedulable { since, .. } => Some(since + MAX_UNSCHEDULABLE),
            _ => None,
        });
        stale.chain(backoff).min()
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Keeps only the pods with these UIDs.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.pods.keys().filter(|uid| !is_there(uid)).cloned().collect();
        gone.iter().for_each(|uid| self.remove(uid));
    }

    fn promote(&mut self, now: Instant) {
        self.release(|since, _| since + MAX_UNSCHEDULABLE <= now);
        while let Some(entry) = self.backoff.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let uid = entry.remove();
            if let Some(known) = self.pods.remove(&uid) {
                self.activate(known.pod, known.attempts);
            }
        }
    }

    /// Moves pods out of the unschedulable ones, to be tried when their delay is over.
    fn release(&mut self, which: impl Fn(Instant, Instant) -> bool) {
        for (uid, known) in &mut self.pods {
            let Place::Unschedulable { since, not_before } = known.place else { continue };
            if which(since, not_before) {
                self.counter += 1;
                known.place = Place::Backoff(not_before, self.counter);
                self.backoff.insert((not_before, self.counter), uid.clone());
            }
        }
    }
}
