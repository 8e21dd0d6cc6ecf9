//! What a pod asks for: the sum over its containers, or more where an init container needs more, as Kubernetes counts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use super::{Amounts, Traits, Usage, add, amounts_of, one};
use crate::object::Object;

/// The compute resources whose requests are limited under their own name too.
const PLAIN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// The resources that every container must name where a quota limits them.
const TO_BE_NAMED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What the names of amounts of huge pages begin with.
const HUGE_PAGES: &str = "hugepages-";

/// Whether an amount is one that pods use.
pub(super) fn is_compute(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    PLAIN.contains(&bare) || bare.starts_with(HUGE_PAGES) || (name.starts_with("requests.") && is_extended(bare))
}

/// Whether a resource is one that devices offer: it has a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| !domain.contains("kubernetes.io")) && !name.starts_with("requests.")
}

fn list<'a>(spec: &'a Value, field: &str) -> &'a [Value] {
    spec.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn of_container(container: &Value, which: &str) -> Amounts {
    amounts_of(container.get("resources").and_then(|resources| resources.get(which)))
}

fn plus(mut to: Amounts, more: &Amounts) -> Amounts {
    more.iter().for_each(|(name, amount)| add(&mut to, name, *amount));
    to
}

fn larger(mut of: Amounts, or: Amounts) -> Amounts {
    for (name, amount) in or {
        let most = of.get(&name).copied().map_or(amount, |there| there.max(amount));
        of.insert(name, most);
    }
    of
}

/// The requests or limits of a pod without its overhead.
pub fn containers_together(spec: &Value, which: &str) -> Amounts {
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in list(spec, "initContainers") {
        let own = of_container(container, which);
        let beside = if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            sidecars = plus(sidecars, &own);
            sidecars.clone()
        } else {
            plus(own, &sidecars)
        };
        most = larger(most, beside);
    }
    let running = list(spec, "containers").iter().fold(sidecars, |sum, one| plus(sum, &of_container(one, which)));
    let mut total = larger(running, most);
    // What is said of the pod as a whole counts instead.
    for (name, amount) in of_container(spec, which) {
        total.insert(name, amount);
    }
    total
}

/// The requests or limits of a pod with its overhead; a limit that is not set has none.
fn together(spec: &Value, which: &str) -> Amounts {
    let mut total = containers_together(spec, which);
    for (name, overhead) in amounts_of(spec.get("overhead")) {
        if which == "requests" || total.get(&name).is_some_and(|limit| !limit.is_zero()) {
            add(&mut total, &name, overhead);
        }
    }
    total
}

/// Whether a pod still counts: it has not ended, and is not long past the time at which it should be gone.
fn counts(pod: &Object, now: Timestamp) -> bool {
    if matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed")) {
        return false;
    }
    let grace = pod.int_at(&["metadata", "deletionGracePeriodSeconds"]);
    let deleted = pod.str_at(&["metadata", "deletionTimestamp"]).and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(grace), Some(deleted)) = (grace, deleted) else { return true };
    deleted.checked_add(grace.seconds()).is_ok_and(|end| now <= end)
}

/// The amounts under their quota names.
fn under_quota_names(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut amounts = Amounts::from([("pods".to_owned(), one())]);
    for (name, amount) in requests {
        let is_plain = PLAIN.contains(&name.as_str()) || name.starts_with(HUGE_PAGES);
        if is_plain {
            amounts.insert(name.clone(), *amount);
        }
        if is_plain || is_extended(name) {
            amounts.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in PLAIN {
        if let Some(amount) = limits.get(name) {
            amounts.insert(format!("limits.{name}"), *amount);
        }
    }
    amounts
}

/// Counts a pod.
pub(super) fn count(pod: &Object, now: Timestamp, usage: &mut Usage) {
    usage.traits = Traits::of_pod(pod);
    if !counts(pod, now) {
        return;
    }
    let spec = pod.at(&["spec"]).cloned().unwrap_or_default();
    usage.amounts.extend(under_quota_names(&together(&spec, "requests"), &together(&spec, "limits")));
}

/// `must specify cpu for: a,b; memory for: a`, where a container leaves out what is limited.
pub(super) fn unspecified(pod: &Object, hard: &Amounts) -> Option<String> {
    let spec = pod.at(&["spec"])?;
    let whole = of_container(spec, "requests").len() + of_container(spec, "limits").len();
    let mut missing: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for container in ["containers", "initContainers"].iter().flat_map(|field| list(spec, field)) {
        let has = under_quota_names(&of_container(container, "requests"), &of_container(container, "limits"));
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        for wanted in TO_BE_NAMED.into_iter().filter(|wanted| hard.contains_key(*wanted) && !has.contains_key(*wanted))
        {
            missing.entry(wanted).or_default().insert(name.to_owned());
        }
    }
    if whole > 0 {
        let has = under_quota_names(&of_container(spec, "requests"), &of_container(spec, "limits"));
        missing.retain(|wanted, _| !has.contains_key(*wanted));
    }
    let part = |(name, containers): (&str, &BTreeSet<String>)| {
        format!("{name} for: {}", containers.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    };
    let parts: Vec<String> = missing.iter().map(|(name, containers)| part((name, containers))).collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}
