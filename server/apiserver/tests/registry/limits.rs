//! What a namespace takes: quotas, limits, and the other plugins that look at more than one object.

use serde_json::{Value, json};

use crate::cluster::{Cluster, config_map, pod, user};

const NS: &str = "/api/v1/namespaces/default";

async fn quota(cluster: &Cluster, spec: Value) {
    cluster.must(&format!("POST {NS}/resourcequotas"), json!({"metadata": {"name": "q"}, "spec": spec})).await;
}

fn asking(name: &str, requests: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": requests});
    pod
}

#[tokio::test]
async fn a_quota_is_never_exceeded_however_many_write_at_once() {
    const ROOM: usize = 10;
    let cluster = Cluster::start().await;
    quota(&cluster, json!({"hard": {"count/configmaps": ROOM.to_string(), "pods": "3"}})).await;
    let maps = (0..100).map(|number| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let map = config_map(&format!("m{number}"), "x");
            cluster.put(&format!("POST {NS}/configmaps"), map).await.0
        })
    });
    let codes = futures::future::join_all(maps).await;
    let made = codes.iter().filter(|code| *code.as_ref().unwrap() == 201).count();
    assert_eq!(made, ROOM);
    let (_, list) = cluster.ask(&format!("GET {NS}/configmaps")).await;
    assert_eq!(list["names"].as_array().unwrap().len(), ROOM);
    let (_, there) = cluster.ask(&format!("GET {NS}/resourcequotas/q")).await;
    assert_eq!(there["status"]["used"]["count/configmaps"], ROOM.to_string());
    let refusal = "configmaps \"one-more\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: \
                   count/configmaps=10, limited: count/configmaps=10";
    let refused = cluster.refused(&format!("POST {NS}/configmaps"), config_map("one-more", "x")).await;
    assert_eq!(refused, (403, refusal.to_owned()));
    cluster.ask(&format!("DELETE {NS}/configmaps/{}", list["names"][0].as_str().unwrap())).await;
    assert_eq!(cluster.put(&format!("POST {NS}/configmaps"), config_map("one-more", "x")).await.0, 201);
}

#[tokio::test]
async fn quotas_count_compute_and_scopes() {
    let cluster = Cluster::start().await;
    quota(&cluster, json!({"hard": {"requests.cpu": "1", "pods": "5"}})).await;
    let pods = format!("POST {NS}/pods");
    let (_, message) = cluster.refused(&pods, pod("silent")).await;
    assert_eq!(message, "pods \"silent\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    assert_eq!(cluster.put(&pods, asking("a", json!({"cpu": "600m"}))).await.0, 201);
    let (_, message) = cluster.refused(&pods, asking("b", json!({"cpu": "500m"}))).await;
    assert_eq!(
        message,
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: \
         requests.cpu=1"
    );
    // A dry run is held to the quota, and charges nothing.
    assert_eq!(cluster.put(&format!("{pods}?dryRun=All"), asking("c", json!({"cpu": "400m"}))).await.0, 201);
    assert_eq!(cluster.put(&pods, asking("d", json!({"cpu": "400m"}))).await.0, 201);
    let (_, there) = cluster.ask(&format!("GET {NS}/resourcequotas/q")).await;
    assert_eq!(there["status"]["used"], json!({"pods": "2", "requests.cpu": "1"}));
}

#[tokio::test]
async fn a_service_that_changes_its_type_counts_anew() {
    let cluster = Cluster::start().await;
    quota(&cluster, json!({"hard": {"services.nodeports": "1"}})).await;
    let service = |kind: &str, ports: Value| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}});
    let ports = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
    cluster.must(&format!("POST {NS}/services"), service("ClusterIP", ports)).await;
    let (code, status) = cluster.merge(&format!("{NS}/services/s"), json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("requested: services.nodeports=2"), "{status}");
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let cluster = Cluster::start().await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"}, "max": {"cpu": "1"}, "min": {"cpu": "100m"},
        "maxLimitRequestRatio": {"cpu": "2"}}]}});
    cluster.must(&format!("POST {NS}/limitranges"), range).await;
    let made = cluster.must(&format!("POST {NS}/pods"), pod("plain")).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "500m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let with = |requests: &str, limits: &str| {
        let mut pod = pod("p");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": requests}, "limits": {"cpu": limits}});
        pod
    };
    let cases = [
        (with("1", "2"), "maximum cpu usage per Container is 1, but limit is 2"),
        (with("50m", "100m"), "minimum cpu usage per Container is 100m, but request is 50m"),
        (with("200m", "1"), "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000"),
    ];
    for (body, expected) in cases {
        let refused = cluster.refused(&format!("POST {NS}/pods"), body).await;
        assert_eq!(refused, (403, format!("pods \"p\" is forbidden: {expected}")));
    }
}

#[tokio::test]
async fn a_namespace_enforces_its_level() {
    let cluster = Cluster::start().await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    assert_eq!(cluster.merge("/api/v1/namespaces/default", label).await.0, 200);
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = cluster.refused(&format!("POST {NS}/pods"), privileged).await;
    let expected = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must \
                    not set securityContext.privileged=true)";
    assert_eq!(refused, (403, expected.to_owned()));
    assert_eq!(cluster.put(&format!("POST {NS}/pods"), pod("q")).await.0, 201);
    let bad = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}});
    assert_eq!(cluster.merge("/api/v1/namespaces/default", bad).await.0, 422);
}

#[tokio::test]
async fn claims_are_protected_and_grow_only_where_their_class_lets_them() {
    let cluster = Cluster::start().await;
    let class = |name: &str, grows: bool| json!({"metadata": {"name": name}, "provisioner": "p", "allowVolumeExpansion": grows});
    let claim = |class: &str| {
        json!({"metadata": {"name": class}, "spec": {"storageClassName": class,
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let claims = format!("{NS}/persistentvolumeclaims");
    for (name, grows, code) in [("fixed", false, 403), ("grows", true, 200)] {
        cluster.must("POST /apis/storage.k8s.io/v1/storageclasses", class(name, grows)).await;
        let made = cluster.must(&format!("POST {claims}"), claim(name)).await;
        assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
        let (_, status) = cluster.merge(&format!("{claims}/{name}"), larger.clone()).await;
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("nly bound") || message.contains("bound claims"), "{status}");
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        cluster.merge(&format!("{claims}/{name}/status"), bound).await;
        cluster.merge(&format!("{claims}/{name}"), json!({"spec": {"volumeName": "v"}})).await;
        let (got, status) = cluster.merge(&format!("{claims}/{name}"), larger.clone()).await;
        assert_eq!(got, code, "{status}");
    }
}

#[tokio::test]
async fn ingresses_have_the_default_class() {
    let cluster = Cluster::start().await;
    let networking = "/apis/networking.k8s.io/v1";
    let class = json!({"metadata": {"name": "main", "annotations":
        {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "example.com/c"}});
    cluster.must(&format!("POST {networking}/ingressclasses"), class).await;
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend":
        {"service": {"name": "s", "port": {"number": 80}}}}});
    let made = cluster.must(&format!("POST {networking}/namespaces/default/ingresses"), ingress).await;
    assert_eq!(made["spec"]["ingressClassName"], "main");
}

#[tokio::test]
async fn certificates_are_approved_by_who_may() {
    let cluster = Cluster::start().await;
    let group = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = rcgen::KeyPair::generate().unwrap();
    let request = |organization: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem)
    };
    let csr = |name: &str, signer: &str, organization: &str| {
        json!({"metadata": {"name": name}, "spec": {"signerName": signer,
        "request": request(organization), "usages": ["client auth"]}})
    };
    let client = "kubernetes.io/kube-apiserver-client";
    let refused = cluster.refused(&format!("POST {group}"), csr("m", client, "system:masters")).await;
    assert_eq!(refused.0, 403);
    assert!(refused.1.ends_with(&format!("use of {client} signer with system:masters group is not allowed")));
    let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
    let node = cluster.by(user("system:node:b", &["system:nodes", "system:authenticated"]));
    let (code, message) = node.refused(&format!("POST {group}"), csr("n", kubelet, "system:nodes")).await;
    assert_eq!((code, message.ends_with("can only create a node CSR with CN=system:node:b")), (403, true), "{message}");
    cluster.must(&format!("POST {group}"), csr("ok", client, "people")).await;
    let rules = json!([{"verbs": ["update", "patch"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests/approval"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    cluster.must(&format!("POST {rbac}/clusterroles"), json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "ann",
        "apiGroup": "rbac.authorization.k8s.io"}]});
    cluster.must(&format!("POST {rbac}/clusterrolebindings"), binding).await;
    let ann = cluster.by(user("ann", &["system:authenticated"]));
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}});
    let (code, status) = ann.merge(&format!("{group}/ok/approval"), approve.clone()).await;
    assert_eq!(code, 403, "{status}");
    let expected = format!("user not permitted to approve requests with signerName {client:?}");
    assert!(status["message"].as_str().unwrap().ends_with(&expected), "{status}");
    assert_eq!(cluster.merge(&format!("{group}/ok/approval"), approve).await.0, 200);
}
