//! `Event`s that say what a component did, for `kubectl describe` and `kubectl get events`.
//!
//! Recording never blocks and never fails: the queue is bounded and what does not fit is dropped, as what is said
//! too often is. One task writes.
//!
//! - The same event again is a higher `count` of the event that is there.
//! - Many events that differ only in their message become one, `(combined from similar events): ...`.
//! - An object of which too much is said is limited to [`SPAM_BURST`] events and one more every [`SPAM_REFILL`].
//!
//! The numbers are those of client-go's `EventCorrelator`.

mod correlate;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use serde_json::json;
use skiff_api::request::ContentType;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Client, Kind};
use correlate::{Correlator, Outcome, Said};
pub use correlate::{SPAM_BURST, SPAM_REFILL};

/// How many events may wait to be written.
const MAX_QUEUED: usize = 1024;

/// How many times an event is tried to be written before it is given up.
const MAX_ATTEMPTS: u32 = 4;

/// The delay before the second attempt.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How long a message may be, in bytes, as validation has it.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// It is.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Said>,
}

impl EventRecorder {
    /// A recorder for a component, e.g. `replicaset-controller`, on a host (empty where there is no host to name).
    /// Must be called within a Tokio runtime; its task ends with `cancel`.
    pub fn new(client: Client, component: &str, host: &str, cancel: CancellationToken) -> Self {
        let (queue, said) = mpsc::channel(MAX_QUEUED);
        let writer = Writer {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            correlator: Correlator::default(),
        };
        tokio::spawn(async move { cancel.run_until_cancelled(writer.run(said)).await });
        Self { queue }
    }

    /// Records an event about an object.
    pub fn event<K: Kind>(&self, about: &K, kind: EventType, reason: &str, message: impl Into<String>) {
        self.event_about(reference(about), kind, reason, message);
    }

    /// Records an event about what a reference names, e.g. one container of a pod by `fieldPath`.
    pub fn event_about(&self, about: ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
            message.truncate(end);
        }
        let said = Said { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.queue.try_send(said).is_err() {
            tracing::debug!(reason, "an event was dropped, too many are waiting");
        }
    }
}

/// A reference to an object, as events carry it.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let metadata = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut said: mpsc::Receiver<Said>) {
        while let Some(said) = said.recv().await {
            match self.correlator.judge(&said) {
                Outcome::Drop => {}
                Outcome::Create { name, message } => self.create(&said, name, message).await,
                Outcome::Count { name, count, first_at, message } => {
                    self.count(&said, &name, count, first_at, message).await;
                }
            }
        }
    }

    async fn create(&self, said: &Said, name: String, message: String) {
        self.create_counted(self.event(said, name, message, 1, said.at)).await;
    }

    async fn create_counted(&self, event: Event) {
        let mut delay = RETRY_DELAY;
        for _ in 0..MAX_ATTEMPTS {
            match self.client.create(&event).await {
                Ok(_) => return,
                // The namespace is going, or the event is refused: trying again changes nothing.
                Err(error) if error.code < 500 && error.code != 429 => {
                    tracing::debug!(%error, "an event was refused");
                    return;
                }
                Err(_) => tokio::time::sleep(delay).await,
            }
            delay *= 2;
        }
    }

    async fn count(&self, said: &Said, name: &str, count: i32, first_at: Timestamp, message: String) {
        let patch = json!({"count": count, "lastTimestamp": Time(said.at), "message": message});
        let namespace = namespace(&said.about);
        let form = ContentType::StrategicMergePatch;
        match self.client.patch::<Event>(namespace, name, None, form, &patch).await {
            // It has expired meanwhile.
            Err(error) if error.code == 404 => {
                self.create_counted(self.event(said, name.to_owned(), message, count, first_at)).await;
            }
            Err(error) => tracing::debug!(%error, "an event could not be counted"),
            Ok(_) => {}
        }
    }

    fn event(&self, said: &Said, name: String, message: String, count: i32, first_at: Timestamp) -> Event {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace(&said.about).to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: said.about.clone(),
            type_: Some(said.kind.as_str().to_owned()),
            reason: Some(said.reason.clone()),
            message: Some(message),
            count: Some(count),
            first_timestamp: Some(Time(first_at)),
            last_timestamp: Some(Time(said.at)),
            event_time: None::<MicroTime>,
            source: Some(EventSource { component: some(&self.component), host: some(&self.host) }),
            reporting_component: some(&self.component),
            reporting_instance: some(&self.host),
            ..Event::default()
        }
    }
}

/// Where events about an object are kept: with it, and in `default` for cluster-scoped ones.
fn namespace(about: &ObjectReference) -> &str {
    about.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}
