//! LimitRanger: what containers, pods and claims of a namespace may ask for, and what they ask for where they do not
//! say. Source: `plugin/pkg/admission/limitranger` of Kubernetes 1.36.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use skiff_api::{
    object::Object,
    quantity::Quantity,
    quota::{Amounts, containers_together},
    status::ApiError,
};

use super::{Operation, World, Write};

/// The annotation that says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The lists of containers that defaults and limits hold for.
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// The LimitRanges of a write's namespace that hold for it.
fn ranges(world: &dyn World, write: &Write<'_>) -> Vec<Object> {
    let holds = match write.subresource {
        // What a pod asks for is fixed but for its resize.
        "" => write.is_on("", "persistentvolumeclaims") || write.is(Operation::Create, "", "pods"),
        "resize" => write.is_on("", "pods"),
        _ => false,
    };
    if !holds || write.operation == Operation::Delete {
        return Vec::new();
    }
    world.all("", "limitranges", Some(write.namespace))
}

/// The limits of one type in a LimitRange.
fn limits<'a>(range: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = range.at(&["spec", "limits"]).and_then(Value::as_array).into_iter().flatten();
    all.filter(move |limit| limit.get("type").and_then(Value::as_str) == Some(kind))
}

/// Fills in what a new pod's containers do not say.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, "", "pods") {
        return Ok(());
    }
    for range in ranges(world, write) {
        fill_in(&range, pod);
    }
    Ok(())
}

/// What a LimitRange gives to containers that do not say: under `limits` and `requests`.
fn defaults(range: &Object) -> BTreeMap<&'static str, Map<String, Value>> {
    let mut given: BTreeMap<&'static str, Map<String, Value>> = BTreeMap::new();
    for limit in limits(range, "Container") {
        for (field, into) in [("default", "limits"), ("defaultRequest", "requests")] {
            if let Some(amounts) = limit.get(field).and_then(Value::as_object) {
                given.entry(into).or_default().extend(amounts.clone());
            }
        }
    }
    given
}

fn fill_in(range: &Object, pod: &mut Object) {
    let defaults = defaults(range);
    let mut notes = Vec::new();
    for list in CONTAINERS {
        let Some(mut containers) = pod.at(&["spec", list]).and_then(Value::as_array).cloned() else { continue };
        let what = if list == "containers" { "container" } else { "init container" };
        for container in &mut containers {
            notes.extend(fill_in_container(&defaults, container, what));
        }
        pod.set_at(&["spec", list], containers);
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set_at(&["metadata", "annotations", ANNOTATION], note);
    }
}

/// Fills in what a container does not say; tells what that was.
fn fill_in_container(
    defaults: &BTreeMap<&'static str, Map<String, Value>>,
    container: &mut Value,
    what: &str,
) -> Vec<String> {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut notes = Vec::new();
    for (which, word) in [("requests", "request"), ("limits", "limit")] {
        let Some(given) = defaults.get(which) else { continue };
        let resources = &mut container["resources"];
        if !resources.is_object() {
            *resources = json!({});
        }
        if !resources[which].is_object() {
            resources[which] = json!({});
        }
        let mut set: Vec<&str> = Vec::new();
        for (resource, amount) in given {
            if resources[which].get(resource).is_none() {
                resources[which][resource] = amount.clone();
                set.push(resource);
            }
        }
        set.sort_unstable();
        if !set.is_empty() {
            notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
        }
    }
    notes
}

/// Refuses what asks for too much or too little.
pub(super) fn validate(world: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    for range in ranges(world, write) {
        let wrong = if write.is_on("", "pods") { check_pod(&range, object) } else { check_claim(&range, object) };
        match wrong.as_slice() {
            [] => {}
            [one] => return Err(write.forbidden(one)),
            many => return Err(write.forbidden(format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}

fn amounts(map: Option<&Value>) -> Amounts {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

/// What something asks for.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn of_container(container: &Value) -> Self {
        let of = |which: &str| amounts(container.get("resources").and_then(|resources| resources.get(which)));
        Self { requests: of("requests"), limits: of("limits") }
    }
}

fn check_pod(range: &Object, pod: &Object) -> Vec<String> {
    let mut wrong = Vec::new();
    let spec = pod.at(&["spec"]).cloned().unwrap_or_default();
    for limit in limits(range, "Container") {
        let lists = CONTAINERS.iter().filter_map(|list| spec.get(list)?.as_array());
        for container in lists.flatten() {
            wrong.extend(check(limit, "Container", &Asked::of_container(container)));
        }
    }
    for limit in limits(range, "Pod") {
        let of = |which| containers_together(&spec, which);
        wrong.extend(check(limit, "Pod", &Asked { requests: of("requests"), limits: of("limits") }));
    }
    wrong
}

fn check(limit: &Value, kind: &str, asked: &Asked) -> Vec<String> {
    let each = |field: &str| amounts(limit.get(field));
    let mut wrong: Vec<String> =
        each("min").iter().filter_map(|(name, least)| below(kind, name, *least, asked)).collect();
    wrong.extend(each("max").iter().filter_map(|(name, most)| above(kind, name, *most, asked)));
    let ratios = each("maxLimitRequestRatio");
    wrong.extend(ratios.iter().filter_map(|(name, most)| beyond_ratio(kind, name, *most, asked)));
    wrong
}

fn below(kind: &str, name: &str, least: Quantity, asked: &Asked) -> Option<String> {
    let front = format!("minimum {name} usage per {kind} is {least}");
    match (asked.requests.get(name), asked.limits.get(name)) {
        (None, _) => Some(format!("{front}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{front}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{front}, but limit is {limit}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, most: Quantity, asked: &Asked) -> Option<String> {
    let front = format!("maximum {name} usage per {kind} is {most}");
    match (asked.limits.get(name), asked.requests.get(name)) {
        (None, _) => Some(format!("{front}.  No limit is specified")),
        (Some(limit), _) if *limit > most => Some(format!("{front}, but limit is {limit}")),
        (_, Some(request)) if *request > most => Some(format!("{front}, but request is {request}")),
        _ => None,
    }
}

fn beyond_ratio(kind: &str, name: &str, most: Quantity, asked: &Asked) -> Option<String> {
    let front = format!("{name} max limit to request ratio per {kind} is {most}");
    let some = |amounts: &Amounts| amounts.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = some(&asked.requests) else {
        return Some(format!("{front}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(&asked.limits) else {
        return Some(format!("{front}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    (ratio > most.as_f64()).then(|| format!("{front}, but provided ratio is {ratio:.6}"))
}

fn check_claim(range: &Object, claim: &Object) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(claim.at(&["spec", "resources", "requests"]));
    let asked = Asked { requests, limits: Amounts::new() };
    let mut wrong = Vec::new();
    for limit in limits(range, KIND) {
        let (min, max) = (amounts(limit.get("min")), amounts(limit.get("max")));
        wrong.extend(min.iter().filter_map(|(name, least)| below(KIND, name, *least, &asked)));
        wrong.extend(max.iter().filter_map(|(name, most)| {
            let front = format!("maximum {name} usage per {KIND} is {most}");
            match asked.requests.get(name) {
                None => Some(format!("{front}.  No request is specified")),
                Some(request) if request > most => Some(format!("{front}, but request is {request}")),
                Some(_) => None,
            }
        }));
    }
    wrong
}
