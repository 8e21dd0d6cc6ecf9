//! What containers ask for: `resources.limits` and `resources.requests`.

use std::str::FromStr;

use super::cursor::{Cursor, Errors};
use crate::{names, quantity::Quantity, status::FieldError};

/// What a container can have, besides `hugepages-…`.
const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What else has a name without a domain.
const STANDARD: [&str; 17] = [
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether it is whole numbers of something: neither cut nor shared with others.
fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn check_name(at: &Cursor<'_>, name: &str, errors: &mut Errors) {
    let mut wrong = |detail: &str| errors.add(FieldError::invalid(at.path.as_str(), name, detail));
    let faults = names::qualified_name(name);
    faults.iter().for_each(|fault| wrong(fault));
    let of_container = OF_CONTAINERS.contains(&name) || is_huge_page(name);
    if !name.contains('/') {
        if faults.is_empty() && !of_container && !STANDARD.contains(&name) {
            wrong("must be a standard resource type or fully qualified");
        }
        if !of_container {
            wrong("must be a standard resource for containers");
        }
    } else if !name.contains("kubernetes.io/") && !is_extended(name) {
        wrong("doesn't follow extended resource name standard");
    }
}

/// An amount has a name that containers know, and is not negative.
fn check_amount(at: &Cursor<'_>, name: &str, errors: &mut Errors) {
    check_name(at, name, errors);
    amount_is_not_negative(at, errors);
    if is_extended(name) && amount(at).is_some_and(Quantity::has_fraction) {
        errors.invalid(at, "must be an integer");
    }
}

/// What a container may use: no request is above its limit.
pub(super) fn check(resources: &Cursor<'_>, errors: &mut Errors) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    for (name, limit) in limits.pairs() {
        check_amount(&limit, name, errors);
    }
    for (name, request) in requests.pairs() {
        check_amount(&request, name, errors);
        let (Some(wanted), Some(most)) = (amount(&request), amount(&limits.at(name))) else { continue };
        let whole = is_extended(name) || is_huge_page(name);
        let detail = match (wanted == most, whole) {
            (false, true) => format!("must be equal to {name} limit of {most}"),
            _ if wanted > most => format!("must be less than or equal to {name} limit of {most}"),
            _ => continue,
        };
        errors.add(FieldError::invalid(requests.path.as_str(), wanted.to_string(), detail));
    }
    let has = |wanted: &dyn Fn(&str) -> bool| {
        limits.pairs().into_iter().chain(requests.pairs()).any(|(name, _)| wanted(name))
    };
    if has(&is_huge_page) && !has(&|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(resources, "HugePages require cpu or memory");
    }
}

/// The amount, where there is one.
pub(super) fn amount(at: &Cursor<'_>) -> Option<Quantity> {
    Quantity::from_str(at.value?.as_str()?).ok()
}

/// An amount is zero or more.
pub(super) fn amount_is_not_negative(at: &Cursor<'_>, errors: &mut Errors) {
    if amount(at).is_some_and(Quantity::is_negative) {
        errors.invalid(at, "must be greater than or equal to 0");
    }
}
