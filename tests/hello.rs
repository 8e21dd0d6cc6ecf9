//! The newcomer's walk: a cluster by one command, a Wasm Deployment behind a Service, kubectl in front.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{collections::BTreeSet, process::Stdio};

use common::{Cluster, KUBECTLS, http_get, project, read_some, wait_for};

const HELLO: &str = "examples/hello/hello.yaml";

fn hello_yaml() -> String {
    project().join(HELLO).to_str().expect("a path").to_owned()
}

fn pod_names(cluster: &Cluster) -> BTreeSet<String> {
    let pods = cluster.get(&["pods", "-l", "app=hello"]);
    let items = pods["items"].as_array().expect("items");
    items.iter().map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

fn ready_replicas(cluster: &Cluster) -> i64 {
    cluster.get(&["deployment", "hello"])["status"]["readyReplicas"].as_i64().unwrap_or_default()
}

fn service_url(cluster: &Cluster) -> String {
    let service = cluster.get(&["service", "hello"]);
    format!("http://{}:8080/walk", service["spec"]["clusterIP"].as_str().expect("a ClusterIP"))
}

/// Applies, reaches all pods through the Service, reads logs, scales, replaces, deletes, with one age of kubectl.
fn walk(cluster: &mut Cluster, kubectl: &str) {
    let of = |cluster: &Cluster, args: &[&str]| cluster.kubectl_of(kubectl, args);
    of(cluster, &["apply", "-f", &hello_yaml()]);
    let rolled_out = of(cluster, &["rollout", "status", "deployment/hello", "--timeout=60s"]);
    assert!(rolled_out.contains("successfully rolled out"), "{rolled_out}");

    let url = service_url(cluster);
    let pods = pod_names(cluster);
    assert_eq!(pods.len(), 3);
    // Three pods in turn: any three requests in a row reach all of them, from when the proxy knows all three.
    let mut answers = Vec::new();
    cluster.wait("every pod answers every third request", |_| {
        answers = (0..6).filter_map(|_| http_get(&url).ok()).collect();
        pods.iter().all(|pod| answers.iter().filter(|answer| answer.contains(pod.as_str())).count() == 2)
    });
    assert!(answers[0].starts_with("Hello from hello-") && answers[0].contains("you asked for /walk"), "{answers:?}");
    for pod in &pods {
        cluster.wait("the log shows each request", |cluster| {
            let log = of(cluster, &["logs", pod]);
            log.lines().filter(|line| line.contains(&format!("{pod} answers /walk"))).count() >= 2
        });
    }

    of(cluster, &["scale", "deployment/hello", "--replicas=20"]);
    cluster.wait("20 are ready", |cluster| ready_replicas(cluster) == 20);
    assert_eq!(pod_names(cluster).len(), 20);
    of(cluster, &["scale", "deployment/hello", "--replicas=3"]);
    cluster.wait("17 are gone", |cluster| pod_names(cluster).len() == 3);

    let victim = pod_names(cluster).pop_first().expect("a pod");
    of(cluster, &["delete", "pod", &victim]);
    cluster.wait("another pod takes its place", |cluster| {
        let pods = pod_names(cluster);
        pods.len() == 3 && !pods.contains(&victim) && ready_replicas(cluster) == 3
    });

    of(cluster, &["delete", "-f", &hello_yaml()]);
    cluster.wait("nothing is left", |cluster| {
        let left = cluster.get(&["deployments,replicasets,pods,endpointslices", "-n", "default"]);
        let items = left["items"].as_array().expect("items");
        items.iter().all(|item| item["metadata"]["name"] == "kubernetes")
    });
    assert!(http_get(&url).is_err(), "the ClusterIP must not answer any more");
}

#[test]
fn hello_walks_with_kubectl_of_all_ages() {
    let mut cluster = Cluster::start();
    cluster.import_hello();
    for kubectl in KUBECTLS {
        walk(&mut cluster, kubectl);
    }
    cluster.interrupt();
    assert!(wait_for(common::PATIENCE, || cluster.processes().is_empty()), "{:?}", cluster.processes());
}

#[test]
fn kubectl_shows_the_cluster() {
    let mut cluster = Cluster::start();
    cluster.import_hello();
    cluster.kubectl(&["apply", "-f", &hello_yaml()]);
    cluster.wait("3 are ready", |cluster| ready_replicas(cluster) == 3);
    for kubectl in KUBECTLS {
        shows(&cluster, kubectl);
        watches(&cluster, kubectl);
    }
}

fn shows(cluster: &Cluster, kubectl: &str) {
    let says = |args: &[&str], wanted: &[&str]| {
        let printed = cluster.kubectl_of(kubectl, args);
        for word in wanted {
            assert!(printed.contains(word), "kubectl {kubectl} {args:?} does not say {word:?}:\n{printed}");
        }
    };
    says(
        &["get", "nodes,pods", "-A", "-o", "wide"],
        &["node/test-node", "Ready", "INTERNAL-IP", "pod/hello-", "1/1", "Running"],
    );
    says(&["get", "pods", "-o", "yaml"], &["runtimeClassName: wasm", "phase: Running", "podIP: 127."]);
    says(
        &["get", "deploy,rs,svc,endpoints,endpointslices"],
        &["deployment.apps/hello", "3/3", "service/hello", ":8080"],
    );
    let pod = pod_names(cluster).pop_first().expect("a pod");
    says(&["describe", "pod", &pod], &["Node:", "test-node", "State:", "Running", "Scheduled", "Started"]);
    says(
        &["describe", "node", "test-node"],
        &["Capacity:", "Conditions:", "KubeletReady", "Non-terminated Pods:", &pod],
    );
    says(&["describe", "deployment", "hello"], &["3 desired", "3 available", "ScalingReplicaSet", "RollingUpdate"]);
    says(&["explain", "pod.spec"], &["FIELDS:", "containers", "DESCRIPTION:", "runtimeClassName"]);
    says(&["explain", "deployment.spec.strategy.rollingUpdate"], &["maxSurge", "maxUnavailable", "IntOrString"]);
    says(&["api-resources"], &["deployments", "apps/v1", "Deployment", "po"]);
    says(&["api-versions"], &["apps/v1", "rbac.authorization.k8s.io/v1"]);
    says(&["version"], &["Server Version: v1.36"]);
    says(&["get", "pods", "--field-selector=status.phase=Running", "-l", "app in (hello)"], &["hello-"]);
    says(&["get", "pods", "-l", "app!=hello", "-o", "name", "-n", "default"], &[]);
    says(&["auth", "whoami"], &["system:masters"]);
    says(&["get", "--raw", "/readyz?verbose"], &["[+]ping ok", "readyz check passed"]);
}

/// `get -w` prints the change that another kubectl makes.
fn watches(cluster: &Cluster, kubectl: &str) {
    let name = format!("watched-{}", kubectl.replace('.', "-"));
    let mut command = cluster.kubectl_command(kubectl, &["get", "configmaps", "-w"]);
    let mut watching = command.stdout(Stdio::piped()).spawn().expect("kubectl runs");
    let mut seen = read_some(&mut watching);
    cluster.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]);
    let shown = wait_for(common::PATIENCE, || {
        seen.push_str(&read_some(&mut watching));
        seen.contains(&name)
    });
    watching.kill().expect("a kill");
    watching.wait().expect("its end");
    assert!(shown, "kubectl {kubectl} get -w shows no change:\n{seen}");
}

#[test]
fn patches_of_every_kind_and_their_errors() {
    let cluster = Cluster::start();
    cluster.kubectl(&["apply", "-f", &hello_yaml()]);
    let patch =
        |kind: &str, patch: &str| cluster.kubectl(&["patch", "deployment", "hello", "--type", kind, "-p", patch]);
    patch(
        "strategic",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello","env":[{"name":"GREETING","value":"Hi"}]}]}}}}"#,
    );
    let deployment = cluster.get(&["deployment", "hello"]);
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env.as_array().map(Vec::len), Some(2), "the other variable stays: {env}");
    patch("merge", r#"{"metadata":{"labels":{"by":"merge"}}}"#);
    patch(
        "json",
        r#"[{"op":"add","path":"/metadata/labels/json","value":"yes"},{"op":"remove","path":"/metadata/labels/by"}]"#,
    );
    let labels = cluster.get(&["deployment", "hello"])["metadata"]["labels"].clone();
    assert_eq!(labels["json"], "yes");
    assert!(labels["by"].is_null());

    let refused = cluster.kubectl_fails(&["patch", "deployment", "hello", "-p", r#"{"spec":{"replicas":-1}}"#]);
    assert!(refused.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"), "{refused}");
    let refused = cluster.kubectl_fails(&[
        "patch",
        "deployment",
        "hello",
        "-p",
        r#"{"spec":{"selector":{"matchLabels":{"app":"x"}}}}"#,
    ]);
    assert!(refused.contains("is immutable"), "{refused}");
    let refused = cluster.kubectl_fails(&["scale", "deployment/none", "--replicas=2"]);
    assert!(refused.contains(r#"deployments.apps "none" not found"#), "{refused}");
}
