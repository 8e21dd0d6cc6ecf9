//! CustomResourceDefinitions: every version that objects have been stored in is remembered.

use serde_json::Value;
use skiff_api::object::Object;

use super::{Context, Part, Strategy};

/// The strategy of CustomResourceDefinitions.
pub(super) struct Definitions;

/// Notes the version that objects are stored in from now on.
fn note_storage_version(definition: &mut Object) {
    let versions = definition.at(&["spec", "versions"]).and_then(Value::as_array);
    let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
    let Some(storage) = storage.map(|version| version["name"].clone()) else { return };
    let stored = definition.at(&["status", "storedVersions"]).and_then(Value::as_array);
    let mut stored = stored.cloned().unwrap_or_default();
    if !stored.contains(&storage) {
        stored.push(storage);
        definition.set_at(&["status", "storedVersions"], stored);
    }
}

impl Strategy for Definitions {
    fn prepare_create(&self, _: &mut Context<'_>, definition: &mut Object) {
        note_storage_version(definition);
    }

    fn prepare_update(&self, _: &mut Context<'_>, definition: &mut Object, _: &Object, part: Part) {
        if part == Part::Main {
            note_storage_version(definition);
        }
    }
}
