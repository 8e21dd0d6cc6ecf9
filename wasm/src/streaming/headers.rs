//! The headers of SPDY's streams: names and values, packed by zlib with a dictionary that both sides know, all of a
//! connection's as one stream.

use std::{io, sync::LazyLock};

use flate2::{Decompress, FlushDecompress};

use super::mux::Headers;

/// Most bytes of a stream's headers, unpacked.
const MAX_UNPACKED_BYTES: usize = 64 << 10;
/// Bytes of zlib's head, and of the dictionary's checksum that follows it where one was used.
const ZLIB_HEAD_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;
/// The flag of a zlib head that a dictionary was used.
const HAS_DICTIONARY: u8 = 0x20;
/// A stored block of deflate that holds nothing, as a writer's flush ends with: it makes readers hand out what they have.
const FLUSHED: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// The words that headers mostly consist of (SPDY/3, 2.6.10.1); each is preceded by its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// What follows the words.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = WORDS.split_whitespace().map(|word| word.replace('_', " "));
    let mut bytes: Vec<u8> = words.flat_map(|word| [&length(word.len())[..], word.as_bytes()].concat()).collect();
    bytes.extend(REST.as_bytes());
    bytes
});

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(0).to_be_bytes()
}

/// A stored block of deflate: bytes as they are, at most 65,535.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), bytes].concat()
}

/// The headers of a reply, which are none; `first` on its connection.
pub(super) fn pack_none(first: bool) -> Vec<u8> {
    /// zlib, of the smallest effort, without a dictionary.
    const HEAD: [u8; ZLIB_HEAD_BYTES] = [0x78, 0x01];
    let none = [stored(&length(0)), FLUSHED.to_vec()].concat();
    if first { [&HEAD[..], &none].concat() } else { none }
}

/// Unpacks the headers of a connection's streams, one after the other.
pub(super) struct Unpacker {
    inflate: Decompress,
    begun: bool,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Unpacker {
    pub(super) fn new() -> Self {
        let mut inflate = Decompress::new(false);
        // The dictionary is what the stream may refer back to: as if it had come before, as a block of its own.
        let mut thrown_away = vec![0; DICTIONARY.len() + 1];
        let _infallible = inflate.decompress(&stored(&DICTIONARY), &mut thrown_away, FlushDecompress::Sync);
        Self { inflate, begun: false }
    }

    /// The headers of the next stream.
    pub(super) fn unpack(&mut self, packed: &[u8]) -> io::Result<Headers> {
        let mut packed = packed;
        if !std::mem::replace(&mut self.begun, true) {
            let has_dictionary = packed.get(1).is_some_and(|flags| flags & HAS_DICTIONARY != 0);
            let head = ZLIB_HEAD_BYTES + if has_dictionary { CHECKSUM_BYTES } else { 0 };
            packed = packed.get(head..).ok_or_else(|| malformed("headers that are cut short"))?;
        }
        parse(&self.inflate(packed)?).ok_or_else(|| malformed("headers that are cut short"))
    }

    fn inflate(&mut self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; MAX_UNPACKED_BYTES];
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let inflated = self.inflate.decompress(packed, &mut bytes, FlushDecompress::Sync);
        inflated.map_err(|_| malformed("headers that do not unpack"))?;
        if self.inflate.total_in() - before_in != packed.len() as u64 {
            return Err(malformed("headers that are too large"));
        }
        bytes.truncate(usize::try_from(self.inflate.total_out() - before_out).unwrap_or(0));
        Ok(bytes)
    }
}

/// Reads a block: the number of pairs, and names and values, each preceded by its length.
fn parse(mut bytes: &[u8]) -> Option<Headers> {
    let number = |bytes: &mut &[u8]| {
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        usize::try_from(u32::from_be_bytes(*number)).ok()
    };
    let text = |bytes: &mut &[u8]| {
        let length = number(bytes)?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let pairs = number(&mut bytes)?;
    let mut headers = Headers::new();
    for _ in 0..pairs {
        headers.push((text(&mut bytes)?.to_ascii_lowercase(), text(&mut bytes)?));
    }
    Some(headers)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    /// Packs headers as a client does, block after block.
    pub(in crate::streaming) fn packed() -> impl FnMut(&[(&str, &str)]) -> Vec<u8> {
        let mut deflate = Compress::new(Compression::best(), true);
        move |pairs| {
            let mut block = length(pairs.len()).to_vec();
            for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
                block.extend(length(text.len()));
                block.extend(text.as_bytes());
            }
            let mut packed = Vec::with_capacity(4096);
            deflate.compress_vec(&block, &mut packed, FlushCompress::Sync).unwrap();
            packed
        }
    }

    #[test]
    fn the_dictionary_is_that_of_the_standard() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2, "{} bytes", DICTIONARY.len());
    }

    #[test]
    fn a_client_with_the_dictionary_is_understood() {
        // What zlib makes of two pairs with the dictionary.
        let packed = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2, 0x62, 0x60, 0x60, 0x60, 0x04, 0x22];
        assert!(Unpacker::new().unpack(&packed[..3]).is_err());
        let mut unpacker = Unpacker::new();
        let reference = [&packed[..6], &stored(&length(1)), &stored(&length(4)), &stored(b"host"), &stored(&length(0))];
        assert_eq!(unpacker.unpack(&reference.concat()).unwrap(), [("host".to_owned(), String::new())]);
    }

    #[test]
    fn blocks_refer_to_earlier_ones() {
        let (mut pack, mut unpacker) = (packed(), Unpacker::new());
        for _ in 0..3 {
            let block = pack(&[("streamtype", "data"), ("port", "8080")]);
            assert_eq!(unpacker.unpack(&block).unwrap().len(), 2);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let huge = "x".repeat(1 << 20);
        assert!(Unpacker::new().unpack(&packed()(&[("a", &huge)])).is_err());
    }

    #[test]
    fn nothing_is_packed_so_that_readers_get_it_at_once() {
        let mut unpacker = Unpacker::new();
        assert!(unpacker.unpack(&pack_none(true)).unwrap().is_empty());
        assert!(unpacker.unpack(&pack_none(false)).unwrap().is_empty());
    }
}
