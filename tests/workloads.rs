//! The workloads that users know, with kubectl in front: Jobs, CronJobs, StatefulSets, DaemonSets and the older kinds.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, command_component};
use serde_json::Value;

/// The image of a component that serves, and of two that end: well, and badly.
fn import_all(cluster: &Cluster) {
    cluster.import_hello();
    cluster.import_bytes("done", &command_component("i32.const 0"));
    cluster.import_bytes("fails", &command_component("i32.const 1"));
}

/// The template of pods that run an image.
fn template(app: &str, image: &str, restart_policy: &str) -> String {
    format!(
        "{{metadata: {{labels: {{app: {app}}}}}, spec: {{runtimeClassName: wasm, restartPolicy: {restart_policy}, \
         terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '{image}:latest', imagePullPolicy: Never, \
         ports: [{{containerPort: 8080}}], env: [{{name: POD_NAME, value: x}}]}}]}}}}"
    )
}

fn job_spec(image: &str, fields: &str) -> String {
    format!("{{{fields} template: {}}}", template("job", image, "Never"))
}

fn job(name: &str, image: &str, fields: &str) -> String {
    format!("apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {}\n", job_spec(image, fields))
}

fn pods(cluster: &Cluster, selector: &str) -> Vec<Value> {
    let pods = cluster.get(&["pods", "-l", selector]);
    pods["items"].as_array().expect("items").clone()
}

fn names(pods: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names
}

#[test]
fn jobs_complete_fail_and_are_fired_by_cron_jobs() {
    let mut cluster = Cluster::start();
    import_all(&cluster);
    cluster.apply(&job("three", "done", "completions: 3, parallelism: 2,"));
    cluster.apply(&job("indexed", "done", "completions: 2, parallelism: 2, completionMode: Indexed,"));
    cluster.apply(&job("broken", "fails", "backoffLimit: 0,"));
    cluster.apply(&job("brief", "done", "ttlSecondsAfterFinished: 0,"));
    for name in ["three", "indexed"] {
        cluster.kubectl(&["wait", "--for=condition=complete", &format!("job/{name}"), "--timeout=60s"]);
    }
    cluster.kubectl(&["wait", "--for=condition=failed", "job/broken", "--timeout=60s"]);
    let status = cluster.get(&["job", "three"])["status"].clone();
    assert_eq!((&status["succeeded"], status["completionTime"].is_string()), (&Value::from(3), true), "{status}");
    let ended = pods(&cluster, "batch.kubernetes.io/job-name=three");
    assert_eq!(ended.len(), 3);
    assert!(ended.iter().all(|pod| pod["status"]["phase"] == "Succeeded"), "{ended:?}");
    assert_eq!(cluster.get(&["job", "indexed"])["status"]["completedIndexes"], "0,1");
    assert!(cluster.kubectl(&["get", "jobs"]).contains("3/3"));
    cluster.wait("the finished Job goes with its pods", |cluster| {
        let gone = cluster.get(&["jobs", "--field-selector=metadata.name=brief"])["items"]
            .as_array()
            .is_some_and(Vec::is_empty);
        gone && pods(cluster, "batch.kubernetes.io/job-name=brief").is_empty()
    });
    cluster.kubectl(&["delete", "job", "three"]);
    cluster.wait("its pods go with it", |cluster| pods(cluster, "batch.kubernetes.io/job-name=three").is_empty());

    let spec = job_spec("done", "");
    cluster.apply(&format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: often}}\n\
         spec: {{schedule: '@every 2s', jobTemplate: {{spec: {spec}}}}}\n---\n\
         apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: never}}\n\
         spec: {{schedule: '0 0 1 1 *', suspend: true, jobTemplate: {{spec: {spec}}}}}\n"
    ));
    cluster.kubectl(&["create", "job", "by-hand", "--from=cronjob/never"]);
    cluster.kubectl(&["wait", "--for=condition=complete", "job/by-hand", "--timeout=60s"]);
    cluster.wait("the CronJob has fired, and its Job has succeeded", |cluster| {
        cluster.get(&["cronjob", "often"])["status"]["lastSuccessfulTime"].is_string()
    });
}

fn stateful_set(replicas: u32) -> String {
    let template = template("web", "hello", "Always");
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web}}\n\
         spec: {{replicas: {replicas}, serviceName: web, selector: {{matchLabels: {{app: web}}}}, template: {template}}}\n"
    )
}

#[test]
fn sets_of_every_kind_come_up() {
    let mut cluster = Cluster::start();
    import_all(&cluster);
    cluster.apply(&stateful_set(2));
    cluster.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    let both = pods(&cluster, "app=web");
    assert_eq!(names(&both), ["web-0", "web-1"]);
    let time = |name: &str, path: &str| {
        let pod = both.iter().find(|pod| pod["metadata"]["name"] == name).expect("a pod");
        match path {
            "made" => pod["metadata"]["creationTimestamp"].as_str().expect("a time").to_owned(),
            _ => {
                let conditions = pod["status"]["conditions"].as_array().expect("conditions");
                let ready = conditions.iter().find(|condition| condition["type"] == "Ready").expect("ready");
                ready["lastTransitionTime"].as_str().expect("a time").to_owned()
            }
        }
    };
    assert!(time("web-1", "made") >= time("web-0", "ready"), "one after the other: {both:?}");

    cluster.apply("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n");
    cluster.wait("one pod may go", |cluster| cluster.get(&["pdb", "web"])["status"]["disruptionsAllowed"] == 1);
    cluster.kubectl(&["set", "env", "statefulset/web", "GREETING=Hi"]);
    cluster.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    assert!(cluster.kubectl(&["rollout", "history", "statefulset/web"]).contains('2'));
    cluster.kubectl(&["rollout", "undo", "statefulset/web"]);
    cluster.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    cluster.kubectl(&["scale", "statefulset/web", "--replicas=1"]);
    cluster.wait("the second has gone", |cluster| names(&pods(cluster, "app=web")) == ["web-0"]);

    let daemon = template("daemon", "hello", "Always");
    let old = template("old", "hello", "Always");
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: daemon}}\n\
         spec: {{selector: {{matchLabels: {{app: daemon}}}}, template: {daemon}}}\n---\n\
         apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: old}}\n\
         spec: {{replicas: 2, selector: {{app: old}}, template: {old}}}\n"
    ));
    cluster.kubectl(&["rollout", "status", "daemonset/daemon", "--timeout=60s"]);
    cluster
        .wait("the older kind keeps two pods", |cluster| cluster.get(&["rc", "old"])["status"]["readyReplicas"] == 2);
    cluster.kubectl(&["delete", "statefulset,daemonset,rc", "--all"]);
    cluster.wait("their pods go with them", |cluster| {
        cluster.get(&["pods"])["items"].as_array().is_some_and(Vec::is_empty)
    });
}
