//! Priority: a pod's priority is that of its PriorityClass.

use serde_json::Value;
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The API group of PriorityClasses.
const GROUP: &str = "scheduling.k8s.io";

/// What a pod preempts where no class says otherwise.
const PREEMPT_LOWER: &str = "PreemptLowerPriority";

/// What a class gives to a pod.
#[derive(Debug, PartialEq, Eq)]
struct Resolved {
    class: Option<String>,
    priority: i64,
    preemption: String,
}

/// What a PriorityClass object gives.
fn of_class(class: &Object) -> Resolved {
    Resolved {
        class: Some(class.name().to_owned()),
        priority: class.int_at(&["value"]).unwrap_or_default(),
        preemption: class.str_at(&["preemptionPolicy"]).unwrap_or(PREEMPT_LOWER).to_owned(),
    }
}

/// Whether a class is the one of pods that name none.
fn is_default(class: &Object) -> bool {
    class.at(&["globalDefault"]).and_then(Value::as_bool).unwrap_or_default()
}

/// What a pod's class, or the cluster's default, gives.
fn resolve(world: &dyn World, name: &str) -> Result<Resolved, String> {
    if !name.is_empty() {
        let class = world.find(GROUP, "priorityclasses", "", name);
        return class.as_ref().map(of_class).ok_or_else(|| format!("no PriorityClass with name {name} was found"));
    }
    let classes = world.all(GROUP, "priorityclasses", None);
    let lowest = classes.iter().filter(|class| is_default(class)).map(of_class).min_by_key(|class| class.priority);
    Ok(lowest.unwrap_or(Resolved { class: None, priority: 0, preemption: PREEMPT_LOWER.to_owned() }))
}

/// Sets a new pod's priority; an updated pod keeps its own.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    if write.is(Operation::Create, "", "pods") {
        return set_priority(world, write, pod);
    }
    if write.is(Operation::Update, "", "pods") {
        for field in ["priority", "preemptionPolicy"] {
            let kept = write.old.and_then(|old| old.at(&["spec", field]));
            if let (None, Some(kept)) = (pod.at(&["spec", field]), kept) {
                pod.set_at(&["spec", field], kept.clone());
            }
        }
    }
    Ok(())
}

/// Sets a new pod's priority from its class.
fn set_priority(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    let named = pod.str_at(&["spec", "priorityClassName"]).unwrap_or_default();
    let resolved = resolve(world, named).map_err(|why| write.forbidden(why))?;
    let computed = resolved.priority;
    if let Some(given) = pod.int_at(&["spec", "priority"]).filter(|given| *given != computed) {
        return Err(write.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {computed} from the given PriorityClass name"
        )));
    }
    let policy = &resolved.preemption;
    if let Some(given) = pod.str_at(&["spec", "preemptionPolicy"]).filter(|given| given != policy) {
        return Err(write.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    pod.set_at(&["spec", "priority"], computed);
    pod.set_at(&["spec", "preemptionPolicy"], resolved.preemption);
    if let Some(class) = resolved.class {
        pod.set_at(&["spec", "priorityClassName"], class);
    }
    Ok(())
}

/// Refuses a second default class.
pub(super) fn validate(world: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    let written = matches!(write.operation, Operation::Create | Operation::Update);
    if !written || !write.is_on(GROUP, "priorityclasses") || !is_default(object) {
        return Ok(());
    }
    let classes = world.all(GROUP, "priorityclasses", None);
    let Some(other) = classes.iter().find(|class| is_default(class) && class.name() != object.name()) else {
        return Ok(());
    };
    let name = other.name();
    Err(write.forbidden(format!("PriorityClass {name} is already marked as default. Only one default can exist")))
}
