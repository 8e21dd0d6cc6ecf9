//! Applying manifests from within the process.

use serde::Deserialize;
use skiff_api::{
    kinds::{GroupVersionKind, Kinds, ResourceDef},
    object::Object,
    request::{ContentType, GroupVersionResource, Options, Request, Verb},
    status::ApiError,
};
use skiff_client::client::Client;

/// The manager that owns the fields of what skiff itself applies.
const FIELD_MANAGER: &str = "skiff";

/// A manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not YAML.
    #[error("document {number} is not YAML")]
    Yaml {
        /// Counted from 1.
        number: usize,
        /// Where.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// It is no object of a kind that is served.
    #[error("document {number}: {problem}")]
    Kind {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        problem: String,
    },
    /// The API server refused it.
    #[error("document {number}")]
    Refused {
        /// Counted from 1.
        number: usize,
        /// In its words.
        #[source]
        source: ApiError,
    },
}

/// Applies each document of a manifest, server-side and with force; gives `resource/name` of each.
pub(crate) async fn apply(client: &Client, manifest: &str) -> Result<Vec<String>, ManifestError> {
    let mut applied = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(manifest).enumerate() {
        let number = index + 1;
        let value =
            serde_json::Value::deserialize(document).map_err(|source| ManifestError::Yaml { number, source })?;
        let serde_json::Value::Object(map) = value else {
            if value.is_null() {
                continue;
            }
            return Err(ManifestError::Kind { number, problem: "it is no object".to_owned() });
        };
        let object = Object(map);
        let def = kind_of(&object).map_err(|problem| ManifestError::Kind { number, problem })?;
        let request = apply_request(def, &object);
        client.raw(request).await.map_err(|source| ManifestError::Refused { number, source })?;
        applied.push(format!("{}/{}", def.singular, object.name()));
    }
    Ok(applied)
}

fn kind_of(object: &Object) -> Result<&'static ResourceDef, String> {
    let (api_version, kind) = (object.api_version(), object.kind());
    let gvk = GroupVersionKind::parse(api_version, kind);
    if object.name().is_empty() {
        return Err("it has no metadata.name".to_owned());
    }
    Kinds::builtin()
        .kind(&gvk)
        .map(|def| &**def)
        .ok_or_else(|| format!("no kind {kind:?} is known in version {api_version:?}"))
}

fn apply_request(def: &ResourceDef, object: &Object) -> Request {
    let namespace = match object.namespace() {
        "" => "default",
        given => given,
    };
    Request {
        verb: Verb::Patch,
        resource: GroupVersionResource {
            group: def.gvk.group.clone(),
            version: def.gvk.version.clone(),
            resource: def.resource.clone(),
        },
        namespace: def.namespaced.then(|| namespace.to_owned()),
        name: Some(object.name().to_owned()),
        subresource: None,
        subpath: None,
        options: Options { field_manager: Some(FIELD_MANAGER.to_owned()), force: Some(true), ..Options::default() },
        content_type: ContentType::ApplyPatch,
        body: object.to_vec().into(),
    }
}
