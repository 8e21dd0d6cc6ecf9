//! The objects that a fresh cluster of Kubernetes 1.36 holds, as recorded in `api/data/`.

use serde_json::Value;
use skiff_api::{object::Object, request::GroupVersionResource};

use super::Seed;

/// Roles and bindings.
const RBAC: &str = include_str!("../../../../api/data/rbac.json");

/// Everything else.
const OTHERS: &str = include_str!("../../../../api/data/bootstrap.json");

/// Where the lists of both files belong: list, group, resource. What depends on the cluster is not taken from them.
const LISTS: [(&str, &str, &str); 9] = [
    ("clusterroles", "rbac.authorization.k8s.io", "clusterroles"),
    ("clusterrolebindings", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("roles", "rbac.authorization.k8s.io", "roles"),
    ("rolebindings", "rbac.authorization.k8s.io", "rolebindings"),
    ("namespaces", "", "namespaces"),
    ("priorityclasses", "scheduling.k8s.io", "priorityclasses"),
    ("flowschemas", "flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("prioritylevels", "flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("apiservices", "apiregistration.k8s.io", "apiservices"),
];

/// Every recorded object.
pub(super) fn seeds() -> Vec<Seed> {
    let files: Vec<Value> = [RBAC, OTHERS].iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let mut seeds = Vec::new();
    for (list, group, resource) in LISTS {
        let objects = files.iter().filter_map(|file| file.get(list)?.as_array()).flatten();
        for object in objects.filter_map(Value::as_object) {
            let gvr = GroupVersionResource::new(group, "v1", resource);
            seeds.push(Seed { gvr, object: Object(object.clone()), kept: &[] });
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_read() {
        let seeds = seeds();
        for (_, group, resource) in LISTS {
            let here = seeds.iter().filter(|seed| seed.gvr.group == group && seed.gvr.resource == resource);
            assert!(here.count() > 0, "{resource}");
        }
        assert!(seeds.iter().all(|seed| !seed.object.name().is_empty()));
    }
}
