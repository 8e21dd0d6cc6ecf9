//! From client-side apply to server-side apply without conflicts: what `kubectl apply` noted in its annotation is
//! `kubectl`'s, whoever is said to manage it.

use serde_json::{Map, Value};

use super::{Operation, set::FieldSet, walk};
use crate::object::Object;

/// The annotation in which `kubectl apply` keeps what it applied.
const ANNOTATION: [&str; 3] = ["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"];

/// The manager for whom the annotation counts.
pub(super) const KUBECTL: &str = "kubectl";

/// The size of all annotations of an object together (`ValidateAnnotationsSize`).
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// The fields that the annotation has as the live object has them. `None` where there is no annotation that can be
/// read, or one of another version.
pub(super) fn fields(operation: &Operation<'_>, live: &Object) -> Option<FieldSet> {
    let text = live.str_at(&ANNOTATION).filter(|text| !text.is_empty())?;
    let applied = Object::from_slice(text.as_bytes()).ok()?;
    if applied.api_version() != live.api_version() {
        return None;
    }
    let applied = Value::Object(applied.0);
    let mut fields = walk::fields_of(&applied, operation.schema);
    let difference = walk::compare(Some(&applied), &Value::Object(live.0.clone()), operation.schema);
    for changed in [&difference.modified, &difference.added, &difference.removed] {
        fields.subtract(changed);
    }
    Some(fields)
}

/// Keeps the annotation, where there is one, at what was applied last.
pub(super) fn refresh(object: &mut Object, applied: &Object) {
    if object.str_at(&ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut noted = applied.clone();
    noted.remove_at(&ANNOTATION);
    let text = format!("{}\n", Value::Object(sorted(noted.0)));
    object.set_at(&ANNOTATION, text);
    let bytes: usize = object.pairs_at(&ANNOTATION[..2]).map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_ANNOTATIONS_BYTES {
        object.remove_at(&ANNOTATION);
    }
}

/// Keys in order, as Go's encoder prints maps.
fn sorted(map: Map<String, Value>) -> Map<String, Value> {
    let mut value = Value::Object(map);
    value.sort_all_objects();
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
