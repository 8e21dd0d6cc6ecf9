//! Aggregated ClusterRoles: a role whose rules are those of the roles that its selectors match.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use skiff_api::{object::Object, selector::LabelSelector};

/// Whether one of an aggregation rule's selectors matches a role; one that cannot be read matches none.
fn selected(selectors: &[Value], role: &Object) -> bool {
    let matches = |selector: &Value| LabelSelector::from_value(Some(selector)).is_ok_and(|s| s.matches(role));
    selectors.iter().any(matches)
}

/// Collects the rules of a role and, where it aggregates, of those that it selects.
fn collect(name: &str, roles: &BTreeMap<&str, &Object>, seen: &mut BTreeSet<String>, into: &mut Vec<Value>) {
    let Some(role) = roles.get(name) else { return };
    if !seen.insert(name.to_owned()) {
        return;
    }
    let Some(selectors) = role.at(&["aggregationRule", "clusterRoleSelectors"]).and_then(Value::as_array) else {
        for rule in role.at(&["rules"]).and_then(Value::as_array).into_iter().flatten() {
            if !into.contains(rule) {
                into.push(rule.clone());
            }
        }
        return;
    };
    for (other, object) in roles {
        if *other != name && selected(selectors, object) {
            collect(other, roles, seen, into);
        }
    }
}

/// The rules that each aggregating ClusterRole has by now, by name. A cycle ends where it closes.
pub fn aggregated_rules(cluster_roles: &[Object]) -> BTreeMap<String, Vec<Value>> {
    let roles: BTreeMap<&str, &Object> = cluster_roles.iter().map(|role| (role.name(), role)).collect();
    let aggregating = cluster_roles.iter().filter(|role| role.at(&["aggregationRule"]).is_some_and(Value::is_object));
    aggregating
        .map(|role| {
            let mut rules = Vec::new();
            collect(role.name(), &roles, &mut BTreeSet::new(), &mut rules);
            (role.name().to_owned(), rules)
        })
        .collect()
}
