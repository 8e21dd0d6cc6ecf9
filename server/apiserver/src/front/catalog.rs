//! What the server serves, for the parts of the front that are about kinds and not about objects: the kind behind
//! a URL, discovery and OpenAPI documents.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha512};
use skiff_api::{
    discovery,
    kinds::{Kinds, ResourceDef},
    openapi,
    request::GroupVersionResource,
};

/// The kinds of the moment, built-in ones and those of CustomResourceDefinitions.
pub trait Catalog: Send + Sync + 'static {
    /// The resource of a URL.
    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<ResourceDef>>;

    /// The document of a path; `None` where there is none. Must be quick: it is asked for by every start of kubectl.
    fn document(&self, path: &str, form: DocumentForm) -> Option<Document>;
}

/// The forms in which the document of a path may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentForm {
    /// `application/json`: `APIGroupList`, `APIResourceList`, OpenAPI.
    Plain,
    /// Protobuf (`/openapi/v2` alone).
    Protobuf,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2` (`/api` and `/apis` alone).
    Aggregated,
}

/// A document about kinds.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON, or what was asked for.
    pub body: Bytes,
    /// A digest of the body in hexadecimal digits: its ETag, without quotes.
    pub digest: Arc<str>,
}

impl Document {
    /// A document with its digest (upper case hexadecimal digits of the SHA-512, as Kubernetes prints it).
    pub fn new(body: Vec<u8>) -> Self {
        let digest = Sha512::digest(&body).iter().fold(String::new(), |mut text, byte| {
            _ = write!(text, "{byte:02X}");
            text
        });
        Self { body: body.into(), digest: digest.into() }
    }
}

/// The catalog of a table of kinds. Documents are made when they are first asked for.
pub struct KindsCatalog {
    kinds: &'static Kinds,
    /// Where clients reach the server, `host:port`.
    address: String,
    /// By path; no more than there are kinds to tell of.
    made: RwLock<HashMap<(String, DocumentForm), Document>>,
}

impl KindsCatalog {
    /// Of these kinds, for clients that reach the server at `address` (`host:port`).
    pub fn new(kinds: &'static Kinds, address: String) -> Self {
        Self { kinds, address, made: RwLock::default() }
    }

    fn make(&self, path: &str, form: DocumentForm) -> Option<Vec<u8>> {
        let kinds = self.kinds;
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (segments.as_slice(), form) {
            (["api"], DocumentForm::Aggregated) => Some(discovery::aggregated_core(kinds)),
            (["apis"], DocumentForm::Aggregated) => Some(discovery::aggregated_groups(kinds)),
            (_, DocumentForm::Aggregated | DocumentForm::Protobuf) => None,
            (["api"], _) => Some(discovery::core_versions(kinds, &self.address)),
            (["apis"], _) => Some(discovery::group_list(kinds)),
            (["api", version], _) => discovery::resource_list(kinds, "", version),
            (["apis", group], _) => discovery::group(kinds, group),
            (["apis", group, version], _) if !group.is_empty() => discovery::resource_list(kinds, group, version),
            _ => None,
        }
    }

    /// An OpenAPI document. Large and seldom asked for (clients keep them by their hash): made for each request.
    fn openapi(&self, segments: &[&str], form: DocumentForm) -> Option<Document> {
        let kinds = self.kinds;
        if form == DocumentForm::Protobuf {
            return (segments == ["v2"]).then(|| Document::new(openapi::v2_protobuf(kinds)));
        }
        let of_version = |group: &str, version: &str| {
            let body = openapi::v3_document(kinds, group, version)?;
            Some(Document { body: body.into(), digest: openapi::v3_builtin_hash(group, version).into() })
        };
        match segments {
            ["v2"] => Some(Document::new(openapi::v2_document(kinds))),
            ["v3"] => Some(Document::new(openapi::v3_index(kinds, []))),
            ["v3", "api", version] => of_version("", version),
            ["v3", "apis", group, version] if !group.is_empty() => of_version(group, version),
            _ => None,
        }
    }
}

impl Catalog for KindsCatalog {
    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<ResourceDef>> {
        self.kinds.resource(&resource.group, &resource.version, &resource.resource).cloned()
    }

    fn document(&self, path: &str, form: DocumentForm) -> Option<Document> {
        if let Some(rest) = path.strip_prefix("/openapi/") {
            return self.openapi(&rest.split('/').collect::<Vec<_>>(), form);
        }
        let key = (path.to_owned(), form);
        if let Some(document) = self.made.read().get(&key) {
            return Some(document.clone());
        }
        let document = Document::new(self.make(path, form)?);
        self.made.write().insert(key, document.clone());
        Some(document)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn discovery_has_its_documents() {
        let catalog = KindsCatalog::new(Kinds::builtin(), "127.0.0.1:6443".to_owned());
        let kind = |path: &str, form| {
            let document = catalog.document(path, form)?;
            let value: serde_json::Value = serde_json::from_slice(&document.body).unwrap();
            Some(value["kind"].as_str().unwrap().to_owned())
        };
        for (path, expected) in [
            ("/api", Some("APIVersions")),
            ("/apis", Some("APIGroupList")),
            ("/api/v1", Some("APIResourceList")),
            ("/apis/apps", Some("APIGroup")),
            ("/apis/apps/v1", Some("APIResourceList")),
            ("/apis/apps/v9", None),
            ("/apis/nonsense", None),
            ("/apis//v1", None),
            ("/api/v1/x", None),
        ] {
            assert_eq!(kind(path, DocumentForm::Plain).as_deref(), expected, "{path}");
        }
        assert_eq!(kind("/apis", DocumentForm::Aggregated).as_deref(), Some("APIGroupDiscoveryList"));
        assert_eq!(kind("/apis/apps", DocumentForm::Aggregated), None);
    }
}
