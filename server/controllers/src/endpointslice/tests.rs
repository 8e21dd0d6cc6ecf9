#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};

use super::*;
use crate::testing::object;

fn service(change: Value) -> Service {
    let mut spec = json!({"selector": {"app": "web"}, "clusterIP": "10.43.0.1", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    for (name, value) in change.as_object().unwrap() {
        spec[name] = value.clone();
    }
    object(json!({"metadata": {"name": "web", "namespace": "x", "labels": {"l": "1"}}, "spec": spec}))
}

fn pod(n: usize, ready: bool, deleting: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    let mut pod = json!({
        "metadata": {"name": format!("p{n}"), "uid": format!("u{n}"), "namespace": "x", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"podIP": format!("10.64.{}.{}", n / 250, n % 250 + 1), "conditions": [{"type": "Ready", "status": status}]},
    });
    if deleting {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Arc::new(object(pod))
}

fn decided(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> decide::Decision {
    decide(&View { service, pods, slices, node: &|_| None })
}

/// The slices after a decision, named.
fn after(slices: &[Arc<EndpointSlice>], decision: decide::Decision) -> Vec<Arc<EndpointSlice>> {
    let gone = |slice: &EndpointSlice| decision.delete.iter().any(|gone| gone.metadata.name == slice.metadata.name);
    let mut all: Vec<EndpointSlice> =
        slices.iter().filter(|slice| !gone(slice)).map(|slice| (**slice).clone()).collect();
    for slice in &mut all {
        if let Some(new) = decision.update.iter().find(|new| new.metadata.name == slice.metadata.name) {
            *slice = new.clone();
        }
    }
    for (n, mut slice) in decision.create.into_iter().enumerate() {
        slice.metadata.name = Some(format!("new{n}"));
        all.push(slice);
    }
    all.into_iter().map(Arc::new).collect()
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.iter().flatten().count()).collect()
}

#[test]
fn conditions_say_who_may_be_sent_to() {
    for (ready, deleting, publish, expected) in [
        (true, false, false, (true, true, false)),
        (false, false, false, (false, false, false)),
        (true, true, false, (false, true, true)),
        (false, false, true, (true, false, false)),
    ] {
        let service = service(json!({"publishNotReadyAddresses": publish}));
        let slice = decided(&service, &[pod(1, ready, deleting)], &[]).create.remove(0);
        let conditions = slice.endpoints.unwrap()[0].conditions.clone().unwrap();
        let said = (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap());
        assert_eq!(said, expected);
        assert_eq!(slice.ports.unwrap()[0].port, Some(8080));
        assert_eq!(slice.metadata.labels.unwrap()[SERVICE_NAME], "web");
    }
}

#[test]
fn slices_hold_a_hundred_and_change_as_little_as_possible() {
    let service = service(json!({}));
    let mut pods: Vec<_> = (0..250).map(|n| pod(n, true, false)).collect();
    let slices = after(&[], decided(&service, &pods, &[]));
    assert_eq!(sizes(&slices), [100, 100, 50]);
    let nothing = decided(&service, &pods, &slices);
    assert!(nothing.create.is_empty() && nothing.update.is_empty() && nothing.delete.is_empty());
    pods[7] = pod(7, false, false);
    pods.push(pod(250, true, false));
    let little = decided(&service, &pods, &slices);
    assert!(little.create.is_empty() && little.update.len() <= 2);
    let slices = after(&slices, little);
    let none = decided(&service, &[], &slices);
    assert_eq!(none.delete.len(), 2);
    assert_eq!(sizes(&after(&slices, none)), [0]);
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let service = service(json!({"clusterIP": "None"}));
    let slices = after(&[], decided(&service, &[], &[]));
    assert_eq!(sizes(&slices), [0]);
    assert!(slices[0].metadata.labels.as_ref().unwrap().contains_key(decide::HEADLESS));
    let again = decided(&service, &[], &slices);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    let slices = after(&slices, decided(&service, &[pod(1, true, false)], &slices));
    assert_eq!(sizes(&slices), [1]);
}

#[test]
fn endpoints_tell_ready_from_not_ready() {
    let pods = [pod(1, true, false), pod(2, false, false), pod(3, true, true)];
    let endpoints = crate::endpoints::endpoints_of(&service(json!({})), &pods, None);
    let subset = &endpoints.subsets.unwrap()[0];
    let ips = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ips(&subset.addresses), ["10.64.0.2"]);
    assert_eq!(ips(&subset.not_ready_addresses), ["10.64.0.3"]);
}
