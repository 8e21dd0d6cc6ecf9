//! May they: the chain of authorizers that every request passes.
//!
//! - [`Authorizer`]: the question and the answer.
//! - [`rules`]: one RBAC rule and what it covers, pure.
//! - [`rbac`]: RBAC over the watch cache, as an index rebuilt when one of its four kinds changes.
//! - [`node`]: what a node may do beyond RBAC, only on what is its own.
//! - [`chain`]: the order in which they are asked.

pub mod chain;
pub mod node;
pub mod rbac;
pub mod rules;

use skiff_api::user::UserInfo;

pub use chain::Chain;

/// Members may do everything: the group of the administrators' certificates.
pub const MASTERS: &str = "system:masters";

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
    /// The field selector of a list, watch or deletion of many; empty for none.
    pub fields: &'a str,
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
