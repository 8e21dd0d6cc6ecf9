//! What a Job's policies say of failed pods and of indexes that have succeeded. No I/O.

use k8s_openapi::api::{
    batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy},
    core::v1::{ContainerStatus, Pod},
};

use super::indexes::Indexes;
use crate::meta::{name, namespace, phase};

/// What a failed pod means for its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts as a failure.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The Job has failed, and why.
    FailJob(String),
}

/// Judges a failed pod by the first rule that matches. Pods that have not ended yet just count.
pub fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let (Some(policy), "Failed") = (&spec.pod_failure_policy, phase(pod)) else { return Verdict::Count };
    for (place, rule) in policy.rules.iter().enumerate() {
        let Some(matched) = matches(rule, pod, place) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(matched),
            "Count" => Verdict::Count,
            // An action of the future: as if the rule were not there.
            _ => continue,
        };
    }
    Verdict::Count
}

/// Why a rule matches a pod, in words; `None` where it does not.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod, place: usize) -> Option<String> {
    let action = &rule.action;
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = containers(pod).find_map(|status| Some((&status.name, failed_with(codes, status)?)))?;
        let (space, name) = (namespace(&pod.metadata), name(&pod.metadata));
        return Some(format!(
            "Container {container} for pod {space}/{name} failed with exit code {code} matching {action} rule at index \
             {place}"
        ));
    }
    let conditions = pod.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let is_met = |kind: &str, status: &str| conditions.iter().any(|one| one.type_ == kind && one.status == status);
    let mut patterns = rule.on_pod_conditions.iter().flatten();
    let met = patterns.find(|pattern| is_met(&pattern.type_, pattern.status.as_deref().unwrap_or("True")))?;
    let (space, name) = (namespace(&pod.metadata), name(&pod.metadata));
    Some(format!("Pod {space}/{name} has condition {} matching {action} rule at index {place}", met.type_))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    })
}

fn failed_with(codes: &PodFailurePolicyOnExitCodesRequirement, status: &ContainerStatus) -> Option<i32> {
    let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
    let is_meant = codes.container_name.as_ref().is_none_or(|name| *name == status.name);
    let listed = codes.values.contains(&code);
    let matches = match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (is_meant && code != 0 && matches).then_some(code)
}

/// Why the indexes that have succeeded are enough, in words; `None` where they are not.
pub fn succeeds(policy: &SuccessPolicy, succeeded: &Indexes, completions: i32) -> Option<String> {
    let is_met = |rule: &k8s_openapi::api::batch::v1::SuccessPolicyRule| {
        let wanted = rule.succeeded_indexes.as_deref().filter(|text| !text.is_empty());
        match (wanted.map(|text| Indexes::parse(text, completions)), rule.succeeded_count) {
            (Some(wanted), Some(count)) => succeeded.common(&wanted) >= count,
            (Some(wanted), None) => succeeded.common(&wanted) >= wanted.total(),
            (None, Some(count)) => succeeded.total() >= count,
            (None, None) => false,
        }
    };
    let place = policy.rules.iter().position(is_met)?;
    Some(format!("Matched rules at index {place}"))
}
