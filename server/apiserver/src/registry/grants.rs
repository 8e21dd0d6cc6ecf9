//! Writes of roles and bindings: nobody grants more than they have, but for those who may `escalate` a role or `bind`
//! it. Source: `pkg/registry/rbac/*/policybased` of Kubernetes 1.36.

use skiff_api::{object::Object, status::ApiError};

use super::call::Call;
use crate::authz::{Attributes, Authorizer as _, Decision, MASTERS, Target, rbac, rbac::escalation, rules::Rule};

/// Refuses a role or binding that grants more than its writer has.
pub(super) fn check(call: &Call<'_>, object: &Object, old: Option<&Object>) -> Result<(), ApiError> {
    if call.def.gvk.group != rbac::GROUP || call.user.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    match call.def.resource.as_str() {
        "roles" | "clusterroles" => check_role(call, object, old),
        "rolebindings" | "clusterrolebindings" => check_binding(call, object, old),
        _ => Ok(()),
    }
}

/// Whether none of the fields changes.
fn unchanged(object: &Object, old: Option<&Object>, fields: &[&str]) -> bool {
    old.is_some_and(|old| fields.iter().all(|field| object.at(&[field]) == old.at(&[field])))
}

/// Whether the writer has a verb on a role.
fn may(call: &Call<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let target = Target::Resource { group: rbac::GROUP, resource, subresource: "", namespace: call.namespace(), name };
    let attributes = Attributes { user: call.user, verb, target, fields: "" };
    matches!(call.registry.authorizer.authorize(attributes), Decision::Allow(_))
}

/// Refuses rules that the writer does not have.
fn covered(call: &Call<'_>, object: &Object, wanted: &[Rule]) -> Result<(), ApiError> {
    let held = call.registry.authorizer.rules_for(call.user, call.namespace());
    match escalation::refusal(call.user, &held, wanted) {
        None => Ok(()),
        Some(why) => Err(ApiError::forbidden(rbac::GROUP, &call.def.resource, object.name(), &why)),
    }
}

fn check_role(call: &Call<'_>, role: &Object, old: Option<&Object>) -> Result<(), ApiError> {
    if unchanged(role, old, &["rules", "aggregationRule"]) || may(call, "escalate", &call.def.resource, role.name()) {
        return Ok(());
    }
    covered(call, role, &Rule::parse_all(role.at(&["rules"])))?;
    // What aggregates may gather anything.
    let aggregates = role.at(&["aggregationRule"]).is_some_and(serde_json::Value::is_object);
    if aggregates && !unchanged(role, old, &["aggregationRule"]) {
        covered(call, role, &Rule::everything())?;
    }
    Ok(())
}

fn check_binding(call: &Call<'_>, binding: &Object, old: Option<&Object>) -> Result<(), ApiError> {
    if unchanged(binding, old, &["roleRef", "subjects"]) {
        return Ok(());
    }
    let text = |field: &str| binding.str_at(&["roleRef", field]).unwrap_or_default();
    let resource = if text("kind") == "ClusterRole" { "clusterroles" } else { "roles" };
    if may(call, "bind", resource, text("name")) {
        return Ok(());
    }
    let rules = call.registry.authorizer.role_rules(text("kind"), call.namespace(), text("name"));
    let rules = rules.ok_or_else(|| ApiError::not_found(rbac::GROUP, resource, text("name")))?;
    covered(call, binding, &rules)
}
