//! Kinds that set rules for others: RBAC, network, disruption, scaling, classes.

use super::{
    core::{NO_CIDR, network},
    cursor::{Cursor, Errors},
    storage,
    workloads::{int_or_percent, label_selector},
};
use crate::{names, status::FieldError};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The highest priority that a user may give a class.
const MAX_USER_PRIORITY: i64 = 1_000_000_000;
/// The shortest life of a certificate that may be asked for.
const MIN_CERTIFICATE_SECONDS: i64 = 600;

/// A Role or ClusterRole.
pub(super) fn role(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let is_namespaced = !object.down(&["metadata", "namespace"]).is_empty();
    for rule in object.at("rules").entries() {
        errors.require(&rule.at("verbs"), "verbs must contain at least one value");
        let urls = rule.at("nonResourceURLs");
        if !urls.is_empty() {
            if is_namespaced {
                errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            let mixed = ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.at(field).is_empty());
            if mixed {
                errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        errors.require(&rule.at("apiGroups"), "resource rules must supply at least one api group");
        errors.require(&rule.at("resources"), "resource rules must supply at least one resource");
    }
    for selector in object.down(&["aggregationRule", "clusterRoleSelectors"]).entries() {
        label_selector(&selector, errors);
    }
}

/// A RoleBinding or ClusterRoleBinding.
pub(super) fn role_binding(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let role = object.at("roleRef");
    errors.one_of(&role.at("apiGroup"), &[RBAC]);
    let is_namespaced = !object.down(&["metadata", "namespace"]).is_empty();
    let kinds: &[&str] = if is_namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if role.at("kind").is_empty() {
        errors.add(FieldError::not_supported(role.at("kind").path, "", kinds));
    }
    errors.one_of(&role.at("kind"), kinds);
    errors.name(&role.at("name"), names::path_segment);
    for subject in object.at("subjects").entries() {
        subject_of(&subject, is_namespaced, errors);
    }
    if let Some(old) = old
        && role.value != old.at("roleRef").value
    {
        errors.invalid(&role, "cannot change roleRef");
    }
}

fn subject_of(subject: &Cursor<'_>, is_namespaced: bool, errors: &mut Errors) {
    errors.require(&subject.at("name"), "");
    let group = subject.at("apiGroup");
    match subject.at("kind").text() {
        "ServiceAccount" => {
            errors.optional_name(&subject.at("name"), names::dns_subdomain);
            if !group.is_empty() {
                errors.add(FieldError::not_supported(group.path.as_str(), group.json(), &[""]));
            }
            if !is_namespaced {
                errors.require(&subject.at("namespace"), "");
            }
        }
        "User" | "Group" => errors.one_of(&group, &[RBAC]),
        _ => {
            let kind = subject.at("kind");
            errors.add(FieldError::not_supported(
                kind.path.as_str(),
                kind.text(),
                &["ServiceAccount", "User", "Group"],
            ));
        }
    }
}

/// A HorizontalPodAutoscaler of either version.
pub(super) fn scaler(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let (min, max) = (spec.at("minReplicas"), spec.at("maxReplicas"));
    if min.int().is_some_and(|count| count < 1) {
        errors.invalid(&min, "must be greater than or equal to 1");
    }
    if max.int().unwrap_or_default() < 1 {
        errors.add(FieldError::invalid(max.path.as_str(), max.int().unwrap_or_default(), "must be greater than 0"));
    }
    if min.int().is_some_and(|count| count > max.int().unwrap_or_default()) {
        errors.invalid(&max, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.at("scaleTargetRef");
    errors.name(&target.at("kind"), names::path_segment);
    errors.name(&target.at("name"), names::path_segment);
    for metric in spec.at("metrics").entries() {
        if errors.require(&metric.at("type"), "must specify a metric source type") {
            errors.one_of(&metric.at("type"), &["ContainerResource", "External", "Object", "Pods", "Resource"]);
        }
    }
}

/// A PodDisruptionBudget.
pub(super) fn disruption_budget(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let (min, max) = (spec.at("minAvailable"), spec.at("maxUnavailable"));
    if min.is_set() && max.is_set() {
        errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for at in [&min, &max] {
        int_or_percent(at, errors);
        super::workloads::not_above_100_percent(at, errors);
    }
    label_selector(&spec.at("selector"), errors);
    errors.one_of(&spec.at("unhealthyPodEvictionPolicy"), &["AlwaysAllow", "IfHealthyBudget"]);
}

/// An Ingress.
pub(super) fn ingress(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let default = spec.at("defaultBackend");
    if spec.at("rules").is_empty() && !default.is_set() {
        errors.invalid(&spec, "either `defaultBackend` or `rules` must be specified");
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for rule in spec.at("rules").entries() {
        let host = rule.at("host");
        let text = host.text().strip_prefix("*.").unwrap_or(host.text());
        if !host.is_empty() {
            errors.faults(&host, names::dns_subdomain(text));
        }
        let http = rule.at("http");
        if http.is_set() {
            errors.require(&http.at("paths"), "");
        }
        for path in http.at("paths").entries() {
            ingress_path(&path, errors);
        }
    }
    errors.optional_name(&spec.at("ingressClassName"), names::dns_subdomain);
}

fn ingress_path(path: &Cursor<'_>, errors: &mut Errors) {
    let kind = path.at("pathType");
    if errors.require(&kind, "pathType must be specified") {
        errors.one_of(&kind, &["Exact", "ImplementationSpecific", "Prefix"]);
    }
    let text = path.at("path");
    if matches!(kind.text(), "Exact" | "Prefix") && !text.text().starts_with('/') {
        errors.invalid(&text, "must be an absolute path");
    }
    for bad in ["//", "/./", "/../", "%2f", "%2F"] {
        if matches!(kind.text(), "Exact" | "Prefix") && text.text().contains(bad) {
            errors.invalid(&text, &format!("must not contain '{bad}'"));
        }
    }
    backend(&path.at("backend"), errors);
}

fn backend(backend: &Cursor<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.at("service"), backend.at("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => errors.invalid(backend, "cannot set both resource and service backends"),
        (false, false) => {
            errors.add(FieldError::required(backend.path.as_str(), "must specify a service or resource backend"));
        }
        (true, false) => {
            errors.name(&service.at("name"), names::dns_1035_label);
            let (name, number) = (service.down(&["port", "name"]), service.down(&["port", "number"]));
            let number_value = number.int().unwrap_or_default();
            match (name.is_empty(), number_value == 0) {
                (true, true) => {
                    errors.add(FieldError::required(service.path.as_str(), "port name or number is required"));
                }
                (false, false) => errors.invalid(&service, "cannot set both port name & port number"),
                (true, false) => errors.faults(&number, names::port_number(number_value)),
                (false, true) => errors.faults(&name, names::port_name(name.text())),
            }
        }
        (false, true) => errors.name(&resource.at("name"), names::path_segment),
    }
}

/// An IngressClass keeps its controller.
pub(super) fn ingress_class(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let controller = object.down(&["spec", "controller"]);
    match old {
        Some(old) => errors.immutable(&controller, &old.down(&["spec", "controller"])),
        None => drop(errors.require(&controller, "")),
    }
}

/// A NetworkPolicy.
pub(super) fn network_policy(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    label_selector(&spec.at("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.at(rules).entries() {
            for port in rule.at("ports").entries() {
                policy_port(&port, errors);
            }
            for peer in rule.at(peers).entries() {
                policy_peer(&peer, errors);
            }
        }
    }
    for kind in spec.at("policyTypes").entries() {
        errors.one_of(&kind, &["Egress", "Ingress"]);
    }
}

fn policy_port(port: &Cursor<'_>, errors: &mut Errors) {
    errors.one_of(&port.at("protocol"), &["SCTP", "TCP", "UDP"]);
    let (number, end) = (port.at("port"), port.at("endPort"));
    match number.int() {
        Some(value) => {
            errors.faults(&number, names::port_number(value));
            if end.int().is_some_and(|end| end < value) {
                errors.invalid(&end, "must be greater than or equal to `port`");
            }
        }
        None if end.is_set() && number.is_empty() => {
            errors.add(FieldError::required(number.path.as_str(), "must be specified when endPort is specified"));
        }
        None => errors.optional_name(&number, names::port_name),
    }
}

fn policy_peer(peer: &Cursor<'_>, errors: &mut Errors) {
    let block = peer.at("ipBlock");
    let selectors = [peer.at("podSelector"), peer.at("namespaceSelector")];
    for selector in &selectors {
        label_selector(selector, errors);
    }
    let selects = selectors.iter().any(Cursor::is_set);
    match (block.is_set(), selects) {
        (false, false) => errors.add(FieldError::required(peer.path.as_str(), "must specify a peer")),
        (true, true) => errors.forbidden(peer, "may not specify both ipBlock and another peer"),
        (true, false) => ip_block(&block, errors),
        (false, true) => {}
    }
}

fn ip_block(block: &Cursor<'_>, errors: &mut Errors) {
    let cidr = block.at("cidr");
    if !errors.require(&cidr, "") {
        return;
    }
    let Some((address, bits)) = network(cidr.text()) else {
        errors.invalid(&cidr, NO_CIDR);
        return;
    };
    for except in block.at("except").entries() {
        match network(except.text()) {
            None => errors.invalid(&except, NO_CIDR),
            Some((inner, inner_bits)) if inner_bits <= bits || !contains(address, bits, inner) => {
                errors.invalid(&except, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

/// Whether a network has an address.
fn contains(network: std::net::IpAddr, bits: u8, address: std::net::IpAddr) -> bool {
    let (a, b, width) = match (network, address) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128_u8),
        _ => return false,
    };
    let shift = u32::from(width - bits.min(width));
    a.checked_shr(shift).unwrap_or_default() == b.checked_shr(shift).unwrap_or_default()
}

/// A RuntimeClass keeps its handler.
pub(super) fn runtime_class(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let handler = object.at("handler");
    errors.faults(&handler, names::dns_label(handler.text()));
    if let Some(old) = old {
        errors.immutable(&handler, &old.at("handler"));
    }
}

/// A PriorityClass keeps its value.
pub(super) fn priority_class(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let value = object.at("value");
    let name = object.down(&["metadata", "name"]);
    let is_system = matches!(name.text(), "system-cluster-critical" | "system-node-critical");
    if name.text().starts_with("system-") && !is_system {
        errors.forbidden(&name, "priority class names with 'system-' prefix are reserved for system use only");
    }
    if !is_system && value.int().is_some_and(|value| value > MAX_USER_PRIORITY) {
        errors.forbidden(&value, &format!("maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}"));
    }
    errors.one_of(&object.at("preemptionPolicy"), &["Never", "PreemptLowerPriority"]);
    if let Some(old) = old {
        if value.int().unwrap_or_default() != old.at("value").int().unwrap_or_default() {
            errors.forbidden(&value, "may not be changed in an update.");
        }
        errors.immutable(&object.at("preemptionPolicy"), &old.at("preemptionPolicy"));
    }
}

/// A StorageClass keeps all but its labels and topologies.
pub(super) fn storage_class(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let provisioner = object.at("provisioner");
    if errors.require(&provisioner, "") {
        errors.faults(&provisioner, names::qualified_name(&provisioner.text().to_lowercase()));
    }
    storage::parameters(&object.at("parameters"), errors);
    storage::topologies(&object.at("allowedTopologies"), errors);
    errors.one_of(&object.at("reclaimPolicy"), &["Delete", "Retain"]);
    errors.one_of(&object.at("volumeBindingMode"), &["Immediate", "WaitForFirstConsumer"]);
    let Some(old) = old else { return };
    for (field, words) in [
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ] {
        if object.at(field).value != old.at(field).value {
            errors.forbidden(&object.at(field), words);
        }
    }
    errors.immutable(&object.at("volumeBindingMode"), &old.at("volumeBindingMode"));
}

/// A CertificateSigningRequest keeps its spec.
pub(super) fn signing_request(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    errors.require(&spec.at("request"), "");
    errors.require(&spec.at("usages"), "");
    let signer = spec.at("signerName");
    if errors.require(&signer, "") && !signer.text().contains('/') {
        errors.invalid(&signer, "must be a fully qualified domain and path of the form \"example.com/signer-name\"");
    }
    let life = spec.at("expirationSeconds");
    if life.int().is_some_and(|seconds| seconds < MIN_CERTIFICATE_SECONDS) {
        errors.invalid(&life, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    if let Some(old) = old {
        errors.immutable(&spec, &old.at("spec"));
    }
}
