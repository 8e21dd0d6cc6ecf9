//! Protobuf's wire format, read.

use super::ProtobufError;

/// How deep groups, which Kubernetes has none of, may nest in what is skipped.
const MAX_GROUPS: usize = 32;

/// The value of a field as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// What no message of Kubernetes has.
    Other,
}

impl<'a> Wire<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(WRONG_TYPE) }
    }

    pub(crate) fn text(self) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ProtobufError::Malformed("a string is not UTF-8"))
    }

    pub(crate) fn varint(self) -> Result<u64, ProtobufError> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(WRONG_TYPE) }
    }

    #[allow(clippy::cast_possible_wrap, reason = "protobuf's two's complement")]
    pub(crate) fn int64(self) -> Result<i64, ProtobufError> {
        self.varint().map(|value| value as i64)
    }

    #[allow(clippy::cast_possible_truncation, reason = "protobuf keeps the low 32 bits, and so does Go")]
    pub(crate) fn int32(self) -> Result<i32, ProtobufError> {
        self.varint().map(|value| value as i32)
    }

    pub(crate) fn double(self) -> Result<f64, ProtobufError> {
        if let Self::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(WRONG_TYPE) }
    }
}

const WRONG_TYPE: ProtobufError = ProtobufError::Malformed("wrong wireType for a field");

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next field's number and value; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            3 => {
                self.skip_group(number)?;
                Wire::Other
            }
            4 => return Err(ProtobufError::Malformed("wiretype end group for non-group")),
            other => self.value(other)?,
        };
        Ok(Some((number, value)))
    }

    fn key(&mut self) -> Result<(u32, u8), ProtobufError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        #[allow(clippy::cast_possible_truncation, reason = "three bits")]
        let wire_type = (key & 7) as u8;
        number.map(|number| (number, wire_type)).ok_or(ProtobufError::Malformed("illegal tag"))
    }

    fn value(&mut self, wire_type: u8) -> Result<Wire<'a>, ProtobufError> {
        match wire_type {
            0 => self.varint().map(Wire::Varint),
            1 => {
                let bytes = self.take(8)?;
                Ok(Wire::Fixed64(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))))
            }
            2 => {
                let len = self.varint()?;
                self.take(usize::try_from(len).map_err(|_| ProtobufError::Truncated)?).map(Wire::Bytes)
            }
            5 => self.take(4).map(|_| Wire::Other),
            _ => Err(ProtobufError::Malformed("illegal wireType")),
        }
    }

    /// Skips to the end of the group that has just begun.
    fn skip_group(&mut self, number: u32) -> Result<(), ProtobufError> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            match self.key()? {
                (inner, 3) if open.len() < MAX_GROUPS => open.push(inner),
                (inner, 4) if inner == innermost => drop(open.pop()),
                (_, 3 | 4) => return Err(ProtobufError::Malformed("groups that do not match")),
                (_, other) => drop(self.value(other)?),
            }
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtobufError> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(front)
    }

    /// A number of up to ten bytes, seven bits each.
    pub(crate) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed("integer overflow"))
    }
}
