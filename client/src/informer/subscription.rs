//! Changes on their way from an informer to those who follow it, each with a bounded queue of its own.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many changes a subscriber may be behind; with more it is told to look at everything anew.
const MAX_PENDING: usize = 16_384;

/// One change of an informer's objects.
#[derive(Debug)]
pub enum Change<K> {
    /// Look at everything: the start of a subscription, or changes were dropped because they were not taken.
    Resync,
    /// A new object.
    Added(Arc<K>),
    /// An object changed.
    Modified {
        /// What it was.
        old: Arc<K>,
        /// What it is.
        new: Arc<K>,
    },
    /// An object is gone: its last known version.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Resync => Self::Resync,
            Self::Added(new) => Self::Added(Arc::clone(new)),
            Self::Modified { old, new } => Self::Modified { old: Arc::clone(old), new: Arc::clone(new) },
            Self::Deleted(old) => Self::Deleted(Arc::clone(old)),
        }
    }
}

struct Pending<K> {
    changes: VecDeque<Change<K>>,
    resync: bool,
    closed: bool,
}

struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    arrived: Notify,
}

/// The receiving end. Changes stop being kept for it when it is dropped.
pub struct Subscription<K> {
    mailbox: Arc<Mailbox<K>>,
}

impl<K> Subscription<K> {
    /// The next change; `None` when the informer is gone.
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            // There is one receiver and `notify_one` keeps one permit, so an arrival between the two is not missed.
            if let Some(change) = self.try_next() {
                return Some(change);
            }
            if self.mailbox.pending.lock().closed {
                return None;
            }
            self.mailbox.arrived.notified().await;
        }
    }

    /// The next change, if one is there.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        let mut pending = self.mailbox.pending.lock();
        if std::mem::take(&mut pending.resync) {
            return Some(Change::Resync);
        }
        let next = pending.changes.pop_front();
        if next.is_some() && pending.changes.is_empty() {
            pending.changes = VecDeque::new();
        }
        next
    }
}

/// The sending end.
pub(super) struct Publisher<K> {
    subscribers: Vec<Weak<Mailbox<K>>>,
}

impl<K> Default for Publisher<K> {
    fn default() -> Self {
        Self { subscribers: Vec::new() }
    }
}

impl<K> Publisher<K> {
    pub(super) fn subscribe(&mut self) -> Subscription<K> {
        let pending = Pending { changes: VecDeque::new(), resync: true, closed: false };
        let mailbox = Arc::new(Mailbox { pending: Mutex::new(pending), arrived: Notify::new() });
        self.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        self.subscribers.push(Arc::downgrade(&mailbox));
        Subscription { mailbox }
    }

    pub(super) fn publish(&mut self, change: Change<K>) {
        for mailbox in self.subscribers.iter().filter_map(Weak::upgrade) {
            mailbox.put(change.clone());
        }
    }
}

impl<K> Drop for Publisher<K> {
    fn drop(&mut self) {
        for mailbox in self.subscribers.iter().filter_map(Weak::upgrade) {
            mailbox.pending.lock().closed = true;
            mailbox.arrived.notify_one();
        }
    }
}

impl<K> Mailbox<K> {
    fn put(&self, change: Change<K>) {
        let mut pending = self.pending.lock();
        if pending.changes.len() >= MAX_PENDING {
            pending.changes = VecDeque::new();
            pending.resync = true;
        }
        // Until the resync has been taken, whatever changed will be seen by looking at everything.
        if !pending.resync {
            pending.changes.push_back(change);
        }
        drop(pending);
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_lags_is_told_to_look_at_everything() {
        let mut publisher = Publisher::default();
        let mut changes = publisher.subscribe();
        assert!(matches!(changes.try_next(), Some(Change::Resync)));
        for n in 0..=MAX_PENDING {
            publisher.publish(Change::Added(Arc::new(n)));
        }
        assert!(matches!(changes.try_next(), Some(Change::Resync)));
        assert!(changes.try_next().is_none());
        publisher.publish(Change::Added(Arc::new(7)));
        assert!(matches!(changes.try_next(), Some(Change::Added(n)) if *n == 7));
    }
}
