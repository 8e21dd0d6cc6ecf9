//! What types have by default: type, field, value as JSON.

use super::{Code, code, scaling, workloads};

/// Longer beginnings of type names, by the group they stand for here.
const PREFIXES: [(&str, &str); 3] = [
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."),
    ("", "io.k8s.api."),
];

/// The full name of a type of the tables.
pub(super) fn full_name(short: &str) -> String {
    let found = PREFIXES.iter().find_map(|(from, to)| short.strip_prefix(from).map(|rest| format!("{to}{rest}")));
    found.unwrap_or_default()
}

/// A type and its fields' defaults.
type Fields = (&'static str, &'static [(&'static str, &'static str)]);

/// Mode of files of secret, config map, downward API and projected volumes: 0644.
const FILE_MODE: &[(&str, &str)] = &[("defaultMode", "420")];
const TCP: &[(&str, &str)] = &[("protocol", "\"TCP\"")];
const PORT_443: &[(&str, &str)] = &[("port", "443")];
const MATCH_ALL: &[(&str, &str)] =
    &[("matchPolicy", "\"Equivalent\""), ("namespaceSelector", "{}"), ("objectSelector", "{}")];
const WORKLOAD: &[(&str, &str)] = &[("replicas", "1"), ("revisionHistoryLimit", "10")];
const DEVICES: &[(&str, &str)] = &[("allocationMode", "\"ExactCount\"")];

/// Defaults that are data.
pub(super) const RULES: &[Fields] = &[
    ("core.v1.HTTPGetAction", &[("path", "\"/\""), ("scheme", "\"HTTP\"")]),
    ("core.v1.GRPCAction", &[("service", "\"\"")]),
    ("core.v1.ContainerPort", TCP),
    ("core.v1.ObjectFieldSelector", &[("apiVersion", "\"v1\"")]),
    ("core.v1.SecretVolumeSource", FILE_MODE),
    ("core.v1.ConfigMapVolumeSource", FILE_MODE),
    ("core.v1.DownwardAPIVolumeSource", FILE_MODE),
    ("core.v1.ProjectedVolumeSource", FILE_MODE),
    ("core.v1.ServiceAccountTokenProjection", &[("expirationSeconds", "3600")]),
    ("core.v1.HostPathVolumeSource", &[("type", "\"\"")]),
    (
        "core.v1.PodSpec",
        &[
            ("dnsPolicy", "\"ClusterFirst\""),
            ("restartPolicy", "\"Always\""),
            ("securityContext", "{}"),
            ("terminationGracePeriodSeconds", "30"),
            ("schedulerName", "\"default-scheduler\""),
        ],
    ),
    ("core.v1.ServicePort", TCP),
    ("core.v1.EndpointPort", TCP),
    (
        "core.v1.PersistentVolumeSpec",
        &[("persistentVolumeReclaimPolicy", "\"Retain\""), ("volumeMode", "\"Filesystem\"")],
    ),
    ("core.v1.PersistentVolumeStatus", &[("phase", "\"Pending\"")]),
    ("core.v1.PersistentVolumeClaimSpec", &[("volumeMode", "\"Filesystem\"")]),
    ("core.v1.PersistentVolumeClaimStatus", &[("phase", "\"Pending\"")]),
    ("core.v1.Secret", &[("type", "\"Opaque\"")]),
    ("core.v1.NamespaceStatus", &[("phase", "\"Active\"")]),
    ("core.v1.ReplicationControllerSpec", &[("replicas", "1")]),
    (
        "apps.v1.DeploymentSpec",
        &[("replicas", "1"), ("revisionHistoryLimit", "10"), ("progressDeadlineSeconds", "600")],
    ),
    ("apps.v1.DaemonSetSpec", &[("revisionHistoryLimit", "10")]),
    ("apps.v1.StatefulSetSpec", WORKLOAD),
    (
        "apps.v1.StatefulSetSpec",
        &[("podManagementPolicy", "\"OrderedReady\""), ("persistentVolumeClaimRetentionPolicy", "{}")],
    ),
    (
        "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
        &[("whenDeleted", "\"Retain\""), ("whenScaled", "\"Retain\"")],
    ),
    ("apps.v1.ReplicaSetSpec", &[("replicas", "1")]),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", &[("status", "\"True\"")]),
    (
        "batch.v1.CronJobSpec",
        &[
            ("concurrencyPolicy", "\"Allow\""),
            ("suspend", "false"),
            ("successfulJobsHistoryLimit", "3"),
            ("failedJobsHistoryLimit", "1"),
        ],
    ),
    ("networking.v1.NetworkPolicyPort", TCP),
    ("networking.v1.IngressClassParametersReference", &[("scope", "\"Cluster\"")]),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", &[("minReplicas", "1")]),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", &[("minReplicas", "1")]),
    ("scheduling.v1.PriorityClass", &[("preemptionPolicy", "\"PreemptLowerPriority\"")]),
    ("storage.v1.StorageClass", &[("reclaimPolicy", "\"Delete\""), ("volumeBindingMode", "\"Immediate\"")]),
    (
        "storage.v1.CSIDriverSpec",
        &[
            ("attachRequired", "true"),
            ("podInfoOnMount", "false"),
            ("storageCapacity", "false"),
            ("fsGroupPolicy", "\"ReadWriteOnceWithFSType\""),
            ("volumeLifecycleModes", "[\"Persistent\"]"),
            ("requiresRepublish", "false"),
            ("seLinuxMount", "false"),
        ],
    ),
    ("discovery.v1.EndpointPort", &[("name", "\"\""), ("protocol", "\"TCP\"")]),
    ("authentication.v1.TokenRequestSpec", &[("expirationSeconds", "3600")]),
    ("admissionregistration.v1.MutatingWebhook", MATCH_ALL),
    (
        "admissionregistration.v1.MutatingWebhook",
        &[("failurePolicy", "\"Fail\""), ("timeoutSeconds", "10"), ("reinvocationPolicy", "\"Never\"")],
    ),
    ("admissionregistration.v1.ValidatingWebhook", MATCH_ALL),
    ("admissionregistration.v1.ValidatingWebhook", &[("failurePolicy", "\"Fail\""), ("timeoutSeconds", "10")]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", &[("failurePolicy", "\"Fail\"")]),
    (
        "admissionregistration.v1.MutatingAdmissionPolicySpec",
        &[("failurePolicy", "\"Fail\""), ("reinvocationPolicy", "\"Never\"")],
    ),
    ("admissionregistration.v1.MatchResources", MATCH_ALL),
    ("admissionregistration.v1.RuleWithOperations", &[("scope", "\"*\"")]),
    ("admissionregistration.v1.NamedRuleWithOperations", &[("scope", "\"*\"")]),
    ("admissionregistration.v1.ServiceReference", PORT_443),
    ("apiextensions.v1.ServiceReference", PORT_443),
    ("apiregistration.v1.ServiceReference", PORT_443),
    ("apiextensions.v1.CustomResourceConversion", &[("strategy", "\"None\"")]),
    ("apiextensions.v1.CustomResourceDefinitionSpec", &[("conversion", "{}")]),
    ("flowcontrol.v1.FlowSchemaSpec", &[("matchingPrecedence", "1000")]),
    (
        "flowcontrol.v1.LimitedPriorityLevelConfiguration",
        &[("nominalConcurrencyShares", "30"), ("lendablePercent", "0")],
    ),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", &[("nominalConcurrencyShares", "0"), ("lendablePercent", "0")]),
    ("flowcontrol.v1.QueuingConfiguration", &[("queues", "64"), ("handSize", "8"), ("queueLengthLimit", "50")]),
    ("resource.v1.ExactDeviceRequest", DEVICES),
    ("resource.v1.DeviceSubRequest", DEVICES),
];

/// Defaults that depend on other fields.
pub(super) const CODE: &[(&str, Code)] = &[
    ("core.v1.Probe", code::probe),
    ("core.v1.Container", code::container),
    ("core.v1.EphemeralContainer", code::container),
    ("core.v1.Volume", code::volume),
    ("core.v1.PodSpec", code::pod_spec),
    ("core.v1.Pod", code::pod),
    ("core.v1.Service", code::service),
    ("core.v1.Namespace", code::namespace),
    ("core.v1.NodeStatus", code::node_status),
    ("core.v1.LimitRangeItem", code::limit_range_item),
    ("core.v1.ReplicationController", workloads::replication_controller),
    ("apps.v1.DeploymentStrategy", workloads::deployment_strategy),
    ("apps.v1.DaemonSetUpdateStrategy", workloads::daemon_set_strategy),
    ("apps.v1.StatefulSetUpdateStrategy", workloads::stateful_set_strategy),
    ("batch.v1.Job", workloads::job),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", scaling::scaler_spec),
    ("networking.v1.NetworkPolicySpec", code::network_policy),
    ("rbac.v1.Subject", code::subject),
    ("rbac.v1.RoleRef", code::role_ref),
    ("apiextensions.v1.CustomResourceDefinitionSpec", code::custom_resource_definition),
    ("resource.v1.ExactDeviceRequest", code::device_request),
    ("resource.v1.DeviceSubRequest", code::device_request),
];
