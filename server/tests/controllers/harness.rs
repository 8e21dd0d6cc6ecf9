//! A control plane of its own, in a folder of its own, on a port that is free.

use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    request::{GroupVersionResource, Options, Request, Verb},
    status::ApiError,
};
use skiff_client::Client;
use skiff_server::{Config, Server};
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many objects are made at once.
const PARALLEL: usize = 64;

/// A control plane that runs until this is dropped.
pub(crate) struct Plane {
    pub(crate) server: Server,
    cancel: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A resource by `GROUP/VERSION/PLURAL`, or `VERSION/PLURAL` for the core group.
pub(crate) fn resource(text: &str) -> GroupVersionResource {
    match text.split('/').collect::<Vec<_>>()[..] {
        [version, plural] => GroupVersionResource::new("", version, plural),
        [group, version, plural] => GroupVersionResource::new(group, version, plural),
        _ => panic!("{text} is no resource"),
    }
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::on_loopback(folder.path().to_path_buf());
        let cancel = CancellationToken::new();
        let server = Server::start(config, cancel.clone()).await.unwrap();
        Self { server, cancel, _folder: folder }
    }

    pub(crate) fn admin(&self) -> &Client {
        self.server.admin()
    }

    /// Creates an object in a namespace, empty for none.
    pub(crate) async fn create(&self, kind: &str, namespace: &str, object: Value) -> Object {
        let body = serde_json::to_vec(&object).unwrap();
        let request = Request { body: body.into(), ..Request::new(Verb::Create, resource(kind), namespace, "") };
        match self.admin().raw(request).await {
            Ok(made) => Object::from_slice(&made).unwrap(),
            Err(error) => panic!("{kind} in {namespace:?}: {error}\n{object}"),
        }
    }

    /// Creates many, `make(number)` each.
    pub(crate) async fn create_many(&self, kind: &str, namespace: &str, count: usize, make: impl Fn(usize) -> Value) {
        let all = (0..count).map(|number| self.create(kind, namespace, make(number)));
        let made: Vec<Object> = stream::iter(all).buffer_unordered(PARALLEL).collect().await;
        assert_eq!(made.len(), count);
    }

    pub(crate) async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Object, ApiError> {
        self.admin().get_object(&resource(kind), namespace, name).await
    }

    pub(crate) async fn count(&self, kind: &str, namespace: &str) -> usize {
        self.admin().list_objects(&resource(kind), Some(namespace), &Options::default()).await.unwrap().entries.len()
    }

    /// Waits until a namespace is gone; fails with what it says of itself where it stays.
    pub(crate) async fn is_gone(&self, namespace: &str) {
        let mut last = None;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            match self.get("v1/namespaces", "", namespace).await {
                Ok(there) => last = Some(there),
                Err(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the namespace stays: {}", Value::Object(last.unwrap_or_default().0));
    }

    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str, policy: &str) {
        let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
        self.admin().delete_object(&resource(kind), namespace, name, &options).await.unwrap();
    }
}

/// A reference to an owner.
pub(crate) fn owner(kind: &str, object: &Object, blocks: bool) -> Value {
    let api_version = object.str_at(&["apiVersion"]).unwrap();
    json!({"apiVersion": api_version, "kind": kind, "name": object.name(), "uid": object.uid(),
        "blockOwnerDeletion": blocks})
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
