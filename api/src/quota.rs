//! ResourceQuota: what an object counts for, which quotas it counts towards, and whether there is room for it.
//!
//! Admission charges by it, and the quota controller counts by it; both see the same object the same way.
//! Source: `pkg/quota/v1/evaluator/core` and `plugin/pkg/admission/resourcequota` of Kubernetes 1.36.
//!
//! - [`usage`]: what one object counts for.
//! - [`Limit`]: a ResourceQuota: what it limits, and which objects it covers.
//! - [`used`]: what all objects together use of a quota.
//! - [`source`]: of which resource the objects are counted that use an amount.

mod pods;
mod scopes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    object::Object,
    quantity::{Format, Quantity},
};
pub use pods::containers_together;
use scopes::{Scope, Traits};

/// Amounts by resource name, e.g. `requests.cpu` or `count/deployments.apps`.
pub type Amounts = BTreeMap<String, Quantity>;

/// What one object counts for, and what quotas' scopes ask of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// What it uses.
    pub amounts: Amounts,
    traits: Traits,
}

/// What the names of amounts of storage by class end with, after the class.
const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Resources whose objects are counted under their own name too.
const COUNTED_BY_NAME: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// The name under which the objects of a resource are counted: `count/deployments.apps`.
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSi)
}

/// The amounts in a map of quantities; what is no quantity is left out.
fn amounts_of(map: Option<&Value>) -> Amounts {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    let amount = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((name.clone(), text.parse().ok()?))
    };
    entries.filter_map(amount).collect()
}

fn add(to: &mut Amounts, name: &str, amount: Quantity) {
    let sum = to.get(name).map_or(amount, |there| there.plus(amount));
    to.insert(name.to_owned(), sum);
}

/// What an object of a resource counts for. `now` decides whether a pod that should be gone still counts.
pub fn usage(group: &str, resource: &str, object: &Object, now: Timestamp) -> Usage {
    let mut usage = Usage::default();
    usage.amounts.insert(count_name(group, resource), one());
    match (group, resource) {
        ("", "pods") => pods::count(object, now, &mut usage),
        ("", "services") => count_service(object, &mut usage.amounts),
        ("", "persistentvolumeclaims") => count_claim(object, &mut usage),
        ("", name) if COUNTED_BY_NAME.contains(&name) => drop(usage.amounts.insert(name.to_owned(), one())),
        _ => {}
    }
    usage
}

fn count_service(service: &Object, amounts: &mut Amounts) {
    amounts.insert("services".to_owned(), one());
    let ports = service.at(&["spec", "ports"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
    match service.str_at(&["spec", "type"]) {
        Some("NodePort") => drop(amounts.insert("services.nodeports".to_owned(), number(ports.len()))),
        Some("LoadBalancer") => {
            let allocates = service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool);
            let has_port = |port: &&Value| port.get("nodePort").and_then(Value::as_i64).unwrap_or_default() != 0;
            let count = if allocates == Some(false) { ports.iter().filter(has_port).count() } else { ports.len() };
            amounts.insert("services.nodeports".to_owned(), number(count));
            amounts.insert("services.loadbalancers".to_owned(), one());
        }
        _ => {}
    }
}

/// The class by which old claims named it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn count_claim(claim: &Object, usage: &mut Usage) {
    let amounts = &mut usage.amounts;
    let class = claim
        .str_at(&["metadata", "annotations", OLD_CLASS])
        .or_else(|| claim.str_at(&["spec", "storageClassName"]))
        .filter(|class| !class.is_empty())
        .map(str::to_owned);
    let mut put = |name: &str, amount: Quantity| {
        amounts.insert(name.to_owned(), amount);
        if let Some(class) = &class {
            amounts.insert(format!("{class}{OF_STORAGE_CLASS}{name}"), amount);
        }
    };
    put("persistentvolumeclaims", one());
    let asked = amounts_of(claim.at(&["spec", "resources", "requests"])).get("storage").copied();
    let allocated = amounts_of(claim.at(&["status", "allocatedResources"])).get("storage").copied();
    if let Some(storage) = asked.max(allocated) {
        put("requests.storage", storage);
    }
    usage.traits = Traits::of_claim(claim);
}

/// The group and resource of the objects that use an amount; `None` for a name that nothing uses.
pub fn source(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, resource));
    }
    match name {
        "services.nodeports" | "services.loadbalancers" => Some(("", "services")),
        "requests.storage" => Some(("", "persistentvolumeclaims")),
        _ if name.contains(OF_STORAGE_CLASS) => Some(("", "persistentvolumeclaims")),
        _ if COUNTED_BY_NAME.contains(&name) => Some(("", name)),
        _ if pods::is_compute(name) => Some(("", "pods")),
        _ => None,
    }
}

/// A ResourceQuota.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// What may be used.
    pub hard: Amounts,
    scopes: Vec<Scope>,
}

impl Limit {
    /// Reads a ResourceQuota's spec.
    pub fn read(quota: &Object) -> Self {
        let hard = amounts_of(quota.at(&["spec", "hard"]));
        Self { name: quota.name().to_owned(), hard, scopes: Scope::read_all(quota) }
    }

    /// Whether an object counts towards this quota.
    pub fn covers(&self, usage: &Usage) -> bool {
        self.scopes.iter().all(|scope| scope.matches(&usage.traits))
    }

    /// Whether objects of a resource use anything that this quota limits.
    pub fn concerns(&self, group: &str, resource: &str) -> bool {
        self.hard.keys().any(|name| source(name) == Some((group, resource)))
    }

    /// The resources whose objects use what this quota limits, as `(group, resource)`, each once.
    pub fn sources(&self) -> Vec<(&str, &str)> {
        let mut sources: Vec<_> = self.hard.keys().filter_map(|name| source(name)).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// What of some amounts this quota limits.
    pub fn limited(&self, amounts: &Amounts) -> Amounts {
        amounts.iter().filter(|(name, _)| self.hard.contains_key(*name)).map(|(k, v)| (k.clone(), *v)).collect()
    }

    /// The compute resources that this quota limits and that a pod's containers do not name, in Kubernetes' words.
    pub fn unspecified(&self, pod: &Object) -> Option<String> {
        pods::unspecified(pod, &self.hard)
    }

    /// The names of what there is too little of: `used` and `requested` together are more than allowed.
    pub fn exceeded<'a>(&self, used: &Amounts, requested: &'a Amounts) -> Vec<&'a str> {
        let is_over = |name: &str, requested: Quantity| {
            let used = used.get(name).copied().unwrap_or_default();
            self.hard.get(name).is_some_and(|hard| used.plus(requested) > *hard)
        };
        let growing = requested.iter().filter(|(_, amount)| !amount.is_zero() && !amount.is_negative());
        growing.filter(|(name, amount)| is_over(name, **amount)).map(|(name, _)| name.as_str()).collect()
    }
}

/// What a write adds: what the new object counts for beyond the old one, where that is more than nothing.
pub fn growth(new: &Amounts, old: Option<&Amounts>) -> Amounts {
    let before = |name: &String| old.and_then(|old| old.get(name)).copied().unwrap_or_default();
    let grown = new.iter().map(|(name, amount)| (name.clone(), amount.minus(before(name))));
    grown.filter(|(_, amount)| !amount.is_zero() && !amount.is_negative()).collect()
}

/// What objects use together of a quota: an entry, if only zero, for everything that it limits and that something can
/// use. This is `status.used`.
pub fn used<'a>(limit: &Limit, usages: impl IntoIterator<Item = &'a Usage>) -> Amounts {
    let zero = |(name, hard): (&String, &Quantity)| (name.clone(), Quantity::from_units(0, hard.format()));
    let mut total: Amounts = limit.hard.iter().filter(|(name, _)| source(name).is_some()).map(zero).collect();
    for usage in usages.into_iter().filter(|usage| limit.covers(usage)) {
        for (name, amount) in &usage.amounts {
            if limit.hard.contains_key(name) {
                add(&mut total, name, *amount);
            }
        }
    }
    total
}

/// Amounts as Kubernetes prints them in messages: `cpu=1,memory=1Gi`.
pub fn print(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// Amounts as JSON, for `status.used`.
pub fn to_json(amounts: &Amounts) -> Value {
    Value::Object(amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect())
}
