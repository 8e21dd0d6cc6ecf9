#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use skiff_client::client::resource_of;

use super::*;
use crate::testing::{Running, eventually, object};

#[tokio::test]
async fn what_is_gone_is_given_back() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    let quota: ResourceQuota = object(json!({"metadata": {"name": "q", "namespace": "x"},
        "spec": {"hard": {"pods": "10", "requests.cpu": "4", "count/configmaps": "5"}}}));
    client.create(&quota).await.unwrap();
    let used = async |name: &str| {
        let quota: ResourceQuota = client.get("x", "q").await.unwrap();
        quota.status?.used?.get(name).map(|amount| amount.0.clone())
    };
    eventually(async || used("pods").await.as_deref() == Some("0")).await;
    for name in ["a", "b"] {
        let pod: Pod =
            object(json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"nodeName": "n", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}, "status": {"phase": "Running"}}));
        client.create(&pod).await.unwrap();
    }
    let map: ConfigMap = object(json!({"metadata": {"name": "m", "namespace": "x"}}));
    client.create(&map).await.unwrap();
    // Nothing was charged here, as admission would have; a deletion has all counted anew.
    let other: Pod = object(json!({"metadata": {"name": "other", "namespace": "x"}, "spec": {"containers": []}}));
    client.create(&other).await.unwrap();
    cluster.api.remove(&resource_of::<Pod>(), "x", "other");
    eventually(async || {
        (
            used("pods").await.as_deref(),
            used("requests.cpu").await.as_deref(),
            used("count/configmaps").await.as_deref(),
        ) == (Some("2"), Some("1"), Some("1"))
    })
    .await;
    let ended = json!({"status": {"phase": "Succeeded"}});
    let form = skiff_api::request::ContentType::MergePatch;
    client.patch::<Pod>("x", "a", Some("status"), form, &ended).await.unwrap();
    eventually(async || used("requests.cpu").await.as_deref() == Some("500m")).await;
    cluster.api.remove(&resource_of::<ConfigMap>(), "x", "m");
    eventually(async || used("count/configmaps").await.as_deref() == Some("0")).await;
}
