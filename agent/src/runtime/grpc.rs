//! The client of a CRI socket.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    Cri, CriError,
    cri::{Events, deadline, with_calls},
};

/// The largest answer that is taken, as the kubelet's.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A runtime behind a Unix socket. Connects when first used, and again after the runtime went away.
#[derive(Clone, Debug)]
pub struct CriSocket {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
}

impl CriSocket {
    /// The runtime of a socket; does not connect yet.
    pub fn new(socket: &Path) -> Self {
        let path: PathBuf = socket.to_owned();
        // The URI is not used: the connector knows the path.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            }));
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            image: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        }
    }
}

macro_rules! implement {
    ($($service:ident $name:ident($request:ident) -> $response:ident, $deadline:expr;)*) => {
        #[async_trait]
        impl Cri for CriSocket {
            $(
                async fn $name(&self, request: v1::$request) -> Result<v1::$response, CriError> {
                    let within = deadline::$name(&request);
                    let mut client = self.$service.clone();
                    match tokio::time::timeout(within, client.$name(request)).await {
                        Ok(answer) => Ok(answer?.into_inner()),
                        Err(_) => Err(CriError::timeout(stringify!($name), within)),
                    }
                }
            )*

            async fn events(&self) -> Result<Events, CriError> {
                let stream = self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await?;
                Ok(stream.into_inner().map(|event| event.map_err(CriError::from)).boxed())
            }
        }
    };
}
with_calls!(implement);
