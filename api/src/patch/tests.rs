#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn gvk(group: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind { group: group.to_owned(), version: "v1".to_owned(), kind: kind.to_owned() }
}

fn object(value: &Value) -> Object {
    Object(value.as_object().unwrap().clone())
}

fn try_patch(form: ContentType, original: &Value, patch: &Value) -> Result<Value, ApiError> {
    let patch = serde_json::to_vec(patch).unwrap();
    apply(form, &gvk("", "Pod"), &object(original), &patch, FieldValidation::Warn).map(|object| Value::Object(object.0))
}

/// A strategic merge patch of a pod.
#[track_caller]
fn strategic_gives(original: Value, patch: Value, expected: Value) {
    let result = try_patch(ContentType::StrategicMergePatch, &original, &patch).unwrap();
    assert_eq!(result.to_string(), expected.to_string());
}

#[track_caller]
fn strategic_fails(original: Value, patch: Value, code: u16, message: &str) {
    let error = try_patch(ContentType::StrategicMergePatch, &original, &patch).unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(message), "{error}");
}

#[test]
fn maps_merge_and_null_deletes() {
    strategic_gives(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"b": null, "c": "3", "d": null}, "annotations": {"x": "y", "z": null}}}),
        json!({"metadata": {"labels": {"a": "1", "c": "3"}, "annotations": {"x": "y"}}}),
    );
    strategic_gives(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
        json!({"metadata": {"labels": {"b": "2"}}}),
    );
    strategic_gives(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"labels": {}}}),
    );
    strategic_fails(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "unknown"}}}),
        400,
        "unknown patch type",
    );
}

#[test]
fn lists_merge_by_key() {
    let original = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "2"}]}});
    strategic_gives(
        original.clone(),
        json!({"spec": {"containers": [{"name": "b", "image": "3"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "3"}]}}),
    );
    // What is new to the server goes first.
    strategic_gives(
        original.clone(),
        json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "a", "env": [{"name": "Y", "value": "2"}]}]}}),
        json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b", "image": "2"}]}}),
    );
    strategic_gives(
        original.clone(),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}),
    );
    strategic_gives(
        original.clone(),
        json!({"spec": {"containers": [{"name": "z", "image": "9"}, {"$patch": "replace"}]}}),
        json!({"spec": {"containers": [{"name": "z", "image": "9"}]}}),
    );
    strategic_fails(
        original.clone(),
        json!({"spec": {"containers": [{"image": "9"}]}}),
        400,
        "does not contain declared merge key: name",
    );
    strategic_fails(
        original,
        json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
        400,
        "merging lists cannot yet",
    );
}

#[test]
fn lists_without_merge_are_replaced() {
    strategic_gives(
        json!({"spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["3"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["3"]}]}}),
    );
}

#[test]
fn scalars_merge_as_a_set_and_are_deleted_by_directive() {
    let original = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    strategic_gives(
        original.clone(),
        json!({"metadata": {"finalizers": ["d", "b"]}}),
        json!({"metadata": {"finalizers": ["d", "a", "b", "c"]}}),
    );
    strategic_gives(
        original.clone(),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "c", "x"]}}),
        json!({"metadata": {"finalizers": ["b"]}}),
    );
    strategic_gives(
        original.clone(),
        json!({"metadata": {"$setElementOrder/finalizers": ["d", "c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}}),
        json!({"metadata": {"finalizers": ["d", "c", "a"]}}),
    );
    strategic_fails(
        original,
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
        400,
        "invalid patch format of primitive list",
    );
}

#[test]
fn element_order_is_kept() {
    let original = json!({"spec": {"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}});
    strategic_gives(
        original.clone(),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}], "containers": [{"name": "n", "image": "x"}]}}),
        json!({"spec": {"containers": [{"name": "server"}, {"name": "b"}, {"name": "n", "image": "x"}, {"name": "a"}]}}),
    );
    strategic_gives(
        original.clone(),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        json!({"spec": {"containers": [{"name": "server"}, {"name": "b"}, {"name": "a"}]}}),
    );
    strategic_gives(
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "b", "$patch": "delete"}]}}),
        json!({"spec": {"containers": []}}),
    );
    strategic_fails(
        original,
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "n"}]}}),
        400,
        "doesn't match $setElementOrder list",
    );
}

#[test]
fn retain_keys_clears_the_rest() {
    let original = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    strategic_gives(
        original.clone(),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
    );
    strategic_fails(
        original,
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/x"}}]}}),
        400,
        "invalid patch format of retainKeys",
    );
}

#[test]
fn a_kind_without_schema_takes_no_strategic_patch() {
    let error =
        apply(ContentType::StrategicMergePatch, &gvk("x.org", "Crd"), &Object::default(), b"{}", FieldValidation::Warn)
            .unwrap_err();
    assert_eq!((error.code, error.reason), (415, Reason::UnsupportedMediaType));
    assert!(!error.message.contains("strategic"));
}

#[test]
fn json_patch() {
    let original = json!({"a": [1, 2], "b": {"c": "d"}});
    let patch = json!([
        {"op": "test", "path": "/b/c", "value": "d"},
        {"op": "test", "path": "/b/x", "value": null},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "remove", "path": "/a/0"},
        {"op": "move", "from": "/b/c", "path": "/e"},
        {"op": "copy", "from": "/a", "path": "/f"},
        {"op": "replace", "path": "/b", "value": {}},
    ]);
    let result = try_patch(ContentType::JsonPatch, &original, &patch).unwrap();
    assert_eq!(result, json!({"a": [2, 3], "b": {}, "e": "d", "f": [2, 3]}));
    for (patch, code) in [
        (json!({}), 400),
        (json!([1]), 400),
        (json!([{"op": "test", "path": "/b/c", "value": "x"}]), 422),
        (json!([{"op": "remove", "path": "/nope"}]), 422),
        (json!([{"op": "replace", "path": "", "value": 1}]), 422),
        (json!([{"op": "unknown", "path": "/a"}]), 422),
        (json!(vec![json!({"op": "test", "path": "/a/0", "value": 1}); 10_001]), 413),
    ] {
        assert_eq!(try_patch(ContentType::JsonPatch, &original, &patch).unwrap_err().code, code, "{patch:.60}");
    }
}

#[test]
fn json_patch_cannot_grow_an_object_without_bound() {
    let doubling: Vec<Value> = (0..60).map(|n| json!({"op": "copy", "from": "", "path": format!("/x{n}")})).collect();
    assert_eq!(try_patch(ContentType::JsonPatch, &json!({"a": "b"}), &json!(doubling)).unwrap_err().code, 422);
    let nesting: Vec<Value> = (0..500).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/x"})).collect();
    assert_eq!(try_patch(ContentType::JsonPatch, &json!({"a": {"b": {}}}), &json!(nesting)).unwrap_err().code, 422);
}

#[test]
fn merge_patch() {
    let original = json!({"a": {"b": 1, "c": [1]}, "d": "e"});
    let patch = json!({"a": {"b": null, "c": [2, null], "n": {"x": null, "y": 1}}, "d": {"z": null}});
    let result = try_patch(ContentType::MergePatch, &original, &patch).unwrap();
    assert_eq!(result, json!({"a": {"c": [2, null], "n": {"y": 1}}, "d": {}}));
    assert_eq!(
        try_patch(ContentType::MergePatch, &original, &json!([1])).unwrap_err().message,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
}

fn names() -> impl Strategy<Value = Vec<Value>> {
    proptest::collection::btree_set("[a-e]", 0..5)
        .prop_map(|names| names.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|names| names.into_iter().map(|name| json!({"name": name})).collect())
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(old in names(), new in names()) {
        let original = json!({"spec": {"containers": old}});
        let patch = json!({"spec": {"containers": new}});
        let once = try_patch(ContentType::StrategicMergePatch, &original, &patch).unwrap();
        let names = |value: &Value| {
            let mut list: Vec<String> = value["spec"]["containers"].as_array().unwrap().iter().map(Value::to_string).collect();
            list.sort();
            list
        };
        let twice = try_patch(ContentType::StrategicMergePatch, &once, &patch).unwrap();
        prop_assert_eq!(names(&once), names(&twice));
        let mut all = names(&original);
        all.extend(names(&patch));
        all.sort();
        all.dedup();
        prop_assert_eq!(names(&once), all);
    }

    #[test]
    fn element_order_decides(old in names(), order in names()) {
        let original = json!({"spec": {"containers": old}});
        let patch = json!({"spec": {"$setElementOrder/containers": order, "containers": order}});
        let result = try_patch(ContentType::StrategicMergePatch, &original, &patch).unwrap();
        let merged = result["spec"]["containers"].as_array().unwrap();
        let kept: Vec<&Value> = merged.iter().filter(|entry| order.contains(entry)).collect();
        prop_assert_eq!(kept, order.iter().collect::<Vec<_>>());
    }
}
