//! Nobody grants what they do not have.

use serde_json::{Value, json};

use crate::cluster::{Cluster, user};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": groups, "resources": resources})
}

fn binding(name: &str, role: (&str, &str), subject: &str) -> Value {
    json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"kind": "User", "name": subject, "apiGroup": "rbac.authorization.k8s.io"}]})
}

/// A cluster in which ann manages roles in `default` and may read pods there.
async fn managed() -> (Cluster, Cluster) {
    let cluster = Cluster::start().await;
    let rbac = ["rbac.authorization.k8s.io"];
    let rules = json!([rule(&["*"], &rbac, &["roles", "rolebindings"]), rule(&["get", "list"], &[""], &["pods"])]);
    // All verbs on roles would include `bind` and `escalate`.
    let rules = {
        let mut rules = rules;
        rules[0]["verbs"] = json!(["get", "list", "create", "update", "patch", "delete"]);
        rules
    };
    let role = json!({"metadata": {"name": "manager"}, "rules": rules});
    cluster.must(&format!("POST {RBAC}/namespaces/default/roles"), role).await;
    let line = format!("POST {RBAC}/namespaces/default/rolebindings");
    cluster.must(&line, binding("managers", ("Role", "manager"), "ann")).await;
    let ann = cluster.by(user("ann", &["system:authenticated"]));
    (cluster, ann)
}

#[tokio::test]
async fn a_role_holds_no_more_than_its_writer() {
    let (cluster, ann) = managed().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let fine = role("fine", json!([rule(&["get"], &[""], &["pods"])]));
    assert_eq!(ann.put(&format!("POST {roles}"), fine.clone()).await.0, 201);
    let refusal = "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" \
                   (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
                   {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
    let more = role("more", json!([rule(&["get"], &[""], &["pods", "secrets"])]));
    assert_eq!(ann.refused(&format!("POST {roles}"), more).await, (403, refusal.to_owned()));
    let widened = role("fine", json!([rule(&["*"], &["*"], &["*"])]));
    assert_eq!(ann.refused(&format!("PUT {roles}/fine"), widened.clone()).await.0, 403);
    let patched = ann.merge(&format!("{roles}/fine"), json!({"rules": widened["rules"]})).await;
    assert_eq!(patched.0, 403);
    // What does not touch the rules is no grant, whatever they are.
    let strong = role("strong", json!([rule(&["*"], &["*"], &["*"])]));
    cluster.must(&format!("POST {roles}"), strong).await;
    assert_eq!(ann.merge(&format!("{roles}/strong"), json!({"metadata": {"labels": {"a": "b"}}})).await.0, 200);
}

#[tokio::test]
async fn a_binding_gives_no_more_than_its_writer_has() {
    let (cluster, ann) = managed().await;
    let bindings = format!("POST {RBAC}/namespaces/default/rolebindings");
    let (code, message) = ann.refused(&bindings, binding("b", ("ClusterRole", "cluster-admin"), "eve")).await;
    assert_eq!((code, message.contains("not currently held")), (403, true), "{message}");
    assert_eq!(ann.refused(&bindings, binding("b", ("Role", "none"), "eve")).await.0, 404);
    let clusterwide = format!("POST {RBAC}/clusterrolebindings");
    assert_eq!(ann.refused(&clusterwide, binding("b", ("ClusterRole", "view"), "ann")).await.0, 403);
    let role = json!({"metadata": {"name": "reader"}, "rules": [rule(&["get"], &[""], &["pods"])]});
    cluster.must(&format!("POST {RBAC}/namespaces/default/roles"), role).await;
    assert_eq!(ann.put(&bindings, binding("b", ("Role", "reader"), "eve")).await.0, 201);
}

#[tokio::test]
async fn who_may_bind_or_escalate_may_do_so() {
    let (cluster, _) = managed().await;
    let bob = cluster.by(user("bob", &["system:authenticated"]));
    let rbac = ["rbac.authorization.k8s.io"];
    let rules = json!([
        rule(&["create", "escalate"], &rbac, &["roles"]),
        rule(&["create"], &rbac, &["rolebindings"]),
        {"verbs": ["bind"], "apiGroups": rbac, "resources": ["clusterroles"], "resourceNames": ["edit"]},
    ]);
    cluster
        .must(&format!("POST {RBAC}/namespaces/default/roles"), json!({"metadata": {"name": "b"}, "rules": rules}))
        .await;
    let bindings = format!("POST {RBAC}/namespaces/default/rolebindings");
    cluster.must(&bindings, binding("b", ("Role", "b"), "bob")).await;
    let all = json!({"metadata": {"name": "all"}, "rules": [rule(&["*"], &["*"], &["*"])]});
    assert_eq!(bob.put(&format!("POST {RBAC}/namespaces/default/roles"), all).await.0, 201);
    assert_eq!(bob.put(&bindings, binding("edits", ("ClusterRole", "edit"), "bob")).await.0, 201);
    assert_eq!(bob.put(&bindings, binding("admins", ("ClusterRole", "admin"), "bob")).await.0, 403);
}

#[tokio::test]
async fn aggregation_is_for_those_who_have_all() {
    let cluster = Cluster::start().await;
    let rules = json!([rule(&["create", "update"], &["rbac.authorization.k8s.io"], &["clusterroles"])]);
    cluster.must(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": "c"}, "rules": rules})).await;
    cluster.must(&format!("POST {RBAC}/clusterrolebindings"), binding("c", ("ClusterRole", "c"), "ann")).await;
    let ann = cluster.by(user("ann", &["system:authenticated"]));
    let role = json!({"metadata": {"name": "agg"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let (code, message) = ann.refused(&format!("POST {RBAC}/clusterroles"), role).await;
    assert_eq!(
        (code, message.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}")),
        (403, true),
        "{message}"
    );
}
