//! Nobody grants what they do not have: whether some rules cover others, and what is missing.
//! Source: `component-helpers/auth/rbac/validation` of Kubernetes 1.36.

use std::collections::{BTreeMap, BTreeSet};

use skiff_api::user::UserInfo;

use crate::authz::rules::Rule;

/// Stands for every value of a rule's list.
const ALL: &str = "*";

/// A list of one, or of none where there is nothing to name.
fn each(list: &[String]) -> Vec<Vec<String>> {
    if list.is_empty() { vec![Vec::new()] } else { list.iter().map(|one| vec![one.clone()]).collect() }
}

/// A rule as rules of one verb on one thing each.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                for resource_names in each(&rule.resource_names) {
                    parts.push(Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        resource_names,
                        non_resource_urls: Vec::new(),
                    });
                }
            }
        }
        for url in &rule.non_resource_urls {
            parts.push(Rule { verbs: vec![verb.clone()], non_resource_urls: vec![url.clone()], ..Rule::default() });
        }
    }
    parts
}

/// Whether a list has all words of another, or stands for all words.
fn has_all(list: &[String], words: &[String]) -> bool {
    list.iter().any(|one| one == ALL) || words.iter().all(|word| list.contains(word))
}

fn covers_resource(list: &[String], resource: &str) -> bool {
    let any_of_sub = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    list.iter().any(|one| one == ALL || one == resource || any_of_sub.as_deref() == Some(one))
}

fn covers_url(list: &[String], url: &str) -> bool {
    list.iter().any(|one| one == url || one.strip_suffix(ALL).is_some_and(|front| url.starts_with(front)))
}

/// Whether a rule covers one of one verb on one thing.
fn covers_part(owner: &Rule, part: &Rule) -> bool {
    let names = owner.resource_names.is_empty()
        || (!part.resource_names.is_empty() && has_all(&owner.resource_names, &part.resource_names));
    has_all(&owner.verbs, &part.verbs)
        && has_all(&owner.api_groups, &part.api_groups)
        && part.resources.iter().all(|resource| covers_resource(&owner.resources, resource))
        && part.non_resource_urls.iter().all(|url| covers_url(&owner.non_resource_urls, url))
        && names
}

/// What of some rules is not covered by those that somebody has.
fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(break_down);
    parts.filter(|part| !held.iter().any(|rule| covers_part(rule, part))).collect()
}

/// A rule as Kubernetes prints it in messages.
fn print(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let given = fields.iter().filter(|(_, list)| !list.is_empty());
    let parts: Vec<String> = given.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list of words as Go prints it.
fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}

/// Rules on the same thing as one with all their verbs.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    type Thing = [Vec<String>; 4];
    let mut verbs: BTreeMap<Thing, Vec<String>> = BTreeMap::new();
    for rule in rules {
        let thing = [rule.api_groups, rule.resources, rule.resource_names, rule.non_resource_urls];
        verbs.entry(thing).or_default().extend(rule.verbs);
    }
    let whole = |([api_groups, resources, resource_names, non_resource_urls], verbs): (Thing, Vec<String>)| Rule {
        verbs,
        api_groups,
        resources,
        resource_names,
        non_resource_urls,
    };
    verbs.into_iter().map(whole).collect()
}

/// Why a user who has some rules may not grant others, if they may not.
pub fn refusal(user: &UserInfo, held: &[Rule], wanted: &[Rule]) -> Option<String> {
    let missing = missing(held, wanted);
    if missing.is_empty() {
        return None;
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(print).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    Some(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn rules(value: &Value) -> Vec<Rule> {
        Rule::parse_all(Some(value))
    }

    fn may(held: &Value, wanted: &Value) -> bool {
        missing(&rules(held), &rules(wanted)).is_empty()
    }

    #[test]
    fn what_covers_what() {
        let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| json!([{"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}]);
        let urls = |urls: &[&str]| json!([{"verbs": ["get"], "nonResourceURLs": urls}]);
        let read = rule(&["get", "list"], &[""], &["pods", "*/scale"], &[]);
        let cases = [
            (&read, rule(&["get"], &[""], &["pods"], &[]), true),
            (&read, rule(&["get"], &[""], &["pods"], &["one"]), true),
            (&read, rule(&["get", "watch"], &[""], &["pods"], &[]), false),
            (&read, rule(&["get"], &["apps"], &["pods"], &[]), false),
            (&read, rule(&["get"], &[""], &["pods/log"], &[]), false),
            (&read, rule(&["get"], &[""], &["replicationcontrollers/scale"], &[]), true),
            (&read, rule(&["*"], &[""], &["pods"], &[]), false),
            (&rule(&["get"], &[""], &["pods"], &["one"]), rule(&["get"], &[""], &["pods"], &[]), false),
            (&rule(&["*"], &["*"], &["*"], &[]), rule(&["escalate"], &["rbac"], &["roles"], &[]), true),
            (&rule(&["*"], &["*"], &["*"], &[]), urls(&["/metrics"]), false),
            (&urls(&["/healthz/*"]), urls(&["/healthz/etcd"]), true),
            (&urls(&["/healthz/*"]), urls(&["/*"]), false),
        ];
        for (held, wanted, expected) in cases {
            assert_eq!(may(held, &wanted), expected, "{held} covers {wanted}");
        }
        assert!(may(&json!([read[0], urls(&["*"])[0]]), &json!([urls(&["/a"])[0], read[0]])));
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let user = UserInfo { name: "ann".into(), groups: vec!["a".into(), "b".into()], ..UserInfo::default() };
        let wanted = json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "secrets"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]);
        let held = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        assert_eq!(
            refusal(&user, &rules(&held), &rules(&wanted)).unwrap(),
            "user \"ann\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
        );
    }
}
