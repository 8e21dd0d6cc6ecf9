//! Kinds that tell of the cluster itself: aggregated API servers and the ranges of Service addresses.

use std::collections::HashSet;

use super::{
    core::{NO_CIDR, network},
    cursor::{Cursor, Errors},
};
use crate::{names, status::FieldError};

/// The highest priority of an aggregated group.
const MAX_GROUP_PRIORITY: i64 = 20_000;
/// The highest priority of a version of one.
const MAX_VERSION_PRIORITY: i64 = 1_000;

/// An APIService.
pub(super) fn api_service(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let (spec, name) = (object.at("spec"), object.down(&["metadata", "name"]));
    let (group, version) = (spec.at("group"), spec.at("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    if !name.is_empty() && name.text() != wanted {
        errors.invalid(&name, "must be `spec.version+\".\"+spec.group`");
    }
    let faults = names::dns_subdomain(group.text()).join(",");
    if !group.is_empty() && !faults.is_empty() {
        errors.invalid(&group, &faults);
    }
    let faults = names::dns_1035_label(version.text()).join(",");
    if errors.require(&version, "") && !faults.is_empty() {
        errors.invalid(&version, &faults);
    }
    for (field, most) in [("groupPriorityMinimum", MAX_GROUP_PRIORITY), ("versionPriority", MAX_VERSION_PRIORITY)] {
        let at = spec.at(field);
        let value = at.int().unwrap_or_default();
        if value <= 0 || value > most {
            let words = format!("must be positive and less than {most}");
            errors.add(FieldError::invalid(at.path.as_str(), value, words));
        }
    }
    let service = spec.at("service");
    if !service.is_set() {
        if !spec.at("caBundle").is_empty() {
            let words = "local APIServices may not have a caBundle";
            errors.add(FieldError::invalid(spec.at("caBundle").path, spec.at("caBundle").json(), words));
        }
        if spec.at("insecureSkipTLSVerify").flag() {
            let words = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&spec.at("insecureSkipTLSVerify"), words);
        }
        return;
    }
    errors.require(&service.at("namespace"), "");
    errors.require(&service.at("name"), "");
    if let Some(port) = service.at("port").int() {
        errors.faults(&service.at("port"), names::port_number(port));
    }
    if spec.at("insecureSkipTLSVerify").flag() && !spec.at("caBundle").is_empty() {
        errors.invalid(&spec.at("insecureSkipTLSVerify"), "may not be true if caBundle is present");
    }
}

/// An IPAddress: whose it is does not change.
pub(super) fn ip_address(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let parent = object.down(&["spec", "parentRef"]);
    if errors.require(&parent, "") {
        if !parent.at("group").is_empty() {
            errors.faults(&parent.at("group"), names::dns_subdomain(parent.at("group").text()));
        }
        errors.name(&parent.at("resource"), names::path_segment);
        errors.name(&parent.at("name"), names::path_segment);
        errors.optional_name(&parent.at("namespace"), names::path_segment);
    }
    if let Some(old) = old {
        errors.immutable(&parent, &old.down(&["spec", "parentRef"]));
    }
}

/// A ServiceCIDR: one range, or one of each family.
pub(super) fn service_cidr(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let ranges = object.down(&["spec", "cidrs"]);
    let entries = ranges.entries();
    if !errors.require(&ranges, "at least one CIDR required") {
        return;
    }
    if entries.len() > 2 {
        errors.invalid(&ranges, "may only hold up to 2 values");
        return;
    }
    let mut families = HashSet::new();
    for range in &entries {
        match network(range.text()) {
            None => errors.invalid(range, NO_CIDR),
            Some((address, _)) => {
                families.insert(address.is_ipv4());
            }
        }
    }
    if entries.len() == 2 && families.len() == 1 {
        errors.invalid(
            &ranges,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        );
    }
    let Some(before) = old.map(|old| old.down(&["spec", "cidrs"])) else { return };
    // One family may be added to a cluster of the other.
    for (index, was) in before.entries().iter().enumerate() {
        if entries.get(index).is_none_or(|now| now.value != was.value) {
            errors.invalid(&ranges, "field is immutable");
            return;
        }
    }
}
