//! Amounts of resources: what a pod asks for, what a node has.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use skiff_api::quantity::Quantity;

/// What a container without a CPU request counts as when nodes are compared, in thousandths.
const ASSUMED_MILLI_CPU: i64 = 100;

/// What a container without a memory request counts as when nodes are compared, in bytes.
const ASSUMED_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// All others by name: `ephemeral-storage`, `hugepages-*`, extended ones.
    pub others: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of an API object; what is no amount counts as nothing.
    pub fn of(map: Option<&BTreeMap<String, Text>>) -> Self {
        let mut all = Self::default();
        for (name, text) in map.into_iter().flatten() {
            let amount: Quantity = text.0.parse().unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => all.milli_cpu = amount.milli_value(),
                "memory" => all.memory_bytes = amount.value(),
                "pods" => {}
                _ => drop(all.others.insert(name.clone(), amount.value())),
            }
        }
        all
    }

    /// Adds amounts.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes amounts away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        self.others.retain(|_, amount| *amount != 0);
    }

    /// The greater of each.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, how: fn(i64, i64) -> i64) {
        self.milli_cpu = how(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = how(self.memory_bytes, other.memory_bytes);
        for (name, amount) in &other.others {
            match self.others.get_mut(name) {
                Some(own) => *own = how(*own, *amount),
                None => drop(self.others.insert(name.clone(), how(0, *amount))),
            }
        }
    }
}

/// What a pod asks for.
#[derive(Clone, Debug, Default)]
pub struct PodRequests {
    /// As it says: what must fit.
    pub exact: Resources,
    /// With an assumption for containers that say nothing: what nodes are compared by.
    pub assumed: Resources,
}

impl PodRequests {
    /// The requests of a pod: its containers and sidecars together, or more where an init container needs more
    /// beside the sidecars that were started before it; pod-level requests stand above; overhead is added.
    pub fn of(spec: &PodSpec) -> Self {
        Self { exact: total(spec, exact), assumed: total(spec, assumed) }
    }
}

fn total(spec: &PodSpec, of: fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    spec.containers.iter().for_each(|container| running.add(&of(container)));
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            running.add(&own);
            peak.raise_to(&sidecars);
        } else {
            let mut beside = sidecars.clone();
            beside.add(&own);
            peak.raise_to(&beside);
        }
    }
    running.raise_to(&peak);
    override_by_pod(&mut running, spec.resources.as_ref());
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

/// Pod-level requests (KEP-2837) count instead of the sum for the resources that they name.
fn override_by_pod(sum: &mut Resources, pod: Option<&ResourceRequirements>) {
    let Some(requests) = pod.and_then(|pod| pod.requests.as_ref()) else { return };
    let named = Resources::of(Some(requests));
    if requests.contains_key("cpu") {
        sum.milli_cpu = named.milli_cpu;
    }
    if requests.contains_key("memory") {
        sum.memory_bytes = named.memory_bytes;
    }
    sum.others.extend(named.others);
}

fn exact(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn assumed(container: &Container) -> Resources {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let says = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
    let mut all = Resources::of(requests);
    if !says("cpu") {
        all.milli_cpu = ASSUMED_MILLI_CPU;
    }
    if !says("memory") {
        all.memory_bytes = ASSUMED_MEMORY_BYTES;
    }
    all
}
