//! The checks of the baseline level, in the order of their names.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Check, Violation,
    view::{PodView, at, containers, list, plural, quoted, setters, text},
};

/// All checks.
pub(super) static CHECKS: [Check; 12] = [
    ("appArmorProfile", app_armor),
    (CAPABILITIES, capabilities),
    ("hostNamespaces", host_namespaces),
    (HOST_PATH_VOLUMES, host_path_volumes),
    ("hostPorts", host_ports),
    ("hostProbesAndHostLifecycle", probe_hosts),
    ("privileged", privileged),
    (PROC_MOUNT, proc_mount_relaxed),
    ("seLinuxOptions", selinux),
    (SECCOMP, seccomp),
    ("sysctls", sysctls),
    ("windowsHostProcess", windows_host_process),
];

/// The names of the checks that stricter ones take the place of.
pub(super) const CAPABILITIES: &str = "capabilities_baseline";
pub(super) const HOST_PATH_VOLUMES: &str = "hostPathVolumes";
pub(super) const PROC_MOUNT: &str = "procMount";
pub(super) const SECCOMP: &str = "seccompProfile_baseline";

pub(super) fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail: detail.into() })
}

fn app_armor(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad_type = |holder: &Value| {
        let profile = at(holder, "securityContext/appArmorProfile");
        let kind = text(profile, "type");
        (profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let of_pod = bad_type(pod.spec());
    let (names, mut values) = pod.collect(|container| bad_type(container).into_iter().collect());
    values.extend(of_pod.clone());
    let is_bad = |value: &str| !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"));
    let mut annotations: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| key.starts_with(ANNOTATION) && is_bad(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    let mut who = setters(of_pod.is_some(), &names);
    if !annotations.is_empty() {
        let word = plural("annotation", "annotations", annotations.len());
        who = if who.is_empty() { word.to_owned() } else { format!("{who} and {word}") };
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<String> = values.into_iter().chain(annotations).collect();
    violation(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len()),
        format!("{who} must not set AppArmor profile type to {}", quoted(&all)),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let (names, added) = pod.collect(|container| {
        let added = list(container, "securityContext/capabilities/add").iter().filter_map(Value::as_str);
        added.filter(|one| !DEFAULT_CAPABILITIES.contains(one)).map(str::to_owned).collect()
    });
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(&added));
    violation("non-default capabilities", detail)
}

fn host_namespaces(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| *at(pod.spec(), field) == Value::Bool(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn host_path_volumes(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let volumes = list(pod.spec(), "volumes").iter().filter(|volume| at(volume, "hostPath").is_object());
    let names: Vec<&str> = volumes.map(|volume| text(volume, "name")).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let (names, ports) = pod.collect(|container| {
        let ports = list(container, "ports").iter().filter_map(|port| at(port, "hostPort").as_i64());
        ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    });
    if names.is_empty() {
        return None;
    }
    let shown: Vec<String> = ports.iter().cloned().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
        shown.join(", ")
    );
    violation("hostPort", detail)
}

fn probe_hosts(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    const SINCE: u32 = 34;
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"];
    if minor < SINCE {
        return None;
    }
    let (names, hosts) = pod.collect(|container| {
        let handlers = HANDLERS.iter().map(|handler| at(container, handler));
        let hosts = handlers.flat_map(|handler| [text(handler, "httpGet/host"), text(handler, "tcpSocket/host")]);
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    });
    if names.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> = names.into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(&hosts)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let names = pod.names_where(|container| *at(container, "securityContext/privileged") == Value::Bool(true));
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

/// Whatever the version.
pub(super) fn proc_mount(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let (names, kinds) = pod.collect(|container| {
        let kind = text(container, "securityContext/procMount");
        if kind.is_empty() || kind == "Default" { Vec::new() } else { vec![kind.to_owned()] }
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&kinds)),
    )
}

/// Since when pods with users of their own are trusted with more.
pub(super) const OWN_USERS_SINCE: u32 = 35;

fn proc_mount_relaxed(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor >= OWN_USERS_SINCE && pod.has_own_users() { None } else { proc_mount(pod, minor) }
}

fn selinux(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    const TYPES: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];
    const ENGINE_SINCE: u32 = 31;
    let allowed = |kind: &str| TYPES.contains(&kind) || (minor >= ENGINE_SINCE && kind == "container_engine_t");
    // What is wrong with options: `t TYPE`, `u` and `r`.
    let wrong = |holder: &Value| -> Vec<String> {
        let options = at(holder, "securityContext/seLinuxOptions");
        let kind = text(options, "type");
        let mut wrong = Vec::new();
        if !allowed(kind) {
            wrong.push(format!("t {kind}"));
        }
        wrong.extend((!text(options, "user").is_empty()).then(|| "u".to_owned()));
        wrong.extend((!text(options, "role").is_empty()).then(|| "r".to_owned()));
        wrong
    };
    let of_pod = wrong(pod.spec());
    let (names, mut all) = pod.collect(wrong);
    let who = setters(!of_pod.is_empty(), &names);
    all.extend(of_pod);
    if all.is_empty() {
        return None;
    }
    let types: Vec<&str> = all.iter().filter_map(|one| one.strip_prefix("t ")).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if all.contains("u") {
        data.push("user may not be set".to_owned());
    }
    if all.contains("r") {
        data.push("role may not be set".to_owned());
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

/// The first version whose seccomp profiles are fields.
pub(super) const SECCOMP_FIELDS_SINCE: u32 = 19;

/// The type of a seccomp profile that is set and not allowed.
pub(super) fn bad_seccomp(holder: &Value) -> Option<String> {
    let profile = at(holder, "securityContext/seccompProfile");
    let kind = text(profile, "type");
    (profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
}

/// What is wrong with the seccomp profiles that are set.
pub(super) fn set_seccomp(pod: &PodView<'_>) -> Option<Violation> {
    let of_pod = bad_seccomp(pod.spec());
    let (names, mut values) = pod.collect(|container| bad_seccomp(container).into_iter().collect());
    let who = setters(of_pod.is_some(), &names);
    values.extend(of_pod);
    if who.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values)),
    )
}

fn seccomp(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor >= SECCOMP_FIELDS_SINCE { set_seccomp(pod) } else { seccomp_annotations(pod) }
}

fn seccomp_annotations(pod: &PodView<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let names: Vec<String> =
        pod.containers().map(|container| format!("{CONTAINER}{}", text(container, "name"))).collect();
    let is_good =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let forbidden: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| (*key == POD || names.iter().any(|name| name == key)) && !is_good(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let shown: Vec<String> = forbidden.into_iter().collect();
    let word = plural("annotation", "annotations", shown.len());
    violation("seccompProfile", format!("forbidden {word} {}", shown.join(", ")))
}

/// Safe sysctls, each with the first minor version that knew it.
const SAFE_SYSCTLS: [(&str, u32); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_slow_start_after_idle", NOT_YET),
    ("net.ipv4.tcp_notsent_lowat", NOT_YET),
];

/// Later than any version that 1.36 knows of, the latest included.
const NOT_YET: u32 = u32::MAX;

fn sysctls(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    let is_safe =
        |name: &str| SAFE_SYSCTLS.iter().any(|(safe, since)| *safe == name && *since != NOT_YET && minor >= *since);
    let names = list(pod.spec(), "securityContext/sysctls").iter().map(|one| text(one, "name"));
    let forbidden: Vec<&str> = names.filter(|name| !is_safe(name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let is_host = |holder: &Value| *at(holder, "securityContext/windowsOptions/hostProcess") == Value::Bool(true);
    let who = setters(is_host(pod.spec()), &pod.names_where(is_host));
    if who.is_empty() {
        return None;
    }
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
