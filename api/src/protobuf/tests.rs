#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{ProtobufError, decode, encode, list, table::TABLE, watch_frame};
use crate::{
    kinds::GroupVersionKind,
    schema::{Format, SchemaRef, Schemas, Type},
};

fn none() -> GroupVersionKind {
    GroupVersionKind::new("", "", "")
}

fn there_and_back(value: &Value) -> Value {
    let body = encode(value.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {value}"));
    Value::Object(decode(&body, &none()).unwrap_or_else(|error| panic!("{error}: {value}")).0)
}

/// Values of every field, from a seed, in the form that decoding gives them.
pub(crate) struct Maker {
    state: u64,
    /// The schemas of kinds: within others they have no `apiVersion` and `kind`.
    kinds: HashSet<&'static str>,
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Self {
        let schemas = TABLE.kinds().filter_map(|(version, kind)| schema_of(version, kind));
        Self { state: seed | 1, kinds: schemas.filter_map(SchemaRef::name).collect() }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    pub(crate) fn object(&mut self, version: &str, kind: &str, schema: SchemaRef<'static>) -> Value {
        let mut value = self.value(schema, 0);
        value["apiVersion"] = version.into();
        value["kind"] = kind.into();
        value
    }

    fn value(&mut self, schema: SchemaRef<'static>, depth: usize) -> Value {
        let name = schema.name().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        let word = format!("word-{}", self.below(1000));
        match (name, schema.ty(), schema.format()) {
            ("JSONSchemaPropsOrBool", ..) => [json!(true), json!(false), json!({"type": word})][self.pick(3)].clone(),
            ("JSONSchemaPropsOrArray", ..) => [json!({"type": word}), json!([{"type": "a"}, {}])][self.pick(2)].clone(),
            ("JSONSchemaPropsOrStringArray", ..) => [json!({"id": word}), json!(["a", ""])][self.pick(2)].clone(),
            ("RawExtension" | "FieldsV1", ..) | (_, Type::Any, _) => json!({"f:a": {"x": [1, null, word]}}),
            (_, Type::String, Format::Time) => "2026-07-01T10:20:30Z".into(),
            (_, Type::String, Format::MicroTime) => "1969-07-01T10:20:30.123456Z".into(),
            (_, Type::String, Format::Byte) => "aGVsbG8=".into(),
            (_, Type::String, _) => word.into(),
            (_, Type::Integer, _) => [7, -7, i64::from(i32::MAX), i64::from(i32::MIN)][self.pick(4)].into(),
            (_, Type::Number, _) => [json!(1.5), json!(-3)][self.pick(2)].clone(),
            (_, Type::Boolean, _) => true.into(),
            (_, Type::Quantity, _) => "250m".into(),
            (_, Type::IntOrString, _) => [json!(80), json!("http")][self.pick(2)].clone(),
            (_, Type::Array, _) => {
                let count = 1 + self.below(2);
                (0..count).map(|_| self.value(schema.items().unwrap(), depth + 1)).collect::<Vec<_>>().into()
            }
            (_, Type::Object, _) => match schema.additional() {
                Some(values) => json!({"": self.value(values, depth + 1), "key": self.value(values, depth + 1)}),
                None => self.fields(schema, depth).into(),
            },
        }
    }

    fn pick(&mut self, count: u64) -> usize {
        usize::try_from(self.below(count)).unwrap()
    }

    fn fields(&mut self, schema: SchemaRef<'static>, depth: usize) -> Map<String, Value> {
        let is_kind = schema.name().is_some_and(|name| self.kinds.contains(name));
        let mut map = Map::new();
        for (name, field) in schema.properties() {
            let hidden = is_kind && (name == "apiVersion" || name == "kind");
            let chance = 4_u64.saturating_sub(depth as u64 / 4);
            if !hidden && self.below(4) < chance && depth < 12 {
                map.insert(name.to_owned(), self.value(field, depth + 1));
            }
        }
        map
    }
}

fn schema_of(api_version: &str, kind: &str) -> Option<SchemaRef<'static>> {
    Schemas::builtin().of_kind(&GroupVersionKind::parse(api_version, kind))
}

#[test]
fn the_table_is_whole() {
    let text = include_str!("../../data/protobuf.txt");
    let fields = text.lines().filter(|line| line.starts_with(' ')).count();
    assert_eq!(TABLE.len(), (text.lines().count() - fields, fields));
    for def in crate::kinds::Kinds::builtin().iter() {
        assert!(super::has_form(&def.gvk.api_version(), &def.gvk.kind), "{:?}", def.gvk);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_comes_back_as_it_went(seed in any::<u64>()) {
        let mut maker = Maker::new(seed);
        for (version, kind) in TABLE.kinds() {
            if let Some(schema) = schema_of(version, kind) {
                let value = maker.object(version, kind, schema);
                prop_assert_eq!(&there_and_back(&value), &value);
            }
        }
    }

    #[test]
    fn a_damaged_body_is_an_error_or_an_object(seed in any::<u64>(), at in any::<usize>(), byte in any::<u8>()) {
        let pod = Maker::new(seed).object("v1", "Pod", schema_of("v1", "Pod").unwrap());
        let mut body = encode(pod.to_string().as_bytes()).unwrap();
        let at = at % body.len();
        body[at] = byte;
        drop(decode(&body, &none()));
        body.truncate(at);
        drop(decode(&body, &none()));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut body = b"k8s\0".to_vec();
        drop(decode(&bytes, &none()));
        body.extend_from_slice(&bytes);
        drop(decode(&body, &none()));
        let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let mut body = b"k8s\0".to_vec();
        super::writer::bytes(2, &bytes, &mut body);
        drop(decode(&body, &kind));
    }
}

#[test]
fn bytes_as_go_writes_them() {
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a", "generation": 300},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let body = b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x20\n\x06\n\x01a8\xac\x02\x12\x0c\n\nkubernetes\x1a\x08\n\x06Active\x1a\0\"\0";
    assert_eq!(
        encode(namespace.to_string().as_bytes()).unwrap().escape_ascii().to_string(),
        body.escape_ascii().to_string()
    );
    // Go writes every field that is no pointer, empty or not.
    let go = b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x2e\n\x14\n\x01a\x12\0\x1a\0\"\0*\x002\08\xac\x02B\0z\0\x12\x0c\n\nkubernetes\x1a\x08\n\x06Active\x1a\0\"\0";
    let decoded = Value::Object(decode(go, &none()).unwrap().0);
    assert_eq!(decoded, namespace);
}

#[test]
fn a_zero_survives_where_it_says_something() {
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": ""},
        "spec": {"replicas": 0, "minReadySeconds": 0, "paused": false, "selector": {},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "", "image": "", "livenessProbe": {"httpGet": {"port": 0}}}],
                "automountServiceAccountToken": false, "hostNetwork": false, "terminationGracePeriodSeconds": 0,
                "volumes": [{"name": "v", "emptyDir": {}}]}}}});
    let expected = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {},
        "spec": {"replicas": 0, "selector": {}, "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "", "livenessProbe": {"httpGet": {"port": 0}}}],
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                "volumes": [{"name": "v", "emptyDir": {}}]}}}});
    assert_eq!(there_and_back(&deployment), expected);
    let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "spec": {"storageClassName": "", "volumeName": ""}});
    assert_eq!(there_and_back(&claim)["spec"], json!({"storageClassName": ""}));
    let service = json!({"kind": "Service", "apiVersion": "v1", "spec": {"ports": [{"port": 80, "targetPort": 0}]}});
    assert_eq!(there_and_back(&service)["spec"]["ports"], json!([{"port": 80}]));
}

#[test]
fn a_body_without_a_kind_is_of_the_kind_expected() {
    let kind = GroupVersionKind::new("apps", "v1", "DeleteOptions");
    let options = decode(b"k8s\0\x12\x02\x08\x05", &kind).unwrap();
    assert_eq!(
        Value::Object(options.0),
        json!({"kind": "DeleteOptions", "apiVersion": "apps/v1", "gracePeriodSeconds": 5})
    );
    assert!(matches!(decode(b"{}", &kind), Err(ProtobufError::NoMagic)));
    assert!(matches!(
        decode(b"k8s\0", &GroupVersionKind::new("example.com", "v1", "Widget")),
        Err(ProtobufError::UnknownKind { .. })
    ));
}

#[test]
fn a_list_in_parts_is_the_list() {
    let items =
        [json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}), json!({"metadata": {"name": "b"}})];
    let texts: Vec<String> = items.iter().map(Value::to_string).collect();
    for (version, kind) in [
        ("v1", "PodList"),
        ("meta.k8s.io/v1", "PartialObjectMetadataList"),
        ("meta.k8s.io/v1beta1", "PartialObjectMetadataList"),
    ] {
        let parts = list(version, kind, br#"{"resourceVersion":"7"}"#, texts.iter().map(String::as_bytes)).unwrap();
        let body = [parts.head.as_slice(), &parts.items.concat(), parts.tail].concat();
        let expected = json!({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "7"},
            "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]});
        assert_eq!(Value::Object(decode(&body, &none()).unwrap().0), expected);
    }
}

#[test]
fn an_event_is_a_frame() {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}});
    let mut frames = b"before".to_vec();
    watch_frame("ADDED", pod.to_string().as_bytes(), &mut frames).unwrap();
    let frame = &frames[b"before".len()..];
    assert_eq!(frame[..4], u32::try_from(frame.len() - 4).unwrap().to_be_bytes());
    assert_eq!(&frame[4..13], b"\n\x05ADDED\x12\x1c");
    let body = &frame[15..];
    assert_eq!(frame[13..15], [0x0a, u8::try_from(body.len()).unwrap()]);
    assert_eq!(Value::Object(decode(body, &none()).unwrap().0), pod);
}

#[test]
fn depth_and_number_of_values_are_limited() {
    let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    // spec.versions[].schema.openAPIV3Schema, then `not` within `not`.
    let mut inner = Vec::new();
    let wrap = |number: u32, inner: &mut Vec<u8>| {
        let mut outer = Vec::new();
        super::writer::bytes(number, inner, &mut outer);
        *inner = outer;
    };
    (0..200).for_each(|_| wrap(28, &mut inner));
    [1, 4, 7, 2, 2].into_iter().for_each(|number| wrap(number, &mut inner));
    let body = [b"k8s\0".as_slice(), &inner].concat();
    assert!(matches!(decode(&body, &kind), Err(ProtobufError::TooLarge)));
    let containers = [0x12, 0].repeat(super::MAX_VALUES + 1);
    let mut spec = Vec::new();
    super::writer::bytes(2, &containers, &mut spec);
    let mut body = b"k8s\0".to_vec();
    super::writer::bytes(2, &spec, &mut body);
    assert!(matches!(decode(&body, &GroupVersionKind::new("", "v1", "Pod")), Err(ProtobufError::TooLarge)));
}
