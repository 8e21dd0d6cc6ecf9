//! Who may do what, and the reviews that tell.

use serde_json::{Value, json};

use crate::cluster::{Cluster, config_map, user};

#[tokio::test]
async fn refusals_say_who_and_what() {
    let cluster = Cluster::start().await;
    let nobody = cluster.by(user("ann", &["system:authenticated"]));
    let cases = [
        (
            "GET /api/v1/namespaces/default/pods",
            "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
        (
            "GET /api/v1/nodes/n",
            "nodes \"n\" is forbidden: User \"ann\" cannot get resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            "PUT /apis/apps/v1/namespaces/n/deployments/d/scale",
            "deployments.apps \"d\" is forbidden: User \"ann\" cannot update resource \"deployments/scale\" in API group \
             \"apps\" in the namespace \"n\"",
        ),
    ];
    for (line, message) in cases {
        assert_eq!(nobody.refused(line, Value::Null).await, (403, message.to_owned()));
    }
}

#[tokio::test]
async fn a_binding_holds_from_its_write_on_and_no_longer_than_it() {
    let cluster = Cluster::start().await;
    let ann = cluster.by(user("ann", &["system:authenticated"]));
    let line = "GET /api/v1/namespaces/default/configmaps";
    assert_eq!(ann.ask(line).await.0, 403);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "ann",
        "apiGroup": "rbac.authorization.k8s.io"}]});
    cluster.must(&format!("POST {bindings}"), binding).await;
    assert_eq!(ann.ask(line).await.0, 200);
    assert_eq!(ann.ask("GET /api/v1/namespaces/default/secrets").await.0, 403);
    assert_eq!(ann.ask("GET /api/v1/configmaps").await.0, 403);
    cluster.ask(&format!("DELETE {bindings}/b")).await;
    assert_eq!(ann.ask(line).await.0, 403);
}

#[tokio::test]
async fn nodes_write_what_is_their_own() {
    let cluster = Cluster::start().await;
    let node = cluster.by(user("system:node:a", &["system:nodes", "system:authenticated"]));
    let create = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(node.put("POST /api/v1/nodes", create("a")).await.0, 201);
    assert_eq!(node.put("POST /api/v1/nodes", create("b")).await.0, 403);
    cluster.must("POST /api/v1/nodes", create("b")).await;
    let status = json!({"status": {"phase": "Running"}});
    assert_eq!(node.merge("/api/v1/nodes/a/status", status.clone()).await.0, 200);
    assert_eq!(node.merge("/api/v1/nodes/b/status", status).await.0, 403);
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "a"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(node.put(&format!("POST {leases}"), lease).await.0, 201);
    assert_eq!(node.ask("GET /api/v1/pods?fieldSelector=spec.nodeName%3Da").await.0, 200);
    assert_eq!(node.ask("GET /api/v1/pods").await.0, 403);
    assert_eq!(node.put("POST /api/v1/namespaces/default/configmaps", config_map("x", "1")).await.0, 403);
}

#[tokio::test]
async fn reviews_are_answered() {
    let cluster = Cluster::start().await;
    let group = "/apis/authorization.k8s.io/v1";
    let ask = |user: &str, verb: &str| {
        json!({"spec": {"user": user, "groups": ["system:masters"],
        "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}})
    };
    let (status, review) = cluster.put(&format!("POST {group}/subjectaccessreviews"), ask("x", "get")).await;
    assert_eq!((status, &review["status"]), (201, &json!({"allowed": true})));
    let ann = cluster.by(user("ann", &["system:authenticated"]));
    let own = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let (_, review) = ann.put(&format!("POST {group}/selfsubjectaccessreviews"), own).await;
    assert_eq!(review["status"], json!({"allowed": false}));
    let paths = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}}});
    let (_, review) = ann.put(&format!("POST {group}/selfsubjectaccessreviews"), paths).await;
    assert_eq!(review["status"]["allowed"], true, "{review}");
    let (_, rules) =
        ann.put(&format!("POST {group}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}})).await;
    assert!(rules["status"]["resourceRules"].as_array().is_some_and(|rules| !rules.is_empty()), "{rules}");
    let (_, who) = ann.put("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(who["status"]["userInfo"], json!({"username": "ann", "groups": ["system:authenticated"]}));
    let (code, _) = cluster
        .put("POST /api/v1/namespaces/default/serviceaccounts/d/token", json!({"spec": {"audiences": []}}))
        .await;
    assert_eq!(code, 501);
}

#[tokio::test]
async fn starting_again_changes_nothing() {
    let cluster = Cluster::start().await;
    let before = cluster.registry.cacher().revision();
    skiff_apiserver::bootstrap::run(&cluster.registry).await.unwrap();
    assert_eq!(cluster.registry.cacher().revision(), before);
}

#[tokio::test]
async fn aggregated_rules_are_written_down() {
    let cluster = Cluster::start().await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(skiff_apiserver::bootstrap::keep_aggregated(cluster.registry.clone(), cancel.clone()));
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let mut watch = cluster.watch(&format!("GET {roles}?watch=1&fieldSelector=metadata.name%3Dview")).await;
    let rule = json!({"verbs": ["get"], "apiGroups": ["x.io"], "resources": ["widgets"]});
    let widgets = json!({"metadata": {"name": "widgets",
        "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, "rules": [rule]});
    cluster.must(&format!("POST {roles}"), widgets).await;
    let written = async {
        while let Some(event) = futures::StreamExt::next(&mut watch).await {
            if let skiff_client::WatchEvent::Modified(entry) = event.unwrap() {
                let role = entry.object().unwrap();
                if role.at(&["rules"]).unwrap().as_array().unwrap().contains(&rule) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), written).await.unwrap();
    cancel.cancel();
    task.await.unwrap();
}
