//! Roles and bindings compiled by subject.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;
use skiff_api::{object::Object, user::UserInfo};

use super::{super::rules::Rule, aggregate::aggregated_rules};
use crate::authz::{Attributes, Decision, Target};

/// The prefix of the user names of ServiceAccounts: `system:serviceaccount:NAMESPACE:NAME`.
const SERVICE_ACCOUNT: &str = "system:serviceaccount";

/// Every object of the four kinds.
#[derive(Default)]
#[allow(missing_docs, reason = "the names are those of the kinds")]
pub struct Kinds {
    pub cluster_roles: Vec<Object>,
    pub cluster_role_bindings: Vec<Object>,
    pub roles: Vec<Object>,
    pub role_bindings: Vec<Object>,
}

/// What one binding gives to one subject.
#[derive(Debug)]
struct Grant {
    /// In which namespace; `None` everywhere.
    namespace: Option<Arc<str>>,
    rules: Arc<[Rule]>,
    /// What `SubjectAccessReview` shows, e.g. `ClusterRoleBinding "a" of ClusterRole "b" to User "c"`.
    by: String,
}

/// Grants by the name of the user or group that has them.
#[derive(Debug, Default)]
pub struct Index {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
    /// The rules of the ClusterRoles by name, for those who are given one without a binding.
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    /// The rules of the Roles by namespace and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

/// The roles that bindings refer to.
struct Roles {
    cluster: HashMap<String, Arc<[Rule]>>,
    namespaced: HashMap<(String, String), Arc<[Rule]>>,
}

impl Roles {
    /// Parses the rules of all roles, those of aggregating ones put together.
    fn of(kinds: &Kinds) -> Self {
        let aggregated: BTreeMap<String, Vec<Value>> = aggregated_rules(&kinds.cluster_roles);
        let rules = |role: &Object| -> Arc<[Rule]> {
            match aggregated.get(role.name()) {
                Some(rules) => rules.iter().map(Rule::parse).collect(),
                None => Rule::parse_all(role.at(&["rules"])).into(),
            }
        };
        let own = |role: &Object| -> Arc<[Rule]> { Rule::parse_all(role.at(&["rules"])).into() };
        let namespaced = |role: &Object| ((role.namespace().to_owned(), role.name().to_owned()), own(role));
        Self {
            cluster: kinds.cluster_roles.iter().map(|role| (role.name().to_owned(), rules(role))).collect(),
            namespaced: kinds.roles.iter().map(namespaced).collect(),
        }
    }

    /// The rules that a binding's `roleRef` names.
    fn referred(&self, binding: &Object) -> Option<Arc<[Rule]>> {
        let name = binding.str_at(&["roleRef", "name"])?;
        match binding.str_at(&["roleRef", "kind"])? {
            "ClusterRole" => self.cluster.get(name).cloned(),
            "Role" => self.namespaced.get(&(binding.namespace().to_owned(), name.to_owned())).cloned(),
            _ => None,
        }
    }
}

impl Index {
    /// Compiles roles and bindings.
    pub fn build(kinds: &Kinds) -> Self {
        let roles = Roles::of(kinds);
        let mut index = Self::default();
        for binding in &kinds.cluster_role_bindings {
            index.add(&roles, binding, None);
        }
        for binding in &kinds.role_bindings {
            index.add(&roles, binding, Some(Arc::from(binding.namespace())));
        }
        index.cluster_roles = roles.cluster;
        index.roles = roles.namespaced;
        index
    }

    /// Adds the grants of one binding; one to a missing role grants nothing.
    fn add(&mut self, roles: &Roles, binding: &Object, namespace: Option<Arc<str>>) {
        let Some(rules) = roles.referred(binding) else { return };
        let subjects = binding.at(&["subjects"]).and_then(Value::as_array);
        for subject in subjects.into_iter().flatten() {
            let text = |name: &str| subject.get(name).and_then(Value::as_str).unwrap_or_default();
            let (kind, name, own_namespace) = (text("kind"), text("name"), text("namespace"));
            let grant = Grant {
                namespace: namespace.clone(),
                rules: rules.clone(),
                by: describe(binding, kind, name, own_namespace),
            };
            match kind {
                "User" => self.users.entry(name.to_owned()).or_default().push(grant),
                "Group" => self.groups.entry(name.to_owned()).or_default().push(grant),
                "ServiceAccount" => {
                    let user = format!("{SERVICE_ACCOUNT}:{own_namespace}:{name}");
                    self.users.entry(user).or_default().push(grant);
                }
                _ => {}
            }
        }
    }

    /// The grants of a user by name and by groups, those everywhere before those of a namespace.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let mine = move || {
            let by_group = user.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
            self.users.get(&user.name).into_iter().flatten().chain(by_group)
        };
        let here = move |grant: &&Grant| !namespace.is_empty() && grant.namespace.as_deref() == Some(namespace);
        mine().filter(|grant| grant.namespace.is_none()).chain(mine().filter(here))
    }

    /// The decision by roles and bindings alone.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let namespace = match attributes.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let allowing = self
            .grants(attributes.user, namespace)
            .find(|grant| grant.rules.iter().any(|rule| rule.allows(attributes)));
        match allowing {
            Some(grant) => Decision::Allow(format!("RBAC: allowed by {}", grant.by)),
            None => Decision::Deny(String::new()),
        }
    }

    /// Every rule that holds for a user in a namespace.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.grants(user, namespace).flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    /// The rules of the role that a binding in a namespace refers to.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            "Role" => self.roles.get(&(namespace.to_owned(), name.to_owned())),
            _ => None,
        }
    }

    /// The rules of a ClusterRole, whoever has it.
    pub fn cluster_role(&self, name: &str) -> Option<&Arc<[Rule]>> {
        self.cluster_roles.get(name)
    }
}

/// How a binding is named in the reason of an allowed request.
fn describe(binding: &Object, kind: &str, name: &str, namespace: &str) -> String {
    let own = match binding.namespace() {
        "" => format!("ClusterRoleBinding {:?}", binding.name()),
        ns => format!("RoleBinding {:?}", format!("{}/{ns}", binding.name())),
    };
    let subject = match kind {
        "ServiceAccount" => format!("{kind} {:?}", format!("{name}/{namespace}")),
        _ => format!("{kind} {name:?}"),
    };
    let text = |field: &str| binding.str_at(&["roleRef", field]).unwrap_or_default();
    format!("{own} of {} {:?} to {subject}", text("kind"), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(map) => Object(map),
            _ => Object::default(),
        }
    }

    fn cluster_role(name: &str, labels: Value, body: Value) -> Object {
        let mut role = object(body);
        role.set_at(&["metadata"], json!({"name": name, "labels": labels}));
        role
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Object {
        let mut metadata = json!({"name": name});
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        object(json!({"metadata": metadata, "roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject]}))
    }

    fn kinds() -> Kinds {
        let read = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
        let widgets = json!([{"verbs": ["get"], "apiGroups": ["x.io"], "resources": ["widgets"]}]);
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["get"], "nonResourceURLs": ["*"]}]);
        let select =
            |label: &str| json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}});
        Kinds {
            cluster_roles: vec![
                cluster_role("all", json!({}), json!({"rules": everything})),
                cluster_role("read", json!({"to-view": "true"}), json!({"rules": read})),
                cluster_role("widgets", json!({"to-view": "true"}), json!({"rules": widgets})),
                cluster_role("view", json!({"to-edit": "true"}), select("to-view")),
                cluster_role("edit", json!({}), select("to-edit")),
            ],
            cluster_role_bindings: vec![
                binding("", "ops", ("ClusterRole", "all"), json!({"kind": "Group", "name": "ops"})),
                binding("", "edits", ("ClusterRole", "edit"), json!({"kind": "User", "name": "eve"})),
                binding("", "lost", ("ClusterRole", "none"), json!({"kind": "User", "name": "eve"})),
            ],
            roles: vec![object(json!({"metadata": {"namespace": "a", "name": "r"}, "rules":
                [{"verbs": ["update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}]}))],
            role_bindings: vec![
                binding("a", "rb", ("Role", "r"), json!({"kind": "ServiceAccount", "name": "sa", "namespace": "b"})),
                binding("a", "views", ("ClusterRole", "view"), json!({"kind": "User", "name": "ann"})),
            ],
        }
    }

    fn ask(index: &Index, user: &str, groups: &[&str], verb: &str, target: Target<'_>) -> String {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        let user = UserInfo { name: user.to_owned(), groups, ..UserInfo::default() };
        match index.authorize(&Attributes { user: &user, verb, target, fields: "" }) {
            Decision::Allow(reason) => reason,
            Decision::Deny(reason) => format!("no{reason}"),
        }
    }

    #[test]
    fn decisions() {
        let index = Index::build(&kinds());
        let pods = |namespace| Target::Resource { group: "", resource: "pods", subresource: "", namespace, name: "" };
        let secret =
            |namespace, name| Target::Resource { group: "", resource: "secrets", subresource: "", namespace, name };
        let widgets = Target::Resource { group: "x.io", resource: "widgets", subresource: "", namespace: "", name: "" };
        let sa = "system:serviceaccount:b:sa";
        let by_all = "RBAC: allowed by ClusterRoleBinding \"ops\" of ClusterRole \"all\" to Group \"ops\"";
        let by_edit = "RBAC: allowed by ClusterRoleBinding \"edits\" of ClusterRole \"edit\" to User \"eve\"";
        let by_view = "RBAC: allowed by RoleBinding \"views/a\" of ClusterRole \"view\" to User \"ann\"";
        let by_role = "RBAC: allowed by RoleBinding \"rb/a\" of Role \"r\" to ServiceAccount \"sa/b\"";
        let cases: [(&str, &[&str], &str, Target<'_>, &str); 11] = [
            ("x", &["ops"], "delete", pods("n"), by_all),
            ("x", &["ops"], "get", Target::Path("/metrics"), by_all),
            ("x", &["ops"], "post", Target::Path("/metrics"), "no"),
            ("x", &[], "get", pods("n"), "no"),
            ("eve", &[], "get", pods("n"), by_edit),
            ("eve", &[], "get", widgets, by_edit),
            ("ann", &[], "list", pods("a"), by_view),
            ("ann", &[], "list", pods(""), "no"),
            (sa, &[], "update", secret("a", "s"), by_role),
            (sa, &[], "update", secret("a", "t"), "no"),
            (sa, &[], "update", secret("b", "s"), "no"),
        ];
        for (user, groups, verb, target, expected) in cases {
            assert_eq!(ask(&index, user, groups, verb, target), expected, "{user} {verb} {target:?}");
        }
    }
}
