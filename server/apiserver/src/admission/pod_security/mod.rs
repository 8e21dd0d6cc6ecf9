//! PodSecurity: the level of the Pod Security Standards that a namespace's labels ask for.
//!
//! - [`policy`]: what the labels ask for.
//! - [`baseline`], [`restricted`]: the checks of the two levels.
//! - [`view`]: a pod as the checks look at it.
//!
//! Source: `pod-security-admission` of Kubernetes 1.36.

mod baseline;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use skiff_api::{object::Object, status::ApiError};

use self::{
    policy::{Level, LevelVersion, Policy},
    view::PodView,
};
use super::{Operation, World, Write};

/// How many pods are looked at when a namespace asks for another level.
const MAX_PODS_CHECKED: usize = 3000;

/// Subresources of pods that change nothing that is looked at.
const IGNORED: [&str; 9] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status", "resize"];

/// The resources whose objects have pod templates, with the path of the template.
const TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "podtemplates", &["template"]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// What is wrong with a pod by one check: why, and where.
pub(super) struct Violation {
    reason: String,
    detail: String,
}

/// One check of a level, by its name; which versions it looks at differently is its own matter.
type Check = (&'static str, fn(&PodView<'_>, u32) -> Option<Violation>);

/// All that is wrong with a pod at a level.
fn evaluate(pod: &PodView<'_>, at: LevelVersion) -> Vec<Violation> {
    let (level, minor) = (at.level, at.minor());
    let run = |checks: &[Check]| checks.iter().filter_map(|(_, check)| check(pod, minor)).collect::<Vec<_>>();
    match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => run(&baseline::CHECKS),
        Level::Restricted => {
            let mut violations = run(&restricted::baseline_kept(minor));
            violations.extend(run(&restricted::CHECKS));
            violations
        }
    }
}

fn in_detail(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Refuses pods that violate what their namespace enforces; tells of what violates what it warns of.
pub(super) fn validate(world: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    if write.operation == Operation::Delete {
        return Ok(());
    }
    if write.is_on("", "namespaces") {
        return if write.subresource.is_empty() { namespace(world, write, object) } else { Ok(()) };
    }
    if write.is_on("", "pods") {
        return pod(world, write, object);
    }
    let template = TEMPLATES.iter().find(|(group, resource, _)| write.is_on(group, resource));
    if let Some((.., path)) = template.filter(|_| write.subresource.is_empty()) {
        let policy = policy_of(world, write.namespace);
        if let Some(template) = object.at(path).filter(|_| policy.warn.level != Level::Privileged) {
            warn(write, &PodView::of(template), policy.warn);
        }
    }
    Ok(())
}

/// The policy of a namespace; what cannot be read in its labels is as strict as can be.
fn policy_of(world: &dyn World, namespace: &str) -> Policy {
    let namespace = world.find("", "namespaces", "", namespace);
    namespace.map_or_else(Policy::default, |namespace| Policy::read(&namespace).0)
}

fn pod(world: &dyn World, write: &Write<'_>, pod: &Object) -> Result<(), ApiError> {
    if IGNORED.contains(&write.subresource) {
        return Ok(());
    }
    let policy = policy_of(world, write.namespace);
    if policy.is_privileged() || write.old.is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let whole = Value::Object(pod.0.clone());
    let view = PodView::of(&whole);
    let violations = evaluate(&view, policy.enforce);
    if !violations.is_empty() {
        let (level, detail) = (policy.enforce, in_detail(&violations));
        return Err(write.forbidden(format!("violates PodSecurity \"{level}\": {detail}")));
    }
    warn(write, &view, policy.warn);
    Ok(())
}

fn warn(write: &Write<'_>, pod: &PodView<'_>, at: LevelVersion) {
    let violations = evaluate(pod, at);
    if !violations.is_empty() {
        let detail = in_detail(&violations);
        write.warnings.lock().push(format!("would violate PodSecurity \"{at}\": {detail}"));
    }
}

/// Whether a change of a pod is one that is looked at: another image, or another container.
fn is_significant(pod: &Object, old: &Object) -> bool {
    let list = |of: &Object, name: &str| of.at(&["spec", name]).and_then(Value::as_array).cloned().unwrap_or_default();
    let image = |container: &Value| container.get("image").cloned();
    let fixed = ["containers", "initContainers"].iter().any(|name| {
        let (new, before) = (list(pod, name), list(old, name));
        new.len() != before.len() || new.iter().zip(&before).any(|(a, b)| image(a) != image(b))
    });
    let before = list(old, "ephemeralContainers");
    let known = |container: &Value| {
        before.iter().any(|old| old.get("name") == container.get("name") && image(old) == image(container))
    };
    fixed || !list(pod, "ephemeralContainers").iter().all(known)
}

/// Labels must be readable; who asks for a stricter level is told which pods are against it.
fn namespace(world: &dyn World, write: &Write<'_>, namespace: &Object) -> Result<(), ApiError> {
    let (policy, errors) = Policy::read(namespace);
    let (before, old_errors) = write.old.map(Policy::read).unwrap_or_default();
    if !errors.is_empty() && (write.old.is_none() || errors != old_errors) {
        return Err(ApiError::invalid("", "Namespace", namespace.name(), &errors));
    }
    let (new, old) = (policy.enforce, before.enforce);
    let is_laxer = new.version == old.version && new.level <= old.level;
    if write.operation == Operation::Update && new != old && new.level != Level::Privileged && !is_laxer {
        let warnings = existing_pods(&world.all("", "pods", Some(namespace.name())), namespace.name(), new);
        write.warnings.lock().extend(warnings);
    }
    Ok(())
}

/// What there is to say of the pods that are there.
fn existing_pods(pods: &[Object], namespace: &str, level: LevelVersion) -> Vec<String> {
    let mut violating: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in prioritized(pods).into_iter().take(MAX_PODS_CHECKED) {
        let whole = Value::Object(pod.0.clone());
        let violations = evaluate(&PodView::of(&whole), level);
        if violations.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = violations.iter().map(|violation| violation.reason.as_str()).collect();
        let (name, count) = violating.entry(reasons.join(", ")).or_insert_with(|| (pod.name().to_owned(), 0));
        *count += 1;
        if pod.name() < name.as_str() {
            pod.name().clone_into(name);
        }
    }
    let mut lines: Vec<String> = violating
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    let mut warnings = Vec::new();
    if pods.len() > MAX_PODS_CHECKED {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_PODS_CHECKED} of {} existing pods",
            pods.len()
        ));
    }
    if !lines.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{level}\""
        ));
    }
    warnings.extend(lines);
    warnings
}

/// One pod of each controller first: its others are alike.
fn prioritized(pods: &[Object]) -> Vec<&Object> {
    let mut seen = HashSet::new();
    let mut is_first = |pod: &Object| match pod.owner_references().find(|owner| owner.controller) {
        Some(owner) => seen.insert(owner.uid),
        None => true,
    };
    let (mut first, rest): (Vec<&Object>, Vec<&Object>) = pods.iter().partition(|pod| is_first(pod));
    first.extend(rest);
    first
}
