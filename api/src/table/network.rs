//! Networks: ingresses, endpoint slices, policies, address ranges.

use serde_json::Value;

use super::{
    Printer, Row, core,
    format::{NONE, UNSET, field, label_selector, list_of, some_of},
};

/// How many hosts of an ingress are listed.
const HOSTS_LISTED: usize = 3;

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "endpointslices" => endpoint_slice,
        "ingresses" => ingress,
        "ingressclasses" => ingress_class,
        "ipaddresses" => ip_address,
        "networkpolicies" => network_policy,
        "servicecidrs" => service_cidr,
        _ => return None,
    })
}

fn endpoint_slice(row: &Row<'_>) -> Vec<Value> {
    let port = |port: &Value| port.get("port").and_then(Value::as_i64).map_or("*".to_owned(), |n| n.to_string());
    let addresses = row.list("endpoints").iter().flat_map(|endpoint| list_of(endpoint, "addresses"));
    let addresses = addresses.filter_map(Value::as_str).map(str::to_owned);
    vec![
        row.name(),
        row.text("addressType").into(),
        some_of(row.list("ports").iter().map(port), UNSET).into(),
        some_of(addresses, UNSET).into(),
        row.age().into(),
    ]
}

fn ingress(row: &Row<'_>) -> Vec<Value> {
    let addresses: Vec<String> = core::load_balancer(row).into_iter().collect();
    let ports = if row.list("spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        row.name(),
        row.text_or("spec/ingressClassName", NONE).into(),
        hosts(row).into(),
        addresses.join(",").into(),
        ports.into(),
        row.age().into(),
    ]
}

fn hosts(row: &Row<'_>) -> String {
    let rules = row.list("spec/rules");
    let named = || rules.iter().map(|rule| field(rule, "host")).filter(|host| !host.is_empty());
    let first: Vec<&str> = named().take(HOSTS_LISTED).collect();
    // Kubernetes counts the rules that follow, whether they name a host or not.
    let is_full = first.len() == HOSTS_LISTED;
    let at = rules.iter().position(|rule| is_full && Some(&field(rule, "host")) == first.last());
    match (first.is_empty(), at) {
        (true, _) => "*".to_owned(),
        (_, Some(at)) if rules.len() > at + 1 => {
            format!("{} + {} more...", first.join(","), rules.len() - HOSTS_LISTED)
        }
        _ => first.join(","),
    }
}

fn ingress_class(row: &Row<'_>) -> Vec<Value> {
    let parameters = match row.at("spec/parameters") {
        Some(parameters) if parameters.is_object() => {
            let group = field(parameters, "apiGroup");
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", field(parameters, "kind"), field(parameters, "name"))
        }
        _ => NONE.to_owned(),
    };
    vec![row.name(), row.text("spec/controller").into(), parameters.into(), row.age().into()]
}

fn ip_address(row: &Row<'_>) -> Vec<Value> {
    let part = |name: &str| row.text(&format!("spec/parentRef/{name}"));
    let mut parent = part("resource").to_owned();
    if !part("group").is_empty() {
        parent = format!("{parent}.{}", part("group"));
    }
    for name in ["namespace", "name"] {
        if !part(name).is_empty() {
            parent = format!("{parent}/{}", part(name));
        }
    }
    vec![row.name(), if parent.is_empty() { NONE.into() } else { parent.into() }]
}

fn network_policy(row: &Row<'_>) -> Vec<Value> {
    // An absent selector is an empty one here: it selects every pod.
    let selector = row.at("spec/podSelector").map_or_else(|| NONE.to_owned(), |s| label_selector(Some(s)));
    vec![row.name(), selector.into(), row.age().into()]
}

fn service_cidr(row: &Row<'_>) -> Vec<Value> {
    let cidrs: Vec<&str> = row.list("spec/cidrs").iter().filter_map(Value::as_str).collect();
    vec![row.name(), cidrs.join(",").into(), row.age().into()]
}
