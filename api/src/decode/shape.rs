//! A value into the shape of its kind.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::MAX_FINDINGS;
use crate::{
    quantity,
    schema::{Format, SchemaRef, Type},
};

mod time;

/// A value in the shape of its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaped {
    /// The value.
    pub value: Value,
    /// The paths of the fields that were dropped because the kind has none of that name.
    pub unknown: Vec<String>,
}

/// Shapes a value of a built-in kind. Fails on a value of the wrong type, in the words of Go's decoder.
pub fn shape_typed(value: Value, schema: SchemaRef<'_>) -> Result<Shaped, String> {
    let mut walk = Walk::default();
    let shaped = walk.typed(value, schema)?.unwrap_or_default();
    Ok(Shaped { value: shaped, unknown: walk.unknown })
}

/// Shapes a custom resource: what its schema does not name is dropped; types are left to its validation, but for
/// the metadata, which is Kubernetes' own.
pub fn shape_custom(value: Value, schema: SchemaRef<'_>) -> Result<Shaped, String> {
    let mut walk = Walk::default();
    let shaped = walk.custom(value, schema)?;
    Ok(Shaped { value: shaped, unknown: walk.unknown })
}

/// The word of Go's decoder for the type of a JSON value.
pub(crate) fn json_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Where the walk is, and what it has found.
#[derive(Default)]
struct Walk<'a> {
    /// The path with indices, as findings print it.
    path: String,
    /// The path of struct fields alone, as type errors print it.
    fields: String,
    /// The struct that has the present field.
    owner: &'a str,
    unknown: Vec<String>,
}

impl<'a> Walk<'a> {
    fn unknown(&mut self, name: &str) {
        if self.unknown.len() < MAX_FINDINGS {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.unknown.push(format!("{}{dot}{name}", self.path));
        }
    }

    /// Goes one field deeper and back.
    fn field<T>(&mut self, name: &str, step: impl FnOnce(&mut Self) -> T) -> T {
        let (path, fields) = (self.path.len(), self.fields.len());
        for text in [&mut self.path, &mut self.fields] {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        let result = step(self);
        self.path.truncate(path);
        self.fields.truncate(fields);
        result
    }

    /// Goes one index or map key deeper and back.
    fn entry<T>(&mut self, segment: std::fmt::Arguments<'_>, step: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let _ = self.path.write_fmt(segment);
        let result = step(self);
        self.path.truncate(length);
        result
    }

    fn mismatch(&self, value: &Value, schema: SchemaRef<'_>) -> String {
        let owner = self.owner.rsplit('.').next().unwrap_or_default();
        let mut word = json_word(value).to_owned();
        if let (Value::Number(number), Type::Integer) = (value, schema.ty()) {
            word = format!("number {number}");
        }
        let go = go_type(schema);
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {word} into Go value of type {go}");
        }
        format!("json: cannot unmarshal {word} into Go struct field {owner}.{} of type {go}", self.fields)
    }

    /// `None` where the value is the same as absent.
    fn typed(&mut self, value: Value, schema: SchemaRef<'a>) -> Result<Option<Value>, String> {
        match (schema.ty(), value) {
            (_, Value::Null) => Ok(None),
            (Type::Any, value) => Ok(Some(value)),
            (Type::Object, Value::Object(map)) => match schema.additional() {
                Some(values) => self.typed_map(map, values).map(Some),
                None => self.typed_struct(map, schema).map(Some),
            },
            (Type::Array, Value::Array(list)) => self.typed_list(list, schema).map(Some),
            (Type::String, Value::String(text)) => self.text(text, schema).map(Some),
            (Type::Integer, Value::Number(number)) => {
                whole(&number, schema.format()).map(Some).ok_or_else(|| self.mismatch(&Value::Number(number), schema))
            }
            (Type::Boolean, value @ Value::Bool(_))
            | (Type::Number, value @ Value::Number(_))
            | (Type::IntOrString, value @ Value::String(_)) => Ok(Some(value)),
            (Type::IntOrString, Value::Number(number)) => {
                whole(&number, Format::Int32).map(Some).ok_or_else(|| self.mismatch(&Value::Number(number), schema))
            }
            (Type::Quantity, Value::String(text)) => amount(text.trim()).map(Some),
            (Type::Quantity, Value::Number(number)) => amount(&number.to_string()).map(Some),
            (_, value) => Err(self.mismatch(&value, schema)),
        }
    }

    fn text(&self, text: String, schema: SchemaRef<'_>) -> Result<Value, String> {
        match schema.format() {
            Format::Time | Format::MicroTime => time::canonical(&text, schema.format() == Format::MicroTime),
            Format::Byte => match bad_base64(&text) {
                Some(at) => Err(format!("illegal base64 data at input byte {at}")),
                None => Ok(text.into()),
            },
            _ => Ok(text.into()),
        }
    }

    fn typed_struct(&mut self, map: Map<String, Value>, schema: SchemaRef<'a>) -> Result<Value, String> {
        let outer = self.owner;
        self.owner = schema.name().unwrap_or(outer);
        let mut shaped = Map::new();
        for (name, value) in map {
            let Some(field) = schema.property(&name) else {
                self.unknown(&name);
                continue;
            };
            let value = self.field(&name, |walk| walk.typed(value, field))?;
            let keeps_empty = || schema.required().any(|known| known == name);
            if let Some(value) = value.filter(|value| !vanishes(value, field) || keeps_empty()) {
                shaped.insert(name, value);
            }
        }
        for (name, field) in schema.properties() {
            if !shaped.contains_key(name)
                && let Some(value) = self.always_printed(field)?
            {
                shaped.insert(name.to_owned(), value);
            }
        }
        self.owner = outer;
        Ok(Value::Object(shaped))
    }

    /// What an absent field has nevertheless: its default, or the zero value that Go prints.
    fn always_printed(&mut self, field: SchemaRef<'a>) -> Result<Option<Value>, String> {
        match field.default() {
            Some(Value::Object(_)) if field.ty() == Type::Object => self.typed(Value::Object(Map::new()), field),
            Some(Value::Object(_)) | None => Ok(None),
            Some(default) => Ok(Some(default.clone())),
        }
    }

    fn typed_map(&mut self, map: Map<String, Value>, values: SchemaRef<'a>) -> Result<Value, String> {
        let mut shaped = Map::new();
        for (name, value) in map {
            let value = self.entry(format_args!(".{name}"), |walk| walk.typed(value, values))?;
            shaped.insert(name, value.unwrap_or_else(|| zero(values)));
        }
        Ok(Value::Object(shaped))
    }

    fn typed_list(&mut self, list: Vec<Value>, schema: SchemaRef<'a>) -> Result<Value, String> {
        let Some(items) = schema.items() else { return Ok(Value::Array(list)) };
        let mut shaped = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let value = self.entry(format_args!("[{index}]"), |walk| walk.typed(value, items))?;
            shaped.push(value.unwrap_or_else(|| zero(items)));
        }
        Ok(Value::Array(shaped))
    }

    fn custom(&mut self, value: Value, schema: SchemaRef<'a>) -> Result<Value, String> {
        match value {
            Value::Object(map) => self.custom_object(map, schema).map(Value::Object),
            Value::Array(list) => {
                let Some(items) = schema.items() else { return Ok(Value::Array(list)) };
                let entries = list.into_iter().enumerate();
                let shaped: Result<Vec<Value>, String> = entries
                    .map(|(index, value)| self.entry(format_args!("[{index}]"), |walk| walk.custom(value, items)))
                    .collect();
                shaped.map(Value::Array)
            }
            other => Ok(other),
        }
    }

    fn custom_object(&mut self, map: Map<String, Value>, schema: SchemaRef<'a>) -> Result<Map<String, Value>, String> {
        let is_object = schema.embedded_resource() || self.path.is_empty();
        let mut shaped = Map::new();
        for (name, value) in map {
            let field = schema.property(&name).or_else(|| schema.additional());
            let kept = match field {
                Some(metadata) if is_object && name == "metadata" => {
                    self.field(&name, |walk| walk.typed(value, metadata))?
                }
                Some(field) => Some(self.field(&name, |walk| walk.custom(value, field))?),
                None if schema.preserve_unknown() => Some(value),
                None => {
                    self.unknown(&name);
                    None
                }
            };
            kept.and_then(|value| shaped.insert(name, value));
        }
        Ok(shaped)
    }
}

/// Whether Go would not print a value: an empty list or map, which `omitempty` leaves out.
fn vanishes(value: &Value, field: SchemaRef<'_>) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && field.ty() == Type::Object && field.additional().is_some(),
        _ => false,
    }
}

/// The value that Go has for a null in a list or a map.
fn zero(schema: SchemaRef<'_>) -> Value {
    match schema.ty() {
        Type::String => "".into(),
        Type::Integer | Type::Number | Type::IntOrString => 0.into(),
        Type::Quantity => "0".into(),
        Type::Boolean => false.into(),
        Type::Object => Value::Object(Map::new()),
        Type::Any | Type::Array => Value::Null,
    }
}

/// The number as a whole one that fits its format.
fn whole(number: &serde_json::Number, format: Format) -> Option<Value> {
    let value = number.as_i64()?;
    let fits = format != Format::Int32 || i32::try_from(value).is_ok();
    fits.then(|| value.into())
}

fn amount(text: &str) -> Result<Value, String> {
    quantity::canonical(text).map(Value::String).ok_or_else(|| {
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned()
    })
}

/// Where standard base64 with padding breaks off, newlines apart.
fn bad_base64(text: &str) -> Option<usize> {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let (mut digits, mut padding) = (0_usize, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if digits % 4 >= 2 && (digits + padding) % 4 != 0 => padding += 1,
            _ if is_digit(byte) && padding == 0 => digits += 1,
            _ => return Some(at),
        }
    }
    ((digits + padding) % 4 != 0).then_some(text.len() - (text.len() % 4))
}

/// The type as Go's errors name it.
fn go_type(schema: SchemaRef<'_>) -> String {
    let short = |name: &str| {
        let mut parts = name.rsplit('.');
        let kind = parts.next().unwrap_or_default();
        format!("{}.{kind}", parts.next().unwrap_or_default())
    };
    match (schema.ty(), schema.format()) {
        _ if schema.name().is_some() => short(schema.name().unwrap_or_default()),
        (Type::Array, _) => format!("[]{}", schema.items().map_or("interface {}".to_owned(), go_type)),
        (Type::Object, _) => {
            format!("map[string]{}", schema.additional().map_or("interface {}".to_owned(), go_type))
        }
        (Type::String, Format::Byte) => "[]uint8".to_owned(),
        (Type::Integer, Format::Int32) => "int32".to_owned(),
        (Type::Integer, _) => "int64".to_owned(),
        (Type::Number, _) => "float64".to_owned(),
        (Type::Boolean, _) => "bool".to_owned(),
        (Type::String, _) => "string".to_owned(),
        _ => "interface {}".to_owned(),
    }
}
