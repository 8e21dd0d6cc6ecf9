//! What the tests of controllers share: a controller that runs against an API in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{future::Future, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value;
use skiff_client::{Client, EventRecorder, Informers, fake::FakeApi};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::frame::Context;

/// A controller that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) api: Arc<FakeApi>,
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    _stop: DropGuard,
}

impl Running {
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(Context) -> F) -> Self {
        let (api, cancel) = (FakeApi::new(), CancellationToken::new());
        let client = api.client();
        let informers = Informers::new(client.clone(), cancel.clone());
        let events = EventRecorder::new(client.clone(), "test", "", cancel.clone());
        let context = Context { client: client.clone(), informers: informers.clone(), events, cancel: cancel.clone() };
        tokio::spawn(run(context));
        Self { api, client, informers, _stop: cancel.drop_guard() }
    }
}

/// One of k8s-openapi's types from JSON.
pub(crate) fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

/// Waits until a condition holds; fails after a minute, which is long even for a busy machine.
pub(crate) async fn eventually(condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "it did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
