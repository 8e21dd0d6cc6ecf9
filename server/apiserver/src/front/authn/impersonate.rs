//! Acting as somebody else (`kubectl --as`): each user, group, uid and extra that is asked for needs the verb
//! `impersonate` on it.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderMap;
use skiff_api::{status::ApiError, user::UserInfo};

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, with_group};
use crate::{
    authz::{Attributes, Authorizer, Target},
    front::{access, limits::MAX_IMPERSONATED_VALUES},
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The user that the headers ask for, if any.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().push(value.to_str().unwrap_or_default().to_owned());
    }
    let user = UserInfo { name: first(USER), uid: first(UID), groups: values(GROUP), extra };
    if user == UserInfo::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        return Err(ApiError::internal(format!("requested {user:?} without impersonating a user")));
    }
    let count = user.groups.len() + user.extra.values().map(Vec::len).sum::<usize>();
    if count > MAX_IMPERSONATED_VALUES {
        return Err(ApiError::bad_request("too many impersonation headers"));
    }
    Ok(Some(user))
}

/// Takes the impersonation headers off a request; the user that it is then made as.
pub fn impersonate(
    user: Arc<UserInfo>,
    headers: &mut HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Arc<UserInfo>, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let Some(other) = wanted(headers)? else { return Ok(user) };
    may_be_name(&user, &other.name, authorizer)?;
    for group in &other.groups {
        may(&user, authorizer, target("", "groups", "", "", group))?;
    }
    if !other.uid.is_empty() {
        may(&user, authorizer, target("authentication.k8s.io", "uids", "", "", &other.uid))?;
    }
    for (key, values) in &other.extra {
        for value in values {
            may(&user, authorizer, target("authentication.k8s.io", "userextras", key, "", value))?;
        }
    }
    let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Arc::new(complete(other)))
}

fn may_be_name(user: &UserInfo, name: &str, authorizer: &dyn Authorizer) -> Result<(), ApiError> {
    match name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => may(user, authorizer, target("", "serviceaccounts", "", namespace, account)),
        None => may(user, authorizer, target("", "users", "", "", name)),
    }
}

fn target<'a>(
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Target<'a> {
    Target::Resource { group, resource, subresource, namespace, name }
}

fn may(user: &UserInfo, authorizer: &dyn Authorizer, target: Target<'_>) -> Result<(), ApiError> {
    access::check(authorizer, Attributes { user, verb: "impersonate", target, fields: "" })
}

/// Adds the groups that the user would have had, had it authenticated itself.
fn complete(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) =
            user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'))
    {
        user.groups.push("system:serviceaccounts".to_owned());
        user.groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let group = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    with_group(user, group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::authz::Decision;

    /// Lets everybody be "bob" and a member of "dev".
    struct OnlyBob;
    impl Authorizer for OnlyBob {
        fn authorize(&self, attributes: Attributes<'_>) -> Decision {
            match attributes.target {
                Target::Resource { name: "bob" | "dev" | "robot", .. } => Decision::Allow(String::new()),
                _ => Decision::Deny(String::new()),
            }
        }
    }

    fn run(pairs: &[(&'static str, &str)]) -> Result<UserInfo, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let user = Arc::new(UserInfo { name: "alice".to_owned(), ..UserInfo::default() });
        impersonate(user, &mut headers, &OnlyBob).map(|user| (*user).clone()).map_err(|error| error.message)
    }

    #[test]
    fn everything_asked_for_must_be_allowed() {
        let bob = run(&[("impersonate-user", "bob"), ("impersonate-group", "dev")]).unwrap();
        assert_eq!((bob.name.as_str(), bob.groups), ("bob", vec!["dev".to_owned(), AUTHENTICATED.to_owned()]));
        assert_eq!(
            run(&[("impersonate-user", "bob"), ("impersonate-group", "ops")]).unwrap_err(),
            r#"groups "ops" is forbidden: User "alice" cannot impersonate resource "groups" in API group "" at the cluster scope"#
        );
        assert!(run(&[("impersonate-group", "dev")]).unwrap_err().contains("without impersonating a user"));
        assert!(run(&[("impersonate-user", "bob"), ("impersonate-extra-scopes", "all")]).is_err());
        assert_eq!(run(&[]).unwrap().name, "alice");
    }

    #[test]
    fn a_service_account_gets_its_groups() {
        let user = run(&[("impersonate-user", "system:serviceaccount:ci:robot")]).unwrap();
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ci", AUTHENTICATED]);
    }
}
