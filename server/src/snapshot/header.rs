//! The cleartext that a snapshot begins with: what it is, for people and for `list`, without the token.
//!
//! A block of a fixed size, so that it can be written last, when everything in it is known:
//!
//! ```text
//! skiff-snapshot 1
//! {"name":"on-demand", ... }
//! hmac-sha256 3b7e...
//! (spaces up to the block's end)
//! ```
//!
//! The authenticator covers everything before its own line, and what follows it can only be spaces: no byte of the
//! block can be altered unnoticed by one who has the token. Without the token it is what somebody says.

use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};
use skiff_store::Revision;

/// The bytes of the block.
pub(super) const BLOCK_BYTES: usize = 4_096;

const MAGIC: &str = "skiff-snapshot ";

/// The version of the whole form: header and content.
pub(super) const FORMAT: u32 = 1;

const TAG_FIELD: &str = "hmac-sha256 ";

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// What it is for: `on-demand`, `scheduled`, or a name of the operator's.
    pub name: String,
    /// The host that made it.
    pub node: String,
    /// When.
    pub created: Timestamp,
    /// The revision whose state it holds.
    pub revision: Revision,
    /// How many objects.
    pub objects: u64,
    /// How many files: certificates and keys.
    pub files: u64,
    /// The kind of datastore that it was taken from; it can be restored into any.
    pub datastore: String,
    /// The version of skiff that made it.
    pub skiff: String,
    /// The version of Kubernetes that was served.
    pub kubernetes: String,
    /// The cluster: the hash of its server authority, as in the server token.
    pub authority: String,
    /// The size of what follows the header.
    pub body_bytes: u64,
    /// The SHA-256 of what follows the header, in hexadecimal digits.
    pub body_sha256: String,
}

/// A header that has been read, but not verified.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) header: Header,
    signed: Vec<u8>,
    tag: Vec<u8>,
}

/// Why a block is no header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not begin as one.
    #[error("it is no snapshot of skiff")]
    NoSnapshot,
    /// A newer skiff made it.
    #[error("it has format {found}, this skiff knows up to {FORMAT}: use the newer skiff")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// It is damaged.
    #[error("its header is damaged")]
    Damaged,
    /// It says more than fits.
    #[error("its header would be larger than 4096 bytes: give it a shorter name")]
    TooLarge,
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The block of a header.
pub(super) fn encode(header: &Header, key: &hmac::Key) -> Result<Vec<u8>, HeaderError> {
    let json = serde_json::to_string(header).map_err(|_| HeaderError::Damaged)?;
    let mut text = format!("{MAGIC}{FORMAT}\n{json}\n");
    let tag = hmac::sign(key, text.as_bytes());
    text += &format!("{TAG_FIELD}{}\n", hex(tag.as_ref()));
    let mut block = text.into_bytes();
    if block.len() > BLOCK_BYTES {
        return Err(HeaderError::TooLarge);
    }
    block.resize(BLOCK_BYTES, b' ');
    Ok(block)
}

/// Reads a block.
pub(super) fn decode(block: &[u8]) -> Result<Claimed, HeaderError> {
    let text = std::str::from_utf8(block).map_err(|_| HeaderError::NoSnapshot)?;
    let (first, rest) = text.split_once('\n').ok_or(HeaderError::NoSnapshot)?;
    let format = first.strip_prefix(MAGIC).ok_or(HeaderError::NoSnapshot)?;
    match format.parse() {
        Ok(FORMAT) if format == FORMAT.to_string() => {}
        Ok(found) if found > FORMAT => return Err(HeaderError::Newer { found }),
        _ => return Err(HeaderError::Damaged),
    }
    let (json, rest) = rest.split_once('\n').ok_or(HeaderError::Damaged)?;
    let (tag, padding) = rest.split_once('\n').ok_or(HeaderError::Damaged)?;
    let digits = tag.strip_prefix(TAG_FIELD).ok_or(HeaderError::Damaged)?;
    let tag = unhex(digits).filter(|tag| hex(tag) == digits).ok_or(HeaderError::Damaged)?;
    if block.len() != BLOCK_BYTES || padding.bytes().any(|byte| byte != b' ') {
        return Err(HeaderError::Damaged);
    }
    let header = serde_json::from_str(json).map_err(|_| HeaderError::Damaged)?;
    let signed = text[..first.len() + 1 + json.len() + 1].as_bytes().to_vec();
    Ok(Claimed { header, signed, tag })
}

impl Claimed {
    /// Whether the header is what one who had the token wrote.
    pub(super) fn verify(&self, key: &hmac::Key) -> bool {
        hmac::verify(key, &self.signed, &self.tag).is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;

    pub(in crate::snapshot) fn header() -> Header {
        Header {
            name: "on-demand".to_owned(),
            node: "node-1".to_owned(),
            created: "2026-11-27T03:30:00Z".parse().unwrap(),
            revision: 4_711,
            objects: 80,
            files: 9,
            datastore: "sqlite".to_owned(),
            skiff: "0.1.0".to_owned(),
            kubernetes: "v1.36.2".to_owned(),
            authority: "ab".repeat(32),
            body_bytes: 12_345,
            body_sha256: "cd".repeat(32),
        }
    }

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"a key")
    }

    #[test]
    fn a_block_says_what_was_put_into_it() {
        let block = encode(&header(), &key()).unwrap();
        assert_eq!(block.len(), BLOCK_BYTES);
        assert!(
            block.starts_with(b"skiff-snapshot 1\n{\"name\":\"on-demand\",\"node\":\"node-1\",\"created\":\"2026-")
        );
        let claimed = decode(&block).unwrap();
        assert_eq!(claimed.header, header());
        assert!(claimed.verify(&key()));
        assert!(!claimed.verify(&hmac::Key::new(hmac::HMAC_SHA256, b"another")));
    }

    #[test]
    fn no_byte_of_a_block_can_be_altered_unnoticed() {
        let block = encode(&header(), &key()).unwrap();
        for at in 0..block.len() {
            for bit in [0x01, 0x20] {
                let mut altered = block.clone();
                altered[at] ^= bit;
                assert!(!decode(&altered).is_ok_and(|claimed| claimed.verify(&key())), "byte {at}");
            }
        }
        for end in 0..block.len() {
            assert!(decode(&block[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn what_it_is_not_is_told() {
        assert_eq!(decode(b"SQLite format 3\0\n").unwrap_err(), HeaderError::NoSnapshot);
        assert_eq!(decode(b"skiff-snapshot 7\nwhatever").unwrap_err(), HeaderError::Newer { found: 7 });
        assert_eq!(decode(&[0; BLOCK_BYTES]).unwrap_err(), HeaderError::NoSnapshot);
        let long = Header { name: "x".repeat(BLOCK_BYTES), ..header() };
        assert_eq!(encode(&long, &key()).unwrap_err(), HeaderError::TooLarge);
    }
}
