//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or cannot be reached.

use serde_json::{Value, json};
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// How long a pod stays, in seconds.
const TOLERATION_SECONDS: u32 = 300;

/// The taints of a node that is not ready or cannot be reached.
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Whether a toleration says anything of `NoExecute` with this key.
fn concerns(toleration: &Value, key: &str) -> bool {
    let text = |name: &str| toleration.get(name).and_then(Value::as_str).unwrap_or_default();
    ["", key].contains(&text("key")) && ["", "NoExecute"].contains(&text("effect"))
}

/// Adds the tolerations that the pod does not have.
pub(super) fn mutate(_: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, "", "pods") && !write.is(Operation::Update, "", "pods") {
        return Ok(());
    }
    let mut tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = tolerations.len();
    for key in TAINTS {
        if !tolerations.iter().any(|toleration| concerns(toleration, key)) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
    if tolerations.len() > before {
        pod.set_at(&["spec", "tolerations"], tolerations);
    }
    Ok(())
}
