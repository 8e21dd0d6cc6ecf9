//! One RBAC rule: what it covers, and how it is read from a role.
//!
//! Source: the API documentation of `rbac.authorization.k8s.io/v1` `PolicyRule`.

use serde_json::{Value, json};

use super::{Attributes, Target};

/// Stands for every value of a rule's list.
const ALL: &str = "*";

/// One `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs.
    pub verbs: Vec<String>,
    /// API groups of the resources.
    pub api_groups: Vec<String>,
    /// Resources, `resource/subresource` for subresources.
    pub resources: Vec<String>,
    /// Object names; empty for all.
    pub resource_names: Vec<String>,
    /// Paths that are no resources, with `*` as a last segment.
    pub non_resource_urls: Vec<String>,
}

/// The strings of a list in a rule.
fn strings(rule: &Value, name: &str) -> Vec<String> {
    let list = rule.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Whether a list names a word, or all words.
fn names(list: &[String], word: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == word)
}

/// Whether a list of resources covers one: `pods`, `pods/log`, `*`, or `*/log`.
fn covers_resource(list: &[String], resource: &str, subresource: &str) -> bool {
    list.iter().any(|entry| match entry.split_once('/') {
        None => entry == ALL || (subresource.is_empty() && entry == resource),
        Some((base, sub)) => !subresource.is_empty() && sub == subresource && (base == ALL || base == resource),
    })
}

/// Whether a path is one of a rule's paths.
fn covers_path(list: &[String], path: &str) -> bool {
    list.iter().any(|entry| match entry.strip_suffix(ALL) {
        Some(front) => path.starts_with(front),
        None => entry == path,
    })
}

impl Rule {
    /// Reads a `PolicyRule`.
    pub fn parse(rule: &Value) -> Self {
        Self {
            verbs: strings(rule, "verbs"),
            api_groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            resource_names: strings(rule, "resourceNames"),
            non_resource_urls: strings(rule, "nonResourceURLs"),
        }
    }

    /// Reads the `rules` of a role.
    pub fn parse_all(rules: Option<&Value>) -> Vec<Self> {
        rules.and_then(Value::as_array).into_iter().flatten().map(Self::parse).collect()
    }

    /// The rules of those who may do everything.
    pub fn everything() -> [Self; 2] {
        let all = || vec![ALL.to_owned()];
        [
            Self { verbs: all(), api_groups: all(), resources: all(), ..Self::default() },
            Self { verbs: all(), non_resource_urls: all(), ..Self::default() },
        ]
    }

    /// Whether the rule allows a request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !names(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.target {
            Target::Path(path) => covers_path(&self.non_resource_urls, path),
            Target::Resource { group, resource, subresource, name, .. } => {
                names(&self.api_groups, group)
                    && covers_resource(&self.resources, resource, subresource)
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == name))
            }
        }
    }

    /// The rule as `SelfSubjectRulesReview` shows it.
    pub fn to_review(&self) -> Value {
        if self.non_resource_urls.is_empty() {
            let mut rule = json!({"verbs": self.verbs, "apiGroups": self.api_groups, "resources": self.resources});
            if !self.resource_names.is_empty() {
                rule["resourceNames"] = json!(self.resource_names);
            }
            return rule;
        }
        json!({"verbs": self.verbs, "nonResourceURLs": self.non_resource_urls})
    }
}

#[cfg(test)]
mod tests {
    use skiff_api::user::UserInfo;

    use super::*;

    fn rule(value: &Value) -> Rule {
        Rule::parse(value)
    }

    fn allows(rule: &Rule, verb: &str, target: Target<'_>) -> bool {
        rule.allows(&Attributes { user: &UserInfo::default(), verb, target, fields: "" })
    }

    fn resource<'a>(group: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Target<'a> {
        Target::Resource { group, resource, subresource, namespace: "", name }
    }

    #[test]
    fn what_a_resource_rule_covers() {
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale", "pods/log"]});
        let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        let cases = [
            (&pods, "get", resource("", "pods", "", "x"), true),
            (&pods, "list", resource("", "pods", "", ""), false),
            (&pods, "get", resource("apps", "pods", "", ""), false),
            (&pods, "get", resource("", "pods", "log", ""), true),
            (&pods, "get", resource("", "pods", "exec", ""), false),
            (&pods, "get", resource("", "replicationcontrollers", "scale", ""), true),
            (&named, "update", resource("apps", "deployments", "status", "a"), true),
            (&named, "update", resource("apps", "deployments", "status", "b"), false),
            (&named, "create", resource("apps", "deployments", "", ""), false),
        ];
        for (value, verb, target, expected) in cases {
            assert_eq!(allows(&rule(value), verb, target), expected, "{value} {verb} {target:?}");
        }
    }

    #[test]
    fn what_a_path_rule_covers() {
        let paths = rule(&json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}));
        for (path, expected) in [("/healthz", true), ("/healthz/etcd", false), ("/apis/apps", true), ("/api", false)] {
            assert_eq!(allows(&paths, "get", Target::Path(path)), expected, "{path}");
        }
        assert!(!allows(&paths, "post", Target::Path("/healthz")));
        assert!(!allows(&paths, "get", resource("", "pods", "", "")));
    }
}
