//! A node that has been taken over, and accounts that want to be more than they are.

use serde_json::json;

use crate::site::{Site, TREASURE};

fn node(
    site: &Site,
    name: &str,
) -> Option<(Vec<rustls_pki_types::CertificateDer<'static>>, rustls_pki_types::PrivateKeyDer<'static>)> {
    Some(site.certificate(&format!("system:node:{name}"), &["system:nodes"]))
}

#[tokio::test]
async fn a_node_has_its_own_pods_secrets_alone() {
    let site = Site::start().await;
    let (code, body) = site.ask(node(&site, "node-one"), "GET /api/v1/namespaces/one/secrets/s", "", "").await;
    assert_eq!(code, 200, "{body}");
    let tries = [
        "GET /api/v1/namespaces/two/secrets/s",
        "GET /api/v1/secrets",
        "GET /api/v1/namespaces/two/secrets?fieldSelector=metadata.name%3Ds",
        "GET /api/v1/namespaces/two/secrets?watch=1&fieldSelector=metadata.name%3Ds",
        "GET /api/v1/watch/namespaces/two/secrets/s",
        "GET /api/v1/namespaces/two/pods/p",
        "GET /api/v1/pods",
        "GET /api/v1/namespaces/one/configmaps",
        "DELETE /api/v1/namespaces/two/pods/p",
    ];
    for line in tries {
        let (code, body) = site.ask(node(&site, "node-one"), line, "", "").await;
        assert_eq!(code, 403, "{line}: {body}");
        assert!(!body.contains(TREASURE), "{line}: {body}");
    }
    site.still_serves().await;
}

#[tokio::test]
async fn a_node_gets_no_token_of_another_nodes_pod() {
    let site = Site::start().await;
    let token = |namespace: &str| format!("POST /api/v1/namespaces/{namespace}/serviceaccounts/robot/token");
    let pod = |namespace: &str| format!("/api/v1/namespaces/{namespace}/pods/p");
    let uid = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let mine = uid(&site.ask_inside("GET", &pod("one"), String::new()).await);
    let theirs = uid(&site.ask_inside("GET", &pod("two"), String::new()).await);
    let bound = |uid: &str| {
        json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}}).to_string()
    };
    assert_eq!(site.ask(node(&site, "node-one"), &token("one"), "", &bound(&mine)).await.0, 201);
    for (namespace, body) in [
        ("two", bound(&theirs)),
        ("two", bound(&mine)),
        ("one", bound(&theirs)),
        ("one", json!({"spec": {}}).to_string()),
    ] {
        let (code, answer) = site.ask(node(&site, "node-one"), &token(namespace), "", &body).await;
        assert_eq!(code, 403, "{namespace} {body}: {answer}");
        assert!(!answer.contains("\"token\""), "{answer}");
    }
}

#[tokio::test]
async fn a_pod_that_a_node_makes_reads_nothing_for_it() {
    let site = Site::start().await;
    let spy = json!({"metadata": {"name": "spy", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "node-one", "containers": [{"name": "c", "image": "i",
            "envFrom": [{"secretRef": {"name": "s"}}]}]}});
    let (code, body) =
        site.ask(node(&site, "node-one"), "POST /api/v1/namespaces/two/pods", "", &spy.to_string()).await;
    assert_eq!(code, 403, "{body}");
}

#[tokio::test]
async fn an_editor_makes_itself_no_administrator() {
    let site = Site::start().await;
    let token = site.token("one").await;
    let auth = format!("authorization: Bearer {token}\r\n");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let to_admin = json!({"metadata": {"name": "me"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "one"}]})
    .to_string();
    let tries = [
        (format!("POST {rbac}/clusterrolebindings"), to_admin.clone()),
        (format!("POST {rbac}/namespaces/one/rolebindings"), to_admin),
        (format!("PUT {rbac}/clusterroles/edit"), json!({"metadata": {"name": "edit"}, "rules": []}).to_string()),
        ("POST /api/v1/namespaces/two/serviceaccounts/robot/token".to_owned(), json!({"spec": {}}).to_string()),
        (
            "POST /api/v1/namespaces/kube-system/serviceaccounts/default/token".to_owned(),
            json!({"spec": {}}).to_string(),
        ),
        ("POST /apis/authentication.k8s.io/v1/tokenreviews".to_owned(), json!({"spec": {"token": "x"}}).to_string()),
        ("POST /apis/certificates.k8s.io/v1/certificatesigningrequests".to_owned(), json!({}).to_string()),
    ];
    for (line, body) in tries {
        let (code, answer) = site.ask(None, &line, &auth, &body).await;
        assert_eq!(code, 403, "{line}: {answer}");
    }
    site.still_serves().await;
}

#[tokio::test]
async fn a_certificate_of_nobody_or_of_a_server_is_401() {
    let site = Site::start().await;
    let unnamed = site.certificate("", &["system:masters"]);
    assert_eq!(site.ask(Some(unnamed), "GET /api/v1/secrets", "", "").await.0, 401);
    let stranger = Site::start().await;
    let forged = stranger.certificate("admin", &["system:masters"]);
    assert_eq!(site.ask(Some(forged), "GET /api/v1/secrets", "", "").await.0, 401);
}
