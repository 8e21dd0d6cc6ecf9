//! A registry of a few pods, an authorizer, a catalog.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;
use skiff_api::{
    kinds::{Kinds, ResourceDef},
    object::Object,
    request::{GroupVersionResource, Request, Verb},
    status::ApiError,
    user::UserInfo,
    wire::Entry,
};
use skiff_apiserver::{
    authz::{Attributes, Authorizer, Decision, Target},
    front::catalog::{Catalog, Document, DocumentForm},
    registry::{Answer, Answered, Dispatch},
};
use skiff_client::{List, WatchEvent, WatchStream};
use tokio::sync::mpsc;

/// An entry of an object.
pub(crate) fn entry(value: &serde_json::Value) -> Arc<Entry> {
    Entry::from_wire(Bytes::from(value.to_string()), &[]).unwrap()
}

/// A pod.
pub(crate) fn pod(name: &str, revision: u64) -> serde_json::Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"resourceVersion": revision.to_string(), "name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]}, "status": {"phase": "Running"}})
}

type Sender = mpsc::UnboundedSender<Result<WatchEvent, ApiError>>;

/// A registry that knows the objects it is given, and some names with a behaviour of their own.
#[derive(Default)]
pub(crate) struct FakeRegistry {
    /// What was asked, and by whom.
    pub(crate) asked: Mutex<Vec<(UserInfo, Request)>>,
    /// What is there.
    pub(crate) objects: Mutex<Vec<(String, serde_json::Value)>>,
    /// Ends of the watches that were begun.
    pub(crate) watches: Mutex<Vec<Sender>>,
    /// Told of each watch that begins.
    pub(crate) watch_began: tokio::sync::Notify,
}

impl FakeRegistry {
    pub(crate) fn put(&self, resource: &str, value: serde_json::Value) {
        self.objects.lock().unwrap().push((resource.to_owned(), value));
    }

    fn of(&self, resource: &str) -> Vec<serde_json::Value> {
        let objects = self.objects.lock().unwrap();
        objects.iter().filter(|(of, _)| of == resource).map(|(_, value)| value.clone()).collect()
    }

    fn get(&self, request: &Request) -> Result<Answer, ApiError> {
        let name = request.name.as_deref().unwrap_or_default();
        let found = self.of(&request.resource.resource).into_iter().find(|value| value["metadata"]["name"] == name);
        let value = found.ok_or_else(|| ApiError::not_found("", &request.resource.resource, name))?;
        Ok(Answer::Object { status: 200, entry: entry(&value) })
    }

    fn list(&self, request: &Request) -> Answer {
        let all = self.of(&request.resource.resource);
        let limit = request.options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        let entries: Vec<Arc<Entry>> = all.iter().take(limit).map(entry).collect();
        let more = all.len() - entries.len();
        let continue_token = (more > 0).then(|| "next\"page".to_owned());
        Answer::List { list: List { resource_version: 42, entries, continue_token }, remaining: Some(more) }
    }

    fn watch(&self) -> Answer {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.watches.lock().unwrap().push(sender);
        self.watch_began.notify_one();
        let stream: WatchStream = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|item| (item, receiver))
        })
        .boxed();
        Answer::Watch(stream)
    }
}

#[async_trait::async_trait]
impl Dispatch for FakeRegistry {
    async fn dispatch(&self, user: &UserInfo, request: Request) -> Result<Answered, ApiError> {
        self.asked.lock().unwrap().push((user.clone(), request.clone()));
        let answer = match (request.verb, request.name.as_deref()) {
            (_, Some("panic")) => panic!("a handler's fault"),
            (_, Some("forever")) => std::future::pending().await,
            (Verb::Get, _) => self.get(&request)?,
            (Verb::List, _) => self.list(&request),
            (Verb::Watch, _) => self.watch(),
            (Verb::Create, _) => {
                let object = Object::from_slice(&request.body).map_err(|e| ApiError::bad_request(e.to_string()))?;
                let warnings = vec!["the \"fake\" field is deprecated".to_owned()];
                let entry = entry(&serde_json::Value::Object(object.0));
                return Ok(Answered { answer: Answer::Object { status: 201, entry }, warnings });
            }
            _ => Answer::Json {
                status: 200,
                body: Bytes::from_static(br#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#),
            },
        };
        Ok(Answered { answer, warnings: Vec::new() })
    }
}

/// Administrators may do everything, users in `viewers` may get, all may see `/healthz` and `/version`.
pub(crate) struct FakeAuthorizer;

impl Authorizer for FakeAuthorizer {
    fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        let member = |group: &str| attributes.user.groups.iter().any(|g| g == group);
        let open = matches!(attributes.target, Target::Path("/healthz" | "/version"));
        if member("system:masters") || open || member("viewers") && attributes.verb == "get" {
            Decision::Allow(String::new())
        } else {
            Decision::Deny(String::new())
        }
    }
}

/// The built-in kinds, and documents that are easy to tell apart.
pub(crate) struct FakeCatalog;

impl Catalog for FakeCatalog {
    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<ResourceDef>> {
        Kinds::builtin().resource(&resource.group, &resource.version, &resource.resource).cloned()
    }

    fn document(&self, path: &str, form: DocumentForm) -> Option<Document> {
        let body = match (path, form) {
            ("/api", DocumentForm::Aggregated) => r#"{"kind":"APIGroupDiscoveryList"}"#,
            ("/api", DocumentForm::Plain) => r#"{"kind":"APIVersions","versions":["v1"]}"#,
            ("/apis", DocumentForm::Plain) => {
                r#"{"kind":"APIGroupList","groups":[{"name":"apps","versions":[{"groupVersion":"apps/v1"}]}]}"#
            }
            ("/openapi/v3/api/v1", _) => r#"{"openapi":"3.0.0"}"#,
            _ => return None,
        };
        Some(Document { body: Bytes::from_static(body.as_bytes()), digest: "ABC123".into() })
    }
}
