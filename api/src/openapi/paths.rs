//! The operations on the resources of one version.

use serde_json::{Map, Value, json};

use super::{REFERENCE, kind_extension, list_kind};
use crate::kinds::{GroupVersion, GroupVersionKind, ResourceDef, Subresource};

/// Finds the component of a kind.
type Component<'a> = &'a dyn Fn(&GroupVersionKind) -> Option<String>;

/// A query parameter: name, type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Parameter =
    ("dryRun", "string", "When present, nothing is persisted. The only valid value is All: all stages are processed.");
const WRITES: [Parameter; 3] = [
    DRY_RUN,
    ("fieldManager", "string", "The name of the actor that is making these changes."),
    (
        "fieldValidation",
        "string",
        "What to do with unknown or duplicate fields. Valid values are: Ignore, Warn (the default) and Strict.",
    ),
];
const FORCE: Parameter =
    ("force", "boolean", "Take over fields that other managers own. Only for apply patch requests.");
const LISTS: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Asks for watch events of type BOOKMARK."),
    ("continue", "string", "The token with which the server ended the last page."),
    ("fieldSelector", "string", "Restricts the objects by their fields. Defaults to everything."),
    ("labelSelector", "string", "Restricts the objects by their labels. Defaults to everything."),
    ("limit", "integer", "The most objects that one answer holds."),
    ("resourceVersion", "string", "Sets a constraint on what resource versions a request may be served from."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "Begins a watch with an event for every object there is, then a bookmark."),
    ("timeoutSeconds", "integer", "The time after which a list or watch ends, whatever its activity."),
    ("watch", "boolean", "Answers with a stream of changes instead of a list."),
];
const DELETES: [Parameter; 5] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "The seconds before the object should be deleted; zero means immediately."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object that cannot be read from the store.",
    ),
    ("orphanDependents", "boolean", "Deprecated: please use propagationPolicy."),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed: Orphan, Background, Foreground.",
    ),
];

/// The media types that patches come in.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// One operation to be described.
struct Operation<'a> {
    verb: &'a str,
    def: &'a ResourceDef,
    sub: Option<&'a Subresource>,
    /// Whether the path is within a namespace.
    in_namespace: bool,
}

/// All paths of a version.
pub(super) fn of_version(group: &str, version: &GroupVersion, component: Component<'_>) -> Map<String, Value> {
    let base = if group.is_empty() {
        format!("/api/{}", version.version)
    } else {
        format!("/apis/{group}/{}", version.version)
    };
    let mut paths = Map::new();
    for def in &version.resources {
        let scope = if def.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{scope}/{}", def.resource);
        insert(&mut paths, &collection, def, None, &["list", "create", "deletecollection"], component);
        insert(
            &mut paths,
            &format!("{collection}/{{name}}"),
            def,
            None,
            &["get", "update", "patch", "delete"],
            component,
        );
        if def.namespaced {
            insert(&mut paths, &format!("{base}/{}", def.resource), def, None, &["list"], component);
        }
        for sub in &def.subresources {
            let path = format!("{collection}/{{name}}/{}", sub.name);
            insert(&mut paths, &path, def, Some(sub), &["get", "create", "update", "patch", "delete"], component);
        }
    }
    paths.sort_keys();
    paths
}

fn insert(
    paths: &mut Map<String, Value>,
    path: &str,
    def: &ResourceDef,
    sub: Option<&Subresource>,
    verbs: &[&str],
    component: Component<'_>,
) {
    let known = sub.map_or(&def.verbs, |sub| &sub.verbs);
    let in_namespace = path.contains("{namespace}");
    let mut item = Map::new();
    for verb in verbs.iter().filter(|verb| known.iter().any(|known| known == *verb)) {
        let operation = Operation { verb, def, sub, in_namespace };
        item.insert(method(verb).to_owned(), operation.describe(component));
    }
    if item.is_empty() {
        return;
    }
    let mut shared: Vec<Value> = Vec::new();
    for (name, what) in [("name", "name of the object"), ("namespace", "object name and auth scope")] {
        if path.contains(&format!("{{{name}}}")) {
            shared.push(json!({
                "name": name, "in": "path", "required": true, "description": what,
                "schema": {"type": "string", "uniqueItems": true},
            }));
        }
    }
    shared.push(query(&PRETTY));
    item.insert("parameters".to_owned(), shared.into());
    paths.insert(path.to_owned(), Value::Object(item));
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" => "post",
        "update" => "put",
        "patch" => "patch",
        "delete" | "deletecollection" => "delete",
        _ => "get",
    }
}

fn query((name, kind, what): &Parameter) -> Value {
    json!({"name": name, "in": "query", "description": what, "schema": {"type": kind, "uniqueItems": true}})
}

/// `apps` and `v1` of kind `Deployment` are `AppsV1...Deployment` in the ids of operations.
fn id_part(text: &str) -> String {
    let first = text.split('.').next().unwrap_or_default();
    let mut letters = first.chars();
    letters.next().map(|letter| letter.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

impl Operation<'_> {
    fn describe(&self, component: Component<'_>) -> Value {
        let def = self.def;
        let body_kind = self.sub.map_or(&def.gvk, |sub| &sub.kind);
        let answer_kind = if self.verb == "list" { list_kind(def) } else { body_kind.clone() };
        let group = if def.gvk.group.is_empty() { "core" } else { &def.gvk.group };
        let mut map = Map::new();
        map.insert("tags".to_owned(), json!([format!("{}_{}", id_part(group).to_lowercase(), def.gvk.version)]));
        map.insert("description".to_owned(), self.prose().into());
        map.insert("operationId".to_owned(), self.id(group).into());
        map.insert("parameters".to_owned(), self.parameters().iter().map(query).collect());
        if let Some(body) = self.body(body_kind, component) {
            map.insert("requestBody".to_owned(), body);
        }
        map.insert("responses".to_owned(), self.responses(&answer_kind, component));
        map.insert("x-kubernetes-action".to_owned(), self.action().into());
        map.insert("x-kubernetes-group-version-kind".to_owned(), kind_extension(body_kind));
        Value::Object(map)
    }

    fn action(&self) -> &str {
        match self.verb {
            "create" => "post",
            "update" => "put",
            other => other,
        }
    }

    fn prose(&self) -> String {
        let kind = &self.def.gvk.kind;
        match (self.sub, self.verb) {
            (Some(sub), verb) => format!("{verb} {} of the specified {kind}", sub.name),
            (None, "list") => format!("list or watch objects of kind {kind}"),
            (None, "create") => format!("create a {kind}"),
            (None, "get") => format!("read the specified {kind}"),
            (None, "update") => format!("replace the specified {kind}"),
            (None, "patch") => format!("partially update the specified {kind}"),
            (None, "deletecollection") => format!("delete collection of {kind}"),
            (None, verb) => format!("{verb} a {kind}"),
        }
    }

    /// As generators know it: `listCoreV1NamespacedPod`, `readAppsV1NamespacedDeploymentScale`.
    fn id(&self, group: &str) -> String {
        let verb = match self.verb {
            "get" => "read",
            "update" => "replace",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        let def = self.def;
        let scope = if self.in_namespace { "Namespaced" } else { "" };
        let everywhere = if def.namespaced && !self.in_namespace { "ForAllNamespaces" } else { "" };
        let sub = self.sub.map(|sub| id_part(&sub.name)).unwrap_or_default();
        format!("{verb}{}{}{scope}{}{sub}{everywhere}", id_part(group), id_part(&def.gvk.version), def.gvk.kind)
    }

    fn parameters(&self) -> Vec<Parameter> {
        match self.verb {
            "list" => LISTS.to_vec(),
            "create" | "update" => WRITES.to_vec(),
            "patch" => WRITES.into_iter().chain([FORCE]).collect(),
            "delete" => DELETES.to_vec(),
            "deletecollection" => LISTS.into_iter().chain(DELETES).collect(),
            _ => Vec::new(),
        }
    }

    fn body(&self, kind: &GroupVersionKind, component: Component<'_>) -> Option<Value> {
        let meta = |name: &str| json!({"$ref": format!("{REFERENCE}io.k8s.apimachinery.pkg.apis.meta.v1.{name}")});
        match self.verb {
            "create" | "update" => {
                let schema = json!({"$ref": format!("{REFERENCE}{}", component(kind)?)});
                Some(json!({"content": {"*/*": {"schema": schema}}, "required": true}))
            }
            "patch" => {
                let content: Map<String, Value> =
                    PATCHES.iter().map(|form| ((*form).to_owned(), json!({"schema": meta("Patch")}))).collect();
                Some(json!({"content": content, "required": true}))
            }
            "delete" | "deletecollection" => Some(json!({"content": {"*/*": {"schema": meta("DeleteOptions")}}})),
            _ => None,
        }
    }

    fn responses(&self, kind: &GroupVersionKind, component: Component<'_>) -> Value {
        let status = || Some("io.k8s.apimachinery.pkg.apis.meta.v1.Status".to_owned());
        let name = if matches!(self.verb, "delete" | "deletecollection") { status() } else { component(kind) };
        // What streams (logs, exec, proxies) answers with text.
        let content = match name {
            Some(name) => {
                let schema = json!({"schema": {"$ref": format!("{REFERENCE}{name}")}});
                json!({"application/json": schema, "application/yaml": schema, "application/vnd.kubernetes.protobuf": schema})
            }
            None => json!({"*/*": {"schema": {"type": "string"}}}),
        };
        let mut codes = Map::new();
        codes.insert("200".to_owned(), json!({"description": "OK", "content": content}));
        if matches!(self.verb, "create" | "update" | "patch") {
            codes.insert("201".to_owned(), json!({"description": "Created", "content": content}));
        }
        codes.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(codes)
    }
}
