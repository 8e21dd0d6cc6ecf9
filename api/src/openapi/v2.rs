//! The same documents as one, in the form of Swagger 2.0.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{REFERENCE, bytes, component, components, gnostic, paths, roots};
use crate::kinds::Kinds;

/// `/openapi/v2` as JSON: all built-in kinds.
pub fn v2_document(kinds: &Kinds) -> Vec<u8> {
    bytes(&document(kinds))
}

/// `/openapi/v2` as protobuf.
pub fn v2_protobuf(kinds: &Kinds) -> Vec<u8> {
    document(kinds).as_object().map(gnostic::document).unwrap_or_default()
}

fn document(kinds: &Kinds) -> Value {
    let versions =
        || kinds.groups().iter().flat_map(|group| group.versions.iter().map(move |version| (group, version)));
    let wanted: BTreeSet<String> = versions().flat_map(|(_, version)| roots(version)).collect();
    let definitions: Map<String, Value> =
        components(&wanted).into_iter().map(|(name, schema)| (name, definition(schema))).collect();
    let mut all = Map::new();
    for (group, version) in versions() {
        let own = paths::of_version(&group.name, version, &|gvk| component(gvk));
        all.extend(own.into_iter().map(|(path, item)| (path, path_item(item))));
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": all, "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// A schema: references go to definitions and stand alone, there are no alternatives and no defaults.
fn definition(schema: Value) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    map.shift_remove("default");
    if let Some(kinds) = map.shift_remove("oneOf") {
        // `IntOrString` and `Quantity`, the only types with alternatives, are strings here.
        if kinds.is_array() {
            map.insert("type".to_owned(), "string".into());
        }
    }
    let wrapped = map.shift_remove("allOf").and_then(|list| list.get(0)?.get("$ref").cloned());
    if let Some(path) = wrapped.or_else(|| map.shift_remove("$ref")) {
        let name = path.as_str().and_then(|path| path.strip_prefix(REFERENCE)).unwrap_or_default();
        map.insert("$ref".to_owned(), format!("#/definitions/{name}").into());
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(value) = map.get_mut(inner) {
            *value = definition(value.take());
        }
    }
    if let Some(fields) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for field in fields.values_mut() {
            *field = definition(field.take());
        }
    }
    Value::Object(map)
}

fn path_item(item: Value) -> Value {
    let Value::Object(map) = item else { return item };
    let members = map.into_iter().map(|(name, value)| match name.as_str() {
        "parameters" => (name, parameters(value, None)),
        _ => (name, operation(value)),
    });
    Value::Object(members.collect())
}

fn operation(operation: Value) -> Value {
    let Value::Object(mut map) = operation else { return operation };
    let body = map.shift_remove("requestBody");
    let forms = body.as_ref().and_then(|body| body.get("content")).and_then(Value::as_object);
    let consumes: Vec<&String> = forms.into_iter().flatten().map(|(form, _)| form).collect();
    map.insert(
        "consumes".to_owned(),
        json!(if consumes.is_empty() { vec!["*/*"] } else { consumes.iter().map(|f| f.as_str()).collect() }),
    );
    map.insert("produces".to_owned(), json!(["application/json", "application/yaml"]));
    let given = map.shift_remove("parameters").unwrap_or_default();
    let parameters = parameters(given, body.as_ref());
    map.insert("parameters".to_owned(), parameters);
    if let Some(codes) = map.get_mut("responses").and_then(Value::as_object_mut) {
        for answer in codes.values_mut().filter_map(Value::as_object_mut) {
            let content = answer.shift_remove("content");
            if let Some(schema) = content.as_ref().and_then(first_schema) {
                answer.insert("schema".to_owned(), definition(schema));
            }
        }
    }
    Value::Object(map)
}

fn first_schema(content: &Value) -> Option<Value> {
    content.as_object()?.values().next()?.get("schema").cloned()
}

/// Parameters say their type themselves, and the body is one of them.
fn parameters(list: Value, body: Option<&Value>) -> Value {
    let Value::Array(list) = list else { return list };
    let mut flat: Vec<Value> = list
        .into_iter()
        .map(|mut parameter| {
            let schema = parameter.get_mut("schema").map(Value::take);
            if let (Some(map), Some(Value::Object(schema))) = (parameter.as_object_mut(), schema) {
                map.shift_remove("schema");
                map.extend(schema);
            }
            parameter
        })
        .collect();
    if let Some(schema) = body.and_then(|body| first_schema(body.get("content")?)) {
        let required = body.and_then(|body| body.get("required")).cloned().unwrap_or(Value::Bool(false));
        flat.push(json!({"name": "body", "in": "body", "required": required, "schema": definition(schema)}));
    }
    Value::Array(flat)
}
