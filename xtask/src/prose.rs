//! The descriptions of types and fields, read out of k8s-openapi's schemas.

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
        authorization::v1 as authorization, autoscaling::v1 as autoscaling1, autoscaling::v2 as autoscaling2,
        batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
        discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
        node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource,
        scheduling::v1 as scheduling, storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    apimachinery::pkg::{apis::meta::v1 as meta, runtime::RawExtension, version},
    kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration,
    schemars::{SchemaGenerator, generate::SchemaSettings},
};
use serde_json::{Map, Value};

/// Asks the generator for each type.
macro_rules! ask {
    ($generator:ident, [$($type:ty),* $(,)?]) => {
        $( $generator.subschema_for::<$type>(); )*
    };
}

/// The types from which all others are reached.
fn ask_for_all(generator: &mut SchemaGenerator) {
    ask!(generator, [
        admission::MutatingAdmissionPolicy, admission::MutatingAdmissionPolicyBinding,
        admission::MutatingWebhookConfiguration, admission::ValidatingAdmissionPolicy,
        admission::ValidatingAdmissionPolicyBinding, admission::ValidatingWebhookConfiguration,
        apps::ControllerRevision, apps::DaemonSet, apps::Deployment, apps::ReplicaSet, apps::StatefulSet,
        autoscaling1::HorizontalPodAutoscaler, autoscaling2::HorizontalPodAutoscaler,
        batch::CronJob, batch::Job, certificates::CertificateSigningRequest, coordination::Lease,
        core::ComponentStatus, core::ConfigMap, core::Endpoints, core::Event, core::LimitRange, core::Namespace,
        core::Node, core::PersistentVolume, core::PersistentVolumeClaim, core::Pod, core::PodTemplate,
        core::ReplicationController, core::ResourceQuota, core::Secret, core::Service, core::ServiceAccount,
        discovery::EndpointSlice, events::Event, flowcontrol::FlowSchema, flowcontrol::PriorityLevelConfiguration,
        networking::IPAddress, networking::Ingress, networking::IngressClass, networking::NetworkPolicy,
        networking::ServiceCIDR, node::RuntimeClass, policy::PodDisruptionBudget,
        rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role, rbac::RoleBinding,
        resource::DeviceClass, resource::ResourceClaim, resource::ResourceClaimTemplate, resource::ResourceSlice,
        scheduling::PriorityClass, storage::CSIDriver, storage::CSINode, storage::CSIStorageCapacity,
        storage::StorageClass, storage::VolumeAttachment, storage::VolumeAttributesClass,
        apiextensions::CustomResourceDefinition, apiregistration::APIService,
        authentication::SelfSubjectReview, authentication::TokenRequest, authentication::TokenReview,
        authorization::LocalSubjectAccessReview, authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview, authorization::SubjectAccessReview,
        autoscaling1::Scale, core::Binding, policy::Eviction,
        meta::APIGroup, meta::APIGroupList, meta::APIResourceList, meta::APIVersions, meta::DeleteOptions, meta::Patch,
        meta::Status, meta::WatchEvent<RawExtension>, version::Info,
    ]);
}

/// `{type: {"": its description, field: its description}}` for every type of the recording that has prose.
pub(crate) fn descriptions(recorded: &Value) -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    ask_for_all(&mut generator);
    let told = generator.take_definitions(true);
    let mut all = Map::new();
    for name in recorded.as_object().into_iter().flatten().map(|(name, _)| name) {
        let Some(schema) = told.get(name) else {
            eprintln!("no prose for {name}");
            continue;
        };
        all.insert(name.clone(), Value::Object(of_type(schema)));
    }
    Value::Object(all)
}

fn of_type(schema: &Value) -> Map<String, Value> {
    let mut texts = Map::new();
    if let Some(text) = schema.get("description") {
        texts.insert(String::new(), text.clone());
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(text) = field.get("description") {
            texts.insert(name.clone(), text.clone());
        }
    }
    texts
}
