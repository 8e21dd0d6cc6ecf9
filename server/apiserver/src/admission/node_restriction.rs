//! NodeRestriction: what a node writes is about itself. The Node authorizer limits what has a name in the URL; this
//! limits what stands in the body. Source: `plugin/pkg/admission/noderestriction` of Kubernetes 1.36.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use skiff_api::{object::Object, status::ApiError};
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use super::{
    Operation, World, Write,
    references::{self, CONFIG_MAPS, SECRETS},
    service_account::MIRROR,
};
use crate::authz::node::{LEASE_NAMESPACE, node_name};

/// Labels of Kubernetes' own that a node may set on itself.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Domains of labels that a node may set on itself.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The domain of labels that only others may set on a node.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

/// The signers of nodes' own certificates.
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// Refuses what a node writes of another.
pub(super) fn validate(world: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    let Some(node) = node_name(write.user) else { return Ok(()) };
    let refusal = match (write.def.gvk.group.as_str(), write.def.resource.as_str()) {
        ("", "pods") => pod(world, write, node, object),
        ("", "nodes") => own_node(write, node, object),
        ("", "persistentvolumeclaims") => claim(write, node, object),
        ("", "serviceaccounts") if write.subresource == "token" => token(world, write, node, object),
        ("coordination.k8s.io", "leases") => lease(write, node, object),
        ("storage.k8s.io", "csinodes") if object.name() != node => {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        }
        ("resource.k8s.io", "resourceslices") if object.str_at(&["spec", "nodeName"]) != Some(node) => {
            let verb = if write.operation == Operation::Delete { "delete" } else { "create" };
            Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
        }
        ("certificates.k8s.io", "certificatesigningrequests") => signing_request(write, node, object),
        _ => Ok(()),
    };
    refusal.map_err(|why| write.forbidden(why))
}

type Verdict = Result<(), String>;

fn refuse(unless: bool, why: impl Into<String>) -> Verdict {
    if unless { Ok(()) } else { Err(why.into()) }
}

fn runs_on(pod: &Object, node: &str) -> bool {
    pod.str_at(&["spec", "nodeName"]) == Some(node)
}

fn pod(world: &dyn World, write: &Write<'_>, node: &str, object: &Object) -> Verdict {
    match (write.subresource, write.operation) {
        ("", Operation::Create) => mirror_pod(world, node, object),
        ("" | "eviction", Operation::Delete) => refuse(
            runs_on(object, node),
            format!("node {node:?} can only delete pods with spec.nodeName set to itself"),
        ),
        ("", Operation::Update) => {
            Err(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
        ("status", _) => pod_status(write.old, node, object),
        ("eviction", _) => {
            let there = write.old.is_some_and(|pod| runs_on(pod, node));
            refuse(there, format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        (other, _) => Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
    }
}

/// A pod that a node makes is a mirror of one that it runs itself, and refers to nothing else.
fn mirror_pod(world: &dyn World, node: &str, pod: &Object) -> Verdict {
    refuse(
        pod.at(&["metadata", "annotations", MIRROR]).is_some(),
        format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"),
    )?;
    refuse(runs_on(pod, node), format!("node {node:?} can only create pods with spec.nodeName set to itself"))?;
    owned_by_node(world, node, pod)?;
    let can_not = |what: &str| format!("node {node:?} can not create pods that reference {what}");
    refuse(references::account(pod).is_none(), can_not("a service account"))?;
    refuse(references::names(pod, SECRETS).is_empty(), can_not("secrets"))?;
    refuse(references::names(pod, CONFIG_MAPS).is_empty(), can_not("configmaps"))?;
    refuse(!projects_trust_bundles(pod), can_not("clustertrustbundles"))?;
    refuse(references::claims(pod).is_empty(), can_not("persistentvolumeclaims"))?;
    let claims = pod.at(&["spec", "resourceClaims"]).and_then(Value::as_array);
    refuse(claims.is_none_or(Vec::is_empty), can_not("resourceclaims"))
}

fn projects_trust_bundles(pod: &Object) -> bool {
    let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_array).into_iter().flatten();
    let sources = volumes.filter_map(|volume| volume.get("projected")?.get("sources")?.as_array()).flatten();
    sources.into_iter().any(|source| source.get("clusterTrustBundle").is_some())
}

fn owned_by_node(world: &dyn World, node: &str, pod: &Object) -> Verdict {
    let owners: Vec<_> = pod.owner_references().collect();
    let only = |what: &str| format!("node {node:?} can only create pods with {what} owner reference set to itself");
    refuse(owners.len() <= 1, only("a single"))?;
    let owner = owners.first().ok_or_else(|| only("an"))?;
    let is_node = owner.api_version == "v1" && owner.kind == "Node" && owner.name == node;
    refuse(is_node, only("an"))?;
    refuse(owner.controller, only("a controller"))?;
    refuse(
        !owner.block_owner_deletion,
        format!("node {node:?} must not set blockOwnerDeletion on an owner reference"),
    )?;
    let there = world.find("", "nodes", "", node).ok_or_else(|| format!("nodes {node:?} not found"))?;
    let (expected, got) = (&owner.uid, there.uid());
    refuse(expected == got, format!("node {node} UID mismatch: expected {expected} got {got}"))
}

fn pod_status(old: Option<&Object>, node: &str, pod: &Object) -> Verdict {
    let old = old.ok_or("unexpected operation \"CREATE\"")?;
    refuse(
        runs_on(old, node),
        format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"),
    )?;
    let same = |path: &[&str]| old.at(path) == pod.at(path);
    refuse(same(&["metadata", "labels"]), format!("node {node:?} cannot update labels through pod status"))?;
    let claims = ["resourceClaimStatuses", "extendedResourceClaimStatus"];
    refuse(
        claims.iter().all(|field| same(&["status", field])),
        format!("node {node:?} cannot update resource claim statuses"),
    )
}

fn own_node(write: &Write<'_>, node: &str, object: &Object) -> Verdict {
    let name = object.name();
    refuse(name == node, format!("node {node:?} is not allowed to modify node {name:?}"))?;
    match (write.operation, write.old) {
        (Operation::Create, _) => {
            let labels = forbidden_labels(&BTreeMap::new(), &object.labels().collect());
            refuse(
                labels.is_empty(),
                format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", ")),
            )
        }
        (Operation::Update, Some(old)) => {
            let taints = |of: &Object| of.at(&["spec", "taints"]).cloned().unwrap_or_else(|| Value::Array(Vec::new()));
            refuse(taints(old) == taints(object), format!("node {node:?} is not allowed to modify taints"))?;
            let labels = forbidden_labels(&old.labels().collect(), &object.labels().collect());
            refuse(labels.is_empty(), format!("is not allowed to modify labels: {}", labels.join(", ")))
        }
        _ => Ok(()),
    }
}

/// The labels that differ and that a node may not change.
fn forbidden_labels(old: &BTreeMap<&str, &str>, new: &BTreeMap<&str, &str>) -> Vec<String> {
    let keys: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let changed = keys.into_iter().filter(|key| old.get(key) != new.get(key));
    changed.filter(|key| is_forbidden_label(key)).map(str::to_owned).collect()
}

fn is_forbidden_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |whole: &str| domain == whole || domain.strip_suffix(whole).is_some_and(|rest| rest.ends_with('.'));
    let is_kubernetes = within("kubernetes.io") || within("k8s.io");
    let is_own = OWN_LABELS.contains(&key) || OWN_DOMAINS.iter().any(|domain| within(domain));
    within(RESTRICTED_DOMAIN) || (is_kubernetes && !is_own)
}

/// What of a claim's status a node may change.
const CLAIM_STATUS: [&str; 4] = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];

fn claim(write: &Write<'_>, node: &str, object: &Object) -> Verdict {
    refuse(write.subresource == "status", "may only update PVC status")?;
    let fixed = |of: &Object| {
        let mut of = of.clone();
        for field in CLAIM_STATUS {
            of.remove_at(&["status", field]);
        }
        for field in ["resourceVersion", "managedFields"] {
            of.remove_at(&["metadata", field]);
        }
        of
    };
    refuse(
        write.old.is_some_and(|old| fixed(old) == fixed(object)),
        format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions"),
    )
}

/// A node asks for tokens for the pods that it runs alone, and for those audiences that they name.
fn token(world: &dyn World, write: &Write<'_>, node: &str, request: &Object) -> Verdict {
    let bound = |field: &str| request.str_at(&["spec", "boundObjectRef", field]).unwrap_or_default();
    let is_pod = bound("apiVersion") == "v1" && bound("kind") == "Pod" && !bound("name").is_empty();
    refuse(is_pod, "node requested token not bound to a pod")?;
    let uid = bound("uid");
    refuse(!uid.is_empty(), "node requested token with a pod binding without a uid")?;
    let pod = world.find("", "pods", write.namespace, bound("name"));
    let pod = pod.ok_or_else(|| format!("pods {:?} not found", bound("name")))?;
    refuse(
        pod.uid() == uid,
        format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ),
    )?;
    refuse(runs_on(&pod, node), "node requested token bound to a pod scheduled on a different node")?;
    audience(world, write, &pod, request)
}

fn audience(world: &dyn World, write: &Write<'_>, pod: &Object, request: &Object) -> Verdict {
    let list = request.at(&["spec", "audiences"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let wanted = match list {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_array).into_iter().flatten();
    let names = |volume: &Value| {
        let sources = volume.get("projected").and_then(|projected| projected.get("sources")?.as_array());
        let mut tokens = sources.into_iter().flatten().filter_map(|source| source.get("serviceAccountToken"));
        tokens.any(|token| token.get("audience").and_then(Value::as_str).unwrap_or_default() == wanted)
            || driver_of(world, write.namespace, pod, volume).is_some_and(|driver| driver_wants(world, &driver, wanted))
    };
    let mut volumes = volumes;
    refuse(volumes.any(names), format!("audience {wanted:?} not found in pod spec volume"))
}

/// The CSI driver that mounts a volume.
fn driver_of(world: &dyn World, namespace: &str, pod: &Object, volume: &Value) -> Option<String> {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    if let Some(csi) = volume.get("csi") {
        return text(csi, "driver");
    }
    let claim = match volume.get("persistentVolumeClaim") {
        Some(source) => text(source, "claimName")?,
        None => volume.get("ephemeral").and_then(|_| Some(format!("{}-{}", pod.name(), text(volume, "name")?)))?,
    };
    let claim = world.find("", "persistentvolumeclaims", namespace, &claim)?;
    let volume = world.find("", "persistentvolumes", "", claim.str_at(&["spec", "volumeName"])?)?;
    volume.str_at(&["spec", "csi", "driver"]).map(str::to_owned)
}

fn driver_wants(world: &dyn World, driver: &str, wanted: &str) -> bool {
    let Some(driver) = world.find("storage.k8s.io", "csidrivers", "", driver) else { return false };
    let requests = driver.at(&["spec", "tokenRequests"]).and_then(Value::as_array).into_iter().flatten();
    let mut audiences = requests.map(|request| request.get("audience").and_then(Value::as_str).unwrap_or_default());
    audiences.any(|audience| audience == wanted)
}

fn lease(write: &Write<'_>, node: &str, object: &Object) -> Verdict {
    refuse(
        write.namespace == LEASE_NAMESPACE,
        format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"),
    )?;
    refuse(object.name() == node, "can only access node lease with the same name as the requesting node")
}

/// A node asks for no other node's certificate.
fn signing_request(write: &Write<'_>, node: &str, request: &Object) -> Verdict {
    let signer = request.str_at(&["spec", "signerName"]).unwrap_or_default();
    if !write.is(Operation::Create, "certificates.k8s.io", "certificatesigningrequests")
        || !NODE_SIGNERS.contains(&signer)
    {
        return Ok(());
    }
    let subject = subject(request).ok_or("unable to parse csr")?;
    refuse(
        subject.common_name == format!("system:node:{node}"),
        format!("can only create a node CSR with CN=system:node:{node}"),
    )
}

/// Whom a CertificateSigningRequest is to name.
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
}

/// Reads whom a CertificateSigningRequest is to name.
pub(super) fn subject(request: &Object) -> Option<Subject> {
    let pem = STANDARD.decode(request.str_at(&["spec", "request"])?).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let name = &parsed.certification_request_info.subject;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Some(Subject {
        common_name: text(name.iter_common_name().next().and_then(|name| name.as_str().ok())),
        organizations: name.iter_organization().map(|one| text(one.as_str().ok())).collect(),
    })
}
