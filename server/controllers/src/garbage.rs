//! The garbage collector: what is owned goes with its owners, in the background, before them, or not at all, as the
//! deletion of the owner asks.
//!
//! One reflector a resource feeds the graph of owners; whatever may have to go is queued by UID. The kinds are watched
//! apart: the graph may know an owner and not yet the dependent that was made before it, or the other way round. So
//! before anything is done that cannot be undone the server is asked:
//! - before an object is deleted: for it as it is now, and for every owner that the graph does not know. An object is
//!   looked at again for as long as the graph does not know an owner that the server has.
//! - before an owner is let go that leaves its dependents, or goes after them: for all its dependents.

pub mod graph;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skiff_api::{
    kinds::GroupVersionKind,
    object::Object,
    request::{ContentType, Request, Verb},
    status::ApiError,
    wire::Entry,
};
use skiff_client::{
    Client, EventRecorder, EventType, Queue, WatchEvent,
    informer::reflector::{self, Sink},
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Known},
    frame::Context,
};
use graph::{FOREGROUND, Graph, Node, ORPHAN, Owner, Standing, Verdict, judge};

/// The controller's identity.
pub const NAME: &str = "generic-garbage-collector";

/// Objects worked on at once.
const WORKERS: usize = 16;

/// What came of looking at an object.
enum Looked {
    /// There is nothing more to do until something changes.
    Done,
    /// The graph is behind.
    Again,
}

/// Which of these name an owner, with their UIDs.
fn dependents_in(entries: &[Arc<Entry>], owner: &str, known: &Arc<Known>) -> Vec<(String, Node)> {
    let named = memchr::memmem::Finder::new(owner);
    let may_be = entries.iter().filter(|entry| named.find(&entry.json).is_some());
    let read = may_be.filter_map(|entry| Node::read(known, &entry.json));
    read.filter(|(_, node)| node.owners.iter().any(|known| known.uid == owner)).collect()
}

struct Collector {
    client: Client,
    events: EventRecorder,
    catalog: Catalog,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<Queue<String>>,
    cancel: CancellationToken,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let collector = Arc::new(Collector {
        client: context.client.clone(),
        events: context.events.clone(),
        catalog: Catalog::new(&context.informers),
        graph: Arc::default(),
        queue: Arc::new(Queue::new()),
        cancel: context.cancel.clone(),
    });
    let cancel = context.cancel.clone();
    let workers = (0..WORKERS).map(|_| collector.work());
    futures::future::join(collector.follow_catalog(&cancel), futures::future::join_all(workers)).await;
}

impl Collector {
    /// Keeps one reflector running for each resource that there is.
    async fn follow_catalog(&self, cancel: &CancellationToken) {
        let mut running: HashMap<Known, CancellationToken> = HashMap::new();
        let custom = Arc::clone(self.catalog.custom());
        let mut changes = custom.subscribe();
        if cancel.run_until_cancelled(custom.synced()).await.is_none() {
            return;
        }
        while let Some(Some(_)) = cancel.run_until_cancelled(changes.next()).await {
            let all = self.catalog.all();
            running.retain(|known, running| all.contains(known) || self.stop(known, running));
            for known in all {
                running.entry(known.clone()).or_insert_with(|| self.start(known));
            }
        }
    }

    fn start(&self, known: Known) -> CancellationToken {
        let cancel = self.cancel.child_token();
        let list = Request::new(Verb::List, known.resource.clone(), "", "");
        let watched =
            Watched { known: Arc::new(known), graph: Arc::clone(&self.graph), queue: Arc::clone(&self.queue) };
        tokio::spawn(reflector::run(self.client.clone(), list, Arc::new(watched), cancel.clone()));
        cancel
    }

    /// A resource is no more, and neither are its objects. Always false: it is not to be retained.
    fn stop(&self, known: &Known, running: &CancellationToken) -> bool {
        running.cancel();
        let mut graph = self.graph.lock();
        for uid in graph.of_resource(known) {
            graph.remove(&uid).into_iter().for_each(|uid| self.queue.add(uid));
        }
        false
    }

    async fn work(&self) {
        while let Some(uid) = self.queue.next(&self.cancel).await {
            let Some(outcome) = self.cancel.run_until_cancelled(self.look(&uid)).await else { return };
            match outcome {
                Ok(Looked::Done) => self.queue.forget(&uid),
                Ok(Looked::Again) => self.queue.add_failed(uid.clone()),
                Err(error) => {
                    tracing::debug!(%uid, %error, "the garbage collector tries again");
                    self.queue.add_failed(uid.clone());
                }
            }
            self.queue.done(&uid);
        }
    }

    async fn look(&self, uid: &str) -> Result<Looked, ApiError> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(Looked::Done) };
        if node.deleting && node.orphans {
            self.orphan_dependents(uid, &node).await?;
        }
        if node.is_waiting() {
            return self.go_after_dependents(uid, &node).await;
        }
        if node.deleting || node.owners.is_empty() {
            return Ok(Looked::Done);
        }
        self.follow_owners(uid, &node).await
    }

    /// Takes an owner out of its dependents, then lets it go.
    async fn orphan_dependents(&self, uid: &str, node: &Node) -> Result<(), ApiError> {
        let dependents = self.live_dependents(uid, node).await?;
        let releases = dependents.into_iter().map(|(dependent_uid, dependent)| async move {
            let Some(live) = self.live(&dependent, &dependent_uid).await? else { return Ok(()) };
            self.release(&dependent, &live, &[uid.to_owned()]).await
        });
        let outcomes: Vec<Result<(), ApiError>> = stream::iter(releases).buffer_unordered(WORKERS).collect().await;
        outcomes.into_iter().collect::<Result<(), _>>()?;
        self.drop_finalizer(uid, node, ORPHAN).await
    }

    /// All dependents that the server has of an owner now, with their UIDs. It is asked for every object that could be
    /// one: owners that are deleted so are few.
    async fn live_dependents(&self, uid: &str, node: &Node) -> Result<Vec<(String, Node)>, ApiError> {
        let near = |known: &Known| known.namespaced || node.namespace.is_empty();
        let lists = self.catalog.all().into_iter().filter(near).map(|known| async move {
            let namespace = if known.namespaced { &*node.namespace } else { "" };
            let list = self.client.raw_list(Request::new(Verb::List, known.resource.clone(), namespace, "")).await?;
            Ok(dependents_in(&list.entries, uid, &Arc::new(known)))
        });
        let lists: Vec<Result<Vec<_>, ApiError>> = stream::iter(lists).buffer_unordered(WORKERS).collect().await;
        Ok(lists.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Deletes what an owner waits for; lets it go when nothing is left that it has to wait for.
    async fn go_after_dependents(&self, uid: &str, node: &Node) -> Result<Looked, ApiError> {
        if self.graph.lock().blocking(uid) > 0 {
            self.graph.lock().dependents(uid).for_each(|dependent| self.queue.add(dependent.clone()));
            return Ok(Looked::Done);
        }
        let dependents = self.live_dependents(uid, node).await?;
        if dependents.iter().any(|(_, dependent)| dependent.blocks(uid)) {
            return Ok(Looked::Again);
        }
        self.drop_finalizer(uid, node, FOREGROUND).await.map(|()| Looked::Done)
    }

    async fn follow_owners(&self, uid: &str, node: &Node) -> Result<Looked, ApiError> {
        if node.owners.iter().all(|owner| self.known_standing(node, owner) == Some(Standing::Solid)) {
            return Ok(Looked::Done);
        }
        let Some(live) = self.live(node, uid).await? else { return Ok(Looked::Done) };
        let mut owners = Vec::new();
        for owner in live.owner_references() {
            let owner = Owner {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
                block_owner_deletion: owner.block_owner_deletion,
            };
            owners.push((owner.uid.clone(), self.standing(node, &owner).await?));
        }
        let has_dependents = self.graph.lock().dependents(uid).next().is_some();
        match judge(&owners, &live, has_dependents) {
            // What the graph never knew it is never told the end of.
            Verdict::Keep if node.owners.iter().any(|owner| self.is_yet_to_come(node, owner)) => Ok(Looked::Again),
            Verdict::Keep => Ok(Looked::Done),
            Verdict::Release(gone) => self.release(node, &live, &gone).await.map(|()| Looked::Done),
            Verdict::Delete(policy) => {
                if owners.iter().any(|(_, standing)| *standing == Standing::Waiting) && self.is_in_circle(uid) {
                    self.unblock(node, &live).await?;
                }
                self.delete(node, uid, policy).await.map(|()| Looked::Done)
            }
        }
    }

    /// Whether the graph does not know an owner that it could know.
    fn is_yet_to_come(&self, node: &Node, owner: &Owner) -> bool {
        let kind = self.catalog.of_owner(&owner.api_version, &owner.kind);
        let could_be = kind.is_some_and(|kind| !kind.namespaced || !node.namespace.is_empty());
        could_be && self.known_standing(node, owner).is_none()
    }

    /// Whether one of an object's dependents waits for its own dependents to go: the object may be among those.
    fn is_in_circle(&self, uid: &str) -> bool {
        let graph = self.graph.lock();
        graph.dependents(uid).any(|dependent| graph.get(dependent).is_some_and(Node::is_waiting))
    }

    /// No owner waits for this object any more: objects that own each other would wait for ever.
    async fn unblock(&self, node: &Node, live: &Object) -> Result<(), ApiError> {
        let mut owners =
            live.at(&["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let blocks = |owner: &Value| owner["blockOwnerDeletion"] == Value::Bool(true);
        if !owners.iter().any(blocks) {
            return Ok(());
        }
        for owner in owners.iter_mut().filter(|owner| blocks(owner)) {
            owner["blockOwnerDeletion"] = Value::Bool(false);
        }
        self.patch(node, live, json!({"ownerReferences": owners})).await
    }

    /// What an owner is like by the graph, if it is there under the name that the reference gives.
    fn known_standing(&self, dependent: &Node, owner: &Owner) -> Option<Standing> {
        let graph = self.graph.lock();
        let known = graph.owner_of(dependent, owner)?;
        Some(if known.is_waiting() { Standing::Waiting } else { Standing::Solid })
    }

    /// What an owner is like: by the graph, or, where that does not know it, by the server.
    async fn standing(&self, dependent: &Node, owner: &Owner) -> Result<Standing, ApiError> {
        if let Some(standing) = self.known_standing(dependent, owner) {
            return Ok(standing);
        }
        let Some(kind) = self.catalog.of_owner(&owner.api_version, &owner.kind) else {
            // Nothing may be deleted because a kind is not known (yet).
            return Err(ApiError::internal(format!("there is no kind {} in {}", owner.kind, owner.api_version)));
        };
        if kind.namespaced && dependent.namespace.is_empty() {
            // Such a reference cannot be resolved; the object is left alone.
            return Ok(Standing::Solid);
        }
        let namespace = if kind.namespaced { &*dependent.namespace } else { "" };
        match self.client.get_object(&kind.resource, namespace, &owner.name).await {
            Ok(live) if live.uid() == owner.uid => {
                let waits = live.is_deleting() && live.finalizers().any(|finalizer| finalizer == FOREGROUND);
                Ok(if waits { Standing::Waiting } else { Standing::Solid })
            }
            Ok(_) => Ok(self.absent(dependent, owner)),
            Err(error) if error.is_not_found() => Ok(self.absent(dependent, owner)),
            Err(error) => Err(error),
        }
    }

    /// An owner is not there. Where it is there in another namespace the reference is wrong, and that is said.
    fn absent(&self, dependent: &Node, owner: &Owner) -> Standing {
        let elsewhere = self.graph.lock().get(&owner.uid).is_some_and(|known| !known.namespace.is_empty());
        if elsewhere {
            let (resource, kind) = (&dependent.known.resource, &dependent.known.kind);
            let kind = GroupVersionKind::new(&resource.group, &resource.version, kind);
            let about = ObjectReference {
                api_version: Some(kind.api_version()),
                kind: Some(kind.kind),
                namespace: Some(dependent.namespace.to_string()),
                name: Some(dependent.name.to_string()),
                ..ObjectReference::default()
            };
            let message = format!(
                "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
                owner.api_version, owner.kind, dependent.namespace, owner.name, owner.uid, dependent.namespace
            );
            self.events.event_about(about, EventType::Warning, "OwnerRefInvalidNamespace", message);
        }
        Standing::Absent
    }

    /// The object as it is now, if it is still the same one.
    async fn live(&self, node: &Node, uid: &str) -> Result<Option<Object>, ApiError> {
        match self.client.get_object(&node.known.resource, &node.namespace, &node.name).await {
            Ok(live) if live.uid() == uid => Ok(Some(live)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, node: &Node, live: &Object, owners: &[String]) -> Result<(), ApiError> {
        let all = live.at(&["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let stays = |owner: &Value| !owners.iter().any(|uid| owner["uid"] == **uid);
        let (before, rest) = (all.len(), all.into_iter().filter(stays).collect::<Vec<_>>());
        if rest.len() == before {
            return Ok(());
        }
        self.patch(
            node,
            live,
            json!({"ownerReferences": if rest.is_empty() { Value::Null } else { Value::Array(rest) }}),
        )
        .await
    }

    async fn drop_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), ApiError> {
        let Some(live) = self.live(node, uid).await? else { return Ok(()) };
        let rest: Vec<&str> = live.finalizers().filter(|known| *known != finalizer).collect();
        if rest.len() == live.finalizers().count() {
            return Ok(());
        }
        self.patch(node, &live, json!({"finalizers": if rest.is_empty() { Value::Null } else { json!(rest) }})).await
    }

    /// A merge patch of the metadata, of exactly the version that was read.
    async fn patch(&self, node: &Node, live: &Object, mut metadata: Value) -> Result<(), ApiError> {
        metadata["uid"] = live.uid().into();
        metadata["resourceVersion"] = live.str_at(&["metadata", "resourceVersion"]).unwrap_or_default().into();
        let patch = json!({"metadata": metadata});
        let resource = &node.known.resource;
        match self.client.patch_object(resource, &node.namespace, &node.name, ContentType::MergePatch, &patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(&self, node: &Node, uid: &str, policy: &str) -> Result<(), ApiError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let options = DeleteOptions {
            preconditions: Some(preconditions),
            propagation_policy: Some(policy.to_owned()),
            ..DeleteOptions::default()
        };
        match self.client.delete_object(&node.known.resource, &node.namespace, &node.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

/// One resource's place in the graph.
struct Watched {
    known: Arc<Known>,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<Queue<String>>,
}

impl Watched {
    fn set(&self, entry: &Entry) {
        if let Some((uid, node)) = Node::read(&self.known, &entry.json) {
            let look = self.graph.lock().set(&uid, node);
            look.into_iter().for_each(|uid| self.queue.add(uid));
        }
    }

    fn remove(&self, uid: &str) {
        self.graph.lock().remove(uid).into_iter().for_each(|uid| self.queue.add(uid));
    }
}

impl Sink for Watched {
    fn replace(&self, entries: &[Arc<Entry>], _resource_version: u64) {
        let there: std::collections::HashSet<&str> = entries.iter().map(|entry| entry.head.uid.as_str()).collect();
        let known = self.graph.lock().of_resource(&self.known);
        known.iter().filter(|uid| !there.contains(uid.as_str())).for_each(|uid| self.remove(uid));
        entries.iter().for_each(|entry| self.set(entry));
    }

    fn apply(&self, event: &WatchEvent) {
        match event {
            WatchEvent::Added(entry) | WatchEvent::Modified(entry) => self.set(entry),
            WatchEvent::Deleted(entry) => self.remove(&entry.head.uid),
            WatchEvent::Bookmark { .. } => {}
        }
    }
}
