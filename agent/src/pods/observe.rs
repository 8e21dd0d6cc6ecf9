//! Reads from a runtime what there is of a pod, and recalls from the API what a runtime has lost.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_cri::v1::{
    ContainerFilter, ContainerState, ContainerStatus, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest,
};

use super::{
    config::{CONTAINER_HASH, CONTAINER_NAME, POD_UID, TERMINATION_FILE, TERMINATION_POLICY},
    message,
    model::{DesiredPod, RunState, Sandbox, Seen},
};
use crate::runtime::{Cri, CriError};

/// The exit code of a container that the runtime no longer knows.
const LOST_EXIT_CODE: i32 = 137;

/// What a runtime has of one pod.
#[derive(Debug, Default)]
pub struct Found {
    /// Sandboxes, oldest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers by name, oldest first.
    pub containers: BTreeMap<String, Vec<Seen>>,
}

fn of_pod(uid: &str) -> HashMap<String, String> {
    [(POD_UID.to_owned(), uid.to_owned())].into()
}

/// Reads what there is of the pod with this UID.
pub async fn observe(cri: &dyn Cri, uid: &str) -> Result<Found, CriError> {
    let filter = PodSandboxFilter { label_selector: of_pod(uid), ..PodSandboxFilter::default() };
    let listed = cri.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await?.items;
    let mut found = Found::default();
    for item in listed {
        let request = PodSandboxStatusRequest { pod_sandbox_id: item.id, verbose: false };
        match cri.pod_sandbox_status(request).await {
            Ok(answer) => found.sandboxes.extend(answer.status.map(sandbox)),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    found.sandboxes.sort_by_key(|sandbox| (sandbox.created_at, sandbox.attempt));
    let filter = ContainerFilter { label_selector: of_pod(uid), ..ContainerFilter::default() };
    let listed = cri.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers;
    for item in listed {
        let request = ContainerStatusRequest { container_id: item.id, verbose: false };
        let status = match cri.container_status(request).await {
            Ok(answer) => answer.status,
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        };
        if let Some((name, seen)) = status.map(|status| container(status, &item.pod_sandbox_id)) {
            found.containers.entry(name).or_default().push(seen);
        }
    }
    for all in found.containers.values_mut() {
        all.sort_by_key(|seen| seen.attempt);
    }
    Ok(found)
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

fn sandbox(status: PodSandboxStatus) -> Sandbox {
    let ready = status.state() == PodSandboxState::SandboxReady;
    let network = status.network.unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    Sandbox {
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        ready,
        ips: texts.filter_map(|text| text.parse().ok()).collect(),
        created_at: time(status.created_at).unwrap_or_default(),
        id: status.id,
    }
}

fn container(status: ContainerStatus, sandbox_id: &str) -> (String, Seen) {
    let state = match status.state() {
        ContainerState::ContainerCreated => RunState::Created,
        ContainerState::ContainerRunning => RunState::Running,
        ContainerState::ContainerExited => RunState::Exited,
        ContainerState::ContainerUnknown => RunState::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let name = status.labels.get(CONTAINER_NAME).cloned().unwrap_or(metadata.name);
    let image = status.image.unwrap_or_default();
    let user_image = Some(image.user_specified_image).filter(|image| !image.is_empty()).unwrap_or(image.image);
    let note = |name: &str| status.annotations.get(name).map(String::as_str);
    let fall_back = status.exit_code != 0 && note(TERMINATION_POLICY) == Some("FallbackToLogsOnError");
    let message = match state {
        RunState::Exited => message::read(note(TERMINATION_FILE), &status.log_path, fall_back),
        _ => None,
    };
    let seen = Seen {
        id: status.id,
        sandbox_id: sandbox_id.to_owned(),
        attempt: metadata.attempt,
        state,
        image: user_image,
        image_ref: status.image_ref,
        spec_hash: status.annotations.get(CONTAINER_HASH).cloned().unwrap_or_default(),
        exit_code: status.exit_code,
        reason: status.reason,
        message: message.unwrap_or(status.message),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        log_path: status.log_path,
    };
    (name, seen)
}

/// Containers that the API says were there and the runtime does not know: they have ended, it is not known how.
/// Keeps restart counts going and pods that are not to be restarted from running twice.
pub fn recall_lost(desired: &DesiredPod, found: &mut Found, now: Timestamp) {
    let status = desired.api_status();
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let all = all.chain(&status.ephemeral_container_statuses).flatten();
    for known in all
        .filter(|known| known.container_id.is_some() && !found.containers.contains_key(&known.name))
        .collect::<Vec<_>>()
    {
        let state = known.state.clone().unwrap_or_default();
        let ended = state.terminated.or_else(|| known.last_state.clone().and_then(|last| last.terminated));
        let lost = Seen {
            attempt: known.restart_count.try_into().unwrap_or(0),
            state: RunState::Exited,
            image: known.image.clone(),
            image_ref: known.image_id.clone(),
            exit_code: ended.as_ref().map_or(LOST_EXIT_CODE, |ended| ended.exit_code),
            reason: ended
                .as_ref()
                .and_then(|e| e.reason.clone())
                .unwrap_or_else(|| "ContainerStatusUnknown".to_owned()),
            message: ended.as_ref().map_or_else(
                || "The container could not be located when the pod was terminated".to_owned(),
                |ended| ended.message.clone().unwrap_or_default(),
            ),
            started_at: ended.as_ref().and_then(|ended| ended.started_at.as_ref()).map(|time| time.0),
            finished_at: ended.as_ref().and_then(|ended| ended.finished_at.as_ref()).map(|time| time.0).or(Some(now)),
            ..Seen::default()
        };
        found.containers.insert(known.name.clone(), vec![lost]);
    }
}
