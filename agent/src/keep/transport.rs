//! The transport that keeps what passes, and answers from it while the server is away.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use skiff_api::{
    claims::claims_of,
    request::{Request, Verb},
    status::{ApiError, Reason},
    wire::Entry,
};
use skiff_client::{List, Transport, WatchEvent, WatchStream};

use super::vault::{Vault, VaultError};
use crate::{pods::env, volumes::setup};

/// What is listed and followed: all objects of a list are kept.
const LISTED: [&str; 3] = ["pods", "services", "runtimeclasses"];
/// What is read one by one, for pods: kept for as long as a kept pod refers to it.
const REFERRED: [&str; 4] = ["configmaps", "secrets", CLAIMS, VOLUMES];
/// Of these the first are referred to by pods, the second by the first.
const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
/// The node's own object, kept from whatever answer brings it.
const NODES: &str = "nodes";

/// A transport above another one.
pub struct Keeping {
    inner: Arc<dyn Transport>,
    vault: Vault,
}

/// Whether an error says that the server cannot be reached, not that it refused.
pub fn is_away(error: &ApiError) -> bool {
    matches!(error.reason, Reason::ServiceUnavailable | Reason::Timeout)
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn key_of(entry: &Entry) -> String {
    key(&entry.head.namespace, &entry.head.name)
}

/// The kind and the name under which the answer to a request is kept.
fn place(request: &Request) -> Option<(String, String)> {
    let kind = request.resource.resource.as_str();
    let whole = request.subresource.is_none();
    let kept = match request.verb {
        Verb::Get => whole && (REFERRED.contains(&kind) || kind == NODES),
        Verb::Patch => kind == NODES,
        _ => false,
    };
    let name = request.name.as_deref()?;
    kept.then(|| (kind.to_owned(), key(request.namespace.as_deref().unwrap_or_default(), name)))
}

fn tell(written: Result<(), VaultError>) {
    if let Err(e) = written {
        tracing::warn!(
            error = &e as &dyn std::error::Error,
            "the node cannot keep what it may need without the server"
        );
    }
}

impl Keeping {
    /// Keeps in a vault what passes through a transport.
    pub fn new(inner: Arc<dyn Transport>, vault: Vault) -> Arc<Self> {
        Arc::new(Self { inner, vault })
    }

    /// Whether the objects of a list are kept.
    fn keeps(request: &Request) -> bool {
        LISTED.contains(&request.resource.resource.as_str()) && request.subresource.is_none()
    }

    fn keep_list(&self, request: &Request, list: &List) {
        let kind = request.resource.resource.as_str();
        for entry in &list.entries {
            tell(self.vault.write(kind, &key_of(entry), &entry.json));
        }
        // Only a list in one piece says what is gone.
        if request.options.continue_token.is_none() && list.continue_token.is_none() {
            self.vault.retain(kind, list.entries.iter().map(|entry| key_of(entry)));
            tell(self.vault.write("revisions", kind, list.resource_version.to_string().as_bytes()));
            if kind == "pods" {
                self.forget_unreferred(&list.entries);
            }
        }
    }

    /// Takes away what is kept of objects that no pod refers to.
    fn forget_unreferred(&self, pods: &[Arc<Entry>]) {
        let (mut maps, mut secrets, mut claims) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for pod in pods.iter().filter_map(|entry| serde_json::from_slice::<Pod>(&entry.json).ok()) {
            let space = pod.metadata.namespace.clone().unwrap_or_default();
            claims.extend(claims_of(&pod).into_iter().map(|claim| key(&space, &claim.name)));
            let namespace = pod.metadata.namespace.unwrap_or_default();
            let spec = pod.spec.unwrap_or_default();
            let of_volumes = setup::references(spec.volumes.as_deref().unwrap_or_default());
            let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
            let pulls = spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()).collect();
            for (m, s) in containers.map(env::references).chain([of_volumes, (BTreeSet::new(), pulls)]) {
                maps.extend(m.iter().map(|name| key(&namespace, name)));
                secrets.extend(s.iter().map(|name| key(&namespace, name)));
            }
        }
        self.vault.retain("configmaps", maps.into_iter());
        self.vault.retain("secrets", secrets.into_iter());
        self.vault.retain(CLAIMS, claims.into_iter());
        let kept = self.vault.read_all(CLAIMS);
        let claims = kept.iter().filter_map(|json| serde_json::from_slice::<PersistentVolumeClaim>(json).ok());
        self.vault.retain(VOLUMES, claims.filter_map(|claim| Some(key("", &claim.spec?.volume_name?))));
    }

    fn kept_list(&self, request: &Request) -> Option<List> {
        let kind = request.resource.resource.as_str();
        let revision = self.vault.read("revisions", kind)?;
        let resource_version = String::from_utf8(revision).ok()?.parse().ok()?;
        let objects = self.vault.read_all(kind).into_iter().map(Bytes::from);
        let entries = objects.filter_map(|json| Entry::from_wire(json, &[]).ok()).collect();
        tracing::warn!(kind, "the API server is away: the node goes by what it kept");
        Some(List { resource_version, entries, continue_token: None })
    }

    fn keep_event(vault: &Vault, kind: &str, event: &WatchEvent) {
        match event {
            WatchEvent::Added(entry) | WatchEvent::Modified(entry) => {
                tell(vault.write(kind, &key_of(entry), &entry.json));
            }
            WatchEvent::Deleted(entry) => vault.remove(kind, &key_of(entry)),
            WatchEvent::Bookmark { .. } => {}
        }
    }
}

#[async_trait]
impl Transport for Keeping {
    async fn call(&self, request: Request) -> Result<Bytes, ApiError> {
        let Some((kind, name)) = place(&request) else { return self.inner.call(request).await };
        let readable = request.verb == Verb::Get;
        match self.inner.call(request).await {
            Ok(body) => {
                tell(self.vault.write(&kind, &name, &body));
                Ok(body)
            }
            Err(e) if is_away(&e) && readable => self.vault.read(&kind, &name).map(Bytes::from).ok_or(e),
            Err(e) => {
                if e.code == 404 {
                    self.vault.remove(&kind, &name);
                }
                Err(e)
            }
        }
    }

    async fn list(&self, request: Request) -> Result<List, ApiError> {
        if !Self::keeps(&request) {
            return self.inner.list(request).await;
        }
        match self.inner.list(request.clone()).await {
            Ok(list) => {
                self.keep_list(&request, &list);
                Ok(list)
            }
            Err(e) if is_away(&e) && request.options.continue_token.is_none() => self.kept_list(&request).ok_or(e),
            Err(e) => Err(e),
        }
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        let kept = Self::keeps(&request).then(|| request.resource.resource.clone());
        let events = self.inner.watch(request).await?;
        let Some(kind) = kept else { return Ok(events) };
        let vault = self.vault.clone();
        Ok(events
            .inspect(move |event| {
                if let Ok(event) = event {
                    Self::keep_event(&vault, &kind, event);
                }
            })
            .boxed())
    }
}
