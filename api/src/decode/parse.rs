//! JSON and YAML text to values, with the duplicate fields that a map of values cannot show.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{MAX_FINDINGS, syntax};

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

/// Parses a body. The error is the sentence of Go's parser.
pub fn parse(body: &[u8], is_yaml: bool) -> Result<Parsed, String> {
    if !is_yaml {
        return json(body);
    }
    // JSON is YAML, and quicker to read as what it is.
    let looks_like_json = body.trim_ascii_start().first() == Some(&b'{');
    let parsed = if looks_like_json { json(body).ok() } else { None };
    parsed.map_or_else(|| yaml(body), Ok)
}

/// Parses JSON. The error is the sentence of Go's parser.
pub(crate) fn json(body: &[u8]) -> Result<Parsed, String> {
    let text = readable(body);
    json_text(&text).or_else(|why| match syntax::error(body) {
        Some(words) => Err(words),
        // What Go takes all the same: half of a surrogate pair.
        None => json_text(&whole_surrogates(&text)).map_err(|_| why),
    })
}

fn json_text(text: &str) -> Result<Parsed, String> {
    let mut found = Found::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { found: &mut found, depth: 0 }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| error.to_string().split(" at line ").next().unwrap_or_default().to_owned())?;
    Ok(Parsed { value, duplicates: found.duplicates })
}

fn yaml(body: &[u8]) -> Result<Parsed, String> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let leads = body.get(error.valid_up_to()).is_some_and(|byte| (0xc0..0xf8).contains(byte));
        let what = match (error.error_len(), leads) {
            (None, _) => "incomplete UTF-8 octet sequence",
            (_, true) => "invalid trailing UTF-8 octet",
            (_, false) => "invalid leading UTF-8 octet",
        };
        format!("error converting YAML to JSON: yaml: {what}")
    })?;
    let mut found = Found::default();
    let deserializer = serde_yaml_ng::Deserializer::from_str(text);
    let value =
        Node { found: &mut found, depth: 0 }.deserialize(deserializer).map_err(|error| go_yaml_words(&error))?;
    Ok(Parsed { value, duplicates: found.duplicates })
}

/// A body as text: as in Go, a byte that is no UTF-8 becomes the replacement character.
fn readable(body: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(body) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// JSON in which an escape that is half of a surrogate pair is that of the replacement character.
fn whole_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..).filter(|rest| rest.starts_with("\\u"))?.get(2..6)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut whole = String::with_capacity(text.len());
    let mut rest = 0;
    while let Some(at) = text[rest..].find('\\').map(|found| rest + found) {
        whole.push_str(&text[rest..at]);
        let (length, is_half) = match (unit(at), unit(at + 6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, false),
            (Some(0xd800..0xe000), _) => (6, true),
            (Some(_), _) => (6, false),
            (None, _) => (2, false),
        };
        rest = at + length;
        whole.push_str(if is_half { "\\ufffd" } else { text.get(at..rest).unwrap_or_default() });
    }
    whole.push_str(&text[rest..]);
    whole
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
