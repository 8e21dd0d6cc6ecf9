//! What all parts of the agent share.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        node::v1::RuntimeClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use skiff_client::{Client, EventRecorder, EventType, Informer, recorder};

use crate::{runtime::router::Runtimes, volumes::sources::Sources};

/// What all parts of the agent share.
pub struct Context {
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
    /// The runtime's name, the scheme of container IDs.
    pub runtime_name: String,
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

    /// The handler of a pod's RuntimeClass.
    pub fn handler(&self, pod: &Pod) -> String {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
        self.runtime_classes.get("", &class).map_or(class, |class| class.handler.clone())
    }

    /// Records an event about a pod, or one container of it.
    pub fn event(&self, pod: &Pod, container: Option<&str>, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut about = recorder::reference(pod);
        about.field_path = container.map(|name| {
            let inits = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
            let list = if inits.iter().any(|init| init.name == name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        self.recorder.event_about(about, kind, reason, message.into());
    }
}

/// A folder that is to be there.
pub(crate) fn make_dir(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}
