//! Containers of a pod.

use std::collections::HashSet;

use super::{
    cursor::{Cursor, Errors},
    environment, resources,
};
use crate::{
    names,
    status::{FieldError, FieldErrorKind},
};

/// The kinds of containers in a pod, as the fields that hold them.
pub(super) const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Why a container that ends before others start has no probes and hooks.
const BEFORE_OTHERS: &str = "may not be set for init containers without restartPolicy=Always";

/// The places a probe or a hook may call.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Every container of a pod spec; `volumes` are the names of its volumes.
pub(super) fn all(spec: &Cursor<'_>, volumes: &HashSet<&str>, errors: &mut Errors) {
    errors.require(&spec.at("containers"), "");
    let mut seen = HashSet::new();
    for list in LISTS {
        for container in spec.at(list).entries() {
            let name = container.at("name");
            if !name.is_empty() && !seen.insert(name.text()) {
                errors.add(FieldError::duplicate(name.path.as_str(), name.text()));
            }
            one(&container, volumes, list, errors);
        }
    }
    host_ports(spec, errors);
}

fn one(container: &Cursor<'_>, volumes: &HashSet<&str>, list: &str, errors: &mut Errors) {
    errors.name(&container.at("name"), names::dns_label);
    let image = container.at("image");
    if errors.require(&image, "") && image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.one_of(&container.at("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"]);
    ports(&container.at("ports"), errors);
    environment::variables(container, errors);
    mounts(&container.at("volumeMounts"), volumes, errors);
    resources::check(&container.at("resources"), errors);
    let runs_on = list == "containers" || container.at("restartPolicy").text() == "Always";
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.at(probe);
        match at.is_set() {
            true if runs_on => check_probe(&at, probe, errors),
            true if list == "ephemeralContainers" => {
                errors.forbidden(&at, "cannot be set for an Ephemeral Container");
            }
            true => errors.forbidden(&at, BEFORE_OTHERS),
            false => {}
        }
    }
    if list != "ephemeralContainers" {
        lifecycle(&container.at("lifecycle"), runs_on, errors);
    }
    if list == "ephemeralContainers" {
        ephemeral(container, errors);
    } else if container.at("restartPolicy").is_set() && list == "initContainers" {
        errors.one_of(&container.at("restartPolicy"), &["Always", "Never", "OnFailure"]);
    }
    for policy in container.at("resizePolicy").entries() {
        errors.require(&policy.at("resourceName"), "");
        if !policy.at("resourceName").is_empty() {
            errors.one_of(&policy.at("resourceName"), &["cpu", "memory"]);
        }
        errors.one_of(&policy.at("restartPolicy"), &["NotRequired", "RestartContainer"]);
    }
}

fn lifecycle(lifecycle: &Cursor<'_>, runs_on: bool, errors: &mut Errors) {
    if lifecycle.is_set() && !runs_on {
        errors.forbidden(lifecycle, BEFORE_OTHERS);
        return;
    }
    for hook in ["postStart", "preStop"] {
        let at = lifecycle.at(hook);
        if at.is_set() {
            handler(&at, errors);
        }
    }
}

/// What a container that is added to a running pod cannot have.
const NOT_EPHEMERAL: [&str; 6] =
    ["ports", "lifecycle", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules"];

fn ephemeral(container: &Cursor<'_>, errors: &mut Errors) {
    for field in NOT_EPHEMERAL {
        if !container.at(field).is_empty() {
            errors.forbidden(&container.at(field), "cannot be set for an Ephemeral Container");
        }
    }
    for mount in container.at("volumeMounts").entries() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.at(field).is_empty() {
                errors.forbidden(&mount.at(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn ports(ports: &Cursor<'_>, errors: &mut Errors) {
    let entries = ports.entries();
    errors.unique(&entries, "name");
    for port in entries {
        errors.optional_name(&port.at("name"), names::port_name);
        let number = port.at("containerPort");
        match number.int() {
            None | Some(0) => errors.add(FieldError::required(number.path.as_str(), "")),
            Some(value) => errors.faults(&number, names::port_number(value)),
        }
        let host = port.at("hostPort");
        if let Some(value) = host.int().filter(|value| *value != 0) {
            errors.faults(&host, names::port_number(value));
        }
        if errors.require(&port.at("protocol"), "") {
            errors.one_of(&port.at("protocol"), &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// Two containers of a pod may not want the same port of the host.
fn host_ports(spec: &Cursor<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for port in spec.at("containers").entries().iter().flat_map(|container| container.at("ports").entries()) {
        let Some(number) = port.at("hostPort").int().filter(|number| *number != 0) else { continue };
        let key = format!("{}/{}/{number}", port.at("protocol").text(), port.at("hostIP").text());
        if !seen.insert(key.clone()) {
            errors.add(FieldError::duplicate(port.at("hostPort").path, key));
        }
    }
}

fn mounts(mounts: &Cursor<'_>, volumes: &HashSet<&str>, errors: &mut Errors) {
    let mut paths = HashSet::new();
    for mount in mounts.entries() {
        let name = mount.at("name");
        if errors.require(&name, "") && !volumes.contains(name.text()) {
            let path = name.path.clone();
            errors.add(FieldError { path, kind: FieldErrorKind::NotFound, value: name.json(), detail: String::new() });
        }
        let path = mount.at("mountPath");
        errors.require(&path, "");
        if !path.is_empty() && !paths.insert(path.text()) {
            errors.invalid(&path, "must be unique");
        }
        let (sub, expression) = (mount.at("subPath"), mount.at("subPathExpr"));
        for inner in [&sub, &expression] {
            inner_path(inner, errors);
        }
        if !sub.is_empty() && !expression.is_empty() {
            errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
    }
}

/// A path within a volume does not lead out of it.
pub(super) fn inner_path(path: &Cursor<'_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}

fn check_probe(probe: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    handler(probe, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.non_negative(&probe.at(field));
    }
    let success = probe.at("successThreshold");
    if kind != "readinessProbe" && success.int().is_some_and(|threshold| threshold != 1) {
        errors.invalid(&success, "must be 1");
    }
    let grace = probe.at("terminationGracePeriodSeconds");
    if grace.is_set() && kind == "readinessProbe" {
        errors.invalid(&grace, "must not be set for readinessProbes");
    } else {
        errors.positive(&grace);
    }
}

fn handler(at: &Cursor<'_>, errors: &mut Errors) {
    let given: Vec<Cursor<'_>> = HANDLERS.iter().map(|name| at.at(name)).filter(Cursor::is_set).collect();
    let Some((first, others)) = given.split_first() else {
        errors.add(FieldError::required(at.path.as_str(), "must specify a handler type"));
        return;
    };
    for other in others {
        errors.forbidden(other, "may not specify more than 1 handler type");
    }
    if first.path.ends_with("exec") {
        errors.require(&first.at("command"), "");
    }
    if first.path.ends_with("httpGet") {
        errors.require(&first.at("path"), "");
        errors.one_of(&first.at("scheme"), &["HTTP", "HTTPS"]);
    }
    let port = first.at("port");
    match port.int() {
        Some(number) => errors.faults(&port, names::port_number(number)),
        None => errors.optional_name(&port, names::port_name),
    }
}
