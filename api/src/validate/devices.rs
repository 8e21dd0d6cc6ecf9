//! Devices that are given to pods (DRA). Source: `pkg/apis/resource/validation`. Expressions are compiled by whoever
//! runs them.

use std::collections::HashSet;

use super::{
    affinity::node_selector,
    cursor::{Cursor, Errors},
    meta::{self, too_long},
    storage::driver_name,
};
use crate::{
    names,
    status::{FieldError, FieldErrorKind},
};

/// Limits of the kinds (`staging/src/k8s.io/api/resource/v1/types.go`).
const MAX_REQUESTS: usize = 32;
const MAX_SUB_REQUESTS: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_DEVICES: usize = 128;
const MAX_ATTRIBUTES: usize = 32;
const MAX_EXPRESSION_BYTES: usize = 10 << 10;
const MAX_PARAMETERS_BYTES: usize = 10 << 10;
const MAX_POOL_CHARS: usize = 253;

fn at_most(list: &Cursor<'_>, most: usize, errors: &mut Errors) {
    let count = list.entries().len();
    if count > most {
        errors.add(FieldError {
            path: list.path.clone(),
            kind: FieldErrorKind::TooMany,
            value: count.into(),
            detail: format!("must have at most {most} items"),
        });
    }
}

/// A ResourceClaim.
pub(super) fn claim(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    if let Some(old) = old {
        if spec.value != old.at("spec").value {
            errors.invalid(&spec, "field is immutable");
        }
        claim_status(&object.at("status"), errors);
    }
    claim_spec(&spec, errors);
}

fn claim_status(status: &Cursor<'_>, errors: &mut Errors) {
    let reserved = status.at("reservedFor");
    errors.unique(&reserved.entries(), "uid");
    for consumer in reserved.entries() {
        for field in ["resource", "name", "uid"] {
            errors.require(&consumer.at(field), "");
        }
    }
    if !reserved.is_empty() && !status.at("allocation").is_set() {
        errors.forbidden(&reserved, "may not be specified when `allocated` is not set");
    }
}

/// A ResourceClaimTemplate.
pub(super) fn claim_template(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    if let Some(old) = old
        && spec.value != old.at("spec").value
    {
        errors.invalid(&spec, "field is immutable");
    }
    meta::labels(&spec.down(&["metadata", "labels"]), errors);
    meta::annotations(&spec.down(&["metadata", "annotations"]), errors);
    claim_spec(&spec.at("spec"), errors);
}

fn claim_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    let devices = spec.at("devices");
    let requests = devices.at("requests");
    at_most(&requests, MAX_REQUESTS, errors);
    let mut names_of_requests = HashSet::new();
    for request in requests.entries() {
        let name = request.at("name").text();
        names_of_requests.insert(name.to_owned());
        for sub in request.at("firstAvailable").entries() {
            names_of_requests.insert(format!("{name}/{}", sub.at("name").text()));
        }
        check_request(&request, errors);
    }
    errors.unique(&requests.entries(), "name");
    at_most(&devices.at("constraints"), MAX_CONSTRAINTS, errors);
    for constraint in devices.at("constraints").entries() {
        references(&constraint.at("requests"), &names_of_requests, errors);
        if !constraint.at("distinctAttribute").is_set() {
            qualified(&constraint.at("matchAttribute"), errors);
        }
    }
    at_most(&devices.at("config"), MAX_CONFIGS, errors);
    for config in devices.at("config").entries() {
        references(&config.at("requests"), &names_of_requests, errors);
        configuration(&config, errors);
    }
}

fn check_request(request: &Cursor<'_>, errors: &mut Errors) {
    errors.name(&request.at("name"), names::dns_label);
    let (exactly, first) = (request.at("exactly"), request.at("firstAvailable"));
    match (exactly.is_set(), first.is_empty()) {
        (false, true) => {
            let words = "exactly one of `exactly` or `firstAvailable` is required";
            errors.add(FieldError::required(request.path.as_str(), words));
        }
        (true, false) => {
            let words = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.add(FieldError::invalid(request.path.as_str(), serde_json::Value::Null, words));
        }
        (true, true) => wanted(&exactly, errors),
        (false, false) => {
            at_most(&first, MAX_SUB_REQUESTS, errors);
            for sub in first.entries() {
                errors.name(&sub.at("name"), names::dns_label);
                wanted(&sub, errors);
            }
            errors.unique(&first.entries(), "name");
        }
    }
}

/// Which devices are wanted, and how many.
fn wanted(at: &Cursor<'_>, errors: &mut Errors) {
    errors.name(&at.at("deviceClassName"), names::dns_subdomain);
    selectors(&at.at("selectors"), errors);
    let (mode, count) = (at.at("allocationMode"), at.at("count"));
    let number = count.int().unwrap_or_default();
    match mode.text() {
        "All" if number != 0 => errors.invalid(&count, "must not be specified when allocationMode is 'All'"),
        "All" => {}
        "ExactCount" if number <= 0 => {
            errors.add(FieldError::invalid(count.path.as_str(), number, "must be greater than zero"));
        }
        "ExactCount" => {}
        other => errors.add(FieldError::not_supported(mode.path.as_str(), other, &["All", "ExactCount"])),
    }
    for toleration in at.at("tolerations").entries() {
        errors.optional_name(&toleration.at("key"), names::qualified_name);
        let operator = toleration.at("operator");
        if errors.require(&operator, "") {
            errors.one_of(&operator, &["Equal", "Exists"]);
        }
        if toleration.at("key").is_empty() && operator.text() != "Exists" {
            let words = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&operator, words);
        }
        errors.one_of(&toleration.at("effect"), &["NoExecute", "NoSchedule", "None"]);
    }
}

fn selectors(selectors: &Cursor<'_>, errors: &mut Errors) {
    at_most(selectors, MAX_SELECTORS, errors);
    for selector in selectors.entries() {
        let cel = selector.at("cel");
        let expression = cel.at("expression");
        if errors.require(&cel, "") && expression.text().len() > MAX_EXPRESSION_BYTES {
            errors.add(too_long(&expression.path, MAX_EXPRESSION_BYTES));
        }
    }
}

fn references(list: &Cursor<'_>, known: &HashSet<String>, errors: &mut Errors) {
    const WORDS: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let mut seen = HashSet::new();
    for name in list.entries() {
        for part in name.text().split('/') {
            for fault in names::dns_label(part) {
                errors.add(FieldError::invalid(name.path.as_str(), part, fault));
            }
        }
        if !known.contains(name.text()) {
            errors.invalid(&name, WORDS);
        }
        if !seen.insert(name.text()) {
            errors.add(FieldError::duplicate(name.path.as_str(), name.text()));
        }
    }
}

fn configuration(config: &Cursor<'_>, errors: &mut Errors) {
    let opaque = config.at("opaque");
    if !opaque.is_set() {
        errors.add(FieldError::required(opaque.path.as_str(), ""));
        return;
    }
    driver_name(&opaque.at("driver"), errors);
    let parameters = opaque.at("parameters");
    match parameters.value {
        None => errors.add(FieldError::required(parameters.path.as_str(), "")),
        Some(value) if !value.is_object() => errors.invalid(&parameters, "parameters must be a valid JSON object"),
        Some(value) if value.to_string().len() > MAX_PARAMETERS_BYTES => {
            errors.add(too_long(&parameters.path, MAX_PARAMETERS_BYTES));
        }
        Some(_) => {}
    }
}

/// `domain/identifier`.
fn qualified(at: &Cursor<'_>, errors: &mut Errors) {
    if !errors.require(at, "") {
        return;
    }
    match at.text().split_once('/') {
        Some((domain, id)) if !domain.is_empty() && !id.is_empty() => {
            errors.faults(at, names::dns_subdomain(domain));
        }
        _ => errors.invalid(at, "must include a domain"),
    }
}

/// A DeviceClass.
pub(super) fn class(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    selectors(&spec.at("selectors"), errors);
    at_most(&spec.at("config"), MAX_CONFIGS, errors);
    for config in spec.at("config").entries() {
        configuration(&config, errors);
    }
}

/// A ResourceSlice: the devices of a pool.
pub(super) fn slice(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    driver_name(&spec.at("driver"), errors);
    pool(&spec.at("pool"), errors);
    if let Some(before) = old.map(|old| old.at("spec")) {
        errors.immutable(&spec.down(&["pool", "name"]), &before.down(&["pool", "name"]));
        errors.immutable(&spec.at("driver"), &before.at("driver"));
        errors.immutable(&spec.at("nodeName"), &before.at("nodeName"));
    }
    places(&spec, errors);
    let devices = spec.at("devices");
    at_most(&devices, MAX_DEVICES, errors);
    for device in devices.entries() {
        errors.name(&device.at("name"), names::dns_label);
        let count = device.at("attributes").pairs().len() + device.at("capacity").pairs().len();
        if count > MAX_ATTRIBUTES {
            let words = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
            errors.add(FieldError::invalid(device.path.as_str(), count, words));
        }
        for (_, attribute) in device.at("attributes").pairs() {
            one_value(&attribute, errors);
        }
    }
    errors.unique(&devices.entries(), "name");
}

fn pool(pool: &Cursor<'_>, errors: &mut Errors) {
    let name = pool.at("name");
    if errors.require(&name, "") {
        if name.text().len() > MAX_POOL_CHARS {
            errors.add(too_long(&name.path, MAX_POOL_CHARS));
        }
        for part in name.text().split('/') {
            for fault in names::dns_subdomain(part) {
                errors.add(FieldError::invalid(name.path.as_str(), part, fault));
            }
        }
    }
    let count = pool.at("resourceSliceCount");
    if count.int().unwrap_or_default() <= 0 {
        errors.add(FieldError::invalid(
            count.path.as_str(),
            count.int().unwrap_or_default(),
            "must be greater than zero",
        ));
    }
    if pool.at("generation").int().is_some_and(|generation| generation < 0) {
        errors.invalid(&pool.at("generation"), "must be greater than or equal to zero");
    }
}

/// Where the devices of a slice are: told in exactly one way.
fn places(spec: &Cursor<'_>, errors: &mut Errors) {
    let mut ways = Vec::new();
    if !spec.at("nodeName").is_empty() {
        ways.push("`nodeName`");
        errors.faults(&spec.at("nodeName"), names::dns_subdomain(spec.at("nodeName").text()));
    }
    let selector = spec.at("nodeSelector");
    if selector.is_set() {
        ways.push("`nodeSelector`");
        node_selector(&selector, errors);
        if selector.at("nodeSelectorTerms").entries().len() != 1 {
            errors.invalid(&selector.at("nodeSelectorTerms"), "must have exactly one node selector term");
        }
    }
    if spec.at("allNodes").flag() {
        ways.push("`allNodes`");
    }
    if spec.at("perDeviceNodeSelection").flag() {
        ways.push("`perDeviceNodeSelection`");
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match ways.len() {
        0 if spec.at("sharedCounters").is_empty() => {
            errors.add(FieldError::required(spec.path.as_str(), ONE));
        }
        0 | 1 => {}
        _ => {
            let value = format!("{{{}}}", ways.join(", "));
            errors.add(FieldError::invalid(spec.path.as_str(), value, format!("{ONE}, but multiple fields are set")));
        }
    }
}

fn one_value(attribute: &Cursor<'_>, errors: &mut Errors) {
    let count = ["bool", "int", "string", "version"].iter().filter(|kind| attribute.at(kind).is_set()).count();
    match count {
        0 => errors.add(FieldError::required(attribute.path.as_str(), "exactly one value must be specified")),
        1 => {}
        _ => errors.invalid(attribute, "exactly one value must be specified"),
    }
}
