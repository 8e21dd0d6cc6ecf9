//! The content of a snapshot, before it is compressed and sealed: records one after another.
//!
//! ```text
//! file   1, bytes of name (2), bytes of content (4), name, content
//! pair   2, bytes of key (4), bytes of value (4), key, value
//! end    3, files (8), pairs (8)
//! ```
//!
//! Files come first, then pairs with ascending keys, then the end, which is the last. Numbers are big-endian. A length
//! is checked against its limit before anything is read, and memory grows only with what is really there.

use std::io::{self, Read, Write};

use bytes::Bytes;
use skiff_store::Ascending;

/// How long a file's name may be.
const MAX_NAME_BYTES: usize = 255;

/// How large a file may be.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;

/// How many files there may be.
pub(super) const MAX_FILES: u64 = 10_000;

/// How long a key may be: group, resource, namespace and name are each far below.
const MAX_KEY_BYTES: usize = 8 << 10;

/// How large a value may be: five times the largest request body.
const MAX_VALUE_BYTES: usize = 16 << 20;

const FILE: u8 = 1;
const PAIR: u8 = 2;
const END: u8 = 3;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A file of the folder of certificates and keys.
    File { name: String, content: Vec<u8> },
    /// A key and a value of the datastore.
    Pair { key: String, value: Bytes },
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) files: u64,
    pub(super) pairs: u64,
}

/// A record that is not as it must be.
#[derive(Debug, thiserror::Error)]
#[error("its content is malformed: {0}")]
pub(super) struct Malformed(&'static str);

fn malformed<T>(problem: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, Malformed(problem)))
}

/// A length as it is written, if it is within its limit.
fn length<const N: usize>(bytes: &[u8], limit: usize) -> io::Result<[u8; N]> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, Malformed("something is longer than its limit"));
    if bytes.len() > limit {
        return Err(too_long());
    }
    let all = (bytes.len() as u64).to_be_bytes();
    all[all.len() - N..].try_into().map_err(|_| too_long())
}

/// Writes records.
pub(super) struct Writer<W> {
    inner: W,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, counts: Counts::default() }
    }

    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.inner.write_all(&[FILE])?;
        self.inner.write_all(&length::<2>(name.as_bytes(), MAX_NAME_BYTES)?)?;
        self.inner.write_all(&length::<4>(content, MAX_FILE_BYTES)?)?;
        self.inner.write_all(name.as_bytes())?;
        self.counts.files += 1;
        self.inner.write_all(content)
    }

    pub(super) fn pair(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.inner.write_all(&[PAIR])?;
        self.inner.write_all(&length::<4>(key.as_bytes(), MAX_KEY_BYTES)?)?;
        self.inner.write_all(&length::<4>(value, MAX_VALUE_BYTES)?)?;
        self.inner.write_all(key.as_bytes())?;
        self.counts.pairs += 1;
        self.inner.write_all(value)
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> io::Result<(W, Counts)> {
        self.inner.write_all(&[END])?;
        self.inner.write_all(&self.counts.files.to_be_bytes())?;
        self.inner.write_all(&self.counts.pairs.to_be_bytes())?;
        Ok((self.inner, self.counts))
    }
}

/// Reads records.
pub(super) struct Reader<R> {
    inner: R,
    counts: Counts,
    order: Ascending,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, counts: Counts::default(), order: Ascending::default(), ended: false }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        match self.inner.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => malformed("it ends too early"),
            other => other.map(|()| bytes),
        }
    }

    fn length(&mut self, limit: usize) -> io::Result<usize> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        if length > limit { malformed("a length is beyond its limit") } else { Ok(length) }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.inner).take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length { malformed("it ends too early") } else { Ok(bytes) }
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        String::from_utf8(self.bytes(length)?).or_else(|_| malformed("a name is not UTF-8"))
    }

    /// The next record; `None` at the end, which is verified to be one.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        match self.array()? {
            [FILE] => self.file().map(Some),
            [PAIR] => self.pair().map(Some),
            [END] => self.end().map(|()| None),
            _ => malformed("a record is of no known kind"),
        }
    }

    fn file(&mut self) -> io::Result<Record> {
        let name_bytes = usize::from(u16::from_be_bytes(self.array()?));
        let content_bytes = self.length(MAX_FILE_BYTES)?;
        let name = self.text(name_bytes)?;
        if !is_file_name(&name) {
            return malformed("a file's name is no plain name");
        }
        self.counts.files += 1;
        if self.counts.pairs > 0 || self.counts.files > MAX_FILES {
            return malformed("there are too many files, or some after the objects");
        }
        Ok(Record::File { name, content: self.bytes(content_bytes)? })
    }

    fn pair(&mut self) -> io::Result<Record> {
        let (key_bytes, value_bytes) = (self.length(MAX_KEY_BYTES)?, self.length(MAX_VALUE_BYTES)?);
        let key = self.text(key_bytes)?;
        if self.order.check(&key).is_err() {
            return malformed("keys do not ascend");
        }
        self.counts.pairs += 1;
        Ok(Record::Pair { key, value: self.bytes(value_bytes)?.into() })
    }

    fn end(&mut self) -> io::Result<()> {
        let counts = Counts { files: u64::from_be_bytes(self.array()?), pairs: u64::from_be_bytes(self.array()?) };
        let more = self.inner.read(&mut [0])?;
        if counts != self.counts || more > 0 {
            return malformed("its end does not fit what is before it");
        }
        self.ended = true;
        Ok(())
    }

    /// How many records there have been, and what they were read from.
    pub(super) fn into_inner(self) -> (Counts, R) {
        (self.counts, self.inner)
    }
}

/// Whether a name is that of a file directly in a folder: no way out of it, nothing hidden.
pub(super) fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.file("server-ca.crt", b"certificate").unwrap();
        writer.pair("/core/pods/default/a", b"{}").unwrap();
        writer.pair("/core/pods/default/b", &[b'x'; 70_000]).unwrap();
        let (bytes, counts) = writer.finish().unwrap();
        assert_eq!(counts, Counts { files: 1, pairs: 2 });
        bytes
    }

    fn read_all(bytes: &[u8]) -> io::Result<Vec<Record>> {
        let mut reader = Reader::new(bytes);
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        assert!(reader.next()?.is_none());
        Ok(records)
    }

    #[test]
    fn what_is_written_is_read() {
        let records = read_all(&sample()).unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!(records[0], Record::File { name: "server-ca.crt".to_owned(), content: b"certificate".to_vec() });
        assert!(matches!(&records[2], Record::Pair { value, .. } if value.len() == 70_000));
        assert!(read_all(&Writer::new(Vec::new()).finish().unwrap().0).unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_off_or_put_on_is_refused() {
        let bytes = sample();
        for end in (0..200).chain(bytes.len() - 200..bytes.len()) {
            assert!(read_all(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(read_all(&[&bytes[..], b"x"].concat()).is_err());
        assert!(read_all(&[&bytes[..], &bytes[..]].concat()).is_err());
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        for bytes in [
            &[PAIR, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1][..],
            &[PAIR, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'k'],
            &[FILE, 0, 1, 0xff, 0xff, 0xff, 0xff, b'n'],
            &[PAIR, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, b'k'],
        ] {
            assert!(read_all(bytes).is_err());
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["../x", "a/b", "/etc/passwd", "", ".", "..", ".hidden", "a\0", "ü"] {
            assert!(!is_file_name(name), "{name:?}");
            let mut writer = Writer::new(Vec::new());
            writer.file(name, b"x").unwrap();
            assert!(read_all(&writer.finish().unwrap().0).is_err(), "{name:?}");
        }
    }

    #[test]
    fn order_is_held() {
        for keys in [["b", "a"], ["a", "a"]] {
            let mut writer = Writer::new(Vec::new());
            keys.iter().for_each(|key| writer.pair(key, b"v").unwrap());
            assert!(read_all(&writer.finish().unwrap().0).is_err());
        }
        let mut writer = Writer::new(Vec::new());
        writer.pair("a", b"v").unwrap();
        writer.file("late", b"v").unwrap();
        assert!(read_all(&writer.finish().unwrap().0).is_err());
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let mut writer = Writer::new(io::sink());
        assert!(writer.pair(&"k".repeat(MAX_KEY_BYTES + 1), b"").is_err());
        assert!(writer.pair("k", &vec![0; MAX_VALUE_BYTES + 1]).is_err());
        assert!(writer.file(&"n".repeat(MAX_NAME_BYTES + 1), b"").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_all(&bytes);
        }

        #[test]
        fn altered_records_are_read_without_panic(at in 0_usize..70_200, byte in any::<u8>()) {
            let mut bytes = sample();
            let last = bytes.len() - 1;
            bytes[at.min(last)] = byte;
            let _ = read_all(&bytes);
        }
    }
}
