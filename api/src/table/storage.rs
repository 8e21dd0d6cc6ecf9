//! Storage and devices.

use serde_json::Value;

use super::{
    Printer, Row,
    format::{NONE, UNSET, field},
};

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "csidrivers" => csi_driver,
        "csinodes" => |row| vec![row.name(), row.count("spec/drivers").into(), row.age().into()],
        "storageclasses" => storage_class,
        "volumeattachments" => volume_attachment,
        "volumeattributesclasses" => attributes_class,
        "resourceclaims" => resource_claim,
        "resourceslices" => resource_slice,
        _ => return None,
    })
}

fn csi_driver(row: &Row<'_>) -> Vec<Value> {
    let attach = row.at("spec/attachRequired").and_then(Value::as_bool).unwrap_or(true);
    let modes: Vec<&str> = row.list("spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let modes = if modes.is_empty() { NONE.to_owned() } else { modes.join(",") };
    let audiences: Vec<&str> = row.list("spec/tokenRequests").iter().map(|token| field(token, "audience")).collect();
    let tokens = if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") };
    vec![
        row.name(),
        attach.into(),
        row.flag("spec/podInfoOnMount").into(),
        row.flag("spec/storageCapacity").into(),
        tokens.into(),
        row.flag("spec/requiresRepublish").into(),
        modes.into(),
        row.age().into(),
    ]
}

/// The name, marked where an annotation makes it the default.
fn marked_name(row: &Row<'_>, annotations: &[&str]) -> Value {
    let map = row.at("metadata/annotations");
    let is_default = annotations.iter().any(|name| map.is_some_and(|map| field(map, name) == "true"));
    if is_default { format!("{} (default)", row.object.name()).into() } else { row.name() }
}

fn storage_class(row: &Row<'_>) -> Vec<Value> {
    let annotations =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    vec![
        marked_name(row, &annotations),
        row.text("provisioner").into(),
        row.text_or("reclaimPolicy", "Delete").into(),
        row.text_or("volumeBindingMode", "Immediate").into(),
        row.flag("allowVolumeExpansion").into(),
        row.age().into(),
    ]
}

fn attributes_class(row: &Row<'_>) -> Vec<Value> {
    let annotations = ["volumeattributesclass.alpha.kubernetes.io/is-default-class"];
    vec![marked_name(row, &annotations), row.text("driverName").into(), row.age().into()]
}

fn volume_attachment(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.text("spec/attacher").into(),
        row.text("spec/source/persistentVolumeName").into(),
        row.text("spec/nodeName").into(),
        row.flag("status/attached").into(),
        row.age().into(),
    ]
}

fn resource_claim(row: &Row<'_>) -> Vec<Value> {
    let mut states = Vec::new();
    if row.is_deleting() {
        states.push("deleted");
    }
    if row.at("status/allocation").is_some_and(Value::is_object) {
        states.push("allocated");
    } else if states.is_empty() {
        states.push("pending");
    }
    if row.count("status/reservedFor") > 0 {
        states.push("reserved");
    }
    vec![row.name(), states.join(",").into(), row.age().into()]
}

fn resource_slice(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.text_or("spec/nodeName", UNSET).into(),
        row.text("spec/driver").into(),
        row.text("spec/pool/name").into(),
        row.age().into(),
    ]
}
