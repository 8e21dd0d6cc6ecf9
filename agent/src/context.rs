//! What all parts of the agent share.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        node::v1::RuntimeClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use skiff_client::{Client, EventRecorder, EventType, Informer, recorder};

use tokio::sync::{broadcast, watch};

use crate::{
    cgroups::Cgroups,
    node::pressure::Conditions,
    pods::{
        dns::{self, Names},
        model::Ended,
        statics,
    },
    runtime::router::{Runtime, Runtimes},
    volumes::sources::Sources,
};

/// The domain that the names of Services are in.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";
/// The Service of the cluster's DNS.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
/// The node's own resolver configuration: behind a stub on loopback, which pods cannot reach, is the real one.
const RESOLV_CONF: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

/// An order of the node to one of its pods: to end.
#[derive(Clone, Debug)]
pub struct Order {
    /// The pod.
    pub uid: String,
    /// Why.
    pub ended: Ended,
}

/// What tells the time.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all parts of the agent share.
pub struct Context {
    /// The time, by which pods are run.
    pub(crate) clock: Clock,
    /// What is short on the node.
    pub conditions: watch::Sender<Conditions>,
    /// How much CPU time the node used a second, lately, in nanoseconds.
    pub node_cores_nano: AtomicU64,
    /// Orders to pods.
    pub orders: broadcast::Sender<Order>,
    /// The node's name.
    pub node_name: String,
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// The agent's folder.
    pub data_dir: PathBuf,
    /// The API server.
    pub client: Client,
    /// Events.
    pub recorder: EventRecorder,
    /// The container runtimes.
    pub runtimes: Runtimes,
    /// The machine's cgroups.
    pub cgroups: Cgroups,
    /// Kernel parameters that pods may set though they are not safe, as patterns.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The machine's memory.
    pub memory_bytes: u64,
    /// What the node can give.
    pub allocatable: BTreeMap<String, Quantity>,
    /// The pods of this node.
    pub pods: Arc<Informer<Pod>>,
    /// All services.
    pub services: Arc<Informer<Service>>,
    /// What volumes are made of.
    pub sources: Sources,
    /// RuntimeClasses.
    pub runtime_classes: Arc<Informer<RuntimeClass>>,
}

impl Context {
    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A pod's folder.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// Where a pod's containers log.
    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        let metadata = &pod.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        self.data_dir.join("logs").join(format!(
            "{}_{}_{}",
            text(&metadata.namespace),
            text(&metadata.name),
            text(&metadata.uid)
        ))
    }

    /// A pod of the node as it runs there.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pod = self.pods.get(namespace, name)?;
        Some(statics::as_run(&pod).map_or(pod, Arc::new))
    }

    /// The handler of a pod's RuntimeClass.
    pub fn handler(&self, pod: &Pod) -> String {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
        self.runtime_classes.get("", &class).map_or(class, |class| class.handler.clone())
    }

    /// The runtime of a pod; `None` where no runtime serves its RuntimeClass.
    pub fn runtime(&self, pod: &Pod) -> Option<&Runtime> {
        self.runtimes.of(&self.handler(pod))
    }

    /// Where seccomp profiles of the type `Localhost` are.
    pub fn seccomp_root(&self) -> String {
        self.data_dir.join("seccomp").display().to_string()
    }

    /// What is known of names now: the cluster's DNS is there once its Service is.
    pub fn names(&self) -> Names {
        let service = self.services.get(DNS_SERVICE.0, DNS_SERVICE.1);
        let address = service.and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
        let node = RESOLV_CONF.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Names {
            server: address.filter(|address| address != "None" && !address.is_empty()),
            domain: CLUSTER_DOMAIN.to_owned(),
            node: dns::parse(&node),
        }
    }

    /// Records an event about a pod, or one container of it.
    pub fn event(&self, pod: &Pod, container: Option<&str>, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut about = recorder::reference(pod);
        about.field_path = container.map(|name| {
            let inits = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
            let ephemeral = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
            let list = match () {
                () if inits.iter().any(|init| init.name == name) => "initContainers",
                () if ephemeral.iter().any(|container| container.name == name) => "ephemeralContainers",
                () => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        self.recorder.event_about(about, kind, reason, message.into());
    }
}

/// A folder that is to be there.
pub(crate) fn make_dir(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}
