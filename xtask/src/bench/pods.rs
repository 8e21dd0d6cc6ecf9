//! How long pods take from their creation to Ready, seen through a watch.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;
use skiff_api::request::{ContentType, Options};
use skiff_client::client::{Client, TypedEvent};

use super::{
    Line,
    cluster::{Cluster, milliseconds},
    median,
    memory::rss_mb,
};

const NAMESPACE: &str = "default";

/// How many pods a Deployment is scaled to, timed.
const SCALE: i32 = 20;
/// How many more it is scaled to then, for the memory that each costs: so many that what grows only once does not count.
const MORE: i32 = 200;

/// One pod at a time, its component compiled before.
pub(super) async fn one_pod(cluster: &Cluster, rounds: usize) -> Result<Vec<Line>> {
    cluster.import(&crate::project_root().join("examples/hello/hello.wasm"))?;
    let client = cluster.client()?;
    let mut took = Vec::new();
    for round in 0..=rounds {
        let name = format!("bench-{round}");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}},
            "spec": pod_spec(),
        }))?;
        let mut ready = Ready::watch(&client, "app=bench").await?;
        let began = Instant::now();
        client.create(&pod).await?;
        ready.wait(1).await?;
        // The first pod also compiles.
        if round > 0 {
            took.push(milliseconds(began.elapsed()));
        }
        let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        client.delete::<Pod>(NAMESPACE, &name, &at_once).await?;
        ready.wait(0).await?;
    }
    let measured = median(&mut took);
    Ok(vec![Line { what: "Wasm pod, create to Ready, component cached", measured, target: 50.0, unit: "ms" }])
}

/// A Deployment of one, scaled up, and up once more.
pub(super) async fn scale(cluster: &Cluster) -> Result<Vec<Line>> {
    let client = cluster.client()?;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "bench", "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "scale"}},
            "template": {"metadata": {"labels": {"app": "scale"}}, "spec": pod_spec()},
        },
    }))?;
    let mut ready = Ready::watch(&client, "app=scale").await?;
    client.create(&deployment).await?;
    ready.wait(1).await?;
    let began = Instant::now();
    scale_to(&client, &mut ready, SCALE).await?;
    let took_ms = milliseconds(began.elapsed());
    let before_mb = rss_mb(cluster)?;
    scale_to(&client, &mut ready, SCALE + MORE).await?;
    let pod_kb = (rss_mb(cluster)? - before_mb) * 1024.0 / f64::from(MORE);
    Ok(vec![
        Line { what: "Deployment scaled from 1 to 20, all Ready", measured: took_ms, target: 3000.0, unit: "ms" },
        Line { what: "memory a further Wasm pod costs, of 200", measured: pod_kb, target: 150.0, unit: "kB" },
    ])
}

/// Waits until all of them are Ready.
async fn scale_to(client: &Client, ready: &mut Ready, replicas: i32) -> Result<()> {
    let patch = json!({"spec": {"replicas": replicas}});
    client.patch::<Deployment>(NAMESPACE, "bench", None, ContentType::MergePatch, &patch).await?;
    ready.wait(usize::try_from(replicas)?).await
}

fn pod_spec() -> serde_json::Value {
    json!({
        "runtimeClassName": "wasm",
        "containers": [{
            "name": "hello", "image": "hello:latest", "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 8080}],
        }],
    })
}

/// The names of the pods of a selection that are Ready.
struct Ready {
    events: futures::stream::BoxStream<'static, Result<TypedEvent<Pod>, skiff_api::status::ApiError>>,
    names: std::collections::BTreeSet<String>,
}

impl Ready {
    async fn watch(client: &Client, selector: &str) -> Result<Self> {
        let options = Options { label_selector: Some(selector.to_owned()), ..Options::default() };
        let events = client.watch::<Pod>(Some(NAMESPACE), &options).await?;
        Ok(Self { events, names: std::collections::BTreeSet::new() })
    }

    /// Waits until just as many are Ready.
    async fn wait(&mut self, count: usize) -> Result<()> {
        while self.names.len() != count {
            match self.events.next().await.context("the watch ended")?? {
                TypedEvent::Added(pod) | TypedEvent::Modified(pod) => {
                    let name = pod.metadata.name.clone().unwrap_or_default();
                    if is_ready(&pod) {
                        self.names.insert(name)
                    } else {
                        self.names.remove(&name)
                    };
                }
                TypedEvent::Deleted(pod) => {
                    self.names.remove(&pod.metadata.name.unwrap_or_default());
                }
                TypedEvent::Bookmark { .. } => {}
            }
            if self.names.len() > 2 * usize::try_from(SCALE + MORE)? {
                bail!("more pods than were asked for");
            }
        }
        Ok(())
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
