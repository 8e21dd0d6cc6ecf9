//! Volumes of pods, PersistentVolumes and claims.

use std::collections::HashSet;

use super::{
    affinity,
    containers::inner_path,
    cursor::{Cursor, Errors},
    environment::{Use, field_ref, resource_ref},
    pods,
    resources::amount,
};
use crate::{names, status::FieldError};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Fields of a PersistentVolume's spec that are no source.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The volumes of a pod. Returns their names.
pub(super) fn of_pod<'a>(volumes: &Cursor<'a>, errors: &mut Errors) -> HashSet<&'a str> {
    let entries = volumes.entries();
    errors.unique(&entries, "name");
    for volume in &entries {
        errors.name(&volume.at("name"), names::dns_label);
        source(volume, errors);
    }
    pods::names_of(&entries)
}

fn source(volume: &Cursor<'_>, errors: &mut Errors) {
    let fields = volume.value.and_then(|value| value.as_object());
    let given: Vec<&String> =
        fields.into_iter().flatten().map(|(name, _)| name).filter(|name| *name != "name").collect();
    match given[..] {
        [] => errors.add(FieldError::required(volume.path.as_str(), "must specify a volume type")),
        [_] => {}
        [_, second, ..] => errors.forbidden(&volume.at(second), "may not specify more than 1 volume type"),
    }
    for (kind, field) in [
        ("secret", "secretName"),
        ("configMap", "name"),
        ("hostPath", "path"),
        ("persistentVolumeClaim", "claimName"),
        ("nfs", "server"),
        ("nfs", "path"),
        ("csi", "driver"),
    ] {
        if volume.at(kind).is_set() {
            errors.require(&volume.down(&[kind, field]), "");
        }
    }
    for kind in ["secret", "configMap", "downwardAPI"] {
        files(&volume.at(kind), kind == "downwardAPI", errors);
    }
    for projected in volume.down(&["projected", "sources"]).entries() {
        for kind in ["secret", "configMap", "downwardAPI"] {
            files(&projected.at(kind), kind == "downwardAPI", errors);
        }
        let token = projected.at("serviceAccountToken");
        if token.is_set() {
            errors.require(&token.at("path"), "");
            if token.at("expirationSeconds").int().is_some_and(|seconds| seconds < 600) {
                errors.invalid(&token.at("expirationSeconds"), "may not specify a duration less than 10 minutes");
            }
        }
    }
    let path = volume.down(&["hostPath", "path"]);
    if path.text().split('/').any(|part| part == "..") {
        errors.invalid(&path, "must not contain '..'");
    }
}

fn files(source: &Cursor<'_>, is_downward: bool, errors: &mut Errors) {
    let mode = |at: &Cursor<'_>, errors: &mut Errors| {
        if at.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
            errors.invalid(at, "must be a number between 0 and 0777 (octal), both inclusive");
        }
    };
    mode(&source.at("defaultMode"), errors);
    for item in source.at("items").entries() {
        mode(&item.at("mode"), errors);
        if errors.require(&item.at("path"), "") {
            inner_path(&item.at("path"), errors);
        }
        match is_downward {
            true => downward(&item, errors),
            false => drop(errors.require(&item.at("key"), "")),
        }
    }
}

/// A file that tells of the pod itself.
fn downward(item: &Cursor<'_>, errors: &mut Errors) {
    let (field, resource) = (item.at("fieldRef"), item.at("resourceFieldRef"));
    if field.is_set() {
        field_ref(&field, Use::File, errors);
        if resource.is_set() {
            errors.invalid(item, "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if resource.is_set() {
        resource_ref(&resource, Use::File, errors);
    } else {
        errors.add(FieldError::required(item.at("fieldRef").path, "one of fieldRef and resourceFieldRef is required"));
    }
}

fn access_modes(modes: &Cursor<'_>, errors: &mut Errors) {
    errors.require(modes, "at least 1 access mode is required");
    for mode in modes.entries() {
        errors.one_of(&mode, &ACCESS_MODES);
    }
}

/// A PersistentVolume.
pub(super) fn persistent_volume(volume: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = volume.at("spec");
    access_modes(&spec.at("accessModes"), errors);
    if errors.require(&spec.at("capacity"), "") && !spec.down(&["capacity", "storage"]).is_set() {
        errors.add(FieldError::not_supported(spec.at("capacity").path, spec.at("capacity").json(), &["storage"]));
    }
    let is_source = |name: &&str| !NO_SOURCE.contains(name);
    let fields = spec.value.and_then(|value| value.as_object());
    let sources: Vec<&str> = fields.into_iter().flatten().map(|(name, _)| name.as_str()).filter(is_source).collect();
    match sources[..] {
        [] => errors.add(FieldError::required(spec.path.as_str(), "must specify a volume type")),
        [_] => {}
        [_, second, ..] => errors.forbidden(&spec.at(second), "may not specify more than 1 volume type"),
    }
    errors.one_of(&spec.at("persistentVolumeReclaimPolicy"), &["Delete", "Recycle", "Retain"]);
    errors.optional_name(&spec.at("storageClassName"), names::dns_subdomain);
    errors.one_of(&spec.at("volumeMode"), &["Block", "Filesystem"]);
    let required = spec.down(&["nodeAffinity", "required"]);
    if required.is_set() {
        affinity::node_selector(&required, errors);
    } else if spec.at("nodeAffinity").is_set() {
        errors.add(FieldError::required(required.path.as_str(), "must specify required node constraints"));
    }
    if spec.at("local").is_set() {
        errors.require(&spec.down(&["local", "path"]), "");
        if !required.is_set() {
            errors.add(FieldError::required(spec.at("nodeAffinity").path, "Local volume requires node affinity"));
        }
    }
    let amount_of_storage = spec.down(&["capacity", "storage"]);
    if amount(&amount_of_storage).is_some_and(|size| size.is_negative() || size.is_zero()) {
        errors.invalid(&amount_of_storage, "must be greater than zero");
    }
    if let Some(before) = old.map(|old| old.at("spec")) {
        for name in sources {
            if spec.at(name).value != before.at(name).value {
                errors.forbidden(
                    &volume.at("spec").at("persistentvolumesource"),
                    "spec.persistentvolumesource is immutable after creation",
                );
                break;
            }
        }
        errors.immutable(&spec.at("volumeMode"), &before.at("volumeMode"));
    }
}

/// A claim.
pub(super) fn persistent_volume_claim(claim: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = claim.at("spec");
    claim_spec(&spec, errors);
    let Some(before) = old.map(|old| old.at("spec")) else { return };
    let words =
        "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    for field in ["accessModes", "selector", "dataSource", "dataSourceRef", "volumeMode"] {
        if spec.at(field).value != before.at(field).value {
            errors.forbidden(&spec, words);
            return;
        }
    }
    let class_was_set = before.at("storageClassName").is_set();
    let bound_before = !before.at("volumeName").is_empty();
    if (class_was_set && spec.at("storageClassName").value != before.at("storageClassName").value)
        || (bound_before && spec.at("volumeName").value != before.at("volumeName").value)
    {
        errors.forbidden(&spec, words);
    }
    let size = ["resources", "requests", "storage"];
    if let (Some(now), Some(was)) = (amount(&spec.down(&size)), amount(&before.down(&size)))
        && now < was
    {
        errors.forbidden(&spec.down(&size), "field can not be less than status.capacity");
    }
}

/// What is asked of a claim, in a claim and in a template of claims.
pub(super) fn claim_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    access_modes(&spec.at("accessModes"), errors);
    let size = spec.down(&["resources", "requests", "storage"]);
    if !size.is_set() {
        errors.add(FieldError::required(format!("{}.resources[storage]", spec.path), ""));
    } else if amount(&size).is_some_and(|size| size.is_negative() || size.is_zero()) {
        errors.invalid(&size, "must be greater than zero");
    }
    errors.optional_name(&spec.at("storageClassName"), names::dns_subdomain);
    errors.one_of(&spec.at("volumeMode"), &["Block", "Filesystem"]);
}
