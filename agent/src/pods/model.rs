//! The pod as it is desired, as it was observed, and what can be done to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};

use super::restart::Backoff;

/// What the API server (or the agent's own store) wants of a pod.
#[derive(Clone, Debug)]
pub struct DesiredPod {
    /// The newest version of the object.
    pub pod: Arc<Pod>,
    /// The object is gone from the API: what runs of it is stopped and nothing is reported.
    pub gone: bool,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// Whether a file of the node describes the pod: the API only has a mirror of it.
    pub is_static: bool,
    /// The mirror of a static pod, while there is one.
    pub mirror: Option<Arc<Pod>>,
    /// The ephemeral containers, as containers: [`Self::set_pod`] makes them.
    pub ephemeral: Vec<Container>,
}

/// The default of `terminationGracePeriodSeconds`.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
static NO_STATUS: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);

impl DesiredPod {
    /// What is wanted of a pod by its object.
    pub fn new(pod: Arc<Pod>, gone: bool, host_ips: Vec<IpAddr>) -> Self {
        let mut desired =
            Self { pod: Arc::clone(&pod), gone, host_ips, is_static: false, mirror: None, ephemeral: vec![] };
        desired.set_pod(pod);
        desired
    }

    /// Takes up a newer version of the object.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        let given = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
        // An ephemeral container has fields of a container's names, and `targetContainerName` beside them.
        let convert = |container| serde_json::to_value(container).and_then(serde_json::from_value).ok();
        self.ephemeral = given.iter().filter_map(convert).collect();
        self.pod = pod;
    }

    /// The spec; an empty one where the object has none.
    pub fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    /// The status that the API server has.
    pub fn api_status(&self) -> &PodStatus {
        self.object().and_then(|object| object.status.as_ref()).unwrap_or(&NO_STATUS)
    }

    /// The object in the API; `None` for a static pod without a mirror.
    pub fn object(&self) -> Option<&Arc<Pod>> {
        if self.is_static { self.mirror.as_ref() } else { Some(&self.pod) }
    }

    /// The UID; of a static pod its own, not that of its mirror.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `name_namespace(uid)`, as the kubelet's messages name a pod.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// Whether the pod is on its way out.
    pub fn deleting(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// How long containers get to end by themselves once the pod is to go.
    pub fn grace_seconds(&self) -> i64 {
        let of_deletion = self.pod.metadata.deletion_grace_period_seconds;
        let of_spec = self.spec().termination_grace_period_seconds;
        of_deletion.filter(|_| self.deleting()).or(of_spec).unwrap_or(DEFAULT_GRACE_SECONDS).max(0)
    }

    /// The restart policy, `Always` by default.
    pub fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// Init containers in order.
    pub fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    /// Whether a container is an ephemeral one.
    pub fn is_ephemeral(&self, name: &str) -> bool {
        self.ephemeral.iter().any(|container| container.name == name)
    }

    /// All containers but ephemeral ones: init containers first.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers().iter().chain(&self.spec().containers)
    }

    /// A container of the spec by name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().chain(&self.ephemeral).find(|container| container.name == name)
    }
}

/// Whether an init container is restartable, i.e. a sidecar (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A sandbox as the runtime reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// Which try it is.
    pub attempt: u32,
    /// Ready, as CRI means it: containers can be started in it.
    pub ready: bool,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What state the runtime reports for a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// Created, not started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A container as the runtime reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The runtime's id.
    pub id: String,
    /// The sandbox that it belongs to.
    pub sandbox_id: String,
    /// Which try it is: the restart count.
    pub attempt: u32,
    /// Its state.
    pub state: RunState,
    /// The image as given, and what the runtime resolved it to.
    pub image: String,
    /// The image's reference (`status.containerStatuses[].imageID`).
    pub image_ref: String,
    /// The hash of the spec's fields that force a restart (name and image), as it was at creation.
    pub spec_hash: String,
    /// The exit code, once it has ended.
    pub exit_code: i32,
    /// The runtime's reason.
    pub reason: String,
    /// The runtime's message, or the termination message.
    pub message: String,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Where it logs.
    pub log_path: String,
}

/// Where the image of a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageState {
    /// Not looked at for the next start.
    #[default]
    Unknown,
    /// There; the reference to create a container with.
    Present(String),
    /// It cannot be had.
    Failed {
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
        reason: String,
        /// What the runtime said.
        message: String,
    },
}

/// Why a container could not be created or started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`, `PostStartHookError`.
    pub reason: String,
    /// What went wrong.
    pub message: String,
    /// When to try again.
    pub retry_at: Timestamp,
}

/// What is known of a container besides what the runtime reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerMemory {
    /// The image.
    pub image: ImageState,
    /// The back-off of failed pulls.
    pub pull_backoff: Backoff,
    /// When the newest pull failed.
    pub pull_failed_at: Option<Timestamp>,
    /// The back-off of crashes.
    pub crash_backoff: Backoff,
    /// The newest failure to create or start.
    pub failure: Option<StartFailure>,
    /// `started`: its startup probe has succeeded, or it has none and its post-start hook is through.
    pub started: bool,
    /// `ready`: its readiness probe succeeds, or it has none and it is started.
    pub ready: bool,
    /// What it was started with, or resized to since, if that is known.
    pub resources: Option<ResourceRequirements>,
    /// What it could not be resized to.
    pub refused: Option<ResourceRequirements>,
    /// A liveness or startup probe has failed for good: the container is to be killed, for the reason given.
    pub unhealthy: Option<String>,
    /// The grace period that the failed probe asks for.
    pub unhealthy_grace_seconds: Option<i64>,
}

/// How far the volumes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VolumeState {
    /// Nothing was done yet.
    #[default]
    Absent,
    /// All are there.
    Ready,
    /// One cannot be had; tried again at the time given.
    Failed {
        /// What went wrong.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
    },
}

/// What an action is done to; there is never more than one action on one subject under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The volumes.
    Volumes,
    /// The sandbox, whichever it is.
    Sandbox,
    /// A container, by name.
    Container(String),
    /// The object in the API.
    Object,
}

/// The pod as it was seen.
#[derive(Clone, Debug, Default)]
pub struct ObservedPod {
    /// All sandboxes, oldest first.
    pub sandboxes: Vec<Sandbox>,
    /// All containers by name, oldest first.
    pub containers: BTreeMap<String, Vec<Seen>>,
    /// What is known of each container besides; boxed, because a map has room for eleven from its first one on.
    pub memory: BTreeMap<String, Box<ContainerMemory>>,
    /// The volumes.
    pub volumes: VolumeState,
    /// Why no sandbox could be made, and when to try again.
    pub sandbox_failure: Option<(String, Timestamp)>,
    /// When the object could not be deleted: when to try again.
    pub object_retry_at: Option<Timestamp>,
    /// When the agent first saw the pod (`status.startTime`).
    pub first_seen: Option<Timestamp>,
    /// The pod has ended for a reason of the node's own (`DeadlineExceeded`, `Evicted`, admission).
    pub ended: Option<Ended>,
    /// The runtime's name, the scheme of container IDs.
    pub runtime_name: String,
    /// What is under way.
    pub busy: BTreeSet<Subject>,
}

/// Why the node itself ended a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// `status.reason`
    pub reason: String,
    /// `status.message`
    pub message: String,
    /// How long its containers get to end, if not as long as they ask for.
    pub grace_seconds: Option<i64>,
}

static NO_MEMORY: std::sync::LazyLock<ContainerMemory> = std::sync::LazyLock::new(ContainerMemory::default);

impl ObservedPod {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.last()
    }

    /// The newest sandbox, if containers can be started in it.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of a name.
    pub fn newest(&self, name: &str) -> Option<&Seen> {
        self.containers.get(name).and_then(|all| all.last())
    }

    /// The newest container of a name, if it belongs to the sandbox that is ready.
    pub fn current(&self, name: &str) -> Option<&Seen> {
        let sandbox = self.ready_sandbox()?;
        self.newest(name).filter(|seen| seen.sandbox_id == sandbox.id)
    }

    /// What is known of a container besides what the runtime reports.
    pub fn memory_of(&self, name: &str) -> &ContainerMemory {
        self.memory.get(name).map_or(&NO_MEMORY, |memory| memory)
    }

    /// Whether a container of the name runs (or may run).
    pub fn is_running(&self, name: &str) -> bool {
        self.newest(name).is_some_and(|seen| matches!(seen.state, RunState::Running | RunState::Unknown))
    }

    /// All containers that run or may run, with their names.
    pub fn live(&self) -> impl Iterator<Item = (&str, &Seen)> {
        let all = self.containers.iter().flat_map(|(name, all)| all.iter().map(move |seen| (name.as_str(), seen)));
        all.filter(|(_, seen)| matches!(seen.state, RunState::Running | RunState::Unknown))
    }

    /// Whether something is under way on the subject.
    pub fn is_busy(&self, subject: &Subject) -> bool {
        self.busy.contains(subject)
    }

    /// Whether something is under way on any container.
    pub fn any_container_busy(&self) -> bool {
        self.busy.iter().any(|subject| matches!(subject, Subject::Container(_)))
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set up every volume.
    MountVolumes,
    /// Take the volumes and the pod's folder away.
    UnmountVolumes,
    /// Make a sandbox.
    RunSandbox {
        /// Which try it is.
        attempt: u32,
    },
    /// Stop a sandbox.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Remove a stopped sandbox.
    RemoveSandbox {
        /// Its id.
        id: String,
    },
    /// See to it that a container's image is there, as its pull policy says.
    EnsureImage {
        /// The container.
        container: String,
    },
    /// Create and start a container, and run its post-start hook.
    StartContainer {
        /// The container.
        container: String,
        /// Which try it is.
        attempt: u32,
        /// The sandbox to start it in.
        sandbox_id: String,
        /// The image's reference.
        image_ref: String,
    },
    /// Run the pre-stop hook and stop a container.
    StopContainer {
        /// The container.
        container: String,
        /// Its id.
        id: String,
        /// How long it gets to end by itself.
        grace_seconds: i64,
        /// The `Killing` event's message.
        message: String,
    },
    /// Give a running container the resources that its spec says now.
    ResizeContainer {
        /// The container.
        container: String,
        /// Its id.
        id: String,
    },
    /// Remove a container that has ended.
    RemoveContainer {
        /// The container.
        container: String,
        /// Its id.
        id: String,
    },
    /// The pod has outlived `activeDeadlineSeconds`: remember so.
    ExceedDeadline,
    /// Delete the object for good: nothing of the pod is left on the node.
    FinishDeletion,
    /// Decide again at this time, though nothing is heard before.
    WakeAt(Timestamp),
}

impl Action {
    /// What it is done to; `None` for what needs no work.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::MountVolumes | Self::UnmountVolumes => Some(Subject::Volumes),
            Self::RunSandbox { .. } | Self::StopSandbox { .. } | Self::RemoveSandbox { .. } => Some(Subject::Sandbox),
            Self::EnsureImage { container }
            | Self::StartContainer { container, .. }
            | Self::StopContainer { container, .. }
            | Self::ResizeContainer { container, .. }
            | Self::RemoveContainer { container, .. } => Some(Subject::Container(container.clone())),
            Self::FinishDeletion => Some(Subject::Object),
            Self::ExceedDeadline | Self::WakeAt(_) => None,
        }
    }
}
