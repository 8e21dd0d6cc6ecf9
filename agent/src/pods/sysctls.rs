//! Which kernel parameters a pod may set: those that concern the pod alone, and further ones of its own namespaces that
//! the operator allows (kubernetes/pkg/kubelet/sysctl); pure.

use k8s_openapi::api::core::v1::PodSpec;

/// Parameters that are safe: they concern no other pod.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What is of a pod's namespace of processes' communication, and of its network's.
const OF_IPC: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
const OF_NETWORK: &str = "net.";

/// A name with dots, as it may also be written with slashes.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Whether a pattern is of parameters that every pod has for itself; others cannot be allowed.
pub fn is_namespaced(pattern: &str) -> bool {
    let name = dotted(pattern);
    name.starts_with(OF_NETWORK) || OF_IPC.iter().any(|prefix| name.starts_with(prefix))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Why a pod may not set what it asks to set, in the kubelet's words; `allowed` are the operator's patterns.
pub fn refuse(spec: &PodSpec, allowed: &[String]) -> Option<String> {
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for sysctl in asked {
        let name = dotted(&sysctl.name);
        let safe = SAFE.contains(&name.as_str());
        if !safe && !allowed.iter().any(|pattern| matches(&dotted(pattern), &name)) {
            return Some(format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        if name.starts_with(OF_NETWORK) && spec.host_network == Some(true) {
            return Some(format!("forbidden sysctl: {:?} not allowed with host net enabled", sysctl.name));
        }
        if !name.starts_with(OF_NETWORK) && spec.host_ipc == Some(true) {
            return Some(format!("forbidden sysctl: {:?} not allowed with host ipc enabled", sysctl.name));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn spec(name: &str) -> PodSpec {
        let sysctls = json!([{"name": name, "value": "1"}]);
        serde_json::from_value(json!({"containers": [], "securityContext": {"sysctls": sysctls}})).unwrap()
    }

    #[test]
    fn safe_ones_and_what_the_operator_allows() {
        let allowed = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned()];
        let said = |name: &str, allowed: &[String]| refuse(&spec(name), allowed);
        assert_eq!(said("net.ipv4.tcp_syncookies", &[]), None);
        assert_eq!(said("net/ipv4/tcp_syncookies", &[]), None);
        assert_eq!(said("kernel.msgmax", &[]).unwrap(), "forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        assert_eq!(said("kernel.msgmax", &allowed), None);
        assert_eq!(said("net.core.somaxconn", &allowed), None);
        assert!(said("net.core.somaxconn2", &allowed).is_some());
        let host = PodSpec { host_network: Some(true), host_ipc: Some(true), ..spec("net.core.somaxconn") };
        assert!(refuse(&host, &allowed).unwrap().contains("host net"));
        let host = PodSpec { host_network: Some(true), host_ipc: Some(true), ..spec("kernel.msgmax") };
        assert!(refuse(&host, &allowed).unwrap().contains("host ipc"));
        assert!(is_namespaced("net.*") && is_namespaced("kernel.shm*") && !is_namespaced("vm.swappiness"));
    }
}
