//! May they: RBAC and the Node authorizer.

use skiff_api::user::UserInfo;

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A resource.
    Resource {
        /// API group, empty for core.
        group: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource, empty for none.
        subresource: &'a str,
        /// Namespace, empty for cluster-scoped and all namespaces.
        namespace: &'a str,
        /// Object name, empty for none.
        name: &'a str,
    },
    /// A path that is no resource, e.g. `/healthz`.
    Path(&'a str),
}

/// Who wants to do what.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// The verb as RBAC names it.
    pub verb: &'a str,
    /// On what.
    pub target: Target<'a>,
}

/// The answer, with the reason that SubjectAccessReview shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow(String),
    /// They may not.
    Deny(String),
}

/// Decides what they may do. Must not block: it is on the path of every request.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision.
    fn authorize(&self, attributes: Attributes<'_>) -> Decision;
}
