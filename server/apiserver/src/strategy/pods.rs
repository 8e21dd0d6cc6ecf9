//! Pods: their class of service, and the addresses that are written twice.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skiff_api::{object::Object, quantity::Quantity};

use super::{Context, Part, Strategy};

/// The resources that decide a pod's class of service.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The strategy of pods.
pub(super) struct Pods;

/// Amounts by resource name.
type Amounts = BTreeMap<&'static str, Quantity>;

/// What a container (or a pod) asks of compute resources under `requests` or `limits`; nothing counts as not asked.
fn amounts(holder: &Value, which: &str) -> Amounts {
    let list = holder.get("resources").and_then(|resources| resources.get(which));
    let amount = |name: &'static str| {
        let value = list?.get(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.parse::<Quantity>().ok().filter(|quantity| !quantity.is_zero()).map(|quantity| (name, quantity))
    };
    COMPUTE.into_iter().filter_map(amount).collect()
}

/// The containers that count, or the pod itself where it asks as a whole.
fn holders(pod: &Object) -> Vec<Value> {
    let spec = pod.at(&["spec"]).cloned().unwrap_or_default();
    if !amounts(&spec, "requests").is_empty() || !amounts(&spec, "limits").is_empty() {
        return vec![spec];
    }
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    [list("containers"), list("initContainers")].concat()
}

/// A pod's class of service: Guaranteed where every container has limits for CPU and memory that equal its requests,
/// BestEffort where none asks for anything, Burstable between.
pub(crate) fn qos_class(pod: &Object) -> &'static str {
    let asked: Vec<(Amounts, Amounts)> =
        holders(pod).iter().map(|holder| (amounts(holder, "requests"), amounts(holder, "limits"))).collect();
    let is_guaranteed = |(requests, limits): &(Amounts, Amounts)| limits.len() == COMPUTE.len() && requests == limits;
    if asked.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        "BestEffort"
    } else if asked.iter().all(is_guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Keeps `one` and the first of `many` the same: whichever is given stands for the other.
fn mirror_address(pod: &mut Object, one: &str, many: &str) {
    let first = pod.at(&["status", many]).and_then(|list| list.get(0)?.get("ip")?.as_str()).map(str::to_owned);
    let single = pod.str_at(&["status", one]).filter(|ip| !ip.is_empty()).map(str::to_owned);
    match (single, first) {
        (Some(ip), None) => pod.set_at(&["status", many], json!([{"ip": ip}])),
        (None, Some(ip)) => pod.set_at(&["status", one], ip),
        _ => {}
    }
}

impl Strategy for Pods {
    fn prepare_create(&self, _: &mut Context<'_>, pod: &mut Object) {
        let class = qos_class(pod);
        pod.set_at(&["status", "qosClass"], class);
    }

    fn prepare_update(&self, _: &mut Context<'_>, pod: &mut Object, old: &Object, part: Part) {
        if part != Part::Status {
            return;
        }
        mirror_address(pod, "podIP", "podIPs");
        mirror_address(pod, "hostIP", "hostIPs");
        if let Some(class) = old.at(&["status", "qosClass"]) {
            pod.set_at(&["status", "qosClass"], class.clone());
        }
        if let Some(owners) = old.at(&["metadata", "ownerReferences"]) {
            pod.set_at(&["metadata", "ownerReferences"], owners.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_of_service() {
        let both = json!({"cpu": "100m", "memory": "1Gi"});
        let same = json!({"cpu": "0.1", "memory": "1024Mi"});
        let cases = [
            (json!([{}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
            (json!([{"resources": {"requests": both, "limits": same}}]), "Guaranteed"),
            (json!([{"resources": {"requests": both, "limits": same}}, {}]), "Burstable"),
            (json!([{"resources": {"requests": both}}]), "Burstable"),
            (json!([{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}]), "Burstable"),
        ];
        for (containers, expected) in cases {
            let mut pod = Object::default();
            pod.set_at(&["spec", "containers"], containers.clone());
            assert_eq!(qos_class(&pod), expected, "{containers}");
        }
    }
}
