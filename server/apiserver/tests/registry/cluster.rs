//! A cluster to ask: a registry over a store in memory.

use std::sync::Arc;

use serde_json::{Value, json};
use skiff_api::{
    kinds::Kinds,
    request::{ContentType, Parsed, Request},
    user::UserInfo,
};
use skiff_apiserver::{
    bootstrap,
    registry::{Answer, Dispatch, Registry, RegistryConfig},
};
use skiff_client::WatchStream;
use skiff_store::{MemoryStore, Store, cache::Cacher};

/// A registry, and who asks it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) registry: Arc<Registry>,
    user: UserInfo,
}

/// A user of some groups.
pub(crate) fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

fn selectable(key: &skiff_api::kinds::StorageKey) -> Vec<&'static str> {
    Kinds::builtin().stored_as(key).map(|def| def.selectable.clone()).unwrap_or_default()
}

impl Cluster {
    /// A fresh cluster with what every cluster holds, asked by its administrator.
    pub(crate) async fn start() -> Self {
        let cluster = Self::over(Arc::new(MemoryStore::new())).await;
        bootstrap::run(&cluster.registry).await.unwrap();
        cluster
    }

    /// A registry over a store.
    pub(crate) async fn over(store: Arc<dyn Store>) -> Self {
        let cacher = Cacher::start(store, selectable).await.unwrap();
        let registry = Registry::new(RegistryConfig::default(), cacher, Kinds::builtin());
        Self { registry, user: user("admin", &["system:masters", "system:authenticated"]) }
    }

    /// The same cluster asked by somebody else.
    pub(crate) fn by(&self, user: UserInfo) -> Self {
        Self { registry: self.registry.clone(), user }
    }

    /// Asks, as a client would write it: `GET /api/v1/pods?limit=1`. A `Status` is what a failure is told as.
    pub(crate) async fn send(&self, line: &str, content_type: ContentType, body: impl ToString) -> (u16, Value) {
        match self.answer(line, content_type, body.to_string()).await {
            Ok(Answer::Object { status, entry }) => (status, serde_json::from_slice(&entry.json).unwrap()),
            Ok(Answer::Json { status, body }) => (status, serde_json::from_slice(&body).unwrap()),
            Ok(Answer::List { list, remaining }) => {
                let names: Vec<&str> = list.entries.iter().map(|entry| entry.head.name.as_str()).collect();
                let revision = list.resource_version;
                (200, json!({"names": names, "continue": list.continue_token, "remaining": remaining, "rv": revision}))
            }
            Ok(Answer::Watch(_)) => panic!("{line} is a watch"),
            Err(status) => (u16::try_from(status["code"].as_u64().unwrap()).unwrap(), status),
        }
    }

    async fn answer(&self, line: &str, content_type: ContentType, body: String) -> Result<Answer, Value> {
        let (method, uri) = line.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let parsed = Request::parse(method, path, query).map_err(|error| error.to_status())?;
        let Parsed::Resource(mut request) = parsed else { panic!("{line} is no resource") };
        request.content_type = content_type;
        request.body = body.into();
        let answered = self.registry.dispatch(&self.user, request).await;
        answered.map(|answered| answered.answer).map_err(|error| error.to_status())
    }

    /// Asks without a body.
    pub(crate) async fn ask(&self, line: &str) -> (u16, Value) {
        self.send(line, ContentType::Json, "").await
    }

    /// Sends JSON.
    pub(crate) async fn put(&self, line: &str, body: Value) -> (u16, Value) {
        self.send(line, ContentType::Json, body).await
    }

    /// Sends JSON that must be taken; the object that it became.
    pub(crate) async fn must(&self, line: &str, body: Value) -> Value {
        let (status, object) = self.put(line, body).await;
        assert!(status < 300, "{line}: {object}");
        object
    }

    /// Merges JSON into an object.
    pub(crate) async fn merge(&self, line: &str, patch: Value) -> (u16, Value) {
        self.send(&format!("PATCH {line}"), ContentType::MergePatch, patch).await
    }

    /// Sends what must be refused; code and message.
    pub(crate) async fn refused(&self, line: &str, body: Value) -> (u16, String) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (code, status) = self.send(line, ContentType::Json, body).await;
        assert_eq!(status["status"], "Failure", "{line}: {status}");
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, line: &str) -> WatchStream {
        match self.answer(line, ContentType::Json, String::new()).await {
            Ok(Answer::Watch(stream)) => stream,
            Ok(_) => panic!("{line} is no watch"),
            Err(status) => panic!("{line}: {status}"),
        }
    }
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"key": value}})
}

/// A pod of one container.
pub(crate) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
