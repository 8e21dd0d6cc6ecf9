//! References of images, as far as a node must understand them.

/// A reference with the tag that it has or, where it has neither tag nor digest, `latest`.
pub(super) fn with_tag(image: &str) -> Result<String, &'static str> {
    const INVALID: &str = "invalid reference format";
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let path_at = name.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match name[path_at..].split_once(':') {
        Some((last, tag)) => (&name[..path_at + last.len()], Some(tag)),
        None => (name, None),
    };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if tag.is_some_and(|tag| !word(tag) || tag.len() > 128) || digest.is_some_and(|digest| !digest.contains(':')) {
        return Err(INVALID);
    }
    for (at, part) in repository.split('/').enumerate() {
        let host = at == 0 && repository.contains('/') && (part.contains(['.', ':']) || part == "localhost");
        if host {
            continue;
        }
        if !word(part) {
            return Err(INVALID);
        }
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("invalid reference format: repository name must be lowercase");
        }
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn references_get_a_tag_or_are_refused() {
        assert_eq!(with_tag("nginx").as_deref(), Ok("nginx:latest"));
        assert_eq!(with_tag("localhost:5000/a/b").as_deref(), Ok("localhost:5000/a/b:latest"));
        assert_eq!(with_tag("a/b:1").as_deref(), Ok("a/b:1"));
        assert_eq!(with_tag("a@sha256:00").as_deref(), Ok("a@sha256:00"));
        for bad in ["", "A", "a b", "a:", "a//b", ":1"] {
            assert!(with_tag(bad).is_err(), "{bad}");
        }
    }
}
