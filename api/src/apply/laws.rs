//! The laws of server-side apply, for generated objects of every kind.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::Value;

use super::{Operation, apply};
use crate::{
    kinds::{Kinds, ResourceDef},
    object::Object,
    protobuf::tests::Maker,
    schema::Schemas,
};

const NOON: &str = "2026-01-01T12:00:00Z";
const LATER: &str = "2026-01-01T13:00:00Z";

/// Who applies to objects of one kind.
struct Kind {
    def: &'static ResourceDef,
}

impl Kind {
    fn apply(&self, manager: &str, now: &str, live: Option<&Object>, wanted: &Object) -> Result<Object, String> {
        let schema = Schemas::builtin().of_kind(&self.def.gvk).unwrap();
        let operation = Operation { schema, manager, subresource: "", has_status: true, now: now.parse().unwrap() };
        apply(&operation, live, wanted, false).map_err(|error| error.message)
    }

    /// An object as a client applies it; `None` for one that lists an entry twice, which no client may.
    fn wanted(&self, seed: u64) -> Option<Object> {
        let schema = Schemas::builtin().of_kind(&self.def.gvk).unwrap();
        let mut value = Maker::new(seed).object(&self.def.gvk.api_version(), &self.def.gvk.kind, schema);
        value["metadata"] = serde_json::json!({"name": "a", "labels": {"made": seed.to_string()}});
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("status");
        }
        let object = Object(value.as_object().cloned().unwrap());
        self.apply("one", NOON, None, &object).is_ok().then_some(object)
    }

    fn nothing(&self) -> Object {
        let value = serde_json::json!({"apiVersion": self.def.gvk.api_version(), "kind": self.def.gvk.kind,
            "metadata": {"name": "a"}});
        Object(value.as_object().cloned().unwrap())
    }
}

/// What an object says, without who says it.
fn said(object: &Object) -> Value {
    let mut value = Value::Object(object.0.clone());
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.shift_remove("managedFields");
    }
    value
}

fn managers(object: &Object) -> Vec<&str> {
    let entries = object.at(&["metadata", "managedFields"]).and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(|entry| entry["manager"].as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn of_every_kind(seed in any::<u64>()) {
        let mut tried = 0;
        for def in Kinds::builtin().iter() {
            let kind = Kind { def };
            let Some(wanted) = kind.wanted(seed) else { continue };
            tried += 1;
            let once = kind.apply("one", NOON, None, &wanted).unwrap();
            // Applied again, nothing changes, not even the time.
            prop_assert_eq!(&kind.apply("one", LATER, Some(&once), &wanted).unwrap(), &once);
            // Who wants the same is in nobody's way, and shares.
            let both = kind.apply("two", NOON, Some(&once), &wanted).unwrap();
            prop_assert_eq!(said(&both), said(&once), "{:?}", def.gvk);
            prop_assert_eq!(managers(&both), ["one", "two"]);
            // In either order.
            let other = kind.apply("one", NOON, Some(&kind.apply("two", NOON, None, &wanted).unwrap()), &wanted).unwrap();
            prop_assert_eq!(said(&other), said(&both), "{:?}", def.gvk);
            // Who lets go leaves what the other wants.
            let left = kind.apply("one", LATER, Some(&both), &kind.nothing()).unwrap();
            prop_assert_eq!(said(&left), said(&once), "{:?}", def.gvk);
            prop_assert_eq!(managers(&left), ["two"]);
        }
        prop_assert!(tried * 3 > Kinds::builtin().iter().count(), "{} kinds were tried", tried);
    }
}
