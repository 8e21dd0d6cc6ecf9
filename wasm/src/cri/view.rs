//! From the runtime's state to CRI's messages, and what CRI's filters mean.

use std::collections::HashMap;

use k8s_cri::v1::{
    self as cri, ContainerFilter, ContainerResources, ContainerState, ImageSpec, PodSandboxFilter,
    PodSandboxNetworkStatus, PodSandboxState,
};

use crate::{
    images::Image,
    runtime::{Container, Sandbox, records::Phase},
};

fn sandbox_state(sandbox: &Sandbox) -> i32 {
    let state = if sandbox.is_ready() { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready };
    state.into()
}

pub(crate) fn sandbox_status(sandbox: &Sandbox) -> cri::PodSandboxStatus {
    let options = sandbox.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = options.and_then(|context| context.namespace_options.clone());
    cri::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox),
        created_at: sandbox.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: sandbox.address().map(|address| address.to_string()).unwrap_or_default(),
            additional_ips: Vec::new(),
        }),
        linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options }) }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.handler.clone(),
    }
}

pub(crate) fn sandbox_item(sandbox: &Sandbox) -> cri::PodSandbox {
    cri::PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox),
        created_at: sandbox.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.handler.clone(),
    }
}

fn container_state(phase: Phase) -> i32 {
    let state = match phase {
        Phase::Created => ContainerState::ContainerCreated,
        Phase::Running => ContainerState::ContainerRunning,
        Phase::Exited => ContainerState::ContainerExited,
    };
    state.into()
}

/// The image of a container as a specification: by the name that people know.
fn image_spec(container: &Container) -> ImageSpec {
    ImageSpec { image: container.image.name.clone(), ..container.config.image.clone().unwrap_or_default() }
}

pub(crate) fn container_status(container: &Container) -> cri::ContainerStatus {
    let life = container.life();
    cri::ContainerStatus {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        state: container_state(life.phase),
        created_at: container.created_at,
        started_at: life.started_at,
        finished_at: life.finished_at,
        exit_code: life.exit_code,
        image: Some(image_spec(container)),
        image_ref: container.image.reference.clone(),
        reason: life.reason,
        message: life.message,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: container.log_path.to_string_lossy().into_owned(),
        resources: Some(ContainerResources { linux: container.resources(), windows: None }),
        image_id: container.image.id.clone(),
        user: None,
    }
}

pub(crate) fn container_item(container: &Container) -> cri::Container {
    cri::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: container.config.metadata.clone(),
        image: Some(image_spec(container)),
        image_ref: container.image.reference.clone(),
        state: container_state(container.life().phase),
        created_at: container.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: container.image.id.clone(),
    }
}

pub(crate) fn image(image: &Image) -> cri::Image {
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.entry.size,
        uid: Some(cri::Int64Value { value: 0 }),
        username: String::new(),
        spec: Some(ImageSpec { image: image.id.clone(), ..ImageSpec::default() }),
        pinned: false,
    }
}

/// Whether `labels` has all of `selector`.
pub(crate) fn has_labels(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether an identifier is the wanted one, or begins with it; an empty one is everybody's.
pub(crate) fn has_id(id: &str, wanted: &str) -> bool {
    id.starts_with(wanted)
}

pub(crate) fn sandbox_passes(sandbox: &cri::PodSandbox, filter: Option<&PodSandboxFilter>) -> bool {
    filter.is_none_or(|filter| {
        has_id(&sandbox.id, &filter.id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox.state)
            && has_labels(&sandbox.labels, &filter.label_selector)
    })
}

pub(crate) fn container_passes(container: &cri::Container, filter: Option<&ContainerFilter>) -> bool {
    filter.is_none_or(|filter| {
        has_id(&container.id, &filter.id)
            && has_id(&container.pod_sandbox_id, &filter.pod_sandbox_id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == container.state)
            && has_labels(&container.labels, &filter.label_selector)
    })
}
