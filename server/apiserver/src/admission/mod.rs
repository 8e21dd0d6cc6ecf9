//! What a write is changed to or refused for, beyond its kind's own rules.
//!
//! [`PLUGINS`] is the ordered list, in Kubernetes' order. Every plugin may change the object of a write, then, once
//! the object has been validated, every plugin may refuse it. Each is a pure function of the write and of a
//! [`World`], the view of other objects that it is given.

mod certificates;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_priority;
mod pod_security;
pub(crate) mod pod_topology;
pub mod references;
mod runtime_class;
mod service_account;
mod storage_class;
mod taint_nodes;
#[cfg(test)]
mod test_world;
mod tolerations;
mod volumes;

use parking_lot::Mutex;
use skiff_api::{kinds::ResourceDef, object::Object, status::ApiError, user::UserInfo};

use crate::authz::Attributes;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of admission.Operation")]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// The other objects that a plugin may look at.
pub trait World: Send + Sync {
    /// One object, as last published. `group` is empty for the core group.
    fn find(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Object>;

    /// All objects of a resource, in one namespace where one is given.
    fn all(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Object>;

    /// Whether a user may do something else than what is being done.
    fn allows(&self, attributes: Attributes<'_>) -> bool;
}

/// A write under admission.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// Who writes.
    pub user: &'a UserInfo,
    /// What the write does.
    pub operation: Operation,
    /// On which resource.
    pub def: &'a ResourceDef,
    /// On which subresource; empty for none.
    pub subresource: &'a str,
    /// In which namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// On which object; may be empty for a create.
    pub name: &'a str,
    /// The object before the write.
    pub old: Option<&'a Object>,
    /// What the writer is told beside the answer.
    pub warnings: &'a Mutex<Vec<String>>,
}

impl Write<'_> {
    /// Whether the write does `operation` on the resource itself.
    fn is(&self, operation: Operation, group: &str, resource: &str) -> bool {
        self.operation == operation && self.subresource.is_empty() && self.is_on(group, resource)
    }

    /// Whether the write is on a resource or one of its subresources.
    pub(crate) fn is_on(&self, group: &str, resource: &str) -> bool {
        self.def.gvk.group == group && self.def.resource == resource
    }

    /// A refusal.
    pub(crate) fn forbidden(&self, why: impl AsRef<str>) -> ApiError {
        ApiError::forbidden(&self.def.gvk.group, &self.def.resource, self.name, why.as_ref())
    }
}

/// Changes the object of a create or update, or refuses it.
type Mutate = fn(&dyn World, &Write<'_>, &mut Object) -> Result<(), ApiError>;

/// Refuses a write, or lets it pass. The object is that of the old version for a delete.
type Validate = fn(&dyn World, &Write<'_>, &Object) -> Result<(), ApiError>;

/// One admission plugin.
pub struct Plugin {
    /// Its name in Kubernetes.
    pub name: &'static str,
    /// What it changes.
    mutate: Option<Mutate>,
    /// What it refuses.
    validate: Option<Validate>,
}

impl Plugin {
    /// A plugin that changes.
    const fn mutating(name: &'static str, mutate: Mutate) -> Self {
        Self { name, mutate: Some(mutate), validate: None }
    }

    /// A plugin that refuses.
    const fn validating(name: &'static str, validate: Validate) -> Self {
        Self { name, mutate: None, validate: Some(validate) }
    }
}

/// All plugins, in Kubernetes' order. Outside plugins (webhooks, policies) have their place after them. `ResourceQuota`
/// comes last of all, in `registry/quota.rs`: so nothing is charged for a write that is refused, and what is charged is
/// held until the write is done.
pub static PLUGINS: &[Plugin] = &[
    Plugin {
        name: "NamespaceLifecycle",
        mutate: Some(namespace_lifecycle::admit),
        validate: Some(namespace_lifecycle::validate),
    },
    Plugin { name: "LimitRanger", mutate: Some(limit_ranger::mutate), validate: Some(limit_ranger::validate) },
    Plugin::mutating("ServiceAccount", service_account::mutate),
    Plugin::validating("NodeRestriction", node_restriction::validate),
    Plugin::mutating("TaintNodesByCondition", taint_nodes::mutate),
    Plugin::validating("PodSecurity", pod_security::validate),
    Plugin { name: "Priority", mutate: Some(pod_priority::mutate), validate: Some(pod_priority::validate) },
    Plugin::mutating("DefaultTolerationSeconds", tolerations::mutate),
    Plugin::mutating("DefaultStorageClass", storage_class::mutate),
    Plugin::mutating("StorageObjectInUseProtection", volumes::protect),
    Plugin::validating("PersistentVolumeClaimResize", volumes::check_resize),
    Plugin::mutating("RuntimeClass", runtime_class::mutate),
    Plugin::validating("CertificateApproval", certificates::approval),
    Plugin::validating("CertificateSigning", certificates::signing),
    Plugin::validating("CertificateSubjectRestriction", certificates::restrict_subject),
    Plugin::mutating("DefaultIngressClass", ingress_class::mutate),
    Plugin::mutating("PodTopologyLabels", pod_topology::mutate),
];

/// Lets every plugin change the object of a write.
pub fn mutate(world: &dyn World, write: &Write<'_>, object: &mut Object) -> Result<(), ApiError> {
    PLUGINS.iter().filter_map(|plugin| plugin.mutate).try_for_each(|mutate| mutate(world, write, object))
}

/// Asks every plugin whether a write may be done.
pub fn validate(world: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    PLUGINS.iter().filter_map(|plugin| plugin.validate).try_for_each(|validate| validate(world, write, object))
}

/// The name of the class that an annotation marks as the default: of several the newest, then the first by name.
fn newest_default(classes: &[Object], annotation: &str) -> Option<String> {
    let is_default = |class: &&Object| class.str_at(&["metadata", "annotations", annotation]) == Some("true");
    let created = |class: &Object| class.str_at(&["metadata", "creationTimestamp"]).unwrap_or_default().to_owned();
    let newest = classes
        .iter()
        .filter(is_default)
        .max_by(|a, b| created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name())));
    newest.map(|class| class.name().to_owned())
}
