//! What a Job's controller asks of pods, and how it makes them. No I/O.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};

use crate::{
    meta::{controller_reference, elapsed, is_deleting, name, phase},
    pods::pod_from_template,
};

/// The finalizer of pods that have not been counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The label and annotation of a pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation of how often the pods of an index have failed before.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The annotation of how often they have failed without its counting.
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// The variable of a pod's index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The delay after a first failure, and the longest.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// A pod that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its index, for Jobs that have such.
    pub index: Option<i32>,
    /// How often the pods of its index have failed before, where that is counted.
    pub failures: Option<i32>,
    /// How often without its counting.
    pub ignored: i32,
}

/// Whether a Job has an index for each of its pods.
pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod is only replaced once it has failed, and not when it begins to end.
pub fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// Whether a pod counts as failed: it has, or it is going without having succeeded.
pub fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => is_deleting(&pod.metadata) && !replaces_failed_only(spec),
    }
}

/// Whether a pod has not been counted yet.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// A pod's index.
pub fn index_of(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX).filter(|index| *index >= 0)
}

/// A number in an annotation.
pub fn annotation(pod: &Pod, key: &str) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// When a pod ended: its last container, else its deletion, else as far as it got.
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let statuses = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|one| one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    let changes = conditions.filter(|one| one.type_ == "Ready").filter_map(|one| one.last_transition_time.as_ref());
    let metadata = &pod.metadata;
    ends.map(|time| time.0)
        .max()
        .or_else(|| changes.map(|time| time.0).max())
        .or_else(|| metadata.deletion_timestamp.as_ref().map(|time| time.0))
        .or_else(|| metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// How long the next pod still has to wait after a number of failures in a row.
pub fn backoff_left(failures: u32, last: Option<Timestamp>, first: Duration, now: Timestamp) -> Duration {
    let Some(last) = last.filter(|_| failures > 0) else { return Duration::ZERO };
    let whole = first.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(LONGEST_BACKOFF);
    whole.saturating_sub(elapsed(last, now))
}

/// The pod for a slot.
pub fn pod_of(job: &Job, slot: &Slot) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let job_name = name(&job.metadata);
    let prefix = slot.index.map_or_else(|| job_name.to_owned(), |index| format!("{job_name}-{index}"));
    let mut pod = pod_from_template(template, &job.metadata, &prefix, controller_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
    if let Some(index) = slot.index {
        set_index(&mut pod, index, prefix);
    }
    if let Some(failures) = slot.failures {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), failures.to_string());
        if slot.ignored > 0 {
            annotations.insert(IGNORED.to_owned(), slot.ignored.to_string());
        }
    }
    pod
}

/// Tells a pod its index: by label, annotation, host name and environment.
fn set_index(pod: &mut Pod, index: i32, hostname: String) {
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(hostname);
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    let variable = EnvVar { name: INDEX_VARIABLE.to_owned(), value: None, value_from: Some(source) };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|known| known.name == INDEX_VARIABLE) {
            env.push(variable.clone());
        }
    }
}
