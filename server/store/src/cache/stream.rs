//! One watch as its reader sees it: what there was first, then what happens, then why it ended.

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt, stream};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{CacheEvent, CacheStream, kind::Kind, watchers::Ended};
use crate::{Revision, StoreError};

/// Takes the watcher off the kind when its stream is dropped.
pub(super) struct Subscription {
    pub(super) kind: Arc<Kind>,
    pub(super) id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.kind.state.write().watchers.remove(self.id);
    }
}

/// See the module.
pub(super) struct Reader {
    /// What is to be read before the queue.
    pub(super) first: VecDeque<CacheEvent>,
    pub(super) queue: mpsc::Receiver<CacheEvent>,
    pub(super) ended: Ended,
    /// When the watch ends of itself.
    pub(super) deadline: Option<Instant>,
    pub(super) bookmarks: bool,
    pub(super) published: watch::Receiver<Revision>,
    pub(super) subscription: Option<Subscription>,
}

impl Reader {
    pub(super) fn stream(self) -> CacheStream {
        stream::unfold(self, |mut reader| async move {
            let next = reader.next().await?;
            Some((next, reader))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<CacheEvent, StoreError>> {
        if let Some(event) = self.first.pop_front() {
            return Some(Ok(event));
        }
        self.first.shrink_to_fit();
        self.subscription.as_ref()?;
        tokio::select! {
            biased;
            event = self.queue.recv() => match event {
                Some(event) => Some(Ok(event)),
                None => {
                    self.subscription = None;
                    self.ended.get().cloned().map(Err)
                }
            },
            () = at(self.deadline) => self.finish(),
        }
    }

    /// The time is up: what is queued is still sent, and a bookmark after it.
    fn finish(&mut self) -> Option<Result<CacheEvent, StoreError>> {
        // Everything up to this revision is in the queue by now, see `Cacher::apply`.
        let revision = *self.published.borrow();
        while let Ok(event) = self.queue.try_recv() {
            self.first.push_back(event);
        }
        self.subscription = None;
        if let Some(error) = self.ended.get() {
            return Some(Err(error.clone()));
        }
        if self.bookmarks {
            self.first.push_back(CacheEvent::Bookmark { revision, initial_end: false });
        }
        self.first.pop_front().map(Ok)
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
