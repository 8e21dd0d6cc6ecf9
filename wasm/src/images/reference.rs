//! Image names, read as containerd and Docker read them: `hello` is `docker.io/library/hello:latest`.

use std::fmt;

/// Longest name taken, tag and digest included.
const MAX_NAME_BYTES: usize = 4096;
/// Longest tag (OCI distribution specification).
const MAX_TAG_BYTES: usize = 128;

/// A full image name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Registry host, with its port where one is given.
    pub registry: String,
    /// The repository within the registry.
    pub repository: String,
    /// What of the repository.
    pub version: Version,
}

/// Which of a repository's images.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// By tag.
    Tag(String),
    /// By digest (`sha256:...`); a tag beside it is only a remark.
    Digest(String),
}

/// A name that is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse image name {0:?}: invalid reference format")]
pub struct ReferenceError(String);

impl Reference {
    /// Parses and completes a name.
    ///
    /// # Errors
    /// When it is no image name.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        parse(name).ok_or_else(|| ReferenceError(name.chars().take(200).collect()))
    }

    /// The same repository at `digest`.
    #[must_use]
    pub fn at_digest(&self, digest: &str) -> Self {
        Self { version: Version::Digest(digest.to_owned()), ..self.clone() }
    }

    /// The name as the registry's clients write it, without a version.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

fn parse(name: &str) -> Option<Reference> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return None;
    }
    let (registry, rest) = split_registry(name);
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) || !path.split('/').all(is_path_part) {
        return None;
    }
    let repository =
        if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.into() };
    let version = match (digest, tag) {
        (Some(digest), _) => Version::Digest(digest.to_owned()),
        (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
    };
    Some(Reference { registry: registry.to_owned(), repository, version })
}

/// The first part of a name is a registry when it looks like a host: it has a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => ("docker.io", rest),
        Some((host, rest)) if is_host(host) && (host.contains(['.', ':']) || host == "localhost") => (host, rest),
        _ => ("docker.io", name),
    }
}

fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(ip, port)| ip.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port));
    }
    let end = host.find(':').unwrap_or(host.len());
    let (name, port) = host.split_at(end);
    !name.is_empty() && name.chars().all(plain) && is_port(port)
}

fn is_port(port: &str) -> bool {
    port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok())
}

/// Whether `text` is a SHA-256 digest, the only algorithm that images here use.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex64)
}

pub(crate) fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(tag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_TAG_BYTES).contains(&tag.len()) && tag.bytes().all(allowed) && !tag.starts_with(['.', '-'])
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().zip(bytes.last()).is_some_and(|(first, last)| word(*first) && word(*last));
    let joined = |joint: &[u8]| matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-');
    edges && bytes.split(|byte| word(*byte)).all(joined)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn names() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full) in [
            ("hello", "docker.io/library/hello:latest".to_owned()),
            ("hello:1.2", "docker.io/library/hello:1.2".to_owned()),
            ("me/hello", "docker.io/me/hello:latest".to_owned()),
            ("index.docker.io/hello", "docker.io/library/hello:latest".to_owned()),
            ("localhost/hello", "localhost/hello:latest".to_owned()),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c".to_owned()),
            ("ghcr.io/a-b/c__d.e:v1", "ghcr.io/a-b/c__d.e:v1".to_owned()),
            ("[::1]:5000/a:b", "[::1]:5000/a:b".to_owned()),
            (&format!("hello@{digest}"), format!("docker.io/library/hello@{digest}")),
            (&format!("hello:v1@{digest}"), format!("docker.io/library/hello@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn no_names() {
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for text in [
            "",
            "Hello",
            "a//b",
            "a:",
            "a:b:c",
            "a/",
            "/a",
            "a@sha256:1",
            "-a",
            "a..b",
            "a___b",
            "a:-x",
            "x.y:99999/a",
            &long,
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
