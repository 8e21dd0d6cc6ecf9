//! FlowSchemas and PriorityLevelConfigurations. Source: `pkg/apis/flowcontrol/validation`.

use serde_json::Value;

use super::cursor::{Cursor, Errors};
use crate::{names, status::FieldError};

/// The lowest precedence of a schema.
const MAX_PRECEDENCE: i64 = 10_000;
/// How many queues a level may have.
const MAX_QUEUES: i64 = 10_000_000;

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// A FlowSchema.
pub(super) fn schema(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let precedence = spec.at("matchingPrecedence");
    let value = precedence.int().unwrap_or_default();
    let mut refuse = |words: String| errors.add(FieldError::invalid(precedence.path.as_str(), value, words));
    if value <= 0 {
        refuse("must be a positive value".to_owned());
    }
    if value > MAX_PRECEDENCE {
        refuse(format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if value == 1 && object.down(&["metadata", "name"]).text() != "exempt" {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    errors.one_of(&spec.down(&["distinguisherMethod", "type"]), &["ByNamespace", "ByUser"]);
    let level = spec.down(&["priorityLevelConfiguration", "name"]);
    if errors.require(&level, "must reference a priority level") {
        errors.faults(&level, names::dns_subdomain(level.text()));
    }
    for rule in spec.at("rules").entries() {
        check_rule(&rule, errors);
    }
}

fn check_rule(rule: &Cursor<'_>, errors: &mut Errors) {
    errors.require(&rule.at("subjects"), "subjects must contain at least one value");
    for subject in rule.at("subjects").entries() {
        check_subject(&subject, errors);
    }
    let (resources, paths) = (rule.at("resourceRules"), rule.at("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        let words = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.add(FieldError::required(rule.path.as_str(), words));
    }
    for resource in resources.entries() {
        resource_rule(&resource, errors);
    }
    for path in paths.entries() {
        verbs(&path.at("verbs"), errors);
        let urls = path.at("nonResourceURLs");
        errors.require(&urls, "nonResourceURLs must contain at least one value");
        alone(&urls, "non-resource URLs", errors);
        for url in urls.entries().iter().filter(|url| url.text() != "*") {
            check_url(url, errors);
        }
    }
}

fn check_url(url: &Cursor<'_>, errors: &mut Errors) {
    let text = url.text();
    let words = match text {
        "" => "must not be empty",
        "/" => return,
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        _ if text.trim_end_matches('*').contains('*') || (text.ends_with('*') && !text.ends_with("/*")) => {
            "wildcard can only do suffix matching"
        }
        _ => return,
    };
    errors.invalid(url, words);
}

fn check_subject(subject: &Cursor<'_>, errors: &mut Errors) {
    const KINDS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.at("kind");
    if !KINDS.iter().any(|(word, _)| *word == kind.text()) {
        let words = KINDS.map(|(word, _)| word);
        errors.add(FieldError::not_supported(kind.path.as_str(), kind.text(), &words));
        return;
    }
    for (word, field) in KINDS {
        let at = subject.at(field);
        match (word == kind.text(), at.is_set()) {
            (true, false) => {
                let words = format!("{field} is required when subject kind is '{word}'");
                errors.add(FieldError::required(at.path.as_str(), words));
            }
            (true, true) => subject_name(&at, word, errors),
            (false, true) => errors.forbidden(&at, &format!("{field} is forbidden when subject kind is not '{word}'")),
            (false, false) => {}
        }
    }
}

fn subject_name(at: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    let name = at.at("name");
    let named = errors.require(&name, "");
    if kind != "ServiceAccount" {
        return;
    }
    if named && name.text() != "*" {
        errors.faults(&name, names::dns_subdomain(name.text()));
    }
    if errors.require(&at.at("namespace"), "must specify namespace for service account") {
        errors.faults(&at.at("namespace"), names::dns_label(at.at("namespace").text()));
    }
}

fn verbs(verbs: &Cursor<'_>, errors: &mut Errors) {
    errors.require(verbs, "verbs must contain at least one value");
    let entries = verbs.entries();
    if entries.iter().any(|verb| verb.text() == "*") {
        alone(verbs, "verbs", errors);
    } else if entries.iter().any(|verb| !VERBS.contains(&verb.text())) {
        errors.add(FieldError::not_supported(verbs.path.as_str(), verbs.json(), &VERBS));
    }
}

fn alone(list: &Cursor<'_>, others: &str, errors: &mut Errors) {
    let entries = list.entries();
    if entries.len() > 1 && entries.iter().any(|entry| entry.text() == "*") {
        errors.invalid(list, &format!("if '*' is present, must not specify other {others}"));
    }
}

fn resource_rule(rule: &Cursor<'_>, errors: &mut Errors) {
    verbs(&rule.at("verbs"), errors);
    errors.require(&rule.at("apiGroups"), "resource rules must supply at least one api group");
    alone(&rule.at("apiGroups"), "api groups", errors);
    errors.require(&rule.at("resources"), "resource rules must supply at least one resource");
    alone(&rule.at("resources"), "resources", errors);
    let namespaces = rule.at("namespaces");
    if namespaces.is_empty() && !rule.at("clusterScope").flag() {
        let words = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.add(FieldError::required(namespaces.path.as_str(), words));
    }
    alone(&namespaces, "namespaces", errors);
    for namespace in namespaces.entries().iter().filter(|namespace| namespace.text() != "*") {
        for fault in names::dns_label(namespace.text()) {
            let words = format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
            errors.invalid(namespace, &words);
        }
    }
}

/// A PriorityLevelConfiguration.
pub(super) fn level(object: &Cursor<'_>, _old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.at("spec");
    let (kind, limited, exempt) = (spec.at("type"), spec.at("limited"), spec.at("exempt"));
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, 0, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            match limited.is_set() {
                true => check_limits(&limited, errors),
                false => {
                    errors.add(FieldError::required(limited.path.as_str(), "must not be empty when type is Limited"));
                }
            }
        }
        other => errors.add(FieldError::not_supported(kind.path.as_str(), other, &["Exempt", "Limited"])),
    }
}

fn shares(at: &Cursor<'_>, least: i64, errors: &mut Errors) {
    let (share, lendable) = (at.at("nominalConcurrencyShares"), at.at("lendablePercent"));
    if share.int().is_some_and(|value| value < least) {
        let words = if least == 0 { "must be a non-negative integer" } else { "must be positive" };
        errors.invalid(&share, words);
    }
    if lendable.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
}

fn check_limits(limited: &Cursor<'_>, errors: &mut Errors) {
    shares(limited, 0, errors);
    errors.non_negative(&limited.at("borrowingLimitPercent"));
    let response = limited.at("limitResponse");
    let (kind, queuing) = (response.at("type"), response.at("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            errors.add(FieldError::required(
                queuing.path.as_str(),
                "must not be empty if limited.limitResponse.type is Limited",
            ));
        }
        "Queue" => check_queues(&queuing, errors),
        other => errors.add(FieldError::not_supported(kind.path.as_str(), other, &["Queue", "Reject"])),
    }
}

fn check_queues(queuing: &Cursor<'_>, errors: &mut Errors) {
    let number = |field: &str| queuing.at(field).value.and_then(Value::as_i64).unwrap_or_default();
    let mut refuse = |field: &str, words: String| {
        errors.add(FieldError::invalid(queuing.at(field).path, number(field), words));
    };
    if number("queueLengthLimit") <= 0 {
        refuse("queueLengthLimit", "must be positive".to_owned());
    }
    if number("queues") <= 0 {
        refuse("queues", "must be positive".to_owned());
    } else if number("queues") > MAX_QUEUES {
        refuse("queues", format!("must not be greater than {MAX_QUEUES}"));
    }
    if number("handSize") <= 0 {
        refuse("handSize", "must be positive".to_owned());
    } else if number("handSize") > number("queues") {
        refuse("handSize", format!("should not be greater than queues ({})", number("queues")));
    }
}
