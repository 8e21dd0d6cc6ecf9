//! Who is who, with the real kubectl: what one may, tokens, accounts, roles; and a pod that uses its own token.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{Cluster, KUBECTLS, project, text};

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

/// Asks for a client certificate, as a person does it; its key lies in `NAME.key`.
fn ask_for_a_certificate(cluster: &Cluster, folder: &Path, name: &str) {
    let output = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args([
            "-subj",
            &format!("/CN={name}/O=crew"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.csr"),
        ])
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", text(&output));
    let request = STANDARD.encode(fs::read(folder.join(format!("{name}.csr"))).expect("a request"));
    cluster.apply(&format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata:\n  name: {name}\nspec:\n  \
         request: {request}\n  signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 3600\n  \
         usages: [client auth]\n"
    ));
}

/// The certificate that was issued.
fn certificate(cluster: &Cluster, name: &str) -> Option<Vec<u8>> {
    let encoded = cluster.get(&["csr", name])["status"]["certificate"].as_str()?.to_owned();
    Some(STANDARD.decode(encoded).expect("base64"))
}

#[test]
fn a_certificate_is_approved_or_denied_and_says_who_one_is() {
    let mut cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let read = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let ca = cluster.kubectl(&["config", "view", "--raw", "-o", read]);
    fs::write(file("ca.crt"), STANDARD.decode(ca).expect("base64")).expect("a file");
    for version in KUBECTLS {
        let (jane, mallory) = (format!("jane-{version}"), format!("mallory-{version}"));
        for name in [&jane, &mallory] {
            ask_for_a_certificate(&cluster, folder.path(), name);
        }
        let listed = cluster.kubectl_of(version, &["get", "csr"]);
        assert!(listed.lines().any(|line| line.starts_with(&jane) && line.contains("Pending")), "{listed}");
        let said = cluster.kubectl_of(version, &["certificate", "deny", &mallory]);
        assert!(said.contains(&format!("{mallory} denied")), "{said}");
        let said = cluster.kubectl_of(version, &["certificate", "approve", &jane]);
        assert!(said.contains(&format!("{jane} approved")), "{said}");
        cluster.wait("the certificate is issued", |cluster| certificate(cluster, &jane).is_some());
        let listed = cluster.kubectl_of(version, &["get", "csr"]);
        assert!(listed.lines().any(|line| line.starts_with(&jane) && line.contains("Approved,Issued")), "{listed}");
        assert!(listed.lines().any(|line| line.starts_with(&mallory) && line.contains("Denied")), "{listed}");
        assert!(certificate(&cluster, &mallory).is_none(), "what is denied is not issued");
        let output = cluster.kubectl_command(version, &["certificate", "approve", &mallory]).output();
        assert!(!output.expect("kubectl runs").status.success(), "what is denied cannot be approved");

        fs::write(file("jane.crt"), certificate(&cluster, &jane).expect("issued")).expect("a file");
        let as_jane = |args: &[&str]| {
            let mut command = cluster.kubectl_command(version, args);
            command.arg("--kubeconfig=/dev/null").arg(format!("--server={}", server(&cluster)));
            command.arg(format!("--certificate-authority={}", file("ca.crt")));
            command.arg(format!("--client-certificate={}", file("jane.crt")));
            command.arg(format!("--client-key={}", file(&format!("{jane}.key"))));
            command.output().expect("kubectl runs")
        };
        let who = text(&as_jane(&["auth", "whoami"]));
        assert!(who.contains(&jane) && who.contains("crew") && who.contains("system:authenticated"), "{who}");
        let refused = text(&as_jane(&["get", "pods"]));
        assert!(refused.contains(&format!("User \"{jane}\" cannot list resource \"pods\"")), "{refused}");
        cluster.kubectl(&["create", "clusterrolebinding", &jane, "--clusterrole=view", &format!("--user={jane}")]);
        let listed = as_jane(&["get", "pods"]);
        assert!(listed.status.success(), "{}", text(&listed));
    }
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
fn tokens_in_secrets_are_made_on_request_and_their_use_is_noted() {
    let mut cluster = Cluster::start();
    cluster.apply(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: t\n  \
         annotations:\n    kubernetes.io/service-account.name: default\n",
    );
    cluster.wait("the secret holds a token", |cluster| cluster.get(&["secret", "t"])["data"]["token"].is_string());
    let label = |cluster: &Cluster, name: &str| {
        cluster.get(&["secret", "t"])["metadata"]["labels"][format!("kubernetes.io/legacy-token-{name}")].clone()
    };
    assert!(label(&cluster, "last-used").is_null());
    let token = cluster.get(&["secret", "t"])["data"]["token"].as_str().expect("a token").to_owned();
    let token = String::from_utf8(STANDARD.decode(token).expect("base64")).expect("text");
    assert_eq!(with_token(&cluster, &token, "/version").0, 200);
    // Of today, or of yesterday just after midnight.
    cluster.wait("its use is noted", |cluster| label(cluster, "last-used").as_str().is_some_and(|day| day.len() == 10));
    cluster.kubectl(&["label", "secret", "t", "kubernetes.io/legacy-token-invalid-since=2026-01-01"]);
    cluster.wait("it is not taken any more", |cluster| with_token(cluster, &token, "/version").0 == 401);

    let tracking = ["configmap", "-n", "kube-system", "kube-apiserver-legacy-service-account-token-tracking"];
    let since = |cluster: &Cluster| cluster.get(&tracking)["data"]["since"].as_str().map(str::to_owned);
    let first = since(&cluster);
    assert!(first.as_ref().is_some_and(|day| day.len() == 10), "{first:?}");
    cluster
        .kubectl(&[&["patch", "--type=merge", r#"--patch={"data":{"since":"2999-01-01"}}"#], &tracking[..]].concat());
    cluster
        .wait("a day that has not come is put right", |cluster| since(cluster).is_some_and(|day| day < "2900".into()));
}
