//! What a deletion does to an object: decided here, without a store, a clock or a client.
//!
//! Expected flow: an object without finalizers and grace is removed at once. A pod that runs is first marked with a
//! deletion timestamp and removed when its node deletes it again with no grace. An object with finalizers is marked
//! and removed by the update that takes the last of them away ([`update_ends`]). A namespace is marked, and goes when
//! its own `spec.finalizers` are gone too.

use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use skiff_api::{kinds::ResourceDef, object::Object};

use super::meta;

/// The finalizer of an object whose dependents are to be left behind.
const ORPHAN: &str = "orphan";

/// The finalizer of an object whose dependents go first.
const FOREGROUND: &str = "foregroundDeletion";

/// The longest grace period that is counted with; longer ones are cut to it (a century).
const MAX_GRACE_SECONDS: i64 = 100 * 365 * 24 * 3600;

/// What happens to an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// How a kind's objects end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// At once, but for finalizers.
    Immediate,
    /// After a grace period: pods.
    Graceful,
    /// After their content: namespaces.
    Namespace,
}

/// What a deletion asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that the object is given; `None` for its own.
    pub grace_period_seconds: Option<i64>,
    /// What happens to dependents; `None` for what the object's finalizers or its kind say.
    pub propagation: Option<Propagation>,
    /// Only an object with this UID.
    pub uid: Option<String>,
    /// Only this version.
    pub resource_version: Option<String>,
}

/// What the kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRules {
    /// How its objects end.
    pub lifetime: Lifetime,
    /// Whether dependents stay where nobody says otherwise.
    pub orphans_by_default: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum DeleteDecision {
    /// The object goes now.
    Remove,
    /// The object is written in this form, and goes later.
    Mark(Object),
    /// Nothing: it is going already.
    Pending,
    /// The object is not the one that was meant; this is why.
    Refuse(String),
}

/// How objects of a resource end.
pub(super) fn lifetime(def: &ResourceDef) -> Lifetime {
    match (def.gvk.group.as_str(), def.resource.as_str()) {
        ("", "pods") => Lifetime::Graceful,
        ("", "namespaces") => Lifetime::Namespace,
        _ => Lifetime::Immediate,
    }
}

/// Decides what a deletion does to an object.
pub fn decide_delete(object: &Object, options: &DeleteOptions, rules: DeleteRules, now: Timestamp) -> DeleteDecision {
    if let Some(why) = refusal(object, options) {
        return DeleteDecision::Refuse(why);
    }
    let mut marked = object.clone();
    let finalizers = finalizers(object, options, rules);
    if !finalizers.iter().map(String::as_str).eq(object.finalizers()) {
        marked.set_at(&["metadata", "finalizers"], json!(finalizers));
    }
    match rules.lifetime {
        Lifetime::Namespace => namespace(object, marked, now),
        Lifetime::Graceful => pod(object, marked, options, now),
        Lifetime::Immediate => after_finalizers(object, marked, now),
    }
}

/// Why the object is not the one that was meant, if it is not.
fn refusal(object: &Object, options: &DeleteOptions) -> Option<String> {
    let (uid, version) = (object.uid(), object.str_at(&["metadata", "resourceVersion"]).unwrap_or_default());
    if let Some(asked) = options.uid.as_deref().filter(|asked| *asked != uid) {
        return Some(format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have \
             been deleted and then recreated"
        ));
    }
    let asked = options.resource_version.as_deref().filter(|asked| *asked != version)?;
    Some(format!(
        "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({version}). \
         The object might have been modified"
    ))
}

/// The finalizers that the object has from now on.
fn finalizers(object: &Object, options: &DeleteOptions, rules: DeleteRules) -> Vec<String> {
    let has = |name: &str| object.finalizers().any(|finalizer| finalizer == name);
    let by_default = if rules.orphans_by_default { Propagation::Orphan } else { Propagation::Background };
    let by_finalizer =
        if has(ORPHAN) { Some(Propagation::Orphan) } else { has(FOREGROUND).then_some(Propagation::Foreground) };
    let others = object.finalizers().filter(|finalizer| ![ORPHAN, FOREGROUND].contains(finalizer));
    let mut list: Vec<String> = others.map(str::to_owned).collect();
    match options.propagation.or(by_finalizer).unwrap_or(by_default) {
        Propagation::Orphan => list.push(ORPHAN.to_owned()),
        Propagation::Foreground => list.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    list
}

/// Marks an object as going, with a grace period; its generation grows when it is first marked.
fn mark(object: &mut Object, at: Timestamp, grace_seconds: Option<i64>) {
    if !object.is_deleting() && object.generation() > 0 {
        object.set_at(&["metadata", "generation"], object.generation() + 1);
    }
    object.set_at(&["metadata", "deletionTimestamp"], meta::time(at));
    if let Some(seconds) = grace_seconds {
        object.set_at(&["metadata", "deletionGracePeriodSeconds"], seconds);
    }
}

/// When an object goes that is marked, as it says itself.
fn marked_for(object: &Object) -> Option<Timestamp> {
    object.str_at(&["metadata", "deletionTimestamp"])?.parse().ok()
}

/// The end of a kind without grace: at once, or when its finalizers are gone.
fn after_finalizers(object: &Object, mut marked: Object, now: Timestamp) -> DeleteDecision {
    if marked.finalizers().next().is_none() {
        return DeleteDecision::Remove;
    }
    let at = marked_for(object).map_or(now, |at| at.min(now));
    mark(&mut marked, at, Some(0));
    decide_mark(object, marked)
}

/// Nothing to be done where the mark is there already.
fn decide_mark(object: &Object, marked: Object) -> DeleteDecision {
    if marked == *object { DeleteDecision::Pending } else { DeleteDecision::Mark(marked) }
}

/// The end of a namespace: marked and terminating first, removed when nothing holds it.
fn namespace(object: &Object, mut marked: Object, now: Timestamp) -> DeleteDecision {
    if !object.is_deleting() {
        mark(&mut marked, now, None);
        marked.set_at(&["status", "phase"], "Terminating");
        return DeleteDecision::Mark(marked);
    }
    if has_spec_finalizers(object) {
        return DeleteDecision::Pending;
    }
    after_finalizers(object, marked, now)
}

/// Whether a namespace's content may still be there.
fn has_spec_finalizers(namespace: &Object) -> bool {
    namespace.at(&["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// The seconds that a pod is given: none where no node runs it, or where it has ended.
fn pod_grace(pod: &Object, options: &DeleteOptions) -> i64 {
    let is_bound = pod.str_at(&["spec", "nodeName"]).is_some_and(|node| !node.is_empty());
    let has_ended = matches!(pod.str_at(&["status", "phase"]), Some("Failed" | "Succeeded"));
    if !is_bound || has_ended {
        return 0;
    }
    let own = pod.int_at(&["spec", "terminationGracePeriodSeconds"]).unwrap_or_default();
    let asked = options.grace_period_seconds.unwrap_or(own);
    // A negative period is a mistake; the pod is given the shortest one.
    if asked < 0 { 1 } else { asked.min(MAX_GRACE_SECONDS) }
}

/// The end of a pod: a grace period that can only shrink, then finalizers.
fn pod(object: &Object, mut marked: Object, options: &DeleteOptions, now: Timestamp) -> DeleteDecision {
    let grace = match (object.is_deleting(), object.int_at(&["metadata", "deletionGracePeriodSeconds"])) {
        (false, _) => pod_grace(object, options),
        (true, None) => 0,
        (true, Some(left)) => match options.grace_period_seconds {
            Some(asked) if asked.max(0) < left => asked.max(0),
            _ => return DeleteDecision::Pending,
        },
    };
    if grace == 0 {
        if marked.finalizers().next().is_none() {
            return DeleteDecision::Remove;
        }
        mark(&mut marked, now, Some(0));
        return decide_mark(object, marked);
    }
    let left = object.int_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default();
    let since = marked_for(object).and_then(|at| at.checked_sub(Span::new().try_seconds(left).ok()?).ok());
    let at = Span::new().try_seconds(grace).ok().and_then(|span| since.unwrap_or(now).checked_add(span).ok());
    mark(&mut marked, at.unwrap_or(now), Some(grace));
    DeleteDecision::Mark(marked)
}

/// Whether an update ends an object: it is going, its grace is over, and the update took the last finalizer away.
pub(super) fn update_ends(new: &Object, old: &Object, lifetime: Lifetime) -> bool {
    let grace = old.int_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default();
    let held = lifetime == Lifetime::Namespace && has_spec_finalizers(new);
    new.is_deleting() && grace == 0 && new.finalizers().next().is_none() && !held
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn decide(lifetime: Lifetime, object: Value, options: &DeleteOptions) -> String {
        let object = Object(object.as_object().unwrap().clone());
        let rules = DeleteRules { lifetime, orphans_by_default: false };
        match decide_delete(&object, options, rules, NOW.parse().unwrap()) {
            DeleteDecision::Remove => "remove".to_owned(),
            DeleteDecision::Pending => "pending".to_owned(),
            DeleteDecision::Refuse(why) => why.split(" does").next().unwrap_or_default().to_owned(),
            DeleteDecision::Mark(object) => {
                let text = |path: &[&str]| object.at(path).map_or_else(|| "-".to_owned(), ToString::to_string);
                let finalizers: Vec<&str> = object.finalizers().collect();
                format!(
                    "mark {} {} {finalizers:?} gen {}",
                    text(&["metadata", "deletionTimestamp"]),
                    text(&["metadata", "deletionGracePeriodSeconds"]),
                    object.generation()
                )
            }
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    fn propagation(propagation: Propagation) -> DeleteOptions {
        DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
    }

    #[test]
    fn objects_with_and_without_finalizers() {
        let plain = json!({"metadata": {"uid": "u", "resourceVersion": "7"}});
        let held = json!({"metadata": {"finalizers": ["x/y"], "generation": 3}});
        let marked = json!({"metadata": {"finalizers": ["x/y"], "generation": 4,
            "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}});
        let none = DeleteOptions::default();
        let uid = DeleteOptions { uid: Some("v".to_owned()), ..none.clone() };
        let version = DeleteOptions { resource_version: Some("8".to_owned()), ..none.clone() };
        let cases = [
            (plain.clone(), none.clone(), "remove"),
            (plain.clone(), uid, "the UID in the precondition (v)"),
            (plain.clone(), version, "the ResourceVersion in the precondition (8)"),
            (plain.clone(), propagation(Propagation::Orphan), "mark \"2026-01-01T00:01:00Z\" 0 [\"orphan\"] gen 0"),
            (
                plain,
                propagation(Propagation::Foreground),
                "mark \"2026-01-01T00:01:00Z\" 0 [\"foregroundDeletion\"] gen 0",
            ),
            (held, none.clone(), "mark \"2026-01-01T00:01:00Z\" 0 [\"x/y\"] gen 4"),
            (marked.clone(), none, "pending"),
            (
                marked,
                propagation(Propagation::Foreground),
                "mark \"2026-01-01T00:00:00Z\" 0 [\"x/y\", \"foregroundDeletion\"] gen 4",
            ),
        ];
        for (object, options, expected) in cases {
            assert_eq!(decide(Lifetime::Immediate, object.clone(), &options), expected, "{object} {options:?}");
        }
    }

    #[test]
    fn pods_and_their_grace() {
        let bound =
            json!({"metadata": {"generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let free = json!({"metadata": {}, "spec": {"terminationGracePeriodSeconds": 30}});
        let ended = json!({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}});
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:30Z", "deletionGracePeriodSeconds": 30,
            "generation": 2}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let cases = [
            (&bound, DeleteOptions::default(), "mark \"2026-01-01T00:01:30Z\" 30 [] gen 2"),
            (&bound, grace(5), "mark \"2026-01-01T00:01:05Z\" 5 [] gen 2"),
            (&bound, grace(-1), "mark \"2026-01-01T00:01:01Z\" 1 [] gen 2"),
            (&bound, grace(i64::MAX), "mark \"2125-12-08T00:01:00Z\" 3153600000 [] gen 2"),
            (&bound, grace(0), "remove"),
            (&free, DeleteOptions::default(), "remove"),
            (&ended, DeleteOptions::default(), "remove"),
            (&going, DeleteOptions::default(), "pending"),
            (&going, grace(60), "pending"),
            (&going, grace(10), "mark \"2026-01-01T00:01:10Z\" 10 [] gen 2"),
            (&going, grace(0), "remove"),
        ];
        for (object, options, expected) in cases {
            assert_eq!(decide(Lifetime::Graceful, object.clone(), &options), expected, "{object} {options:?}");
        }
    }

    #[test]
    fn namespaces_end_after_their_content() {
        let active = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        let ending =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}});
        let empty = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        let none = DeleteOptions::default();
        assert_eq!(decide(Lifetime::Namespace, active, &none), "mark \"2026-01-01T00:01:00Z\" - [] gen 0");
        assert_eq!(decide(Lifetime::Namespace, ending, &none), "pending");
        assert_eq!(decide(Lifetime::Namespace, empty, &none), "remove");
    }
}
