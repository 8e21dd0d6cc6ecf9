//! What a Service becomes, on pools of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use skiff_api::user::UserInfo;

use super::*;

fn object(value: Value) -> Object {
    Object(json!({"metadata": {"name": "s"}, "spec": value}).as_object().unwrap().clone())
}

fn pools() -> Allocators {
    Allocators::new("10.43.0.0/24".parse().unwrap(), 30000..=30063, [])
}

/// The spec after a create or update, or the errors; what was taken is kept.
fn write(pools: &Allocators, spec: Value, old: Option<&Object>) -> Result<Object, Vec<String>> {
    let user = UserInfo::default();
    let mut cx = Context::new(Timestamp::UNIX_EPOCH, &user, pools);
    let mut service = object(spec);
    match old {
        None => Services.prepare_create(&mut cx, &mut service),
        Some(old) => Services.prepare_update(&mut cx, &mut service, old, Part::Main),
    }
    if !cx.errors.is_empty() {
        return Err(cx.errors.iter().map(ToString::to_string).collect());
    }
    cx.holds.into_iter().for_each(Hold::keep);
    pools.settle(old, Some(&service));
    Ok(service)
}

fn ip(service: &Object) -> &str {
    service.str_at(&["spec", "clusterIP"]).unwrap_or_default()
}

#[test]
fn types_and_their_fields() {
    let pools = pools();
    let plain = write(&pools, json!({"ports": [{"port": 80}]}), None).unwrap();
    assert_eq!(
        plain.at(&["spec"]).unwrap(),
        &json!({"ports": [{"port": 80}], "clusterIP": "10.43.0.17", "clusterIPs": ["10.43.0.17"],
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]})
    );
    let headless = write(&pools, json!({"clusterIP": "None", "selector": {"a": "b"}}), None).unwrap();
    assert_eq!(
        headless.at(&["spec"]).unwrap(),
        &json!({"clusterIP": "None", "selector": {"a": "b"}, "clusterIPs": ["None"],
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]})
    );
    let both = write(&pools, json!({"clusterIP": "None"}), None).unwrap();
    assert_eq!(both.at(&["spec", "ipFamilies"]).unwrap(), &json!(["IPv4", "IPv6"]));
    let external = write(&pools, json!({"type": "ExternalName", "externalName": "x.y"}), None).unwrap();
    assert_eq!(external.at(&["spec"]).unwrap(), &json!({"type": "ExternalName", "externalName": "x.y"}));
}

#[test]
fn asked_for_values_are_given_once() {
    let pools = pools();
    let spec = json!({"type": "NodePort", "clusterIP": "10.43.0.10", "ports": [{"port": 80, "nodePort": 30007}]});
    write(&pools, spec.clone(), None).unwrap();
    assert_eq!(
        write(&pools, spec, None).unwrap_err(),
        [
            "spec.clusterIPs: Invalid value: [\"10.43.0.10\"]: failed to allocate IP 10.43.0.10: \
             provided IP is already allocated",
            "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated",
        ]
    );
    let outside = json!({"type": "NodePort", "clusterIP": "10.9.0.1", "ports": [{"port": 80, "nodePort": 80}]});
    assert_eq!(
        write(&pools, outside, None).unwrap_err(),
        [
            "spec.clusterIPs: Invalid value: [\"10.9.0.1\"]: failed to allocate IP 10.9.0.1: the provided IP \
             (10.9.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/24",
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. \
             The range of valid ports is 30000-30063",
        ]
    );
}

#[test]
fn an_update_keeps_and_gives_back() {
    let pools = pools();
    let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
    let first = write(&pools, json!({"type": "NodePort", "ports": ports}), None).unwrap();
    let numbers: Vec<u32> = shape::node_ports(&first).collect();
    let again = write(&pools, json!({"type": "NodePort", "ports": ports}), Some(&first)).unwrap();
    assert_eq!(again.at(&["spec"]), first.at(&["spec"]), "what is not named is kept");
    let mut spec = first.at(&["spec"]).unwrap().clone();
    spec["type"] = json!("ClusterIP");
    let narrowed = write(&pools, spec, Some(&first)).unwrap();
    assert_eq!(ip(&narrowed), ip(&first));
    assert_eq!(shape::node_ports(&narrowed).count(), 0);
    assert!(numbers.iter().all(|port| pools.take_port(Some(*port)).is_ok()), "node ports are given back");
    let moved = write(&pools, json!({"clusterIP": "10.43.0.99"}), Some(&narrowed)).unwrap_err();
    assert_eq!(moved, ["spec.clusterIPs[0]: Invalid value: [\"10.43.0.99\"]: may not change once set"]);
    let external = write(&pools, json!({"type": "ExternalName", "externalName": "x"}), Some(&narrowed)).unwrap();
    assert_eq!(ip(&external), "");
    assert!(pools.take_address(Some(ip(&narrowed))).is_ok(), "the address is given back");
}

#[test]
fn one_number_serves_two_protocols_of_one_service() {
    let pools = pools();
    let ports = json!([{"port": 53, "protocol": "UDP", "nodePort": 30001},
        {"port": 53, "protocol": "TCP", "nodePort": 30001}]);
    assert!(write(&pools, json!({"type": "NodePort", "ports": ports}), None).is_ok());
}
