//! Hears from a runtime that something happened to a pod: by its events (KEP-3386), or, where it has none, by asking
//! every second.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_cri::v1::{ListContainersRequest, ListPodSandboxRequest};
use skiff_client::backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cri, CriError};
use crate::pods::config::POD_UID;

/// How often a runtime without events is asked.
const RELIST: Duration = Duration::from_secs(1);
/// The first and the longest wait for a runtime that is away.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something happened to the pod of this UID.
    Pod(String),
    /// Events may have been missed: look at every pod.
    All,
    /// The runtime went away.
    Gone,
}

/// Tells what is heard of a runtime until cancelled.
pub async fn watch(cri: Arc<dyn Cri>, heard: mpsc::Sender<Heard>, cancel: CancellationToken) {
    let mut delay = backoff::Backoff::new(RECONNECT.0, RECONNECT.1);
    loop {
        let ended = tokio::select! {
            () = cancel.cancelled() => return,
            ended = follow(&*cri, &heard) => ended,
        };
        match ended {
            Err(e) if e.is_unimplemented() => {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = relist(&*cri, &heard) => {}
                }
            }
            Ok(()) => delay.reset(),
            Err(e) => tracing::debug!(error = %e, "no events from the runtime"),
        }
        let _closed = heard.send(Heard::Gone).await;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(delay.next(backoff::random())) => {}
        }
    }
}

async fn follow(cri: &dyn Cri, heard: &mpsc::Sender<Heard>) -> Result<(), CriError> {
    let mut events = cri.events().await?;
    let _closed = heard.send(Heard::All).await;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(e) if e.is_unimplemented() => return Err(e),
            Err(_) => break,
        };
        let uid = event.pod_sandbox_status.and_then(|status| status.metadata).map(|metadata| metadata.uid);
        let what = uid.map_or(Heard::All, Heard::Pod);
        if heard.send(what).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Asks every second and compares; ends when the runtime does not answer.
async fn relist(cri: &dyn Cri, heard: &mpsc::Sender<Heard>) {
    let mut before = BTreeMap::new();
    let _closed = heard.send(Heard::All).await;
    while let Ok(now) = states(cri).await {
        let ids = before.keys().chain(now.keys()).collect::<std::collections::BTreeSet<_>>();
        for id in ids {
            let (old, new) = (before.get(id), now.get(id));
            if old != new {
                let uid = new.or(old).map(|(uid, _): &(String, i32)| uid.clone()).unwrap_or_default();
                let _closed = heard.send(Heard::Pod(uid)).await;
            }
        }
        before = now;
        tokio::time::sleep(RELIST).await;
    }
}

/// Every sandbox and container with its pod's UID and its state.
async fn states(cri: &dyn Cri) -> Result<BTreeMap<String, (String, i32)>, CriError> {
    let sandboxes = cri.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await?.items;
    let containers = cri.list_containers(ListContainersRequest { filter: None }).await?.containers;
    let uid = |labels: &std::collections::HashMap<String, String>| labels.get(POD_UID).cloned().unwrap_or_default();
    let sandboxes = sandboxes.into_iter().map(|item| (item.id, (uid(&item.labels), item.state)));
    let containers = containers.into_iter().map(|item| (item.id, (uid(&item.labels), item.state)));
    Ok(sandboxes.chain(containers).collect())
}
