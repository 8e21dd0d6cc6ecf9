//! Pods, and the pod specs of templates.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    affinity, containers,
    cursor::{Cursor, Errors},
    diff, meta, security, volumes,
};
use crate::{kinds::GroupVersionKind, names, schema::Schemas, status::FieldError};

/// What stands in the refusal of a changed pod spec.
const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                         `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                         additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set \
                         to 1 if it was previously negative)";

/// A pod.
pub(super) fn pod(pod: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = pod.at("spec");
    match old {
        None => pod_spec(&spec, errors),
        Some(old) => {
            unchanged(&spec, &old.at("spec"), errors);
            images(&spec, errors);
        }
    }
}

/// Images may change, but not to nothing.
fn images(spec: &Cursor<'_>, errors: &mut Errors) {
    for container in containers::LISTS.iter().flat_map(|list| spec.at(list).entries()) {
        let image = container.at("image");
        if errors.require(&image, "") && image.text().trim() != image.text() {
            errors.invalid(&image, "must not have leading or trailing whitespace");
        }
    }
}

/// All but a few fields of a pod's spec are fixed.
fn unchanged(now: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let (now_list, old_list) = (now.at(list), old.at(list));
        if now_list.entries().len() != old_list.entries().len() {
            errors.forbidden(&now_list, "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(&now.at("activeDeadlineSeconds"), &old.at("activeDeadlineSeconds"), errors);
    if !added_only(&now.at("tolerations"), &old.at("tolerations")) {
        errors
            .forbidden(&now.at("tolerations"), "existing toleration can not be modified except its tolerationSeconds");
    }
    let gated = !old.at("schedulingGates").is_empty();
    gates(&now.at("schedulingGates"), &old.at("schedulingGates"), errors);
    let [before, after] = [old, now].map(|spec| fixed_part(&spec.json(), &now.json(), gated));
    if before != after {
        let pod = Schemas::builtin().of_kind(&GroupVersionKind::new("", "v1", "Pod"));
        let spec = pod.and_then(|pod| pod.property("spec"));
        let changes = spec.map(|spec| diff::of(&before, &after, spec)).unwrap_or_default();
        errors.forbidden(now, &format!("{IMMUTABLE}\n{changes}"));
    }
}

fn deadline(now: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    if let (Some(before), after) = (old.int(), now.int()) {
        match after {
            None => errors.invalid(now, "must not update from a positive integer to nil value"),
            Some(value) if value > before => errors.invalid(now, "must be less than or equal to previous value"),
            Some(_) => {}
        }
    }
}

fn added_only(now: &Cursor<'_>, old: &Cursor<'_>) -> bool {
    let without_seconds = |entry: &Cursor<'_>| {
        let mut value = entry.json();
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("tolerationSeconds");
        }
        value
    };
    let now: Vec<Value> = now.entries().iter().map(without_seconds).collect();
    old.entries().iter().all(|entry| now.contains(&without_seconds(entry)))
}

/// Gates are taken away, never added.
fn gates(now: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let before = old.entries();
    for gate in now.entries() {
        if !before.iter().any(|known| known.value == gate.value) {
            let words = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.at("name").text());
            errors.forbidden(&gate, &words);
        }
    }
}

/// A spec with everything that may change taken from another.
fn fixed_part(spec: &Value, now: &Value, is_gated: bool) -> Value {
    let mut fixed = spec.clone();
    let Some(map) = fixed.as_object_mut() else { return fixed };
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        map.shift_remove(field);
    }
    // A pod that is held back from the scheduler may still be told where to go.
    if is_gated {
        map.shift_remove("nodeSelector");
        map.shift_remove("affinity");
    }
    if map.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0)
        && now.get("terminationGracePeriodSeconds") == Some(&json!(1))
    {
        map.insert("terminationGracePeriodSeconds".to_owned(), json!(1));
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.shift_remove("image");
            }
        }
    }
    fixed
}

/// The template of a workload.
pub(super) fn template(template: &Cursor<'_>, errors: &mut Errors) {
    template_with(template, &[], errors);
}

/// The template of pods that have volumes besides those that it names: the claims of a StatefulSet.
pub(super) fn template_with<'a>(template: &Cursor<'a>, claims: &[&'a str], errors: &mut Errors) {
    meta::labels(&template.down(&["metadata", "labels"]), errors);
    meta::annotations(&template.down(&["metadata", "annotations"]), errors);
    pod_spec_with(&template.at("spec"), claims, errors);
    let ephemeral = template.down(&["spec", "ephemeralContainers"]);
    if !ephemeral.is_empty() {
        errors.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

/// The spec of a pod.
pub(super) fn pod_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    pod_spec_with(spec, &[], errors);
}

fn pod_spec_with<'a>(spec: &Cursor<'a>, claims: &[&'a str], errors: &mut Errors) {
    let mut volumes = volumes::of_pod(&spec.at("volumes"), errors);
    volumes.extend(claims);
    containers::all(spec, &volumes, errors);
    if errors.require(&spec.at("restartPolicy"), "") {
        errors.one_of(&spec.at("restartPolicy"), &["Always", "OnFailure", "Never"]);
    }
    if errors.require(&spec.at("dnsPolicy"), "") {
        errors.one_of(&spec.at("dnsPolicy"), &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    }
    if spec.at("dnsPolicy").text() == "None" && spec.down(&["dnsConfig", "nameservers"]).is_empty() {
        let at = spec.down(&["dnsConfig", "nameservers"]);
        errors.add(FieldError::required(at.path, "must provide at least one DNS nameserver when `dnsPolicy` is None"));
    }
    errors.non_negative(&spec.at("terminationGracePeriodSeconds"));
    let deadline = spec.at("activeDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        errors.invalid(&deadline, "must be between 1 and 2147483647, inclusive");
    }
    for (field, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> names::Faults),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ] {
        errors.optional_name(&spec.at(field), rule);
    }
    placement(spec, errors);
    security::of_pod(spec, errors);
    addresses(spec, errors);
    host_network(spec, errors);
}

fn placement(spec: &Cursor<'_>, errors: &mut Errors) {
    affinity::node_labels(&spec.at("nodeSelector"), errors);
    affinity::affinity(&spec.at("affinity"), errors);
    for toleration in spec.at("tolerations").entries() {
        check_toleration(&toleration, errors);
    }
    affinity::spread(&spec.at("topologySpreadConstraints"), errors);
    errors.unique(&spec.at("schedulingGates").entries(), "name");
    for reference in spec.at("imagePullSecrets").entries() {
        errors.require(&reference.at("name"), "");
    }
}

fn check_toleration(toleration: &Cursor<'_>, errors: &mut Errors) {
    errors.optional_name(&toleration.at("key"), names::qualified_name);
    let operator = toleration.at("operator");
    if toleration.at("key").is_empty() && operator.text() != "Exists" {
        errors.invalid(
            &operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if operator.text() == "Exists" && !toleration.at("value").is_empty() {
        errors.invalid(&operator, "value must be empty when `operator` is 'Exists'");
    }
    errors.one_of(&operator, &["Equal", "Exists", "Gt", "Lt"]);
    errors.one_of(&toleration.at("effect"), &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    if toleration.at("tolerationSeconds").is_set() && toleration.at("effect").text() != "NoExecute" {
        errors.invalid(&toleration.at("effect"), "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
}

/// The limits of the C library's resolver: name servers, search paths, characters of all search paths.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// How names are resolved in a pod.
fn addresses(spec: &Cursor<'_>, errors: &mut Errors) {
    let is_ip = |at: &Cursor<'_>| at.text().parse::<std::net::IpAddr>().is_ok();
    for alias in spec.at("hostAliases").entries() {
        let ip = alias.at("ip");
        if !is_ip(&ip) {
            errors.add(FieldError::invalid(ip.path.as_str(), ip.text(), super::core::NO_IP));
        }
        for host in alias.at("hostnames").entries() {
            for fault in names::dns_subdomain(host.text()) {
                errors.add(FieldError::invalid(alias.at("hostnames").path, host.text(), fault));
            }
        }
    }
    let dns = spec.at("dnsConfig");
    let (servers, searches) = (dns.at("nameservers"), dns.at("searches"));
    if servers.entries().len() > MAX_NAMESERVERS {
        errors.invalid(&servers, &format!("must not have more than {MAX_NAMESERVERS} nameservers"));
    }
    for server in servers.entries().iter().filter(|server| !is_ip(server)) {
        errors.invalid(server, super::core::NO_IP);
    }
    let list = searches.entries();
    if list.len() > MAX_SEARCHES {
        errors.invalid(&searches, &format!("must not have more than {MAX_SEARCHES} search paths"));
    }
    let chars = list.iter().map(|search| search.text().len() + 1).sum::<usize>();
    if chars > MAX_SEARCH_CHARS + 1 {
        let words =
            format!("must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list");
        errors.invalid(&searches, &words);
    }
    for search in list.iter().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text()).replace('_', "-");
        errors.faults(search, names::dns_subdomain(&text));
    }
    for option in dns.at("options").entries() {
        if option.at("name").is_empty() {
            errors.add(FieldError::required(option.path.as_str(), "must not be empty"));
        }
    }
}

/// On the host's network a container's ports are the host's.
fn host_network(spec: &Cursor<'_>, errors: &mut Errors) {
    if !spec.at("hostNetwork").flag() {
        return;
    }
    for port in spec.at("containers").entries().iter().flat_map(|container| container.at("ports").entries()) {
        let (host, own) = (port.at("hostPort"), port.at("containerPort"));
        if host.int().is_some_and(|number| number != 0) && host.int() != own.int() {
            errors.invalid(&own, "must match `hostPort` when `hostNetwork` is true");
        }
    }
}

/// The names of a list's entries.
pub(super) fn names_of<'a>(entries: &[Cursor<'a>]) -> HashSet<&'a str> {
    entries.iter().map(|entry| entry.at("name").text()).collect()
}
