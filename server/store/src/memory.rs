//! The store without a file: for tests and throw-away clusters.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use async_trait::async_trait;
use futures::TryStreamExt;
use parking_lot::Mutex;

use crate::{
    Ascending, Event, EventStream, Expect, KeyValue, PairStream, Range, RangeOptions, Revision, Store, StoreError,
    Write, WriteOutcome,
    hub::{History, Hub, Limits},
};

/// How much history is kept, as watchers and old revisions need it.
const HISTORY: Limits = Limits { events: 100_000, bytes: 64 << 20 };

/// A store in memory.
pub struct MemoryStore {
    current: Mutex<BTreeMap<String, KeyValue>>,
    hub: Arc<Hub>,
}

/// The hub's recent events are all the history there is.
struct NoHistory;

#[async_trait]
impl History for NoHistory {
    async fn history(&self, after: Revision, until: Revision, _limit: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        Err(StoreError::Compacted { asked: after, oldest: until })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { current: Mutex::default(), hub: Arc::new(Hub::new(0, 0, Vec::new(), HISTORY)) }
    }

    /// The pairs of a prefix at a revision, undoing what came later.
    fn pairs_at(
        &self,
        prefix: &str,
        asked: Option<Revision>,
    ) -> Result<(Revision, BTreeMap<String, KeyValue>), StoreError> {
        let current = self.current.lock();
        let revision = self.hub.view(asked, |_| false)?.revision;
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let within = current.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix));
        let mut pairs: BTreeMap<_, _> = within.map(|(key, pair)| (key.clone(), pair.clone())).collect();
        let later = self.hub.newest_first(revision);
        let later = later.ok_or(StoreError::Compacted { asked: revision, oldest: self.hub.published() })?;
        for event in later.iter().filter(|event| event.key.starts_with(prefix)) {
            match &event.previous {
                Some(previous) => pairs.insert(event.key.clone(), previous.clone()),
                None => pairs.remove(&event.key),
            };
        }
        Ok((revision, pairs))
    }
}

/// The change that a write makes to what is there, or `None` where it expects something else.
pub(crate) fn decide(write: &Write, there: Option<&KeyValue>, revision: Revision) -> Option<Event> {
    let fits = match (write.expect, there) {
        (Expect::Absent, None) => true,
        (Expect::At(expected), Some(there)) => there.mod_revision == expected,
        _ => false,
    };
    // Deleting what is expected to be absent changes nothing and has no revision.
    let changes = there.is_some() || write.value.is_some();
    (fits && changes).then(|| Event {
        key: write.key.clone(),
        revision,
        value: write.value.clone(),
        previous: there.cloned(),
    })
}

/// What is at an event's key after it.
pub(crate) fn after(event: &Event) -> Option<KeyValue> {
    event.value.as_ref().map(|value| KeyValue {
        key: event.key.clone(),
        value: value.clone(),
        create_revision: event.previous.as_ref().map_or(event.revision, |previous| previous.create_revision),
        mod_revision: event.revision,
    })
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.current.lock().get(key).cloned())
    }

    async fn range(&self, prefix: &str, options: RangeOptions) -> Result<Range, StoreError> {
        let (revision, pairs) = self.pairs_at(prefix, options.revision)?;
        let start = options.start_after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = pairs.range::<str, _>((start, Bound::Unbounded)).map(|(_, pair)| pair.clone());
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let items: Vec<_> = rest.by_ref().take(limit).collect();
        let remaining = rest.count();
        Ok(Range { revision, items, more: remaining > 0, remaining: options.count.then_some(remaining) })
    }

    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let mut current = self.current.lock();
        if self.hub.is_closed() {
            return Err(StoreError::Unavailable("the datastore is closed".to_owned()));
        }
        let there = current.get(&write.key);
        let revision = self.hub.published() + 1;
        let Some(event) = decide(&write, there, revision) else {
            return Ok(WriteOutcome::Mismatch(there.cloned()));
        };
        match after(&event) {
            Some(pair) => current.insert(event.key.clone(), pair),
            None => current.remove(&event.key),
        };
        self.hub.publish(vec![Arc::new(event)], revision);
        Ok(WriteOutcome::Done(revision))
    }

    async fn watch(&self, after: Revision) -> Result<EventStream, StoreError> {
        self.hub.watch(after, Arc::new(NoHistory))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.hub.compact(before)
    }

    async fn restore(&self, mut pairs: PairStream, floor: Revision) -> Result<Revision, StoreError> {
        let (mut order, mut restored) = (Ascending::default(), Vec::new());
        while let Some(batch) = pairs.try_next().await? {
            for (key, value) in batch {
                order.check(&key)?;
                restored.push((key, value));
            }
        }
        let mut current = self.current.lock();
        if self.hub.is_closed() {
            return Err(StoreError::Unavailable("the datastore is closed".to_owned()));
        }
        let mut revision = crate::restore::base(floor, self.hub.published())?;
        current.clear();
        for (key, value) in restored {
            revision += 1;
            let pair = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision };
            current.insert(key, pair);
        }
        self.hub.restart(revision);
        Ok(revision)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.hub.published())
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        let bytes: usize = self.current.lock().iter().map(|(key, pair)| key.len() + pair.value.len()).sum();
        Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.hub.close();
        Ok(())
    }
}
