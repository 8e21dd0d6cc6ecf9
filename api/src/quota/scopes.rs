//! Which objects a quota covers.

use serde_json::Value;

use crate::object::Object;

/// What scopes ask of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    is_pod: bool,
    is_claim: bool,
    terminating: bool,
    best_effort: bool,
    cross_namespace: bool,
    priority_class: String,
    attributes_classes: Vec<String>,
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

/// Whether one of a pod's affinity terms reaches into other namespaces.
fn crosses_namespaces(pod: &Object) -> bool {
    let terms = |kind: &str, when: &str| {
        pod.at(&["spec", "affinity", kind, when]).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let reaches = |term: &Value| {
        let named = term.get("namespaces").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
        named || term.get("namespaceSelector").is_some_and(Value::is_object)
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        terms(kind, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(reaches)
            || terms(kind, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .filter_map(|weighted| weighted.get("podAffinityTerm"))
                .any(reaches)
    })
}

impl Traits {
    /// A pod's. Its class of service is the one that the server has given it.
    pub(super) fn of_pod(pod: &Object) -> Self {
        Self {
            is_pod: true,
            terminating: pod.int_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0),
            best_effort: pod.str_at(&["status", "qosClass"]) == Some("BestEffort"),
            cross_namespace: crosses_namespaces(pod),
            priority_class: pod.str_at(&["spec", "priorityClassName"]).unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    /// A claim's.
    pub(super) fn of_claim(claim: &Object) -> Self {
        let paths: [&[&str]; 3] = [
            &["spec", "volumeAttributesClassName"],
            &["status", "currentVolumeAttributesClassName"],
            &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
        ];
        let classes = paths.iter().filter_map(|path| claim.str_at(path)).filter(|class| !class.is_empty());
        Self { is_claim: true, attributes_classes: classes.map(str::to_owned).collect(), ..Self::default() }
    }
}

/// One condition of a quota on the objects that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Scope {
    /// The scopes of a ResourceQuota, from both fields that hold them.
    pub(super) fn read_all(quota: &Object) -> Vec<Self> {
        let plain = strings(quota.at(&["spec", "scopes"])).into_iter().map(|name| Self {
            name,
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let expressions = quota.at(&["spec", "scopeSelector", "matchExpressions"]).and_then(Value::as_array);
        let selected = expressions.into_iter().flatten().map(|expression| Self {
            name: text(expression, "scopeName"),
            operator: text(expression, "operator"),
            values: strings(expression.get("values")),
        });
        plain.chain(selected).collect()
    }

    /// Whether an object is within this scope. A scope of pods is one of no other object.
    pub(super) fn matches(&self, traits: &Traits) -> bool {
        let of_pods = |is: bool| traits.is_pod && is;
        match self.name.as_str() {
            "Terminating" => of_pods(traits.terminating),
            "NotTerminating" => of_pods(!traits.terminating),
            "BestEffort" => of_pods(traits.best_effort),
            "NotBestEffort" => of_pods(!traits.best_effort),
            "CrossNamespacePodAffinity" => of_pods(traits.cross_namespace),
            "PriorityClass" => of_pods(self.selects(&[&traits.priority_class])),
            "VolumeAttributesClass" => {
                let classes: Vec<&str> = traits.attributes_classes.iter().map(String::as_str).collect();
                traits.is_claim && self.selects(&classes)
            }
            _ => false,
        }
    }

    fn selects(&self, given: &[&str]) -> bool {
        let given: Vec<&&str> = given.iter().filter(|one| !one.is_empty()).collect();
        let listed = || given.iter().any(|one| self.values.iter().any(|value| value == **one));
        match self.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "DoesNotExist" => given.is_empty(),
            _ => !given.is_empty(),
        }
    }
}
