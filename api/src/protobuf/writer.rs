//! Protobuf's wire format, written.

/// Appends a number, seven bits a byte.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a field that is a number.
pub(crate) fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3, out);
    varint(value, out);
}

/// Appends a field of eight bytes.
pub(crate) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of bytes.
pub(crate) fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    header(field, value.len(), out);
    out.extend_from_slice(value);
}

/// Appends what comes before a field's bytes.
pub(crate) fn header(field: u32, len: usize, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 2, out);
    varint(len as u64, out);
}

/// Appends a field whose bytes `write` appends. Most are short: one byte is kept for the length, and the bytes move
/// up where that is not enough.
pub(crate) fn nested<E>(
    field: u32,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    header(field, 0, out);
    let start = out.len();
    write(out)?;
    let mut len = Vec::with_capacity(1);
    varint((out.len() - start) as u64, &mut len);
    out.splice(start - 1..start, len);
    Ok(())
}
