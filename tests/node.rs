//! What a node does for its pods: PersistentVolumes that outlive them, and static pods that nobody can take away.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{fs, path::PathBuf};

use common::{Cluster, http_get};
use serde_json::Value;

const SET: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      runtimeClassName: wasm
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: hello:latest
        imagePullPolicy: Never
        ports: [{containerPort: 8080}]
        env: [{name: POD_NAME, value: db}]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

/// A claim for one pod alone, and a pod that uses it.
fn single(pod: &str) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: single}}
spec: {{accessModes: [ReadWriteOncePod], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {pod}}}
spec:
  runtimeClassName: wasm
  terminationGracePeriodSeconds: 0
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: single}}}}]
  containers:
  - name: main
    image: hello:latest
    imagePullPolicy: Never
    ports: [{{containerPort: 8080}}]
    env: [{{name: POD_NAME, value: {pod}}}]
    volumeMounts: [{{name: data, mountPath: /data}}]
"
    )
}

/// A volume and a claim that an operator made for each other.
fn by_hand(folder: &str) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: by-hand}}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {{storage: 5Gi}}
  hostPath: {{path: {folder}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: by-hand}}
spec: {{storageClassName: '', accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 2Gi}}}}}}
"
    )
}

fn folders(cluster: &Cluster) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.data_dir().join("storage")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn field(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Writes a file into a pod's volume by the pod's own container.
fn write(cluster: &Cluster, pod: &str, text: &str) {
    let file = cluster.write_file("note", text.as_bytes());
    cluster.kubectl(&["cp", file.to_str().expect("a path"), &format!("{pod}:/data/note")]);
}

fn read(cluster: &Cluster, pod: &str) -> String {
    cluster.kubectl(&["exec", pod, "--", "cat", "/data/note"])
}

#[test]
fn volumes_outlive_pods_and_static_pods_obey_their_files() {
    let mut cluster = Cluster::start();
    cluster.import_hello();
    outgrow_a_limit(&mut cluster);
    data_outlives_pods(&mut cluster);
    claims_for_one_pod_and_volumes_made_by_hand(&mut cluster);
    files_are_pods(&mut cluster);
    was_evicted(&mut cluster);
}

/// A pod that writes more into its emptyDir than that may hold; what comes of it takes the node some seconds.
fn outgrow_a_limit(cluster: &mut Cluster) {
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  runtimeClassName: wasm
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - name: main
    image: hello:latest
    imagePullPolicy: Never
    ports: [{containerPort: 8080}]
    env: [{name: POD_NAME, value: greedy}]
    volumeMounts: [{name: data, mountPath: /data}]
",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/greedy", "--timeout=60s"]);
    uses(cluster);
    // The tools that files come by are compiled when they are first asked for.
    cluster.wait("commands run in it", |cluster| {
        let output = cluster.kubectl_command("1.36", &["exec", "greedy", "--", "true"]).output();
        output.is_ok_and(|output| output.status.success())
    });
    write(cluster, "greedy", &"x".repeat(2 << 20));
}

/// What the node tells of a Wasm pod by cAdvisor's names, and of itself.
fn uses(cluster: &Cluster) {
    let raw = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/test-node/proxy/{path}")]);
    let metrics = raw("metrics/cadvisor");
    for (name, container) in [
        ("container_cpu_usage_seconds_total", "main"),
        ("container_memory_working_set_bytes", "main"),
        ("container_memory_working_set_bytes", ""),
        ("container_start_time_seconds", "main"),
    ] {
        let begins = format!("{name}{{container=\"{container}\",");
        let is_ours = |line: &&str| line.starts_with(&begins) && line.contains("pod=\"greedy\"");
        assert_eq!(metrics.lines().filter(is_ours).count(), 1, "{name} {container}: {metrics}");
    }
    assert!(metrics.contains("machine_memory_bytes "), "{metrics}");
    let summary: Value = serde_json::from_str(&raw("stats/summary")).expect("JSON");
    assert!(summary["node"]["cpu"]["usageNanoCores"].is_u64(), "{summary}");
}

fn was_evicted(cluster: &mut Cluster) {
    cluster.wait("the greedy pod is evicted", |cluster| {
        let status = cluster.get(&["pod", "greedy"])["status"].clone();
        field(&status, "/reason") == "Evicted"
            && field(&status, "/message") == "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". "
    });
}

fn data_outlives_pods(cluster: &mut Cluster) {
    cluster.apply(SET);
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]);
    for pod in ["db-0", "db-1"] {
        write(cluster, pod, pod);
    }
    let claim = cluster.get(&["pvc", "data-db-0"]);
    assert_eq!(
        (field(&claim, "/status/phase"), field(&claim, "/spec/storageClassName")),
        ("Bound".into(), "local-path".into())
    );
    let volume = cluster.get(&["pv", &field(&claim, "/spec/volumeName")]);
    let folder = PathBuf::from(field(&volume, "/spec/hostPath/path"));
    assert_eq!(fs::read_to_string(folder.join("note")).expect("the pod's file"), "db-0");
    assert!(folders(cluster).contains(&folder), "{folder:?}");
    let told = cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=data-db-0"]);
    for word in ["ExternalProvisioning", "ProvisioningSucceeded"] {
        assert!(told.contains(word), "{told}");
    }

    let uid = field(&cluster.get(&["pod", "db-0"]), "/metadata/uid");
    cluster.kubectl(&["delete", "pod", "db-0"]);
    cluster.wait("there is a new pod", |cluster| {
        let pods = cluster.get(&["pods", "-l", "app=db"]);
        let found = pods["items"].as_array().is_some_and(|all| {
            all.iter().any(|pod| field(pod, "/metadata/name") == "db-0" && field(pod, "/metadata/uid") != uid)
        });
        found
    });
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s"]);
    assert_eq!((read(cluster, "db-0"), read(cluster, "db-1")), ("db-0".into(), "db-1".into()));

    // A claim that is in use stays until its pod is gone.
    cluster.kubectl(&["delete", "pvc", "data-db-0", "--wait=false"]);
    assert!(folder.join("note").exists());
    cluster.kubectl(&["delete", "statefulset", "db"]);
    cluster.wait("the claim's folder is gone, the other's is not", |cluster| {
        !folder.exists() && folders(cluster).len() == 1
    });
    cluster.wait("its volume is gone", |cluster| {
        cluster.get(&["pv"])["items"].as_array().is_some_and(|all| all.len() == 1)
    });
    cluster.kubectl(&["delete", "pvc", "data-db-1"]);
    cluster.wait("nothing is left", |cluster| {
        let node = cluster.get(&["node", "test-node"]);
        let annotations = node["metadata"]["annotations"].to_string();
        folders(cluster).is_empty() && !annotations.contains("remove-local-path")
    });
}

fn claims_for_one_pod_and_volumes_made_by_hand(cluster: &mut Cluster) {
    cluster.apply(&single("first"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"]);
    cluster.apply(&single("second"));
    cluster.wait("the second pod is told why it waits", |cluster| {
        let said = cluster.get(&["pod", "second"])["status"]["conditions"].to_string();
        said.contains("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode")
    });
    cluster.kubectl(&["delete", "pod", "first"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/second", "--timeout=60s"]);

    let folder = cluster.data_dir().join("by-hand");
    cluster.apply(&by_hand(folder.to_str().expect("a path")));
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/by-hand", "--timeout=60s"]);
    assert_eq!(field(&cluster.get(&["pvc", "by-hand"]), "/status/capacity/storage"), "5Gi");
    cluster.kubectl(&["delete", "pvc", "by-hand"]);
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Released", "pv/by-hand", "--timeout=60s"]);
}

fn static_pod(greeting: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: own, labels: {{app: own}}}}
spec:
  runtimeClassName: wasm
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: hello:latest
    imagePullPolicy: Never
    ports: [{{containerPort: 8080}}]
    env: [{{name: POD_NAME, value: own}}, {{name: GREETING, value: {greeting}}}]
"
    )
}

/// The mirror's UID, its container's, and what the pod answers.
fn mirror(cluster: &Cluster) -> (String, String, String) {
    let pods = cluster.get(&["pods", "-l", "app=own"]);
    let pod = pods["items"][0].clone();
    let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
    let ip = field(&pod, "/status/podIP");
    let answer = if ready { http_get(&format!("http://{ip}:8080/")).unwrap_or_default() } else { String::new() };
    (field(&pod, "/metadata/uid"), field(&pod, "/status/containerStatuses/0/containerID"), answer)
}

fn files_are_pods(cluster: &mut Cluster) {
    let folder = cluster.data_dir().join("agent/pod-manifests");
    let file = folder.join("own.yaml");
    let put = |text: &str| {
        // As an editor does: written aside and renamed.
        fs::write(folder.join(".own.yaml.new"), text).expect("a file");
        fs::rename(folder.join(".own.yaml.new"), &file).expect("a file");
    };
    put(&static_pod("Ahoy"));
    cluster.wait("the mirror is ready", |cluster| mirror(cluster).2.contains("Ahoy"));
    let first = mirror(cluster);
    let pod = cluster.get(&["pod", "own-test-node"]);
    assert_eq!(field(&pod, "/metadata/ownerReferences/0/kind"), "Node");
    assert_eq!(cluster.kubectl(&["exec", "own-test-node", "--", "echo", "here"]), "here\n");

    cluster.kubectl(&["delete", "pod", "own-test-node", "--wait=false"]);
    cluster.wait("there is a new mirror of the same container", |cluster| {
        let now = mirror(cluster);
        now.0 != first.0 && now.1 == first.1
    });
    put("kind: [");
    cluster.wait("a bad file is told of", |cluster| {
        cluster.kubectl(&["get", "events", "--field-selector=reason=FailedStaticPod"]).contains("own.yaml")
    });
    assert_eq!(mirror(cluster).1, first.1, "and changes nothing");
    put(&static_pod("Moin"));
    cluster.wait("what changed is there", |cluster| mirror(cluster).2.contains("Moin"));
    fs::remove_file(&file).expect("the file");
    cluster.wait("the pod went with its file", |cluster| {
        cluster.get(&["pods", "-l", "app=own"])["items"].as_array().is_some_and(Vec::is_empty)
    });
}
