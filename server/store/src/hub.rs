//! What has been published: the newest revision, the recent events, and the watchers' wake-up.
//!
//! A watcher has no queue here: it has a place, and reads on from the recent events, or from the store's history
//! where those no longer reach back to its place. So a slow watcher costs no memory and is only lost when its place
//! is compacted.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Event, EventStream, Revision, StoreError};

/// How many events a watcher is handed at once.
const BATCH_EVENTS: usize = 512;

/// How much of the recent past is kept in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Events.
    pub(crate) events: usize,
    /// Bytes of keys and values.
    pub(crate) bytes: usize,
}

/// A span of revisions that were reserved and may have been used, but whose writes did not reach the disk before
/// a power loss. Everything up to `after` and from `until` on is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) after: Revision,
    pub(crate) until: Revision,
}

/// Events older than the recent ones.
#[async_trait]
pub(crate) trait History: Send + Sync + 'static {
    /// The events after `after` up to `until`, the first `limit` of them.
    async fn history(&self, after: Revision, until: Revision, limit: usize) -> Result<Vec<Arc<Event>>, StoreError>;
}

/// What is visible at one moment.
pub(crate) struct View {
    /// The revision that a read is to be answered at.
    pub(crate) revision: Revision,
    /// Events up to that revision that may not be on disk yet, oldest first.
    pub(crate) pending: Vec<Arc<Event>>,
}

struct State {
    published: Revision,
    durable: Revision,
    compacted: Revision,
    /// All events after `floor`.
    recent: VecDeque<Arc<Event>>,
    recent_bytes: usize,
    floor: Revision,
    lost: Vec<Lost>,
    closed: bool,
}

/// See the module.
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    limits: Limits,
}

/// What a watcher does next.
enum Next {
    Events(Vec<Arc<Event>>),
    /// Read `(place, until]` from the history.
    Older {
        until: Revision,
    },
    Wait,
    End,
}

fn event_bytes(event: &Event) -> usize {
    let value = event.value.as_ref().map_or(0, |value| value.len());
    let previous = event.previous.as_ref().map_or(0, |previous| previous.value.len() + previous.key.len());
    event.key.len() + value + previous
}

impl State {
    fn check(&self, asked: Revision) -> Result<(), StoreError> {
        if asked > self.published {
            return Err(StoreError::Future { asked, newest: self.published });
        }
        if asked < self.compacted {
            return Err(StoreError::Compacted { asked, oldest: self.compacted });
        }
        match self.lost.iter().find(|lost| lost.after < asked && asked < lost.until) {
            Some(lost) => Err(StoreError::Compacted { asked, oldest: lost.until }),
            None => Ok(()),
        }
    }

    /// Lets go of what exceeds the limits and is on disk.
    fn trim(&mut self, limits: Limits) {
        while self.recent.len() > limits.events || self.recent_bytes > limits.bytes {
            match self.recent.front() {
                Some(first) if first.revision <= self.durable => {}
                _ => return,
            }
            self.pop_oldest();
        }
    }

    fn pop_oldest(&mut self) {
        if let Some(event) = self.recent.pop_front() {
            self.recent_bytes -= event_bytes(&event);
            self.floor = event.revision;
        }
    }

    fn next(&self, place: Revision) -> Result<Next, StoreError> {
        if self.closed {
            return Ok(Next::End);
        }
        if place >= self.published {
            return Ok(Next::Wait);
        }
        if place < self.floor {
            // The place may lie in a span that was lost: nothing is there to be missed by one who came through it.
            return match place < self.compacted {
                true => Err(StoreError::Compacted { asked: place, oldest: self.compacted }),
                false => Ok(Next::Older { until: self.floor }),
            };
        }
        let first = self.recent.partition_point(|event| event.revision <= place);
        Ok(Next::Events(self.recent.iter().skip(first).take(BATCH_EVENTS).cloned().collect()))
    }
}

impl Hub {
    /// A hub whose newest revision is `published`, all of it on disk.
    pub(crate) fn new(published: Revision, compacted: Revision, lost: Vec<Lost>, limits: Limits) -> Self {
        let state = State {
            published,
            durable: published,
            compacted,
            recent: VecDeque::new(),
            recent_bytes: 0,
            floor: published,
            lost,
            closed: false,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), limits }
    }

    /// Makes events visible. `durable` is the newest revision on disk.
    pub(crate) fn publish(&self, events: Vec<Arc<Event>>, durable: Revision) {
        let mut state = self.state.lock();
        state.durable = state.durable.max(durable);
        for event in events {
            state.published = event.revision;
            state.recent_bytes += event_bytes(&event);
            state.recent.push_back(event);
        }
        state.trim(self.limits);
        drop(state);
        self.changed.send_replace(());
    }

    /// Forgets the events up to a revision.
    pub(crate) fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if before > state.published {
            return Err(StoreError::Future { asked: before, newest: state.published });
        }
        if before <= state.compacted {
            return Ok(());
        }
        state.compacted = before;
        state.lost.retain(|lost| lost.until > before);
        while state.recent.front().is_some_and(|e| e.revision <= before && e.revision <= state.durable) {
            state.pop_oldest();
        }
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// Everything is another: nothing before `revision` is known any more, and who watches has lost its place.
    pub(crate) fn restart(&self, revision: Revision) {
        let mut state = self.state.lock();
        (state.published, state.durable, state.compacted, state.floor) = (revision, revision, revision, revision);
        state.recent.clear();
        state.recent_bytes = 0;
        state.lost.clear();
        drop(state);
        self.changed.send_replace(());
    }

    /// What is visible now or was at `asked`, with the pending events that `wanted` picks.
    pub(crate) fn view(&self, asked: Option<Revision>, wanted: impl Fn(&str) -> bool) -> Result<View, StoreError> {
        let state = self.state.lock();
        if let Some(asked) = asked {
            state.check(asked)?;
        }
        let revision = asked.unwrap_or(state.published);
        let pending = state.recent.iter().rev().take_while(|event| event.revision > state.durable);
        let mut pending: Vec<_> =
            pending.filter(|event| event.revision <= revision && wanted(&event.key)).cloned().collect();
        pending.reverse();
        Ok(View { revision, pending })
    }

    /// The events after `revision`, newest first, if memory reaches back that far.
    pub(crate) fn newest_first(&self, revision: Revision) -> Option<Vec<Arc<Event>>> {
        let state = self.state.lock();
        (revision >= state.floor)
            .then(|| state.recent.iter().rev().take_while(|event| event.revision > revision).cloned().collect())
    }

    pub(crate) fn published(&self) -> Revision {
        self.state.lock().published
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.lock().compacted
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.send_replace(());
    }

    /// The events after a revision.
    pub(crate) fn watch(
        self: &Arc<Self>,
        after: Revision,
        history: Arc<dyn History>,
    ) -> Result<EventStream, StoreError> {
        self.state.lock().check(after)?;
        let watcher =
            Watcher { changed: self.changed.subscribe(), hub: Arc::clone(self), history, place: after, ended: false };
        Ok(stream::unfold(watcher, |mut watcher| async {
            let next = watcher.next().await?;
            Some((next, watcher))
        })
        .boxed())
    }
}

struct Watcher {
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    changed: watch::Receiver<()>,
    place: Revision,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Vec<Arc<Event>>, StoreError>> {
        if self.ended {
            return None;
        }
        match self.advance().await {
            Ok(events) if events.is_empty() => None,
            Ok(events) => Some(Ok(events)),
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }

    /// The next events; none when the hub is closed.
    async fn advance(&mut self) -> Result<Vec<Arc<Event>>, StoreError> {
        loop {
            self.changed.mark_unchanged();
            let next = self.hub.state.lock().next(self.place)?;
            let events = match next {
                Next::End => return Ok(Vec::new()),
                Next::Wait => {
                    // The hub, which this watcher holds, holds the sender: this cannot fail.
                    let _ = self.changed.changed().await;
                    continue;
                }
                Next::Events(events) => events,
                Next::Older { until } => {
                    let events = self.history.history(self.place, until, BATCH_EVENTS).await?;
                    if events.len() < BATCH_EVENTS {
                        self.place = until;
                    }
                    events
                }
            };
            if let Some(last) = events.last() {
                self.place = self.place.max(last.revision);
                return Ok(events);
            }
        }
    }
}
