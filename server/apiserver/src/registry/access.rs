//! May they: the question, and a refusal in Kubernetes' words.

use skiff_api::{request::Request, status::ApiError, user::UserInfo};

use crate::authz::{Attributes, Authorizer, Decision, Target};

/// Refuses a request that its user may not make.
pub(super) fn permit(authorizer: &dyn Authorizer, user: &UserInfo, request: &Request) -> Result<(), ApiError> {
    let target = Target::Resource {
        group: &request.resource.group,
        resource: &request.resource.resource,
        subresource: request.subresource.as_deref().unwrap_or_default(),
        namespace: request.authorization_namespace(),
        name: request.name.as_deref().unwrap_or_default(),
    };
    let fields = request.options.field_selector.as_deref().unwrap_or_default();
    match authorizer.authorize(Attributes { user, verb: request.verb.as_str(), target, fields }) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) => Err(refusal(user, request, &reason)),
    }
}

/// The refusal of a request on a resource.
fn refusal(user: &UserInfo, request: &Request, reason: &str) -> ApiError {
    let gvr = &request.resource;
    let resource = match &request.subresource {
        Some(subresource) => format!("{}/{subresource}", gvr.resource),
        None => gvr.resource.clone(),
    };
    let place = match request.authorization_namespace() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let (name, verb, group) = (&user.name, request.verb.as_str(), &gvr.group);
    let mut why = format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {place}");
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    ApiError::forbidden(group, &gvr.resource, request.name.as_deref().unwrap_or_default(), &why)
}
