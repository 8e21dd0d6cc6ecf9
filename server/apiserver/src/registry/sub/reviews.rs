//! Reviews: questions to the authenticator and the authorizer, answered and not stored.

use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    status::{ApiError, FieldError},
    user::UserInfo,
};

use super::{
    super::{Answer, call::Call, create, forms, meta, options},
    identity, json_value,
};
use crate::authz::{Attributes, Authorizer, Decision, Target, node};

/// Answers a review.
pub(super) async fn review(call: &Call<'_>) -> Result<Answer, ApiError> {
    let mut review = forms::decode(call)?;
    meta::place(&call.def, &mut review, call.namespace())?;
    let status = match call.def.gvk.kind.as_str() {
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let user = subject(&review);
            check_access(call, &review, Some(&user))?;
            access(call, &review, &user)
        }
        "SelfSubjectAccessReview" => {
            check_access(call, &review, None)?;
            access(call, &review, call.user)
        }
        "SelfSubjectRulesReview" => rules(call, &review)?,
        "SelfSubjectReview" => json!({"userInfo": identity::user_info(call.user)}),
        "TokenReview" => identity::review(call, &review).await?,
        _ => return Err(ApiError::no_such_path()),
    };
    if call.def.gvk.kind == "SelfSubjectReview" {
        review.set_at(&["metadata", "creationTimestamp"], meta::time(call.now));
    }
    review.set_at(&["status"], status);
    Ok(json_value(201, Value::Object(review.0)))
}

/// The user that a review is about.
fn subject(review: &Object) -> UserInfo {
    let text = |field: &str| review.str_at(&["spec", field]).unwrap_or_default().to_owned();
    let extra = review.at(&["spec", "extra"]).and_then(Value::as_object);
    let extra = extra.into_iter().flatten().map(|(key, values)| (key.clone(), options::strings(Some(values))));
    UserInfo {
        name: text("user"),
        uid: text("uid"),
        groups: options::strings(review.at(&["spec", "groups"])),
        extra: extra.collect(),
    }
}

/// What is wrong with an access review.
fn check_access(call: &Call<'_>, review: &Object, user: Option<&UserInfo>) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let has = |field: &str| review.at(&["spec", field]).is_some_and(Value::is_object);
    match (has("resourceAttributes"), has("nonResourceAttributes")) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(
                "spec.nonResourceAttributes",
                review.at(&["spec", "nonResourceAttributes"]).cloned().unwrap_or_default(),
                why,
            ));
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", Value::Null, why));
        }
        _ => {}
    }
    if user.is_some_and(|user| user.name.is_empty() && user.groups.is_empty()) {
        errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    if call.def.namespaced {
        let asked = review.str_at(&["spec", "resourceAttributes", "namespace"]).unwrap_or_default();
        if asked != call.namespace() {
            let why = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", asked, why));
        }
    }
    create::refuse_invalid(call, "", &errors)
}

/// Whether a user may do what an access review asks.
fn access(call: &Call<'_>, review: &Object, user: &UserInfo) -> Value {
    let resource = |field: &str| review.str_at(&["spec", "resourceAttributes", field]).unwrap_or_default();
    let path = |field: &str| review.str_at(&["spec", "nonResourceAttributes", field]).unwrap_or_default();
    let (verb, target) = if review.at(&["spec", "resourceAttributes"]).is_some() {
        let target = Target::Resource {
            group: resource("group"),
            resource: resource("resource"),
            subresource: resource("subresource"),
            namespace: resource("namespace"),
            name: resource("name"),
        };
        (resource("verb"), target)
    } else {
        (path("verb"), Target::Path(path("path")))
    };
    let fields = selected_fields(review);
    let attributes = Attributes { user, verb, target, fields: &fields };
    let (allowed, reason) = match call.registry.authorizer.authorize(attributes) {
        Decision::Allow(reason) => (true, reason),
        Decision::Deny(reason) => (false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// The field selector that a review names: its requirements, as far as they can be said in one.
fn selected_fields(review: &Object) -> String {
    let Some(selector) = review.at(&["spec", "resourceAttributes", "fieldSelector"]) else { return String::new() };
    if let Some(raw) = selector.get("rawSelector").and_then(Value::as_str).filter(|raw| !raw.is_empty()) {
        return raw.to_owned();
    }
    let term = |requirement: &Value| {
        let key = requirement.get("key")?.as_str()?;
        let values = options::strings(requirement.get("values"));
        (requirement.get("operator")? == "In" && values.len() == 1).then(|| format!("{key}={}", values[0]))
    };
    let requirements = selector.get("requirements").and_then(Value::as_array);
    requirements.into_iter().flatten().filter_map(term).collect::<Vec<_>>().join(",")
}

/// Every rule that holds for the user in a namespace.
fn rules(call: &Call<'_>, review: &Object) -> Result<Value, ApiError> {
    let namespace = review.str_at(&["spec", "namespace"]).unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let mut rules = call.registry.authorizer.rules_for(call.user, namespace);
    if call.user.groups.iter().any(|group| group == crate::authz::MASTERS) {
        rules.extend(crate::authz::rules::Rule::everything());
    }
    let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let show =
        |rules: Vec<&crate::authz::rules::Rule>| rules.into_iter().map(|rule| rule.to_review()).collect::<Vec<_>>();
    let mut status = json!({"resourceRules": show(resources), "nonResourceRules": show(paths), "incomplete": false});
    if node::node_name(call.user).is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(status)
}
