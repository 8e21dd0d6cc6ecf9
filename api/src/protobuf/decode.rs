//! Messages to JSON.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::{
    MAGIC, MAX_DEPTH, MAX_VALUES, ProtobufError,
    reader::{Reader, Wire},
    table::{Field, Message, Shape, Table, Type},
};

/// A body's `runtime.Unknown`.
pub(super) struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    /// The object's message.
    pub raw: &'a [u8],
}

/// Opens a body.
pub(super) fn envelope(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut reader = Reader(body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?);
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    while let Some((number, value)) = reader.next()? {
        match number {
            1 => {
                let mut type_meta = Reader(value.bytes()?);
                while let Some((number, value)) = type_meta.next()? {
                    match number {
                        1 => envelope.api_version = value.text()?.to_owned(),
                        2 => envelope.kind = value.text()?.to_owned(),
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = value.bytes()?,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes within limits.
pub(super) struct Decoder<'t> {
    table: &'t Table,
    values_left: usize,
}

impl<'t> Decoder<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self { table, values_left: MAX_VALUES }
    }

    /// Adds the fields of a message to an object. Of a field that comes twice the last value counts, and messages
    /// are merged, as protobuf has it. Unknown fields are skipped.
    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        message: Message,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if depth > MAX_DEPTH {
            return Err(ProtobufError::TooLarge);
        }
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.next()? {
            let Some(field) = self.table.numbered(message, number) else { continue };
            self.count()?;
            match (field.shape, field.ty) {
                (Shape::Inline, Type::Message(inner)) => {
                    self.message(wire.bytes()?, self.table.message(inner), out, depth + 1)?;
                }
                (Shape::One, Type::Message(inner)) => {
                    let Value::Object(map) = out.entry(field.name).or_insert_with(|| Map::new().into()) else {
                        continue;
                    };
                    self.message(wire.bytes()?, self.table.message(inner), map, depth + 1)?;
                }
                (Shape::One | Shape::Inline, ty) => match self.value(wire, ty, field.keeps_zero, depth)? {
                    Some(value) => drop(out.insert(field.name.to_owned(), value)),
                    None => drop(out.shift_remove(field.name)),
                },
                (Shape::List, _) => self.element(wire, field, out, depth)?,
                (Shape::Map, _) => self.entry(wire, field, out, depth)?,
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), ProtobufError> {
        self.values_left = self.values_left.checked_sub(1).ok_or(ProtobufError::TooLarge)?;
        Ok(())
    }

    /// One element of a list, or several that are packed.
    fn element(
        &mut self,
        wire: Wire<'_>,
        field: Field,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let Value::Array(list) = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) else {
            return Ok(());
        };
        if let (Wire::Bytes(packed), Type::Int32 | Type::Int64 | Type::Bool) = (wire, field.ty) {
            let mut reader = Reader(packed);
            while !reader.0.is_empty() {
                self.count()?;
                let wire = Wire::Varint(reader.varint()?);
                list.extend(self.value(wire, field.ty, true, depth)?);
            }
            return Ok(());
        }
        list.push(self.value(wire, field.ty, true, depth)?.unwrap_or_default());
        Ok(())
    }

    fn entry(
        &mut self,
        wire: Wire<'_>,
        field: Field,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let (mut key, mut value) = ("", None);
        let mut reader = Reader(wire.bytes()?);
        while let Some((number, wire)) = reader.next()? {
            match number {
                1 => key = wire.text()?,
                2 => value = Some(wire),
                _ => {}
            }
        }
        let value = self.value(value.unwrap_or(Wire::Bytes(&[])), field.ty, true, depth)?.unwrap_or_default();
        if let Value::Object(map) = out.entry(field.name).or_insert_with(|| Map::new().into()) {
            map.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// One value; `None` where it is zero and zero is the same as absent.
    fn value(
        &mut self,
        wire: Wire<'_>,
        ty: Type,
        keeps_zero: bool,
        depth: usize,
    ) -> Result<Option<Value>, ProtobufError> {
        let (value, is_zero) = match ty {
            Type::String => (wire.text()?.into(), wire.text()?.is_empty()),
            Type::Int32 => (wire.int32()?.into(), wire.int32()? == 0),
            Type::Int64 => (wire.int64()?.into(), wire.int64()? == 0),
            Type::Bool => ((wire.varint()? != 0).into(), wire.varint()? == 0),
            Type::Double => (double(wire.double()?)?, wire.double()? == 0.0),
            Type::Bytes => {
                let bytes = wire.bytes()?;
                (base64::engine::general_purpose::STANDARD.encode(bytes).into(), bytes.is_empty())
            }
            Type::Time { micros } => return time(wire.bytes()?, micros),
            Type::Raw => return raw(wire.bytes()?),
            Type::Quantity => (quantity(wire.bytes()?)?, false),
            Type::IntOrString => int_or_string(wire.bytes()?)?,
            Type::Strings => (self.strings(wire.bytes()?, 1)?, false),
            Type::SchemaOrBool(schema) | Type::SchemaOrList(schema) | Type::SchemaOrStrings(schema) => {
                return self.schema_or(wire.bytes()?, ty, self.table.message(schema), depth + 1).map(Some);
            }
            Type::Message(inner) => {
                let mut map = Map::new();
                self.message(wire.bytes()?, self.table.message(inner), &mut map, depth + 1)?;
                (map.into(), false)
            }
        };
        Ok((keeps_zero || !is_zero).then_some(value))
    }

    fn strings(&mut self, bytes: &[u8], field: u32) -> Result<Value, ProtobufError> {
        let mut reader = Reader(bytes);
        let mut list = Vec::new();
        while let Some((number, wire)) = reader.next()? {
            if number == field {
                self.count()?;
                list.push(wire.text()?.into());
            }
        }
        Ok(Value::Array(list))
    }

    /// A schema, or what may stand in its place.
    fn schema_or(&mut self, bytes: &[u8], ty: Type, schema: Message, depth: usize) -> Result<Value, ProtobufError> {
        let schema_field = if matches!(ty, Type::SchemaOrBool(_)) { 2 } else { 1 };
        let (mut single, mut allows, mut list) = (None, false, Vec::new());
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.next()? {
            self.count()?;
            match ty {
                _ if number == schema_field => {
                    let mut map = Map::new();
                    self.message(wire.bytes()?, schema, &mut map, depth)?;
                    single = Some(Value::Object(map));
                }
                Type::SchemaOrBool(_) if number == 1 => allows = wire.varint()? != 0,
                Type::SchemaOrList(_) if number == 2 => {
                    let mut map = Map::new();
                    self.message(wire.bytes()?, schema, &mut map, depth)?;
                    list.push(Value::Object(map));
                }
                Type::SchemaOrStrings(_) if number == 2 => list.push(wire.text()?.into()),
                _ => {}
            }
        }
        let otherwise = if matches!(ty, Type::SchemaOrBool(_)) { allows.into() } else { Value::Array(list) };
        Ok(single.unwrap_or(otherwise))
    }
}

/// A number as Go prints it: whole ones without a point.
fn double(value: f64) -> Result<Value, ProtobufError> {
    const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < WHOLE_BELOW {
        #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        let whole = value as i64;
        return Ok(whole.into());
    }
    Number::from_f64(value).map(Value::Number).ok_or(ProtobufError::Malformed("a number is not finite"))
}

/// The zero time has no bytes, and is null in JSON.
fn time(bytes: &[u8], micros: bool) -> Result<Option<Value>, ProtobufError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = wire.int64()?,
            2 => nanos = wire.int32()?,
            _ => {}
        }
    }
    let time = Timestamp::new(seconds, if micros { nanos } else { 0 });
    let time = time.map_err(|_| ProtobufError::Malformed("a time is out of range"))?;
    let format = if micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Some(time.strftime(format).to_string().into()))
}

/// The last value of a field.
fn last(bytes: &[u8], field: u32) -> Result<Option<Wire<'_>>, ProtobufError> {
    let (mut reader, mut last) = (Reader(bytes), None);
    while let Some((number, wire)) = reader.next()? {
        if number == field {
            last = Some(wire);
        }
    }
    Ok(last)
}

fn raw(bytes: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let json = last(bytes, 1)?.map_or(Ok(&[][..]), Wire::bytes)?;
    if json.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(json)?)) }
}

fn quantity(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let text = last(bytes, 1)?.map_or(Ok(""), Wire::text)?;
    Ok(if text.is_empty() { "0" } else { text }.into())
}

/// The value, and whether it is zero.
fn int_or_string(bytes: &[u8]) -> Result<(Value, bool), ProtobufError> {
    let is_string = last(bytes, 1)?.map_or(Ok(0), Wire::varint)? != 0;
    if is_string {
        return Ok((last(bytes, 3)?.map_or(Ok(""), Wire::text)?.into(), false));
    }
    let number = last(bytes, 2)?.map_or(Ok(0), Wire::int32)?;
    Ok((number.into(), number == 0))
}
