//! The newest revision of a store that others write to as well, asked for by many reads at once.
//!
//! A read needs an answer that was asked for after the read began. So while one question is under way all further
//! reads wait, and the next question serves them all.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::{Revision, Store, StoreError};

/// See the module.
pub(super) struct Fresh {
    /// How many questions have been begun.
    begun: AtomicU64,
    last: Mutex<Answer>,
}

struct Answer {
    /// Which question it answers, counted from 1.
    number: u64,
    revision: Result<Revision, StoreError>,
}

impl Default for Fresh {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), last: Mutex::new(Answer { number: 0, revision: Ok(0) }) }
    }
}

impl Fresh {
    /// A revision that is not older than any write acknowledged before this call.
    pub(super) async fn revision(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.number <= before {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            // Where this is dropped while it waits, the next one asks for itself.
            let revision = store.revision().await;
            *last = Answer { number, revision };
        }
        last.revision.clone()
    }
}
