//! Carries out actions: the part of a pod's life that talks to runtimes and disks. Decides nothing.

use std::{net::IpAddr, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use k8s_cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, CreateContainerRequest, LinuxContainerResources,
    ListContainersRequest, Mount, PodSandboxConfig, RemoveContainerRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
    UpdateContainerResourcesRequest,
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Container, Pod, ResourceRequirements, Secret},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use skiff_api::{claims::claims_of, status::ApiError};
use skiff_client::EventType;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    admission, cgroup,
    config::{self, ContainerInputs, SandboxInputs},
    dns, env,
    fields::Fields,
    hooks, hosts,
    model::{Action, DesiredPod, Subject},
};
use crate::{
    PodNetwork,
    context::{CLUSTER_DOMAIN, Context, make_dir},
    runtime::{Cri, CriError},
    volumes::{
        mounts,
        setup::{Volumes, fetch},
    },
};

/// Where a container has its hosts file.
const HOSTS: &str = "/etc/hosts";

/// What came of an action.
#[derive(Debug)]
pub enum Outcome {
    /// The volumes are there, or not, and why.
    Mounted(Result<(), String>),
    /// The volumes are gone.
    Unmounted,
    /// A sandbox was made, or not.
    Sandbox(Result<(), String>),
    /// An image is there (its reference), or not (reason and message).
    Image(String, Result<String, (&'static str, String)>),
    /// A container was started (with these resources), or not (reason and message).
    Started(String, Result<ResourceRequirements, (&'static str, String)>),
    /// A container was resized to these resources, or not.
    Resized(String, ResourceRequirements, bool),
    /// Something was stopped or removed.
    Done,
    /// The object was deleted.
    Deleted,
    /// The status was written.
    Reported(Result<Box<Pod>, ApiError>),
    /// It failed and is to be tried again after the action's subject was left alone for a while.
    Retry(String),
}

/// All that an action needs.
#[derive(Clone)]
pub struct Job {
    /// What the agent's parts share.
    pub ctx: Arc<Context>,
    /// The pod.
    pub desired: DesiredPod,
    /// Its runtime.
    pub cri: Option<Arc<dyn Cri>>,
    /// Its addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The newest sandbox's try.
    pub attempt: u32,
    /// A sandbox that is not ready any more and is to be replaced.
    pub replaced: Option<String>,
    /// Its volumes.
    pub volumes: Arc<Mutex<Volumes>>,
    /// Ends what need not be finished once the pod is to go: pulls, post-start hooks.
    pub going: CancellationToken,
}

impl Job {
    /// Carries out one action.
    pub async fn run(self, action: Action) -> Outcome {
        match action {
            Action::MountVolumes => self.mount().await,
            Action::UnmountVolumes => self.unmount().await,
            Action::RunSandbox { attempt } => Outcome::Sandbox(self.run_sandbox(attempt).await),
            Action::StopSandbox { id } => done(
                self.call(
                    |cri| async move { cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id }).await },
                )
                .await,
            ),
            Action::RemoveSandbox { id } => done(
                self.call(
                    |cri| async move { cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await },
                )
                .await,
            ),
            Action::RemoveContainer { id, .. } => done(
                self.call(|cri| async move { cri.remove_container(RemoveContainerRequest { container_id: id }).await })
                    .await,
            ),
            Action::EnsureImage { container } => {
                let result = tokio::select! {
                    () = self.going.cancelled() => Err(("ErrImagePull", "the pod is deleted".to_owned())),
                    result = self.ensure_image(&container) => result,
                };
                Outcome::Image(container, result)
            }
            Action::StartContainer { container, attempt, sandbox_id, image_ref } => {
                let result = self.start(&container, attempt, sandbox_id, image_ref).await;
                let resources = self.resources(&container);
                Outcome::Started(container, result.map(|()| resources))
            }
            Action::StopContainer { container, id, grace_seconds, message } => {
                self.stop(&container, id, grace_seconds, message).await
            }
            Action::ResizeContainer { container, id } => self.resize(container, id).await,
            Action::FinishDeletion => self.finish_deletion().await,
            Action::ExceedDeadline | Action::WakeAt(_) => Outcome::Done,
        }
    }

    pub(super) fn event(&self, container: Option<&str>, kind: EventType, reason: &str, message: impl Into<String>) {
        self.ctx.event(&self.desired.pod, container, kind, reason, message);
    }

    pub(super) async fn call<T, F>(&self, call: impl FnOnce(Arc<dyn Cri>) -> F) -> Result<T, CriError>
    where
        F: Future<Output = Result<T, CriError>>,
    {
        let handler = self.ctx.handler(&self.desired.pod);
        match &self.cri {
            Some(cri) => call(Arc::clone(cri)).await,
            None => Err(CriError {
                code: tonic::Code::Unknown,
                message: format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"),
            }),
        }
    }

    fn fields(&self) -> Fields<'_> {
        Fields { desired: &self.desired, pod_ips: &self.pod_ips, allocatable: &self.ctx.allocatable }
    }

    async fn mount(&self) -> Outcome {
        let volumes = self.volumes.lock().await;
        let result = volumes.set_up(&self.fields(), self.ctx.now()).await.map_err(|(name, e)| (name, e.chain()));
        let result = result.and_then(|()| self.alone_with(volumes.exclusive()));
        Outcome::Mounted(result.map_err(|(volume, why)| {
            let message = format!("MountVolume.SetUp failed for volume {volume:?} : {why}");
            self.event(None, EventType::Warning, "FailedMount", &*message);
            message
        }))
    }

    /// Refuses claims for one pod alone that another one has.
    fn alone_with(&self, claims: Vec<String>) -> Result<(), (String, String)> {
        let others = if claims.is_empty() { Vec::new() } else { self.ctx.pods.list_in(self.desired.namespace()) };
        let before: Vec<_> = others.iter().filter(|other| admission::is_before(other, &self.desired.pod)).collect();
        let used = |claim: &String| before.iter().any(|pod| claims_of(pod).iter().any(|used| used.name == *claim));
        match claims.into_iter().find(used) {
            Some(claim) => {
                let why = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
                Err((claim, why.to_owned()))
            }
            None => Ok(()),
        }
    }

    async fn unmount(&self) -> Outcome {
        let torn = self.volumes.lock().await.tear_down();
        if self.is_oci()
            && let Err(e) = self.ctx.cgroups.remove(&cgroup::path(&self.desired))
        {
            return Outcome::Retry(format!("cannot remove the pod's cgroups: {e}"));
        }
        for folder in [self.ctx.pod_dir(self.desired.uid()), self.ctx.log_dir(&self.desired.pod)] {
            if let Err(e) = std::fs::remove_dir_all(&folder)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                return Outcome::Retry(format!("cannot remove {}: {e}", folder.display()));
            }
        }
        torn.map_or_else(|e| Outcome::Retry(e.chain()), |()| Outcome::Unmounted)
    }

    /// Whether the pod's containers are processes of this machine: they have cgroups and files of their own.
    fn is_oci(&self) -> bool {
        self.ctx.runtime(&self.desired.pod).is_some_and(|runtime| runtime.network != PodNetwork::AnyIp)
    }

    pub(super) fn sandbox_config(&self, attempt: u32) -> PodSandboxConfig {
        let inputs = SandboxInputs {
            attempt,
            log_directory: self.ctx.log_dir(&self.desired.pod),
            dns: dns::config(self.desired.spec(), self.desired.namespace(), &self.ctx.names()).0,
            cgroup_parent: match self.is_oci() {
                true => cgroup::path(&self.desired).last().map(|path| format!("/{path}")).unwrap_or_default(),
                false => String::new(),
            },
            seccomp_root: self.ctx.seccomp_root(),
        };
        config::sandbox(&self.desired, inputs)
    }

    /// What the pod's processes need before there is any: its cgroups.
    fn prepare(&self) -> Result<(), String> {
        let logs = self.ctx.log_dir(&self.desired.pod);
        make_dir(&logs).map_err(|e| format!("cannot make {}: {e}", logs.display()))?;
        if self.is_oci() {
            let made = self.ctx.cgroups.make(&cgroup::path(&self.desired), &cgroup::limits(self.desired.spec()));
            made.map_err(|e| format!("failed to ensure that the pod: {} cgroups exist: {e}", self.desired.uid()))?;
        }
        let (_, omitted) = dns::config(self.desired.spec(), self.desired.namespace(), &self.ctx.names());
        if let Some(message) = omitted {
            self.event(None, EventType::Warning, "DNSConfigForming", message);
        }
        Ok(())
    }

    async fn run_sandbox(&self, attempt: u32) -> Result<(), String> {
        self.prepare()?;
        if let Some(id) = self.replaced.clone() {
            self.event(
                None,
                EventType::Normal,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            );
            let stopped = self
                .call(|cri| async move { cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id }).await });
            if let Err(e) = stopped.await {
                tracing::debug!(error = %e, "an old sandbox could not be stopped");
            }
        }
        let request = RunPodSandboxRequest {
            config: Some(self.sandbox_config(attempt)),
            runtime_handler: self.ctx.handler(&self.desired.pod),
        };
        let made = self.call(|cri| async move { cri.run_pod_sandbox(request).await }).await;
        made.map(drop).map_err(|e| {
            let message = format!("Failed to create pod sandbox: {e}");
            self.event(None, EventType::Warning, "FailedCreatePodSandBox", &*message);
            message
        })
    }

    pub(super) fn container(&self, name: &str) -> Result<&Container, String> {
        self.desired.container(name).ok_or_else(|| format!("container {name} not found"))
    }

    async fn start(
        &self,
        name: &str,
        attempt: u32,
        sandbox_id: String,
        image_ref: String,
    ) -> Result<(), (&'static str, String)> {
        let failed = |reason: &'static str, message: String| {
            self.event(Some(name), EventType::Warning, "Failed", format!("Error: {message}"));
            (reason, message)
        };
        let container = self.container(name).map_err(|e| ("CreateContainerConfigError", e))?;
        let inputs =
            self.inputs(container, attempt, image_ref).await.map_err(|e| failed("CreateContainerConfigError", e))?;
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id,
            config: Some(config::container(&self.desired, container, inputs)),
            sandbox_config: Some(self.sandbox_config(self.attempt)),
        };
        let created = self.call(|cri| async move { cri.create_container(request).await }).await;
        let id = created.map_err(|e| failed("CreateContainerError", e.message.clone()))?.container_id;
        self.event(Some(name), EventType::Normal, "Created", "Container created");
        let request = StartContainerRequest { container_id: id.clone() };
        let started = self.call(|cri| async move { cri.start_container(request).await }).await;
        started.map_err(|e| failed("RunContainerError", e.message.clone()))?;
        self.event(Some(name), EventType::Normal, "Started", "Container started");
        self.post_start(container, &id).await
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), (&'static str, String)> {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let (Some(hook), Some(cri)) = (hook, &self.cri) else { return Ok(()) };
        let ip = self.pod_ips.first().copied();
        let result = tokio::select! {
            () = self.going.cancelled() => Ok(()),
            result = hooks::run(&**cri, hook, container, id, ip, hooks::POST_START_LIMIT) => result,
        };
        let Err(message) = result else { return Ok(()) };
        self.event(Some(&container.name), EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        let killing = "FailedPostStartHook".to_owned();
        self.stop(&container.name, id.to_owned(), self.desired.grace_seconds(), killing).await;
        Err(("PostStartHookError", message))
    }

    async fn inputs(&self, container: &Container, attempt: u32, image_ref: String) -> Result<ContainerInputs, String> {
        let env =
            env::resolve(container, &self.sources(container).await?, &self.fields()).map_err(|e| e.to_string())?;
        let volumes = self.volumes.lock().await;
        let all = self.desired.spec().volumes.as_deref().unwrap_or_default();
        let mut mounts = mounts::of(container, all, &env, |volume| volumes.path(volume)).map_err(|e| e.chain())?;
        let logs = self.ctx.log_dir(&self.desired.pod).join(&container.name);
        make_dir(&logs).map_err(|e| format!("cannot make {}: {e}", logs.display()))?;
        let runtime_handler = self.ctx.handler(&self.desired.pod);
        let termination_file = self.termination_file(container, attempt);
        if let Some(file) = &termination_file {
            let at = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
            mounts.push(Mount { container_path: at.to_owned(), host_path: file.clone(), ..Mount::default() });
        }
        mounts.extend(self.hosts_file(container)?);
        let seccomp_root = self.ctx.seccomp_root();
        let oom_score_adj = cgroup::oom_score_adj(self.desired.spec(), container, self.ctx.memory_bytes);
        let target_id = self.target(&container.name).await?;
        Ok(ContainerInputs {
            target_id,
            attempt,
            image_ref,
            runtime_handler,
            env,
            mounts,
            termination_file,
            seccomp_root,
            oom_score_adj,
        })
    }

    /// The container whose processes an ephemeral container is to see, if it names one.
    async fn target(&self, name: &str) -> Result<Option<String>, String> {
        let all = self.desired.spec().ephemeral_containers.iter().flatten();
        let own = all.into_iter().find(|container| container.name == name);
        let Some(target) = own.and_then(|own| own.target_container_name.clone()).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let label_selector = [
            (config::POD_UID.to_owned(), self.desired.uid().to_owned()),
            (config::CONTAINER_NAME.to_owned(), target.clone()),
        ];
        let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() });
        let filter = ContainerFilter { state, label_selector: label_selector.into(), ..ContainerFilter::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        let listed = self.call(|cri| async move { cri.list_containers(request).await }).await;
        let running = listed.map_err(|e| e.to_string())?.containers.into_iter().next();
        running.map(|container| Some(container.id)).ok_or_else(|| format!("unable to find target container {target:?}"))
    }

    /// The container's `/etc/hosts`, unless it mounts one itself.
    fn hosts_file(&self, container: &Container) -> Result<Option<Mount>, String> {
        let own = container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == HOSTS);
        if own || !self.is_oci() {
            return Ok(None);
        }
        let node = std::fs::read_to_string(HOSTS).unwrap_or_default();
        let text = hosts::text(&self.desired, &self.pod_ips, CLUSTER_DOMAIN, &node);
        let file = self.ctx.pod_dir(self.desired.uid()).join("etc-hosts");
        std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        let host_path = file.display().to_string();
        Ok(Some(Mount { container_path: HOSTS.to_owned(), host_path, ..Mount::default() }))
    }

    /// A file of the host for the container's termination message.
    fn termination_file(&self, container: &Container, attempt: u32) -> Option<String> {
        let folder = self.ctx.pod_dir(self.desired.uid()).join("containers").join(&container.name);
        let file = folder.join(attempt.to_string());
        // Any user may write it: the container need not run as root.
        let open = || std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666));
        let made = make_dir(&folder).and_then(|()| std::fs::File::create(&file)).and_then(|_| open());
        made.inspect_err(|e| tracing::warn!(error = %e, "no file for the termination message")).ok()?;
        Some(file.display().to_string())
    }

    /// Fetches what the environment refers to.
    async fn sources(&self, container: &Container) -> Result<env::Sources, String> {
        let (maps, secrets) = env::references(container);
        let namespace = self.desired.namespace();
        let mut sources = env::Sources::default();
        for name in maps {
            let found = fetch::<ConfigMap>(&self.ctx.client, namespace, &name).await.map_err(|e| e.chain())?;
            sources.config_maps.extend(found.map(|map| (name, Arc::new(map))));
        }
        for name in secrets {
            let found = fetch::<Secret>(&self.ctx.client, namespace, &name).await.map_err(|e| e.chain())?;
            sources.secrets.extend(found.map(|secret| (name, Arc::new(secret))));
        }
        // A static pod does not wait for a server.
        if !self.desired.is_static {
            self.ctx.services.synced().await;
        }
        sources.services.extend(self.ctx.services.get("default", "kubernetes"));
        sources.services.extend(self.ctx.services.list_in(namespace));
        Ok(sources)
    }

    fn resources(&self, name: &str) -> ResourceRequirements {
        self.desired.container(name).and_then(|container| container.resources.clone()).unwrap_or_default()
    }

    /// The pod's cgroup is set before and after: it must be wide enough for the container at each moment.
    async fn resize(&self, name: String, id: String) -> Outcome {
        let Ok(container) = self.container(&name) else { return Outcome::Done };
        let oom_score_adj = cgroup::oom_score_adj(self.desired.spec(), container, self.ctx.memory_bytes);
        let linux = LinuxContainerResources { oom_score_adj, ..config::resources(container) };
        let request = UpdateContainerResourcesRequest {
            container_id: id,
            linux: Some(linux),
            ..UpdateContainerResourcesRequest::default()
        };
        let pod = || match self.is_oci() {
            true => self.ctx.cgroups.make(&cgroup::path(&self.desired), &cgroup::limits(self.desired.spec())),
            false => Ok(()),
        };
        let widened = pod().map_err(|e| CriError::internal(e.to_string()));
        let updated = match widened {
            Ok(()) => self.call(|cri| async move { cri.update_container_resources(request).await }).await.map(drop),
            Err(e) => Err(e),
        };
        let done = updated.and_then(|()| pod().map_err(|e| CriError::internal(e.to_string())));
        if let Err(e) = &done {
            self.event(Some(&name), EventType::Warning, "ResizeError", format!("Error resizing container: {e}"));
        }
        let resources = self.resources(&name);
        Outcome::Resized(name, resources, done.is_ok())
    }

    async fn stop(&self, name: &str, id: String, grace_seconds: i64, message: String) -> Outcome {
        self.event(Some(name), EventType::Normal, "Killing", message);
        let left = self.pre_stop(name, &id, grace_seconds).await;
        let request = StopContainerRequest { container_id: id, timeout: left };
        done(self.call(|cri| async move { cri.stop_container(request).await }).await)
    }

    /// Runs the pre-stop hook within the grace period; what is left of it, at least two seconds if there was any.
    async fn pre_stop(&self, name: &str, id: &str, grace_seconds: i64) -> i64 {
        let container = self.desired.container(name);
        let hook = container.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
        let (Some(container), Some(hook), Some(cri), true) = (container, hook, &self.cri, grace_seconds > 0) else {
            return grace_seconds;
        };
        let begun = std::time::Instant::now();
        let within = Duration::from_secs(grace_seconds.try_into().unwrap_or(0));
        let run = hooks::run(&**cri, hook, container, id, self.pod_ips.first().copied(), within);
        if let Ok(Err(_)) = tokio::time::timeout(within, run).await {
            self.event(Some(name), EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
        let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        grace_seconds.saturating_sub(spent).max(2)
    }

    async fn finish_deletion(&self) -> Outcome {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.desired.uid().to_owned()), resource_version: None }),
            ..DeleteOptions::default()
        };
        match self.ctx.client.delete::<Pod>(self.desired.namespace(), self.desired.name(), &options).await {
            Ok(_) => Outcome::Deleted,
            Err(e) if e.code == 404 || e.code == 409 => Outcome::Deleted,
            Err(e) => Outcome::Retry(e.message),
        }
    }
}

/// What is not there any more was stopped or removed.
fn done<T>(result: Result<T, CriError>) -> Outcome {
    match result {
        Err(e) if !e.is_not_found() => Outcome::Retry(e.to_string()),
        _ => Outcome::Done,
    }
}

/// A subject with what came of its action.
pub type Finished = (Option<Subject>, Outcome);
