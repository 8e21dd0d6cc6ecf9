//! Where a container's environment variables come from.

use super::cursor::{Cursor, Errors};
use crate::{names, quantity::Quantity, status::FieldError};

/// The sources of one variable, as the fields that name them.
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// The fields of a pod that a variable may have.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields of a pod that a file of a volume may have.
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The resources of a container that a variable or a file may have.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// The units in which amounts of bytes may be given.
const BYTE_UNITS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Who asks for a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// An environment variable.
    Variable,
    /// A file of a volume.
    File,
}

/// The variables of a container.
pub(super) fn variables(container: &Cursor<'_>, errors: &mut Errors) {
    for variable in container.at("env").entries() {
        errors.name(&variable.at("name"), names::env_name);
        let from = variable.at("valueFrom");
        if from.is_set() {
            value_from(&from, &variable, errors);
        }
    }
    for source in container.at("envFrom").entries() {
        env_from(&source, errors);
    }
}

fn value_from(from: &Cursor<'_>, variable: &Cursor<'_>, errors: &mut Errors) {
    let field = from.at("fieldRef");
    if field.is_set() {
        field_ref(&field, Use::Variable, errors);
    }
    let resource = from.at("resourceFieldRef");
    if resource.is_set() {
        resource_ref(&resource, Use::Variable, errors);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let reference = from.at(source);
        if reference.is_set() {
            let name = reference.at("name");
            for fault in names::dns_subdomain(name.text()) {
                errors.add(FieldError::invalid(name.path.as_str(), name.text(), fault));
            }
            errors.name(&reference.at("key"), names::config_key);
        }
    }
    let count = SOURCES.iter().filter(|source| from.at(source).is_set()).count();
    let words = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !variable.at("value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.add(FieldError::invalid(from.path.as_str(), "", words));
}

/// A field of the pod, `metadata.labels['a']` included.
pub(super) fn field_ref(field: &Cursor<'_>, by: Use, errors: &mut Errors) {
    if !errors.require(&field.at("apiVersion"), "") {
        return;
    }
    let at = field.at("fieldPath");
    if !errors.require(&at, "") {
        return;
    }
    if let Some((path, subscript)) = at.text().strip_suffix("']").and_then(|text| text.split_once("['")) {
        match path {
            "metadata.annotations" => field_key(field, subscript, &subscript.to_lowercase(), errors),
            "metadata.labels" => field_key(field, subscript, subscript, errors),
            _ => errors.add(FieldError::invalid(field.path.as_str(), path, "does not support subscript")),
        }
        return;
    }
    let known: &[&str] = if by == Use::Variable { &ENV_FIELDS } else { &VOLUME_FIELDS };
    let all = ENV_FIELDS.contains(&at.text()) || VOLUME_FIELDS.contains(&at.text());
    if !all && at.text() != "spec.restartPolicy" && at.text() != "spec.schedulerName" && at.text() != "status.phase" {
        let words = format!("error converting fieldPath: field label not supported: {}", at.text());
        errors.invalid(&at, &words);
    } else if !known.contains(&at.text()) {
        errors.add(FieldError::not_supported(at.path.as_str(), at.text(), known));
    }
}

fn field_key(field: &Cursor<'_>, subscript: &str, name: &str, errors: &mut Errors) {
    for fault in names::qualified_name(name) {
        errors.add(FieldError::invalid(field.path.as_str(), subscript, fault));
    }
}

/// A resource of a container.
pub(super) fn resource_ref(reference: &Cursor<'_>, by: Use, errors: &mut Errors) {
    let (container, resource) = (reference.at("containerName"), reference.at("resource"));
    if by == Use::File && container.is_empty() {
        errors.add(FieldError::required(container.path.as_str(), ""));
    } else if errors.require(&resource, "") && !RESOURCES.contains(&resource.text()) && !is_huge(resource.text()) {
        errors.add(FieldError::not_supported(resource.path.as_str(), resource.text(), &RESOURCES));
    }
    let divisor = reference.at("divisor");
    if divisor.text().parse::<Quantity>().is_ok_and(|amount| amount.is_zero()) || divisor.is_empty() {
        return;
    }
    let (known, words): (&[&str], &str) = match resource.text().split_once('.').map(|(_, what)| what) {
        Some("cpu") => (&["1m", "1"], "only divisor's values 1m and 1 are supported with the cpu resource"),
        Some("memory") => (
            &BYTE_UNITS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             memory resource",
        ),
        Some("ephemeral-storage") => (
            &BYTE_UNITS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             local ephemeral storage resource",
        ),
        _ => return,
    };
    if !known.contains(&divisor.text()) {
        errors.add(FieldError::invalid(divisor.path.as_str(), resource.text(), words));
    }
}

fn is_huge(resource: &str) -> bool {
    ["limits.hugepages-", "requests.hugepages-"].iter().any(|front| resource.starts_with(front))
}

fn env_from(source: &Cursor<'_>, errors: &mut Errors) {
    errors.optional_name(&source.at("prefix"), names::env_name);
    let sources = [source.at("configMapRef"), source.at("secretRef")];
    for reference in sources.iter().filter(|reference| reference.is_set()) {
        errors.name(&reference.at("name"), names::dns_subdomain);
    }
    let words = match sources.iter().filter(|reference| reference.is_set()).count() {
        0 => "must specify one of: `configMapRef` or `secretRef`",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.add(FieldError::invalid(source.path.as_str(), "", words));
}
