//! The small kinds of the core group, and those that go with Services and nodes.

use std::{collections::HashSet, net::IpAddr};

use super::{
    cursor::{Cursor, Errors},
    meta::{self, too_long},
    resources::amount_is_not_negative,
};
use crate::{names, status::FieldError};

/// The most data of a ConfigMap or Secret.
const MAX_DATA_BYTES: usize = 1 << 20;
/// The most endpoints of a slice.
const MAX_ENDPOINTS: usize = 1000;
/// The most ports of a slice.
const MAX_SLICE_PORTS: usize = 20_000;
/// The longest affinity of a client to an endpoint: a day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// A Service.
pub(super) fn service(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let kind = spec.at("type");
    errors.one_of(&kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    let is_headless = spec.at("clusterIP").text() == "None";
    if kind.text() == "ExternalName" {
        let name = spec.at("externalName");
        let text = name.text().trim_end_matches('.');
        errors.faults(&name, names::dns_subdomain(text));
    } else if !is_headless {
        errors.require(&spec.at("ports"), "");
    }
    if is_headless && matches!(kind.text(), "NodePort" | "LoadBalancer") {
        errors.invalid(&spec.down(&["clusterIPs"]), &format!("may not be set to 'None' for {} services", kind.text()));
    }
    service_ports(&spec, errors);
    meta::labels(&spec.at("selector"), errors);
    errors.one_of(&spec.at("sessionAffinity"), &["ClientIP", "None"]);
    let timeout = spec.down(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    if timeout.int().is_some_and(|seconds| !(1..=MAX_AFFINITY_SECONDS).contains(&seconds)) {
        errors.invalid(&timeout, &format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
    }
    for address in spec.at("externalIPs").entries() {
        ip(&address, errors);
    }
    errors.one_of(&spec.at("externalTrafficPolicy"), &["Cluster", "Local"]);
    errors.one_of(&spec.at("internalTrafficPolicy"), &["Cluster", "Local"]);
    if let Some(before) = old.map(|old| old.at("spec")) {
        cluster_ip_is_kept(&spec, &before, errors);
    }
}

fn cluster_ip_is_kept(spec: &Cursor<'_>, before: &Cursor<'_>, errors: &mut Errors) {
    let both_have_one = |at: &Cursor<'_>| at.at("type").text() != "ExternalName" && !at.at("clusterIP").is_empty();
    if both_have_one(spec) && both_have_one(before) && spec.at("clusterIP").value != before.at("clusterIP").value {
        let words = "may not change once set";
        errors.add(FieldError::invalid(
            format!("{}[0]", spec.at("clusterIPs").path),
            spec.at("clusterIP").json(),
            words,
        ));
    }
}

fn service_ports(spec: &Cursor<'_>, errors: &mut Errors) {
    let ports = spec.at("ports").entries();
    errors.unique(&ports, "name");
    let mut seen = HashSet::new();
    for port in &ports {
        let name = port.at("name");
        if ports.len() > 1 {
            errors.name(&name, names::dns_label);
        } else {
            errors.optional_name(&name, names::dns_label);
        }
        let number = port.at("port").int().unwrap_or_default();
        errors.faults(&port.at("port"), names::port_number(number));
        errors.one_of(&port.at("protocol"), &PROTOCOLS);
        let target = port.at("targetPort");
        match target.int() {
            Some(target_number) => errors.faults(&target, names::port_number(target_number)),
            None => errors.optional_name(&target, names::port_name),
        }
        if !seen.insert((port.at("protocol").text(), number)) {
            let value = serde_json::json!({"protocol": port.at("protocol").text(), "port": number});
            errors.add(FieldError::duplicate(port.path.as_str(), value));
        }
    }
}

/// What is said of a text that is no address.
pub(super) const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// What is said of a text that is no network.
pub(super) const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn ip(at: &Cursor<'_>, errors: &mut Errors) {
    if at.text().parse::<IpAddr>().is_err() {
        errors.invalid(at, NO_IP);
    }
}

/// A network as text: its address and how many bits of it count.
pub(super) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse::<u8>().ok().filter(|bits| *bits <= most)?;
    Some((address, bits))
}

/// A Namespace.
pub(super) fn namespace(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    for finalizer in object.down(&["spec", "finalizers"]).entries() {
        errors.faults(&finalizer, names::qualified_name(finalizer.text()));
    }
}

/// A Node.
pub(super) fn node(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let mut seen = HashSet::new();
    for taint in spec.at("taints").entries() {
        errors.name(&taint.at("key"), names::qualified_name);
        errors.optional_name(&taint.at("value"), names::label_value);
        if errors.require(&taint.at("effect"), "") {
            errors.one_of(&taint.at("effect"), &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        }
        if !seen.insert((taint.at("key").text(), taint.at("effect").text())) {
            errors.add(FieldError::duplicate(taint.path.as_str(), taint.json()));
        }
    }
    for range in spec.at("podCIDRs").entries() {
        if network(range.text()).is_none() {
            errors.invalid(&range, NO_CIDR);
        }
    }
    let Some(before) = old.map(|old| old.at("spec")) else { return };
    for field in ["podCIDR", "providerID"] {
        if !before.at(field).is_empty() && spec.at(field).value != before.at(field).value {
            errors.forbidden(
                &spec.at(field),
                "node updates may not change fields other than spec.taints, spec.unschedulable",
            );
        }
    }
}

/// Keys and size of data, and that immutable data stays.
fn data(object: &Cursor<'_>, fields: &[&str], old: Option<&Cursor<'_>>, kind: &str, errors: &mut Errors) {
    let (mut seen, mut size_bytes) = (HashSet::new(), 0);
    for field in fields {
        for (key, value) in object.at(field).pairs() {
            for fault in names::config_key(key) {
                errors.add(FieldError::invalid(value.path.as_str(), key, fault));
            }
            if !seen.insert(key) {
                let words = format!("duplicate of key present in {}", fields[0]);
                errors.add(FieldError::invalid(value.path.as_str(), key, words));
            }
            // Three bytes are four digits of base64.
            size_bytes +=
                if *field == "data" && kind == "ConfigMap" { value.text().len() } else { value.text().len() / 4 * 3 };
        }
    }
    if size_bytes > MAX_DATA_BYTES {
        let path = if kind == "ConfigMap" { String::new() } else { "data".to_owned() };
        errors.add(too_long(&path, MAX_DATA_BYTES));
    }
    let Some(old) = old.filter(|old| old.at("immutable").flag()) else { return };
    if !object.at("immutable").flag() {
        errors.forbidden(&object.at("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if object.at(field).value != old.at(field).value {
            errors.forbidden(&object.at(field), "field is immutable when `immutable` is set");
        }
    }
}

/// A ConfigMap.
pub(super) fn config_map(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    data(object, &["data", "binaryData"], old, "ConfigMap", errors);
}

/// A Secret: the keys that its type calls for are there.
pub(super) fn secret(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    data(object, &["data"], old, "Secret", errors);
    if let Some(old) = old {
        errors.immutable(&object.at("type"), &old.at("type"));
    }
    let needed: &[&str] = match object.at("type").text() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if !object.at("data").at(key).is_set() {
            errors.add(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    let account = object.at("metadata").at("annotations").at("kubernetes.io/service-account.name");
    if object.at("type").text() == "kubernetes.io/service-account-token" && account.is_empty() {
        errors.add(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
    }
}

/// A ServiceAccount has nothing but references.
pub(super) fn service_account(_object: &Cursor<'_>, _old: Option<&Cursor<'_>>, _errors: &mut Errors) {}

/// Endpoints.
pub(super) fn endpoints(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    for subset in object.at("subsets").entries() {
        if subset.at("addresses").is_empty() && subset.at("notReadyAddresses").is_empty() {
            let words = "must specify `addresses` or `notReadyAddresses`";
            errors.add(FieldError::required(subset.path.as_str(), words));
        }
        for address in ["addresses", "notReadyAddresses"].iter().flat_map(|list| subset.at(list).entries()) {
            ip(&address.at("ip"), errors);
        }
        let ports = subset.at("ports").entries();
        for port in &ports {
            if ports.len() > 1 {
                errors.name(&port.at("name"), names::dns_label);
            }
            errors.faults(&port.at("port"), names::port_number(port.at("port").int().unwrap_or_default()));
            errors.one_of(&port.at("protocol"), &PROTOCOLS);
        }
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let kind = object.at("addressType");
    if errors.require(&kind, "") {
        errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
    }
    if let Some(old) = old {
        errors.immutable(&kind, &old.at("addressType"));
    }
    let endpoints = object.at("endpoints").entries();
    for (list, max, len) in
        [("endpoints", MAX_ENDPOINTS, endpoints.len()), ("ports", MAX_SLICE_PORTS, object.at("ports").entries().len())]
    {
        if len > max {
            let path = list.to_owned();
            let detail = format!("must have at most {max} items");
            errors.add(FieldError { path, kind: crate::status::FieldErrorKind::TooMany, value: len.into(), detail });
        }
    }
    for endpoint in endpoints {
        errors.require(&endpoint.at("addresses"), "must contain at least 1 address");
        for address in endpoint.at("addresses").entries() {
            let fits = match (kind.text(), address.text().parse::<IpAddr>()) {
                ("IPv4", parsed) => parsed.is_ok_and(|address| address.is_ipv4()),
                ("IPv6", parsed) => parsed.is_ok_and(|address| address.is_ipv6()),
                _ => true,
            };
            if !fits {
                errors.invalid(&address, &format!("must be an {} address", kind.text()));
            }
        }
    }
    let ports = object.at("ports").entries();
    errors.unique(&ports, "name");
    for port in ports {
        errors.optional_name(&port.at("name"), names::dns_label);
        errors.one_of(&port.at("protocol"), &PROTOCOLS);
    }
}

/// A Lease.
pub(super) fn lease(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    errors.positive(&object.down(&["spec", "leaseDurationSeconds"]));
    errors.non_negative(&object.down(&["spec", "leaseTransitions"]));
}

/// An Event is in the namespace of what it is about.
pub(super) fn event(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let subject = if object.at("regarding").is_set() { object.at("regarding") } else { object.at("involvedObject") };
    let (own, theirs) = (object.down(&["metadata", "namespace"]), subject.at("namespace"));
    let fits = match theirs.text() {
        "" => matches!(own.text(), "" | "default" | "kube-system"),
        namespace => namespace == own.text(),
    };
    if !fits {
        errors.add(FieldError::invalid(theirs.path.as_str(), theirs.text(), "does not match event.namespace"));
    }
}

/// A ResourceQuota.
pub(super) fn resource_quota(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    for (name, amount) in object.down(&["spec", "hard"]).pairs() {
        for fault in names::qualified_name(name) {
            errors.add(FieldError::invalid(amount.path.as_str(), name, fault));
        }
        amount_is_not_negative(&amount, errors);
    }
    if let Some(old) = old {
        errors.immutable(&object.down(&["spec", "scopes"]), &old.down(&["spec", "scopes"]));
    }
}

/// A LimitRange.
pub(super) fn limit_range(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for item in object.down(&["spec", "limits"]).entries() {
        let kind = item.at("type");
        errors.name(&kind, names::qualified_name);
        if !seen.insert(kind.text()) {
            errors.add(FieldError::duplicate(kind.path.as_str(), kind.text()));
        }
        for (name, low) in item.at("min").pairs() {
            let high = item.at("max").at(name);
            if let (Some(min), Some(max)) = (super::resources::amount(&low), super::resources::amount(&high))
                && min > max
            {
                let words = format!("min value {min} is greater than max value {max}");
                errors.add(FieldError::invalid(low.path.as_str(), min.to_string(), words));
            }
        }
    }
}
