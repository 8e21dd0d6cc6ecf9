//! Whom a container runs as and what it may do, as CRI says it; pure. A container's own security context goes over the
//! pod's, field by field.

use k8s_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext,
};

/// What a container does not see of `/proc` and `/sys` (kubernetes/pkg/securitycontext/util.go).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What a container may only read of `/proc` (kubernetes/pkg/securitycontext/util.go).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

static NO_CONTEXT: std::sync::LazyLock<PodSecurityContext> = std::sync::LazyLock::new(PodSecurityContext::default);

fn of_pod(spec: &PodSpec) -> &PodSecurityContext {
    spec.security_context.as_ref().unwrap_or(&NO_CONTEXT)
}

/// Which namespaces a pod's containers share with the node, or with each other.
pub fn namespaces(spec: &PodSpec) -> NamespaceOption {
    let node = |shared: Option<bool>, otherwise: NamespaceMode| match shared {
        Some(true) => NamespaceMode::Node.into(),
        _ => otherwise.into(),
    };
    let own_processes = match spec.share_process_namespace {
        Some(true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: node(spec.host_network, NamespaceMode::Pod),
        pid: node(spec.host_pid, own_processes),
        ipc: node(spec.host_ipc, NamespaceMode::Pod),
        ..NamespaceOption::default()
    }
}

fn profile(given: Option<&SeccompProfile>, root: &str) -> Option<SecurityProfile> {
    let given = given?;
    let localhost = given.localhost_profile.as_ref().map(|name| format!("{root}/{name}"));
    Some(security_profile(&given.type_, localhost))
}

fn security_profile(kind: &str, localhost: Option<String>) -> SecurityProfile {
    let profile_type = match kind {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = localhost.filter(|_| profile_type == ProfileType::Localhost).unwrap_or_default();
    SecurityProfile { profile_type: profile_type.into(), localhost_ref }
}

fn apparmor(given: Option<&AppArmorProfile>) -> Option<SecurityProfile> {
    given.map(|given| security_profile(&given.type_, given.localhost_profile.clone()))
}

fn selinux(given: Option<&SELinuxOptions>) -> Option<SeLinuxOption> {
    let given = given?;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Some(SeLinuxOption {
        user: text(&given.user),
        role: text(&given.role),
        r#type: text(&given.type_),
        level: text(&given.level),
    })
}

fn id(value: Option<i64>) -> Option<Int64Value> {
    value.map(|value| Int64Value { value })
}

fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group).collect()
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
}

/// The sandbox's context. `seccomp_root`: the node's folder of seccomp profiles.
pub fn sandbox(spec: &PodSpec, seccomp_root: &str) -> LinuxSandboxSecurityContext {
    let pod = of_pod(spec);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    // The sandbox's own process is skiff's and needs nothing: the runtime's profile fits it whatever the pod says.
    let seccomp = profile(pod.seccomp_profile.as_ref(), seccomp_root)
        .filter(|profile| profile.profile_type() == ProfileType::Unconfined)
        .unwrap_or_else(|| security_profile("RuntimeDefault", None));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        selinux_options: selinux(pod.se_linux_options.as_ref()),
        run_as_user: id(pod.run_as_user),
        run_as_group: id(pod.run_as_group.filter(|_| pod.run_as_user.is_some())),
        supplemental_groups: groups(pod),
        privileged: all.into_iter().any(is_privileged),
        seccomp: Some(seccomp),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// A container's context.
pub fn container(spec: &PodSpec, container: &Container, seccomp_root: &str) -> LinuxContainerSecurityContext {
    let pod = of_pod(spec);
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |all: &[&str]| if unmasked { vec![] } else { all.iter().map(|path| (*path).to_owned()).collect() };
    let run_as_user = own.run_as_user.or(pod.run_as_user);
    let seccomp = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    let seccomp = profile(seccomp, seccomp_root).unwrap_or_else(|| security_profile("Unconfined", None));
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            ..Capability::default()
        }),
        privileged: is_privileged(container),
        namespace_options: Some(namespaces(spec)),
        selinux_options: selinux(own.se_linux_options.as_ref().or(pod.se_linux_options.as_ref())),
        run_as_user: id(run_as_user),
        // A group without a user is the image's user in another group, which CRI cannot say.
        run_as_group: id(own.run_as_group.or(pod.run_as_group).filter(|_| run_as_user.is_some())),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp),
        apparmor: apparmor(own.app_armor_profile.as_ref().or(pod.app_armor_profile.as_ref())),
        ..LinuxContainerSecurityContext::default()
    }
}

/// Why a container that must not run as root cannot be made; `image_user` is the user that its image names, as a
/// number if it is one.
pub fn refuses_root(spec: &PodSpec, container: &Container, image_user: &ImageUser) -> Option<String> {
    let (pod, own) = (of_pod(spec), container.security_context.as_ref());
    let of = |get: fn(&SecurityContext) -> Option<bool>| own.and_then(get);
    if of(|own| own.run_as_non_root).or(pod.run_as_non_root) != Some(true) {
        return None;
    }
    if let Some(user) = own.and_then(|own| own.run_as_user).or(pod.run_as_user) {
        return (user == 0).then(|| "container's runAsUser breaks non-root policy".to_owned());
    }
    match image_user {
        ImageUser::Id(0) => Some("container has runAsNonRoot and image will run as root".to_owned()),
        ImageUser::Id(_) => None,
        ImageUser::Name(name) => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
    }
}

/// The user that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// By number; root where it names none.
    Id(i64),
    /// By name.
    Name(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_containers_own_goes_over_the_pods() {
        let spec = spec(json!({
            "hostNetwork": true, "shareProcessNamespace": true,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 7, "supplementalGroups": [5],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {"name": "a", "securityContext": {"runAsUser": 2, "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                    "seccompProfile": {"type": "Localhost", "localhostProfile": "x.json"}}},
                {"name": "b", "securityContext": {"privileged": true, "procMount": "Unmasked"}},
            ],
        }));
        let a = container(&spec, &spec.containers[0], "/seccomp");
        assert_eq!(a.run_as_user, id(Some(2)));
        assert_eq!(a.run_as_group, id(Some(1000)));
        assert_eq!(a.supplemental_groups, [5, 7]);
        assert!(a.readonly_rootfs && a.no_new_privs && !a.privileged);
        assert_eq!(a.seccomp.unwrap().localhost_ref, "/seccomp/x.json");
        assert_eq!(a.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!((a.masked_paths.len(), a.readonly_paths.len()), (MASKED.len(), READ_ONLY.len()));
        let b = container(&spec, &spec.containers[1], "/seccomp");
        assert!(b.privileged && !b.no_new_privs && b.masked_paths.is_empty());
        assert_eq!(b.seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
        let sandbox = sandbox(&spec, "/seccomp");
        let namespaces = sandbox.namespace_options.unwrap();
        assert!(sandbox.privileged);
        assert_eq!(namespaces.network(), NamespaceMode::Node);
        assert_eq!((namespaces.pid(), namespaces.ipc()), (NamespaceMode::Pod, NamespaceMode::Pod));
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let non_root = |user: Value| {
            spec(json!({"securityContext": {"runAsNonRoot": true}, "containers": [
                {"name": "a", "securityContext": {"runAsUser": user}}]}))
        };
        let refused = |spec: &PodSpec, user: &ImageUser| refuses_root(spec, &spec.containers[0], user).is_some();
        assert!(refused(&non_root(json!(0)), &ImageUser::Id(5)));
        assert!(!refused(&non_root(json!(5)), &ImageUser::Id(0)));
        assert!(refused(&non_root(json!(null)), &ImageUser::Id(0)));
        assert!(!refused(&non_root(json!(null)), &ImageUser::Id(1)));
        assert!(refused(&non_root(json!(null)), &ImageUser::Name("web".into())));
        let free = spec(json!({"containers": [{"name": "a"}]}));
        assert!(!refused(&free, &ImageUser::Id(0)));
    }
}
