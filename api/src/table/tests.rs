#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use jiff::SignedDuration;

use super::*;
use crate::kinds::{GroupVersionKind, Kinds};

const NOW: &str = "2026-01-02T00:00:00Z";
const CREATED: &str = "2026-01-01T00:00:00Z";

fn def(group: &str, resource: &str) -> ResourceDef {
    Kinds::builtin().resource(group, "v1", resource).expect(resource).as_ref().clone()
}

fn object(mut value: Value) -> Object {
    value["metadata"]["creationTimestamp"] = CREATED.into();
    value["metadata"]["name"] = "x".into();
    serde_json::from_value::<Map<String, Value>>(value).map(Object).unwrap()
}

#[track_caller]
fn shows(group: &str, resource: &str, value: Value, expected: Value) {
    let cells = cells(&def(group, resource), &object(value), NOW.parse().unwrap());
    assert_eq!(Value::from(cells).to_string(), expected.to_string());
}

#[test]
fn ages() {
    for (seconds, expected) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_000, "3h3m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (691_200, "8d"),
        (63_071_999, "729d"),
        (63_072_000, "2y"),
        (64_072_000, "2y11d"),
        (252_288_000, "8y"),
    ] {
        assert_eq!(human_duration(SignedDuration::from_secs(seconds)), expected, "{seconds}");
    }
}

#[test]
fn every_built_in_kind_fills_its_columns() {
    let now = NOW.parse().unwrap();
    for def in Kinds::builtin().iter().filter(|def| def.stored) {
        let made = cells(def, &object(json!({})), now);
        assert_eq!(made.len(), def.columns.len(), "{}", def.resource);
        let printed = printer(def).map(|print| print(&Row { object: &object(json!({})), now }).len());
        assert!(printed.is_none_or(|count| count == def.columns.len()), "{} prints {printed:?}", def.resource);
        assert!(made.iter().all(|cell| !cell.is_null()), "{}: {made:?}", def.resource);
    }
}

#[test]
fn pods_tell_their_state() {
    let running = json!({"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T23:00:00Z"}}});
    shows(
        "",
        "pods",
        json!({"spec": {"containers": [{"name": "a"}], "nodeName": "n1"}, "status": {"phase": "Running",
            "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [running]}}),
        json!(["x", "1/1", "Running", "2 (60m ago)", "24h", "10.0.0.1", "n1", "<none>", "<none>"]),
    );
    let state = |status: Value, expected: &str| {
        let pod = object(
            json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status}),
        );
        let cells = cells(&def("", "pods"), &pod, NOW.parse().unwrap());
        assert_eq!(format!("{} {}", cells[1].as_str().unwrap(), cells[2].as_str().unwrap()), expected);
    };
    state(json!({"phase": "Pending"}), "0/2 Pending");
    state(json!({"phase": "Failed", "reason": "Evicted"}), "0/2 Evicted");
    state(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        "0/2 SchedulingGated",
    );
    state(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
        "0/2 Init:0/2",
    );
    state(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
        "0/2 Init:ExitCode:3",
    );
    state(
        json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
        "1/2 CrashLoopBackOff",
    );
    state(
        json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"signal": 9}}}]}),
        "0/2 Signal:9",
    );
}

#[test]
fn a_deleted_pod_is_terminating_and_an_ended_one_has_a_condition() {
    let pod = object(json!({"metadata": {"deletionTimestamp": NOW}, "status": {"phase": "Running"}}));
    assert_eq!(cells(&def("", "pods"), &pod, NOW.parse().unwrap())[2], "Terminating");
    let ended = object(json!({"status": {"phase": "Succeeded"}}));
    let row = row(&def("", "pods"), &ended, IncludeObject::Metadata, NOW.parse().unwrap());
    assert_eq!(row["conditions"][0]["reason"], "Succeeded");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
}

#[test]
fn nodes_and_workloads() {
    shows(
        "",
        "nodes",
        json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
                "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Debian"}}}),
        json!([
            "x",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "24h",
            "v1.36.2",
            "1.2.3.4",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>"
        ]),
    );
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}});
    shows(
        "apps",
        "deployments",
        json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
        json!(["x", "2/3", 3, 2, "24h", "a,b", "i,j", "app=web"]),
    );
    shows(
        "batch",
        "jobs",
        json!({"spec": {"completions": 1, "template": template}, "status": {"succeeded": 1, "startTime": CREATED, "completionTime": "2026-01-01T00:01:00Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
        json!(["x", "Complete", "1/1", "60s", "24h", "a,b", "i,j", "<none>"]),
    );
}

#[test]
fn services_and_the_rest() {
    shows(
        "",
        "services",
        json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.43.0.1"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"b": "2", "a": "1"}}}),
        json!(["x", "LoadBalancer", "10.43.0.1", "<pending>", "80:30080/TCP,53/UDP", "24h", "a=1,b=2"]),
    );
    shows(
        "",
        "endpoints",
        json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
        json!(["x", "1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...", "24h"]),
    );
    shows("", "configmaps", json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}), json!(["x", 3, "24h"]));
    shows(
        "",
        "resourcequotas",
        json!({"status": {"hard": {"pods": "10", "limits.cpu": "2"}, "used": {"pods": "3", "limits.cpu": "500m"}}}),
        json!(["x", "pods: 3/10", "limits.cpu: 500m/2", "24h"]),
    );
    shows(
        "",
        "events",
        json!({"lastTimestamp": "2026-01-01T23:59:00Z", "firstTimestamp": "2026-01-01T23:58:00Z", "count": 3, "type": "Normal", "reason": "Started", "message": "hello\n", "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n1"}}),
        json!(["60s", "Normal", "Started", "pod/p", "", "kubelet, n1", "hello", "2m", 3, "x"]),
    );
    shows("rbac.authorization.k8s.io", "clusterroles", json!({}), json!(["x", CREATED]));
    shows(
        "autoscaling",
        "horizontalpodautoscalers",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80}, "status": {"currentReplicas": 2}}),
        json!(["x", "Deployment/web", "cpu: <unknown>/80%", "1", 5, 2, "24h"]),
    );
}

#[test]
fn custom_resources_show_what_their_columns_name() {
    let column = |name: &str, kind: &str, path: &str| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: String::new(),
        description: String::new(),
        priority: 0,
        json_path: path.to_owned(),
    };
    let gvk = GroupVersionKind { group: "x.org".to_owned(), version: "v1".to_owned(), kind: "Thing".to_owned() };
    let columns = vec![
        column("Name", "string", ""),
        column("Size", "integer", ".spec.size"),
        column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
        column("Since", "date", ".metadata.creationTimestamp"),
        column("Tag", "string", ".metadata.labels.x\\.org/tag"),
        column("None", "string", ".no.such"),
    ];
    let def = ResourceDef { gvk, columns, ..def("", "configmaps") };
    let thing = object(
        json!({"metadata": {"labels": {"x.org/tag": "t"}}, "spec": {"size": 3}, "status": {"conditions": [{"type": "A"}, {"type": "Ready", "status": "True"}]}}),
    );
    assert_eq!(Value::from(cells(&def, &thing, NOW.parse().unwrap())), json!(["x", 3, "True", "24h", "t", null]));
}
