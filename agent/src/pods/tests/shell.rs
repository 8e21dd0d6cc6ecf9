//! The worker and the manager against a runtime and an API server in memory, with each call failing or hanging once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skiff_api::{
    request::{Request, Verb},
    status::ApiError,
    wire::Entry,
};
use skiff_client::{Client, EventRecorder, Informers, List, Transport, WatchEvent, WatchStream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    pods::manager,
    runtime::{
        Cri,
        fake::{FakeCri, Fault},
        router::Runtimes,
    },
    volumes::sources::Sources,
};

/// How many calls of a pod's life are made to go wrong, one after the other.
const CALLS: usize = 7;

/// An API server with one pod.
struct OnePod {
    pod: Mutex<Option<Value>>,
    version: Mutex<u64>,
    events: broadcast::Sender<WatchEvent>,
}

fn entry(pod: &Value) -> Arc<Entry> {
    Entry::from_wire(Bytes::from(pod.to_string()), &[]).unwrap()
}

impl OnePod {
    fn new(pod: Value) -> Arc<Self> {
        Arc::new(Self { pod: Mutex::new(Some(pod)), version: Mutex::new(1), events: broadcast::channel(64).0 })
    }

    fn change(&self, change: impl FnOnce(&mut Value)) -> Result<Bytes, ApiError> {
        let mut pod = self.pod.lock();
        let pod = pod.as_mut().ok_or_else(|| ApiError::not_found("", "pods", "p"))?;
        change(pod);
        let mut version = self.version.lock();
        *version += 1;
        pod["metadata"]["resourceVersion"] = version.to_string().into();
        let _nobody = self.events.send(WatchEvent::Modified(entry(pod)));
        Ok(Bytes::from(pod.to_string()))
    }

    fn delete(&self) -> Result<Bytes, ApiError> {
        let gone = self.pod.lock().take().ok_or_else(|| ApiError::not_found("", "pods", "p"))?;
        let _nobody = self.events.send(WatchEvent::Deleted(entry(&gone)));
        Ok(Bytes::from(gone.to_string()))
    }

    fn text(&self, path: &str) -> String {
        let pod = self.pod.lock();
        pod.as_ref()
            .and_then(|pod| pod.pointer(path))
            .map(|v| v.as_str().map_or(v.to_string(), str::to_owned))
            .unwrap_or_default()
    }
}

#[async_trait]
impl Transport for OnePod {
    async fn call(&self, request: Request) -> Result<Bytes, ApiError> {
        match (request.resource.resource.as_str(), request.verb) {
            ("pods", Verb::Patch) => {
                let patch: Value = serde_json::from_slice(&request.body).unwrap();
                self.change(|pod| pod["status"] = patch["status"].clone())
            }
            ("pods", Verb::Delete) => self.delete(),
            _ => Ok(request.body),
        }
    }

    async fn list(&self, request: Request) -> Result<List, ApiError> {
        let pod = self.pod.lock().clone().filter(|_| request.resource.resource == "pods");
        let entries = pod.iter().map(entry).collect();
        Ok(List { resource_version: *self.version.lock(), entries, continue_token: None })
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        if request.resource.resource != "pods" {
            return Ok(futures::stream::pending().boxed());
        }
        Ok(BroadcastStream::new(self.events.subscribe()).filter_map(|event| async move { event.ok().map(Ok) }).boxed())
    }
}

struct Node {
    api: Arc<OnePod>,
    cri: Arc<FakeCri>,
    dir: tempfile::TempDir,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start_on(api: Arc<OnePod>, cri: Arc<FakeCri>) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let client = Client::new(Arc::clone(&api) as Arc<dyn Transport>);
    let informers = Informers::new(client.clone(), cancel.clone());
    let ctx = Arc::new(Context {
        node_name: "n1".into(),
        host_ips: vec!["127.0.0.1".parse().unwrap()],
        data_dir: dir.path().to_owned(),
        recorder: EventRecorder::new(client.clone(), "kubelet", "n1", cancel.clone()),
        sources: Sources::new(&client, &cancel),
        client,
        runtimes: Runtimes::new(vec![(Arc::clone(&cri) as Arc<dyn Cri>, vec![String::new()])]),
        runtime_name: "fake".into(),
        allocatable: Default::default(),
        pods: informers.of(),
        services: informers.of(),
        runtime_classes: informers.of(),
    });
    let task = tokio::spawn(manager::run(ctx, cancel.clone()));
    Node { api, cri, dir, cancel, task }
}

fn pod(policy: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {
            "nodeName": "n1", "restartPolicy": policy, "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "a", "image": "x:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        },
    })
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(40), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

fn delete(api: &OnePod) {
    api.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    })
    .unwrap();
}

const READY: &str = "/status/containerStatuses/0/ready";

#[tokio::test]
async fn a_pod_runs_restarts_and_goes() {
    let node = start_on(OnePod::new(pod("Always")), FakeCri::new(None));
    until("ready", || node.api.text(READY) == "true").await;
    assert_eq!(node.api.text("/status/phase"), "Running");
    assert_eq!(node.api.text("/status/podIP"), "127.64.0.2");
    assert!(node.api.text("/status/containerStatuses/0/containerID").starts_with("fake://c"));
    node.cri.exit("a", 2);
    until("restarted", || {
        node.api.text("/status/containerStatuses/0/restartCount") == "1" && node.api.text(READY) == "true"
    })
    .await;
    assert_eq!(node.api.text("/status/containerStatuses/0/lastState/terminated/exitCode"), "2");
    delete(&node.api);
    until("gone", || node.api.pod.lock().is_none()).await;
    assert!(node.cri.is_empty());
    assert!(!node.dir.path().join("pods/u").exists());
    node.cancel.cancel();
    node.task.await.unwrap();
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_removes_what_nobody_wants() {
    let cri = FakeCri::new(None);
    let node = start_on(OnePod::new(pod("Always")), Arc::clone(&cri));
    until("ready", || node.api.text(READY) == "true").await;
    node.cancel.cancel();
    node.task.await.unwrap();
    let before = cri.calls();
    let again = start_on(Arc::clone(&node.api), Arc::clone(&cri));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cri.calls(), before, "a restart of the agent touched the pod");
    again.cancel.cancel();
    again.task.await.unwrap();
    node.api.delete().unwrap();
    let last = start_on(Arc::clone(&node.api), Arc::clone(&cri));
    until("the orphan is gone", || cri.is_empty()).await;
    last.cancel.cancel();
    last.task.await.unwrap();
}

#[tokio::test]
async fn a_pod_that_is_not_restarted_ends() {
    let node = start_on(OnePod::new(pod("Never")), FakeCri::new(None));
    until("ready", || node.api.text(READY) == "true").await;
    node.cri.exit("a", 0);
    until("succeeded", || node.api.text("/status/phase") == "Succeeded").await;
    assert_eq!(node.api.text("/status/containerStatuses/0/state/terminated/reason"), "Completed");
    node.cancel.cancel();
}

/// Whichever call of a pod's life fails or hangs: the pod runs in the end, no try is started twice, nothing is left.
#[tokio::test]
async fn any_call_may_fail_or_hang_once() {
    let faults = (0..CALLS).flat_map(|n| [Fault::Fail(n), Fault::Hang(n)]);
    futures::future::join_all(faults.map(|fault| async move {
        let node = start_on(OnePod::new(pod("Always")), FakeCri::new(Some(fault)));
        until(&format!("ready with {fault:?}"), || node.api.text(READY) == "true").await;
        delete(&node.api);
        until(&format!("gone with {fault:?}"), || node.api.pod.lock().is_none()).await;
        assert!(node.cri.is_empty() && node.cri.most_starts() == 1, "{fault:?}");
        node.cancel.cancel();
    }))
    .await;
}
