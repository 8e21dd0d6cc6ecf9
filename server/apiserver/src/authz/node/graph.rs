//! The graph from nodes to what the pods that run there need: which node is related to which object.
//!
//! It follows the watch cache. A change is in the followed streams before its write is acknowledged, and every question
//! first takes in what has come: so an answer knows of all that was acknowledged before it was asked.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _};
use memchr::memmem;
use parking_lot::Mutex;
use serde_json::Value;
use skiff_api::{kinds::StorageKey, object::Object, wire::Entry};
use skiff_store::cache::{CacheEvent, CacheStream, Cacher, WatchQuery};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::references::{self, CONFIG_MAPS, SECRETS};

/// How long a stream that cannot be opened is left alone.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// A kind of object that nodes may be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the kinds")]
pub enum Vertex {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
    Pod,
    Volume,
    VolumeAttachment,
    ResourceSlice,
}

/// The kinds that are followed.
const FOLLOWED: [(&str, &str); 4] = [
    ("core", "pods"),
    ("core", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
];

/// Namespace (empty for cluster-scoped objects) and name.
type Place = (String, String);

/// What a pod that is bound to a node needs.
struct Pod {
    uid: String,
    node: String,
    needs: HashSet<(Vertex, String)>,
}

/// What a volume belongs to.
struct Volume {
    claim: Option<Place>,
    secrets: Vec<Place>,
}

/// What is known of the followed kinds.
#[derive(Default)]
struct Edges {
    pods: HashMap<Place, Pod>,
    /// How many pods of each node need an object.
    needed: HashMap<(Vertex, Place), HashMap<String, usize>>,
    volumes: HashMap<String, Volume>,
    /// The volumes that need a Secret.
    secret_volumes: HashMap<Place, HashSet<String>>,
    /// The node that an attachment or a slice names.
    named: HashMap<(Vertex, String), String>,
}

/// The graph.
pub struct Graph {
    cacher: Arc<Cacher>,
    state: Mutex<State>,
    /// Tells [`Graph::follow`] that somebody else has looked into the streams, which makes them forget it.
    looked: Notify,
}

#[derive(Default)]
struct State {
    edges: Edges,
    streams: [Option<CacheStream>; FOLLOWED.len()],
}

impl Graph {
    /// Over a cache; nothing is followed until it is first asked.
    pub fn new(cacher: Arc<Cacher>) -> Self {
        Self { cacher, state: Mutex::default(), looked: Notify::new() }
    }

    /// Whether a node is related to an object.
    pub fn relates(&self, node: &str, vertex: Vertex, namespace: &str, name: &str) -> bool {
        let mut state = self.state.lock();
        // Two rounds: a stream that is found lost in the first is opened anew in the second.
        for _ in 0..2 {
            self.open(&mut state);
            if state.take_in(&mut Context::from_waker(Waker::noop())) {
                break;
            }
        }
        let related = state.edges.relates(node, vertex, (namespace, name));
        drop(state);
        self.looked.notify_one();
        related
    }

    /// Opens what is not followed, where that needs no waiting: where nobody else writes to the store.
    fn open(&self, state: &mut State) {
        for at in 0..FOLLOWED.len() {
            if state.streams[at].is_none()
                && let Some(Ok(stream)) = Box::pin(self.cacher.watch(&kind(at), WatchQuery::default())).now_or_never()
            {
                state.begin(at, stream);
            }
        }
    }

    /// Opens what is not followed, and waits for it.
    async fn open_in_time(&self) {
        for at in 0..FOLLOWED.len() {
            if self.state.lock().streams[at].is_some() {
                continue;
            }
            match self.cacher.watch(&kind(at), WatchQuery::default()).await {
                Ok(stream) => {
                    let mut state = self.state.lock();
                    if state.streams[at].is_none() {
                        state.begin(at, stream);
                    }
                }
                Err(error) => tracing::debug!(%error, "what nodes are related to cannot be followed for now"),
            }
        }
    }

    /// Takes changes in as they come, until cancelled, so that no question finds many.
    pub async fn follow(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            self.open_in_time().await;
            let waiting = futures::future::poll_fn(|cx| match self.state.lock().take_in(cx) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            });
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.looked.notified() => {}
                () = waiting => {
                    cancel.run_until_cancelled(tokio::time::sleep(REOPEN_AFTER)).await;
                }
            }
        }
    }
}

/// The storage key of a followed kind.
fn kind(at: usize) -> StorageKey {
    let (group, resource) = FOLLOWED[at];
    StorageKey { group: group.to_owned(), resource: resource.to_owned() }
}

impl State {
    /// Begins to follow a kind: the stream tells all that is there first.
    fn begin(&mut self, at: usize, stream: CacheStream) {
        self.edges.forget(FOLLOWED[at].1);
        self.streams[at] = Some(stream);
    }

    /// Takes in all that has come; `false` where a stream is lost or not open.
    fn take_in(&mut self, cx: &mut Context<'_>) -> bool {
        let mut whole = true;
        for (slot, (_, resource)) in self.streams.iter_mut().zip(FOLLOWED) {
            loop {
                let Some(stream) = slot else {
                    whole = false;
                    break;
                };
                match stream.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(event))) => self.edges.apply(resource, &event),
                    Poll::Ready(_) => *slot = None,
                    Poll::Pending => break,
                }
            }
        }
        whole
    }
}

fn owned((namespace, name): (&str, &str)) -> Place {
    (namespace.to_owned(), name.to_owned())
}

impl Edges {
    fn relates(&self, node: &str, vertex: Vertex, (namespace, name): (&str, &str)) -> bool {
        let place = owned((namespace, name));
        let needs = |vertex, place: &Place| {
            self.needed.get(&(vertex, place.clone())).is_some_and(|nodes| nodes.contains_key(node))
        };
        let has_volume = |volume: &str| {
            let claim = self.volumes.get(volume).and_then(|volume| volume.claim.as_ref());
            claim.is_some_and(|claim| needs(Vertex::Claim, claim))
        };
        match vertex {
            Vertex::Pod => self.pods.get(&place).is_some_and(|pod| pod.node == node),
            Vertex::Volume => has_volume(name),
            Vertex::VolumeAttachment | Vertex::ResourceSlice => {
                self.named.get(&(vertex, name.to_owned())).is_some_and(|named| named == node)
            }
            Vertex::Secret => {
                let mut volumes = self.secret_volumes.get(&place).into_iter().flatten();
                needs(vertex, &place) || volumes.any(|volume| has_volume(volume))
            }
            Vertex::ConfigMap | Vertex::Claim | Vertex::ServiceAccount | Vertex::ResourceClaim => needs(vertex, &place),
        }
    }

    /// Forgets all that is known of a kind.
    fn forget(&mut self, resource: &str) {
        match resource {
            "pods" => {
                self.pods.clear();
                self.needed.clear();
            }
            "persistentvolumes" => {
                self.volumes.clear();
                self.secret_volumes.clear();
            }
            "volumeattachments" => self.named.retain(|(vertex, _), _| *vertex != Vertex::VolumeAttachment),
            _ => self.named.retain(|(vertex, _), _| *vertex != Vertex::ResourceSlice),
        }
    }

    fn apply(&mut self, resource: &str, event: &CacheEvent) {
        let (entry, is_there) = match event {
            CacheEvent::Added(entry) | CacheEvent::Modified(entry) => (entry, true),
            CacheEvent::Deleted(entry) => (entry, false),
            CacheEvent::Bookmark { .. } => return,
        };
        match resource {
            "pods" => self.take_pod(entry, is_there),
            "persistentvolumes" => self.take_volume(entry, is_there),
            "volumeattachments" => self.take_named(Vertex::VolumeAttachment, entry, is_there),
            _ => self.take_named(Vertex::ResourceSlice, entry, is_there),
        }
    }

    fn take_pod(&mut self, entry: &Entry, is_there: bool) {
        let place = owned((&entry.head.namespace, &entry.head.name));
        let node = entry.head.fields.iter().find(|(field, _)| *field == "spec.nodeName");
        let node = node.map(|(_, node)| node.as_str()).filter(|node| is_there && !node.is_empty());
        // What a bound pod needs only changes with what is looked for here; most changes are of its status.
        let same = |pod: &Pod| Some(pod.node.as_str()) == node && pod.uid == entry.head.uid;
        let may_need_more = ["\"ephemeralContainers\"", "\"resourceClaimStatuses\""]
            .iter()
            .any(|field| memmem::find(&entry.json, field.as_bytes()).is_some());
        if !may_need_more && self.pods.get(&place).is_some_and(same) {
            return;
        }
        self.drop_pod(&place);
        let (Some(node), Ok(object)) = (node, entry.object()) else { return };
        let needs = needs_of(&object);
        for (vertex, name) in &needs {
            let nodes = self.needed.entry((*vertex, (place.0.clone(), name.clone()))).or_default();
            *nodes.entry(node.to_owned()).or_default() += 1;
        }
        self.pods.insert(place, Pod { uid: entry.head.uid.clone(), node: node.to_owned(), needs });
    }

    fn drop_pod(&mut self, place: &Place) {
        let Some(pod) = self.pods.remove(place) else { return };
        for (vertex, name) in pod.needs {
            let key = (vertex, (place.0.clone(), name));
            let Some(nodes) = self.needed.get_mut(&key) else { continue };
            if let Some(count) = nodes.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&pod.node);
                }
            }
            if nodes.is_empty() {
                self.needed.remove(&key);
            }
        }
    }

    fn take_volume(&mut self, entry: &Entry, is_there: bool) {
        let name = &entry.head.name;
        for secret in self.volumes.remove(name).into_iter().flat_map(|volume| volume.secrets) {
            if let Some(volumes) = self.secret_volumes.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.secret_volumes.remove(&secret);
                }
            }
        }
        let (true, Ok(object)) = (is_there, entry.object()) else { return };
        let volume = volume_of(&object);
        for secret in &volume.secrets {
            self.secret_volumes.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.volumes.insert(name.clone(), volume);
    }

    fn take_named(&mut self, vertex: Vertex, entry: &Entry, is_there: bool) {
        let key = (vertex, entry.head.name.clone());
        let node =
            entry.object().ok().filter(|_| is_there).and_then(|object| {
                object.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()).map(str::to_owned)
            });
        match node {
            Some(node) => self.named.insert(key, node),
            None => self.named.remove(&key),
        };
    }
}

/// What a pod needs that its node may read.
fn needs_of(pod: &Object) -> HashSet<(Vertex, String)> {
    let mut needs = HashSet::new();
    let mut add = |vertex, names: Vec<String>| needs.extend(names.into_iter().map(|name| (vertex, name)));
    add(Vertex::Secret, references::names(pod, SECRETS));
    add(Vertex::ConfigMap, references::names(pod, CONFIG_MAPS));
    add(Vertex::Claim, references::claims(pod));
    add(Vertex::ResourceClaim, references::resource_claims(pod));
    add(Vertex::ServiceAccount, references::account(pod).map(str::to_owned).into_iter().collect());
    needs
}

/// The Secrets of a volume's source that a node needs to mount it, as the source's field and theirs.
const VOLUME_SECRETS: [(&str, &str); 9] = [
    ("azureFile", "secretName"),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("csi", "nodeStageSecretRef"),
];

fn volume_of(volume: &Object) -> Volume {
    let claim = volume.at(&["spec", "claimRef"]).and_then(|claim| {
        let text = |field: &str| claim.get(field).and_then(Value::as_str).map(str::to_owned);
        Some((text("namespace")?, text("name")?))
    });
    let near = claim.as_ref().map(|(namespace, _)| namespace.clone()).unwrap_or_default();
    let secret = |(source, field): (&str, &str)| -> Option<Place> {
        let named = volume.at(&["spec", source, field])?;
        if let Some(name) = named.as_str() {
            let namespace = volume.str_at(&["spec", source, "secretNamespace"]).unwrap_or(&near);
            return Some(owned((namespace, name)));
        }
        let text = |field: &str| named.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(owned((text("namespace").unwrap_or(&near), text("name")?)))
    };
    let mut secrets: Vec<Place> = VOLUME_SECRETS.into_iter().filter_map(secret).collect();
    secrets.extend(secret(("csi", "nodeExpandSecretRef")));
    Volume { claim, secrets }
}
