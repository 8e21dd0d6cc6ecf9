//! Heartbeats that are published but not on disk.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{Event, KeyValue, memory::after};

/// How many heartbeats are held in memory at most.
const PENDING_EVENTS: usize = 1_000;

/// How many bytes of heartbeats are held in memory at most.
const PENDING_BYTES: usize = 512 << 10;

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) events: Vec<Arc<Event>>,
    bytes: usize,
    /// The newest state of their keys.
    pub(super) newest: HashMap<String, Option<KeyValue>>,
    /// When they must be on disk.
    pub(super) due: Option<Instant>,
}

impl Pending {
    pub(super) fn push(&mut self, event: Arc<Event>, due: Instant) {
        self.bytes += event.key.len() + event.value.as_ref().map_or(0, |value| value.len());
        self.newest.insert(event.key.clone(), after(&event));
        self.events.push(event);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    pub(super) fn is_full(&self, more: usize) -> bool {
        self.events.len() + more > PENDING_EVENTS || self.bytes > PENDING_BYTES
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}
