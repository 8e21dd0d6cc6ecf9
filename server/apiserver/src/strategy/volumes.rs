//! PersistentVolumes and claims: a change of phase says when it happened.

use serde_json::Value;
use skiff_api::object::Object;

use super::{Context, Part, Strategy};

/// The strategy of PersistentVolumes and PersistentVolumeClaims.
pub(super) struct Volumes;

impl Strategy for Volumes {
    fn prepare_create(&self, cx: &mut Context<'_>, object: &mut Object) {
        if object.kind() == "PersistentVolume" {
            object.set_at(&["status", "lastPhaseTransitionTime"], crate::registry::meta::time(cx.now));
        }
    }

    fn prepare_update(&self, cx: &mut Context<'_>, object: &mut Object, old: &Object, part: Part) {
        let phase = |object: &Object| object.at(&["status", "phase"]).and_then(Value::as_str).map(str::to_owned);
        if part == Part::Status && object.kind() == "PersistentVolume" && phase(object) != phase(old) {
            object.set_at(&["status", "lastPhaseTransitionTime"], crate::registry::meta::time(cx.now));
        }
    }
}
