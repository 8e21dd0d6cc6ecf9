//! JSON Patch (RFC 6902), within limits: a short patch must not make a large or deep object.

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::{Map, Value};

use super::{unmarshal, unprocessable};
use crate::{
    decode,
    object::Object,
    status::{ApiError, Reason},
};

/// How many operations a patch may have, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;
/// How many bytes the `copy` operations of a patch may copy together, as in Kubernetes.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How deep the result may be nested: as deep as JSON may be that comes over the wire.
const MAX_DEPTH: usize = 120;
/// How many values may be looked at to hold the depth.
const MAX_VISITED: usize = 4_000_000;

pub(super) fn apply(original: &Object, patch: &[u8], is_looked_at: bool) -> Result<Object, ApiError> {
    let operations = parse(patch, is_looked_at)?;
    let mut document = Value::Object(original.0.clone());
    let mut budget = Budget { copied_bytes: 0, visited: 0 };
    for operation in operations {
        let operation: PatchOperation = serde_json::from_value(operation.into()).map_err(|_| unprocessable())?;
        if is_test_for_absence(&operation, &document) {
            continue;
        }
        budget.check(&operation, &document)?;
        json_patch::patch_unsafe(&mut document, std::slice::from_ref(&operation)).map_err(|_| unprocessable())?;
    }
    match document {
        Value::Object(map) => Ok(Object(map)),
        _ => Err(unprocessable()),
    }
}

/// The operations of a patch. Where its fields are looked at, it is first decoded into a type of its own, which has
/// other names in the words of what is wrong.
fn parse(patch: &[u8], is_looked_at: bool) -> Result<Vec<Map<String, Value>>, ApiError> {
    let (prefix, list_type, type_name) = match is_looked_at {
        true => ("error decoding patch: ", "[]handlers.jsonPatchOp", "handlers.jsonPatchOp"),
        false => ("", "jsonpatch.Patch", "jsonpatch.Operation"),
    };
    let refuse = |why: String| ApiError::bad_request(format!("{prefix}{why}"));
    let list = match decode::json(patch).map_err(refuse)?.value {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => return Err(refuse(unmarshal(&other, &format!("value of type {list_type}")))),
    };
    if list.len() > MAX_OPERATIONS {
        let count = list.len();
        let message = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    let operation = |value| match value {
        Value::Object(map) => match odd_field(&map).filter(|_| is_looked_at) {
            Some((name, value)) => {
                Err(refuse(unmarshal(value, &format!("struct field jsonPatchOp.{name} of type string"))))
            }
            None => Ok(map),
        },
        other => Err(refuse(unmarshal(&other, &format!("value of type {type_name}")))),
    };
    list.into_iter().map(operation).collect()
}

/// A field of an operation that should be a text and is none.
fn odd_field(operation: &Map<String, Value>) -> Option<(&String, &Value)> {
    let is_odd = |(name, value): &(&String, &Value)| {
        matches!(name.as_str(), "op" | "path" | "from") && !value.is_string() && !value.is_null()
    };
    operation.iter().find(is_odd)
}

/// A test for null passes where the field is absent from an object that is there.
fn is_test_for_absence(operation: &PatchOperation, document: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let Some((parent, _)) = test.path.split_back() else { return false };
    let has_parent = parent.resolve(document).is_ok_and(Value::is_object);
    test.value.is_null() && has_parent && test.path.resolve(document).is_err()
}

/// What a patch has used up of what it may.
struct Budget {
    copied_bytes: usize,
    visited: usize,
}

impl Budget {
    fn check(&mut self, operation: &PatchOperation, document: &Value) -> Result<(), ApiError> {
        match operation {
            PatchOperation::Add(add) => self.check_depth(&add.path, &add.value),
            PatchOperation::Replace(replace) => self.check_depth(&replace.path, &replace.value),
            PatchOperation::Move(moved) => match moved.from.resolve(document) {
                Ok(value) => self.check_depth(&moved.path, value),
                Err(_) => Ok(()),
            },
            PatchOperation::Copy(copy) => match copy.from.resolve(document) {
                Ok(value) => self.check_copy(value).and_then(|()| self.check_depth(&copy.path, value)),
                Err(_) => Ok(()),
            },
            PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
        }
    }

    fn check_copy(&mut self, value: &Value) -> Result<(), ApiError> {
        self.copied_bytes += value.to_string().len();
        if self.copied_bytes <= MAX_COPIED_BYTES {
            return Ok(());
        }
        Err(unprocessable())
    }

    fn check_depth(&mut self, path: &Pointer, value: &Value) -> Result<(), ApiError> {
        let depth = path.count() + self.depth(value);
        if self.visited > MAX_VISITED {
            return Err(ApiError::new(Reason::RequestEntityTooLarge, "the patch moves too much"));
        }
        if depth > MAX_DEPTH {
            return Err(unprocessable());
        }
        Ok(())
    }

    /// How deep a value is nested; it is no deeper than what came over the wire, so that recursion is bounded.
    fn depth(&mut self, value: &Value) -> usize {
        self.visited += 1;
        let inner = match value {
            Value::Array(list) => list.iter().map(|value| self.depth(value)).max(),
            Value::Object(map) => map.values().map(|value| self.depth(value)).max(),
            _ => return 0,
        };
        1 + inner.unwrap_or_default()
    }
}
