//! What objects count for.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Object {
    Object(value.as_object().unwrap().clone())
}

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn counted(resource: &str, value: Value) -> String {
    print(&usage("", resource, &object(value), now()).amounts)
}

fn limit(spec: Value) -> Limit {
    Limit::read(&object(json!({"metadata": {"name": "q"}, "spec": spec})))
}

#[test]
fn pods_count_with_their_init_containers_sidecars_and_overhead() {
    let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
    let pod = |inits: Value, containers: Value, overhead: Value| {
        counted("pods", json!({"spec": {"initContainers": inits, "containers": containers, "overhead": overhead}}))
    };
    assert_eq!(
        pod(json!([]), json!([container("1"), container("500m")]), json!({})),
        "count/pods=1,cpu=1500m,limits.cpu=1500m,pods=1,requests.cpu=1500m"
    );
    assert_eq!(
        pod(json!([container("3")]), json!([container("1")]), json!({"cpu": "250m"})),
        "count/pods=1,cpu=3250m,limits.cpu=3250m,pods=1,requests.cpu=3250m"
    );
    assert_eq!(
        pod(json!([sidecar, container("3")]), json!([container("1")]), json!({})),
        "count/pods=1,cpu=4,limits.cpu=3,pods=1,requests.cpu=4"
    );
}

#[test]
fn pods_that_have_ended_count_as_objects_alone() {
    let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(counted("pods", json!({"spec": spec, "status": {"phase": phase}})), "count/pods=1");
    }
    let stuck = json!({"metadata": {"deletionTimestamp": "2026-06-01T11:00:00Z", "deletionGracePeriodSeconds": 30}});
    assert_eq!(counted("pods", stuck), "count/pods=1");
}

#[test]
fn services_claims_and_others() {
    let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
    assert_eq!(counted("services", json!({"spec": {"ports": ports}})), "count/services=1,services=1");
    assert_eq!(
        counted("services", json!({"spec": {"type": "LoadBalancer", "ports": ports}})),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
    );
    let frugal = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}});
    assert_eq!(
        counted("services", frugal),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1"
    );
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
    assert_eq!(
        counted("persistentvolumeclaims", claim),
        "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
    );
    assert_eq!(counted("configmaps", json!({})), "configmaps=1,count/configmaps=1");
    let deployment = usage("apps", "deployments", &Object::default(), now());
    assert_eq!(print(&deployment.amounts), "count/deployments.apps=1");
}

#[test]
fn scopes_choose_pods() {
    let pod = |spec: Value, class: &str| {
        usage("", "pods", &object(json!({"spec": spec, "status": {"qosClass": class}})), now())
    };
    let plain = pod(json!({}), "BestEffort");
    let ending = pod(json!({"activeDeadlineSeconds": 5, "priorityClassName": "high"}), "Burstable");
    let scopes = |names: &[&str]| limit(json!({"hard": {"pods": "1"}, "scopes": names}));
    let classes = |operator: &str, values: Value| {
        limit(json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}))
    };
    let cases = [
        (scopes(&[]), true, true),
        (scopes(&["BestEffort"]), true, false),
        (scopes(&["NotBestEffort", "Terminating"]), false, true),
        (scopes(&["NotTerminating"]), true, false),
        (classes("In", json!(["high"])), false, true),
        (classes("NotIn", json!(["high"])), true, false),
        (classes("Exists", json!([])), false, true),
        (classes("DoesNotExist", json!([])), true, false),
    ];
    for (limit, covers_plain, covers_ending) in cases {
        assert_eq!((limit.covers(&plain), limit.covers(&ending)), (covers_plain, covers_ending), "{limit:?}");
    }
    let service = usage("", "services", &Object::default(), now());
    assert!(!scopes(&["BestEffort"]).covers(&service), "a scope of pods covers nothing else");
}

#[test]
fn containers_must_name_what_is_limited() {
    let quota = limit(json!({"hard": {"cpu": "1", "limits.memory": "1Gi", "pods": "5"}}));
    let pod = object(json!({"spec": {"containers": [
        {"name": "a", "resources": {"requests": {"cpu": "1"}}},
        {"name": "b", "resources": {"limits": {"memory": "1"}}},
        {"name": "c"}]}}));
    assert_eq!(quota.unspecified(&pod).unwrap(), "must specify cpu for: b,c; limits.memory for: a,c");
    assert_eq!(limit(json!({"hard": {"pods": "1"}})).unspecified(&pod), None);
}

#[test]
fn use_adds_up_and_room_ends() {
    let quota = limit(json!({"hard": {"pods": "2", "requests.cpu": "2", "count/jobs.batch": "3", "nonsense": "1"}}));
    let pod = usage(
        "",
        "pods",
        &object(json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1500m"}}}]}})),
        now(),
    );
    let total = used(&quota, [&pod]);
    assert_eq!(print(&total), "count/jobs.batch=0,pods=1,requests.cpu=1500m");
    let requested = quota.limited(&pod.amounts);
    assert_eq!(quota.exceeded(&total, &requested), ["requests.cpu"]);
    assert_eq!(print(&growth(&pod.amounts, Some(&pod.amounts))), "");
    assert_eq!(quota.sources(), [("", "pods"), ("batch", "jobs")]);
}
