//! Namespaces: they end through `spec.finalizers`, which the namespace controller empties through `finalize` once
//! the namespace is empty.

use serde_json::{Value, json};
use skiff_api::object::Object;

use super::{Context, Part, Strategy};

/// The finalizer that every namespace has.
const FINALIZER: &str = "kubernetes";

/// The label that carries a namespace's name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The strategy of namespaces.
pub(super) struct Namespaces;

/// Gives a namespace the label that carries its name.
fn set_name_label(namespace: &mut Object) {
    let name = namespace.name().to_owned();
    namespace.set_at(&["metadata", "labels", NAME_LABEL], name);
}

impl Strategy for Namespaces {
    fn prepare_create(&self, _: &mut Context<'_>, namespace: &mut Object) {
        set_name_label(namespace);
        let mut finalizers =
            namespace.at(&["spec", "finalizers"]).and_then(Value::as_array).cloned().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(json!(FINALIZER));
        }
        namespace.set_at(&["spec", "finalizers"], finalizers);
    }

    fn prepare_update(&self, _: &mut Context<'_>, namespace: &mut Object, old: &Object, part: Part) {
        set_name_label(namespace);
        match part {
            Part::Main => {
                if let Some(finalizers) = old.at(&["spec", "finalizers"]) {
                    namespace.set_at(&["spec", "finalizers"], finalizers.clone());
                }
            }
            Part::Status => {
                let phase = if old.is_deleting() { "Terminating" } else { "Active" };
                namespace.set_at(&["status", "phase"], phase);
            }
            Part::Only(_) | Part::Resize | Part::Whole => {}
        }
    }
}
