//! What nodes may read and write: only what their own pods need.

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, pod, user},
    tokens::issuing,
};

fn node(cluster: &Cluster, name: &str) -> Cluster {
    cluster.by(user(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"]))
}

async fn bind(cluster: &Cluster, pod: &str, node: &str) {
    let binding = json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
    cluster.must(&format!("POST /api/v1/namespaces/default/pods/{pod}/binding"), binding).await;
}

const NS: &str = "/api/v1/namespaces/default";

/// Nodes `a` and `b`; a pod on `a` that needs a Secret, a ConfigMap and a claim with a volume.
async fn two_nodes() -> Cluster {
    let (cluster, _) = issuing().await;
    for name in ["a", "b"] {
        cluster.must("POST /api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    let named = |name: &str| json!({"metadata": {"name": name}});
    for (resource, name) in [("secrets", "s"), ("secrets", "other"), ("configmaps", "c"), ("secrets", "csi")] {
        cluster.must(&format!("POST {NS}/{resource}"), named(name)).await;
    }
    let claim = json!({"metadata": {"name": "claim"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv",
        "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.must(&format!("POST {NS}/persistentvolumeclaims"), claim).await;
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "default", "name": "claim"},
        "csi": {"driver": "d", "volumeHandle": "h",
            "nodePublishSecretRef": {"namespace": "default", "name": "csi"}}}});
    cluster.must("POST /api/v1/persistentvolumes", volume).await;
    let mut needy = pod("p");
    needy["spec"]["serviceAccountName"] = "robot".into();
    needy["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "s"}},
        {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]);
    needy["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "c"}}]);
    cluster.must(&format!("POST {NS}/pods"), needy).await;
    cluster
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need_from_their_binding_to_their_end() {
    let cluster = two_nodes().await;
    let (a, b) = (node(&cluster, "a"), node(&cluster, "b"));
    let needed = [
        format!("GET {NS}/secrets/s"),
        format!("GET {NS}/secrets/csi"),
        format!("GET {NS}/configmaps/c"),
        format!("GET {NS}/configmaps?fieldSelector=metadata.name%3Dc"),
        format!("GET {NS}/persistentvolumeclaims/claim"),
        "GET /api/v1/persistentvolumes/pv".to_owned(),
        format!("GET {NS}/pods/p"),
    ];
    for line in &needed {
        assert_eq!(a.ask(line).await.0, 403, "{line} before the pod is bound");
    }
    bind(&cluster, "p", "a").await;
    for line in &needed {
        assert_eq!(a.ask(line).await.0, 200, "{line}");
        assert_eq!(b.ask(line).await.0, 403, "{line} by another node");
    }
    let refused = [
        format!("GET {NS}/secrets/other"),
        format!("GET {NS}/secrets"),
        "GET /api/v1/secrets".to_owned(),
        format!("GET {NS}/configmaps?fieldSelector=metadata.name%21%3Dc"),
        "GET /api/v1/pods".to_owned(),
        "GET /api/v1/pods?fieldSelector=spec.nodeName%3Db".to_owned(),
    ];
    for line in &refused {
        assert_eq!(a.ask(line).await.0, 403, "{line}");
    }
    assert_eq!(a.ask("GET /api/v1/pods?fieldSelector=spec.nodeName%3Da").await.0, 200);
    let (_, message) = b.refused(&format!("GET {NS}/secrets/s"), Value::Null).await;
    assert!(message.ends_with("no relationship found between node 'b' and this object"), "{message}");
    cluster.ask(&format!("DELETE {NS}/pods/p?gracePeriodSeconds=0")).await;
    for line in &needed[..6] {
        assert_eq!(a.ask(line).await.0, 403, "{line} once the pod is gone");
    }
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_own_pods() {
    let cluster = two_nodes().await;
    bind(&cluster, "p", "a").await;
    let (a, b) = (node(&cluster, "a"), node(&cluster, "b"));
    let (_, there) = cluster.ask(&format!("GET {NS}/pods/p")).await;
    let uid = there["metadata"]["uid"].as_str().unwrap();
    let line = format!("POST {NS}/serviceaccounts/robot/token");
    let ask = |audiences: Value, bound: Value| json!({"spec": {"audiences": audiences, "boundObjectRef": bound}});
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
    assert_eq!(a.put(&line, ask(json!([]), bound.clone())).await.0, 201);
    assert_eq!(b.put(&line, ask(json!([]), bound.clone())).await.0, 403);
    let cases = [
        (ask(json!([]), Value::Null), "node requested token not bound to a pod"),
        (
            ask(json!([]), json!({"apiVersion": "v1", "kind": "Pod", "name": "p"})),
            "node requested token with a pod binding without a uid",
        ),
        (ask(json!(["vault"]), bound.clone()), "audience \"vault\" not found in pod spec volume"),
        (ask(json!(["a", "b"]), bound.clone()), "node may only request 0 or 1 audiences"),
    ];
    for (body, expected) in cases {
        let (code, message) = a.refused(&line, body).await;
        assert_eq!((code, message.ends_with(expected)), (403, true), "{message}");
    }
    let (code, _) = a.refused(&format!("POST {NS}/serviceaccounts/default/token"), ask(json!([]), bound)).await;
    assert_eq!(code, 403, "no pod of the node runs as that account");
}

#[tokio::test]
async fn what_a_node_may_not_write() {
    let cluster = two_nodes().await;
    bind(&cluster, "p", "a").await;
    let (a, b) = (node(&cluster, "a"), node(&cluster, "b"));
    let merges = [
        (&a, "/api/v1/nodes/a", json!({"spec": {"taints": []}}), "node \"a\" is not allowed to modify taints"),
        (
            &a,
            "/api/v1/nodes/a",
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1", "k8s.io/y": "2"}}}),
            "is not allowed to modify labels: k8s.io/y, node-restriction.kubernetes.io/x",
        ),
        (
            &a,
            "/api/v1/nodes/b/status",
            json!({"status": {"phase": "x"}}),
            "node \"a\" is not allowed to modify node \"b\"",
        ),
        (
            &b,
            "/api/v1/namespaces/default/pods/p/status",
            json!({"status": {"phase": "Running"}}),
            "node \"b\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        (
            &a,
            "/api/v1/namespaces/default/pods/p/status",
            json!({"metadata": {"labels": {"a": "b"}}}),
            "node \"a\" cannot update labels through pod status",
        ),
    ];
    for (who, path, patch, expected) in merges {
        let (code, status) = who.merge(path, patch).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert_eq!((code, message.ends_with(expected)), (403, true), "{path}: {status}");
    }
    let eviction = json!({"metadata": {"name": "p"}});
    assert_eq!(b.put(&format!("POST {NS}/pods/p/eviction"), eviction).await.0, 403);
    assert_eq!(b.ask(&format!("DELETE {NS}/pods/p")).await.0, 403);
    assert_eq!(a.merge("/api/v1/nodes/a", json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}})).await.0, 200);
    assert_eq!(a.merge(&format!("{NS}/pods/p/status"), json!({"status": {"phase": "Running"}})).await.0, 200);
    let mirror = |annotations: Value| {
        json!({"metadata": {"name": "m", "annotations": annotations},
        "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "i"}]}})
    };
    let (_, message) = a.refused(&format!("POST {NS}/pods"), mirror(json!({}))).await;
    assert!(message.contains("can only create mirror pods"), "{message}");
    let (_, message) = a.refused(&format!("POST {NS}/pods"), mirror(json!({"kubernetes.io/config.mirror": "x"}))).await;
    assert!(message.ends_with("node \"a\" can only create pods with an owner reference set to itself"), "{message}");
}

#[tokio::test]
async fn nodes_have_leases_and_slices_of_their_own() {
    let cluster = two_nodes().await;
    let (a, b) = (node(&cluster, "a"), node(&cluster, "b"));
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "a"}});
    assert_eq!(a.put(&format!("POST {leases}"), lease.clone()).await.0, 201);
    assert_eq!(b.put(&format!("POST {leases}"), lease).await.0, 403);
    assert_eq!(a.ask(&format!("GET {leases}/a")).await.0, 200);
    assert_eq!(b.ask(&format!("GET {leases}/a")).await.0, 403);
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let slice = json!({"metadata": {"name": "s"}, "spec": {"nodeName": "a", "driver": "d.example.com",
        "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1}, "devices": []}});
    assert_eq!(b.put(&format!("POST {slices}"), slice.clone()).await.0, 403);
    assert_eq!(a.put(&format!("POST {slices}"), slice).await.0, 201);
    assert_eq!(b.ask(&format!("DELETE {slices}/s")).await.0, 403);
    assert_eq!(a.ask(&format!("DELETE {slices}/s")).await.0, 200);
}
