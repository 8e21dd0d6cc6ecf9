//! What a write is changed to or refused for, beyond its kind's own rules.
//!
//! [`PLUGINS`] is the ordered list, in Kubernetes' order. Every plugin may change the object of a write, then, once
//! the object has been validated, every plugin may refuse it. Each is a pure function of the write and of a
//! [`World`], the view of other objects that it is given.

mod limits;
mod namespace_lifecycle;
mod node_restriction;
mod pod_priority;
mod runtime_class;
mod service_account;
mod storage_class;
mod taint_nodes;
#[cfg(test)]
mod test_world;
mod tolerations;

use skiff_api::{kinds::ResourceDef, object::Object, status::ApiError, user::UserInfo};

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
}

impl Write<'_> {
    /// Whether the write does `operation` on the resource itself.
    fn is(&self, operation: Operation, group: &str, resource: &str) -> bool {
        self.operation == operation && self.subresource.is_empty() && self.is_on(group, resource)
    }

    /// Whether the write is on a resource or one of its subresources.
    fn is_on(&self, group: &str, resource: &str) -> bool {
        self.def.gvk.group == group && self.def.resource == resource
    }

    /// A refusal.
    fn forbidden(&self, why: impl AsRef<str>) -> ApiError {
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

/// All plugins, in Kubernetes' order. Outside plugins (webhooks, policies) have their place before `ResourceQuota`,
/// which comes last so that nothing is charged for a write that is refused.
pub static PLUGINS: &[Plugin] = &[
    Plugin {
        name: "NamespaceLifecycle",
        mutate: Some(namespace_lifecycle::admit),
        validate: Some(namespace_lifecycle::validate),
    },
    Plugin::mutating("LimitRanger", limits::apply_limit_ranges),
    Plugin::mutating("ServiceAccount", service_account::mutate),
    Plugin::validating("NodeRestriction", node_restriction::validate),
    Plugin::mutating("TaintNodesByCondition", taint_nodes::mutate),
    Plugin::validating("PodSecurity", limits::check_pod_security),
    Plugin { name: "Priority", mutate: Some(pod_priority::mutate), validate: Some(pod_priority::validate) },
    Plugin::mutating("DefaultTolerationSeconds", tolerations::mutate),
    Plugin::mutating("DefaultStorageClass", storage_class::mutate),
    Plugin::mutating("RuntimeClass", runtime_class::mutate),
    Plugin::validating("ResourceQuota", limits::check_quota),
];

/// Lets every plugin change the object of a write.
pub fn mutate(world: &dyn World, write: &Write<'_>, object: &mut Object) -> Result<(), ApiError> {
    PLUGINS.iter().filter_map(|plugin| plugin.mutate).try_for_each(|mutate| mutate(world, write, object))
}

/// Asks every plugin whether a write may be done.
pub fn validate(world: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    PLUGINS.iter().filter_map(|plugin| plugin.validate).try_for_each(|validate| validate(world, write, object))
}
