//! JSON Merge Patch (RFC 7386).

use serde_json::{Map, Value};

/// Merges a patch into an object: null removes, objects merge, all else replaces.
pub fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.shift_remove(&name)),
            Value::Object(patch) => {
                let slot = target.entry(name).or_insert(Value::Null);
                if let Value::Object(inner) = slot {
                    merge(inner, patch);
                } else {
                    let mut inner = Map::new();
                    merge(&mut inner, patch);
                    *slot = Value::Object(inner);
                }
            }
            other => drop(target.insert(name, other)),
        }
    }
}
