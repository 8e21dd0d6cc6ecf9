//! Services and the cluster's own ones.

use serde_json::json;

use crate::cluster::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn addresses_are_given_and_given_back() {
    let cluster = Cluster::start().await;
    let (_, own) = cluster.ask(&format!("GET {SERVICES}/kubernetes")).await;
    assert_eq!(own["spec"]["clusterIP"], "10.43.0.1");
    let fixed = |name: &str| {
        json!({"metadata": {"name": name},
        "spec": {"clusterIP": "10.43.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}})
    };
    let dry = cluster.must(&format!("POST {SERVICES}?dryRun=All"), fixed("dns")).await;
    assert_eq!(dry["spec"]["clusterIPs"], json!(["10.43.0.10"]));
    cluster.must(&format!("POST {SERVICES}"), fixed("dns")).await;
    let (code, why) = cluster.refused(&format!("POST {SERVICES}"), fixed("other")).await;
    assert_eq!((code, why.contains("provided IP is already allocated")), (422, true), "{why}");
    assert_eq!(cluster.ask(&format!("DELETE {SERVICES}/dns")).await.0, 200);
    cluster.must(&format!("POST {SERVICES}"), fixed("other")).await;
}

#[tokio::test]
async fn a_restart_remembers_what_is_taken() {
    let store = std::sync::Arc::new(skiff_store::MemoryStore::new());
    let cluster = Cluster::over(store.clone()).await;
    skiff_apiserver::bootstrap::run(&cluster.registry).await.unwrap();
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let first = cluster.must(&format!("POST {SERVICES}"), service("a")).await;
    let again = Cluster::over(store).await;
    skiff_apiserver::bootstrap::run(&again.registry).await.unwrap();
    let mut taken = service("b");
    taken["spec"]["clusterIP"] = first["spec"]["clusterIP"].clone();
    taken["spec"]["ports"][0]["nodePort"] = first["spec"]["ports"][0]["nodePort"].clone();
    let (code, why) = again.refused(&format!("POST {SERVICES}"), taken).await;
    assert_eq!(code, 422);
    assert!(why.contains("provided IP is already") && why.contains("provided port is already"), "{why}");
}
