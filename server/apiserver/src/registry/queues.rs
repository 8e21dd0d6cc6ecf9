//! Writers of one object that lost once wait for each other, so that none of them loses for ever.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// How many queues there are. Two objects that share one wait for each other without need, and without harm.
const QUEUES: usize = 256;

/// The queues, by the hash of the object's key.
pub(super) struct Queues {
    hasher: RandomState,
    queues: Vec<Mutex<()>>,
}

impl Default for Queues {
    fn default() -> Self {
        Self { hasher: RandomState::new(), queues: (0..QUEUES).map(|_| Mutex::new(())).collect() }
    }
}

impl Queues {
    /// Waits for one's turn to write an object.
    pub(super) async fn turn(&self, key: &str) -> Option<MutexGuard<'_, ()>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % QUEUES as u64).unwrap_or_default();
        match self.queues.get(hash) {
            Some(queue) => Some(queue.lock().await),
            None => None,
        }
    }
}
