//! The frame that every controller runs in: watched objects become keys, keys are worked on by a few workers, what
//! fails is tried again later, and later each time.
//!
//! A controller supplies the objects it watches with what keys each maps to, and one pass on a key. The pass looks
//! (informers), decides (a pure function of what was seen and the time) and acts (the client).
//!
//! # Seeing one's own writes
//! There are no expectations to wait for. The answer to every write is handed to the informer
//! ([`Informer::observe`]), which takes it in unless it knows newer, so the next pass on the key sees it, however
//! late the watch is. Deletions whose answer does not say that the object is going are kept by [`Doomed`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use skiff_api::status::{ApiError, Reason};
use skiff_client::{Change, Client, EventRecorder, Informer, Informers, Key, Kind, Queue};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What every controller is given.
#[derive(Clone)]
pub struct Context {
    /// The API, as this controller's own identity.
    pub client: Client,
    /// The informers of the process.
    pub informers: Informers,
    /// Events in the name of this controller.
    pub events: EventRecorder,
    /// Ends the controller.
    pub cancel: CancellationToken,
}

/// When a key is to be looked at again though nothing changes; `None` for never.
pub type Again = Option<Duration>;

/// One pass of a controller on one key.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Brings what the key names one step nearer to what it should be.
    async fn pass(&self, key: &Key) -> Result<Again, ApiError>;
}

/// A controller with what it watches.
pub struct Frame<C> {
    name: &'static str,
    controller: Arc<C>,
    queue: Arc<Queue<Key>>,
    cancel: CancellationToken,
    watches: JoinSet<()>,
    synced: Vec<tokio::sync::oneshot::Receiver<()>>,
}

impl<C: Controller> Frame<C> {
    /// A controller that watches nothing yet.
    pub fn new(name: &'static str, controller: Arc<C>, cancel: &CancellationToken) -> Self {
        let queue = Arc::new(Queue::new());
        Self { name, controller, queue, cancel: cancel.clone(), watches: JoinSet::new(), synced: Vec::new() }
    }

    /// The queue, to add keys to from elsewhere.
    pub fn queue(&self) -> Arc<Queue<Key>> {
        Arc::clone(&self.queue)
    }

    /// Works on the keys that an object maps to (as it was and as it is) whenever it changes.
    pub fn watch<K: Kind>(
        self,
        informer: &Arc<Informer<K>>,
        keys: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        self.watch_if(informer, |_, _| true, keys)
    }

    /// As [`Self::watch`], but for changes of which `matters(old, new)` says that they do not matter.
    pub fn watch_if<K: Kind>(
        mut self,
        informer: &Arc<Informer<K>>,
        matters: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
        keys: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        let (queue, informer) = (Arc::clone(&self.queue), Arc::clone(informer));
        let (done, synced) = tokio::sync::oneshot::channel();
        self.synced.push(synced);
        self.watches.spawn(async move {
            let mut changes = informer.subscribe();
            informer.synced().await;
            let _ = done.send(());
            let add = |object: &K| keys(object).into_iter().for_each(|key| queue.add(key));
            while let Some(change) = changes.next().await {
                match change {
                    Change::Resync => informer.list().iter().for_each(|object| add(object)),
                    Change::Added(object) | Change::Deleted(object) => add(&object),
                    Change::Modified { old, new } if matters(&old, &new) => {
                        add(&old);
                        add(&new);
                    }
                    Change::Modified { .. } => {}
                }
            }
        });
        self
    }

    /// Runs until cancelled, with a number of workers. Work begins when all informers have their first list.
    pub async fn run(mut self, workers: usize) {
        let cancel = self.cancel.clone();
        let synced = futures::future::join_all(std::mem::take(&mut self.synced));
        if cancel.run_until_cancelled(synced).await.is_none() {
            return;
        }
        tracing::debug!(controller = self.name, workers, "began");
        let all = (0..workers).map(|_| self.work());
        futures::future::join_all(all).await;
    }

    async fn work(&self) {
        while let Some(key) = self.queue.next(&self.cancel).await {
            // A pass that is under way when the process ends is cut off: every write is one request, and what is
            // left to do will be seen again from the state that is there.
            let Some(outcome) = self.cancel.run_until_cancelled(self.controller.pass(&key)).await else { return };
            self.settle(&key, outcome);
            self.queue.done(&key);
        }
    }

    fn settle(&self, key: &Key, outcome: Result<Again, ApiError>) {
        match outcome {
            Ok(again) => {
                self.queue.forget(key);
                if let Some(delay) = again {
                    self.queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                // A conflict only says that the informer is behind: no fault.
                if error.reason == Reason::Conflict {
                    tracing::debug!(controller = self.name, %key, %error, "will be tried again");
                } else {
                    tracing::info!(controller = self.name, %key, %error, "failed, will be tried again");
                }
                self.queue.add_failed(key.clone());
            }
        }
    }
}

/// Objects that a controller has deleted and that its informer still shows as staying: they count as gone.
#[derive(Default)]
pub struct Doomed {
    uids: Mutex<HashSet<String>>,
}

impl Doomed {
    /// A deletion of this object has been accepted.
    pub fn add(&self, uid: &str) {
        self.uids.lock().insert(uid.to_owned());
    }

    /// Whether the object has been deleted.
    pub fn contains(&self, uid: &str) -> bool {
        self.uids.lock().contains(uid)
    }

    /// The informer shows it as going or gone.
    pub fn forget(&self, uid: &str) {
        self.uids.lock().remove(uid);
    }

    /// Forgets whatever `informer` shows as going or does not show any more.
    pub fn follow<K: Kind>(self: &Arc<Self>, informer: &Arc<Informer<K>>, tasks: &mut JoinSet<()>) {
        let (doomed, informer) = (Arc::clone(self), Arc::clone(informer));
        tasks.spawn(async move {
            let mut changes = informer.subscribe();
            while let Some(change) = changes.next().await {
                match change {
                    Change::Resync => doomed.keep_only_staying(&informer.list()),
                    Change::Modified { new, .. } if new.metadata().deletion_timestamp.is_some() => {
                        doomed.drop_object(&*new)
                    }
                    Change::Deleted(object) => doomed.drop_object(&*object),
                    Change::Added(_) | Change::Modified { .. } => {}
                }
            }
        });
    }

    fn drop_object<K: Kind>(&self, object: &K) {
        if let Some(uid) = &object.metadata().uid {
            self.forget(uid);
        }
    }

    fn keep_only_staying<K: Kind>(&self, objects: &[Arc<K>]) {
        let staying: HashSet<&str> = objects
            .iter()
            .map(|object| object.metadata())
            .filter(|metadata| metadata.deletion_timestamp.is_none())
            .filter_map(|metadata| metadata.uid.as_deref())
            .collect();
        self.uids.lock().retain(|uid| staying.contains(uid.as_str()));
    }
}
