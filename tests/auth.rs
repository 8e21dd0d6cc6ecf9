//! Who is who, with the real kubectl: what one may, tokens, accounts, roles; and a pod that uses its own token.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{fs, path::PathBuf, process::Command};

use common::{Cluster, project, text};

/// The API server's URL.
fn server(cluster: &Cluster) -> String {
    cluster.kubectl(&["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}"])
}

/// What the API server answers to a bearer token: HTTP status and body.
fn with_token(cluster: &Cluster, token: &str, path: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sSk", "--max-time", "20", "-o", "-", "-w", "\n%{http_code}", "-H"])
        .arg(format!("Authorization: Bearer {token}"))
        .arg(format!("{}{path}", server(cluster)))
        .output()
        .expect("curl runs");
    let said = text(&output);
    let (body, code) = said.rsplit_once('\n').expect("a status");
    (code.trim().parse().unwrap_or_else(|_| panic!("{said}")), body.to_owned())
}

/// Where a pod finds its token on the node.
fn token_file(cluster: &Cluster, pod: &str) -> PathBuf {
    let pod = cluster.get(&["pod", pod]);
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    let name = volumes
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with("kube-api-access-"))
        .expect("the volume with the token");
    let folder = cluster.data_dir().join("agent/pods").join(uid);
    folder.join("volumes/kubernetes.io~projected").join(name).join("token")
}

#[test]
fn kubectl_asks_who_may_what() {
    let cluster = Cluster::start();
    let who = cluster.kubectl(&["auth", "whoami", "-o", "json"]);
    assert!(who.contains("system:masters"), "{who}");
    let list = cluster.kubectl(&["auth", "can-i", "--list"]);
    assert!(list.contains("*.*") && list.contains("[*]"), "{list}");
    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    cluster.kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]);
    cluster.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:robot"]);
    let robot = "--as=system:serviceaccount:default:robot";
    assert_eq!(cluster.kubectl(&["auth", "can-i", "list", "pods", robot]).trim(), "yes");
    assert!(cluster.kubectl_fails(&["auth", "can-i", "delete", "pods", robot]).contains("no"));
    let list = cluster.kubectl(&["auth", "can-i", "--list", robot]);
    assert!(list.lines().any(|line| line.starts_with("pods ") && line.contains("[get list]")), "{list}");
    let token = cluster.kubectl(&["create", "token", "robot", "--duration=1h"]);
    let token = token.trim();
    // Without the kubeconfig, whose certificate would go before the token.
    let (server_flag, token_flag) = (format!("--server={}", server(&cluster)), format!("--token={token}"));
    let alone = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server_flag, &token_flag, "auth", "whoami"];
    assert!(cluster.kubectl(&alone).contains("system:serviceaccount:default:robot"));
    assert_eq!(with_token(&cluster, token, "/api/v1/namespaces/default/pods").0, 200);
    assert_eq!(with_token(&cluster, token, "/api/v1/namespaces/kube-system/pods").0, 403);
    assert_eq!(with_token(&cluster, "forged.token.x", "/api/v1/namespaces/default/pods").0, 401);
}

#[test]
fn a_pod_reads_its_own_namespace_with_its_token_until_it_is_gone() {
    let mut cluster = Cluster::start();
    cluster.import_hello();
    let role = ["create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:default"];
    cluster.kubectl(&role);
    cluster.kubectl(&["apply", "-f", project().join("examples/hello/hello.yaml").to_str().expect("a path")]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    let pod = cluster.kubectl(&["get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[0].metadata.name}"]);
    let file = token_file(&cluster, &pod);
    let folder = file.parent().expect("a folder");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file of the volume");
    assert_eq!(read("namespace"), "default");
    assert!(read("ca.crt").contains("BEGIN CERTIFICATE"));
    let token = read("token");
    assert_eq!(with_token(&cluster, &token, "/api/v1/namespaces/default/pods").0, 200);
    assert_eq!(with_token(&cluster, &token, "/api/v1/namespaces/kube-system/pods").0, 403);
    cluster.kubectl(&["delete", "deployment", "hello"]);
    cluster
        .wait("the token is dead", |cluster| with_token(cluster, &token, "/api/v1/namespaces/default/pods").0 == 401);
}

#[test]
fn secrets_with_tokens_are_filled_in_on_request() {
    let mut cluster = Cluster::start();
    cluster.apply(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: t\n  \
         annotations:\n    kubernetes.io/service-account.name: default\n",
    );
    cluster.wait("the secret holds a token", |cluster| cluster.get(&["secret", "t"])["data"]["token"].is_string());
}
