//! Secrets: `stringData` is a way to write `data` without base64, and is never read back.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use skiff_api::object::Object;

use super::{Context, Part, Strategy};

/// The strategy of Secrets.
pub(super) struct Secrets;

/// Moves `stringData` into `data`.
fn merge_string_data(secret: &mut Object) {
    let Some(Value::Object(plain)) = secret.0.shift_remove("stringData") else { return };
    for (key, value) in plain {
        let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
        secret.set_at(&["data", &key], encoded);
    }
}

impl Strategy for Secrets {
    fn prepare_create(&self, _: &mut Context<'_>, secret: &mut Object) {
        merge_string_data(secret);
    }

    fn prepare_update(&self, _: &mut Context<'_>, secret: &mut Object, old: &Object, _: Part) {
        merge_string_data(secret);
        if let (None, Some(kind)) = (secret.str_at(&["type"]), old.str_at(&["type"])) {
            secret.set_at(&["type"], kind);
        }
    }
}
