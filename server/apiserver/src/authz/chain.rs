//! The order in which authorizers are asked: the first that allows decides.

use std::sync::Arc;

use skiff_api::user::UserInfo;
use skiff_store::cache::Cacher;
use tokio_util::sync::CancellationToken;

use super::{Attributes, Authorizer, Decision, node::NodeAuthorizer, rbac::Rbac, rules::Rule};

/// Node authorizer, then RBAC.
pub struct Chain {
    node: NodeAuthorizer,
    rbac: Arc<Rbac>,
}

impl Chain {
    /// The chain over a cache.
    pub fn new(cacher: &Arc<Cacher>) -> Self {
        let rbac = Arc::new(Rbac::new(cacher.clone()));
        Self { node: NodeAuthorizer::new(rbac.clone(), cacher.clone()), rbac }
    }

    /// Tells that a role or binding changed.
    pub fn changed(&self) {
        self.rbac.changed();
    }

    /// Every rule that RBAC gives a user in a namespace.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.rbac.rules_for(user, namespace)
    }

    /// The rules of the role that a binding in a namespace refers to.
    pub fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.rbac.index().role(kind, namespace, name).cloned()
    }

    /// Follows the roles and bindings that other servers write, and what nodes are related to, until cancelled.
    pub async fn follow(&self, cancel: CancellationToken) {
        let graph = self.node.graph();
        tokio::join!(self.rbac.clone().follow(cancel.clone()), graph.follow(cancel));
    }
}

impl Authorizer for Chain {
    fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        let by_node = self.node.authorize(attributes);
        match by_node {
            Decision::Allow(_) => by_node,
            Decision::Deny(why) => match self.rbac.authorize(attributes) {
                Decision::Deny(_) => Decision::Deny(why),
                allowed => allowed,
            },
        }
    }
}
