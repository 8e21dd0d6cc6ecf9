//! Get, list and watch.

use futures::StreamExt;
use serde_json::json;
use skiff_client::WatchEvent;

use crate::cluster::{Cluster, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn maps(cluster: &Cluster, names: &[&str]) -> u64 {
    let mut version = 0;
    for name in names {
        let made = cluster.must(&format!("POST {MAPS}"), config_map(name, "1")).await;
        version = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    }
    version
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let cluster = Cluster::start().await;
    maps(&cluster, &["a", "b", "c", "d", "e"]).await;
    let (_, first) = cluster.ask(&format!("GET {MAPS}?limit=2")).await;
    assert_eq!((&first["names"], &first["remaining"]), (&json!(["a", "b"]), &json!(3)));
    maps(&cluster, &["bb"]).await;
    assert_eq!(cluster.ask(&format!("DELETE {MAPS}/c")).await.0, 200);
    let token = first["continue"].as_str().unwrap();
    let (_, second) = cluster.ask(&format!("GET {MAPS}?limit=2&continue={token}")).await;
    assert_eq!((&second["names"], &second["rv"]), (&json!(["c", "d"]), &first["rv"]));
    let token = second["continue"].as_str().unwrap();
    let (_, last) = cluster.ask(&format!("GET {MAPS}?limit=2&continue={token}")).await;
    assert_eq!((&last["names"], &last["continue"]), (&json!(["e"]), &json!(null)));
}

#[tokio::test]
async fn lists_select_and_say_what_they_cannot() {
    let cluster = Cluster::start().await;
    let labelled = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {"app": label}}});
    cluster.must(&format!("POST {MAPS}"), labelled("a", "x")).await;
    cluster.must(&format!("POST {MAPS}"), labelled("b", "y")).await;
    let (_, by_label) = cluster.ask(&format!("GET {MAPS}?labelSelector=app%3Dx&limit=1")).await;
    assert_eq!((&by_label["names"], &by_label["remaining"]), (&json!(["a"]), &json!(null)));
    let (_, by_name) = cluster.ask("GET /api/v1/configmaps?fieldSelector=metadata.name%3Db").await;
    assert_eq!(by_name["names"], json!(["b"]));
    let future = "Timeout: Too large resource version: 999999";
    for (query, code, message) in [
        ("fieldSelector=data.key%3D1", 400, "\"data.key\" is not a known field selector"),
        ("continue=x", 400, "continue key is not valid"),
        ("resourceVersion=999999", 504, future),
        ("resourceVersion=999999&resourceVersionMatch=Exact", 504, future),
        ("resourceVersionMatch=Exact", 422, "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden"),
    ] {
        let (found, text) = cluster.refused(&format!("GET {MAPS}?{query}"), json!(null)).await;
        assert!(found == code && text.contains(message), "{query}: {found} {text}");
    }
}

/// The next event as `ADDED name`.
async fn next(stream: &mut skiff_client::WatchStream) -> String {
    let event = tokio::time::timeout(std::time::Duration::from_secs(10), stream.next()).await.unwrap().unwrap();
    match event {
        Ok(WatchEvent::Added(entry)) => format!("ADDED {}", entry.head.name),
        Ok(WatchEvent::Modified(entry)) => format!("MODIFIED {}", entry.head.name),
        Ok(WatchEvent::Deleted(entry)) => format!("DELETED {}", entry.head.name),
        Ok(WatchEvent::Bookmark { initial_events_end, .. }) => format!("BOOKMARK {initial_events_end}"),
        Err(error) => format!("ERROR {} {}", error.code, error.message),
    }
}

#[tokio::test]
async fn watches_and_where_they_start() {
    let cluster = Cluster::start().await;
    let version = maps(&cluster, &["a", "b"]).await;
    let mut state = cluster.watch(&format!("GET {MAPS}?watch=1")).await;
    let mut exact = cluster.watch(&format!("GET {MAPS}?watch=1&resourceVersion={version}")).await;
    let streaming = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut streamed = cluster.watch(&format!("GET {MAPS}?{streaming}")).await;
    cluster.merge(&format!("{MAPS}/b"), json!({"data": {"key": "2"}})).await;
    cluster.ask(&format!("DELETE {MAPS}/a")).await;
    for expected in ["ADDED a", "ADDED b", "MODIFIED b", "DELETED a"] {
        assert_eq!(next(&mut state).await, expected);
    }
    for expected in ["MODIFIED b", "DELETED a"] {
        assert_eq!(next(&mut exact).await, expected);
    }
    for expected in ["ADDED a", "ADDED b", "BOOKMARK true", "MODIFIED b", "DELETED a"] {
        assert_eq!(next(&mut streamed).await, expected);
    }
    let bad = "GET /api/v1/configmaps?watch=1&sendInitialEvents=true";
    let (code, message) = cluster.refused(bad, json!(null)).await;
    assert_eq!((code, message.contains("sendInitialEvents requires setting resourceVersionMatch")), (422, true));
}

#[tokio::test]
async fn a_revision_that_is_no_longer_kept() {
    let store = std::sync::Arc::new(skiff_store::MemoryStore::new());
    let cluster = Cluster::over(store.clone()).await;
    skiff_apiserver::bootstrap::run(&cluster.registry).await.unwrap();
    maps(&cluster, &["a", "b", "c"]).await;
    let (_, first) = cluster.ask(&format!("GET {MAPS}?limit=1")).await;
    // A second server over the same store, started when the first revisions are compacted, remembers none of them.
    maps(&cluster, &["d"]).await;
    let newest = skiff_store::Store::revision(&*store).await.unwrap();
    skiff_store::Store::compact(&*store, newest).await.unwrap();
    let other = Cluster::over(store).await;
    let token = first["continue"].as_str().unwrap();
    let (code, status) = other.ask(&format!("GET {MAPS}?limit=1&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let token = status["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = other.ask(&format!("GET {MAPS}?continue={token}")).await;
    assert_eq!(rest["names"], json!(["b", "c", "d"]), "the list goes on, inconsistently");
    let mut watch = other.watch(&format!("GET {MAPS}?watch=1&resourceVersion=1")).await;
    let told = next(&mut watch).await;
    assert!(told.starts_with("ERROR 410 too old resource version: 1 ("), "{told}");
}

#[tokio::test]
async fn events_are_one_in_two_groups() {
    let cluster = Cluster::start().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Testing", "message": "m", "type": "Normal"});
    cluster.must("POST /api/v1/namespaces/default/events", event).await;
    let (status, twin) = cluster.ask("GET /apis/events.k8s.io/v1/namespaces/default/events/e").await;
    assert_eq!((status, &twin["apiVersion"]), (200, &json!("events.k8s.io/v1")));
    assert_eq!((&twin["regarding"]["name"], &twin["note"]), (&json!("p"), &json!("m")));
    let (_, found) = cluster.ask("GET /apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp").await;
    assert_eq!(found["names"], json!(["e"]));
}
