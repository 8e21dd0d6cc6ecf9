//! The worker and the manager against a runtime and an API server in memory, with each call failing or hanging once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skiff_api::{
    request::{Request, Verb},
    status::{ApiError, Reason},
    wire::Entry,
};
use skiff_client::{Client, EventRecorder, Informers, List, Transport, WatchEvent, WatchStream};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Clock, Context},
    keep::{transport::Keeping, vault::Vault},
    pods::{manager, statics::Statics},
    runtime::{
        Cri,
        fake::{FakeCri, Fault},
        router::{Runtime, Runtimes},
    },
    volumes::sources::Sources,
};

/// The least life of a token that the API gives.
pub(super) const TOKEN_SECONDS: i64 = 600;

/// How many calls of a pod's life are made to go wrong, one after the other.
const CALLS: usize = 7;

/// An API server with one pod, a secret, and tokens of the least life.
pub(super) struct OnePod {
    pod: Mutex<Option<Value>>,
    /// How many tokens have been asked for, and whether they are given.
    pub(super) tokens: Mutex<(u32, bool)>,
    clock: Clock,
    version: Mutex<u64>,
    away: watch::Sender<bool>,
    events: broadcast::Sender<WatchEvent>,
}

fn entry(pod: &Value) -> Arc<Entry> {
    Entry::from_wire(Bytes::from(pod.to_string()), &[]).unwrap()
}

impl OnePod {
    fn new(pod: Value) -> Arc<Self> {
        Self::at(pod, Arc::new(Timestamp::now))
    }

    /// One that shares a clock with the node.
    pub(super) fn at(pod: Value, clock: Clock) -> Arc<Self> {
        let (pod, version, tokens) = (Mutex::new(Some(pod)), Mutex::new(1), Mutex::new((0, true)));
        Arc::new(Self {
            pod,
            tokens,
            clock,
            version,
            away: watch::Sender::new(false),
            events: broadcast::channel(64).0,
        })
    }

    /// Each token differs from those before.
    fn token(&self) -> Result<Bytes, ApiError> {
        let mut tokens = self.tokens.lock();
        tokens.0 += 1;
        if !tokens.1 {
            return Err(ApiError::internal("no token is given"));
        }
        let expires = (self.clock)() + SignedDuration::from_secs(TOKEN_SECONDS);
        let status = json!({"token": format!("token-{}", tokens.0), "expirationTimestamp": expires.to_string()});
        Ok(json!({"spec": {"audiences": [], "expirationSeconds": TOKEN_SECONDS}, "status": status}).to_string().into())
    }

    /// Whether it answers.
    fn reached(&self) -> Result<(), ApiError> {
        match *self.away.borrow() {
            true => Err(ApiError::new(Reason::ServiceUnavailable, "the server is away")),
            false => Ok(()),
        }
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

    pub(super) fn text(&self, path: &str) -> String {
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
        self.reached()?;
        match (request.resource.resource.as_str(), request.verb) {
            ("pods", Verb::Patch) => {
                let patch: Value = serde_json::from_slice(&request.body).unwrap();
                self.change(|pod| pod["status"] = patch["status"].clone())
            }
            ("pods", Verb::Delete) => self.delete(),
            ("serviceaccounts", Verb::Create) => self.token(),
            ("secrets", Verb::Get) => Ok(Bytes::from_static(br#"{"metadata":{"name":"s"},"data":{"key":"dmFsdWU="}}"#)),
            _ => Ok(request.body),
        }
    }

    async fn list(&self, request: Request) -> Result<List, ApiError> {
        self.reached()?;
        let pod = self.pod.lock().clone().filter(|_| request.resource.resource == "pods");
        let entries = pod.iter().map(entry).collect();
        Ok(List { resource_version: *self.version.lock(), entries, continue_token: None })
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        self.reached()?;
        if request.resource.resource != "pods" {
            return Ok(futures::stream::pending().boxed());
        }
        let events =
            BroadcastStream::new(self.events.subscribe()).filter_map(|event| async move { event.ok().map(Ok) });
        // A connection ends when the server goes away.
        let mut away = self.away.subscribe();
        Ok(events.take_until(async move { away.wait_for(|away| *away).await.is_ok() }).boxed())
    }
}

pub(super) struct Node {
    statics: watch::Sender<Statics>,
    pub(super) api: Arc<OnePod>,
    cri: Arc<FakeCri>,
    pub(super) dir: tempfile::TempDir,
    pub(super) cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub(super) fn start_on(api: Arc<OnePod>, cri: Arc<FakeCri>) -> Node {
    start_in(tempfile::tempdir().unwrap(), api, cri)
}

fn start_in(dir: tempfile::TempDir, api: Arc<OnePod>, cri: Arc<FakeCri>) -> Node {
    let cancel = CancellationToken::new();
    let vault = Vault::open(&dir.path().join("kept")).unwrap();
    let client = Client::new(Keeping::new(Arc::clone(&api) as Arc<dyn Transport>, vault));
    let informers = Informers::new(client.clone(), cancel.clone());
    let ctx = Arc::new(Context {
        clock: Arc::clone(&api.clock),
        conditions: watch::Sender::default(),
        node_cores_nano: Default::default(),
        orders: broadcast::Sender::new(8),
        node_name: "n1".into(),
        host_ips: vec!["127.0.0.1".parse().unwrap()],
        data_dir: dir.path().to_owned(),
        recorder: EventRecorder::new(client.clone(), "kubelet", "n1", cancel.clone()),
        sources: Sources::new(&client, &cancel),
        client,
        runtimes: Runtimes::new(vec![Runtime {
            cri: Arc::clone(&cri) as Arc<dyn Cri>,
            name: "fake".into(),
            handlers: vec![String::new()],
            network: crate::PodNetwork::AnyIp,
        }]),
        cgroups: crate::cgroups::Cgroups::at(&dir.path().join("cgroup")),
        allowed_unsafe_sysctls: vec![],
        memory_bytes: 1 << 30,
        allocatable: Default::default(),
        pods: informers.of(),
        services: informers.of(),
        runtime_classes: informers.of(),
    });
    let statics = watch::Sender::new(Statics::new());
    let task = tokio::spawn(manager::run(ctx, statics.subscribe(), cancel.clone()));
    Node { statics, api, cri, dir, cancel, task }
}

pub(super) fn pod(policy: &str) -> Value {
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

pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
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

pub(super) const READY: &str = "/status/containerStatuses/0/ready";

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

fn starts(cri: &FakeCri) -> usize {
    cri.calls().into_iter().filter(|call| *call == "start_container").count()
}

/// With the server away a crash is answered by a restart; after a reboot (a runtime that knows nothing) everything is
/// started again, with the secret that was kept; when the server is back it is told, and nothing is started once more.
#[tokio::test]
async fn without_the_server_pods_are_kept_and_start_again_after_a_reboot() {
    let mut with_secret = pod("Always");
    with_secret["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}}]);
    let node = start_on(OnePod::new(with_secret), FakeCri::new(None));
    until("ready", || node.api.text(READY) == "true").await;
    node.api.away.send_replace(true);
    node.cri.exit("a", 2);
    until("restarted", || starts(&node.cri) == 2).await;
    node.cancel.cancel();
    node.task.await.unwrap();

    let rebooted = start_in(node.dir, Arc::clone(&node.api), FakeCri::new(None));
    until("started again", || starts(&rebooted.cri) == 1).await;
    rebooted.api.away.send_replace(false);
    until("told", || {
        rebooted.api.text("/status/containerStatuses/0/restartCount") != "0" && rebooted.api.text(READY) == "true"
    })
    .await;
    assert_eq!(starts(&rebooted.cri), 1, "what ran was right");
    delete(&rebooted.api);
    until("gone", || rebooted.api.pod.lock().is_none()).await;
    assert!(rebooted.cri.is_empty());
    rebooted.cancel.cancel();
}

/// A file's pod starts though no server was ever seen; another version of it starts when the first has ended; without
/// its file it ends.
#[tokio::test]
async fn static_pods_need_no_server() {
    let api = OnePod::new(pod("Always"));
    api.away.send_replace(true);
    let node = start_on(api, FakeCri::new(None));
    let of_file = |uid: &str| {
        let mut pod = pod("Always");
        pod["metadata"]["uid"] = uid.into();
        Statics::from([(uid.to_owned(), Arc::new(serde_json::from_value(pod).unwrap()))])
    };
    node.statics.send_replace(of_file("one"));
    until("started", || starts(&node.cri) == 1).await;
    node.cri.exit("a", 2);
    until("restarted", || starts(&node.cri) == 2).await;
    node.statics.send_replace(of_file("two"));
    until("replaced", || starts(&node.cri) == 3).await;
    let calls = node.cri.calls();
    let removed = calls.iter().position(|call| *call == "remove_pod_sandbox");
    assert!(removed < calls.iter().rposition(|call| *call == "run_pod_sandbox"), "one after the other: {calls:?}");
    node.statics.send_replace(Statics::new());
    until("ended", || node.cri.is_empty()).await;
    assert!(!node.dir.path().join("pods/two").exists());
    node.cancel.cancel();
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
