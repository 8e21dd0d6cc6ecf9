//! The metadata of all kinds, after `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use serde_json::Value;

use super::cursor::{Cursor, Errors};
use crate::{
    kinds::ResourceDef,
    names::{self, Faults},
    object::Object,
    status::{FieldError, FieldErrorKind},
};

/// The size of all annotations of an object together.
pub(super) const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// Finalizers that Kubernetes itself knows, which need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Fields that no update may change.
const IMMUTABLE: [&str; 6] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// The rule for names of a resource.
fn name_rule(def: &ResourceDef) -> fn(&str) -> Faults {
    match (def.gvk.group.as_str(), def.resource.as_str()) {
        ("", "namespaces") => names::dns_label,
        ("", "services") => names::dns_1035_label,
        ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "ipaddresses") => ip_address,
        _ => names::dns_subdomain,
    }
}

fn ip_address(text: &str) -> Faults {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == text => Vec::new(),
        _ => vec!["must be a valid IP address in canonical form, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// What is wrong with the metadata of a new object.
pub(super) fn create(def: &ResourceDef, object: &Object, errors: &mut Errors) {
    let metadata = Cursor::root(object).at("metadata");
    let rule = name_rule(def);
    let prefix = metadata.at("generateName");
    if !prefix.is_empty() {
        // What will follow the prefix makes an end of `-` good.
        let text = prefix.text();
        let whole = text
            .strip_suffix('-')
            .filter(|front| !front.is_empty())
            .map_or(text.to_owned(), |front| format!("{front}a"));
        errors.faults(&prefix, rule(&whole));
    }
    let name = metadata.at("name");
    if errors.require(&name, "name or generateName is required") {
        errors.faults(&name, rule(name.text()));
    }
    let namespace = metadata.at("namespace");
    match (def.namespaced, namespace.is_empty()) {
        (true, _) => errors.name(&namespace, names::dns_label),
        (false, false) => errors.forbidden(&namespace, "not allowed on this type"),
        (false, true) => {}
    }
    shared(&metadata, errors);
}

/// What is wrong with the metadata of a changed object.
pub(super) fn update(_def: &ResourceDef, object: &Object, old: &Object, errors: &mut Errors) {
    let (now, old) = (Cursor::root(object).at("metadata"), Cursor::root(old).at("metadata"));
    for field in IMMUTABLE {
        errors.immutable(&now.at(field), &old.at(field));
    }
    let generation = now.at("generation");
    if generation.int().unwrap_or_default() < old.at("generation").int().unwrap_or_default() {
        errors.invalid(&generation, "must not be decremented");
    }
    shared(&now, errors);
}

fn shared(metadata: &Cursor<'_>, errors: &mut Errors) {
    labels(&metadata.at("labels"), errors);
    annotations(&metadata.at("annotations"), errors);
    owners(&metadata.at("ownerReferences"), errors);
    let finalizers = metadata.at("finalizers");
    for finalizer in finalizers.entries() {
        finalizer_name(&finalizer, errors);
    }
    let has = |name: &str| finalizers.entries().iter().any(|entry| entry.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(&finalizers, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn finalizer_name(finalizer: &Cursor<'_>, errors: &mut Errors) {
    errors.faults(finalizer, names::qualified_name(finalizer.text()));
    if !finalizer.text().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.text()) {
        errors.invalid(finalizer, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// Keys and values of labels, wherever labels stand.
pub(super) fn labels(labels: &Cursor<'_>, errors: &mut Errors) {
    for (key, value) in labels.pairs() {
        for fault in names::qualified_name(key) {
            errors.add(FieldError::invalid(labels.path.as_str(), key, fault));
        }
        for fault in names::label_value(value.text()) {
            errors.add(FieldError::invalid(labels.path.as_str(), value.text(), fault));
        }
    }
}

/// Keys of annotations, and the size of all together.
pub(super) fn annotations(annotations: &Cursor<'_>, errors: &mut Errors) {
    let mut size_bytes = 0;
    for (key, value) in annotations.pairs() {
        for fault in names::qualified_name(&key.to_lowercase()) {
            errors.add(FieldError::invalid(annotations.path.as_str(), key, fault));
        }
        size_bytes += key.len() + value.text().len();
    }
    if size_bytes > MAX_ANNOTATIONS_BYTES {
        errors.add(too_long(&annotations.path, MAX_ANNOTATIONS_BYTES));
    }
}

/// A value of too many bytes.
pub(super) fn too_long(path: &str, max: usize) -> FieldError {
    let detail = format!("may not be more than {max} bytes");
    FieldError { path: path.to_owned(), kind: FieldErrorKind::TooLong, value: Value::Null, detail }
}

fn owners(owners: &Cursor<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners.entries() {
        let version = owner.at("apiVersion");
        if version.text().rsplit('/').next().unwrap_or_default().is_empty() {
            errors.invalid(&version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            let at = owner.at(field);
            if at.is_empty() {
                let value = FieldError::invalid(at.path.as_str(), at.text(), format!("{field} must not be empty"));
                errors.add(value);
            }
        }
        if (version.text(), owner.at("kind").text()) == ("v1", "Event") {
            errors.invalid(&owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.at("controller").flag() {
            let this = format!("{}/{}", owner.at("kind").text(), owner.at("name").text());
            match &controller {
                Some(other) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {other} and {this}"
                    );
                    errors.invalid(owners, &detail);
                }
                None => controller = Some(this),
            }
        }
    }
}
