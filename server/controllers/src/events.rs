//! Events are forgotten an hour after they were last written (kube-apiserver's `--event-ttl`).
//!
//! Nothing is searched for: every write of an Event puts it at the end of one line ([`expiry`]), its head is deleted
//! when its time has come, and until then this sleeps. In Kubernetes this is a lease of the datastore's, so it is the
//! API server itself that deletes, and not a controller with a role of its own.

pub mod expiry;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Event,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use parking_lot::Mutex;
use serde::Deserialize;
use skiff_api::{
    request::{Request, Verb},
    wire::Entry,
};
use skiff_client::{
    Client, WatchEvent,
    client::resource_of,
    informer::reflector::{self, Sink},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::meta::elapsed;
use expiry::{Due, Expiry};

/// How long Events are kept.
pub const TTL: Duration = Duration::from_secs(60 * 60);

/// How many are deleted at a time, and how many of those at once.
const BATCH: usize = 256;
const PARALLEL: usize = 16;

/// How long one that could not be deleted is kept.
const RETRY: Duration = Duration::from_secs(30);

struct Line {
    ttl: Duration,
    expiry: Mutex<Expiry>,
    /// The head of the line may have become another.
    changed: Notify,
}

/// Deletes Events that are older than `ttl`, until cancelled.
pub async fn run(client: Client, ttl: Duration, cancel: CancellationToken) {
    let line = Arc::new(Line { ttl, expiry: Mutex::default(), changed: Notify::new() });
    let list = Request::new(Verb::List, resource_of::<Event>(), "", "");
    let follow = reflector::run(client.clone(), list, Arc::clone(&line), cancel.clone());
    let delete = cancel.run_until_cancelled(line.delete_due(&client));
    futures::future::join(follow, delete).await;
}

impl Line {
    async fn delete_due(&self, client: &Client) {
        loop {
            let next = self.expiry.lock().next();
            let changed = self.changed.notified();
            match next {
                None => changed.await,
                Some(next) if next > Instant::now() => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        () = changed => {}
                    }
                }
                Some(_) => {
                    let due = self.expiry.lock().take_due(Instant::now(), BATCH);
                    stream::iter(due).for_each_concurrent(PARALLEL, |due| self.delete(client, due)).await;
                }
            }
        }
    }

    /// Deletes exactly the version that has expired: one that was written since has a later place in the line.
    async fn delete(&self, client: &Client, due: Due) {
        let preconditions = Preconditions { resource_version: Some(due.revision.to_string()), uid: None };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        match client.delete::<Event>(&due.namespace, &due.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                tracing::debug!(%error, "an old event could not be deleted");
                self.expiry.lock().put_back(due, Instant::now() + RETRY);
            }
            _ => {}
        }
    }

    /// When an Event expires by its own times: for those that were written before this process began.
    fn deadline(&self, entry: &Entry, now: Timestamp, now_instant: Instant) -> Instant {
        let age = written(&entry.json).map_or(Duration::ZERO, |written| elapsed(written, now));
        now_instant + self.ttl.saturating_sub(age)
    }
}

impl Sink for Line {
    fn replace(&self, entries: &[Arc<Entry>], _resource_version: u64) {
        let (now, instant) = (Timestamp::now(), Instant::now());
        let all = entries.iter().map(|entry| (due(entry), self.deadline(entry, now, instant))).collect();
        self.expiry.lock().replace(all);
        self.changed.notify_one();
    }

    fn apply(&self, event: &WatchEvent) {
        match event {
            WatchEvent::Added(entry) | WatchEvent::Modified(entry) => {
                let mut expiry = self.expiry.lock();
                let was_empty = expiry.next().is_none();
                expiry.written(due(entry), Instant::now() + self.ttl);
                drop(expiry);
                if was_empty {
                    self.changed.notify_one();
                }
            }
            WatchEvent::Deleted(entry) => self.expiry.lock().gone(&entry.head.namespace, &entry.head.name),
            WatchEvent::Bookmark { .. } => {}
        }
    }
}

fn due(entry: &Entry) -> Due {
    Due { namespace: (*entry.head.namespace).into(), name: (*entry.head.name).into(), revision: entry.resource_version }
}

/// The times of an Event of either form.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    metadata: Created,
    last_timestamp: Option<String>,
    deprecated_last_timestamp: Option<String>,
    event_time: Option<String>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Created {
    creation_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<String>,
}

/// The latest time that an Event speaks of.
fn written(json: &[u8]) -> Option<Timestamp> {
    let times: Times = serde_json::from_slice(json).ok()?;
    let all = [
        times.metadata.creation_timestamp,
        times.last_timestamp,
        times.deprecated_last_timestamp,
        times.event_time,
        times.series.and_then(|series| series.last_observed_time),
    ];
    all.into_iter().flatten().filter_map(|text| text.parse().ok()).max()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{eventually, object};
    use skiff_client::fake::FakeApi;

    fn event(name: &str) -> Event {
        object(json!({"metadata": {"name": name, "namespace": "x", "creationTimestamp": Timestamp::now().to_string()},
            "involvedObject": {}}))
    }

    async fn names(client: &Client) -> Vec<String> {
        let all = client.list::<Event>(None, &Default::default()).await.unwrap().items;
        all.into_iter().map(|event| event.metadata.name.unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn events_go_after_their_time_and_those_that_happen_again_stay() {
        let (api, cancel) = (FakeApi::new(), CancellationToken::new());
        let client = api.client();
        let mut old = event("old");
        old.last_timestamp = None;
        old.metadata.creation_timestamp = Some(object(json!("2020-01-01T00:00:00Z")));
        client.create(&old).await.unwrap();
        tokio::spawn(run(client.clone(), TTL, cancel.clone()));
        eventually(async || names(&client).await.is_empty()).await;

        client.create(&event("once")).await.unwrap();
        client.create(&event("again")).await.unwrap();
        tokio::time::sleep(TTL / 2).await;
        let form = skiff_api::request::ContentType::MergePatch;
        client.patch::<Event>("x", "again", None, form, &json!({"count": 2})).await.unwrap();
        assert_eq!(names(&client).await.len(), 2);
        tokio::time::sleep(TTL / 2 + Duration::from_secs(1)).await;
        eventually(async || names(&client).await == ["again"]).await;
        tokio::time::sleep(TTL / 2).await;
        eventually(async || names(&client).await.is_empty()).await;
        cancel.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_deleted_is_tried_again() {
        let (api, cancel) = (FakeApi::new(), CancellationToken::new());
        let client = api.client();
        api.fail_when(|request| {
            (request.verb == Verb::Delete).then(|| skiff_api::status::ApiError::internal("not now"))
        });
        tokio::spawn(run(client.clone(), Duration::from_secs(1), cancel.clone()));
        client.create(&event("stuck")).await.unwrap();
        tokio::time::sleep(RETRY / 2).await;
        assert_eq!(names(&client).await, ["stuck"]);
        api.heal();
        tokio::time::sleep(RETRY).await;
        eventually(async || names(&client).await.is_empty()).await;
        cancel.cancel();
    }
}
