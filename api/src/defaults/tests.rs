#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;

use super::*;
use crate::decode::shape_typed;

/// The object as a create would have it before admission.
fn defaulted(api_version: &str, kind: &str, value: Value) -> Value {
    let gvk = GroupVersionKind::parse(api_version, kind);
    let shaped = shape_typed(value, Schemas::builtin().of_kind(&gvk).unwrap()).unwrap();
    let mut object = Object(shaped.value.as_object().unwrap().clone());
    apply(&gvk, &mut object);
    let once = object.clone();
    apply(&gvk, &mut object);
    assert_eq!(object, once, "applying twice changes nothing");
    Value::Object(object.0)
}

#[test]
fn every_rule_is_for_a_type_and_field_that_exist() {
    for (name, fields) in table::RULES {
        let schema = Schemas::builtin().by_name(&table::full_name(name)).unwrap_or_else(|| panic!("no type {name}"));
        for (field, json) in *fields {
            assert!(schema.property(field).is_some(), "{name}.{field}");
            assert!(serde_json::from_str::<Value>(json).is_ok(), "{name}.{field}");
        }
    }
    for (name, _) in table::CODE {
        assert!(Schemas::builtin().by_name(&table::full_name(name)).is_some(), "{name}");
    }
}

#[test]
fn a_pod_gets_what_a_cluster_gives_it() {
    let pod = defaulted(
        "v1",
        "Pod",
        json!({"spec": {
            "containers": [{
                "name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": "1"}},
            }],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}],
            "serviceAccountName": "me",
        }}),
    );
    let want = json!({
        "containers": [{
            "name": "a", "image": "nginx", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "livenessProbe": {
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
            },
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}],
        "serviceAccountName": "me", "serviceAccount": "me", "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
        "securityContext": {}, "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler",
        "enableServiceLinks": true,
    });
    assert_eq!(pod["spec"], want);
}

#[test]
fn workloads_roll_and_count() {
    let spec = defaulted("apps/v1", "Deployment", json!({}))["spec"].clone();
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let recreate =
        defaulted("apps/v1", "Deployment", json!({"spec": {"strategy": {"type": "Recreate"}, "replicas": 0}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(recreate["spec"]["replicas"], 0);
    let sets = defaulted("apps/v1", "StatefulSet", json!({}))["spec"].clone();
    assert_eq!(sets["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    assert_eq!(sets["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    let job = defaulted("batch/v1", "Job", json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}));
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    let daemons = defaulted("apps/v1", "DaemonSet", json!({}));
    assert_eq!(daemons["spec"]["updateStrategy"]["rollingUpdate"], json!({"maxUnavailable": 1, "maxSurge": 0}));
}

#[test]
fn services_and_the_small_kinds() {
    let service = defaulted("v1", "Service", json!({"spec": {"ports": [{"port": 80}], "sessionAffinity": "ClientIP"}}));
    let want = json!({
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "ClientIP", "type": "ClusterIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "internalTrafficPolicy": "Cluster",
    });
    assert_eq!(service["spec"], want);
    let binding = defaulted(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "a"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
    );
    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(binding["subjects"][1].get("apiGroup").is_none());
    let namespace = defaulted("v1", "Namespace", json!({"metadata": {"name": "a"}}));
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(defaulted("v1", "Secret", json!({}))["type"], "Opaque");
    let policy = defaulted("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": {"egress": [{}]}}));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let scaler = defaulted("autoscaling/v2", "HorizontalPodAutoscaler", json!({"spec": {"behavior": {}}}));
    assert_eq!(scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    assert_eq!(scaler["spec"]["behavior"]["scaleUp"]["policies"].as_array().unwrap().len(), 2);
}

#[test]
fn every_kind_can_be_defaulted_twice() {
    for def in crate::kinds::Kinds::builtin().iter() {
        defaulted(&def.gvk.api_version(), &def.gvk.kind, json!({}));
    }
}
