//! Whatever a client sends is answered: no reader, rule or writer panics, of any kind.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    apply::{self, Operation},
    decode::{self, FieldValidation, Form, parse},
    defaults,
    kinds::{Kinds, ResourceDef},
    object::Object,
    patch, protobuf,
    protobuf::tests::Maker,
    request::ContentType,
    schema::Schemas,
    selector::Selector,
    table, validate, warn, wire,
};

/// Values that are seldom where they are.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("\u{0}é😀")),
        Just(json!("x".repeat(300))),
        Just(json!(i64::MIN)),
        Just(json!(i64::MAX)),
        Just(json!("9999999999999999999999Ei")),
        Just(json!([null, {"": [1]}])),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9:./-]{0,20}".prop_map(Value::from),
    ]
}

/// Puts a value in place of the `at`-th of all values.
fn damage(value: &mut Value, at: &mut usize, with: &Value) -> bool {
    if *at == 0 {
        *value = with.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Object(map) => map.values_mut().any(|value| damage(value, at, with)),
        Value::Array(list) => list.iter_mut().any(|value| damage(value, at, with)),
        _ => false,
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(map) => map.values().map(count).sum(),
        Value::Array(list) => list.iter().map(count).sum(),
        _ => 0,
    }
}

fn damaged(value: &Value, wounds: &[(usize, Value)]) -> Value {
    let mut value = value.clone();
    for (at, with) in wounds {
        let mut at = 1 + at % count(&value).max(2);
        damage(&mut value, &mut at, with);
    }
    value
}

/// All that happens to an object between its client and the store.
fn through(def: &ResourceDef, value: &Value, old: Option<&Object>) -> Option<Object> {
    let form = Form::builtin(&def.gvk).unwrap();
    let text = value.to_string();
    for strictness in [FieldValidation::Strict, FieldValidation::Warn] {
        drop(decode::decode(text.as_bytes(), ContentType::Yaml, &def.gvk, form, strictness));
    }
    let decoded = decode::decode(text.as_bytes(), ContentType::Json, &def.gvk, form, FieldValidation::Ignore).ok()?;
    let mut object = decoded.object;
    defaults::apply(&def.gvk, &mut object);
    drop(warn::of_write(def, &object, old));
    drop(validate::create(def, &object));
    if let Some(old) = old {
        drop(validate::update(def, &object, old));
        drop(validate::update(def, old, &object));
    }
    drop(table::row(def, &object, table::IncludeObject::Object, jiff::Timestamp::UNIX_EPOCH));
    let stored = wire::encode(&object);
    assert_eq!(Object::from_slice(&stored).unwrap().name(), object.name());
    let entry = wire::Entry::from_stored(&stored, 7, &def.selectable).unwrap();
    assert_eq!(entry.head, wire::Head::of(&object, &def.selectable));
    drop(protobuf::encode(&entry.json));
    Some(object)
}

fn wounds() -> impl Strategy<Value = Vec<(usize, Value)>> {
    proptest::collection::vec((any::<usize>(), odd()), 0..6)
}

fn kind_of(seed: u64) -> &'static ResourceDef {
    let all: Vec<_> = Kinds::builtin().iter().collect();
    all[usize::try_from(seed).unwrap() % all.len()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_object_of_any_kind_panics(seed in 0..10_000_u64, wounds in wounds()) {
        let def = kind_of(seed);
        let schema = Schemas::builtin().of_kind(&def.gvk).unwrap();
        let whole = Maker::new(seed).object(&def.gvk.api_version(), &def.gvk.kind, schema);
        let old = through(def, &whole, None);
        through(def, &damaged(&whole, &wounds), old.as_ref());
    }

    #[test]
    fn no_patch_of_any_kind_panics(seed in 0..10_000_u64, wounds in wounds(), path in "(/[a-z0-9~-]{0,8}){0,4}") {
        let def = kind_of(seed);
        let schema = Schemas::builtin().of_kind(&def.gvk).unwrap();
        let whole = Maker::new(seed).object(&def.gvk.api_version(), &def.gvk.kind, schema);
        let Value::Object(map) = whole.clone() else { unreachable!("an object") };
        let (object, other) = (Object(map), damaged(&whole, &wounds));
        let text = other.to_string();
        for form in [ContentType::MergePatch, ContentType::StrategicMergePatch] {
            if let Ok(once) = patch::apply(form, &def.gvk, &object, text.as_bytes(), FieldValidation::Warn) {
                drop(patch::apply(form, &def.gvk, &once, text.as_bytes(), FieldValidation::Ignore));
            }
        }
        for op in ["add", "remove", "replace", "move", "copy", "test", "guess"] {
            let operations = json!([{"op": op, "path": path, "from": "/spec", "value": other}]);
            drop(patch::apply(ContentType::JsonPatch, &def.gvk, &object, operations.to_string().as_bytes(), FieldValidation::Warn));
        }
        let now = jiff::Timestamp::UNIX_EPOCH;
        let operation = Operation { schema, manager: "m", subresource: "", has_status: true, now };
        if let Value::Object(map) = other {
            drop(apply::apply(&operation, Some(&object), &Object(map), seed % 2 == 0));
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        drop(parse(text.as_bytes(), false));
        drop(parse(text.as_bytes(), true));
        drop(parse(&bytes, true));
        drop(Selector::parse(Some(&text), Some(&text), &[]));
    }

    #[test]
    fn yaml_of_json_is_the_same(text in r#"(\{"a":([1-9][0-9]{0,2}|true|null|"[a-z]{0,4}"|\[1,"b"\])\}|\["[a-z ]{0,5}"\])"#) {
        let (yaml, json) = (format!("x: {text}"), format!("{{\"x\":{text}}}"));
        prop_assert_eq!(parse(yaml.as_bytes(), true).unwrap(), parse(json.as_bytes(), false).unwrap());
    }

    #[test]
    fn selectors_print_and_read_back(
        keys in proptest::collection::vec("[a-z]{1,4}", 1..4),
        words in proptest::collection::vec("( in \\([a-z]{1,3},[a-z]{1,3}\\)| notin \\([a-z]{1,3}\\)|=[a-z]{0,3}|!=[a-z]{0,3}|>[0-9]{1,3}||)", 4),
    ) {
        let text = keys.iter().zip(&words).map(|(key, word)| format!("{key}{word}")).collect::<Vec<_>>().join(",");
        let read = Selector::parse(Some(&text), None, &[]).unwrap();
        let again = Selector::parse(Some(&read.label_text()), None, &[]).unwrap();
        prop_assert_eq!(again.label_text(), read.label_text());
    }
}
