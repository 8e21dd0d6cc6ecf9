//! What the kinds' own rules say that can be said as data. Source: the strategies of Kubernetes 1.36.

use skiff_api::kinds::ResourceDef;

/// Who says what an object's status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The kind has none that a subresource guards.
    Absent,
    /// A new object has this status (JSON; empty for none); it is changed through the subresource only.
    Owned(&'static str),
    /// A new object has the status that it came with; after that it is changed through the subresource only.
    Given,
}

/// What lets `metadata.generation` grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has no generation.
    Absent,
    /// A change of `spec`.
    Spec,
    /// A change of `spec` or of the annotations.
    SpecAndAnnotations,
    /// A change of any field but `metadata` and `status`.
    Body,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    group: &'static str,
    resource: &'static str,
    /// Who says what the status is.
    pub status: Status,
    /// What lets the generation grow.
    pub generation: Generation,
    /// Whether an update need not say which version it changes.
    pub unconditional_update: bool,
    /// Whether an update makes an object that is not there.
    pub create_on_update: bool,
    /// Whether a delete that does not say so leaves the dependents behind.
    pub orphans_by_default: bool,
    /// Whether a delete is answered with the object, and not with a `Status`.
    pub returns_deleted: bool,
    /// Whether a status update leaves the labels as they are.
    pub status_keeps_labels: bool,
    /// Whether a status update leaves all metadata as it is.
    pub status_keeps_metadata: bool,
}

/// A row with the rules that most kinds have.
const fn row(group: &'static str, resource: &'static str) -> Rules {
    Rules {
        group,
        resource,
        status: Status::Absent,
        generation: Generation::Absent,
        unconditional_update: true,
        create_on_update: false,
        orphans_by_default: false,
        returns_deleted: false,
        status_keeps_labels: false,
        status_keeps_metadata: false,
    }
}

impl Rules {
    const fn status(self, initial: &'static str) -> Self {
        Self { status: Status::Owned(initial), ..self }
    }

    const fn given_status(self) -> Self {
        Self { status: Status::Given, ..self }
    }

    const fn by_spec(self) -> Self {
        Self { generation: Generation::Spec, ..self }
    }

    const fn by_body(self) -> Self {
        Self { generation: Generation::Body, ..self }
    }

    const fn by_annotations(self) -> Self {
        Self { generation: Generation::SpecAndAnnotations, ..self }
    }

    const fn conditional(self) -> Self {
        Self { unconditional_update: false, ..self }
    }

    const fn put_creates(self) -> Self {
        Self { create_on_update: true, ..self }
    }

    const fn orphans(self) -> Self {
        Self { orphans_by_default: true, ..self }
    }

    const fn returned(self) -> Self {
        Self { returns_deleted: true, ..self }
    }

    const fn metadata_stays(self) -> Self {
        Self { status_keeps_metadata: true, ..self }
    }

    const fn labels_stay(self) -> Self {
        Self { status_keeps_labels: true, ..self }
    }
}

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

/// The kinds whose rules differ from those of [`row`].
static TABLE: &[Rules] = &[
    row("", "endpoints").put_creates(),
    row("", "events").put_creates(),
    row("", "limitranges").put_creates(),
    row("", "namespaces").status(r#"{"phase":"Active"}"#).returned(),
    row("", "nodes").given_status(),
    row("", "persistentvolumeclaims").status(r#"{"phase":"Pending"}"#).returned(),
    row("", "persistentvolumes").status(r#"{"phase":"Pending"}"#).returned(),
    row("", "pods").status(r#"{"phase":"Pending"}"#).by_spec().returned(),
    row("", "podtemplates").by_body().put_creates().returned(),
    row("", "replicationcontrollers").status(r#"{"replicas":0}"#).by_spec().orphans(),
    row("", "resourcequotas").status("{}").returned(),
    row("", "serviceaccounts").returned(),
    row("", "services").status(r#"{"loadBalancer":{}}"#).put_creates().returned(),
    row("apiregistration.k8s.io", "apiservices").status("{}").conditional().metadata_stays(),
    row(APPS, "daemonsets")
        .status(r#"{"currentNumberScheduled":0,"numberMisscheduled":0,"desiredNumberScheduled":0,"numberReady":0}"#)
        .by_spec(),
    row(APPS, "deployments").status("{}").by_annotations().labels_stay(),
    row(APPS, "replicasets").status(r#"{"replicas":0}"#).by_spec(),
    row(APPS, "statefulsets").status(r#"{"replicas":0,"availableReplicas":0}"#).by_spec(),
    row("autoscaling", "horizontalpodautoscalers").status(r#"{"currentReplicas":0,"desiredReplicas":0}"#),
    row("batch", "cronjobs").status("{}").by_spec(),
    row("batch", "jobs").status("{}").by_spec().orphans(),
    row("certificates.k8s.io", "certificatesigningrequests").status("{}"),
    row("coordination.k8s.io", "leases").put_creates().conditional(),
    row("discovery.k8s.io", "endpointslices").by_body(),
    row(NETWORKING, "ingresses").status(r#"{"loadBalancer":{}}"#).by_spec(),
    row(NETWORKING, "ingressclasses").by_spec(),
    row(NETWORKING, "networkpolicies").by_spec(),
    row(NETWORKING, "servicecidrs").status("{}"),
    row("node.k8s.io", "runtimeclasses").conditional(),
    row("policy", "poddisruptionbudgets")
        .status(r#"{"disruptionsAllowed":0,"currentHealthy":0,"desiredHealthy":0,"expectedPods":0}"#)
        .by_spec()
        .conditional(),
    row(RBAC, "clusterroles").put_creates(),
    row(RBAC, "clusterrolebindings").put_creates(),
    row(RBAC, "roles").put_creates(),
    row(RBAC, "rolebindings").put_creates(),
    row("scheduling.k8s.io", "priorityclasses").by_body(),
    row(STORAGE, "csidrivers").by_spec().conditional().returned(),
    row(STORAGE, "csinodes").conditional().returned(),
    row(STORAGE, "storageclasses").returned(),
    row(STORAGE, "volumeattachments").status(r#"{"attached":false}"#).conditional().returned(),
    row(STORAGE, "volumeattributesclasses").returned(),
    row(ADMISSION, "mutatingadmissionpolicies").by_spec().conditional(),
    row(ADMISSION, "mutatingadmissionpolicybindings").by_spec().conditional(),
    row(ADMISSION, "mutatingwebhookconfigurations").by_body().conditional(),
    row(ADMISSION, "validatingadmissionpolicies").status("{}").by_spec().conditional().metadata_stays(),
    row(ADMISSION, "validatingadmissionpolicybindings").by_spec().conditional(),
    row(ADMISSION, "validatingwebhookconfigurations").by_body().conditional(),
    row("apiextensions.k8s.io", "customresourcedefinitions")
        .status(r#"{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}"#)
        .by_spec()
        .conditional()
        .metadata_stays(),
    row(RESOURCE, "deviceclasses").by_spec(),
    row(RESOURCE, "resourceclaims").status("{}").metadata_stays(),
    row(RESOURCE, "resourceslices").by_spec(),
    row(FLOW, "flowschemas").status("{}").by_spec().metadata_stays(),
    row(FLOW, "prioritylevelconfigurations").status("{}").by_spec().metadata_stays(),
];

/// A built-in kind that has no row.
static COMMON: Rules = row("", "");

/// A custom resource without a status subresource.
static CUSTOM: Rules = row("", "").by_body().conditional();

/// A custom resource with a status subresource.
static CUSTOM_WITH_STATUS: Rules = row("", "").status("").by_body().conditional().metadata_stays();

/// The groups of the built-in kinds that end in neither `.k8s.io` nor nothing.
const SHORT_GROUPS: [&str; 5] = ["", APPS, "autoscaling", "batch", "policy"];

/// The rules of a resource.
pub fn rules(def: &ResourceDef) -> &'static Rules {
    let group = def.gvk.group.as_str();
    let of_this = |rules: &&Rules| rules.group == group && rules.resource == def.resource;
    if let Some(rules) = TABLE.iter().find(of_this) {
        return rules;
    }
    if SHORT_GROUPS.contains(&group) || group.ends_with(".k8s.io") {
        return &COMMON;
    }
    let has_status = def.subresources.iter().any(|subresource| subresource.name == "status");
    if has_status { &CUSTOM_WITH_STATUS } else { &CUSTOM }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_initial_status_is_json_and_no_kind_has_two_rows() {
        for (at, rules) in TABLE.iter().enumerate() {
            if let Status::Owned(text) = rules.status {
                assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{} {text}", rules.resource);
            }
            let twin = TABLE[at + 1..].iter().any(|r| r.group == rules.group && r.resource == rules.resource);
            assert!(!twin, "{} has two rows", rules.resource);
        }
    }
}
