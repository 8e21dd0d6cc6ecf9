//! ResourceQuotas: what is used of each, counted anew when something that counts is gone or changed.
//!
//! Admission charges what is created as it is created; this gives back what is deleted, and sets right what was
//! charged for nothing. Only resources that some quota limits are watched.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::json;
use skiff_api::{
    object::Object,
    quota::{Limit, Usage, to_json, usage, used},
    request::{GroupVersionResource, Options, Request, Verb},
    status::ApiError,
    wire::Entry,
};
use skiff_client::{
    Informer, Key, Queue, WatchEvent,
    informer::reflector::{self, Sink},
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Catalog,
    frame::{Again, Context, Controller, Frame},
    meta::is_deleting,
};

/// The controller's identity.
pub const NAME: &str = "resourcequota-controller";

/// Quotas worked on at once.
const WORKERS: usize = 2;

/// How long changes are gathered before a quota is counted anew: counting costs a list.
const GATHER: Duration = Duration::from_millis(100);

/// Objects a page of a list.
const PAGE_OBJECTS: u64 = 500;

struct Quotas {
    context: Context,
    quotas: Arc<Informer<ResourceQuota>>,
    catalog: Catalog,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let quotas = context.informers.of::<ResourceQuota>();
    let catalog = Catalog::new(&context.informers);
    let cancel = context.cancel.clone();
    let controller = Quotas { context: context.clone(), quotas: Arc::clone(&quotas), catalog: catalog.clone() };
    let frame = Frame::new(NAME, Arc::new(controller), &cancel).watch_if(
        &quotas,
        |old, new| old.spec != new.spec,
        |quota| vec![Key::of(quota)],
    );
    let watches = Watches { context, quotas, catalog, queue: frame.queue() };
    futures::future::join(frame.run(WORKERS), cancel.run_until_cancelled(watches.follow())).await;
}

#[async_trait]
impl Controller for Quotas {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name).filter(|one| !is_deleting(&one.metadata)) else {
            return Ok(None);
        };
        let object = as_object(&quota)?;
        let limit = Limit::read(&object);
        let mut usages = Vec::new();
        for (group, resource) in limit.sources() {
            if let Some(known) = self.resource(group, resource) {
                self.count(&key.namespace, &known, &mut usages).await?;
            }
        }
        self.write(&quota, &limit, &usages).await?;
        Ok(None)
    }
}

impl Quotas {
    fn resource(&self, group: &str, resource: &str) -> Option<GroupVersionResource> {
        find(&self.catalog, group, resource)
    }

    /// Adds what the objects of a resource count for.
    async fn count(
        &self,
        namespace: &str,
        resource: &GroupVersionResource,
        usages: &mut Vec<Usage>,
    ) -> Result<(), ApiError> {
        let mut options = Options { limit: Some(PAGE_OBJECTS), ..Options::default() };
        let now = Timestamp::now();
        loop {
            let page = self.context.client.list_objects(resource, Some(namespace), &options).await?;
            let objects = page.entries.iter().filter_map(|entry| entry.object().ok());
            usages.extend(objects.map(|object| usage(&resource.group, &resource.resource, &object, now)));
            match page.continue_token {
                Some(token) => options.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }

    /// Writes what is used, if that is news. The version is given, so that what admission charged meanwhile is not
    /// lost: this fails then, and is tried again on what the watch tells.
    async fn write(&self, quota: &ResourceQuota, limit: &Limit, usages: &[Usage]) -> Result<(), ApiError> {
        let status = json!({"hard": to_json(&limit.hard), "used": to_json(&used(limit, usages))});
        if serde_json::to_value(&quota.status).is_ok_and(|known| known == status) {
            return Ok(());
        }
        let status = serde_json::from_value(status).map_err(|error| ApiError::internal(error.to_string()))?;
        let changed = ResourceQuota { status: Some(status), ..quota.clone() };
        match self.context.client.update_status(&changed).await {
            Ok(quota) => self.quotas.observe(quota),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn as_object(quota: &ResourceQuota) -> Result<Object, ApiError> {
    let bytes = serde_json::to_vec(quota).map_err(|error| ApiError::internal(error.to_string()))?;
    Object::from_slice(&bytes).map_err(|error| ApiError::internal(error.to_string()))
}

fn find(catalog: &Catalog, group: &str, resource: &str) -> Option<GroupVersionResource> {
    let mut all = catalog.all().into_iter().map(|known| known.resource);
    all.find(|known| known.group == group && known.resource == resource)
}

/// Keeps a watch on each resource that some quota limits.
struct Watches {
    context: Context,
    quotas: Arc<Informer<ResourceQuota>>,
    catalog: Catalog,
    queue: Arc<Queue<Key>>,
}

impl Watches {
    async fn follow(&self) {
        let mut running: HashMap<GroupVersionResource, CancellationToken> = HashMap::new();
        let mut changes = self.quotas.subscribe();
        self.quotas.synced().await;
        while changes.next().await.is_some() {
            let wanted = self.wanted();
            running.retain(|known, running| {
                wanted.contains(known) || {
                    running.cancel();
                    false
                }
            });
            for resource in wanted {
                running.entry(resource.clone()).or_insert_with(|| self.start(resource));
            }
        }
    }

    fn wanted(&self) -> BTreeSet<GroupVersionResource> {
        let quotas = self.quotas.list();
        let limits = quotas.iter().filter_map(|quota| as_object(quota).ok()).map(|object| Limit::read(&object));
        let mut wanted = BTreeSet::new();
        for limit in limits {
            wanted.extend(limit.sources().into_iter().filter_map(|(group, name)| find(&self.catalog, group, name)));
        }
        wanted
    }

    fn start(&self, resource: GroupVersionResource) -> CancellationToken {
        let cancel = self.context.cancel.child_token();
        let list = Request::new(Verb::List, resource.clone(), "", "");
        let watched = Watched { resource, quotas: Arc::clone(&self.quotas), queue: Arc::clone(&self.queue) };
        tokio::spawn(reflector::run(self.context.client.clone(), list, Arc::new(watched), cancel.clone()));
        cancel
    }
}

/// One resource whose objects count.
struct Watched {
    resource: GroupVersionResource,
    quotas: Arc<Informer<ResourceQuota>>,
    queue: Arc<Queue<Key>>,
}

impl Watched {
    fn look_in(&self, namespace: &str) {
        for quota in self.quotas.list_in(namespace) {
            let concerned = as_object(&quota)
                .is_ok_and(|object| Limit::read(&object).concerns(&self.resource.group, &self.resource.resource));
            if concerned {
                self.queue.add_after(Key::of(&*quota), GATHER);
            }
        }
    }

    /// Whether a change can mean that an object counts for something else: pods that end, services and claims.
    fn matters(&self, entry: &Entry) -> bool {
        match (self.resource.group.as_str(), self.resource.resource.as_str()) {
            ("", "services" | "persistentvolumeclaims") => true,
            ("", "pods") => entry.object().is_ok_and(|pod| {
                pod.is_deleting() || matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"))
            }),
            _ => false,
        }
    }
}

impl Sink for Watched {
    fn replace(&self, _: &[Arc<Entry>], _: u64) {
        self.quotas.list().iter().for_each(|quota| self.queue.add_after(Key::of(&**quota), GATHER));
    }

    fn apply(&self, event: &WatchEvent) {
        match event {
            WatchEvent::Deleted(entry) => self.look_in(&entry.head.namespace),
            WatchEvent::Modified(entry) if self.matters(entry) => self.look_in(&entry.head.namespace),
            // What is created has been charged.
            WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Bookmark { .. } => {}
        }
    }
}
