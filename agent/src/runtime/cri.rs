//! The CRI calls that the agent makes, as a trait: the socket's client, the router above several runtimes and the
//! recording fake of the tests implement it.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_cri::v1;

use super::CriError;

/// How long a call may take that does no work of unknown length.
const CALL: Duration = Duration::from_secs(120);
/// How long a query may take.
const QUERY: Duration = Duration::from_secs(20);
/// How long a pull may take.
const PULL: Duration = Duration::from_secs(3600);
/// What is added to a timeout that a request itself carries.
const SLACK: Duration = Duration::from_secs(10);

fn seconds(given: i64) -> Duration {
    Duration::from_secs(given.try_into().unwrap_or(0)) + SLACK
}

/// The events of a runtime; ends when the connection does.
pub type Events = BoxStream<'static, Result<v1::ContainerEventResponse, CriError>>;

/// Hands the list of unary calls to a macro: service, method, request, response, deadline.
macro_rules! with_calls {
    ($then:ident) => {
        $then! {
            runtime version(VersionRequest) -> VersionResponse, |_| QUERY;
            runtime status(StatusRequest) -> StatusResponse, |_| QUERY;
            runtime update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse, |_| QUERY;
            runtime run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse, |_| CALL;
            runtime stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse, |_| CALL;
            runtime remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse, |_| CALL;
            runtime pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse, |_| QUERY;
            runtime list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse, |_| QUERY;
            runtime create_container(CreateContainerRequest) -> CreateContainerResponse, |_| CALL;
            runtime start_container(StartContainerRequest) -> StartContainerResponse, |_| CALL;
            runtime stop_container(StopContainerRequest) -> StopContainerResponse, |r| seconds(r.timeout);
            runtime remove_container(RemoveContainerRequest) -> RemoveContainerResponse, |_| CALL;
            runtime list_containers(ListContainersRequest) -> ListContainersResponse, |_| QUERY;
            runtime container_status(ContainerStatusRequest) -> ContainerStatusResponse, |_| QUERY;
            runtime update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse,
                |_| CALL;
            runtime reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse, |_| QUERY;
            runtime exec_sync(ExecSyncRequest) -> ExecSyncResponse,
                |r| if r.timeout > 0 { seconds(r.timeout) } else { CALL };
            runtime exec(ExecRequest) -> ExecResponse, |_| QUERY;
            runtime attach(AttachRequest) -> AttachResponse, |_| QUERY;
            runtime port_forward(PortForwardRequest) -> PortForwardResponse, |_| QUERY;
            runtime list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse, |_| QUERY;
            image list_images(ListImagesRequest) -> ListImagesResponse, |_| QUERY;
            image image_status(ImageStatusRequest) -> ImageStatusResponse, |_| QUERY;
            image remove_image(RemoveImageRequest) -> RemoveImageResponse, |_| CALL;
            image pull_image(PullImageRequest) -> PullImageResponse, |_| PULL;
            image image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse, |_| QUERY;
        }
    };
}
pub(crate) use with_calls;

macro_rules! define_trait {
    ($($service:ident $name:ident($request:ident) -> $response:ident, $deadline:expr;)*) => {
        /// A container runtime, by the calls of CRI v1. Every call ends: implementations keep deadlines.
        #[async_trait]
        pub trait Cri: Send + Sync + 'static {
            $(
                #[doc = concat!("The CRI call `", stringify!($request), "`.")]
                async fn $name(&self, request: v1::$request) -> Result<v1::$response, CriError>;
            )*
            /// The events of containers and sandboxes (KEP-3386).
            async fn events(&self) -> Result<Events, CriError>;
        }

        /// How long each call may take.
        pub(crate) mod deadline {
            use super::{CALL, PULL, QUERY, seconds};
            use std::time::Duration;
            use k8s_cri::v1;
            $(
                #[allow(clippy::redundant_closure_call, reason = "one form for all calls")]
                pub(crate) fn $name(request: &v1::$request) -> Duration {
                    let of: fn(&v1::$request) -> Duration = $deadline;
                    of(request)
                }
            )*
        }
    };
}
with_calls!(define_trait);
