//! Where a pod may run: affinities, node selectors, spread over topologies.

use std::collections::HashSet;

use super::{
    cursor::{Cursor, Errors},
    meta,
    workloads::label_selector,
};
use crate::{names, status::FieldError};

/// How much a preferred term may weigh.
const WEIGHTS: std::ops::RangeInclusive<i64> = 1..=100;

/// The affinities of a pod spec.
pub(super) fn affinity(affinity: &Cursor<'_>, errors: &mut Errors) {
    let node = affinity.at("nodeAffinity");
    let required = node.at("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for term in node.at("preferredDuringSchedulingIgnoredDuringExecution").entries() {
        weight(&term, errors);
        node_term(&term.at("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.at(kind);
        for term in terms.at("requiredDuringSchedulingIgnoredDuringExecution").entries() {
            pod_term(&term, errors);
        }
        for term in terms.at("preferredDuringSchedulingIgnoredDuringExecution").entries() {
            weight(&term, errors);
            pod_term(&term.at("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Cursor<'_>, errors: &mut Errors) {
    let weight = term.at("weight");
    let value = weight.int().unwrap_or_default();
    if !WEIGHTS.contains(&value) {
        errors.add(FieldError::invalid(weight.path, value, "must be in the range 1-100"));
    }
}

/// A node selector: of a pod, a volume, a slice of devices.
pub(super) fn node_selector(selector: &Cursor<'_>, errors: &mut Errors) {
    let terms = selector.at("nodeSelectorTerms");
    errors.require(&terms, "must have at least one node selector term");
    for term in terms.entries() {
        node_term(&term, errors);
    }
}

fn node_term(term: &Cursor<'_>, errors: &mut Errors) {
    for requirement in term.at("matchExpressions").entries() {
        node_label(&requirement, errors);
    }
    for requirement in term.at("matchFields").entries() {
        node_field(&requirement, errors);
    }
}

fn node_label(requirement: &Cursor<'_>, errors: &mut Errors) {
    let (key, operator, values) = (requirement.at("key"), requirement.at("operator"), requirement.at("values"));
    let count = values.entries().len();
    match operator.text() {
        "In" | "NotIn" => {
            errors.require(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if count != 1 => {
            let words = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.add(FieldError::required(values.path.as_str(), words));
        }
        "Gt" | "Lt" => {}
        _ => errors.invalid(&operator, "not a valid selector operator"),
    }
    errors.faults(&key, names::qualified_name(key.text()));
    for value in values.entries() {
        errors.faults(&value, names::label_value(value.text()));
    }
}

fn node_field(requirement: &Cursor<'_>, errors: &mut Errors) {
    let (key, operator, values) = (requirement.at("key"), requirement.at("operator"), requirement.at("values"));
    match operator.text() {
        "In" | "NotIn" if values.entries().len() != 1 => {
            let words = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.add(FieldError::required(values.path.as_str(), words));
        }
        "In" | "NotIn" => {}
        _ => errors.invalid(&operator, "not a valid selector operator"),
    }
    if key.text() != "metadata.name" {
        errors.invalid(&key, "not a valid field selector key");
        return;
    }
    for value in values.entries() {
        errors.faults(&value, names::dns_subdomain(value.text()));
    }
}

fn pod_term(term: &Cursor<'_>, errors: &mut Errors) {
    label_selector(&term.at("labelSelector"), errors);
    label_selector(&term.at("namespaceSelector"), errors);
    for namespace in term.at("namespaces").entries() {
        for fault in names::dns_label(namespace.text()) {
            errors.add(FieldError::invalid(term.at("namespace").path, namespace.text(), fault));
        }
    }
    topology_key(&term.at("topologyKey"), errors);
}

fn topology_key(key: &Cursor<'_>, errors: &mut Errors) {
    errors.require(key, "can not be empty");
    for fault in names::qualified_name(key.text()) {
        errors.add(FieldError::invalid(key.path.as_str(), key.text(), fault));
    }
}

/// How pods are spread over topologies.
pub(super) fn spread(constraints: &Cursor<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for constraint in constraints.entries() {
        let (skew, key, action) =
            (constraint.at("maxSkew"), constraint.at("topologyKey"), constraint.at("whenUnsatisfiable"));
        let value = skew.int().unwrap_or_default();
        if value <= 0 {
            errors.add(FieldError::invalid(skew.path, value, "must be greater than zero"));
        }
        topology_key(&key, errors);
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.text()) {
            let words = ["DoNotSchedule", "ScheduleAnyway"];
            errors.add(FieldError::not_supported(action.path.as_str(), action.text(), &words));
        }
        if !seen.insert((key.text(), action.text())) {
            let path = constraint.at("{topologyKey, whenUnsatisfiable}").path;
            errors.add(FieldError::duplicate(path, format!("{{{}, {}}}", key.text(), action.text())));
        }
        min_domains(&constraint.at("minDomains"), action.text(), errors);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.one_of(&constraint.at(policy), &["Honor", "Ignore"]);
        }
        label_selector(&constraint.at("labelSelector"), errors);
    }
}

fn min_domains(domains: &Cursor<'_>, action: &str, errors: &mut Errors) {
    let Some(count) = domains.int() else { return };
    if count <= 0 {
        errors.invalid(domains, "must be greater than zero");
    }
    if action != "DoNotSchedule" {
        let words = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(domains, &words);
    }
}

/// The labels of a pod's `nodeSelector`.
pub(super) fn node_labels(labels: &Cursor<'_>, errors: &mut Errors) {
    meta::labels(labels, errors);
}
