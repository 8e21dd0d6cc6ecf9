//! A few fields out of JSON text, without making values of all the others.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The values at some dotted paths, in their order; null where there is none. Fails where the text is no JSON.
pub(super) fn pick(json: &[u8], paths: &[&str]) -> Result<Vec<Value>, serde_json::Error> {
    let mut found = vec![Value::Null; paths.len()];
    let wanted = paths.iter().enumerate().map(|(index, path)| (index, *path)).collect();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Picker { wanted, found: &mut found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// What is wanted of one value: the rest of each path, with its place in the answer.
struct Picker<'a> {
    wanted: Vec<(usize, &'a str)>,
    found: &'a mut [Value],
}

/// A field's name, borrowed from the text where it has no escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Names)
    }
}

impl<'de> DeserializeSeed<'de> for Picker<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Picker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = access.next_key()? {
            let mut whole = None;
            let mut inner = Vec::new();
            for (index, path) in &self.wanted {
                match path.split_once('.') {
                    None if *path == name => whole = Some(*index),
                    Some((first, rest)) if first == name => inner.push((*index, rest)),
                    _ => {}
                }
            }
            match whole {
                Some(index) => {
                    let value = access.next_value()?;
                    if let Some(place) = self.found.get_mut(index) {
                        *place = value;
                    }
                }
                None if inner.is_empty() => drop(access.next_value::<IgnoredAny>()?),
                None => access.next_value_seed(Picker { wanted: inner, found: self.found })?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
