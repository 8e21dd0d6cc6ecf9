//! Authorization of what does not go through the registry: paths, connect subresources, impersonation.

use skiff_api::{
    request::Request,
    status::{ApiError, Reason},
    user::UserInfo,
};

use crate::authz::{Attributes, Authorizer, Decision, Target};

/// Allows or answers 403, worded as Kubernetes does.
pub fn check(authorizer: &dyn Authorizer, attributes: Attributes<'_>) -> Result<(), ApiError> {
    match authorizer.authorize(attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) => Err(forbidden(attributes, &reason)),
    }
}

fn forbidden(attributes: Attributes<'_>, reason: &str) -> ApiError {
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let (user, verb) = (&attributes.user.name, attributes.verb);
    match attributes.target {
        Target::Path(path) => {
            let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}{why}");
            ApiError { details: serde_json::json!({}), ..ApiError::new(Reason::Forbidden, message) }
        }
        Target::Resource { group, resource, subresource, namespace, name } => {
            let sub = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
            let place = match namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let sentence =
                format!("User {user:?} cannot {verb} resource \"{resource}{sub}\" in API group {group:?} {place}{why}");
            ApiError::forbidden(group, resource, name, &sentence)
        }
    }
}

/// The attributes of a request on a resource, with a verb of the caller's choice.
pub fn attributes<'a>(user: &'a UserInfo, verb: &'a str, request: &'a Request) -> Attributes<'a> {
    let target = Target::Resource {
        group: &request.resource.group,
        resource: &request.resource.resource,
        subresource: request.subresource.as_deref().unwrap_or_default(),
        namespace: request.authorization_namespace(),
        name: request.name.as_deref().unwrap_or_default(),
    };
    Attributes { user, verb, target, fields: request.options.field_selector.as_deref().unwrap_or_default() }
}
