//! Webhooks and policies of admission. Source: `pkg/apis/admissionregistration/validation`. The expressions themselves
//! are compiled by whoever runs them.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    cursor::{Cursor, Errors},
    workloads::label_selector,
};
use crate::{
    names,
    status::{FieldError, FieldErrorKind},
};

/// How many conditions a webhook or policy may have.
const MAX_MATCH_CONDITIONS: usize = 64;
/// How many audit annotations a policy may have.
const MAX_AUDIT_ANNOTATIONS: usize = 20;
/// The longest that a webhook may take.
const MAX_TIMEOUT_SECONDS: i64 = 30;
/// The versions of `AdmissionReview` that the server speaks.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A ValidatingWebhookConfiguration or MutatingWebhookConfiguration.
pub(super) fn webhooks(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for hook in object.at("webhooks").entries() {
        webhook(&hook, errors);
        review_versions(
            &hook.at("admissionReviewVersions"),
            &format!("must specify one of {}", REVIEW_VERSIONS.join(", ")),
            errors,
        );
        let name = hook.at("name");
        if !name.is_empty() && !seen.insert(name.text()) {
            errors.add(FieldError::duplicate(name.path.as_str(), name.text()));
        }
    }
}

fn webhook(hook: &Cursor<'_>, errors: &mut Errors) {
    qualified_domain(&hook.at("name"), errors);
    for rule in hook.at("rules").entries() {
        operations(&rule, errors);
    }
    errors.one_of(&hook.at("failurePolicy"), &["Fail", "Ignore"]);
    errors.one_of(&hook.at("matchPolicy"), &["Equivalent", "Exact"]);
    if errors.require(&hook.at("sideEffects"), "must specify one of None, NoneOnDryRun") {
        errors.one_of(&hook.at("sideEffects"), &["None", "NoneOnDryRun"]);
    }
    let timeout = hook.at("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=MAX_TIMEOUT_SECONDS).contains(&seconds)) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    label_selector(&hook.at("namespaceSelector"), errors);
    label_selector(&hook.at("objectSelector"), errors);
    errors.one_of(&hook.at("reinvocationPolicy"), &["IfNeeded", "Never"]);
    client(&hook.at("clientConfig"), errors);
    match_conditions(&hook.at("matchConditions"), errors);
}

/// A name of at least three labels.
fn qualified_domain(name: &Cursor<'_>, errors: &mut Errors) {
    if !errors.require(name, "") {
        return;
    }
    errors.faults(name, names::dns_subdomain(name.text()));
    if name.text().split('.').count() < 3 {
        errors.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

/// Where a webhook is: exactly one of a URL and a Service.
pub(super) fn client(config: &Cursor<'_>, errors: &mut Errors) {
    let (url, service) = (config.at("url"), config.at("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => webhook_service(&service, errors),
        _ => errors.add(FieldError::required(config.path.as_str(), "exactly one of url or service is required")),
    }
}

fn webhook_url(url: &Cursor<'_>, errors: &mut Errors) {
    const FORM: &str = "desired format: https://host[/path]";
    let text = url.text();
    let Some((scheme, rest)) = text.split_once("://") else {
        let words = format!("'https' is the only allowed URL scheme; {FORM}");
        errors.add(FieldError::invalid(url.path.as_str(), "", words));
        return;
    };
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, fragment)| (rest, fragment));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let mut refuse = |value: &str, words: String| errors.add(FieldError::invalid(url.path.as_str(), value, words));
    if scheme != "https" {
        refuse(scheme, format!("'https' is the only allowed URL scheme; {FORM}"));
    }
    if host.is_empty() {
        refuse(host, format!("host must be specified; {FORM}"));
    }
    if !user.is_empty() {
        refuse(user, "user information is not permitted in the URL".to_owned());
    }
    if !fragment.is_empty() {
        refuse(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !query.is_empty() {
        refuse(query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn webhook_service(service: &Cursor<'_>, errors: &mut Errors) {
    errors.require(&service.at("name"), "service name is required");
    errors.require(&service.at("namespace"), "service namespace is required");
    let port = service.at("port");
    if let Some(fault) = port.int().map(names::port_number).and_then(|faults| faults.into_iter().next()) {
        errors.invalid(&port, &format!("port is not valid: {fault}"));
    }
    let path = service.at("path");
    let text = path.text();
    if !path.is_set() || text == "/" {
        return;
    }
    if !text.starts_with('/') {
        errors.invalid(&path, "must start with a '/'");
    }
    for segment in text.trim_start_matches('/').trim_end_matches('/').split('/') {
        if segment.is_empty() {
            errors.invalid(&path, &format!("segment[{}] may not be empty", 0));
        }
        for fault in names::dns_subdomain(segment) {
            errors.invalid(&path, &fault);
        }
    }
}

/// Versions of a review, of which the server must speak one.
pub(super) fn review_versions(versions: &Cursor<'_>, missing: &str, errors: &mut Errors) {
    let entries = versions.entries();
    if !errors.require(versions, missing) {
        return;
    }
    let mut seen = HashSet::new();
    for version in &entries {
        if !seen.insert(version.text()) {
            errors.invalid(version, "duplicate version");
            continue;
        }
        errors.faults(version, names::dns_1035_label(version.text()));
    }
    if !entries.iter().any(|version| REVIEW_VERSIONS.contains(&version.text())) {
        errors.invalid(versions, &format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}

fn operations(rule: &Cursor<'_>, errors: &mut Errors) {
    let operations = rule.at("operations");
    errors.require(&operations, "");
    alone(&operations, "operations", errors);
    for operation in operations.entries() {
        errors.one_of(&operation, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    let (groups, versions) = (rule.at("apiGroups"), rule.at("apiVersions"));
    if !groups.is_set() {
        errors.add(FieldError::required(groups.path.as_str(), ""));
    }
    alone(&groups, "API groups", errors);
    errors.require(&versions, "");
    alone(&versions, "API versions", errors);
    for version in versions.entries() {
        errors.require(&version, "");
    }
    resources(&rule.at("resources"), errors);
    errors.one_of(&rule.at("scope"), &["*", "Cluster", "Namespaced"]);
}

/// `*` stands for everything and so stands alone.
fn alone(list: &Cursor<'_>, others: &str, errors: &mut Errors) {
    let entries = list.entries();
    if entries.len() > 1 && entries.iter().any(|entry| entry.text() == "*") {
        errors.invalid(list, &format!("if '*' is present, must not specify other {others}"));
    }
}

fn resources(resources: &Cursor<'_>, errors: &mut Errors) {
    errors.require(resources, "");
    let entries = resources.entries();
    let (mut all_subs, mut all_resources) = (HashSet::new(), HashSet::new());
    for entry in &entries {
        let Some((resource, sub)) = entry.text().split_once('/') else {
            errors.require(entry, "");
            continue;
        };
        for (known, is_covered, whole) in
            [(&all_subs, resource, format!("{resource}/*")), (&all_resources, sub, format!("*/{sub}"))]
        {
            if known.contains(is_covered) {
                errors.invalid(entry, &format!("if '{whole}' is present, must not specify {}", entry.text()));
            }
        }
        if sub == "*" {
            all_subs.insert(resource);
        }
        if resource == "*" {
            all_resources.insert(sub);
        }
    }
    let has = |word: &str| entries.iter().any(|entry| entry.text() == word);
    if entries.len() > 1 && has("*/*") {
        errors.invalid(resources, "if '*/*' is present, must not specify other resources");
    }
    let plain = entries.iter().any(|entry| !entry.text().contains('/') && entry.text() != "*");
    if has("*") && plain {
        let words = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(resources, words);
    }
}

fn match_conditions(conditions: &Cursor<'_>, errors: &mut Errors) {
    let entries = conditions.entries();
    if entries.len() > MAX_MATCH_CONDITIONS {
        errors.add(FieldError {
            path: conditions.path.clone(),
            kind: FieldErrorKind::TooMany,
            value: entries.len().into(),
            detail: format!("must have at most {MAX_MATCH_CONDITIONS} items"),
        });
    }
    for condition in &entries {
        if condition.at("expression").text().trim().is_empty() {
            errors.add(FieldError::required(condition.at("expression").path, ""));
        }
        errors.name(&condition.at("name"), names::qualified_name);
    }
    errors.unique(&entries, "name");
}

/// A ValidatingAdmissionPolicy.
pub(super) fn validating_policy(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    policy(&spec, errors);
    let (validations, audits) = (spec.at("validations"), spec.at("auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        for at in [&validations, &audits] {
            let words = "validations or auditAnnotations must contain at least one item";
            errors.add(FieldError::required(at.path.as_str(), words));
        }
    }
    for validation in validations.entries() {
        check_validation(&validation, errors);
    }
    let entries = audits.entries();
    if entries.len() > MAX_AUDIT_ANNOTATIONS {
        errors.invalid(&audits, &format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations"));
    }
    for audit in &entries {
        let name = format!("{}/{}", object.down(&["metadata", "name"]).text(), audit.at("key").text());
        for fault in names::qualified_name(&name) {
            errors.add(FieldError::invalid(audit.at("key").path, name.as_str(), fault));
        }
        if audit.at("valueExpression").text().trim().is_empty() {
            let words = "valueExpression is not specified";
            errors.add(FieldError::required(audit.at("valueExpression").path, words));
        }
    }
    errors.unique(&entries, "key");
}

/// A MutatingAdmissionPolicy.
pub(super) fn mutating_policy(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    policy(&spec, errors);
    errors.one_of(&spec.at("reinvocationPolicy"), &["IfNeeded", "Never"]);
    errors.require(&spec.at("mutations"), "mutations must contain at least one item");
    for mutation in spec.at("mutations").entries() {
        let kind = mutation.at("patchType");
        if errors.require(&kind, "") {
            errors.one_of(&kind, &["ApplyConfiguration", "JSONPatch"]);
        }
        for (word, field) in [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")] {
            let at = mutation.at(field);
            if kind.text() == word && !at.is_set() {
                errors
                    .add(FieldError::required(at.path.as_str(), format!("must be specified when patchType is {word}")));
            } else if at.is_set() && at.at("expression").text().trim().is_empty() {
                errors.add(FieldError::required(at.at("expression").path, "expression is not specified"));
            }
        }
    }
}

/// What policies of both kinds have.
fn policy(spec: &Cursor<'_>, errors: &mut Errors) {
    if errors.require(&spec.at("failurePolicy"), "") {
        errors.one_of(&spec.at("failurePolicy"), &["Fail", "Ignore"]);
    }
    let kind = spec.at("paramKind");
    if kind.is_set() {
        param_kind(&kind, errors);
    }
    let constraints = spec.at("matchConstraints");
    if errors.require(&constraints, "") {
        match_resources(&constraints, errors);
        errors.require(&constraints.at("resourceRules"), "");
    }
    match_conditions(&spec.at("matchConditions"), errors);
    for variable in spec.at("variables").entries() {
        let name = variable.at("name");
        if name.text().trim().is_empty() {
            errors.add(FieldError::required(name.path.as_str(), "name is not specified"));
        } else if !is_identifier(name.text()) {
            errors.invalid(&name, "name is not a valid CEL identifier");
        }
        if variable.at("expression").text().trim().is_empty() {
            errors.add(FieldError::required(variable.at("expression").path, "expression is not specified"));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn param_kind(kind: &Cursor<'_>, errors: &mut Errors) {
    let version = kind.at("apiVersion");
    if errors.require(&version, "") {
        let (group, number) = version.text().split_once('/').unwrap_or(("", version.text()));
        if !group.is_empty() {
            let faults = names::dns_subdomain(group).join(",");
            if !faults.is_empty() {
                errors.add(FieldError::invalid(version.path.as_str(), group, faults));
            }
        }
        let faults = names::dns_1035_label(number).join(",");
        if !faults.is_empty() {
            errors.add(FieldError::invalid(version.path.as_str(), number, faults));
        }
    }
    let name = kind.at("kind");
    if errors.require(&name, "") {
        mixed_case(&name, errors);
    }
}

/// The name of a kind: a label but for its case.
pub(super) fn mixed_case(kind: &Cursor<'_>, errors: &mut Errors) {
    let faults = names::dns_1035_label(&kind.text().to_lowercase()).join(",");
    if !faults.is_empty() {
        errors.invalid(kind, &format!("may have mixed case, but should otherwise match: {faults}"));
    }
}

fn match_resources(resources: &Cursor<'_>, errors: &mut Errors) {
    if errors.require(&resources.at("matchPolicy"), "") {
        errors.one_of(&resources.at("matchPolicy"), &["Equivalent", "Exact"]);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let at = resources.at(field);
        match at.is_set() {
            true => label_selector(&at, errors),
            false => errors.add(FieldError::required(at.path.as_str(), "")),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.at(list).entries() {
            for name in rule.at("resourceNames").entries() {
                errors.faults(&name, names::path_segment(name.text()));
            }
            no_twins(&rule.at("resourceNames"), errors);
            operations(&rule, errors);
        }
    }
}

fn no_twins(list: &Cursor<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for entry in list.entries() {
        if !seen.insert(entry.text()) {
            errors.add(FieldError::duplicate(entry.path.as_str(), entry.text()));
        }
    }
}

fn check_validation(validation: &Cursor<'_>, errors: &mut Errors) {
    let (expression, message) = (validation.at("expression"), validation.at("message"));
    if expression.text().trim().is_empty() {
        errors.add(FieldError::required(expression.path.as_str(), "expression is not specified"));
    }
    let trimmed = message.text().trim();
    if !message.is_empty() && trimmed.is_empty() {
        errors.invalid(&message, "message must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        errors.invalid(&message, "message must not contain line breaks");
    } else if expression.text().trim().contains(['\n', '\r']) && trimmed.is_empty() {
        let words = "message must be specified if expression contains line breaks";
        errors.add(FieldError::required(message.path.as_str(), words));
    }
    let other = validation.at("messageExpression");
    if !other.is_empty() && other.text().trim().is_empty() {
        errors.invalid(&other, "must be non-empty if specified");
    }
    errors.one_of(&validation.at("reason"), &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"]);
}

/// A ValidatingAdmissionPolicyBinding.
pub(super) fn validating_binding(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    binding(&spec, errors);
    let actions = spec.at("validationActions");
    let mut seen: HashSet<&str> = HashSet::new();
    for action in actions.entries() {
        errors.one_of(&action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.text()) {
            errors.add(FieldError::duplicate(action.path.as_str(), action.text()));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let words = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                     response and headers serves no purpose)";
        errors.invalid(&actions, words);
    }
    errors.require(&actions, "at least one validation action is required");
}

/// A MutatingAdmissionPolicyBinding.
pub(super) fn mutating_binding(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    binding(&object.at("spec"), errors);
}

fn binding(spec: &Cursor<'_>, errors: &mut Errors) {
    errors.name(&spec.at("policyName"), names::dns_subdomain);
    let reference = spec.at("paramRef");
    if reference.is_set() {
        let (name, selector) = (reference.at("name"), reference.at("selector"));
        match (name.is_empty(), selector.is_set()) {
            (false, false) => errors.faults(&name, names::path_segment(name.text())),
            (true, true) => label_selector(&selector, errors),
            (false, true) => errors.forbidden(&name, "name and selector are mutually exclusive"),
            (true, false) => {
                errors.add(FieldError::required(reference.path.as_str(), "one of name or selector must be specified"));
            }
        }
        if errors.require(&reference.at("parameterNotFoundAction"), "") {
            errors.one_of(&reference.at("parameterNotFoundAction"), &["Allow", "Deny"]);
        }
    }
    let resources = spec.at("matchResources");
    if resources.is_set() && resources.value != Some(&Value::Object(serde_json::Map::new())) {
        match_resources(&resources, errors);
    }
}
