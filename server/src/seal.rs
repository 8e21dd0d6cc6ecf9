//! Sealing by the server token: what is sealed can neither be read nor changed without it.
//!
//! # The form
//!
//! ```text
//! header   magic "skiff-seal", version (1 byte), 0, iterations (4), salt (16), check (16)
//! chunk    64 KiB of content, encrypted, and a tag of 16 bytes; the last one may be shorter
//! ```
//!
//! The token's secret may be one that a person chose, so it is stretched (PBKDF2-HMAC-SHA-256 with the header's salt
//! and iterations). From that come, by HKDF, the *check*, by which a wrong token is told from altered content, and the
//! key of the content, which depends on the purpose and on every byte of the header.
//!
//! Content is encrypted in chunks (ChaCha20-Poly1305), so that any size streams in constant memory. A chunk's nonce is
//! its number and whether it is the last (the STREAM construction, Hoang et al. 2015), so that what was truncated,
//! reordered, repeated or joined does not open. There is no length in the form: nothing to be trusted before it is
//! verified. A key encrypts one content: the salt must be random.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    num::NonZeroU32,
};

use ring::{
    aead::{self, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    digest, hkdf, hmac, pbkdf2,
};

const MAGIC: &[u8; 10] = b"skiff-seal";

/// The version of the form.
const VERSION: u8 = 1;

/// The bytes of a salt.
pub const SALT_BYTES: usize = 16;

const CHECK_BYTES: usize = 16;

/// The bytes of the header.
const HEADER_BYTES: usize = MAGIC.len() + 2 + 4 + SALT_BYTES + CHECK_BYTES;

/// The content of a chunk.
const CHUNK_BYTES: usize = 64 << 10;

const TAG_BYTES: usize = 16;

/// How often the secret is hashed to stretch it (OWASP's 2023 advice for PBKDF2-HMAC-SHA-256).
pub const ITERATIONS: NonZeroU32 = match NonZeroU32::new(600_000) {
    Some(iterations) => iterations,
    None => NonZeroU32::MIN,
};

/// What a header may ask for at most: a few seconds of a small machine.
const MAX_ITERATIONS: u32 = 4_000_000;

/// What something is sealed for; what is sealed for one purpose does not open for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A snapshot's content.
    Snapshot,
    /// The certificates and keys that several servers share through the datastore.
    Certificates,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Snapshot => b"skiff seal: snapshot",
            Self::Certificates => b"skiff seal: certificates",
        }
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It does not begin as what is sealed does.
    #[error("it is nothing that skiff has sealed, or its beginning is damaged")]
    NotSealed,
    /// A newer skiff sealed it.
    #[error("it is sealed in version {found} of the form, this skiff knows up to {VERSION}: use the newer skiff")]
    NewerVersion {
        /// The version found.
        found: u8,
    },
    /// It was sealed with another token.
    #[error("the token does not open it: it was sealed with another token; give that one with --token or --token-file")]
    WrongToken,
    /// It is not as it was sealed.
    #[error("it has been truncated or altered: what begins at byte {at} is not what was sealed")]
    Altered {
        /// Where the chunk begins that does not verify, counted from the header's beginning.
        at: u64,
    },
    /// Too much for one key: more than 2^64 chunks, or what the cipher refuses.
    #[error("it cannot be sealed")]
    Cipher,
    /// Reading or writing.
    #[error("reading or writing it")]
    Io(#[from] io::Error),
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// How a secret is stretched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Random.
    pub salt: [u8; SALT_BYTES],
    /// How often the secret is hashed.
    pub iterations: NonZeroU32,
}

impl Stretch {
    /// The usual strength with a random salt.
    pub fn new(salt: [u8; SALT_BYTES]) -> Self {
        Self { salt, iterations: ITERATIONS }
    }
}

/// A stretched secret. Making one takes some tenths of a second, on purpose.
#[derive(Clone)]
pub struct Key {
    stretch: Stretch,
    prk: hkdf::Prk,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The lengths that HKDF is asked for.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    /// Stretches a token's secret.
    pub fn new(secret: &str, stretch: Stretch) -> Self {
        let mut stretched = [0; digest::SHA256_OUTPUT_LEN];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, stretch.iterations, &stretch.salt, secret.as_bytes(), &mut stretched);
        Self { stretch, prk: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &stretched) }
    }

    fn expand<const N: usize>(&self, info: &[&[u8]]) -> Result<[u8; N], SealError> {
        let mut bytes = [0; N];
        let expanded = self.prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut bytes));
        expanded.map(|()| bytes).map_err(|_| SealError::Cipher)
    }

    fn check(&self) -> Result<[u8; CHECK_BYTES], SealError> {
        self.expand(&[b"skiff seal: check"])
    }

    fn content(&self, purpose: Purpose, header: &[u8; HEADER_BYTES]) -> Result<LessSafeKey, SealError> {
        let key: [u8; 32] = self.expand(&[purpose.label(), &header[..]])?;
        UnboundKey::new(&CHACHA20_POLY1305, &key).map(LessSafeKey::new).map_err(|_| SealError::Cipher)
    }

    /// A key that authenticates what is kept beside the sealed content and not within.
    pub fn authenticator(&self, purpose: Purpose) -> Result<hmac::Key, SealError> {
        let key: [u8; 32] = self.expand(&[b"skiff seal: beside", purpose.label()])?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    fn header(&self) -> Result<[u8; HEADER_BYTES], SealError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, 0]);
        bytes.extend_from_slice(&self.stretch.iterations.get().to_be_bytes());
        bytes.extend_from_slice(&self.stretch.salt);
        bytes.extend_from_slice(&self.check()?);
        bytes.try_into().map_err(|_| SealError::Cipher)
    }
}

/// Reads how the secret was stretched, and the check.
fn read_header(header: &[u8; HEADER_BYTES]) -> Result<(Stretch, &[u8]), SealError> {
    let rest = header.strip_prefix(MAGIC).ok_or(SealError::NotSealed)?;
    let ([version, zero], rest) = rest.split_first_chunk().ok_or(SealError::NotSealed)?;
    if *version > VERSION {
        return Err(SealError::NewerVersion { found: *version });
    }
    let (iterations, rest) = rest.split_first_chunk().ok_or(SealError::NotSealed)?;
    let (salt, check) = rest.split_first_chunk().ok_or(SealError::NotSealed)?;
    let iterations = u32::from_be_bytes(*iterations);
    match NonZeroU32::new(iterations) {
        Some(iterations) if *version == VERSION && *zero == 0 && iterations.get() <= MAX_ITERATIONS => {
            Ok((Stretch { salt: *salt, iterations }, check))
        }
        _ => Err(SealError::NotSealed),
    }
}

/// The nonce of a chunk.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Seals what is written to it. Only [`SealWriter::finish`] makes it whole.
pub struct SealWriter<W: Write> {
    inner: W,
    key: LessSafeKey,
    number: u64,
    chunk: Vec<u8>,
}

impl<W: Write> SealWriter<W> {
    /// Writes the header.
    pub fn new(mut inner: W, key: &Key, purpose: Purpose) -> Result<Self, SealError> {
        let header = key.header()?;
        inner.write_all(&header)?;
        let key = key.content(purpose, &header)?;
        Ok(Self { inner, key, number: 0, chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES) })
    }

    fn seal(&mut self, last: bool) -> Result<(), SealError> {
        let nonce = nonce(self.number, last);
        self.number = self.number.checked_add(1).ok_or(SealError::Cipher)?;
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk);
        sealed.map_err(|_| SealError::Cipher)?;
        self.inner.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Seals the last chunk.
    pub fn finish(mut self) -> Result<W, SealError> {
        self.seal(true)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until it is known not to be the last.
        if self.chunk.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// What is in the present chunk stays there.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Opens what was sealed. Gives nothing that is not verified; but that all is there is only known at the end.
pub struct SealReader<R: Read> {
    inner: BufReader<R>,
    key: LessSafeKey,
    number: u64,
    /// The verified content of the present chunk, from `place` on still to be given.
    chunk: Vec<u8>,
    place: usize,
    ended: bool,
}

impl<R: Read> SealReader<R> {
    /// Reads the header and looks whether the token fits. The key can be used again, e.g. for
    /// [`Key::authenticator`].
    pub fn open(inner: R, secret: &str, purpose: Purpose) -> Result<(Self, Key), SealError> {
        let mut inner = BufReader::new(inner);
        let mut header = [0; HEADER_BYTES];
        inner.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SealError::NotSealed,
            _ => SealError::Io(error),
        })?;
        let (stretch, check) = read_header(&header)?;
        let key = Key::new(secret, stretch);
        // The check is no secret: it stands in the file for everyone to read.
        if key.check()? != check {
            return Err(SealError::WrongToken);
        }
        let content = key.content(purpose, &header)?;
        let chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        Ok((Self { inner, key: content, number: 0, chunk, place: 0, ended: false }, key))
    }

    fn next_chunk(&mut self) -> Result<(), SealError> {
        self.chunk.clear();
        self.place = 0;
        let whole = CHUNK_BYTES + TAG_BYTES;
        Read::by_ref(&mut self.inner).take(whole as u64).read_to_end(&mut self.chunk)?;
        let last = self.chunk.len() < whole || self.inner.fill_buf()?.is_empty();
        let at = HEADER_BYTES as u64 + self.number * whole as u64;
        let opened = self.key.open_in_place(nonce(self.number, last), Aad::empty(), &mut self.chunk);
        let content = opened.map_err(|_| SealError::Altered { at })?.len();
        self.chunk.truncate(content);
        self.number += 1;
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for SealReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.place == self.chunk.len() && !self.ended {
            if let Err(error) = self.next_chunk() {
                // What did not verify is never given.
                self.chunk.clear();
                return Err(error.into());
            }
        }
        let given = into.len().min(self.chunk.len() - self.place);
        into[..given].copy_from_slice(&self.chunk[self.place..self.place + given]);
        self.place += given;
        Ok(given)
    }
}

/// Seals bytes.
pub fn seal(content: &[u8], key: &Key, purpose: Purpose) -> Result<Vec<u8>, SealError> {
    let mut writer = SealWriter::new(Vec::new(), key, purpose)?;
    writer.write_all(content)?;
    writer.finish()
}

/// Opens sealed bytes.
pub fn open(sealed: &[u8], secret: &str, purpose: Purpose) -> Result<Vec<u8>, SealError> {
    let (mut reader, _) = SealReader::open(sealed, secret, purpose)?;
    let mut content = Vec::new();
    reader.read_to_end(&mut content).map_err(seal_error)?;
    Ok(content)
}

/// What a [`SealReader`] said, out of the error of reading.
pub fn seal_error(error: io::Error) -> SealError {
    match error.downcast::<SealError>() {
        Ok(error) => error,
        Err(error) => SealError::Io(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SECRET: &str = "s3cret";

    /// As a token's, but quick.
    fn key(salt: u8) -> Key {
        let iterations = NonZeroU32::new(3).unwrap();
        Key::new(SECRET, Stretch { salt: [salt; SALT_BYTES], iterations })
    }

    fn sealed(bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let content: Vec<u8> = (0..bytes).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let sealed = seal(&content, &key(1), Purpose::Snapshot).unwrap();
        (content, sealed)
    }

    fn refused(sealed: &[u8]) -> bool {
        open(sealed, SECRET, Purpose::Snapshot).is_err()
    }

    #[test]
    fn what_is_sealed_opens() {
        for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let (content, sealed) = sealed(bytes);
            assert_eq!(sealed.len(), HEADER_BYTES + bytes + TAG_BYTES * bytes.div_ceil(CHUNK_BYTES).max(1));
            assert_eq!(open(&sealed, SECRET, Purpose::Snapshot).unwrap(), content);
        }
    }

    #[test]
    fn it_streams_in_any_pieces() {
        let mut writer = SealWriter::new(Vec::new(), &key(1), Purpose::Snapshot).unwrap();
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for (piece, size) in content.chunks(9_973).zip([1, 100, 5_000].into_iter().cycle()) {
            piece.chunks(size).for_each(|part| writer.write_all(part).unwrap());
            writer.flush().unwrap();
        }
        let sealed = writer.finish().unwrap();
        let (mut reader, _) = SealReader::open(&sealed[..], SECRET, Purpose::Snapshot).unwrap();
        let (mut opened, mut part) = (Vec::new(), vec![0; 7_001]);
        loop {
            match reader.read(&mut part).unwrap() {
                0 => break,
                read => opened.extend_from_slice(&part[..read]),
            }
        }
        assert!(opened == content);
    }

    #[test]
    fn the_content_does_not_show() {
        let sealed = seal(&[b'x'; 4_096], &key(1), Purpose::Snapshot).unwrap();
        assert!(!sealed.windows(8).any(|window| window == b"xxxxxxxx"));
        let other = seal(&[b'x'; 4_096], &key(2), Purpose::Snapshot).unwrap();
        assert_ne!(sealed[HEADER_BYTES..], other[HEADER_BYTES..], "another salt is another key");
    }

    #[test]
    fn whatever_is_cut_off_or_put_on_is_refused() {
        let (_, sealed) = sealed(2 * CHUNK_BYTES + 50);
        let whole = CHUNK_BYTES + TAG_BYTES;
        let boundaries = [0, 1, 2].map(|chunk| HEADER_BYTES + chunk * whole);
        let sampled = (0..sealed.len()).step_by(1_009);
        let all_of_small = 0..HEADER_BYTES + 40;
        for end in boundaries.into_iter().chain(sampled).chain(all_of_small).chain([sealed.len() - 1]) {
            assert!(refused(&sealed[..end]), "{end} bytes of {}", sealed.len());
        }
        for more in [1, TAG_BYTES, whole] {
            assert!(refused(&[&sealed[..], &vec![0; more]].concat()));
        }
    }

    #[test]
    fn every_altered_byte_is_noticed() {
        let (_, sealed) = sealed(CHUNK_BYTES + 50);
        let everywhere = (0..sealed.len()).step_by(97);
        for at in everywhere.chain(0..HEADER_BYTES).chain(CHUNK_BYTES..sealed.len()) {
            // The iterations are tried below: a few million of them for each bit would take too long.
            if (MAGIC.len() + 2..MAGIC.len() + 6).contains(&at) {
                continue;
            }
            let mut altered = sealed.clone();
            altered[at] ^= 0x10;
            assert!(refused(&altered), "byte {at}");
        }
        let iterations = MAGIC.len() + 2;
        for count in [0_u32, 1, 4, MAX_ITERATIONS + 1, u32::MAX] {
            let mut altered = sealed.clone();
            altered[iterations..iterations + 4].copy_from_slice(&count.to_be_bytes());
            assert!(refused(&altered), "{count} iterations");
        }
    }

    #[test]
    fn chunks_cannot_be_moved_repeated_or_taken_from_another() {
        let (_, first) = sealed(3 * CHUNK_BYTES);
        let whole = CHUNK_BYTES + TAG_BYTES;
        let chunk = |of: &[u8], number: usize| of[HEADER_BYTES + number * whole..][..whole].to_vec();
        let header = &first[..HEADER_BYTES];
        let joined = |chunks: &[Vec<u8>]| [header, &chunks.concat()].concat();
        let [a, b, c] = [0, 1, 2].map(|number| chunk(&first, number));
        assert_eq!(joined(&[a.clone(), b.clone(), c.clone()]), first);
        for chunks in [vec![b.clone(), a.clone(), c.clone()], vec![a.clone(), c.clone()], vec![a.clone(), a, b, c]] {
            assert!(refused(&joined(&chunks)));
        }
        let other = seal(&vec![0; 3 * CHUNK_BYTES], &key(2), Purpose::Snapshot).unwrap();
        assert!(refused(&joined(&[chunk(&other, 0), chunk(&first, 1), chunk(&first, 2)])));
    }

    #[test]
    fn a_wrong_token_and_another_purpose_are_told() {
        let (_, sealed) = sealed(10);
        let said = open(&sealed, "another", Purpose::Snapshot).unwrap_err();
        assert!(matches!(said, SealError::WrongToken) && said.to_string().contains("another token"), "{said}");
        assert!(matches!(open(&sealed, SECRET, Purpose::Certificates), Err(SealError::Altered { at: 48 })));
    }

    #[test]
    fn what_is_newer_or_something_else_is_told() {
        let (_, mut newer) = sealed(10);
        newer[MAGIC.len()] = VERSION + 1;
        assert!(matches!(open(&newer, SECRET, Purpose::Snapshot), Err(SealError::NewerVersion { found: 2 })));
        for bytes in [&b""[..], b"skiff-seal", &[0; 500], &b"SQLite format 3\0".repeat(9)] {
            assert!(matches!(open(bytes, SECRET, Purpose::Snapshot), Err(SealError::NotSealed)));
        }
    }

    #[test]
    fn the_authenticator_belongs_to_the_token() {
        let (_, sealed) = sealed(10);
        let (_, opened) = SealReader::open(&sealed[..], SECRET, Purpose::Snapshot).unwrap();
        let tag = hmac::sign(&key(1).authenticator(Purpose::Snapshot).unwrap(), b"beside");
        let verified =
            |key: &Key, purpose| hmac::verify(&key.authenticator(purpose).unwrap(), b"beside", tag.as_ref()).is_ok();
        assert!(verified(&opened, Purpose::Snapshot));
        assert!(!verified(&opened, Purpose::Certificates));
        assert!(!verified(&key(2), Purpose::Snapshot));
    }
}
