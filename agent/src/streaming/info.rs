//! What the node tells of itself: pods, configuration, statistics, metrics.

use std::{collections::BTreeMap, fmt::Write};

use hyper::StatusCode;
use jiff::Timestamp;
use k8s_cri::v1::{ContainerStats, ListContainerStatsRequest, UInt64Value};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use crate::{
    context::Context,
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

async fn container_stats(ctx: &Context) -> Vec<ContainerStats> {
    let mut all = vec![];
    for runtime in ctx.runtimes.all() {
        if let Ok(answer) = runtime.cri.list_container_stats(ListContainerStatsRequest { filter: None }).await {
            all.extend(answer.stats);
        }
    }
    all
}

fn number(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn time(nanoseconds: i64) -> String {
    let at = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn label(stats: &ContainerStats, name: &str) -> String {
    stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(name)).cloned().unwrap_or_default()
}

/// `/stats/summary`: CPU and memory of pods and containers.
pub(super) async fn summary(ctx: &Context) -> Answer {
    let mut pods: BTreeMap<String, (Value, u64, u64, u64, Vec<Value>)> = BTreeMap::new();
    for stats in container_stats(ctx).await {
        let reference = json!({"name": label(&stats, POD_NAME), "namespace": label(&stats, POD_NAMESPACE), "uid": label(&stats, POD_UID)});
        let pod = pods.entry(label(&stats, POD_UID)).or_insert_with(|| (reference, 0, 0, 0, vec![]));
        let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
        let cores = number(cpu.usage_nano_cores.as_ref());
        let total = number(cpu.usage_core_nano_seconds.as_ref());
        let bytes = number(memory.working_set_bytes.as_ref());
        pod.1 += cores;
        pod.2 += total;
        pod.3 += bytes;
        pod.4.push(json!({
            "name": label(&stats, CONTAINER_NAME),
            "cpu": {"time": time(cpu.timestamp), "usageNanoCores": cores, "usageCoreNanoSeconds": total},
            "memory": {"time": time(memory.timestamp), "workingSetBytes": bytes, "usageBytes": number(memory.usage_bytes.as_ref()),
                "rssBytes": number(memory.rss_bytes.as_ref())},
        }));
    }
    let now = time(i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0));
    let pods: Vec<Value> = pods
        .into_values()
        .map(|(reference, cores, total, bytes, containers)| {
            json!({
                "podRef": reference, "containers": containers,
                "cpu": {"time": now, "usageNanoCores": cores, "usageCoreNanoSeconds": total},
                "memory": {"time": now, "workingSetBytes": bytes},
            })
        })
        .collect();
    answer::json(&json!({"node": {"nodeName": ctx.node_name}, "pods": pods}))
}

/// `/metrics/*`: the same as text, by the names of metrics-server's endpoint.
pub(super) async fn metrics(ctx: &Context) -> Answer {
    let mut text = String::from(
        "# TYPE container_cpu_usage_seconds_total counter\n# TYPE container_memory_working_set_bytes gauge\n",
    );
    for stats in container_stats(ctx).await {
        let labels = format!(
            "container={:?},namespace={:?},pod={:?}",
            label(&stats, CONTAINER_NAME),
            label(&stats, POD_NAMESPACE),
            label(&stats, POD_NAME)
        );
        let cpu = number(stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref()));
        let memory = number(stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()));
        let seconds = cpu / 1_000_000_000;
        let fraction = cpu % 1_000_000_000;
        let _infallible = writeln!(text, "container_cpu_usage_seconds_total{{{labels}}} {seconds}.{fraction:09}");
        let _infallible = writeln!(text, "container_memory_working_set_bytes{{{labels}}} {memory}");
    }
    answer::text(StatusCode::OK, text)
}
