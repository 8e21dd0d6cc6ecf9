//! Resizing a container where it is: whether it is due, and whether the container must be started anew for it; pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::model::ContainerMemory;

/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

fn value<'a>(list: &'a Option<BTreeMap<String, Quantity>>, name: &str) -> Option<&'a str> {
    list.as_ref().and_then(|list| list.get(name)).map(|quantity| quantity.0.as_str())
}

/// Whether requests and limits of a resource differ.
fn differs(a: &ResourceRequirements, b: &ResourceRequirements, name: &str) -> bool {
    value(&a.requests, name) != value(&b.requests, name) || value(&a.limits, name) != value(&b.limits, name)
}

/// Whether a container has other resources than its spec says, and they were not refused before.
pub(super) fn is_wanted(container: &Container, memory: &ContainerMemory) -> bool {
    let wanted = container.resources.clone().unwrap_or_default();
    let differ = |other: &ResourceRequirements| RESIZABLE.iter().any(|name| differs(other, &wanted, name));
    memory.resources.as_ref().is_some_and(differ) && memory.refused.as_ref().is_none_or(differ)
}

/// Whether its policy wants the container started anew for what changed.
pub(super) fn restarts(container: &Container, memory: &ContainerMemory) -> bool {
    let wanted = container.resources.clone().unwrap_or_default();
    let had = memory.resources.clone().unwrap_or_default();
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    policies
        .iter()
        .any(|policy| policy.restart_policy == "RestartContainer" && differs(&had, &wanted, &policy.resource_name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn resources(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}})
    }

    fn container(resources: &Value) -> Container {
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"},
            {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        serde_json::from_value(json!({"name": "a", "resources": resources, "resizePolicy": policy})).unwrap()
    }

    #[test]
    fn what_differs_is_resized_and_by_policy_restarted() {
        let had = serde_json::from_value(resources("1", "1Gi")).unwrap();
        let mut memory = ContainerMemory { resources: Some(had), ..ContainerMemory::default() };
        let same = container(&resources("1", "1Gi"));
        assert!(!is_wanted(&same, &memory));
        let cpu = container(&resources("2", "1Gi"));
        assert!(is_wanted(&cpu, &memory) && !restarts(&cpu, &memory));
        let both = container(&resources("2", "2Gi"));
        assert!(is_wanted(&both, &memory) && restarts(&both, &memory));
        memory.refused.clone_from(&cpu.resources);
        assert!(!is_wanted(&cpu, &memory) && is_wanted(&both, &memory));
        assert!(!is_wanted(&cpu, &ContainerMemory::default()), "what it has is not known");
    }
}
