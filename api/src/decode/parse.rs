//! JSON and YAML text to values, with the duplicate fields that a map of values cannot show.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::MAX_FINDINGS;

/// How deep a body may nest.
pub(super) const MAX_DEPTH: usize = 100;

/// Parsed text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The value; of a duplicate field the last one.
    pub value: Value,
    /// `duplicate field "spec.a"` for each.
    pub duplicates: Vec<String>,
}

impl From<Value> for Parsed {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

/// Parses a body. The error is the parser's sentence.
pub fn parse(body: &[u8], is_yaml: bool) -> Result<Parsed, String> {
    let text = std::str::from_utf8(body).map_err(|_| "invalid UTF-8 in the body".to_owned())?;
    let mut found = Found::default();
    let looks_like_json = text.trim_start().starts_with('{');
    let value = if is_yaml && !looks_like_json {
        let deserializer = serde_yaml_ng::Deserializer::from_str(text);
        Node { found: &mut found, depth: 0 }.deserialize(deserializer).map_err(|error| go_yaml_words(&error))?
    } else {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Node { found: &mut found, depth: 0 }.deserialize(&mut deserializer);
        value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| go_words(text, &error))?
    };
    Ok(Parsed { value, duplicates: found.duplicates })
}

/// The sentence of Go's parser, where serde's has an equal.
fn go_words(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = line.as_bytes().get(error.column().saturating_sub(1)).map(|byte| char::from(*byte));
    match at {
        Some(character) if error.line() == 1 && error.column() <= 1 => {
            format!("invalid character '{character}' looking for beginning of value")
        }
        _ => error.to_string(),
    }
}

/// The sentence of Go's YAML parser, which counts lines from 0 and does not tell of the first.
fn go_yaml_words(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or_default();
    let line = error.location().map_or(0, |place| place.line().saturating_sub(1));
    let place = if line == 0 { String::new() } else { format!("line {line}: ") };
    format!("error converting YAML to JSON: yaml: {place}{problem}")
}

/// Where the parser is, and what it has found.
#[derive(Default)]
struct Found {
    path: String,
    duplicates: Vec<String>,
}

impl Found {
    /// Does something at a deeper path.
    fn at<T>(&mut self, segment: fmt::Arguments<'_>, step: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        // Writing to a string does not fail.
        let _ = fmt::write(&mut self.path, segment);
        let result = step(self);
        self.path.truncate(length);
        result
    }

    fn duplicate(&mut self, name: &str) {
        if self.duplicates.len() < MAX_FINDINGS {
            let path = format!("{}.{name}", self.path);
            self.duplicates.push(format!("duplicate field {:?}", path.trim_start_matches('.')));
        }
    }
}

/// One value of the text.
struct Node<'a> {
    found: &'a mut Found,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("exceeded max depth"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let depth = self.depth + 1;
            let next = self
                .found
                .at(format_args!("[{}]", list.len()), |found| access.next_element_seed(Node { found, depth }))?;
            match next {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key_seed(Key)? {
            if map.contains_key(&name) {
                self.found.duplicate(&name);
            }
            let depth = self.depth + 1;
            let value =
                self.found.at(format_args!(".{name}"), |found| access.next_value_seed(Node { found, depth }))?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key: a string, or a YAML scalar that reads as one.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
}
