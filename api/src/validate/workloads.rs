//! Workloads: what makes pods from a template.

use super::{
    cursor::{Cursor, Errors},
    meta, pods, volumes,
};
use crate::{cron, names, selector::LabelSelector, status::FieldError};

/// The longest name from which a CronJob can name its Jobs.
const CRON_JOB_NAME_CHARS: usize = 52;

/// A selector, which must be there, must not be empty, and must match the template's labels.
fn selector(spec: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    let at = spec.at("selector");
    if !at.is_set() {
        errors.add(FieldError::required(at.path.as_str(), ""));
        return;
    }
    label_selector(&at, errors);
    if at.at("matchLabels").is_empty() && at.at("matchExpressions").is_empty() {
        errors.invalid(&at, &format!("empty selector is invalid for {kind}"));
        return;
    }
    let labels = spec.down(&["template", "metadata", "labels"]);
    matches_template(&LabelSelector::from_value(at.value), &labels, errors);
}

fn matches_template(selector: &Result<LabelSelector, String>, labels: &Cursor<'_>, errors: &mut Errors) {
    let Ok(selector) = selector else { return };
    let pairs: Vec<(String, String)> =
        labels.pairs().into_iter().map(|(key, value)| (key.to_owned(), value.text().to_owned())).collect();
    if !selector.matches(&pairs) {
        errors.invalid(labels, "`selector` does not match template `labels`");
    }
}

/// A label selector, wherever one stands.
pub(super) fn label_selector(selector: &Cursor<'_>, errors: &mut Errors) {
    meta::labels(&selector.at("matchLabels"), errors);
    for expression in selector.at("matchExpressions").entries() {
        errors.faults(&expression.at("key"), names::qualified_name(expression.at("key").text()));
        let (operator, values) = (expression.at("operator"), expression.at("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.add(FieldError::required(
                    values.path.as_str(),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
    }
}

/// The template of pods that are always started anew.
fn running_template(spec: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    let template = spec.at("template");
    let claims = spec.at("volumeClaimTemplates").entries();
    let claims: Vec<_> = claims.iter().map(|claim| claim.down(&["metadata", "name"]).text()).collect();
    pods::template_with(&template, &claims, errors);
    let policy = template.down(&["spec", "restartPolicy"]);
    if policy.text() != "Always" && !errors.has(&policy.path) {
        errors.add(FieldError::not_supported(policy.path.as_str(), policy.json(), &["Always"]));
    }
    let deadline = template.down(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        errors.forbidden(&deadline, &format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn counts(spec: &Cursor<'_>, errors: &mut Errors) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.non_negative(&spec.at(field));
    }
}

/// A PodTemplate object.
pub(super) fn pod_template_object(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    pods::template(&object.at("template"), errors);
}

/// A ReplicationController.
pub(super) fn replication_controller(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    counts(&spec, errors);
    errors.require(&spec.at("selector"), "");
    running_template(&spec, "ReplicationController", errors);
    let pairs: Vec<(&str, &str)> =
        spec.at("selector").pairs().into_iter().map(|(key, value)| (key, value.text())).collect();
    let labels = spec.down(&["template", "metadata", "labels"]);
    if !pairs.iter().all(|(key, value)| labels.at(key).text() == *value) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
}

/// A Deployment.
pub(super) fn deployment(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    counts(&spec, errors);
    selector(&spec, "deployment", errors);
    running_template(&spec, "Deployment", errors);
    deployment_strategy(&spec.at("strategy"), errors);
    let deadline = spec.at("progressDeadlineSeconds");
    if let (Some(deadline_seconds), ready) = (deadline.int(), spec.at("minReadySeconds").int().unwrap_or_default())
        && deadline_seconds <= ready
    {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
    if let Some(old) = old {
        errors.immutable(&spec.at("selector"), &old.down(&["spec", "selector"]));
    }
}

fn deployment_strategy(strategy: &Cursor<'_>, errors: &mut Errors) {
    let update = strategy.at("rollingUpdate");
    errors.one_of(&strategy.at("type"), &["Recreate", "RollingUpdate"]);
    if strategy.at("type").text() == "Recreate" && update.is_set() {
        errors.forbidden(&update, "may not be specified when strategy `type` is 'Recreate'");
        return;
    }
    let (unavailable, surge) = (update.at("maxUnavailable"), update.at("maxSurge"));
    for at in [&unavailable, &surge] {
        int_or_percent(at, errors);
    }
    if is_zero(&unavailable) && is_zero(&surge) {
        errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    not_above_100_percent(&unavailable, errors);
}

fn is_zero(at: &Cursor<'_>) -> bool {
    at.int() == Some(0) || at.text() == "0%"
}

/// A count or a percentage, neither negative.
pub(super) fn int_or_percent(at: &Cursor<'_>, errors: &mut Errors) {
    errors.non_negative(at);
    if at.value.is_some_and(serde_json::Value::is_string) && percent(at.text()).is_none() {
        let words = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                     regex used for validation is '[0-9]+%')";
        errors.invalid(at, words);
    }
}

fn percent(text: &str) -> Option<u64> {
    text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// A percentage of what is there.
pub(super) fn not_above_100_percent(at: &Cursor<'_>, errors: &mut Errors) {
    if percent(at.text()).is_some_and(|percent| percent > 100) {
        errors.invalid(at, "must not be greater than 100%");
    }
}

/// A ReplicaSet.
pub(super) fn replica_set(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    counts(&spec, errors);
    selector(&spec, "deployment", errors);
    running_template(&spec, "ReplicaSet", errors);
    if let Some(old) = old {
        errors.immutable(&spec.at("selector"), &old.down(&["spec", "selector"]));
    }
}

/// A StatefulSet.
pub(super) fn stateful_set(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    counts(&spec, errors);
    selector(&spec, "statefulset", errors);
    running_template(&spec, "StatefulSet", errors);
    errors.one_of(&spec.at("podManagementPolicy"), &["OrderedReady", "Parallel"]);
    errors.one_of(&spec.down(&["updateStrategy", "type"]), &["OnDelete", "RollingUpdate"]);
    errors.non_negative(&spec.down(&["updateStrategy", "rollingUpdate", "partition"]));
    errors.non_negative(&spec.down(&["ordinals", "start"]));
    for template in spec.at("volumeClaimTemplates").entries() {
        volumes::claim_spec(&template.at("spec"), errors);
    }
    let Some(before) = old.map(|old| old.at("spec")) else { return };
    for field in ["serviceName", "selector", "podManagementPolicy", "volumeClaimTemplates"] {
        if spec.at(field).value != before.at(field).value {
            let words = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                         'minReadySeconds' are forbidden";
            errors.forbidden(&spec, words);
            return;
        }
    }
}

/// A DaemonSet.
pub(super) fn daemon_set(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    counts(&spec, errors);
    selector(&spec, "daemonset", errors);
    running_template(&spec, "DaemonSet", errors);
    let strategy = spec.at("updateStrategy");
    errors.one_of(&strategy.at("type"), &["OnDelete", "RollingUpdate"]);
    let (unavailable, surge) =
        (strategy.down(&["rollingUpdate", "maxUnavailable"]), strategy.down(&["rollingUpdate", "maxSurge"]));
    for at in [&unavailable, &surge] {
        int_or_percent(at, errors);
        not_above_100_percent(at, errors);
    }
    if strategy.at("type").text() == "RollingUpdate" && is_zero(&unavailable) && is_zero(&surge) {
        errors.invalid(&unavailable, "cannot be 0 when maxSurge is 0");
    }
    if unavailable.is_set() && surge.is_set() && !is_zero(&unavailable) && !is_zero(&surge) {
        errors.invalid(&surge, "may not be set when maxUnavailable is non-zero");
    }
    if let Some(old) = old {
        errors.immutable(&spec.at("selector"), &old.down(&["spec", "selector"]));
    }
}

/// A ControllerRevision keeps its data.
pub(super) fn controller_revision(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    errors.non_negative(&object.at("revision"));
    match old {
        Some(old) => errors.immutable(&object.at("data"), &old.at("data")),
        None => drop(errors.require(&object.at("data"), "data is mandatory")),
    }
}

/// A Job.
pub(super) fn job(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    job_spec(&spec, errors);
    if !spec.at("selector").is_set() {
        errors.add(FieldError::required(spec.at("selector").path, ""));
    } else {
        label_selector(&spec.at("selector"), errors);
        let labels = spec.down(&["template", "metadata", "labels"]);
        matches_template(&LabelSelector::from_value(spec.at("selector").value), &labels, errors);
    }
    let Some(before) = old.map(|old| old.at("spec")) else { return };
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.immutable(&spec.at(field), &before.at(field));
    }
    if spec.at("completionMode").text() != "Indexed" {
        errors.immutable(&spec.at("completions"), &before.at("completions"));
    }
    // While a Job is suspended and has not run, a queueing controller may direct its pods.
    let is_suspended = before.at("suspend").flag();
    if !is_suspended {
        errors.immutable(&spec.at("template"), &before.at("template"));
    }
}

fn job_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "ttlSecondsAfterFinished",
    ] {
        errors.non_negative(&spec.at(field));
    }
    let template = spec.at("template");
    pods::template(&template, errors);
    let policy = template.down(&["spec", "restartPolicy"]);
    if policy.text() == "Always" {
        errors.add(FieldError {
            path: policy.path.clone(),
            kind: crate::status::FieldErrorKind::Required,
            value: serde_json::Value::Null,
            detail: "valid values: \"OnFailure\", \"Never\"".to_owned(),
        });
    }
    errors.one_of(&spec.at("completionMode"), &["Indexed", "NonIndexed"]);
    if spec.at("completionMode").text() == "Indexed" && !spec.at("completions").is_set() {
        errors.add(FieldError::required(spec.at("completions").path, "when completion mode is Indexed"));
    }
}

/// When a CronJob makes Jobs. Only old ones may have a time zone in the schedule itself.
fn schedule(spec: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let (schedule, zone) = (spec.at("schedule"), spec.at("timeZone"));
    if errors.require(&schedule, "") {
        let text = schedule.text();
        if let Err(why) = cron::Schedule::parse(text) {
            errors.invalid(&schedule, &why.to_string());
        }
        let had_zone = old.is_some_and(|old| old.at("schedule").text().contains("TZ"));
        if text.contains("TZ") && !had_zone {
            errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        } else if text.contains("TZ") && zone.is_set() {
            errors.invalid(&schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
    }
    if zone.is_set() && old.is_none_or(|old| old.at("timeZone").text() != zone.text()) {
        time_zone(&zone, errors);
    }
}

fn time_zone(zone: &Cursor<'_>, errors: &mut Errors) {
    let name = zone.text();
    if name.is_empty() {
        errors.invalid(zone, "timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(zone, why);
    } else if cron::zone(name).is_none() {
        errors.invalid(zone, &format!("unknown time zone {name}"));
    }
}

/// A CronJob.
pub(super) fn cron_job(object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let name = object.down(&["metadata", "name"]);
    if name.text().len() > CRON_JOB_NAME_CHARS {
        errors.invalid(&name, "must be no more than 52 characters");
    }
    schedule(&spec, old.map(|old| old.at("spec")).as_ref(), errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(&spec.at(field));
    }
    errors.one_of(&spec.at("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    job_spec(&spec.down(&["jobTemplate", "spec"]), errors);
}
