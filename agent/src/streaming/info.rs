//! What the node tells of itself: pods, configuration, statistics, metrics.

use std::{collections::BTreeMap, fmt::Write, sync::atomic::Ordering};

use hyper::StatusCode;
use jiff::Timestamp;
use k8s_cri::v1::{ContainerStats, ListContainerStatsRequest, UInt64Value};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use crate::{
    context::Context,
    node::usage::Usage,
    pods::config::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID},
};

/// `/pods`: a `PodList`.
pub(super) fn pods(ctx: &Context) -> Answer {
    let items = ctx.pods.list();
    answer::json(
        &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items.iter().map(|pod| &**pod).collect::<Vec<_>>()}),
    )
}

/// `/configz`: what of a `KubeletConfiguration` this node has.
pub(super) fn configz(ctx: &Context) -> Answer {
    let pods = ctx.allocatable.get("pods").and_then(|pods| pods.0.parse::<u32>().ok());
    answer::json(&json!({"kubeletconfig": {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1", "maxPods": pods,
        "nodeStatusUpdateFrequency": "10s", "nodeStatusReportFrequency": "5m0s", "nodeLeaseDurationSeconds": 40,
    }}))
}

pub(super) async fn container_stats(ctx: &Context) -> Vec<ContainerStats> {
    let mut all = vec![];
    for runtime in ctx.runtimes.all() {
        if let Ok(answer) = runtime.cri.list_container_stats(ListContainerStatsRequest { filter: None }).await {
            all.extend(answer.stats);
        }
    }
    all
}

pub(super) fn number(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn time(nanoseconds: i64) -> String {
    let at = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn label(stats: &ContainerStats, name: &str) -> String {
    stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(name)).cloned().unwrap_or_default()
}

/// CPU and memory of a container, as both answers need them.
#[derive(Clone, Copy, Default)]
struct Used {
    cores_nano: u64,
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

impl Used {
    fn of(stats: &ContainerStats) -> Self {
        let (cpu, memory) = (stats.cpu.as_ref(), stats.memory.as_ref());
        Self {
            cores_nano: number(cpu.and_then(|cpu| cpu.usage_nano_cores.as_ref())),
            cpu_nanoseconds: number(cpu.and_then(|cpu| cpu.usage_core_nano_seconds.as_ref())),
            memory_bytes: number(memory.and_then(|memory| memory.working_set_bytes.as_ref())),
        }
    }

    fn add(&mut self, other: Self) {
        self.cores_nano = self.cores_nano.saturating_add(other.cores_nano);
        self.cpu_nanoseconds = self.cpu_nanoseconds.saturating_add(other.cpu_nanoseconds);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
    }
}

/// Containers by their pods: UID, then what they are.
fn by_pod(all: Vec<ContainerStats>) -> BTreeMap<String, Vec<ContainerStats>> {
    let mut pods: BTreeMap<String, Vec<ContainerStats>> = BTreeMap::new();
    for stats in all {
        pods.entry(label(&stats, POD_UID)).or_default().push(stats);
    }
    pods
}

fn sum(containers: &[ContainerStats]) -> Used {
    let mut sum = Used::default();
    containers.iter().for_each(|stats| sum.add(Used::of(stats)));
    sum
}

fn container_json(stats: &ContainerStats) -> Value {
    let used = Used::of(stats);
    let memory = stats.memory.unwrap_or_default();
    let mut all = json!({
        "name": label(stats, CONTAINER_NAME),
        "cpu": {
            "time": time(stats.cpu.as_ref().map_or(0, |cpu| cpu.timestamp)),
            "usageNanoCores": used.cores_nano, "usageCoreNanoSeconds": used.cpu_nanoseconds,
        },
        "memory": {
            "time": time(memory.timestamp), "workingSetBytes": used.memory_bytes,
            "usageBytes": number(memory.usage_bytes.as_ref()), "rssBytes": number(memory.rss_bytes.as_ref()),
            "availableBytes": number(memory.available_bytes.as_ref()),
            "pageFaults": number(memory.page_faults.as_ref()),
            "majorPageFaults": number(memory.major_page_faults.as_ref()),
        },
    });
    if let Some(layer) = &stats.writable_layer {
        all["rootfs"] = json!({
            "time": time(layer.timestamp), "usedBytes": number(layer.used_bytes.as_ref()),
            "inodesUsed": number(layer.inodes_used.as_ref()),
        });
    }
    all
}

fn pod_json(uid: &str, containers: &[ContainerStats], now: &str) -> Value {
    let of = |name: &str| containers.first().map(|stats| label(stats, name)).unwrap_or_default();
    let used = sum(containers);
    json!({
        "podRef": {"name": of(POD_NAME), "namespace": of(POD_NAMESPACE), "uid": uid},
        "containers": containers.iter().map(container_json).collect::<Vec<_>>(),
        "cpu": {"time": now, "usageNanoCores": used.cores_nano, "usageCoreNanoSeconds": used.cpu_nanoseconds},
        "memory": {"time": now, "workingSetBytes": used.memory_bytes},
    })
}

fn node_json(name: &str, usage: &Usage, cores_nano: u64, now: &str) -> Value {
    let ((used, available, capacity), (inodes_used, inodes_free, inodes)) = (usage.disk_bytes, usage.inodes);
    json!({
        "nodeName": name,
        "cpu": {"time": now, "usageNanoCores": cores_nano, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
        "memory": {"time": now, "workingSetBytes": usage.memory_bytes, "availableBytes": usage.available_bytes},
        "fs": {
            "time": now, "usedBytes": used, "availableBytes": available, "capacityBytes": capacity,
            "inodesUsed": inodes_used, "inodesFree": inodes_free, "inodes": inodes,
        },
    })
}

/// `/stats/summary`: what node, pods and containers use.
pub(super) async fn summary(ctx: &Context) -> Answer {
    let now = time(i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0));
    let pods = by_pod(container_stats(ctx).await);
    let pods: Vec<Value> = pods.iter().map(|(uid, containers)| pod_json(uid, containers, &now)).collect();
    let cores_nano = ctx.node_cores_nano.load(Ordering::Relaxed);
    let node = node_json(&ctx.node_name, &Usage::read(&ctx.data_dir), cores_nano, &now);
    answer::json(&json!({"node": node, "pods": pods}))
}

/// Lines of the Prometheus text format.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) text: String,
    told: &'static str,
}

impl Metrics {
    /// A value in seconds, given in nanoseconds.
    pub(super) fn seconds(&mut self, name: &'static str, labels: &str, nanoseconds: u64) {
        let (whole, part) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        self.line(name, "counter", labels, &format!("{whole}.{part:09}"));
    }

    /// A value.
    pub(super) fn line(&mut self, name: &'static str, kind: &str, labels: &str, value: &str) {
        if std::mem::replace(&mut self.told, name) != name {
            let _infallible = writeln!(self.text, "# TYPE {name} {kind}");
        }
        let _infallible = writeln!(self.text, "{name}{labels} {value}");
    }
}

/// `/metrics/*`: the same as text, by the names of the kubelet's `/metrics/resource`.
pub(super) async fn metrics(ctx: &Context) -> Answer {
    let all = container_stats(ctx).await;
    let mut metrics = Metrics::default();
    let of_container = |stats: &ContainerStats| {
        let [container, namespace, pod] = [CONTAINER_NAME, POD_NAMESPACE, POD_NAME].map(|name| label(stats, name));
        format!("{{container={container:?},namespace={namespace:?},pod={pod:?}}}")
    };
    for stats in &all {
        let cpu = Used::of(stats).cpu_nanoseconds;
        metrics.seconds("container_cpu_usage_seconds_total", &of_container(stats), cpu);
    }
    for stats in &all {
        let bytes = Used::of(stats).memory_bytes.to_string();
        metrics.line("container_memory_working_set_bytes", "gauge", &of_container(stats), &bytes);
    }
    let usage = Usage::read(&ctx.data_dir);
    metrics.seconds("node_cpu_usage_seconds_total", "", usage.cpu_nanoseconds);
    metrics.line("node_memory_working_set_bytes", "gauge", "", &usage.memory_bytes.to_string());
    let pods: Vec<(String, Used)> = by_pod(all)
        .values()
        .map(|containers| {
            let of = |name: &str| containers.first().map(|stats| label(stats, name)).unwrap_or_default();
            (format!("{{namespace={:?},pod={:?}}}", of(POD_NAMESPACE), of(POD_NAME)), sum(containers))
        })
        .collect();
    for (labels, used) in &pods {
        metrics.seconds("pod_cpu_usage_seconds_total", labels, used.cpu_nanoseconds);
    }
    for (labels, used) in &pods {
        metrics.line("pod_memory_working_set_bytes", "gauge", labels, &used.memory_bytes.to_string());
    }
    metrics.line("resource_scrape_error", "gauge", "", "0");
    answer::text(StatusCode::OK, metrics.text)
}
