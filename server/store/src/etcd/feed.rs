//! A watch of etcd that goes on where it was when a connection or a member is lost.
//!
//! Only skiff's own keys are watched, so that it may be allowed no others. A revision that another's write has taken
//! brings no event then. Who waits for one is told by a *tick*: a key of skiff's that is written where nothing has come
//! for a moment. (etcd can be asked how far a watch has come, but versions before 3.4.25 and 3.5.8 may answer before
//! they have sent what there was until then.) Where skiff has an etcd of its own there are no ticks.

use std::{sync::Arc, time::Duration};

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};
use tokio::{sync::watch, time::timeout};

use super::{
    Inner, failure,
    layout::{Base, Change},
};
use crate::{Event, EventStream, StoreError};

/// How long a watch may take to be begun.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long to wait before a watch that has ended is begun anew.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long a revision that somebody waits for may bring no event before a tick is written.
const TICK_AFTER: Duration = Duration::from_millis(25);

/// The place of a watch, and its connection while it has one.
struct Feed {
    inner: Arc<Inner>,
    /// The base that the watch was begun with: with another one its revisions mean something else.
    base: Base,
    bases: watch::Receiver<Base>,
    preferred: watch::Receiver<usize>,
    /// All up to this revision of etcd has been passed on.
    place: i64,
    open: Option<Open>,
    ended: bool,
}

struct Open {
    member: usize,
    stream: WatchStream,
    /// Events up to here came by an earlier connection.
    skip: i64,
}

/// What has come.
enum Came {
    Message(WatchResponse),
    /// The connection is of no more use.
    Broken(String),
    /// The store was closed.
    Closed,
    /// Revisions have another base.
    Rebased,
}

/// Begins a watch; the first answer says that it has begun.
async fn begin(inner: &Inner, from: i64) -> Result<(usize, WatchStream), (usize, String)> {
    let (at, member) = inner.endpoints.member();
    let mut client = member.watch.clone();
    let (first, end) = inner.layout.all();
    let options = WatchOptions::new().with_range(end).with_prev_key().with_fragment().with_start_revision(from);
    match timeout(BEGIN_TIMEOUT, client.watch(first, Some(options))).await {
        Ok(Ok(stream)) => Ok((at, stream)),
        Ok(Err(error)) => Err((at, format!("{:?}", failure::of(&error)))),
        Err(_) => Err((at, "the watch does not begin".to_owned())),
    }
}

/// The oldest revision of etcd that is kept, if any has been compacted: only a refused watch says it.
pub(super) async fn compacted(inner: &Inner) -> Option<i64> {
    let (_, mut stream) = begin(inner, 1).await.ok()?;
    let refused = async {
        while let Ok(Some(message)) = stream.message().await {
            if message.compact_revision() > 0 {
                return Some(message.compact_revision());
            }
            if !message.events().is_empty() || message.canceled() {
                return None;
            }
        }
        None
    };
    timeout(BEGIN_TIMEOUT, refused).await.ok().flatten()
}

/// All changes after a revision of etcd.
pub(super) fn stream(inner: Arc<Inner>, after: i64) -> EventStream {
    let (mut bases, preferred) = (inner.base.subscribe(), inner.endpoints.preferred());
    let base = *bases.borrow_and_update();
    let feed = Feed { inner, base, bases, preferred, place: after, open: None, ended: false };
    stream::unfold(feed, |mut feed| async {
        let next = feed.next().await?;
        Some((next, feed))
    })
    .boxed()
}

/// Writes ticks for as long as somebody waits for more than has come.
async fn ticks(inner: &Inner, place: i64) -> Came {
    let mut wanted = inner.wanted.subscribe();
    if wanted.wait_for(|wanted| *wanted > place).await.is_err() {
        return Came::Closed;
    }
    loop {
        tokio::time::sleep(TICK_AFTER).await;
        if let Err(failure) = inner.tick().await {
            tracing::debug!(error = %failure.into_error(), "no tick could be written");
        }
    }
}

impl Feed {
    async fn next(&mut self) -> Option<Result<Vec<Arc<Event>>, StoreError>> {
        while !self.ended {
            let message = match self.message().await {
                Came::Message(message) => message,
                Came::Broken(why) => {
                    self.lose(&why).await;
                    continue;
                }
                Came::Closed => break,
                Came::Rebased => return Some(Err(self.end())),
            };
            if message.compact_revision() > 0 {
                return Some(Err(self.end()));
            }
            if message.canceled() {
                self.lose(message.cancel_reason()).await;
                continue;
            }
            match self.take(&message) {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Some(Ok(events)),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// The place is gone: whoever watches reads everything anew.
    fn end(&mut self) -> StoreError {
        self.ended = true;
        let newest = *self.bases.borrow();
        StoreError::Compacted { asked: self.base.ours(self.place), oldest: newest.ours(self.place) }
    }

    /// The next message, by a connection that is made if there is none.
    async fn message(&mut self) -> Came {
        let Self { inner, bases, preferred, open, place, .. } = self;
        let next = async {
            let open = match open {
                Some(open) => open,
                None => match begin(inner, *place).await {
                    Ok((member, stream)) => open.insert(Open { member, stream, skip: *place }),
                    Err((member, why)) => {
                        inner.endpoints.failed(member, &why);
                        return Came::Broken(why);
                    }
                },
            };
            let member = open.member;
            tokio::select! {
                message = open.stream.message() => match message {
                    Ok(Some(message)) => Came::Message(message),
                    Ok(None) => Came::Broken("etcd has ended the watch".to_owned()),
                    Err(error) => {
                        let why = format!("{:?}", failure::of(&error));
                        inner.endpoints.failed(member, &why);
                        Came::Broken(why)
                    }
                },
                // Calls have moved on to another member: this one may be silent without being closed.
                _ = preferred.wait_for(|preferred| *preferred != member) => {
                    Came::Broken("another member is asked".to_owned())
                }
                never = ticks(inner, *place) => never,
            }
        };
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => Came::Closed,
            _ = bases.changed() => Came::Rebased,
            came = next => came,
        }
    }

    async fn lose(&mut self, why: &str) {
        tracing::debug!(why, place = self.place, "a watch of etcd is begun anew");
        self.open = None;
        tokio::time::sleep(BEGIN_AGAIN_AFTER).await;
    }

    /// The events of a message, and the place after them.
    fn take(&mut self, message: &WatchResponse) -> Result<Vec<Arc<Event>>, StoreError> {
        let skip = self.open.as_ref().map_or(0, |open| open.skip);
        let mut events = Vec::with_capacity(message.events().len());
        let mut reached = None;
        for event in message.events() {
            let Some(now) = event.kv().filter(|now| now.mod_revision() > skip) else { continue };
            match self.inner.layout.change(now, event.prev_kv(), self.base) {
                Change::Ours(event) => {
                    reached = None;
                    events.push(Arc::new(event));
                }
                Change::Other(revision) => reached = Some(revision),
                Change::Base => {
                    self.inner.set_base(Base::read(Some(now))?);
                    return Err(self.end());
                }
                Change::Forgotten => return Err(self.end()),
            }
            self.place = now.mod_revision();
        }
        // Others' writes only say how far the watch has come.
        events.extend(reached.map(|revision| Arc::new(Event::progress(revision))));
        Ok(events)
    }
}
