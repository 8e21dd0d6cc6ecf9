//! RBAC decisions as a table: every subject of the bootstrap policy and of what skiff adds to it, every verb, every
//! resource and path, held against a second reading of the policy that knows nothing of indices.

use serde_json::Value;
use skiff_api::{kinds::Kinds, user::UserInfo};
use skiff_apiserver::authz::{Attributes, Authorizer, Chain, Decision, Target};

use crate::cluster::{Cluster, user};

const POLICY: &str = include_str!("../../../../api/data/rbac.json");

const VERBS: [&str; 13] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
    "approve",
    "sign",
];

const PATHS: [&str; 9] = [
    "/healthz",
    "/livez",
    "/version",
    "/version/",
    "/api",
    "/apis/apps/v1",
    "/metrics",
    "/openid/v1/jwks",
    "/.well-known/openid-configuration",
];

/// What is asked: group, resource with its subresource, name; or a path.
struct Thing<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    path: Option<&'a str>,
}

fn list<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    value[field].as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Whether one rule of the policy, read naively, allows a verb on a thing.
fn rule_allows(rule: &Value, verb: &str, thing: &Thing<'_>) -> bool {
    let has = |field: &str, word: &str| list(rule, field).iter().any(|one| *one == "*" || *one == word);
    if !has("verbs", verb) {
        return false;
    }
    if let Some(path) = thing.path {
        return list(rule, "nonResourceURLs").iter().any(|url| match url.strip_suffix('*') {
            Some(front) => path.starts_with(front),
            None => *url == path,
        });
    }
    let whole = if thing.subresource.is_empty() {
        thing.resource.to_owned()
    } else {
        format!("{}/{}", thing.resource, thing.subresource)
    };
    let any = format!("*/{}", thing.subresource);
    let resources = list(rule, "resources");
    let names = list(rule, "resourceNames");
    has("apiGroups", thing.group)
        && resources.iter().any(|one| *one == "*" || *one == whole || (!thing.subresource.is_empty() && *one == any))
        && (names.is_empty() || names.contains(&thing.name))
}

/// The policy, read naively.
struct Policy(Value);

impl Policy {
    /// What every Kubernetes has, and what this cluster has of its own besides.
    async fn of(cluster: &Cluster) -> Self {
        let mut policy: Value = serde_json::from_str(POLICY).unwrap();
        let place = "/apis/rbac.authorization.k8s.io/v1";
        for kind in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
            let scope = if kind.starts_with("cluster") { "" } else { "/namespaces/kube-system" };
            let (_, listed) = cluster.ask(&format!("GET {place}{scope}/{kind}")).await;
            for name in list(&listed, "names").iter().filter(|name| name.starts_with("skiff:")) {
                let (status, own) = cluster.ask(&format!("GET {place}{scope}/{kind}/{name}")).await;
                assert_eq!(status, 200, "{own}");
                policy[kind].as_array_mut().unwrap().push(own);
            }
        }
        Self(policy)
    }

    fn all(&self, kind: &str) -> &[Value] {
        self.0[kind].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn rules(&self, kind: &str, namespace: &str, name: &str) -> Vec<&Value> {
        let lists = if kind == "Role" { "roles" } else { "clusterroles" };
        let same = |role: &&Value| {
            role["metadata"]["name"] == name && (kind != "Role" || role["metadata"]["namespace"] == namespace)
        };
        let Some(role) = self.all(lists).iter().find(same) else { return Vec::new() };
        let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array() else {
            return role["rules"].as_array().into_iter().flatten().collect();
        };
        let matches = |other: &&Value| {
            selectors.iter().any(|selector| {
                let labels = selector["matchLabels"].as_object().into_iter().flatten();
                labels.into_iter().all(|(key, value)| other["metadata"]["labels"].get(key) == Some(value))
            })
        };
        let others = self.all("clusterroles").iter().filter(matches);
        others
            .flat_map(|other| self.rules("ClusterRole", "", other["metadata"]["name"].as_str().unwrap_or_default()))
            .collect()
    }

    fn is_of(subject: &Value, user: &UserInfo) -> bool {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some("User") => user.name == name,
            _ => {
                let namespace = subject["namespace"].as_str().unwrap_or_default();
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
        }
    }

    /// Every rule that a user has, with the namespace in which it holds.
    fn rules_of(&self, user: &UserInfo) -> Vec<(Option<&Value>, &Value)> {
        let mut all = Vec::new();
        for kind in ["clusterrolebindings", "rolebindings"] {
            for binding in self.all(kind) {
                let subjects = binding["subjects"].as_array().into_iter().flatten();
                if !subjects.into_iter().any(|subject| Self::is_of(subject, user)) {
                    continue;
                }
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let namespace = text(&binding["metadata"]["namespace"]);
                let (kind_of_role, name) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
                let place = (kind == "rolebindings").then(|| &binding["metadata"]["namespace"]);
                all.extend(self.rules(&kind_of_role, &namespace, &name).into_iter().map(|rule| (place, rule)));
            }
        }
        all
    }
}

/// Whether one of a user's rules, read naively, allows a verb on a thing.
fn allows(rules: &[(Option<&Value>, &Value)], verb: &str, thing: &Thing<'_>) -> bool {
    rules.iter().any(|(place, rule)| {
        let holds_here = place.is_none_or(|place| thing.path.is_none() && place == thing.namespace);
        holds_here && rule_allows(rule, verb, thing)
    })
}

/// Every subject that the policy names, as a user, and some that it does not.
fn subjects(policy: &Policy) -> Vec<UserInfo> {
    let mut all = vec![user("nobody", &[]), user("someone", &["system:authenticated"])];
    for binding in ["clusterrolebindings", "rolebindings"].iter().flat_map(|kind| policy.all(kind)) {
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let name = subject["name"].as_str().unwrap_or_default();
            let one = match subject["kind"].as_str() {
                // Masters are not asked for their roles.
                Some("Group") if name == "system:masters" => continue,
                Some("Group") => user("member", &[name]),
                Some("User") => user(name, &["system:authenticated"]),
                _ => {
                    let namespace = subject["namespace"].as_str().unwrap_or_default();
                    let groups = ["system:serviceaccounts", "system:authenticated"];
                    user(&format!("system:serviceaccount:{namespace}:{name}"), &groups)
                }
            };
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

fn decide(chain: &Chain, user: &UserInfo, verb: &str, thing: &Thing<'_>) -> bool {
    let target = match thing.path {
        Some(path) => Target::Path(path),
        None => Target::Resource {
            group: thing.group,
            resource: thing.resource,
            subresource: thing.subresource,
            namespace: thing.namespace,
            name: thing.name,
        },
    };
    matches!(chain.authorize(Attributes { user, verb, target, fields: "" }), Decision::Allow(_))
}

#[tokio::test]
async fn every_subject_verb_and_resource_of_the_policy() {
    let cluster = Cluster::start().await;
    let chain = cluster.registry.authorizer();
    let policy = Policy::of(&cluster).await;
    let (mut asked, mut allowed) = (0, 0);
    for user in subjects(&policy) {
        let rules = policy.rules_of(&user);
        let mut check = |verb: &str, thing: &Thing<'_>| {
            let expected = allows(&rules, verb, thing);
            let got = decide(&chain, &user, verb, thing);
            let Thing { group, resource, subresource, namespace, name, path } = thing;
            assert_eq!(got, expected, "{user:?} {verb} {group}/{resource}/{subresource} {namespace}/{name} {path:?}");
            asked += 1;
            allowed += usize::from(got);
        };
        for def in Kinds::builtin().iter() {
            let subs = def.subresources.iter().map(|sub| sub.name.as_str());
            for subresource in std::iter::once("").chain(subs) {
                let (group, resource) = (def.gvk.group.as_str(), def.resource.as_str());
                for (namespace, name) in [("", ""), ("kube-system", "extension-apiserver-authentication")] {
                    let thing = Thing { group, resource, subresource, namespace, name, path: None };
                    VERBS.iter().for_each(|verb| check(verb, &thing));
                }
            }
        }
        for path in PATHS {
            let thing = Thing { group: "", resource: "", subresource: "", namespace: "", name: "", path: Some(path) };
            check("get", &thing);
            check("post", &thing);
        }
    }
    assert!(asked > 100_000, "only {asked} questions were asked");
    assert!(allowed > 1_000 && allowed < asked / 4, "{allowed} of {asked} were allowed");
}
