//! CRI's RuntimeService.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use tokio_stream::{StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status};

use super::{stats, view};
use crate::{
    error::Failure,
    runtime::Runtime,
    streaming::{Desk, Ticket, Wanted},
};

/// The service.
pub(crate) struct Service(pub(crate) Arc<Runtime>, pub(crate) Arc<Desk>);

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

fn unimplemented<T>(what: &str) -> Answer<T> {
    Err(Failure::Unimplemented(format!("the Wasm runtime does not do {what}")).into())
}

/// The streams that a caller wants, by CRI's rules.
fn wanted(wanted: Wanted) -> Result<Wanted, Failure> {
    if wanted.terminal && wanted.stderr {
        return Err(Failure::Invalid("tty and stderr cannot both be true".into()));
    }
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(Failure::Invalid("one of stdin, stdout, or stderr must be set".into()));
    }
    Ok(wanted)
}

/// The versions that CRI asks for.
const KUBE_API_VERSION: &str = "0.1.0";
const CRI_VERSION: &str = "v1";

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        answer(cri::VersionResponse {
            version: KUBE_API_VERSION.into(),
            runtime_name: "skiff-wasm".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: CRI_VERSION.into(),
        })
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let info = if request.into_inner().verbose { self.info() } else { HashMap::new() };
        let network = self.0.has_network();
        let condition = |kind: &str, status: bool, reason: &str, message: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { String::new() } else { reason.into() },
            message: if status { String::new() } else { message.into() },
        };
        let conditions = vec![
            condition("RuntimeReady", true, "", ""),
            condition("NetworkReady", network, "NetworkPluginNotReady", "the node has no pod range yet"),
        ];
        let features = cri::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        let handler = |name: &str| cri::RuntimeHandler { name: name.into(), features: Some(features) };
        answer(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            info,
            runtime_handlers: vec![handler(""), handler("wasm")],
            features: Some(cri::RuntimeFeatures { supplemental_groups_policy: false }),
        })
    }

    async fn runtime_config(&self, _: Request<cri::RuntimeConfigRequest>) -> Answer<cri::RuntimeConfigResponse> {
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: cri::CgroupDriver::Cgroupfs.into() };
        answer(cri::RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config);
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            self.0.set_pod_cidr(&network.pod_cidr)?;
        }
        answer(cri::UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: Request<cri::RunPodSandboxRequest>) -> Answer<cri::RunPodSandboxResponse> {
        let pod_sandbox_id = self.0.run_sandbox(request.into_inner())?;
        answer(cri::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        self.0.stop_sandbox(&request.into_inner().pod_sandbox_id).await?;
        answer(cri::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        self.0.remove_sandbox(&request.into_inner().pod_sandbox_id).await?;
        answer(cri::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let sandbox = self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        let containers = self.0.containers_of(&sandbox.id);
        answer(cri::PodSandboxStatusResponse {
            status: Some(view::sandbox_status(&sandbox)),
            info: HashMap::new(),
            containers_statuses: containers.iter().map(|one| view::container_status(one)).collect(),
            timestamp: crate::disk::now_ns(),
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let filter = request.into_inner().filter;
        let items = self.0.sandboxes().into_iter().map(|one| view::sandbox_item(&one));
        let mut items: Vec<_> = items.filter(|item| view::sandbox_passes(item, filter.as_ref())).collect();
        items.sort_by_key(|item| item.created_at);
        answer(cri::ListPodSandboxResponse { items })
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let container_id = self.0.create_container(request.into_inner()).await?;
        answer(cri::CreateContainerResponse { container_id })
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        self.0.start_container(&request.into_inner().container_id)?;
        answer(cri::StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<cri::StopContainerRequest>) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        // By CRI's rule one that is not there counts as stopped.
        if let Ok(container) = self.0.container(&request.container_id) {
            let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
            self.0.stop_container(&container, grace).await?;
        }
        answer(cri::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        self.0.remove_container(&request.into_inner().container_id).await?;
        answer(cri::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let filter = request.into_inner().filter;
        let items = self.0.containers().into_iter().map(|one| view::container_item(&one));
        let mut containers: Vec<_> = items.filter(|item| view::container_passes(item, filter.as_ref())).collect();
        containers.sort_by_key(|item| item.created_at);
        answer(cri::ListContainersResponse { containers })
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        answer(cri::ContainerStatusResponse { status: Some(view::container_status(&container)), info: HashMap::new() })
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        container.set_resources(request.linux.unwrap_or_default());
        answer(cri::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        let Some(log) = container.log() else {
            return Err(Failure::Precondition(format!("container {:?} is not running", container.id)).into());
        };
        log.reopen().map_err(Failure::io("open the container's log anew"))?;
        answer(cri::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let (exit, stdout, stderr) = self.0.exec_sync(&request.container_id, &request.cmd, timeout).await?;
        answer(cri::ExecSyncResponse { stdout, stderr, exit_code: exit.code })
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request.into_inner();
        let wanted = wanted(Wanted { stdin, stdout, stderr, terminal: tty })?;
        if cmd.is_empty() {
            return Err(Failure::Invalid("cmd cannot be empty".into()).into());
        }
        let container = self.0.running(&container_id)?.id.clone();
        let url = self.1.issue(Ticket::Exec { container, command: cmd, wanted })?;
        answer(cri::ExecResponse { url })
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let cri::AttachRequest { container_id, stdin, tty, stdout, stderr } = request.into_inner();
        let wanted = wanted(Wanted { stdin, stdout, stderr, terminal: tty })?;
        let container = self.0.running(&container_id)?.id.clone();
        let url = self.1.issue(Ticket::Attach { container, wanted })?;
        answer(cri::AttachResponse { url })
    }

    async fn port_forward(&self, request: Request<cri::PortForwardRequest>) -> Answer<cri::PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Failure::Precondition(format!("sandbox {:?} is not ready", sandbox.id)).into());
        }
        let ports = request.port.into_iter().filter_map(|port| u16::try_from(port).ok()).collect();
        let url = self.1.issue(Ticket::PortForward { sandbox: sandbox.id.clone(), ports })?;
        answer(cri::PortForwardResponse { url })
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        answer(cri::ContainerStatsResponse { stats: Some(stats::container(&self.0, &container)) })
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let running = self.0.containers().into_iter().filter(|one| one.is_running());
        let wanted = running.filter(|one| {
            view::has_id(&one.id, &filter.id)
                && view::has_id(&one.sandbox, &filter.pod_sandbox_id)
                && view::has_labels(&one.config.labels, &filter.label_selector)
        });
        answer(cri::ListContainerStatsResponse { stats: wanted.map(|one| stats::container(&self.0, &one)).collect() })
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let sandbox = self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        answer(cri::PodSandboxStatsResponse { stats: Some(stats::sandbox(&self.0, &sandbox)) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let ready = self.0.sandboxes().into_iter().filter(|one| one.is_ready());
        let wanted = ready.filter(|one| {
            view::has_id(&one.id, &filter.id) && view::has_labels(&one.config.labels, &filter.label_selector)
        });
        answer(cri::ListPodSandboxStatsResponse { stats: wanted.map(|one| stats::sandbox(&self.0, &one)).collect() })
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        unimplemented("checkpoints")
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        // Who falls behind misses events; the state is there to be asked for, as after any gap.
        let events = BroadcastStream::new(self.0.subscribe()).filter_map(|event| event.ok().map(Ok));
        answer(Box::pin(events))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        answer(cri::ListMetricDescriptorsResponse { descriptors: Vec::new() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        answer(cri::ListPodSandboxMetricsResponse { pod_metrics: Vec::new() })
    }
}

impl Service {
    /// What a person may want to know of the runtime.
    fn info(&self) -> HashMap<String, String> {
        let (sandboxes, containers) = (self.0.sandboxes().len(), self.0.containers().len());
        let compiled = self.0.compiler.compiled();
        let config = format!(
            r#"{{"engine":"wasmtime","sandboxes":{sandboxes},"containers":{containers},"compiled":{compiled}}}"#
        );
        HashMap::from([("config".to_owned(), config)])
    }
}
