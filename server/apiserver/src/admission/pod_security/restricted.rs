//! The checks of the restricted level, in the order of their names, and those of the baseline that stay beside them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Check, Violation,
    baseline::{self, OWN_USERS_SINCE, SECCOMP_FIELDS_SINCE, bad_seccomp, set_seccomp, violation},
    view::{PodView, at, containers, list, plural, quoted, setters, text},
};

/// All checks.
pub(super) static CHECKS: [Check; 7] = [
    ("allowPrivilegeEscalation", privilege_escalation),
    ("capabilities_restricted", capabilities),
    ("procMount_restricted", proc_mount),
    ("restrictedVolumes", volumes),
    ("runAsNonRoot", run_as_non_root),
    ("runAsUser", run_as_user),
    ("seccompProfile_restricted", seccomp),
];

const CAPABILITIES_SINCE: u32 = 22;
const WINDOWS_SINCE: u32 = 25;
const ESCALATION_SINCE: u32 = 8;
const RUN_AS_USER_SINCE: u32 = 23;

/// The checks of the baseline that no stricter one of a version takes the place of.
pub(super) fn baseline_kept(minor: u32) -> Vec<Check> {
    let replaced = [
        (baseline::CAPABILITIES, CAPABILITIES_SINCE),
        (baseline::HOST_PATH_VOLUMES, 0),
        (baseline::SECCOMP, SECCOMP_FIELDS_SINCE),
        (baseline::PROC_MOUNT, OWN_USERS_SINCE),
    ];
    let is_kept = |(name, _): &Check| !replaced.iter().any(|(one, since)| one == name && minor >= *since);
    baseline::CHECKS.iter().copied().filter(is_kept).collect()
}

/// Whether a pod for Windows is spared what is only of Linux.
fn is_spared(pod: &PodView<'_>, minor: u32) -> bool {
    minor >= WINDOWS_SINCE && pod.is_windows()
}

fn privilege_escalation(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    const FIELD: &str = "securityContext/allowPrivilegeEscalation";
    if minor < ESCALATION_SINCE || is_spared(pod, minor) {
        return None;
    }
    let names = pod.names_where(|container| *at(container, FIELD) != Value::Bool(false));
    if names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names)),
    )
}

fn capabilities(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor < CAPABILITIES_SINCE || is_spared(pod, minor) {
        return None;
    }
    let drops_all =
        |container: &Value| list(container, "securityContext/capabilities/drop").iter().any(|one| one == "ALL");
    let keeping = pod.names_where(|container| !drops_all(container));
    let (adding, added) = pod.collect(|container| {
        let added = list(container, "securityContext/capabilities/add").iter().filter_map(Value::as_str);
        added.filter(|one| *one != "NET_BIND_SERVICE").map(str::to_owned).collect()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(&added)
        ));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn proc_mount(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor >= OWN_USERS_SINCE { baseline::proc_mount(pod, minor) } else { None }
}

/// Kinds of volumes that a pod may have.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &PodView<'_>, _: u32) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in list(pod.spec(), "volumes") {
        let mut given = volume.as_object().into_iter().flatten().filter(|(_, value)| value.is_object());
        let kind = given.next().map_or("unknown", |(kind, _)| kind.as_str());
        if !VOLUMES.contains(&kind) {
            names.push(text(volume, "name"));
            kinds.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    violation("restricted volume types", detail)
}

fn run_as_non_root(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    const FIELD: &str = "securityContext/runAsNonRoot";
    const REASON: &str = "runAsNonRoot != true";
    if minor >= OWN_USERS_SINCE && pod.has_own_users() {
        return None;
    }
    let says = |holder: &Value| at(holder, FIELD).as_bool();
    let explicitly = pod.names_where(|container| says(container) == Some(false));
    let who = setters(says(pod.spec()) == Some(false), &explicitly);
    if !who.is_empty() {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let implicitly = pod.names_where(|container| says(container).is_none() && says(pod.spec()) != Some(true));
    if implicitly.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicitly)))
}

fn run_as_user(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor < RUN_AS_USER_SINCE || (minor >= OWN_USERS_SINCE && pod.has_own_users()) {
        return None;
    }
    let is_root = |holder: &Value| at(holder, "securityContext/runAsUser").as_i64() == Some(0);
    let who = setters(is_root(pod.spec()), &pod.names_where(is_root));
    if who.is_empty() { None } else { violation("runAsUser=0", format!("{who} must not set runAsUser=0")) }
}

fn seccomp(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor < SECCOMP_FIELDS_SINCE || is_spared(pod, minor) {
        return None;
    }
    if let Some(wrong) = set_seccomp(pod) {
        return Some(wrong);
    }
    let has = |holder: &Value| at(holder, "securityContext/seccompProfile").is_object();
    if has(pod.spec()) && bad_seccomp(pod.spec()).is_none() {
        return None;
    }
    let without = pod.names_where(|container| !has(container));
    if without.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&without)
        ),
    )
}
