//! Each check in Kubernetes' words, and the three modes.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Object {
    Object(value.as_object().unwrap().clone())
}

fn look(level: &str, version: &str, pod: Value) -> String {
    let labels = json!({"pod-security.kubernetes.io/enforce": level,
        "pod-security.kubernetes.io/enforce-version": version});
    let (policy, errors) = Policy::read(&object(json!({"metadata": {"labels": labels}})));
    assert_eq!(errors, []);
    in_detail(&evaluate(&PodView::of(&pod), policy.enforce))
}

fn pod(spec: Value, container: Value) -> Value {
    let mut spec = spec;
    let mut container = container;
    container["name"] = "a".into();
    spec["containers"] = json!([container]);
    json!({"spec": spec})
}

fn security(context: Value) -> Value {
    pod(json!({}), json!({"securityContext": context}))
}

#[test]
fn baseline_checks() {
    let cases = [
        (pod(json!({}), json!({})), ""),
        (
            pod(json!({"hostNetwork": true, "hostPID": true}), json!({})),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            security(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            security(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            pod(json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), json!({})),
            "hostPath volumes (volume \"h\")",
        ),
        (
            pod(json!({}), json!({"ports": [{"hostPort": 80}, {"hostPort": 443}]})),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            pod(json!({}), json!({"livenessProbe": {"httpGet": {"host": "h"}}})),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
        (
            security(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            security(json!({"seLinuxOptions": {"type": "x", "user": "u", "role": "r"}})),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be \
             set; role may not be set)",
        ),
        (
            pod(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), json!({})),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            pod(
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
                json!({}),
            ),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            security(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            security(json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ];
    for (pod, expected) in cases {
        assert_eq!(look("baseline", "latest", pod.clone()), expected, "{pod}");
        assert_eq!(look("privileged", "latest", pod), "");
    }
}

#[test]
fn restricted_checks() {
    let plain = "allowPrivilegeEscalation != false (container \"a\" must set \
                 securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set \
                 securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set \
                 securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set \
                 securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    assert_eq!(look("restricted", "latest", pod(json!({}), json!({}))), plain);
    let hardened = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"}});
    assert_eq!(look("restricted", "latest", security(hardened.clone())), "");
    let with = |field: &str, value: Value| {
        let mut context = hardened.clone();
        context[field] = value;
        look("restricted", "latest", security(context))
    };
    assert_eq!(with("runAsUser", json!(0)), "runAsUser=0 (container \"a\" must not set runAsUser=0)");
    assert_eq!(
        with("capabilities", json!({"drop": ["ALL"], "add": ["CHOWN"]})),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)"
    );
    assert_eq!(
        with("runAsNonRoot", json!(false)),
        "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)"
    );
    let volumes =
        json!({"volumes": [{"name": "h", "hostPath": {}}, {"name": "n", "nfs": {}}, {"name": "e", "emptyDir": {}}]});
    assert_eq!(
        look("restricted", "latest", pod(volumes, json!({"securityContext": hardened}))),
        "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")"
    );
}

#[test]
fn versions_look_at_what_they_knew() {
    assert_eq!(
        look("restricted", "v1.8", pod(json!({}), json!({}))),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)"
    );
    let probe = pod(json!({}), json!({"livenessProbe": {"httpGet": {"host": "h"}}}));
    assert_eq!(look("baseline", "v1.33", probe), "");
    let users = pod(json!({"hostUsers": false}), json!({"securityContext": {"procMount": "Unmasked"}}));
    assert_eq!(look("baseline", "v1.35", users.clone()), "");
    assert!(look("baseline", "v1.34", users.clone()).starts_with("procMount"));
    assert!(look("restricted", "v1.35", users).contains("procMount"));
    assert!(
        look(
            "baseline",
            "v1.31",
            pod(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}), json!({}))
        )
        .starts_with("forbidden sysctls")
    );
}

#[test]
fn labels_are_read() {
    let read = |labels: Value| Policy::read(&object(json!({"metadata": {"labels": labels}})));
    let (policy, errors) = read(json!({"pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.30"}));
    assert_eq!(
        (policy.enforce.to_string(), policy.warn.to_string()),
        ("baseline:v1.30".into(), "baseline:v1.30".into())
    );
    assert_eq!(policy.audit.level, Level::Privileged);
    assert!(errors.is_empty());
    let (policy, errors) = read(json!({"pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/warn": "no", "pod-security.kubernetes.io/audit-version": "1.2"}));
    assert_eq!((policy.enforce.level, policy.warn.level), (Level::Restricted, Level::Privileged));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, \
             baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.2\": must be \"latest\" or \
             \"v1.x\"",
            "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"no\": must be one of privileged, \
             baseline, restricted",
        ]
    );
}

#[test]
fn existing_pods_are_told_of() {
    let privileged = |name: &str| {
        let mut one = security(json!({"privileged": true}));
        one["metadata"]["name"] = name.into();
        object(one)
    };
    let fine = object(json!({"metadata": {"name": "fine"}, "spec": {"containers": [{"name": "a"}]}}));
    let level = LevelVersion { level: Level::Baseline, ..LevelVersion::default() };
    assert_eq!(
        existing_pods(&[privileged("b"), privileged("a"), fine], "n", level),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): privileged",
        ]
    );
}
