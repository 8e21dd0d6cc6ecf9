//! A runtime in memory for tests: records every call, and fails or hangs the n-th one.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::StreamExt;
use k8s_cri::v1::{self, ContainerState, PodSandboxState};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::Code;

use super::{Cri, CriError, cri::Events};

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The n-th call fails.
    Fail(usize),
    /// The n-th call is not answered; an error after a while, as from the socket's client, which keeps deadlines.
    Hang(usize),
}

#[derive(Default)]
struct State {
    calls: Vec<&'static str>,
    fault: Option<Fault>,
    sandboxes: BTreeMap<String, v1::PodSandboxStatus>,
    containers: BTreeMap<String, (String, v1::ContainerStatus)>,
    starts: BTreeMap<(String, u32), usize>,
    ids: usize,
}

/// The runtime.
pub(crate) struct FakeCri {
    state: Mutex<State>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
}

fn not_found(id: &str) -> CriError {
    CriError { code: Code::NotFound, message: format!("{id} not found") }
}

impl FakeCri {
    /// A runtime with a fault.
    pub(crate) fn new(fault: Option<Fault>) -> Arc<Self> {
        let state = State { fault, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), events: broadcast::channel(64).0 })
    }

    /// Which calls were made, queries left out.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.state.lock().calls.clone()
    }

    /// How often each try of a container was started, at most.
    pub(crate) fn most_starts(&self) -> usize {
        self.state.lock().starts.values().copied().max().unwrap_or(0)
    }

    /// Whether there is anything.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    /// A running container ends by itself.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let mut state = self.state.lock();
        let running = |status: &v1::ContainerStatus| status.state() == ContainerState::ContainerRunning;
        let named = |status: &v1::ContainerStatus| status.metadata.as_ref().is_some_and(|m| m.name == name);
        for (_, status) in state.containers.values_mut().filter(|(_, status)| named(status) && running(status)) {
            end(status, code);
        }
        let sandbox = state.sandboxes.values().next().cloned();
        drop(state);
        let _nobody =
            self.events.send(v1::ContainerEventResponse { pod_sandbox_status: sandbox, ..Default::default() });
    }

    async fn enter(&self, call: &'static str) -> Result<(), CriError> {
        let fault = {
            let mut state = self.state.lock();
            state.calls.push(call);
            let at = state.calls.len() - 1;
            state.fault.filter(|fault| matches!(fault, Fault::Fail(n) | Fault::Hang(n) if *n == at))
        };
        match fault {
            None => Ok(()),
            Some(Fault::Fail(_)) => Err(CriError { code: Code::Unknown, message: format!("{call} is made to fail") }),
            Some(Fault::Hang(_)) => {
                let within = std::time::Duration::from_millis(300);
                tokio::time::sleep(within).await;
                Err(CriError::timeout(call, within))
            }
        }
    }

    fn run_sandbox(&self, request: v1::RunPodSandboxRequest) -> v1::RunPodSandboxResponse {
        let mut state = self.state.lock();
        state.ids += 1;
        let id = format!("s{}", state.ids);
        let config = request.config.unwrap_or_default();
        let status = v1::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            labels: config.labels,
            network: Some(v1::PodSandboxNetworkStatus { ip: "127.64.0.2".into(), ..Default::default() }),
            runtime_handler: request.runtime_handler,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        v1::RunPodSandboxResponse { pod_sandbox_id: id }
    }

    fn create(&self, request: v1::CreateContainerRequest) -> Result<v1::CreateContainerResponse, CriError> {
        let mut state = self.state.lock();
        if !state.sandboxes.contains_key(&request.pod_sandbox_id) {
            return Err(not_found(&request.pod_sandbox_id));
        }
        state.ids += 1;
        let id = format!("c{}", state.ids);
        let config = request.config.unwrap_or_default();
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
            image: config.image,
            state: ContainerState::ContainerCreated.into(),
            ..Default::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        Ok(v1::CreateContainerResponse { container_id: id })
    }

    fn start(&self, id: &str) -> Result<v1::StartContainerResponse, CriError> {
        let mut state = self.state.lock();
        let (_, status) = state.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        status.set_state(ContainerState::ContainerRunning);
        status.started_at = now();
        let metadata = status.metadata.clone().unwrap_or_default();
        *state.starts.entry((metadata.name, metadata.attempt)).or_default() += 1;
        Ok(v1::StartContainerResponse {})
    }

    fn answer<T: Default>(&self, change: impl FnOnce(&mut State)) -> T {
        change(&mut self.state.lock());
        T::default()
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

fn end(status: &mut v1::ContainerStatus, code: i32) {
    status.set_state(ContainerState::ContainerExited);
    status.exit_code = code;
    status.finished_at = now();
}

fn absent(call: &str) -> CriError {
    CriError { code: Code::Unimplemented, message: call.to_owned() }
}

#[async_trait]
impl Cri for FakeCri {
    async fn version(&self, _: v1::VersionRequest) -> Result<v1::VersionResponse, CriError> {
        Ok(v1::VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..Default::default() })
    }

    async fn status(&self, _: v1::StatusRequest) -> Result<v1::StatusResponse, CriError> {
        Ok(v1::StatusResponse::default())
    }

    async fn update_runtime_config(
        &self,
        _: v1::UpdateRuntimeConfigRequest,
    ) -> Result<v1::UpdateRuntimeConfigResponse, CriError> {
        Ok(v1::UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: v1::RunPodSandboxRequest) -> Result<v1::RunPodSandboxResponse, CriError> {
        self.enter("run_pod_sandbox").await?;
        Ok(self.run_sandbox(request))
    }

    async fn stop_pod_sandbox(
        &self,
        request: v1::StopPodSandboxRequest,
    ) -> Result<v1::StopPodSandboxResponse, CriError> {
        self.enter("stop_pod_sandbox").await?;
        Ok(self.answer(|state| {
            if let Some(sandbox) = state.sandboxes.get_mut(&request.pod_sandbox_id) {
                sandbox.set_state(PodSandboxState::SandboxNotready);
            }
        }))
    }

    async fn remove_pod_sandbox(
        &self,
        request: v1::RemovePodSandboxRequest,
    ) -> Result<v1::RemovePodSandboxResponse, CriError> {
        self.enter("remove_pod_sandbox").await?;
        Ok(self.answer(|state| {
            state.sandboxes.remove(&request.pod_sandbox_id);
            state.containers.retain(|_, (sandbox, _)| *sandbox != request.pod_sandbox_id);
        }))
    }

    async fn pod_sandbox_status(
        &self,
        request: v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse, CriError> {
        let status = self.state.lock().sandboxes.get(&request.pod_sandbox_id).cloned();
        let status = Some(status.ok_or_else(|| not_found(&request.pod_sandbox_id))?);
        Ok(v1::PodSandboxStatusResponse { status, ..Default::default() })
    }

    async fn list_pod_sandbox(&self, _: v1::ListPodSandboxRequest) -> Result<v1::ListPodSandboxResponse, CriError> {
        let state = self.state.lock();
        let item = |status: &v1::PodSandboxStatus| v1::PodSandbox {
            id: status.id.clone(),
            labels: status.labels.clone(),
            state: status.state,
            runtime_handler: status.runtime_handler.clone(),
            ..Default::default()
        };
        Ok(v1::ListPodSandboxResponse { items: state.sandboxes.values().map(item).collect() })
    }

    async fn create_container(
        &self,
        request: v1::CreateContainerRequest,
    ) -> Result<v1::CreateContainerResponse, CriError> {
        self.enter("create_container").await?;
        self.create(request)
    }

    async fn start_container(
        &self,
        request: v1::StartContainerRequest,
    ) -> Result<v1::StartContainerResponse, CriError> {
        self.enter("start_container").await?;
        self.start(&request.container_id)
    }

    async fn stop_container(&self, request: v1::StopContainerRequest) -> Result<v1::StopContainerResponse, CriError> {
        self.enter("stop_container").await?;
        Ok(self.answer(|state| {
            if let Some((_, status)) = state.containers.get_mut(&request.container_id) {
                end(status, 143);
            }
        }))
    }

    async fn remove_container(
        &self,
        request: v1::RemoveContainerRequest,
    ) -> Result<v1::RemoveContainerResponse, CriError> {
        self.enter("remove_container").await?;
        Ok(self.answer(|state| drop(state.containers.remove(&request.container_id))))
    }

    async fn list_containers(&self, _: v1::ListContainersRequest) -> Result<v1::ListContainersResponse, CriError> {
        let state = self.state.lock();
        let item = |(sandbox, status): &(String, v1::ContainerStatus)| v1::Container {
            id: status.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            state: status.state,
            labels: status.labels.clone(),
            ..Default::default()
        };
        Ok(v1::ListContainersResponse { containers: state.containers.values().map(item).collect() })
    }

    async fn container_status(
        &self,
        request: v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse, CriError> {
        let found = self.state.lock().containers.get(&request.container_id).cloned();
        let (_, status) = found.ok_or_else(|| not_found(&request.container_id))?;
        Ok(v1::ContainerStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn image_status(&self, request: v1::ImageStatusRequest) -> Result<v1::ImageStatusResponse, CriError> {
        self.enter("image_status").await?;
        let id = request.image.unwrap_or_default().image;
        Ok(v1::ImageStatusResponse { image: Some(v1::Image { id, ..Default::default() }), ..Default::default() })
    }

    async fn reopen_container_log(
        &self,
        _: v1::ReopenContainerLogRequest,
    ) -> Result<v1::ReopenContainerLogResponse, CriError> {
        Err(absent("reopen_container_log"))
    }

    async fn exec_sync(&self, _: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, CriError> {
        Err(absent("exec_sync"))
    }

    async fn exec(&self, _: v1::ExecRequest) -> Result<v1::ExecResponse, CriError> {
        Err(absent("exec"))
    }

    async fn attach(&self, _: v1::AttachRequest) -> Result<v1::AttachResponse, CriError> {
        Err(absent("attach"))
    }

    async fn port_forward(&self, _: v1::PortForwardRequest) -> Result<v1::PortForwardResponse, CriError> {
        Err(absent("port_forward"))
    }

    async fn list_container_stats(
        &self,
        _: v1::ListContainerStatsRequest,
    ) -> Result<v1::ListContainerStatsResponse, CriError> {
        Err(absent("list_container_stats"))
    }

    async fn list_images(&self, _: v1::ListImagesRequest) -> Result<v1::ListImagesResponse, CriError> {
        Err(absent("list_images"))
    }

    async fn update_container_resources(
        &self,
        _: v1::UpdateContainerResourcesRequest,
    ) -> Result<v1::UpdateContainerResourcesResponse, CriError> {
        self.enter("update_container_resources").await?;
        Ok(v1::UpdateContainerResourcesResponse {})
    }

    async fn remove_image(&self, _: v1::RemoveImageRequest) -> Result<v1::RemoveImageResponse, CriError> {
        Err(absent("remove_image"))
    }

    async fn pull_image(&self, _: v1::PullImageRequest) -> Result<v1::PullImageResponse, CriError> {
        Err(absent("pull_image"))
    }

    async fn image_fs_info(&self, _: v1::ImageFsInfoRequest) -> Result<v1::ImageFsInfoResponse, CriError> {
        Err(absent("image_fs_info"))
    }

    async fn events(&self) -> Result<Events, CriError> {
        let stream = BroadcastStream::new(self.events.subscribe());
        Ok(stream.filter_map(|event| async move { event.ok().map(Ok) }).boxed())
    }
}
