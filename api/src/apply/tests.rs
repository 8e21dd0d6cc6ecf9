#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::{kinds::GroupVersionKind, schema::Schemas};

const NOON: &str = "2026-01-01T12:00:00Z";
const LATER: &str = "2026-01-01T13:00:00Z";

fn operation<'a>(manager: &'a str, now: &str) -> Operation<'a> {
    let schema = Schemas::builtin().of_kind(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap();
    Operation { schema, manager, subresource: "", has_status: true, now: now.parse().unwrap() }
}

fn object(mut value: Value) -> Object {
    value["apiVersion"] = "apps/v1".into();
    value["kind"] = "Deployment".into();
    value["metadata"]["name"] = "web".into();
    serde_json::from_value::<Map<String, Value>>(value).map(Object).unwrap()
}

/// The fields of a manager.
fn fields(object: &Object, manager: &str) -> Value {
    let list = object.at(&["metadata", "managedFields"]).and_then(Value::as_array).cloned().unwrap_or_default();
    list.into_iter()
        .find(|entry| entry["manager"] == manager)
        .map(|entry| entry["fieldsV1"].clone())
        .unwrap_or_default()
}

fn apply_as(manager: &str, live: Option<&Object>, value: Value) -> Result<Object, ApiError> {
    apply(&operation(manager, NOON), live, &object(value), false)
}

#[test]
fn applied_fields_are_owned() {
    let value = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "1"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "args": ["x"]}]}}}});
    let made = apply_as("me", None, value).unwrap();
    assert_eq!(
        fields(&made, "me"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {},
                "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:args": {}, "f:image": {}, "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    let entry = &made.at(&["metadata", "managedFields"]).unwrap()[0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!((&entry["time"], &entry["fieldsType"]), (&json!(NOON), &json!("FieldsV1")));
}

#[test]
fn what_is_created_is_owned_as_in_kubernetes() {
    let mut new = object(json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}}},
        "status": {"replicas": 1}}));
    track_update(&operation("kubectl-create", NOON), None, &mut new);
    assert_eq!(
        fields(&new, "kubectl-create"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}}}}})
    );
}

#[test]
fn another_managers_field_is_a_conflict_unless_forced() {
    let mut live = object(json!({"spec": {"replicas": 1, "paused": true}}));
    track_update(&operation("mgr", NOON), None, &mut live);
    let error = apply_as("me", Some(&live), json!({"spec": {"replicas": 2}})).unwrap_err();
    assert_eq!(error.code, 409);
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"mgr\" using apps/v1: .spec.replicas");
    assert_eq!(
        error.details["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"mgr\" using apps/v1", "field": ".spec.replicas"}])
    );
    let error = apply_as("me", Some(&live), json!({"spec": {"replicas": 2, "paused": false}})).unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"mgr\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let forced = apply(&operation("me", LATER), Some(&live), &object(json!({"spec": {"replicas": 2}})), true).unwrap();
    assert_eq!(forced.int_at(&["spec", "replicas"]), Some(2));
    assert_eq!(fields(&forced, "me"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&forced, "mgr"), json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn the_same_value_is_shared() {
    let one = apply_as("one", None, json!({"spec": {"replicas": 2}})).unwrap();
    let both = apply_as("two", Some(&one), json!({"spec": {"replicas": 2}})).unwrap();
    assert_eq!(fields(&both, "one"), fields(&both, "two"));
    // One lets go: the other still has it. Both let go: it is gone.
    let left = apply_as("one", Some(&both), json!({})).unwrap();
    assert_eq!(left.int_at(&["spec", "replicas"]), Some(2));
    let gone = apply_as("two", Some(&left), json!({})).unwrap();
    assert_eq!(gone.at(&["spec", "replicas"]), None);
    assert_eq!(gone.at(&["metadata", "managedFields"]), None);
}

#[test]
fn list_entries_are_removed_with_what_nobody_owns_in_them() {
    let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    let mut live =
        apply_as("me", None, containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]))).unwrap();
    // A default, which nobody owns.
    live.0["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = "Always".into();
    let left = apply_as("me", Some(&live), containers(json!([{"name": "a", "image": "3"}]))).unwrap();
    assert_eq!(left.at(&["spec", "template", "spec", "containers"]), Some(&json!([{"name": "a", "image": "3"}])));
}

#[test]
fn an_apply_that_changes_nothing_keeps_the_time() {
    let one = apply_as("me", None, json!({"spec": {"replicas": 2}})).unwrap();
    let again = apply(&operation("me", LATER), Some(&one), &object(json!({"spec": {"replicas": 2}})), false).unwrap();
    assert_eq!(again, one);
    let mut updated = one.clone();
    track_update(&operation("me", LATER), Some(&one), &mut updated);
    assert_eq!(updated.to_vec(), one.to_vec());
}

#[test]
fn an_update_takes_fields_over_and_a_subresource_is_another_manager() {
    let one = apply_as("me", None, json!({"spec": {"replicas": 2, "paused": true}})).unwrap();
    let mut two = one.clone();
    two.set_at(&["spec", "replicas"], 3);
    track_update(&Operation { subresource: "scale", ..operation("hpa", LATER) }, Some(&one), &mut two);
    assert_eq!(fields(&two, "me"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields(&two, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    let error = apply_as("me", Some(&two), json!({"spec": {"replicas": 2, "paused": true}})).unwrap_err();
    assert!(error.message.contains("\"hpa\" with subresource \"scale\" using apps/v1"), "{error}");
    // The status is not written by the main resource, nor the rest by the status.
    let mut three = two.clone();
    three.set_at(&["status", "replicas"], 3);
    track_update(&Operation { subresource: "status", ..operation("kcm", LATER) }, Some(&two), &mut three);
    assert_eq!(fields(&three, "kcm"), json!({"f:status": {"f:replicas": {}}}));
}

#[test]
fn untracked_objects_and_resets() {
    let mut live = object(json!({"metadata": {"uid": "u"}, "spec": {"replicas": 1}}));
    let old = live.clone();
    track_update(&operation("me", NOON), Some(&old), &mut live);
    assert_eq!(live, old);
    let error = apply_as("me", Some(&live), json!({"spec": {"replicas": 2}})).unwrap_err();
    assert!(error.message.contains("conflict with \"before-first-apply\" using apps/v1"), "{error}");
    let tracked = apply_as("me", None, json!({"spec": {"replicas": 1}})).unwrap();
    let mut reset = tracked.clone();
    reset.set_at(&["metadata", "managedFields"], json!([{}]));
    track_update(&operation("me", NOON), Some(&tracked), &mut reset);
    assert_eq!(reset.at(&["metadata", "managedFields"]), None);
}

#[test]
fn refused() {
    let twice = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}});
    let error = apply_as("me", None, twice).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            500,
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): \
             .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
        )
    );
    let odd = json!({"spec": {"replicas": "two", "foo": 1, "template": {"spec": {"containers": ["a"]}}}});
    assert_eq!(
        apply_as("me", None, odd).unwrap_err().message,
        "failed to create typed patch object (/web; apps/v1, Kind=Deployment): errors:\n  \
         .spec.replicas: expected numeric (int or float), got string\n  \
         .spec.foo: field not declared in schema\n  \
         .spec.template.spec.containers: element 0: associative list with keys may not have non-map elements"
    );
    let managed = json!({"metadata": {"managedFields": [{}]}});
    assert_eq!(apply_as("me", None, managed).unwrap_err().message, "metadata.managedFields must be nil");
}

/// A Deployment as `kubectl apply` makes it: with its note, and another manager than `kubectl`.
fn client_side(replicas: i64) -> Object {
    let note = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let mut live = object(json!({"metadata": {"annotations":
        {"kubectl.kubernetes.io/last-applied-configuration": note.to_string()}}, "spec": {"replicas": replicas, "paused": true}}));
    track_update(&operation("kubectl-client-side-apply", NOON), None, &mut live);
    live
}

#[test]
fn what_kubectl_applied_by_itself_is_no_conflict_for_kubectl() {
    let live = client_side(2);
    let wants = |replicas: i64| json!({"spec": {"replicas": replicas}});
    assert_eq!(apply_as("other", Some(&live), wants(3)).unwrap_err().code, 409, "it counts for kubectl alone");
    let taken = apply_as("kubectl", Some(&live), wants(3)).unwrap();
    assert_eq!(fields(&taken, "kubectl"), json!({"f:spec": {"f:replicas": {}}}));
    let note = taken.str_at(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"]).unwrap();
    let note: Value = serde_json::from_str(note).unwrap();
    assert_eq!(note["spec"], json!({"replicas": 3}), "the note follows");
    // What has been changed since, or was never noted, is somebody else's.
    let mut scaled = live.clone();
    scaled.set_at(&["spec", "replicas"], 9);
    track_update(&operation("scaler", LATER), Some(&live), &mut scaled);
    let error = apply_as("kubectl", Some(&scaled), wants(3)).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas");
    assert_eq!(apply_as("kubectl", Some(&live), json!({"spec": {"paused": false}})).unwrap_err().code, 409);
}

#[test]
fn many_updaters_are_put_together() {
    let mut live = object(json!({"spec": {}}));
    track_update(&operation("first", NOON), None, &mut live);
    for n in 0..30 {
        let old = live.clone();
        live.set_at(&["metadata", "annotations", &format!("a{n}")], "x");
        let name = format!("m{n:02}");
        let now = format!("2026-01-01T12:{n:02}:00Z");
        track_update(&operation(&name, &now), (n > 0).then_some(&old), &mut live);
    }
    let list = live.at(&["metadata", "managedFields"]).and_then(Value::as_array).unwrap();
    assert_eq!(list.len(), 10);
    assert!(fields(&live, "ancient-changes")["f:metadata"]["f:annotations"]["f:a3"].is_object());
}

/// What a manager may want: some of a few fields, labels and containers.
fn wants() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-d]", "[xy]", 0..3);
    let containers = proptest::collection::btree_map("[a-d]", "[xy]", 0..3);
    (proptest::option::of(0..3u8), labels, containers).prop_map(|(replicas, labels, containers)| {
        let list: Vec<Value> =
            containers.into_iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        let mut value = json!({"metadata": {"labels": labels}, "spec": {"template": {"spec": {"containers": list}}}});
        if let Some(replicas) = replicas {
            value["spec"]["replicas"] = replicas.into();
        }
        value
    })
}

fn force(manager: &str, live: Option<&Object>, value: &Value) -> Object {
    apply(&operation(manager, NOON), live, &object(value.clone()), true).unwrap()
}

/// The object with its lists in one order.
fn sorted(object: &Object) -> Value {
    let mut value = Value::Object(object.0.clone());
    if let Some(list) = value.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) {
        list.sort_by_key(|item| item["name"].to_string());
    }
    value["metadata"]["managedFields"].take();
    value
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in wants(), second in wants()) {
        let live = force("one", None, &first);
        let once = force("two", Some(&live), &second);
        prop_assert_eq!(&force("two", Some(&once), &second), &once);
    }

    #[test]
    fn managers_that_agree_may_come_in_any_order(first in wants(), second in wants()) {
        let ab = apply_as("two", Some(&force("one", None, &first)), second.clone());
        let ba = apply_as("one", Some(&force("two", None, &second)), first);
        prop_assert_eq!(ab.is_ok(), ba.is_ok());
        if let (Ok(ab), Ok(ba)) = (ab, ba) {
            prop_assert_eq!(sorted(&ab), sorted(&ba));
            prop_assert_eq!((fields(&ab, "one"), fields(&ab, "two")), (fields(&ba, "one"), fields(&ba, "two")));
        }
    }

    #[test]
    fn letting_go_of_all_leaves_what_the_other_wants(first in wants(), second in wants()) {
        let alone = force("one", None, &first);
        let both = force("one", Some(&force("two", None, &second)), &first);
        let left = force("two", Some(&both), &json!({}));
        prop_assert_eq!(fields(&left, "one"), fields(&alone, "one"));
        prop_assert_eq!(fields(&left, "two"), Value::Null);
    }

    #[test]
    fn sets_print_and_read_back(value in wants()) {
        let made = force("one", None, &value);
        let printed = fields(&made, "one");
        prop_assert_eq!(FieldSet::of_value(&printed).to_value(), printed);
    }
}
