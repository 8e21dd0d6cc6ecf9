//! What a request asks for: parsed from a URL by the server, printed as one by the HTTPS client, and handed over
//! as it is by the in-process client.
//!
//! The rules by which a URL becomes a request are those of Kubernetes' `RequestInfo`. [`Request::parse`] reads
//! what [`Request::to_method_and_uri`] prints.

mod build;
mod path;
mod query;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use path::Parsed;

/// What is to be done, in the words that RBAC uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the verbs of the Kubernetes API")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The word that RBAC rules and audit use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// A group, a version and a plural resource name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, e.g. `v1`.
    pub version: String,
    /// Plural name, e.g. `pods`.
    pub resource: String,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/json-patch+json` (RFC 6902)
    JsonPatch,
    /// `application/merge-patch+json` (RFC 7386)
    MergePatch,
    /// `application/strategic-merge-patch+json`
    StrategicMergePatch,
    /// `application/apply-patch+yaml`
    ApplyPatch,
}

impl ContentType {
    /// All forms with their media types.
    const ALL: [(Self, &'static str); 6] = [
        (Self::Json, "application/json"),
        (Self::Yaml, "application/yaml"),
        (Self::JsonPatch, "application/json-patch+json"),
        (Self::MergePatch, "application/merge-patch+json"),
        (Self::StrategicMergePatch, "application/strategic-merge-patch+json"),
        (Self::ApplyPatch, "application/apply-patch+yaml"),
    ];

    /// The media type.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(form, _)| *form == self).map_or("application/json", |(_, word)| word)
    }

    /// The form of a media type without parameters; `None` where it is none that the API takes.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, w)| w.eq_ignore_ascii_case(word)).map(|(form, _)| *form)
    }
}

/// The options that a URL's query carries, for all verbs together; each verb reads those that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `labelSelector`
    pub label_selector: Option<String>,
    /// `fieldSelector`
    pub field_selector: Option<String>,
    /// `limit`: objects a page.
    pub limit: Option<u64>,
    /// `continue`: the token of the next page.
    pub continue_token: Option<String>,
    /// `resourceVersion`, as given.
    pub resource_version: Option<String>,
    /// `resourceVersionMatch`: `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
    /// `timeoutSeconds` of a list or watch.
    pub timeout_seconds: Option<u64>,
    /// `allowWatchBookmarks`
    pub allow_watch_bookmarks: bool,
    /// `sendInitialEvents` (KEP-3157).
    pub send_initial_events: Option<bool>,
    /// `fieldManager`
    pub field_manager: Option<String>,
    /// `fieldValidation`: `Ignore`, `Warn` or `Strict`.
    pub field_validation: Option<String>,
    /// `force` of a server-side apply.
    pub force: Option<bool>,
    /// `dryRun`: each value given; only `All` is valid.
    pub dry_run: Vec<String>,
    /// `gracePeriodSeconds` of a delete.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy` of a delete.
    pub propagation_policy: Option<String>,
    /// `orphanDependents` of a delete (deprecated).
    pub orphan_dependents: Option<bool>,
    /// Every other pair, in order: options of `log`, `exec`, `proxy`...
    pub other: Vec<(String, String)>,
}

/// One request on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub verb: Verb,
    /// On which resource.
    pub resource: GroupVersionResource,
    /// In which namespace; `None` for cluster-scoped objects (a Namespace too) and for all namespaces.
    pub namespace: Option<String>,
    /// On which object. Of a list or watch: the one that its field selector pins (`metadata.name=x`), which is what
    /// authorization goes by.
    pub name: Option<String>,
    /// On which subresource.
    pub subresource: Option<String>,
    /// The rest of the path after a `proxy` subresource, without its leading slash and still percent-encoded.
    pub subpath: Option<String>,
    /// The query.
    pub options: Options,
    /// The form of the body.
    pub content_type: ContentType,
    /// The body; for a delete the `DeleteOptions`, or empty.
    pub body: Bytes,
}

impl Request {
    /// The namespace that authorization goes by: a Namespace is in the namespace that it is.
    pub fn authorization_namespace(&self) -> &str {
        let is_namespace = self.resource.group.is_empty() && self.resource.resource == "namespaces";
        let namespace = if is_namespace { &self.name } else { &self.namespace };
        namespace.as_deref().unwrap_or_default()
    }
}
