//! Under which identity and with which rights a pod and its containers run.

use std::collections::HashSet;

use super::{
    containers::{LISTS, inner_path},
    cursor::{Cursor, Errors},
};
use crate::status::FieldError;

/// The longest name of a kernel parameter.
const MAX_SYSCTL_CHARS: usize = 253;

/// What the name of a kernel parameter looks like.
const SYSCTL: &str = "([a-z0-9](?:[-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?";

/// The security of a pod spec and its containers.
pub(super) fn of_pod(spec: &Cursor<'_>, errors: &mut Errors) {
    let context = spec.at("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.at(field), errors);
    }
    for group in context.at("supplementalGroups").entries() {
        id(&group, errors);
    }
    let shares = spec.at("shareProcessNamespace");
    if shares.flag() && spec.at("hostPID").flag() {
        let path = context.at("shareProcessNamespace").path;
        errors.add(FieldError::invalid(path, true, "ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    errors.one_of(&context.at("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    seccomp(&context.at("seccompProfile"), errors);
    app_armor(&context.at("appArmorProfile"), errors);
    sysctls(spec, &context.at("sysctls"), errors);
    host_users(spec, errors);
    let has_own_users = spec.at("hostUsers").value == Some(&serde_json::Value::Bool(false));
    for container in LISTS.iter().flat_map(|list| spec.at(list).entries()) {
        of_container(&container.at("securityContext"), has_own_users, errors);
    }
}

/// A user or group number.
fn id(at: &Cursor<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
        errors.invalid(at, "must be between 0 and 2147483647, inclusive");
    }
}

fn of_container(context: &Cursor<'_>, has_own_users: bool, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    id(&context.at("runAsUser"), errors);
    id(&context.at("runAsGroup"), errors);
    let mount = context.at("procMount");
    errors.one_of(&mount, &["Default", "Unmasked"]);
    if mount.text() == "Unmasked" && !has_own_users {
        errors.invalid(&mount, "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&context.at("seccompProfile"), errors);
    app_armor(&context.at("appArmorProfile"), errors);
    let may_escalate = context.at("allowPrivilegeEscalation").value != Some(&serde_json::Value::Bool(false));
    if may_escalate {
        return;
    }
    if context.at("privileged").flag() {
        errors.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let added = context.down(&["capabilities", "add"]).entries();
    if added.iter().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
        let words = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(context, words);
    }
}

fn seccomp(profile: &Cursor<'_>, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.at("type"), profile.at("localhostProfile"));
    if errors.require(&kind, "type is required when seccompProfile is set") {
        errors.one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind.text() == "Localhost", file.is_set()) {
        (true, true) => inner_path(&file, errors),
        (true, false) => {
            errors.add(FieldError::required(file.path.as_str(), "must be set when seccomp type is Localhost "));
        }
        (false, true) => {
            let words = "can only be set when seccomp type is Localhost";
            errors.add(FieldError::invalid(file.path.as_str(), profile.json(), words));
        }
        (false, false) => {}
    }
}

fn app_armor(profile: &Cursor<'_>, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, name) = (profile.at("type"), profile.at("localhostProfile"));
    if errors.require(&kind, "type is required when appArmorProfile is set") {
        errors.one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind.text() == "Localhost", name.is_set()) {
        (true, false) => {
            errors.add(FieldError::required(name.path.as_str(), "must be set when AppArmor type is Localhost"));
        }
        (true, true) if name.text().trim().is_empty() => {
            errors.add(FieldError::required(name.path.as_str(), "must be set when AppArmor type is Localhost"));
        }
        (true, true) if name.text().trim() != name.text() => {
            errors.invalid(&name, "must not be padded with whitespace");
        }
        (false, true) => errors.invalid(&name, "can only be set when AppArmor type is Localhost"),
        _ => {}
    }
}

fn is_sysctl(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let segment = |part: &str| part.bytes().all(inner) && edge(part.as_bytes().first()) && edge(part.as_bytes().last());
    name.len() <= MAX_SYSCTL_CHARS && name.split(['.', '/']).all(segment)
}

fn sysctls(spec: &Cursor<'_>, sysctls: &Cursor<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for sysctl in sysctls.entries() {
        let name = sysctl.at("name");
        if !errors.require(&name, "") {
            continue;
        }
        if !is_sysctl(name.text()) {
            let words = format!("must have at most {MAX_SYSCTL_CHARS} characters and match regex {SYSCTL}");
            errors.invalid(&name, &words);
        } else if !seen.insert(name.text()) {
            errors.add(FieldError::duplicate(name.path.as_str(), name.text()));
        }
        let plain = name.text().replace('/', ".");
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|front| plain.starts_with(front))
            || plain == "kernel.sem";
        for (shares, belongs, what) in
            [("hostNetwork", plain.starts_with("net."), "hostNetwork"), ("hostIPC", of_ipc, "hostIPC")]
        {
            if spec.at(shares).flag() && belongs {
                errors.invalid(&name, &format!("may not be specified when '{what}' is true"));
            }
        }
    }
}

/// A pod with users of its own cannot share the host's other namespaces.
fn host_users(spec: &Cursor<'_>, errors: &mut Errors) {
    if spec.at("hostUsers").value != Some(&serde_json::Value::Bool(false)) {
        return;
    }
    for (field, printed) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.at(field).flag() {
            errors.forbidden(&spec.at(printed), "when `hostUsers` is false");
        }
    }
}
