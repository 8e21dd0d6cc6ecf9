//! From the store's events to the kinds.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use skiff_api::kinds::StorageKey;

use super::{LOAD_PAGE, Shared, closed, kind::Kind};
use crate::{Event, EventStream, RangeOptions, Revision, StoreError};

/// How often watchers that asked for bookmarks are sent one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long to wait before the store is asked again after it failed.
const RELOAD_AFTER: Duration = Duration::from_secs(1);

/// How long a read waits for what others have written.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Group and resource of a key `/group/resource/...`.
fn storage_key(key: &str) -> Option<StorageKey> {
    let mut parts = key.strip_prefix('/')?.splitn(3, '/');
    let (group, resource, _rest) = (parts.next()?, parts.next()?, parts.next()?);
    Some(StorageKey { group: group.to_owned(), resource: resource.to_owned() })
}

/// Follows the store until the cache is closed. Where the store loses the cache's place, all watches end with an
/// error and everything is loaded anew.
pub(super) async fn run(shared: Arc<Shared>, mut events: EventStream) {
    loop {
        let error = tokio::select! {
            () = shared.stop.cancelled() => return,
            error = follow(&shared, &mut events) => error,
        };
        tracing::warn!(%error, "the watch cache has lost its place and loads the store anew");
        shared.end_watches(Some(&error));
        events = loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(RELOAD_AFTER) => {}
            }
            match shared.load().await {
                Ok(events) => break events,
                Err(error) => tracing::warn!(%error, "the watch cache cannot load the store"),
            }
        };
    }
}

async fn follow(shared: &Shared, events: &mut EventStream) -> StoreError {
    let mut bookmarks = tokio::time::interval(BOOKMARK_EVERY);
    bookmarks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    bookmarks.reset();
    loop {
        tokio::select! {
            batch = events.next() => match batch {
                Some(Ok(batch)) => shared.apply(&batch),
                Some(Err(error)) => return error,
                None => return StoreError::Unavailable("the store has ended its watch".to_owned()),
            },
            _ = bookmarks.tick() => shared.bookmark(),
        }
    }
}

impl Shared {
    /// Reads every object, and gives the events from there on.
    pub(super) async fn load(&self) -> Result<EventStream, StoreError> {
        let mut kinds: HashMap<StorageKey, Arc<Kind>> = HashMap::new();
        let mut options = RangeOptions { limit: LOAD_PAGE, ..RangeOptions::default() };
        let revision = loop {
            let range = self.store.range("/", options.clone()).await?;
            for pair in &range.items {
                let Some(key) = storage_key(&pair.key) else { continue };
                let new = || Arc::new(Kind::new((self.selectable)(&key), range.revision));
                kinds.entry(key.clone()).or_insert_with(new).load(pair);
            }
            if !range.more {
                break range.revision;
            }
            options.revision = Some(range.revision);
            options.start_after = range.items.last().map(|pair| pair.key.clone());
        };
        let events = self.store.watch(revision).await?;
        self.loaded.store(revision, Ordering::Release);
        let old = std::mem::replace(&mut *self.kinds.write(), kinds);
        // Watches that began between the end of the feed and now.
        let lost = StoreError::Compacted { asked: 0, oldest: revision };
        old.values().for_each(|kind| kind.state.write().watchers.end(Some(&lost)));
        self.published.send_replace(revision);
        Ok(events)
    }

    /// Takes events into their kinds, then says so.
    pub(super) fn apply(&self, batch: &[Arc<Event>]) {
        for event in batch {
            if let Some(key) = storage_key(&event.key) {
                self.kind(&key).apply(event);
            }
        }
        if let Some(last) = batch.last() {
            self.published.send_replace(last.revision);
        }
    }

    fn bookmark(&self) {
        // Every event up to this revision is in the watchers' queues: this runs in the task that puts them there.
        let revision = *self.published.borrow();
        let kinds: Vec<_> = self.kinds.read().values().cloned().collect();
        kinds.iter().for_each(|kind| kind.state.write().watchers.bookmark(revision));
    }

    pub(super) fn end_watches(&self, error: Option<&StoreError>) {
        let kinds: Vec<_> = self.kinds.read().values().cloned().collect();
        kinds.iter().for_each(|kind| kind.state.write().watchers.end(error));
    }

    /// A kind, made if there has been nothing of it yet.
    pub(super) fn kind(&self, key: &StorageKey) -> Arc<Kind> {
        if let Some(kind) = self.existing(key) {
            return kind;
        }
        let mut kinds = self.kinds.write();
        // Nothing of it was there when the store was loaded, and nothing has happened to it since.
        let new = || Arc::new(Kind::new((self.selectable)(key), self.loaded.load(Ordering::Acquire)));
        Arc::clone(kinds.entry(key.clone()).or_insert_with(new))
    }

    pub(super) fn existing(&self, key: &StorageKey) -> Option<Arc<Kind>> {
        self.kinds.read().get(key).cloned()
    }

    /// Waits until a revision has been published.
    pub(super) async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        if *self.published.borrow() >= revision {
            return Ok(());
        }
        let mut published = self.published.subscribe();
        tokio::select! {
            _ = published.wait_for(|newest| *newest >= revision) => Ok(()),
            () = self.stop.cancelled() => Err(closed()),
            () = self.patience() => Err(StoreError::Unavailable(
                "the watch cache has not caught up with the datastore".to_owned(),
            )),
        }
    }

    /// How long to wait for the feed: what this process writes always comes, what others write comes by a
    /// connection that may be lost.
    async fn patience(&self) {
        match self.store.sole_writer() {
            true => std::future::pending().await,
            false => tokio::time::sleep(CATCH_UP).await,
        }
    }

    /// Makes a read consistent: where others write to the store too, waits for what they have written by now.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        if self.store.sole_writer() {
            return Ok(());
        }
        let newest = self.fresh.revision(&*self.store).await?;
        self.wait_for(newest).await
    }
}
