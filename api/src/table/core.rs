//! The core group, but for pods; and events of both groups.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Printer, Row,
    format::{NONE, UNKNOWN, UNSET, access_modes, field, label_selector, labels, list_of, number, quantity, some_of},
    pods,
};

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "pods" => pods::pod,
        "podtemplates" => pods::pod_template,
        "componentstatuses" => component_status,
        "configmaps" => config_map,
        "endpoints" => endpoints,
        "events" => event,
        "namespaces" => |row| vec![row.name(), row.text("status/phase").into(), row.age().into()],
        "nodes" => node,
        "persistentvolumeclaims" => claim,
        "persistentvolumes" => volume,
        "replicationcontrollers" => |row| replicas(row, labels(row.at("spec/selector"))),
        "resourcequotas" => quota,
        "secrets" => secret,
        "services" => service,
        _ => return None,
    })
}

fn component_status(row: &Row<'_>) -> Vec<Value> {
    let healthy = row.list("conditions").iter().find(|condition| field(condition, "type") == "Healthy");
    let word = match healthy.map(|condition| field(condition, "status")) {
        None => "Unknown",
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
    };
    let text = |name: &str| healthy.map_or("", |condition| field(condition, name)).into();
    vec![row.name(), word.into(), text("message"), text("error")]
}

fn config_map(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), (row.count("data") + row.count("binaryData")).into(), row.age().into()]
}

fn secret(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("type").into(), row.count("data").into(), row.age().into()]
}

fn endpoints(row: &Row<'_>) -> Vec<Value> {
    let of_subset = |subset: &Value| -> Vec<String> {
        let addresses = || list_of(subset, "addresses").iter().map(|address| field(address, "ip"));
        let ports = list_of(subset, "ports");
        if ports.is_empty() {
            return addresses().map(str::to_owned).collect();
        }
        ports.iter().flat_map(|port| addresses().map(|ip| host_port(ip, number(port, "port")))).collect()
    };
    let all = row.list("subsets").iter().flat_map(of_subset);
    let empty = if row.list("subsets").is_empty() { NONE } else { "" };
    vec![row.name(), some_of(all, empty).into(), row.age().into()]
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// An event of either group: what one calls `involvedObject` the other calls `regarding`.
pub(super) fn event(row: &Row<'_>) -> Vec<Value> {
    let either = |first: &str, second: &str| {
        let text = row.text(first);
        if text.is_empty() { row.text(second) } else { text }
    };
    let time = |text: &str| row.since(Some(text).filter(|text| !text.is_empty()));
    let first = match either("firstTimestamp", "deprecatedFirstTimestamp") {
        "" => time(row.text("eventTime")),
        first => time(first),
    };
    let mut count = row.int("count").max(row.int("deprecatedCount"));
    let mut last = match either("lastTimestamp", "deprecatedLastTimestamp") {
        "" => first.clone(),
        last => time(last),
    };
    if row.at("series").is_some_and(Value::is_object) {
        last = time(row.text("series/lastObservedTime"));
        count = row.int("series/count");
    } else if count == 0 {
        count = 1;
    }
    let kind = either("involvedObject/kind", "regarding/kind").to_lowercase();
    let target = match either("involvedObject/name", "regarding/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        row.text("type").into(),
        row.text("reason").into(),
        target.into(),
        either("involvedObject/fieldPath", "regarding/fieldPath").into(),
        event_source(row).into(),
        either("message", "note").trim().into(),
        first.into(),
        count.into(),
        row.name(),
    ]
}

fn event_source(row: &Row<'_>) -> String {
    let first = |paths: [&str; 4]| paths.iter().map(|path| row.text(path)).find(|text| !text.is_empty());
    let component =
        first(["source/component", "deprecatedSource/component", "reportingComponent", "reportingController"]);
    let instance = first(["source/host", "deprecatedSource/host", "reportingInstance", "reportingInstance"]);
    match (component.unwrap_or_default(), instance) {
        (component, None) => component.to_owned(),
        (component, Some(instance)) => format!("{component}, {instance}"),
    }
}

fn node(row: &Row<'_>) -> Vec<Value> {
    let mut status = match row.condition("Ready").map(|ready| field(ready, "status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if row.flag("spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = row.list("status/addresses").iter().find(|address| field(address, "type") == kind);
        found.map_or(NONE, |address| field(address, "address")).into()
    };
    vec![
        row.name(),
        status.into(),
        roles(row).into(),
        row.age().into(),
        row.text("status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        row.text_or("status/nodeInfo/osImage", UNKNOWN).into(),
        row.text_or("status/nodeInfo/kernelVersion", UNKNOWN).into(),
        row.text_or("status/nodeInfo/containerRuntimeVersion", UNKNOWN).into(),
    ]
}

fn roles(row: &Row<'_>) -> String {
    let role = |(key, value): (&'_ str, &'_ str)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => role.to_owned(),
        None if key == "kubernetes.io/role" => value.to_owned(),
        None => String::new(),
    };
    let roles: BTreeSet<String> = row.object.labels().map(role).filter(|role| !role.is_empty()).collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

/// The storage class, in the annotation that was before the field or in the field.
fn storage_class<'a>(row: &Row<'a>) -> &'a str {
    let annotations = row.at("metadata/annotations");
    let beta = annotations.map_or("", |map| field(map, "volume.beta.kubernetes.io/storage-class"));
    if beta.is_empty() { row.text("spec/storageClassName") } else { beta }
}

fn phase<'a>(row: &Row<'a>) -> &'a str {
    if row.is_deleting() { "Terminating" } else { row.text("status/phase") }
}

fn claim(row: &Row<'_>) -> Vec<Value> {
    let is_bound = !row.text("spec/volumeName").is_empty();
    let capacity = if is_bound { row.quantity("status/capacity/storage") } else { String::new() };
    let modes = if is_bound { access_modes(row.list("status/accessModes")) } else { String::new() };
    vec![
        row.name(),
        phase(row).into(),
        row.text("spec/volumeName").into(),
        capacity.into(),
        modes.into(),
        storage_class(row).into(),
        row.text_or("spec/volumeAttributesClassName", UNSET).into(),
        row.age().into(),
        row.text_or("spec/volumeMode", UNSET).into(),
    ]
}

fn volume(row: &Row<'_>) -> Vec<Value> {
    let claim = match row.at("spec/claimRef") {
        Some(claim) if claim.is_object() => format!("{}/{}", field(claim, "namespace"), field(claim, "name")),
        _ => String::new(),
    };
    vec![
        row.name(),
        row.quantity("spec/capacity/storage").into(),
        access_modes(row.list("spec/accessModes")).into(),
        row.text("spec/persistentVolumeReclaimPolicy").into(),
        phase(row).into(),
        claim.into(),
        storage_class(row).into(),
        row.text_or("spec/volumeAttributesClassName", UNSET).into(),
        row.text("status/reason").into(),
        row.age().into(),
        row.text_or("spec/volumeMode", UNSET).into(),
    ]
}

/// Replication controllers and replica sets.
pub(super) fn replicas(row: &Row<'_>, selector: String) -> Vec<Value> {
    let [names, images] = row.containers("spec/template/spec");
    vec![
        row.name(),
        row.int("spec/replicas").into(),
        row.int("status/replicas").into(),
        row.int("status/readyReplicas").into(),
        row.age().into(),
        names,
        images,
        selector.into(),
    ]
}

pub(super) fn replica_set(row: &Row<'_>) -> Vec<Value> {
    replicas(row, label_selector(row.at("spec/selector")))
}

fn quota(row: &Row<'_>) -> Vec<Value> {
    let hard = row.at("status/hard").and_then(Value::as_object);
    let mut names: Vec<&String> = hard.into_iter().flat_map(|map| map.keys()).collect();
    names.sort();
    let amount =
        |map: &str, name: &str| row.at(map).and_then(|map| map.get(name)).map_or_else(|| "0".to_owned(), quantity);
    let show = |name: &&String| format!("{name}: {}/{}", amount("status/used", name), amount("status/hard", name));
    let (limits, requests): (Vec<&String>, Vec<&String>) =
        names.into_iter().partition(|name| name.starts_with("limits"));
    let join = |names: &[&String]| names.iter().map(show).collect::<Vec<_>>().join(", ");
    vec![row.name(), join(&requests).into(), join(&limits).into(), row.age().into()]
}

fn service(row: &Row<'_>) -> Vec<Value> {
    let cluster_ip = row.list("spec/clusterIPs").first().and_then(Value::as_str);
    let port = |port: &Value| {
        let (number_, protocol) = (number(port, "port"), field(port, "protocol"));
        match number(port, "nodePort") {
            0 => format!("{number_}/{protocol}"),
            node_port => format!("{number_}:{node_port}/{protocol}"),
        }
    };
    let ports: Vec<String> = row.list("spec/ports").iter().map(port).collect();
    let ports = if ports.is_empty() { NONE.to_owned() } else { ports.join(",") };
    vec![
        row.name(),
        row.text("spec/type").into(),
        cluster_ip.map_or_else(|| row.text_or("spec/clusterIP", NONE), str::to_owned).into(),
        external_ip(row).into(),
        ports.into(),
        row.age().into(),
        labels(row.at("spec/selector")).into(),
    ]
}

fn external_ip(row: &Row<'_>) -> String {
    let own = row.list("spec/externalIPs").iter().filter_map(Value::as_str).map(str::to_owned);
    let or = |list: Vec<String>, empty: &str| if list.is_empty() { empty.to_owned() } else { list.join(",") };
    match row.text("spec/type") {
        "ClusterIP" | "NodePort" => or(own.collect(), NONE),
        "LoadBalancer" => or(load_balancer(row).into_iter().chain(own).collect(), "<pending>"),
        "ExternalName" => row.text("spec/externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// The addresses of a load balancer, sorted.
pub(super) fn load_balancer(row: &Row<'_>) -> BTreeSet<String> {
    let address = |ingress: &Value| match field(ingress, "ip") {
        "" => field(ingress, "hostname").to_owned(),
        ip => ip.to_owned(),
    };
    row.list("status/loadBalancer/ingress").iter().map(address).filter(|address| !address.is_empty()).collect()
}
