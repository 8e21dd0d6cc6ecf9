//! What can be wrong with a component, and what kubectl then shows: Kubernetes' own states and words.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Cluster;
use serde_json::Value;

/// A command component whose `run` is this core function body.
fn command_component(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $instance (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $instance)))"#
    );
    wat::parse_str(text).expect("a component")
}

/// A component that wants what skiff does not have.
fn component_with_import() -> Vec<u8> {
    let text = r#"(component (import "acme:db/query@1.0.0" (instance (export "ask" (func)))))"#;
    wat::parse_str(text).expect("a component")
}

fn import(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let file = cluster.write_file(&format!("{name}.wasm"), bytes);
    cluster.import(&file, &format!("{name}:latest"));
}

fn run_pod(cluster: &Cluster, name: &str, image: &str, restart_policy: &str) {
    cluster.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  runtimeClassName: wasm
  restartPolicy: {restart_policy}
  containers:
  - {{name: main, image: '{image}', imagePullPolicy: IfNotPresent}}
"
    ));
}

/// The state of the pod's only container: waiting, running or terminated.
fn state(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&["pod", name])["status"]["containerStatuses"][0].clone()
}

/// Waits until the container waits for a reason; gives its state at that moment.
fn wait_for_reason(cluster: &mut Cluster, name: &str, reason: &str) -> Value {
    let mut container = Value::Null;
    cluster.wait(&format!("{name} is {reason}"), |cluster| {
        container = state(cluster, name);
        container["state"]["waiting"]["reason"] == reason
    });
    container
}

fn message(container: &Value) -> &str {
    container["state"]["waiting"]["message"].as_str().unwrap_or_default()
}

/// The back-off that the container's message tells; 0 where it tells none. `2m40s` counts 160.
fn back_off_seconds(container: &Value) -> u64 {
    let word = message(container).strip_prefix("back-off ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let (minutes, seconds) = word.trim_end_matches('s').split_once('m').unwrap_or(("0", word.trim_end_matches('s')));
    let number = |digits: &str| digits.parse::<u64>().unwrap_or_default();
    60 * number(minutes) + number(seconds)
}

fn events(cluster: &Cluster, name: &str) -> String {
    cluster.kubectl(&["get", "events", "--field-selector", &format!("involvedObject.name={name}")])
}

#[test]
fn an_image_that_does_not_exist_is_err_image_pull() {
    let mut cluster = Cluster::start();
    // Nothing listens there: a registry that cannot be reached.
    run_pod(&cluster, "absent", "127.0.0.1:1/no/such:v1", "Always");
    // ErrImagePull is told first; it may be over before anybody looks, but the back-off's message names it.
    let container = wait_for_reason(&mut cluster, "absent", "ImagePullBackOff");
    assert!(message(&container).contains("127.0.0.1:1/no/such:v1"), "{container}");
    assert!(message(&container).contains("ErrImagePull"), "{container}");
    cluster.wait("events say so", |c| {
        let events = events(c, "absent");
        events.contains("Failed to pull image \"127.0.0.1:1/no/such:v1\"") && events.contains("Back-off pulling image")
    });
    assert!(cluster.kubectl(&["get", "pod", "absent"]).contains("0/1"));
}

#[test]
fn bytes_that_do_not_compile_and_imports_that_are_not_there_are_create_container_error() {
    let mut cluster = Cluster::start();
    let mut broken = component_with_import();
    broken.truncate(8);
    broken.extend([0x01, 0xff, 0xff, 0x00, 0x42]);
    import(&cluster, "broken", &broken);
    import(&cluster, "wants", &component_with_import());
    run_pod(&cluster, "broken", "broken:latest", "Always");
    run_pod(&cluster, "wants", "wants:latest", "Always");
    for (name, said) in [("broken", "compile"), ("wants", "acme:db/query@1.0.0")] {
        let container = wait_for_reason(&mut cluster, name, "CreateContainerError");
        assert!(message(&container).contains(said), "{name}: {container}");
        cluster.wait("events say so", |c| events(c, name).contains(said));
    }
}

#[test]
fn a_trap_and_an_exit_of_1_crash_loop_and_back_off() {
    let mut cluster = Cluster::start();
    import(&cluster, "traps", &command_component("unreachable"));
    import(&cluster, "fails", &command_component("i32.const 1"));
    import(&cluster, "ends", &command_component("i32.const 0"));
    run_pod(&cluster, "traps", "traps:latest", "Always");
    run_pod(&cluster, "fails", "fails:latest", "Always");
    run_pod(&cluster, "fails-once", "fails:latest", "Never");
    run_pod(&cluster, "ends", "ends:latest", "OnFailure");

    let mut backed_off = |name: &str| {
        let container = wait_for_reason(&mut cluster, name, "CrashLoopBackOff");
        assert!(message(&container).starts_with("back-off "), "{container}");
        assert!(message(&container).contains("s restarting failed container=main"), "{container}");
        assert_eq!(container["lastState"]["terminated"]["reason"], "Error", "{container}");
        (back_off_seconds(&container), container["lastState"]["terminated"].clone())
    };
    let (first_seconds, end) = backed_off("fails");
    assert_eq!(end["exitCode"], 1);
    let (_, trap) = backed_off("traps");
    assert_ne!(trap["exitCode"], 0);
    assert!(trap["message"].as_str().unwrap_or_default().contains("unreachable"), "the trap is told: {trap}");

    cluster.wait("Never ends as Failed", |c| c.get(&["pod", "fails-once"])["status"]["phase"] == "Failed");
    assert!(cluster.kubectl(&["get", "pod", "fails-once"]).contains("Error"));
    cluster.wait("an end of 0 is Succeeded", |c| c.get(&["pod", "ends"])["status"]["phase"] == "Succeeded");
    assert!(cluster.kubectl(&["get", "pod", "ends"]).contains("Completed"));

    cluster.wait("a later back-off is twice the first at least", |c| {
        back_off_seconds(&state(c, "fails")) >= 2 * first_seconds
    });
    assert!(state(&cluster, "fails")["restartCount"].as_i64() >= Some(1));
    cluster.wait("events say so", |c| {
        events(c, "fails").contains("Back-off restarting failed container main in pod fails")
    });
}
