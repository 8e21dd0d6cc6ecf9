//! Services in user space.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use skiff_client::{EventRecorder, Informer};
use tokio_util::sync::CancellationToken;

/// Keeps the listeners until cancelled.
pub async fn run(_services: Arc<Informer<Service>>, _slices: Arc<Informer<EndpointSlice>>, _recorder: EventRecorder, cancel: CancellationToken) {
    cancel.cancelled().await;
}
