//! A small API in memory for tests of what stands above [`crate::Transport`]: revisions, watches, conflicts,
//! graceful deletion of pods. It validates and defaults nothing.
//!
//! Faults can be had at will: a request can be made to fail ([`FakeApi::fail_when`]), watches can be held back
//! ([`FakeApi::hold_watches`]) so that informers are stale, and history can be forgotten ([`FakeApi::compact`]).

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use skiff_api::{
    object::Object,
    request::{ContentType, GroupVersionResource, Request, Verb},
    selector::LabelSelector,
    status::{ApiError, Reason},
    wire::{Entry, Head},
};
use tokio::sync::watch;

use crate::{Client, List, Transport, WatchEvent, WatchStream};

type Place = (GroupVersionResource, String, String);
type Fault = Box<dyn Fn(&Request) -> Option<ApiError> + Send + Sync>;
type Answer = Box<dyn Fn(&Request) -> Option<Value> + Send + Sync>;

#[derive(Clone)]
struct Logged {
    revision: u64,
    place: Place,
    kind: LoggedKind,
    object: Object,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedKind {
    Added,
    Modified,
    Deleted,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Place, Object>,
    log: Vec<Logged>,
    /// History up to this revision is gone.
    compacted: u64,
    revision: u64,
    held_at: Option<u64>,
    /// A resource whose watches tell nothing.
    silent: Option<String>,
    faults: Vec<Fault>,
    answers: Vec<Answer>,
    requests: Vec<Request>,
}

/// The fake. Share it by `Arc`; it is a [`Transport`].
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    /// Up to which revision watches may tell.
    told: watch::Sender<u64>,
}

impl FakeApi {
    /// An empty cluster.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Arc::default(), told: watch::Sender::new(0) })
    }

    /// A client of it.
    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(Arc::clone(self) as Arc<dyn Transport>)
    }

    /// Requests for which `fault` gives an error fail with it.
    pub fn fail_when(&self, fault: impl Fn(&Request) -> Option<ApiError> + Send + Sync + 'static) {
        self.state.lock().faults.push(Box::new(fault));
    }

    /// Requests for which `answer` gives an object are answered with it and do nothing: reviews.
    pub fn answer_when(&self, answer: impl Fn(&Request) -> Option<Value> + Send + Sync + 'static) {
        self.state.lock().answers.push(Box::new(answer));
    }

    /// No fault any more.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Watches tell nothing of what happens from now on, until [`Self::release_watches`].
    pub fn hold_watches(&self) {
        let mut state = self.state.lock();
        state.held_at = Some(state.revision);
    }

    /// The watches of one resource tell nothing, until [`Self::release_watches`].
    pub fn silence(&self, resource: &str) {
        self.state.lock().silent = Some(resource.to_owned());
    }

    /// Watches tell everything again.
    pub fn release_watches(&self) {
        let mut state = self.state.lock();
        state.held_at = None;
        state.silent = None;
        self.told.send_replace(state.revision);
    }

    /// Forgets the history: a watch from an older revision gets 410.
    pub fn compact(&self) {
        let mut state = self.state.lock();
        state.compacted = state.revision;
        state.log.clear();
        // Running watches notice.
        self.told.send_modify(|_| {});
    }

    /// All requests but lists and watches so far, taken out.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().requests)
    }

    /// Takes an object out at once, whatever its finalizers and grace period.
    pub fn remove(&self, resource: &GroupVersionResource, namespace: &str, name: &str) {
        let place = (resource.clone(), namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock();
        if let Some(object) = state.objects.remove(&place) {
            self.commit(&mut state, place, LoggedKind::Deleted, object);
        }
    }

    fn commit(&self, state: &mut State, place: Place, kind: LoggedKind, mut object: Object) -> Object {
        state.revision += 1;
        object.set_at(&["metadata", "resourceVersion"], state.revision.to_string());
        if kind == LoggedKind::Deleted {
            state.objects.remove(&place);
        } else {
            state.objects.insert(place.clone(), object.clone());
        }
        state.log.push(Logged { revision: state.revision, place, kind, object: object.clone() });
        if state.held_at.is_none() {
            self.told.send_replace(state.revision);
        }
        object
    }

    fn answer(&self, request: &Request) -> Result<Object, ApiError> {
        let mut state = self.state.lock();
        state.requests.push(request.clone());
        if let Some(error) = state.faults.iter().find_map(|fault| fault(request)) {
            return Err(error);
        }
        if let Some(Value::Object(answer)) = state.answers.iter().find_map(|answer| answer(request)) {
            return Ok(Object(answer));
        }
        match request.verb {
            Verb::Get => Ok(find(&state, request)?.1),
            Verb::Create if request.subresource.is_some() => self.bind(&mut state, request),
            Verb::Create => self.create(&mut state, request),
            Verb::Update => self.update(&mut state, request),
            Verb::Patch => self.patch(&mut state, request),
            Verb::Delete => self.delete(&mut state, request),
            Verb::DeleteCollection => self.delete_collection(&mut state, request),
            Verb::List | Verb::Watch => Err(ApiError::bad_request("not a call")),
        }
    }

    fn create(&self, state: &mut State, request: &Request) -> Result<Object, ApiError> {
        let mut object = body(request)?;
        let number = state.revision + 1;
        if object.name().is_empty() {
            let prefix = object.str_at(&["metadata", "generateName"]).unwrap_or_default().to_owned();
            object.set_at(&["metadata", "name"], format!("{prefix}{number:05}"));
        }
        let place = place(request, object.name());
        if state.objects.contains_key(&place) {
            return Err(ApiError::already_exists(&place.0.group, &place.0.resource, &place.2));
        }
        object.set_at(&["metadata", "uid"], format!("uid-{number}"));
        object.set_at(&["metadata", "generation"], 1);
        if object.at(&["metadata", "creationTimestamp"]).is_none_or(Value::is_null) {
            object.set_at(&["metadata", "creationTimestamp"], "2026-01-01T00:00:00Z");
        }
        Ok(self.commit(state, place, LoggedKind::Added, object))
    }

    fn update(&self, state: &mut State, request: &Request) -> Result<Object, ApiError> {
        let (place, old) = find(state, request)?;
        let new = body(request)?;
        if new.resource_version().is_some_and(|revision| Some(revision) != old.resource_version()) {
            let (group, resource) = (&place.0.group, &place.0.resource);
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(ApiError::conflict(group, resource, &place.2, why));
        }
        let merged = match request.subresource.as_deref() {
            // As in Kubernetes a status may bring annotations along.
            Some("status") => {
                let mut changed = with_field(old.clone(), "status", new.at(&["status"]));
                if let Some(annotations) = new.at(&["metadata", "annotations"]) {
                    changed.set_at(&["metadata", "annotations"], annotations.clone());
                }
                changed
            }
            Some("approval") => with_field(old.clone(), "status", new.at(&["status"])),
            Some("finalize") => with_field(old.clone(), "spec", new.at(&["spec"])),
            _ => with_field(new, "status", old.at(&["status"])),
        };
        Ok(self.settle(state, place, &old, merged))
    }

    fn patch(&self, state: &mut State, request: &Request) -> Result<Object, ApiError> {
        let (place, old) = find(state, request)?;
        let patch: Value = serde_json::from_slice(&request.body).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let mut new = Value::Object(old.0.clone());
        merge(&mut new, &patch, request.content_type == ContentType::StrategicMergePatch);
        let Value::Object(new) = new else { return Err(ApiError::bad_request("the patch makes no object")) };
        Ok(self.settle(state, place, &old, Object(new)))
    }

    /// Commits a changed object: its generation grows with its spec, it goes when its last finalizer does.
    fn settle(&self, state: &mut State, place: Place, old: &Object, mut new: Object) -> Object {
        for field in ["uid", "creationTimestamp", "deletionTimestamp", "resourceVersion"] {
            if let Some(value) = old.at(&["metadata", field]) {
                new.set_at(&["metadata", field], value.clone());
            }
        }
        if new == *old {
            return new;
        }
        let grown = old.generation() + i64::from(old.at(&["spec"]) != new.at(&["spec"]));
        new.set_at(&["metadata", "generation"], grown);
        let gone = new.is_deleting()
            && new.finalizers().next().is_none()
            && !is_graceful(&place, &new)
            && !holds_namespace(&place, &new);
        self.commit(state, place, if gone { LoggedKind::Deleted } else { LoggedKind::Modified }, new)
    }

    fn delete(&self, state: &mut State, request: &Request) -> Result<Object, ApiError> {
        let (place, mut object) = find(state, request)?;
        let options: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if let Some(uid) = options["preconditions"]["uid"].as_str().filter(|uid| *uid != object.uid()) {
            let why =
                format!("the UID in the precondition ({uid}) does not match the UID in record ({})", object.uid());
            return Err(ApiError::conflict(&place.0.group, &place.0.resource, &place.2, &why));
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let mut all: Vec<Value> = object.finalizers().map(Value::from).collect();
            all.push(finalizer.into());
            object.set_at(&["metadata", "finalizers"], all);
        }
        let forced = options["gracePeriodSeconds"].as_i64() == Some(0);
        let graceful = is_graceful(&place, &object) && !forced;
        if graceful || object.finalizers().next().is_some() || holds_namespace(&place, &object) {
            if object.is_deleting() {
                return Ok(object);
            }
            object.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:30Z");
            return Ok(self.commit(state, place, LoggedKind::Modified, object));
        }
        self.commit(state, place, LoggedKind::Deleted, object);
        Object::from_slice(br#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#).map_err(ApiError::internal)
    }

    fn delete_collection(&self, state: &mut State, request: &Request) -> Result<Object, ApiError> {
        for (place, _) in selected(state, request)? {
            let one = Request { name: Some(place.2), namespace: Some(place.1), ..request.clone() };
            self.delete(state, &one)?;
        }
        Ok(Object::default())
    }

    fn bind(&self, state: &mut State, request: &Request) -> Result<Object, ApiError> {
        let (place, old) = find(state, request)?;
        let node = body(request)?.str_at(&["target", "name"]).unwrap_or_default().to_owned();
        if old.str_at(&["spec", "nodeName"]).is_some_and(|bound| !bound.is_empty()) {
            return Err(ApiError::conflict("", "pods/binding", &place.2, "the pod is already assigned to a node"));
        }
        let mut new = old.clone();
        new.set_at(&["spec", "nodeName"], node);
        Ok(self.settle(state, place, &old, new))
    }
}

#[async_trait]
impl Transport for FakeApi {
    async fn call(&self, request: Request) -> Result<Bytes, ApiError> {
        self.answer(&request).map(|object| Bytes::from(object.to_vec()))
    }

    async fn list(&self, request: Request) -> Result<List, ApiError> {
        let state = self.state.lock();
        if let Some(error) = state.faults.iter().find_map(|fault| fault(&request)) {
            return Err(error);
        }
        let after = request.options.continue_token.clone().unwrap_or_default();
        let mut all = selected(&state, &request)?;
        all.retain(|(place, _)| token(place) > after);
        let limit = request.options.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let more = all.len() > limit;
        all.truncate(limit);
        let continue_token = all.last().filter(|_| more).map(|(place, _)| token(place));
        let entries = all.iter().map(|(_, object)| entry(object, state.revision)).collect();
        Ok(List { resource_version: state.revision, entries, continue_token })
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        let position = request.options.resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0);
        let start = (request, position, self.told.subscribe(), Arc::clone(&self.state));
        Ok(stream::unfold(Some(start), |step| async move {
            let (request, position, mut told, state) = step?;
            loop {
                let limit = *told.borrow_and_update();
                let next = next_event(&state.lock(), &request, position, limit);
                match next {
                    Err(error) => return Some((Err(error), None)),
                    Ok(Some((event, at))) => return Some((Ok(event), Some((request, at, told, state)))),
                    Ok(None) => told.changed().await.ok()?,
                }
            }
        })
        .boxed())
    }
}

/// The next event of a watch after a position and up to a limit, with its revision.
fn next_event(
    state: &State,
    request: &Request,
    position: u64,
    limit: u64,
) -> Result<Option<(WatchEvent, u64)>, ApiError> {
    if state.silent.as_ref() == Some(&request.resource.resource) {
        return Ok(None);
    }
    if position < state.compacted {
        return Err(ApiError::expired(format!("too old resource version: {position} ({})", state.compacted)));
    }
    let first = state.log.partition_point(|logged| logged.revision <= position);
    for logged in state.log[first..].iter().take_while(|logged| logged.revision <= limit) {
        if logged.place.0 == request.resource && matches(request, &logged.place, &logged.object)? {
            let entry = entry(&logged.object, logged.revision);
            let event = match logged.kind {
                LoggedKind::Added => WatchEvent::Added(entry),
                LoggedKind::Modified => WatchEvent::Modified(entry),
                LoggedKind::Deleted => WatchEvent::Deleted(entry),
            };
            return Ok(Some((event, logged.revision)));
        }
    }
    Ok(None)
}

fn matches(request: &Request, place: &Place, object: &Object) -> Result<bool, ApiError> {
    let labels = LabelSelector::parse(request.options.label_selector.as_deref().unwrap_or_default());
    let labels = labels.map_err(ApiError::bad_request)?;
    Ok(request.namespace.as_ref().is_none_or(|namespace| *namespace == place.1) && labels.matches(object))
}

fn selected(state: &State, request: &Request) -> Result<Vec<(Place, Object)>, ApiError> {
    let mut all = Vec::new();
    for (place, object) in &state.objects {
        if place.0 == request.resource && matches(request, place, object)? {
            all.push((place.clone(), object.clone()));
        }
    }
    Ok(all)
}

fn token(place: &Place) -> String {
    format!("{}/{}", place.1, place.2)
}

fn entry(object: &Object, fallback: u64) -> Arc<Entry> {
    let resource_version = object.resource_version().unwrap_or(fallback);
    Arc::new(Entry { resource_version, head: Head::of(object, &[]), json: Bytes::from(object.to_vec()) })
}

fn place(request: &Request, name: &str) -> Place {
    (request.resource.clone(), request.namespace.clone().unwrap_or_default(), name.to_owned())
}

fn find(state: &State, request: &Request) -> Result<(Place, Object), ApiError> {
    let place = place(request, request.name.as_deref().unwrap_or_default());
    let missing = || ApiError::not_found(&place.0.group, &place.0.resource, &place.2);
    let object = state.objects.get(&place).cloned().ok_or_else(missing)?;
    Ok((place, object))
}

fn body(request: &Request) -> Result<Object, ApiError> {
    Object::from_slice(&request.body).map_err(|e| ApiError::new(Reason::BadRequest, e.to_string()))
}

fn with_field(mut object: Object, field: &str, value: Option<&Value>) -> Object {
    match value {
        Some(value) => object.set_at(&[field], value.clone()),
        None => drop(object.remove_at(&[field])),
    }
    object
}

/// Whether a deletion waits for a node agent: a pod that is bound and has not ended.
fn is_graceful(place: &Place, object: &Object) -> bool {
    place.0.resource == "pods"
        && object.str_at(&["spec", "nodeName"]).is_some_and(|node| !node.is_empty())
        && !matches!(object.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"))
}

fn holds_namespace(place: &Place, object: &Object) -> bool {
    let list = object.at(&["spec", "finalizers"]).and_then(Value::as_array);
    place.0.resource == "namespaces" && list.is_some_and(|list| !list.is_empty())
}

/// A merge patch. Of what makes a strategic one different, only this: lists of owner references are merged by UID,
/// those of conditions by type, and finalizers can be taken out.
fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|map| map.shift_remove(name))),
            Value::Array(gone) if strategic && name == "$deleteFromPrimitiveList/finalizers" => {
                if let Some(list) = target["finalizers"].as_array_mut() {
                    list.retain(|item| !gone.contains(item));
                }
            }
            Value::Array(patch) if strategic && name == "conditions" => merge_by(&mut target[name], patch, "type"),
            Value::Array(patch) if strategic && name == "ownerReferences" => merge_by(&mut target[name], patch, "uid"),
            _ => merge(&mut target[name], value, strategic),
        }
    }
}

fn merge_by(target: &mut Value, patch: &[Value], key: &str) {
    let mut all = target.as_array().cloned().unwrap_or_default();
    for item in patch {
        all.retain(|known| known[key] != item[key]);
        if item["$patch"] != json!("delete") {
            all.push(item.clone());
        }
    }
    *target = Value::Array(all);
}
