//! The Node authorizer: what `system:node:NAME` may do.
//!
//! A node has the rules of the ClusterRole `system:node`, without a binding, and writes only what is its own: its
//! Node, its Lease, its CSINode, and the status of pods that are bound to it. Which Secrets, ConfigMaps and volumes
//! it may read is a matter of the graph from pods to what they mention; the place for that is
//! [`NodeAuthorizer::may_read`].

use std::sync::Arc;

use skiff_api::{kinds::StorageKey, user::UserInfo};
use skiff_store::cache::Cacher;

use super::{Attributes, Authorizer, Decision, Target, rbac::Rbac};

/// The group of the nodes.
pub const NODES_GROUP: &str = "system:nodes";

/// The prefix of a node's user name.
const NODE_USER: &str = "system:node:";

/// The ClusterRole whose rules the nodes have.
const NODE_ROLE: &str = "system:node";

/// The namespace of the nodes' Leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Decides for nodes.
pub struct NodeAuthorizer {
    rbac: Arc<Rbac>,
    cacher: Arc<Cacher>,
    pods: StorageKey,
}

/// The name of the node that a user is, if it is one.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER)?;
    user.groups.iter().any(|group| group == NODES_GROUP).then_some(name)
}

/// Whether a verb changes something.
fn writes(verb: &str) -> bool {
    !matches!(verb, "get" | "list" | "watch")
}

/// What of a node's own a write is about.
#[derive(Debug, PartialEq, Eq)]
enum Own<'a> {
    /// Not limited to its own here.
    Free,
    /// An object that bears the node's name. A create does not name it yet; admission sees to that.
    Named(&'a str),
    /// A pod that must be bound to the node.
    Pod(&'a str, &'a str),
    /// Not a node's at all.
    Never,
}

/// What of a node's own a request is about.
fn own<'a>(verb: &str, target: &Target<'a>) -> Own<'a> {
    let Target::Resource { group, resource, subresource, namespace, name } = *target else { return Own::Free };
    if !writes(verb) {
        return Own::Free;
    }
    match (group, resource, subresource) {
        ("", "nodes", _) | ("storage.k8s.io", "csinodes", _) if verb == "create" => Own::Free,
        ("", "nodes", _) | ("storage.k8s.io", "csinodes", _) => Own::Named(name),
        ("coordination.k8s.io", "leases", _) if namespace != LEASE_NAMESPACE => Own::Never,
        ("coordination.k8s.io", "leases", _) if verb == "create" => Own::Free,
        ("coordination.k8s.io", "leases", _) => Own::Named(name),
        ("", "pods", "") if verb == "create" => Own::Free,
        ("", "pods", _) => Own::Pod(namespace, name),
        _ => Own::Free,
    }
}

impl NodeAuthorizer {
    /// An authorizer over the rules of an RBAC index and the pods of a cache.
    pub fn new(rbac: Arc<Rbac>, cacher: Arc<Cacher>) -> Self {
        Self { rbac, cacher, pods: StorageKey { group: "core".to_owned(), resource: "pods".to_owned() } }
    }

    /// Whether a pod is bound to a node.
    fn is_bound(&self, namespace: &str, name: &str, node: &str) -> bool {
        let Some(entry) = self.cacher.peek(&self.pods, namespace, name) else { return false };
        entry.object().is_ok_and(|pod| pod.str_at(&["spec", "nodeName"]) == Some(node))
    }

    /// Whether a node may read an object. The graph from pods to Secrets, ConfigMaps and volumes belongs here; until
    /// it stands, a node may read what its role lets it read.
    fn may_read(&self, _node: &str, _target: &Target<'_>) -> bool {
        true
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        let Some(node) = node_name(attributes.user) else { return Decision::Deny(String::new()) };
        let index = self.rbac.index();
        let by_role = index.cluster_role(NODE_ROLE).is_some_and(|rules| rules.iter().any(|r| r.allows(&attributes)));
        if !by_role {
            return Decision::Deny(String::new());
        }
        let allowed = match own(attributes.verb, &attributes.target) {
            Own::Free => writes(attributes.verb) || self.may_read(node, &attributes.target),
            Own::Named(name) => name == node,
            Own::Pod(namespace, name) => self.is_bound(namespace, name, node),
            Own::Never => false,
        };
        if allowed {
            return Decision::Allow(String::new());
        }
        Decision::Deny(format!("node {node:?} can only change what is its own"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_of_its_own_a_write_is_about() {
        let resource = |group, resource, subresource, namespace, name| Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        };
        let lease = "coordination.k8s.io";
        let cases = [
            ("get", resource("", "nodes", "", "", "b"), Own::Free),
            ("patch", resource("", "nodes", "status", "", "b"), Own::Named("b")),
            ("create", resource("", "nodes", "", "", ""), Own::Free),
            ("update", resource(lease, "leases", "", "kube-node-lease", "b"), Own::Named("b")),
            ("update", resource(lease, "leases", "", "default", "b"), Own::Never),
            ("patch", resource("", "pods", "status", "d", "p"), Own::Pod("d", "p")),
            ("delete", resource("", "pods", "", "d", "p"), Own::Pod("d", "p")),
            ("create", resource("", "events", "", "d", ""), Own::Free),
        ];
        for (verb, target, expected) in cases {
            assert_eq!(own(verb, &target), expected, "{verb} {target:?}");
        }
    }
}
