//! List, then watch, for as long as asked: the loop that keeps a [`Sink`] equal to what the server has.
//!
//! # Expected flow
//! A consistent list in pages, then a watch from the list's revision; the watch ends after some minutes and is
//! begun again from the last revision told.
//!
//! # Errors
//! 410 means that the revision is no longer kept: list again, the sink compares. Any other error is followed by a
//! growing, jittered delay and an attempt to go on from where the watch was.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use skiff_api::{
    request::{Request, Verb},
    status::{ApiError, Reason},
    wire::Entry,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Client, WatchEvent,
    backoff::{Backoff, random},
};

/// Objects a page of a list.
const PAGE_OBJECTS: u64 = 500;

/// After how long a watch is ended and begun again: this much, and up to twice of it, as client-go does.
const MIN_WATCH_SECONDS: u64 = 300;

/// The delay after a first error.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// The longest delay between attempts.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// What is kept equal to the server's objects.
pub trait Sink: Send + Sync + 'static {
    /// All objects as of a revision. What is not among them is gone.
    fn replace(&self, entries: &[Arc<Entry>], resource_version: u64);

    /// One event after that.
    fn apply(&self, event: &WatchEvent);
}

/// Runs until cancelled. `list` is the request of the list; the watch has its resource, namespace and selectors.
pub async fn run<S: Sink>(client: Client, list: Request, sink: Arc<S>, cancel: CancellationToken) {
    let reflector = Reflector { client, list, sink };
    cancel.run_until_cancelled(reflector.run()).await;
}

struct Reflector<S> {
    client: Client,
    list: Request,
    sink: Arc<S>,
}

impl<S: Sink> Reflector<S> {
    async fn run(self) {
        let mut backoff = Backoff::new(FIRST_DELAY, MAX_DELAY);
        let mut position = None;
        loop {
            let step = match position {
                None => self.list().await.map(|revision| position = Some(revision)),
                Some(revision) => self.watch(revision, &mut position, &mut backoff).await,
            };
            match step {
                Ok(()) => {}
                Err(error) if is_expired(&error) => {
                    tracing::debug!(
                        resource = self.list.resource.resource,
                        "the watch's revision is gone, listing again"
                    );
                    position = None;
                    tokio::time::sleep(backoff.next(random())).await;
                }
                Err(error) => {
                    tracing::warn!(resource = self.list.resource.resource, %error, "list or watch failed, trying again");
                    tokio::time::sleep(backoff.next(random())).await;
                }
            }
        }
    }

    /// Lists everything; answers with the revision.
    async fn list(&self) -> Result<u64, ApiError> {
        let (entries, revision) = match self.pages(Some(PAGE_OBJECTS)).await {
            // The list's revision went away while its pages were fetched: all in one, then.
            Err(error) if is_expired(&error) => self.pages(None).await?,
            other => other?,
        };
        self.sink.replace(&entries, revision);
        Ok(revision)
    }

    async fn pages(&self, limit: Option<u64>) -> Result<(Vec<Arc<Entry>>, u64), ApiError> {
        let mut request = self.list.clone();
        request.options.limit = limit;
        let mut page = self.client.raw_list(request.clone()).await?;
        let (mut entries, revision) = (std::mem::take(&mut page.entries), page.resource_version);
        while let Some(token) = page.continue_token.take() {
            request.options.continue_token = Some(token);
            page = self.client.raw_list(request.clone()).await?;
            entries.append(&mut page.entries);
        }
        Ok((entries, revision))
    }

    async fn watch(&self, revision: u64, position: &mut Option<u64>, backoff: &mut Backoff) -> Result<(), ApiError> {
        let mut request = Request { verb: Verb::Watch, ..self.list.clone() };
        request.options.resource_version = Some(revision.to_string());
        request.options.allow_watch_bookmarks = true;
        request.options.timeout_seconds = Some(MIN_WATCH_SECONDS + random() % MIN_WATCH_SECONDS);
        let mut events = self.client.raw_watch(request).await?;
        let mut any = false;
        while let Some(event) = events.next().await {
            let event = event?;
            *position = Some(revision_of(&event));
            self.sink.apply(&event);
            if !std::mem::replace(&mut any, true) {
                backoff.reset();
            }
        }
        if any {
            return Ok(());
        }
        // A watch that ends at once with nothing told would otherwise be begun again without end.
        tokio::time::sleep(backoff.next(random())).await;
        Ok(())
    }
}

fn revision_of(event: &WatchEvent) -> u64 {
    match event {
        WatchEvent::Added(entry) | WatchEvent::Modified(entry) | WatchEvent::Deleted(entry) => entry.resource_version,
        WatchEvent::Bookmark { resource_version, .. } => *resource_version,
    }
}

fn is_expired(error: &ApiError) -> bool {
    matches!(error.reason, Reason::Expired | Reason::Gone) || error.code == 410
}
