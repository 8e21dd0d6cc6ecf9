//! What clients are warned of: use that is deprecated, and what is allowed but surely not meant. Each text goes out in
//! a `Warning` header. Source: the strategies of Kubernetes 1.36 (`WarningsOnCreate`, `WarningsOnUpdate`).

use serde_json::Value;

use crate::{kinds::ResourceDef, names, object::Object};

mod pods;

/// Where the kinds that make pods have their template.
const TEMPLATES: [(&str, &[&str]); 8] = [
    ("Deployment", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicationController", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ("PodTemplate", &["template"]),
];

/// Kinds that any request is warned of.
const OLD_KINDS: [(&str, &str); 2] = [
    ("componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

/// Annotations that fields have taken the place of: kind, annotation, the words.
const OLD_ANNOTATIONS: [(&str, &str, &str); 4] = [
    (
        "PersistentVolume",
        "volume.beta.kubernetes.io/storage-class",
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "PersistentVolumeClaim",
        "volume.beta.kubernetes.io/storage-class",
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "PersistentVolume",
        "volume.beta.kubernetes.io/mount-options",
        "deprecated since v1.31; use \"mountOptions\" attribute instead",
    ),
    (
        "ServiceAccount",
        "kubernetes.io/enforce-mountable-secrets",
        "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
    ),
];

/// What every request on a resource is warned of.
pub fn of_resource(def: &ResourceDef) -> Option<&'static str> {
    let old = OLD_KINDS.iter().find(|(resource, _)| *resource == def.resource);
    old.filter(|_| def.gvk.group.is_empty()).map(|(_, words)| *words)
}

/// What the writer of an object is warned of; `old` is what it was before an update.
pub fn of_write(def: &ResourceDef, object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut warnings = Vec::new();
    let kind = def.gvk.kind.as_str();
    if old.is_none() {
        names_of_pods(kind, object.name(), &mut warnings);
    }
    let unchanged = old.is_some_and(|old| old.at(&["spec"]) == object.at(&["spec"]));
    if kind == "Pod" && def.gvk.group.is_empty() && !unchanged {
        pods::of(&Value::Object(object.0.clone()), "", &mut warnings);
    }
    if let Some((_, path)) = TEMPLATES.iter().find(|(known, _)| *known == kind)
        && let Some(template) = object.at(path).filter(|template| old.is_none_or(|old| old.at(path) != Some(*template)))
    {
        pods::of(template, &format!("{}.", path.join(".")), &mut warnings);
    }
    for (_, annotation, words) in OLD_ANNOTATIONS.iter().filter(|(known, ..)| *known == kind) {
        if object.at(&["metadata", "annotations", annotation]).is_some() {
            warnings.push(format!("metadata.annotations[{annotation}]: {words}"));
        }
    }
    match kind {
        "Service" => service(object, &mut warnings),
        "Ingress"
            if old.is_none() && object.at(&["metadata", "annotations", "kubernetes.io/ingress.class"]).is_some() =>
        {
            let words =
                "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
            warnings.push(words.to_owned());
        }
        "PersistentVolume" if object.str_at(&["spec", "persistentVolumeReclaimPolicy"]) == Some("Recycle") => {
            warnings.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
                 approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        "Node" => node(object, &mut warnings),
        _ => {}
    }
    warnings
}

fn names_of_pods(kind: &str, name: &str, warnings: &mut Vec<String>) {
    let what = match kind {
        "Pod" => "the Pod's hostname",
        "Deployment" | "ReplicaSet" | "ReplicationController" | "Job" => "Pod names and hostnames",
        _ => return,
    };
    let faults = names::dns_label(name);
    if !name.is_empty() && !faults.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            faults.join(" ")
        ));
    }
}

fn service(service: &Object, warnings: &mut Vec<String>) {
    let text = |field: &str| service.str_at(&["spec", field]).unwrap_or_default();
    let has_external_ips =
        service.at(&["spec", "externalIPs"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if service.at(&["metadata", "annotations", "service.kubernetes.io/topology-aware-hints"]).is_some() {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    let is_external = text("type") == "ExternalName";
    let is_headless = text("clusterIP") == "None";
    let mut ignored = |applies: bool, field: &str, when: &str| {
        if applies {
            warnings.push(format!("spec.{field} is ignored when {when}"));
        }
    };
    ignored(is_external && has_external_ips, "externalIPs", "spec.type is \"ExternalName\"");
    ignored(!is_external && !text("externalName").is_empty(), "externalName", "spec.type is not \"ExternalName\"");
    let headless = "spec.clusterIP is \"None\"";
    ignored(is_headless && !text("loadBalancerIP").is_empty(), "loadBalancerIP", headless);
    ignored(is_headless && has_external_ips, "externalIPs", headless);
    ignored(is_headless && !["", "None"].contains(&text("sessionAffinity")), "SessionAffinity", headless);
}

fn node(node: &Object, warnings: &mut Vec<String>) {
    if node.at(&["spec", "configSource"]).is_some() {
        warnings.push("spec.configSource: the feature is removed since v1.24".to_owned());
    }
    if node.str_at(&["spec", "externalID"]).is_some_and(|id| !id.is_empty()) {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
}
