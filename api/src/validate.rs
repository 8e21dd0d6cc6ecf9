//! What is wrong with an object, field by field, in Kubernetes' words.
//!
//! Runs on defaulted objects, after admission. Two rules hold for all kinds: their metadata ([`meta`]), and the
//! words that a field may only have ([`generic`]). The rest is a function a kind, found in [`RULES`]. A kind
//! without one is held to its schema alone.

use crate::{kinds::ResourceDef, object::Object, status::FieldError};

mod admission;
mod affinity;
mod cluster;
mod containers;
mod core;
mod cursor;
mod definitions;
mod devices;
mod diff;
mod environment;
mod flow;
mod generic;
mod meta;
mod pods;
mod policy;
mod resources;
mod security;
mod storage;
mod subresources;
mod volumes;
mod workloads;

pub use subresources::{ephemeral_containers, resize};

use cursor::{Cursor, Errors};

/// The rules of a kind: the object, and on an update what it was.
type Rule = fn(&Cursor<'_>, Option<&Cursor<'_>>, &mut Errors);

/// The kinds with rules of their own: group, kind, rule.
const RULES: [(&str, &str, Rule); 59] = [
    ("", "Pod", pods::pod),
    ("", "PodTemplate", workloads::pod_template_object),
    ("", "ReplicationController", workloads::replication_controller),
    ("", "Service", core::service),
    ("", "Namespace", core::namespace),
    ("", "Node", core::node),
    ("", "ConfigMap", core::config_map),
    ("", "Secret", core::secret),
    ("", "ServiceAccount", core::service_account),
    ("", "Endpoints", core::endpoints),
    ("", "ResourceQuota", core::resource_quota),
    ("", "LimitRange", core::limit_range),
    ("", "PersistentVolume", volumes::persistent_volume),
    ("", "PersistentVolumeClaim", volumes::persistent_volume_claim),
    ("apps", "Deployment", workloads::deployment),
    ("apps", "ReplicaSet", workloads::replica_set),
    ("apps", "StatefulSet", workloads::stateful_set),
    ("apps", "DaemonSet", workloads::daemon_set),
    ("apps", "ControllerRevision", workloads::controller_revision),
    ("batch", "Job", workloads::job),
    ("batch", "CronJob", workloads::cron_job),
    ("autoscaling", "HorizontalPodAutoscaler", policy::scaler),
    ("policy", "PodDisruptionBudget", policy::disruption_budget),
    ("networking.k8s.io", "Ingress", policy::ingress),
    ("networking.k8s.io", "IngressClass", policy::ingress_class),
    ("networking.k8s.io", "NetworkPolicy", policy::network_policy),
    ("rbac.authorization.k8s.io", "Role", policy::role),
    ("rbac.authorization.k8s.io", "ClusterRole", policy::role),
    ("rbac.authorization.k8s.io", "RoleBinding", policy::role_binding),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", policy::role_binding),
    ("coordination.k8s.io", "Lease", core::lease),
    ("discovery.k8s.io", "EndpointSlice", core::endpoint_slice),
    ("node.k8s.io", "RuntimeClass", policy::runtime_class),
    ("scheduling.k8s.io", "PriorityClass", policy::priority_class),
    ("storage.k8s.io", "StorageClass", policy::storage_class),
    ("certificates.k8s.io", "CertificateSigningRequest", policy::signing_request),
    ("", "Event", core::event),
    ("events.k8s.io", "Event", core::event),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", admission::webhooks),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", admission::webhooks),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", admission::mutating_policy),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", admission::mutating_binding),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", admission::validating_policy),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", admission::validating_binding),
    ("apiextensions.k8s.io", "CustomResourceDefinition", definitions::definition),
    ("apiregistration.k8s.io", "APIService", cluster::api_service),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", flow::schema),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", flow::level),
    ("networking.k8s.io", "IPAddress", cluster::ip_address),
    ("networking.k8s.io", "ServiceCIDR", cluster::service_cidr),
    ("resource.k8s.io", "DeviceClass", devices::class),
    ("resource.k8s.io", "ResourceClaim", devices::claim),
    ("resource.k8s.io", "ResourceClaimTemplate", devices::claim_template),
    ("resource.k8s.io", "ResourceSlice", devices::slice),
    ("storage.k8s.io", "CSIDriver", storage::driver),
    ("storage.k8s.io", "CSINode", storage::node),
    ("storage.k8s.io", "CSIStorageCapacity", storage::capacity),
    ("storage.k8s.io", "VolumeAttachment", storage::attachment),
    ("storage.k8s.io", "VolumeAttributesClass", storage::attributes_class),
];

fn rule(def: &ResourceDef) -> Option<Rule> {
    RULES.iter().find(|(group, kind, _)| (*group, *kind) == (&def.gvk.group, &def.gvk.kind)).map(|(.., rule)| *rule)
}

/// What is wrong with a new object.
pub fn create(def: &ResourceDef, object: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::create(def, object, &mut errors);
    let value = Cursor::root(object);
    if let Some(rule) = rule(def) {
        rule(&value, None, &mut errors);
    }
    generic::enums(def, object, &mut errors);
    errors.into_list()
}

/// What is wrong with a changed object.
pub fn update(def: &ResourceDef, object: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::update(def, object, old, &mut errors);
    if let Some(rule) = rule(def) {
        rule(&Cursor::root(object), Some(&Cursor::root(old)), &mut errors);
    }
    generic::enums(def, object, &mut errors);
    errors.into_list()
}

#[cfg(test)]
mod tests;
