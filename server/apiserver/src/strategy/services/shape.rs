//! Which fields a Service has by its type, and what an update carries over from the version before.
//!
//! Source: the API documentation of `v1` `ServiceSpec`.

use serde_json::{Value, json};
use skiff_api::{object::Object, status::FieldError};

/// The address of a Service that has none.
const HEADLESS: &str = "None";

/// The one family that the cluster has.
const IPV4: &str = "IPv4";

fn kind(service: &Object) -> &str {
    service.str_at(&["spec", "type"]).unwrap_or("ClusterIP")
}

fn is_headless(service: &Object) -> bool {
    all_addresses(service).next() == Some(HEADLESS)
}

fn all_addresses(service: &Object) -> impl Iterator<Item = &str> {
    let list = service.at(&["spec", "clusterIPs"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn remove_spec(service: &mut Object, fields: &[&str]) {
    for field in fields {
        service.remove_at(&["spec", field]);
    }
}

/// The addresses of a Service that has some.
pub(super) fn addresses(service: &Object) -> impl Iterator<Item = &str> {
    all_addresses(service).filter(|address| *address != HEADLESS)
}

/// The node ports of a Service, that of the health check included.
pub(super) fn node_ports(service: &Object) -> impl Iterator<Item = u32> {
    let ports = service.at(&["spec", "ports"]).and_then(Value::as_array);
    let own = ports.into_iter().flatten().filter_map(|port| port.get("nodePort")?.as_u64());
    let check = service.at(&["spec", "healthCheckNodePort"]).and_then(Value::as_u64);
    own.chain(check).filter_map(|port| u32::try_from(port).ok()).filter(|port| *port != 0)
}

/// Whether a Service of this type has an address.
fn type_has_address(service: &Object) -> bool {
    kind(service) != "ExternalName"
}

/// Whether a Service has an address, given or to be given.
pub(super) fn wants_address(service: &Object) -> bool {
    type_has_address(service) && !is_headless(service)
}

/// Whether a Service's ports are node ports too.
pub(super) fn wants_node_ports(service: &Object) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether a load balancer asks each node for endpoints of the Service.
pub(super) fn wants_health_check(service: &Object) -> bool {
    kind(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == Some("Local")
}

/// Sets a Service's only address.
pub(super) fn set_address(service: &mut Object, address: &str) {
    service.set_at(&["spec", "clusterIP"], address);
    service.set_at(&["spec", "clusterIPs"], json!([address]));
}

/// Makes `clusterIP` and `clusterIPs` say the same, and takes away what the type does not have.
pub(super) fn normalize(service: &mut Object) {
    if !type_has_address(service) {
        remove_spec(service, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
        return;
    }
    let one = service.str_at(&["spec", "clusterIP"]).filter(|ip| !ip.is_empty()).map(str::to_owned);
    let first = all_addresses(service).next().map(str::to_owned);
    match (one, first) {
        (Some(ip), None) => service.set_at(&["spec", "clusterIPs"], json!([ip])),
        (None, Some(ip)) => service.set_at(&["spec", "clusterIP"], ip),
        (None, None) => remove_spec(service, &["clusterIP", "clusterIPs"]),
        (Some(_), Some(_)) => {}
    }
}

/// Sets the address families, and says what is wrong with those that were asked for on a cluster that has one.
pub(super) fn families(service: &mut Object) -> Vec<FieldError> {
    if !type_has_address(service) {
        return Vec::new();
    }
    let selectorless =
        service.at(&["spec", "selector"]).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
    if is_headless(service) && selectorless {
        set_headless_families(service);
        return Vec::new();
    }
    let policy = service.str_at(&["spec", "ipFamilyPolicy"]).unwrap_or("SingleStack").to_owned();
    let asked = service.at(&["spec", "ipFamilies"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut errors = Vec::new();
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy.as_str(), why));
    }
    for (at, family) in asked.iter().enumerate().filter(|(_, family)| *family != IPV4) {
        let path = format!("spec.ipFamilies[{at}]");
        errors.push(FieldError::invalid(path, family.clone(), "not configured on this cluster"));
    }
    service.set_at(&["spec", "ipFamilyPolicy"], policy);
    if asked.is_empty() {
        service.set_at(&["spec", "ipFamilies"], json!([IPV4]));
    }
    errors
}

/// A headless Service without selector may have addresses of both families, whatever the cluster has.
fn set_headless_families(service: &mut Object) {
    if service.str_at(&["spec", "ipFamilyPolicy"]).is_none() {
        service.set_at(&["spec", "ipFamilyPolicy"], "RequireDualStack");
    }
    let mut families = service.at(&["spec", "ipFamilies"]).and_then(Value::as_array).cloned().unwrap_or_default();
    if families.is_empty() {
        families.push(json!(IPV4));
    }
    if families.len() == 1 && service.str_at(&["spec", "ipFamilyPolicy"]) != Some("SingleStack") {
        let other = if families[0] == IPV4 { "IPv6" } else { IPV4 };
        families.push(json!(other));
    }
    service.set_at(&["spec", "ipFamilies"], families);
}

/// An update that does not name its address or node ports keeps those it had.
pub(super) fn carry_over(service: &mut Object, old: &Object) {
    if type_has_address(service) && type_has_address(old) {
        let named = |object: &Object, field: &str| {
            object.at(&["spec", field]).is_some_and(|value| *value != json!("") && *value != json!([]))
        };
        if !named(service, "clusterIP") && !named(service, "clusterIPs") {
            for field in ["clusterIP", "clusterIPs"] {
                if let Some(value) = old.at(&["spec", field]) {
                    service.set_at(&["spec", field], value.clone());
                }
            }
        } else if service.at(&["spec", "clusterIP"]) != old.at(&["spec", "clusterIP"])
            && service.at(&["spec", "clusterIPs"]) == old.at(&["spec", "clusterIPs"])
        {
            // A client that knows only the single field has changed it: the list follows.
            service.remove_at(&["spec", "clusterIPs"]);
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if let (None, Some(value)) = (service.at(&["spec", field]), old.at(&["spec", field])) {
                service.set_at(&["spec", field], value.clone());
            }
        }
    }
    if wants_node_ports(service) && wants_node_ports(old) {
        carry_node_ports(service, old);
    }
    if wants_health_check(service)
        && wants_health_check(old)
        && service.int_at(&["spec", "healthCheckNodePort"]).is_none()
    {
        if let Some(port) = old.int_at(&["spec", "healthCheckNodePort"]) {
            service.set_at(&["spec", "healthCheckNodePort"], port);
        }
    }
}

/// A port without a number keeps the number that the same port and protocol had.
fn carry_node_ports(service: &mut Object, old: &Object) {
    let mut ports = service.at(&["spec", "ports"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = old.at(&["spec", "ports"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let used: Vec<u64> = ports.iter().filter_map(|port| port.get("nodePort")?.as_u64()).collect();
    let same = |a: &Value, b: &Value| a.get("port") == b.get("port") && protocol(a) == protocol(b);
    for port in &mut ports {
        let number = |port: &Value| port.get("nodePort").and_then(Value::as_u64).filter(|n| *n != 0);
        if number(port).is_some() {
            continue;
        }
        if let Some(kept) = before.iter().find(|b| same(port, b)).and_then(number).filter(|n| !used.contains(n)) {
            port["nodePort"] = kept.into();
        }
    }
    service.set_at(&["spec", "ports"], ports);
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

/// Whether traffic from outside of the cluster reaches a Service of this type.
fn is_external(service: &Object) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
        || service.at(&["spec", "externalIPs"]).and_then(Value::as_array).is_some_and(|ips| !ips.is_empty())
}

/// Takes away what went with the old type and was sent back unchanged.
pub(super) fn drop_type_dependent(service: &mut Object, old: &Object) {
    let unchanged = |service: &Object, field: &str| service.at(&["spec", field]) == old.at(&["spec", field]);
    if wants_node_ports(old) && !wants_node_ports(service) {
        drop_node_ports(service, old);
    }
    if wants_health_check(old) && !wants_health_check(service) && unchanged(service, "healthCheckNodePort") {
        remove_spec(service, &["healthCheckNodePort"]);
    }
    if is_external(old) && !is_external(service) && unchanged(service, "externalTrafficPolicy") {
        remove_spec(service, &["externalTrafficPolicy"]);
    }
    if kind(old) == "LoadBalancer" && kind(service) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerIP"] {
            if unchanged(service, field) {
                remove_spec(service, &[field]);
            }
        }
    }
}

/// Takes away the node ports that were sent back unchanged.
fn drop_node_ports(service: &mut Object, old: &Object) {
    let before: Vec<u32> = node_ports(old).collect();
    let Some(mut ports) = service.at(&["spec", "ports"]).and_then(Value::as_array).cloned() else { return };
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        let number = port.get("nodePort").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        if number.is_some_and(|number| before.contains(&number)) {
            port.shift_remove("nodePort");
        }
    }
    service.set_at(&["spec", "ports"], ports);
}

/// A Service keeps its address for as long as its type has one.
pub(super) fn check_address_kept(service: &Object, old: &Object) -> Option<FieldError> {
    let both = type_has_address(service) && type_has_address(old);
    let had = all_addresses(old).next();
    if !both || had.is_none() || all_addresses(service).next() == had {
        return None;
    }
    let value = service.at(&["spec", "clusterIPs"]).cloned().unwrap_or_default();
    Some(FieldError::invalid("spec.clusterIPs[0]", value, "may not change once set"))
}
