//! Pull secrets: which credentials a registry is shown; pure.

use std::collections::BTreeMap;

use k8s_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// The registry of images that name none.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Credentials, each with the registry, and perhaps the path in it, that they are for.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: Vec<(String, AuthConfig)>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

impl Keyring {
    /// Takes up a secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`; others, and what
    /// cannot be read, hold nothing.
    pub fn add(&mut self, secret: &Secret) {
        let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        let entries = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
                .and_then(|bytes| serde_json::from_slice::<File>(bytes).ok())
                .map(|file| file.auths),
            Some("kubernetes.io/dockercfg") => data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok()),
            _ => None,
        };
        for (key, entry) in entries.unwrap_or_default() {
            self.entries.push((normal(&key), auth(entry)));
        }
    }

    /// What the registry of an image is shown, the most fitting first.
    pub fn of(&self, image: &str) -> Vec<AuthConfig> {
        let full = full_name(image);
        let mut fitting: Vec<_> = self.entries.iter().filter(|(key, _)| fits(key, &full)).collect();
        // The sort is stable: of two that fit alike, the one from the earlier secret comes first.
        fitting.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        fitting.into_iter().map(|(_, auth)| auth.clone()).collect()
    }
}

fn auth(entry: Entry) -> AuthConfig {
    AuthConfig {
        username: entry.username,
        password: entry.password,
        auth: entry.auth,
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
        ..AuthConfig::default()
    }
}

/// A key as Docker writes it, `https://index.docker.io/v1/`, without scheme and version.
fn normal(key: &str) -> String {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key);
    if key == "docker.io" { DEFAULT_REGISTRY.to_owned() } else { key.to_owned() }
}

/// Registry and repository of an image.
fn full_name(image: &str) -> String {
    let has_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
    match image.split_once('/') {
        Some(("docker.io", rest)) => format!("{DEFAULT_REGISTRY}/{rest}"),
        Some((host, _)) if has_host(host) => image.to_owned(),
        _ => format!("{DEFAULT_REGISTRY}/{image}"),
    }
}

/// Whether a key is for an image: its host's parts match (`*` stands for any within a part), and its path begins the
/// image's.
fn fits(key: &str, image: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        (host.to_owned(), path.to_owned())
    };
    let ((key_host, key_path), (host, path)) = (split(key), split(image));
    let (patterns, parts): (Vec<_>, Vec<_>) = (key_host.split('.').collect(), host.split('.').collect());
    let hosts = patterns.len() == parts.len() && patterns.iter().zip(&parts).all(|(p, part)| glob(p, part));
    hosts && path.strip_prefix(&key_path).is_some_and(|rest| key_path.is_empty() || rest.starts_with(['/', ':', '@']))
}

/// `*` within one part of a host.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(first) = pieces.next() else { return false };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for piece in pieces {
        if let Some(middle) = last.replace(piece) {
            let Some(at) = rest.find(middle) else { return false };
            rest = &rest[at + middle.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn keyring(auths: serde_json::Value) -> Keyring {
        let text = json!({"auths": auths}).to_string();
        let data = [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(text.into_bytes()))].into();
        let type_ = Some("kubernetes.io/dockerconfigjson".to_owned());
        let mut keyring = Keyring::default();
        keyring.add(&Secret { data: Some(data), type_, ..Secret::default() });
        keyring
    }

    #[test]
    fn the_longest_key_that_fits_comes_first() {
        let user = |name: &str| json!({"username": name, "password": "p"});
        let ring = keyring(json!({
            "registry.io": user("all"), "https://registry.io/team/": user("team"), "*.example.com": user("wild"),
            "https://index.docker.io/v1/": user("hub"), "localhost:5000": user("local"),
        }));
        let users = |image: &str| ring.of(image).into_iter().map(|auth| auth.username).collect::<Vec<_>>();
        assert_eq!(users("registry.io/team/app:1"), ["team", "all"]);
        assert_eq!(users("registry.io/teams/app"), ["all"]);
        assert_eq!(users("busybox"), ["hub"]);
        assert_eq!(users("docker.io/library/busybox:1"), ["hub"]);
        assert_eq!(users("a.example.com/x"), ["wild"]);
        assert_eq!(users("a.b.example.com/x"), Vec::<String>::new());
        assert_eq!(users("localhost:5000/x@sha256:00"), ["local"]);
    }

    #[test]
    fn globs_and_nonsense() {
        for (pattern, text, wanted) in [
            ("*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("a*b*c", "axbyc", true),
            ("a*bb", "ab", false),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), wanted, "{pattern} {text}");
        }
        let mut ring = Keyring::default();
        ring.add(&Secret::default());
        assert!(ring.of("a").is_empty());
    }
}
