//! How long pods take from their creation to Ready, seen through a watch.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;
use skiff_api::request::{ContentType, Options};
use skiff_client::client::{Client, TypedEvent};

use super::{
    cluster::{Cluster, milliseconds},
    line::Line,
    median,
    memory::all_rss_mb,
};

const NAMESPACE: &str = "default";
/// The image of the example, as it is called when it is imported.
const HELLO: &str = "hello:latest";
/// The port that it is served at.
const PORT: u16 = 8080;
/// The Deployment that is scaled, and its pods' label.
const SCALED: &str = "scale";
/// How long thousands of pods may take.
const SCALE_PATIENCE: Duration = Duration::from_secs(600);

/// How many pods a Deployment is scaled to, timed.
const SCALE: i32 = 20;
/// How many more it is scaled to then, for the memory that each costs: so many that what grows only once does not count.
const MORE: i32 = 200;

/// One pod at a time, its component compiled before.
pub(super) async fn one_pod(cluster: &Cluster, rounds: usize) -> Result<Line> {
    cluster.import(&hello())?;
    let client = cluster.client()?;
    // The first pod also maps the component.
    create_to_ready(&client, "bench", HELLO).await?;
    let mut took = Vec::new();
    for _ in 0..rounds {
        took.push(create_to_ready(&client, "bench", HELLO).await?);
    }
    Ok(Line::at_most(50.0, "Wasm pod, create to Ready, component cached", median(&mut took), "ms"))
}

/// One pod at a time, of a component that is compiled for it.
pub(super) async fn cold_pod(cluster: &Cluster, rounds: usize) -> Result<Line> {
    let client = cluster.client()?;
    let mut took = Vec::new();
    for round in 0..rounds {
        // Another component each time: whatever keeps the last one does not help.
        let name = format!("cold-{round}");
        cluster.import(&variant(cluster, &name)?)?;
        cluster.forget_compiled()?;
        took.push(create_to_ready(&client, &name, &format!("{name}:latest")).await?);
    }
    Ok(Line::told("Wasm pod, create to Ready, component compiled for it", median(&mut took), "ms"))
}

/// Makes a pod, waits until it is Ready, and removes it; the milliseconds from its creation until it was Ready.
async fn create_to_ready(client: &Client, name: &str, image: &str) -> Result<f64> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": pod_spec(image),
    }))?;
    let mut ready = Ready::watch(client, &format!("app={name}")).await?;
    let began = Instant::now();
    client.create(&pod).await?;
    ready.wait(1).await?;
    let took = milliseconds(began.elapsed());
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete::<Pod>(NAMESPACE, name, &at_once).await?;
    ready.wait(0).await?;
    Ok(took)
}

fn hello() -> PathBuf {
    crate::project_root().join("examples/hello/hello.wasm")
}

/// The example as another component: with a section that means nothing, which holds `name`.
fn variant(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    /// A section that the binary format leaves to anybody.
    const CUSTOM_SECTION: u8 = 0;
    let mut bytes = std::fs::read(hello())?;
    let length = u8::try_from(name.len())?;
    bytes.extend([CUSTOM_SECTION, length + 1, length]);
    bytes.extend(name.as_bytes());
    let file = cluster.file(&format!("{name}.wasm"));
    std::fs::write(&file, bytes)?;
    Ok(file)
}

/// A Deployment of one, scaled up, and up once more.
pub(super) async fn scale(cluster: &Cluster) -> Result<Vec<Line>> {
    let client = cluster.client()?;
    let mut ready = Ready::watch(&client, &format!("app={SCALED}")).await?;
    deploy_one(&client).await?;
    ready.wait(1).await?;
    let began = Instant::now();
    set_replicas(&client, SCALE).await?;
    ready.wait(usize::try_from(SCALE)?).await?;
    let took_ms = milliseconds(began.elapsed());
    let before_mb = all_rss_mb(cluster)?;
    set_replicas(&client, SCALE + MORE).await?;
    ready.wait(usize::try_from(SCALE + MORE)?).await?;
    let pod_kb = (all_rss_mb(cluster)? - before_mb) * 1024.0 / f64::from(MORE);
    Ok(vec![
        Line::at_most(3000.0, "Deployment scaled from 1 to 20, all Ready", took_ms, "ms"),
        Line::at_most(150.0, "memory a further Wasm pod costs, of 200", pod_kb, "kB"),
    ])
}

/// Makes the Deployment that is scaled, of one pod.
pub(super) async fn deploy_one(client: &Client) -> Result<()> {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": SCALED, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": SCALED}},
            "template": {"metadata": {"labels": {"app": SCALED}}, "spec": pod_spec(HELLO)},
        },
    }))?;
    client.create(&deployment).await?;
    Ok(())
}

async fn set_replicas(client: &Client, replicas: i32) -> Result<()> {
    let patch = json!({"spec": {"replicas": replicas}});
    client.patch::<Deployment>(NAMESPACE, SCALED, None, ContentType::MergePatch, &patch).await?;
    Ok(())
}

/// Scales the Deployment and waits until it says that so many are ready; the seconds that took. Its status is watched
/// and not the pods, whose thousands of changes would keep this process busy on the cores that are measured.
pub(super) async fn scale_to(client: &Client, replicas: i32) -> Result<f64> {
    let mut events = client.watch::<Deployment>(Some(NAMESPACE), &Options::default()).await?;
    let began = Instant::now();
    set_replicas(client, replicas).await?;
    let in_time = async {
        loop {
            let event = events.next().await.context("the watch ended")??;
            let (TypedEvent::Added(deployment) | TypedEvent::Modified(deployment)) = event else { continue };
            let status = deployment.status.unwrap_or_default();
            if status.replicas == Some(replicas) && status.ready_replicas == Some(replicas) {
                return anyhow::Ok(began.elapsed().as_secs_f64());
            }
        }
    };
    tokio::time::timeout(SCALE_PATIENCE, in_time).await.with_context(|| format!("{replicas} pods are never ready"))?
}

/// The addresses of the Deployment's pods.
pub(super) async fn addresses(client: &Client) -> Result<Vec<SocketAddr>> {
    let options = Options { label_selector: Some(format!("app={SCALED}")), ..Options::default() };
    let pods = client.list::<Pod>(Some(NAMESPACE), &options).await?;
    let address = |pod: Pod| Some(SocketAddr::new(pod.status?.pod_ip?.parse().ok()?, PORT));
    Ok(pods.items.into_iter().filter_map(address).collect())
}

/// The pod of a Deployment of one, for as long as it takes to be Ready.
pub(super) async fn only_pod(client: &Client) -> Result<SocketAddr> {
    let mut ready = Ready::watch(client, &format!("app={SCALED}")).await?;
    deploy_one(client).await?;
    ready.wait(1).await?;
    addresses(client).await?.pop().context("the pod has no address")
}

fn pod_spec(image: &str) -> serde_json::Value {
    json!({
        "runtimeClassName": "wasm",
        "containers": [{
            "name": "hello", "image": image, "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": PORT}],
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
