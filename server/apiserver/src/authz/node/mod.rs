//! The Node authorizer: what `system:node:NAME` may do.
//!
//! A node reads and writes only what is its own: its Node, its Lease, its CSINode, the pods that are bound to it, and
//! the objects that those pods mention ([`graph`]). For everything else it has the rules of the ClusterRole
//! `system:node`, without a binding. What is named in a body and not in the URL is for the admission plugin
//! NodeRestriction. Source: `plugin/pkg/auth/authorizer/node` of Kubernetes 1.36.

pub mod graph;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use skiff_api::user::UserInfo;
use skiff_store::cache::Cacher;

use self::graph::{Graph, Vertex};
use super::{Attributes, Authorizer, Decision, Target, rbac::Rbac};

/// The group of the nodes.
pub const NODES_GROUP: &str = "system:nodes";

/// The prefix of a node's user name.
const NODE_USER: &str = "system:node:";

/// The ClusterRole whose rules the nodes have.
const NODE_ROLE: &str = "system:node";

/// The namespace of the nodes' Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Decides for nodes.
pub struct NodeAuthorizer {
    rbac: Arc<Rbac>,
    graph: Arc<Graph>,
}

/// The name of the node that a user is, if it is one.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER).filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == NODES_GROUP).then_some(name)
}

/// A request on a resource, taken apart.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    verb: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    fields: &'a str,
}

/// What decides on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is allowed.
    Allow,
    /// It is not, for this reason.
    Deny(&'static str),
    /// It is where the node is related to the named object.
    Related(Vertex),
    /// The node's role decides.
    ByRole,
}

use Way::{Allow, ByRole, Deny, Related};

/// Whether a verb is one of a list, in words that are separated by spaces.
fn is(verb: &str, verbs: &str) -> bool {
    verbs.split(' ').any(|one| one == verb)
}

/// What decides on a request of a node on a resource.
fn way(group: &str, resource: &str, node: &str, asked: &Asked<'_>) -> Way {
    match (group, resource) {
        ("", "secrets") => readable(Vertex::Secret, asked),
        ("", "configmaps") => readable(Vertex::ConfigMap, asked),
        ("", "persistentvolumeclaims") if asked.subresource == "status" => match asked.verb {
            "update" | "patch" => Related(Vertex::Claim),
            _ => Deny("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims") => gettable(Vertex::Claim, asked),
        ("", "persistentvolumes") => gettable(Vertex::Volume, asked),
        ("resource.k8s.io", "resourceclaims") => gettable(Vertex::ResourceClaim, asked),
        ("storage.k8s.io", "volumeattachments") => gettable(Vertex::VolumeAttachment, asked),
        ("", "serviceaccounts") => account(asked),
        ("coordination.k8s.io", "leases") => lease(node, asked),
        ("storage.k8s.io", "csinodes") => csi_node(node, asked),
        ("resource.k8s.io", "resourceslices") => slice(node, asked),
        ("", "nodes") => own_node(node, asked),
        ("", "pods") => pod(node, asked),
        _ => ByRole,
    }
}

fn readable(vertex: Vertex, asked: &Asked<'_>) -> Way {
    match asked {
        _ if !is(asked.verb, "get list watch") => Deny("can only read resources of this type"),
        _ if !asked.subresource.is_empty() => Deny("cannot read subresource"),
        _ if asked.namespace.is_empty() => Deny("can only read namespaced object of this type"),
        _ => Related(vertex),
    }
}

fn gettable(vertex: Vertex, asked: &Asked<'_>) -> Way {
    match asked {
        _ if asked.verb != "get" => Deny("can only get individual resources of this type"),
        _ if !asked.subresource.is_empty() => Deny("cannot get subresource"),
        _ => Related(vertex),
    }
}

fn account(asked: &Asked<'_>) -> Way {
    match (asked.verb, asked.subresource) {
        ("get", "") => Related(Vertex::ServiceAccount),
        ("create", "token") if !asked.name.is_empty() => Related(Vertex::ServiceAccount),
        ("create", "token") => Deny("can only create tokens for individual service accounts"),
        ("create", _) => Deny("can only create token subresource of serviceaccount"),
        _ => Deny("can only create tokens for individual service accounts"),
    }
}

fn lease(node: &str, asked: &Asked<'_>) -> Way {
    match asked {
        _ if !is(asked.verb, "get create update patch delete") => {
            Deny("can only get, create, update, patch, or delete a node lease")
        }
        _ if asked.namespace != LEASE_NAMESPACE => {
            Deny("can only access leases in the \"kube-node-lease\" system namespace")
        }
        _ if asked.verb != "create" && asked.name != node => {
            Deny("can only access node lease with the same name as the requesting node")
        }
        _ => Allow,
    }
}

fn csi_node(node: &str, asked: &Asked<'_>) -> Way {
    match asked {
        _ if !is(asked.verb, "get create update patch delete") => {
            Deny("can only get, create, update, patch, or delete a CSINode")
        }
        _ if !asked.subresource.is_empty() => Deny("cannot authorize CSINode subresources"),
        _ if asked.verb != "create" && asked.name != node => {
            Deny("can only access CSINode with the same name as the requesting node")
        }
        _ => Allow,
    }
}

fn slice(node: &str, asked: &Asked<'_>) -> Way {
    match asked.verb {
        _ if !asked.subresource.is_empty() => Deny("cannot authorize ResourceSlice subresources"),
        "create" => Allow,
        "get" | "update" | "patch" | "delete" => Related(Vertex::ResourceSlice),
        "watch" | "list" | "deletecollection" if selects(asked.fields, "spec.nodeName", node) => Allow,
        "watch" | "list" | "deletecollection" => {
            Deny("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => Deny(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, \
             deletecollection",
        ),
    }
}

fn own_node(node: &str, asked: &Asked<'_>) -> Way {
    match (asked.subresource, asked.verb) {
        // Which Node it is, NodeRestriction looks at.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Allow,
        ("", "get" | "list" | "watch") if asked.name == node => Allow,
        ("", "get" | "list" | "watch") => Deny("can only read its own Node"),
        _ => ByRole,
    }
}

fn pod(node: &str, asked: &Asked<'_>) -> Way {
    match (asked.subresource, asked.verb) {
        ("", "get") => Related(Vertex::Pod),
        ("", "list" | "watch") if selects(asked.fields, "spec.nodeName", node) => Allow,
        ("", "list" | "watch") if !asked.name.is_empty() => Related(Vertex::Pod),
        ("", "list" | "watch") => Deny("can only list/watch pods with spec.nodeName field selector"),
        // Which pod it is, NodeRestriction looks at.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Allow,
        _ => ByRole,
    }
}

/// Whether a field selector asks for one value of a field.
fn selects(fields: &str, field: &str, value: &str) -> bool {
    fields.split(',').any(|term| {
        let sides = term.split_once("==").or_else(|| term.split_once('='));
        sides.is_some_and(|(left, right)| left.trim() == field && right.trim() == value)
    })
}

impl NodeAuthorizer {
    /// An authorizer over the rules of an RBAC index and a graph.
    pub fn new(rbac: Arc<Rbac>, cacher: Arc<Cacher>) -> Self {
        Self { rbac, graph: Arc::new(Graph::new(cacher)) }
    }

    /// The graph, to be followed.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    fn by_role(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.rbac.index();
        let allowed = index.cluster_role(NODE_ROLE).is_some_and(|rules| rules.iter().any(|r| r.allows(attributes)));
        if allowed { Decision::Allow(String::new()) } else { Decision::Deny(String::new()) }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        let Some(node) = node_name(attributes.user) else { return Decision::Deny(String::new()) };
        let Target::Resource { group, resource, subresource, namespace, name } = attributes.target else {
            return self.by_role(&attributes);
        };
        let asked = Asked { verb: attributes.verb, subresource, namespace, name, fields: attributes.fields };
        match way(group, resource, node, &asked) {
            Allow => Decision::Allow(String::new()),
            Deny(why) => Decision::Deny(why.to_owned()),
            Related(_) if name.is_empty() => Decision::Deny("No Object name found".to_owned()),
            Related(vertex) if self.graph.relates(node, vertex, namespace, name) => Decision::Allow(String::new()),
            Related(_) => Decision::Deny(format!("no relationship found between node '{node}' and this object")),
            ByRole => self.by_role(&attributes),
        }
    }
}
