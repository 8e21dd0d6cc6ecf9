//! Namespaces that are being deleted: their content goes first, pods before all else, then they do.

pub mod conditions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
};
use skiff_api::{request::Options, status::ApiError};
use skiff_client::{Informer, Key};

use crate::{
    catalog::{Catalog, Known},
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, namespace},
};
use conditions::{Progress, conditions};

/// The controller's identity.
pub const NAME: &str = "namespace-controller";

/// The finalizer, in `spec`, that is this controller's to take away.
const FINALIZER: &str = "kubernetes";

/// Namespaces worked on at once.
const WORKERS: usize = 4;

/// After how long a namespace with content that has not gone yet is looked at again. Pods are told of by events;
/// this is for other objects that wait for their finalizers.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How many remaining objects of a resource are looked at for their finalizers.
const MAX_REMAINING: u64 = 500;

struct Namespaces {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    catalog: Catalog,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let (namespaces, pods) = (context.informers.of::<Namespace>(), context.informers.of::<Pod>());
    let cancel = context.cancel.clone();
    let catalog = Catalog::new(&context.informers);
    let (custom, going) = (Arc::clone(catalog.custom()), Arc::clone(&namespaces));
    let controller = Namespaces { context, namespaces: Arc::clone(&namespaces), catalog };
    let of_pod = move |pod: &Pod| {
        let name = namespace(&pod.metadata);
        let is_going = going.get("", name).is_some_and(|namespace| is_deleting(&namespace.metadata));
        if is_going { vec![Key::new("", name)] } else { Vec::new() }
    };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&namespaces, |one| if is_deleting(&one.metadata) { vec![Key::of(one)] } else { Vec::new() })
        .watch(&custom, |_| Vec::new())
        .watch_if(&pods, |_, _| false, of_pod)
        .run(WORKERS)
        .await;
}

#[async_trait]
impl Controller for Namespaces {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(namespace) = self.namespaces.get("", &key.name) else { return Ok(None) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if !is_deleting(&namespace.metadata) || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(None);
        }
        let progress = self.empty(&key.name).await;
        self.report(&namespace, &progress).await?;
        if !progress.is_done() {
            return Ok(Some(LOOK_AGAIN));
        }
        self.finalize(&key.name).await?;
        Ok(None)
    }
}

impl Namespaces {
    /// Deletes what there is. Pods go first and alone: other objects (policies, secrets) may be what they need
    /// while they stop.
    async fn empty(&self, name: &str) -> Progress {
        let mut all: Vec<Known> = self.catalog.whole().into_iter().filter(|known| known.namespaced).collect();
        all.sort_by_key(|known| known.kind != "Pod");
        let mut progress = Progress::default();
        for known in &all {
            if let Err(error) = self.empty_resource(name, known, &mut progress).await {
                progress.failures.push(error.to_string());
            }
            if known.kind == "Pod" && !progress.is_done() {
                break;
            }
        }
        progress
    }

    async fn empty_resource(&self, name: &str, known: &Known, progress: &mut Progress) -> Result<(), ApiError> {
        if self.remaining(name, known, 1).await?.is_none() {
            return Ok(());
        }
        let options = DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() };
        self.context.client.delete_collection(&known.resource, Some(name), &options).await?;
        let Some((count, finalizers)) = self.remaining(name, known, MAX_REMAINING).await? else { return Ok(()) };
        progress.remaining.insert(conditions::qualified(&known.resource), count);
        for (finalizer, count) in finalizers {
            *progress.finalizers.entry(finalizer).or_default() += count;
        }
        Ok(())
    }

    /// How many objects there are (up to a limit), and how many have which finalizer; `None` if there are none.
    async fn remaining(
        &self,
        name: &str,
        known: &Known,
        limit: u64,
    ) -> Result<Option<(usize, BTreeMap<String, usize>)>, ApiError> {
        let options = Options { limit: Some(limit), ..Options::default() };
        let list = match self.context.client.list_objects(&known.resource, Some(name), &options).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
        for object in list.entries.iter().filter_map(|entry| entry.object().ok()) {
            object.finalizers().for_each(|finalizer| *finalizers.entry(finalizer.to_owned()).or_default() += 1);
        }
        Ok((!list.entries.is_empty()).then_some((list.entries.len(), finalizers)))
    }

    async fn report(&self, namespace: &Namespace, progress: &Progress) -> Result<(), ApiError> {
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        // A namespace that is emptied at once needs no word of it.
        if progress.is_done() && status.conditions.is_none() {
            return Ok(());
        }
        status.conditions = Some(conditions(status.conditions.take().unwrap_or_default(), progress, Timestamp::now()));
        if changed.status == namespace.status {
            return Ok(());
        }
        self.namespaces.observe(self.context.client.update_status(&changed).await?);
        Ok(())
    }

    async fn finalize(&self, name: &str) -> Result<(), ApiError> {
        let mut namespace: Namespace = self.context.client.get("", name).await?;
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match self.context.client.update_subresource(&namespace, Some("finalize")).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
