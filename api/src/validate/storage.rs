//! Kinds of the storage group: drivers, attachments, capacities, classes.

use std::collections::HashSet;

use super::{
    cursor::{Cursor, Errors},
    meta::too_long,
    resources::amount_is_not_negative,
};
use crate::{names, status::FieldError};

/// The longest name of a driver.
const MAX_DRIVER_CHARS: usize = 63;
/// The longest id that a driver gives a node.
const MAX_NODE_ID_BYTES: usize = 256;
/// How many parameters a class may have, and how many bytes all together.
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_BYTES: usize = 256 << 10;
/// The shortest time between two reads of a node's capacity.
const MIN_REFRESH_SECONDS: i64 = 10;

/// The name of a driver: a DNS subdomain in mixed case.
pub(super) fn driver_name(name: &Cursor<'_>, errors: &mut Errors) {
    if !errors.require(name, "") {
        return;
    }
    if name.text().len() > MAX_DRIVER_CHARS {
        errors.add(too_long(&name.path, MAX_DRIVER_CHARS));
    }
    errors.faults(name, names::dns_subdomain(&name.text().to_lowercase()));
}

/// A CSIDriver.
pub(super) fn driver(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let name = object.down(&["metadata", "name"]);
    if name.text().len() > MAX_DRIVER_CHARS {
        errors.add(too_long(&name.path, MAX_DRIVER_CHARS));
    }
    let spec = object.at("spec");
    errors.require(&spec.at("attachRequired"), "");
    errors.require(&spec.at("podInfoOnMount"), "");
    errors.require(&spec.at("storageCapacity"), "");
    errors.one_of(&spec.at("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"]);
    for mode in spec.at("volumeLifecycleModes").entries() {
        errors.one_of(&mode, &["Ephemeral", "Persistent"]);
    }
    let mut audiences = HashSet::new();
    for request in spec.at("tokenRequests").entries() {
        let (audience, life) = (request.at("audience"), request.at("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            errors.add(FieldError::duplicate(audience.path.as_str(), audience.text()));
        }
        if life.int().is_some_and(|seconds| seconds < 600) {
            errors.invalid(&life, "may not specify a duration less than 10 minutes");
        }
        if life.int().is_some_and(|seconds| seconds > 1 << 32) {
            errors.invalid(&life, "may not specify a duration larger than 2^32 seconds");
        }
    }
    let refresh = spec.at("nodeAllocatableUpdatePeriodSeconds");
    if refresh.int().is_some_and(|seconds| seconds < MIN_REFRESH_SECONDS) {
        errors.invalid(&refresh, "must be greater than or equal to 10 seconds");
    }
    if let Some(before) = old.map(|old| old.at("spec")) {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            errors.immutable(&spec.at(field), &before.at(field));
        }
    }
}

/// A CSINode: the drivers of a node.
pub(super) fn node(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let drivers = object.down(&["spec", "drivers"]);
    let mut seen = HashSet::new();
    for driver in drivers.entries() {
        driver_name(&driver.at("name"), errors);
        let id = driver.at("nodeID");
        if errors.require(&id, "") && id.text().len() > MAX_NODE_ID_BYTES {
            errors.invalid(&id, &format!("must be {MAX_NODE_ID_BYTES} characters or less"));
        }
        let count = driver.down(&["allocatable", "count"]);
        errors.non_negative(&count);
        if !seen.insert(driver.at("name").text()) {
            errors.add(FieldError::duplicate(driver.at("name").path, driver.at("name").text()));
        }
        let mut keys = HashSet::new();
        for key in driver.at("topologyKeys").entries() {
            if !keys.insert(key.text()) {
                errors.add(FieldError::duplicate(key.path.as_str(), key.text()));
            }
            errors.faults(&key, names::qualified_name(key.text()));
        }
    }
    let Some(old) = old else { return };
    for before in old.down(&["spec", "drivers"]).entries() {
        let same = drivers.entries().into_iter().find(|driver| driver.at("name").text() == before.at("name").text());
        for field in ["nodeID", "topologyKeys"] {
            if let Some(driver) = &same {
                errors.immutable(&driver.at(field), &before.at(field));
            }
        }
    }
}

/// A CSIStorageCapacity.
pub(super) fn capacity(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let class = object.at("storageClassName");
    if errors.require(&class, "") {
        errors.faults(&class, names::dns_subdomain(class.text()));
    }
    super::workloads::label_selector(&object.at("nodeTopology"), errors);
    for field in ["capacity", "maximumVolumeSize"] {
        amount_is_not_negative(&object.at(field), errors);
    }
    if let Some(old) = old {
        for field in ["nodeTopology", "storageClassName"] {
            errors.immutable(&object.at(field), &old.at(field));
        }
    }
}

/// A VolumeAttachment: fixed but for its status.
pub(super) fn attachment(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    driver_name(&spec.at("attacher"), errors);
    errors.require(&spec.at("nodeName"), "");
    let source = spec.at("source");
    let (inline, name) = (source.at("inlineVolumeSpec"), source.at("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => {
            let words = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.add(FieldError::required(source.path.as_str(), words));
        }
        (true, true) => {
            let words = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.forbidden(&source, words);
        }
        (false, true) => errors.faults(&name, names::dns_subdomain(name.text())),
        (true, false) => {}
    }
    if let Some(old) = old
        && spec.value != old.at("spec").value
    {
        errors.invalid(&spec, "field is immutable");
    }
}

/// A VolumeAttributesClass keeps what it is.
pub(super) fn attributes_class(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    driver_name(&object.at("driverName"), errors);
    if !object.at("parameters").is_set() {
        errors.add(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
    parameters(&object.at("parameters"), errors);
    if let Some(old) = old {
        for field in ["driverName", "parameters"] {
            if object.at(field).value != old.at(field).value {
                errors.invalid(&object.at(field), "field is immutable");
            }
        }
    }
}

/// The parameters of a class.
pub(super) fn parameters(parameters: &Cursor<'_>, errors: &mut Errors) {
    let pairs = parameters.pairs();
    if pairs.len() > MAX_PARAMETERS {
        errors.add(too_long(&parameters.path, MAX_PARAMETERS));
        return;
    }
    for (key, _) in pairs.iter().filter(|(key, _)| key.is_empty()) {
        errors.add(FieldError::invalid(parameters.path.as_str(), *key, "field can not be empty."));
    }
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.text().len()).sum();
    if bytes > MAX_PARAMETERS_BYTES {
        errors.add(too_long(&parameters.path, MAX_PARAMETERS_BYTES));
    }
}

/// The topologies that a class allows.
pub(super) fn topologies(terms: &Cursor<'_>, errors: &mut Errors) {
    for term in terms.entries() {
        let mut keys = HashSet::new();
        for expression in term.at("matchLabelExpressions").entries() {
            let (key, values) = (expression.at("key"), expression.at("values"));
            if !keys.insert(key.text()) {
                errors.add(FieldError::duplicate(key.path.as_str(), key.text()));
            }
            errors.require(&values, "");
            let mut seen = HashSet::new();
            for value in values.entries().iter().filter(|value| !seen.insert(value.text())) {
                errors.add(FieldError::duplicate(value.path.as_str(), value.text()));
            }
            errors.faults(&key, names::qualified_name(key.text()));
        }
    }
}
