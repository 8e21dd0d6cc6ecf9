//! What a pod's status says when the control plane ends it: the condition `DisruptionTarget`.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::Informer;

use crate::{
    frame::Context,
    meta::{name, namespace, pod_condition},
};

/// The condition of a pod that is ended for reasons that are not its own.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// A patch (strategic merge) of a pod's status that says why it is ended, and its phase where that changes.
pub fn disrupted(pod: &Pod, reason: &str, message: &str, now: Timestamp, phase: Option<&str>) -> Value {
    let since = pod_condition(pod, DISRUPTION_TARGET)
        .filter(|known| known.status == "True")
        .and_then(|known| known.last_transition_time.clone());
    let condition = PodCondition {
        type_: DISRUPTION_TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let mut status = json!({"conditions": [condition]});
    if let Some(phase) = phase {
        status["phase"] = phase.into();
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}

/// Patches a pod's status; one that is gone is no error.
pub async fn patch_status(context: &Context, pods: &Informer<Pod>, pod: &Pod, patch: &Value) -> Result<(), ApiError> {
    let (space, name) = (namespace(&pod.metadata), name(&pod.metadata));
    let form = ContentType::StrategicMergePatch;
    match context.client.patch::<Pod>(space, name, Some("status"), form, patch).await {
        Ok(pod) => pods.observe(pod),
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
