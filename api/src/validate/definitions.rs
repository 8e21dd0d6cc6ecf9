//! CustomResourceDefinitions. Source: `apiextensions-apiserver/pkg/apis/apiextensions/validation`. Rules in CEL are
//! compiled by whoever runs them.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    admission::{client, mixed_case, review_versions},
    cursor::{Cursor, Errors},
};
use crate::{names, status::FieldError};

/// How many fields of a version may be selected by.
const MAX_SELECTABLE_FIELDS: usize = 8;
/// The longest warning of a deprecated version.
const MAX_WARNING_CHARS: usize = 256;
/// How deep a schema is looked into.
const MAX_SCHEMA_DEPTH: usize = 64;
/// The annotation without which nobody defines kinds in Kubernetes' own groups.
const APPROVED: &str = "api-approved.kubernetes.io";

/// A CustomResourceDefinition.
pub(super) fn definition(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    name(object, &spec, old.is_some(), errors);
    group(&spec.at("group"), errors);
    if errors.require(&spec.at("scope"), "") {
        errors.one_of(&spec.at("scope"), &["Cluster", "Namespaced"]);
    }
    versions(&spec, errors);
    own_names(&spec.at("names"), errors);
    conversion(&spec.at("conversion"), errors);
    if spec.at("preserveUnknownFields").flag()
        && old.is_none_or(|old| !old.down(&["spec", "preserveUnknownFields"]).flag())
    {
        let words =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&spec.at("preserveUnknownFields"), words);
    }
    approval(object, &spec, old, errors);
    let Some(old) = old else { return };
    let before = old.at("spec");
    stored_versions(object, &spec, errors);
    if is_established(old) {
        errors.immutable(&spec.at("scope"), &before.at("scope"));
        errors.immutable(&spec.down(&["names", "kind"]), &before.down(&["names", "kind"]));
    }
    errors.immutable(&spec.at("group"), &before.at("group"));
    errors.immutable(&spec.down(&["names", "plural"]), &before.down(&["names", "plural"]));
}

fn name(object: &Cursor<'_>, spec: &Cursor<'_>, is_update: bool, errors: &mut Errors) {
    let name = object.down(&["metadata", "name"]);
    let wanted = format!("{}.{}", spec.down(&["names", "plural"]).text(), spec.at("group").text());
    if !is_update && !name.is_empty() && name.text() != wanted {
        errors.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
    }
}

fn group(group: &Cursor<'_>, errors: &mut Errors) {
    if !errors.require(group, "") {
        return;
    }
    let faults = names::dns_subdomain(group.text()).join(",");
    if !faults.is_empty() {
        errors.invalid(group, &faults);
    } else if !group.text().contains('.') {
        errors.invalid(group, "should be a domain with at least one dot");
    }
}

fn is_established(object: &Cursor<'_>) -> bool {
    let conditions = object.down(&["status", "conditions"]).entries();
    conditions.iter().any(|c| c.at("type").text() == "Established" && c.at("status").text() == "True")
}

fn versions(spec: &Cursor<'_>, errors: &mut Errors) {
    let list = spec.at("versions");
    let entries = list.entries();
    let mut seen = HashSet::new();
    for version in &entries {
        let schema = version.down(&["schema", "openAPIV3Schema"]);
        if !schema.is_set() {
            errors.add(FieldError::required(schema.path.as_str(), ""));
        }
    }
    for version in &entries {
        let faults = names::dns_1035_label(version.at("name").text()).join(",");
        if !faults.is_empty() {
            let at = version.at("name");
            errors.add(FieldError::invalid(at.path.as_str(), at.text(), faults));
        }
        deprecation(version, errors);
        selectable_fields(&version.at("selectableFields"), errors);
    }
    shared_or_each(
        spec,
        &entries,
        ["schema", "openAPIV3Schema"],
        "validation.openAPIV3Schema",
        errors,
        |at, errors| {
            let status = entries.iter().any(|version| version.down(&["subresources", "status"]).is_set());
            root_schema(at, status, errors);
        },
    );
    shared_or_each(spec, &entries, ["subresources", "scale"], "subresources.scale", errors, scale);
    shared_or_each(
        spec,
        &entries,
        ["additionalPrinterColumns", ""],
        "additionalPrinterColumns",
        errors,
        |at, errors| {
            for column in at.entries() {
                printer_column(&column, errors);
            }
        },
    );
    if !entries.iter().all(|version| seen.insert(version.at("name").text())) {
        errors.invalid(&list, "must contain unique version names");
    }
    if entries.iter().filter(|version| version.at("storage").flag()).count() != 1 {
        errors.invalid(&list, "must have exactly one version marked as storage version");
    }
}

/// Checks what versions have: once, under the path of the form without versions, where all have the same (as the
/// original does, which keeps it there), else in each.
fn shared_or_each(
    spec: &Cursor<'_>,
    versions: &[Cursor<'_>],
    field: [&str; 2],
    shared: &str,
    errors: &mut Errors,
    check: impl Fn(&Cursor<'_>, &mut Errors),
) {
    let path: Vec<&str> = field.into_iter().filter(|name| !name.is_empty()).collect();
    let all: Vec<Cursor<'_>> = versions.iter().map(|version| version.down(&path)).collect();
    let Some(first) = all.first().filter(|first| all.iter().all(|other| other.is_set() && other.value == first.value))
    else {
        all.iter().filter(|at| at.is_set()).for_each(|at| check(at, errors));
        return;
    };
    check(&first.clone().under(format!("{}.{shared}", spec.path)), errors);
}

fn scale(scale: &Cursor<'_>, errors: &mut Errors) {
    replica_path(&scale.at("specReplicasPath"), ".spec.", true, errors);
    replica_path(&scale.at("statusReplicasPath"), ".status.", true, errors);
    replica_path(&scale.at("labelSelectorPath"), "", false, errors);
}

fn selectable_fields(fields: &Cursor<'_>, errors: &mut Errors) {
    if fields.entries().len() > MAX_SELECTABLE_FIELDS {
        errors.add(FieldError {
            path: fields.path.clone(),
            kind: crate::status::FieldErrorKind::TooMany,
            value: fields.entries().len().into(),
            detail: format!("must have at most {MAX_SELECTABLE_FIELDS} items"),
        });
    }
    for field in fields.entries() {
        errors.require(&field.at("jsonPath"), "");
    }
}

fn deprecation(version: &Cursor<'_>, errors: &mut Errors) {
    let warning = version.at("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    let text = warning.text();
    if !version.at("deprecated").flag() {
        errors.invalid(&warning, "can only be set for deprecated versions");
        return;
    }
    if text.len() > MAX_WARNING_CHARS {
        errors.invalid(&warning, "must be <= 256 characters long");
    }
    if text.is_empty() {
        errors.invalid(&warning, "must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, character)| character.is_control()) {
        let words =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.invalid(&warning, &words);
    }
}

/// The path of a number of replicas within an object, as simple JSON paths are.
fn replica_path(path: &Cursor<'_>, under: &str, is_required: bool, errors: &mut Errors) {
    if path.is_empty() {
        if is_required {
            errors.add(FieldError::required(path.path.as_str(), ""));
        }
        return;
    }
    let text = path.text();
    let is_simple = text.starts_with('.') && !text.contains("[") && !text.contains("..") && text.len() > 1;
    if !is_simple {
        errors.invalid(path, "must be a simple json path without array notation");
    } else if !under.is_empty() && !text.starts_with(under) {
        errors.invalid(path, &format!("should be a json path under {}", under.trim_end_matches('.')));
    } else if under.is_empty() && !text.starts_with(".spec.") && !text.starts_with(".status.") {
        errors.invalid(path, "should be a json path under either .spec or .status");
    }
}

fn printer_column(column: &Cursor<'_>, errors: &mut Errors) {
    errors.require(&column.at("name"), "");
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 10] =
        ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password", "uuid"];
    let (kind, format, path) = (column.at("type"), column.at("format"), column.at("jsonPath"));
    if errors.require(&kind, "must be one of boolean,date,integer,number,string") && !TYPES.contains(&kind.text()) {
        errors.invalid(&kind, "must be one of boolean,date,integer,number,string");
    }
    if !format.is_empty() && !FORMATS.contains(&format.text()) {
        let words = "must be one of binary,byte,date,date-time,double,float,int32,int64,password";
        errors.invalid(&format, words);
    }
    if errors.require(&path, "") && !path.text().starts_with('.') && !path.text().starts_with('{') {
        errors.invalid(&path, "must be a simple json path: a field path with a leading dot");
    }
}

fn own_names(names_at: &Cursor<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        errors.require(&names_at.at(field), "");
    }
    for field in ["plural", "singular"] {
        let at = names_at.at(field);
        let faults = names::dns_1035_label(at.text()).join(",");
        if !at.is_empty() && !faults.is_empty() {
            errors.invalid(&at, &faults);
        }
    }
    for field in ["kind", "listKind"] {
        let at = names_at.at(field);
        if !at.is_empty() {
            mixed_case(&at, errors);
        }
    }
    for list in ["shortNames", "categories"] {
        for name in names_at.at(list).entries() {
            let faults = names::dns_1035_label(name.text()).join(",");
            if !faults.is_empty() {
                errors.invalid(&name, &faults);
            }
        }
    }
    let (kind, list) = (names_at.at("kind"), names_at.at("listKind"));
    if !kind.is_empty() && kind.text() == list.text() {
        errors.invalid(&list, "kind and listKind may not be the same");
    }
}

fn conversion(conversion: &Cursor<'_>, errors: &mut Errors) {
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.at("strategy");
    if errors.require(&strategy, "") {
        errors.one_of(&strategy, &["None", "Webhook"]);
    }
    // The paths are those of the form without versions, which is the one that the original validates.
    let webhook = conversion.at("webhook");
    let under = |field: &str, path: &str| webhook.at(field).under(conversion.at(path).path);
    let config = under("clientConfig", "webhookClientConfig");
    let reviews = under("conversionReviewVersions", "conversionReviewVersions");
    if strategy.text() != "Webhook" {
        for at in [&config, &reviews].into_iter().filter(|at| at.is_set()) {
            errors.forbidden(at, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    match config.is_set() {
        true => client(&config, errors),
        false => errors.add(FieldError::required(config.path.as_str(), "required when strategy is set to Webhook")),
    }
    review_versions(&reviews, "", errors);
}

fn stored_versions(object: &Cursor<'_>, spec: &Cursor<'_>, errors: &mut Errors) {
    let stored = object.down(&["status", "storedVersions"]);
    let entries = stored.entries();
    if entries.is_empty() {
        return;
    }
    let versions = spec.at("versions").entries();
    for version in &versions {
        let name = version.at("name").text();
        if version.at("storage").flag() && !entries.iter().any(|known| known.text() == name) {
            errors.invalid(&stored, &format!("must have the storage version {name}"));
        }
    }
    for known in entries {
        let name = known.text();
        if !versions.iter().any(|version| version.at("name").text() == name) {
            let words = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.invalid(&known, &words);
        }
    }
}

/// Kinds in Kubernetes' own groups need its approval.
fn approval(object: &Cursor<'_>, spec: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let group = spec.at("group").text();
    let is_protected =
        ["k8s.io", "kubernetes.io"].iter().any(|end| group == *end || group.ends_with(&format!(".{end}")));
    let at = object.down(&["metadata", "annotations"]);
    let value = at.at(APPROVED);
    let path = format!("{}[{APPROVED}]", at.path);
    let unchanged = old.is_some_and(|old| old.down(&["metadata", "annotations"]).at(APPROVED).value == value.value);
    if !is_protected || unchanged {
        return;
    }
    if value.is_empty() {
        let words = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        errors.add(FieldError::required(path, words));
    } else if !value.text().starts_with("unapproved") && !value.text().starts_with("https://") {
        let words = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111";
        errors.add(FieldError::invalid(path, value.text(), words));
    }
}

fn root_schema(schema: &Cursor<'_>, has_status: bool, errors: &mut Errors) {
    let kind = schema.at("type");
    if kind.is_empty() {
        errors.add(FieldError::required(kind.path.as_str(), "must not be empty at the root"));
    } else if kind.text() != "object" {
        let words = if has_status {
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled"
        } else {
            "must be object at the root"
        };
        errors.invalid(&kind, words);
    }
    if schema.at("nullable").flag() {
        errors.forbidden(&schema.at("nullable"), "nullable cannot be true at the root");
    }
    walk(schema, 0, false, errors);
}

/// One node of a structural schema; `is_logic` tells that it stands under `allOf` and the like.
fn walk(schema: &Cursor<'_>, depth: usize, is_logic: bool, errors: &mut Errors) {
    if depth > MAX_SCHEMA_DEPTH || !schema.value.is_some_and(Value::is_object) {
        return;
    }
    forbidden_keywords(schema, errors);
    if !is_logic {
        structure(schema, depth, errors);
    }
    list_rules(schema, errors);
    for (_, property) in schema.at("properties").pairs() {
        walk(&property, depth + 1, is_logic, errors);
    }
    for field in ["items", "additionalProperties"] {
        walk(&schema.at(field), depth + 1, is_logic, errors);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for entry in schema.at(field).entries() {
            walk(&entry, depth + 1, true, errors);
        }
    }
    walk(&schema.at("not"), depth + 1, true, errors);
}

fn forbidden_keywords(schema: &Cursor<'_>, errors: &mut Errors) {
    for field in ["definitions", "dependencies", "patternProperties"] {
        if schema.at(field).is_set() {
            errors.forbidden(&schema.at(field), &format!("{field} is not supported"));
        }
    }
    for field in ["id", "$ref"] {
        if !schema.at(field).is_empty() {
            errors.forbidden(&schema.at(field), &format!("{} is not supported", field));
        }
    }
    if schema.at("uniqueItems").flag() {
        errors.forbidden(
            &schema.at("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    if schema.at("additionalProperties").value == Some(&Value::Bool(false)) {
        errors.forbidden(&schema.at("additionalProperties"), "additionalProperties cannot be set to false");
    }
    if !schema.at("properties").is_empty() && schema.at("additionalProperties").is_set() {
        let words = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(&schema.at("additionalProperties"), words);
    }
    let kind = schema.at("type");
    errors.one_of(&kind, &["array", "boolean", "integer", "number", "object", "string"]);
}

/// Every node outside of logic says its type.
fn structure(schema: &Cursor<'_>, depth: usize, errors: &mut Errors) {
    let kind = schema.at("type");
    let may_be_anything =
        schema.at("x-kubernetes-preserve-unknown-fields").flag() || schema.at("x-kubernetes-int-or-string").flag();
    if kind.is_empty() && !may_be_anything && depth > 0 {
        errors.add(FieldError::required(kind.path.as_str(), "must not be empty for specified object fields"));
    }
    if kind.text() == "array" && !schema.at("items").is_set() {
        errors.add(FieldError::required(schema.at("items").path, "must be specified"));
    }
    if schema.at("x-kubernetes-embedded-resource").flag() && kind.text() != "object" {
        let words = "must be object if x-kubernetes-embedded-resource is true";
        errors.add(FieldError::invalid(kind.path.as_str(), kind.text(), words));
    }
}

fn list_rules(schema: &Cursor<'_>, errors: &mut Errors) {
    let (list, keys) = (schema.at("x-kubernetes-list-type"), schema.at("x-kubernetes-list-map-keys"));
    if list.is_set() && schema.at("type").text() != "array" {
        let at = schema.at("type");
        let value = at.text();
        errors.add(FieldError::invalid(
            at.path.as_str(),
            value,
            "must be array if x-kubernetes-list-type is specified",
        ));
    }
    errors.one_of(&list, &["atomic", "map", "set"]);
    if list.text() == "map" && keys.is_empty() {
        let words = "must not be empty if x-kubernetes-list-type is map";
        errors.add(FieldError::required(keys.path.as_str(), words));
    }
    if !keys.is_empty() && list.text() != "map" {
        let words = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.add(FieldError::invalid(list.path.as_str(), list.text(), words));
    }
    let properties = schema.down(&["items", "properties"]);
    for key in keys.entries() {
        if list.text() == "map" && !properties.at(key.text()).is_set() {
            errors.invalid(&key, "entries must all be names of item properties");
        }
    }
    errors.one_of(&schema.at("x-kubernetes-map-type"), &["atomic", "granular"]);
}
