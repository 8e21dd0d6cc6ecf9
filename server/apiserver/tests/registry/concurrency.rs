//! Many writers at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::json;

use crate::cluster::{Cluster, config_map};

const WRITERS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn every_patch_of_one_object_lands() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    cluster.must(&format!("POST {path}"), config_map("a", "1")).await;
    let patches = (0..WRITERS).map(|n| {
        let cluster = cluster.clone();
        tokio::spawn(
            async move { cluster.merge(&format!("{path}/a"), json!({"data": {format!("k{n}"): "v"}})).await.0 },
        )
    });
    for status in join_all(patches).await {
        assert_eq!(status.unwrap(), 200);
    }
    let (_, object) = cluster.ask(&format!("GET {path}/a")).await;
    assert_eq!(object["data"].as_object().map(serde_json::Map::len), Some(WRITERS + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_has_an_address_and_a_port_of_its_own() {
    let cluster = Cluster::start().await;
    let creates = (0..WRITERS).map(|n| {
        let cluster = cluster.clone();
        let service =
            json!({"metadata": {"name": format!("s{n}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        tokio::spawn(async move { cluster.must("POST /api/v1/namespaces/default/services", service).await })
    });
    let made: Vec<_> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    let addresses: BTreeSet<String> = made.iter().map(|s| s["spec"]["clusterIP"].to_string()).collect();
    let ports: BTreeSet<String> = made.iter().map(|s| s["spec"]["ports"][0]["nodePort"].to_string()).collect();
    assert_eq!((addresses.len(), ports.len()), (WRITERS, WRITERS));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_creates_of_a_name_wins() {
    let cluster = Cluster::start().await;
    let creates = (0..WRITERS).map(|n| {
        let cluster = cluster.clone();
        let path = "POST /api/v1/namespaces/default/configmaps";
        tokio::spawn(async move { cluster.put(path, config_map("a", &n.to_string())).await.0 })
    });
    let codes: Vec<u16> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), WRITERS - 1);
}
