//! `registries.yaml`: where images are really pulled from, as whom, and whom the node trusts there. The file is k3s's:
//!
//! ```yaml
//! mirrors:
//!   docker.io:
//!     endpoint: ["https://mirror.example.com:5000"]
//!     rewrite: {"^library/(.*)": "hub/$1"}
//!   "*":
//!     endpoint: ["https://cache.example.com/v2/proxy"]
//! configs:
//!   "mirror.example.com:5000":
//!     auth: {username: node, password: secret}
//!     tls: {ca_file: /etc/skiff/mirror.crt}
//! ```
//!
//! Both runtimes of a node follow it: the Wasm runtime asks [`Registries::endpoints`], and containerd is told the same.
//! One thing differs from k3s: nothing is spoken in the clear or to anybody unknown, so `insecure_skip_verify` and
//! `http://` endpoints elsewhere than on this machine are refused.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// The mirrors of registries that have none of their own.
const ANY: &str = "*";
/// The path that every endpoint has.
const API: &str = "/v2";
/// Largest compiled form of a rewrite's pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A file that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// It is not in the file's form.
    #[error("registries.yaml cannot be read")]
    Form(#[source] serde_yaml_ng::Error),
    /// An endpoint is no URL of a registry.
    #[error("registries.yaml: endpoint {0:?} is not a URL such as https://mirror.example.com:5000")]
    Endpoint(String),
    /// An endpoint would be spoken to in the clear.
    #[error("registries.yaml: endpoint {0:?} is not encrypted: only this machine is spoken to by http://")]
    Clear(String),
    /// A registry's identity would not be checked.
    #[error(
        "registries.yaml: insecure_skip_verify of {0:?} is not supported: name the registry's authority by ca_file"
    )]
    Unchecked(String),
    /// A rewrite's pattern is none.
    #[error("registries.yaml: rewrite {pattern:?} is no pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        #[source]
        source: regex::Error,
    },
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, Config>,
}

#[derive(Clone, Debug)]
struct Mirror {
    servers: Vec<Server>,
    rewrites: Vec<(Regex, String)>,
}

/// A host that is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    host: String,
    plain: bool,
    /// What comes before repositories there, with a slash at its end, or nothing.
    prefix: String,
}

/// One place to pull an image from.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host, with its port where one is given.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// Whether it is spoken to without TLS, which only this machine is.
    pub plain: bool,
    /// Whether it is the registry that the image names, and no mirror: pull secrets are shown to it alone.
    pub is_named: bool,
    /// Who the node is there.
    pub auth: Option<Auth>,
    /// Whom it trusts there beside the public authorities, and its own certificate.
    pub tls: Tls,
}

/// Who the node is at a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// A user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// A token instead.
    pub identity_token: String,
}

/// The certificates for a registry, as paths of PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whom the node trusts.
    pub ca_file: Option<PathBuf>,
    /// The node's certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

#[derive(Clone, Default)]
struct Config {
    auth: Option<Auth>,
    tls: Tls,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)
    }
}

/// The file's form.
mod file {
    use super::{BTreeMap, Deserialize, PathBuf};

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct File {
        pub(super) mirrors: BTreeMap<String, Mirror>,
        pub(super) configs: BTreeMap<String, Config>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct Mirror {
        pub(super) endpoint: Vec<String>,
        pub(super) rewrite: BTreeMap<String, String>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct Config {
        pub(super) auth: Option<Auth>,
        pub(super) tls: Tls,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct Auth {
        pub(super) username: String,
        pub(super) password: String,
        /// `user:password` in base64.
        pub(super) auth: String,
        pub(super) identity_token: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct Tls {
        pub(super) ca_file: Option<PathBuf>,
        pub(super) cert_file: Option<PathBuf>,
        pub(super) key_file: Option<PathBuf>,
        pub(super) insecure_skip_verify: bool,
    }
}

impl Registries {
    /// Reads the file's text; an empty one says nothing.
    ///
    /// # Errors
    /// When it is not in the file's form, or asks for what is refused.
    pub fn parse(text: &str) -> Result<Self, RegistriesError> {
        let file: Option<file::File> = serde_yaml_ng::from_str(text).map_err(RegistriesError::Form)?;
        let file = file.unwrap_or_default();
        let mirrors = file.mirrors.into_iter().map(|(registry, mirror)| Ok((registry, Mirror::read(&mirror)?)));
        let configs = file.configs.into_iter().map(|(host, config)| {
            let config = Config::read(&host, config)?;
            // k3s takes a URL in the host's place.
            let host = host.split_once("://").map_or(host.as_str(), |(_, rest)| rest).trim_end_matches('/');
            Ok((host.to_owned(), config))
        });
        Ok(Self { mirrors: mirrors.collect::<Result<_, _>>()?, configs: configs.collect::<Result<_, _>>()? })
    }

    /// The places that have an image of `registry`, the ones to be asked first at the beginning. The last is the
    /// registry itself.
    #[must_use]
    pub fn endpoints(&self, registry: &str, repository: &str) -> Vec<Endpoint> {
        let named = Server { host: registry.to_owned(), plain: is_this_machine(registry), prefix: String::new() };
        let mut endpoints = Vec::new();
        if let Some(mirror) = self.mirrors.get(registry).or_else(|| self.mirrors.get(ANY)) {
            let rewritten = mirror.rewrite(repository);
            let mirrors = mirror.servers.iter().filter(|server| **server != named);
            endpoints.extend(mirrors.map(|server| self.endpoint(server, &rewritten, false)));
        }
        endpoints.push(self.endpoint(&named, repository, true));
        endpoints
    }

    fn endpoint(&self, server: &Server, repository: &str, is_named: bool) -> Endpoint {
        let config = self.configs.get(&server.host).cloned().unwrap_or_default();
        Endpoint {
            host: server.host.clone(),
            repository: format!("{}{repository}", server.prefix),
            plain: server.plain,
            is_named,
            auth: config.auth,
            tls: config.tls,
        }
    }
}

impl Mirror {
    fn read(file: &file::Mirror) -> Result<Self, RegistriesError> {
        let servers = file.endpoint.iter().map(|endpoint| Server::read(endpoint)).collect::<Result<_, _>>()?;
        let rewrites = file.rewrite.iter().map(|(pattern, by)| {
            let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
            let compiled = compiled.map_err(|source| RegistriesError::Pattern { pattern: pattern.clone(), source })?;
            Ok((compiled, by.clone()))
        });
        Ok(Self { servers, rewrites: rewrites.collect::<Result<_, _>>()? })
    }

    /// The repository by the first rewrite that fits.
    fn rewrite(&self, repository: &str) -> String {
        let fitting = self.rewrites.iter().find(|(pattern, _)| pattern.is_match(repository));
        fitting.map_or_else(
            || repository.to_owned(),
            |(pattern, by)| pattern.replace(repository, by.as_str()).into_owned(),
        )
    }
}

impl Server {
    /// Reads `https://HOST[:PORT][/v2[/PREFIX]]`; without a scheme, TLS is meant.
    fn read(endpoint: &str) -> Result<Self, RegistriesError> {
        let malformed = || RegistriesError::Endpoint(endpoint.to_owned());
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") };
        let url: http::Uri = url.parse().map_err(|_| malformed())?;
        let host = url.authority().ok_or_else(malformed)?.to_string();
        let plain = match url.scheme_str() {
            Some("https") => false,
            Some("http") if is_this_machine(&host) => true,
            Some("http") => return Err(RegistriesError::Clear(endpoint.to_owned())),
            _ => return Err(malformed()),
        };
        if host.contains('@') || url.query().is_some() {
            return Err(malformed());
        }
        let path = url.path().trim_end_matches('/');
        let prefix = match path.strip_prefix(API).unwrap_or(path).trim_start_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self { host, plain, prefix })
    }
}

impl Config {
    fn read(host: &str, file: file::Config) -> Result<Self, RegistriesError> {
        if file.tls.insecure_skip_verify {
            return Err(RegistriesError::Unchecked(host.to_owned()));
        }
        let file::Tls { ca_file, cert_file, key_file, .. } = file.tls;
        Ok(Self { auth: file.auth.map(Auth::read), tls: Tls { ca_file, cert_file, key_file } })
    }
}

impl Auth {
    fn read(file: file::Auth) -> Self {
        let file::Auth { username, password, auth, identity_token } = file;
        let decoded = BASE64_STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
        match pair.filter(|_| username.is_empty()) {
            Some((username, password)) => {
                Self { username: username.to_owned(), password: password.to_owned(), identity_token }
            }
            None => Self { username, password, identity_token },
        }
    }
}

/// Whether a registry is on this machine, the only one spoken to without TLS.
fn is_this_machine(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example.com:5000", "http://127.0.0.1:5001"]
    rewrite: {"^library/(.*)": "hub/$1"}
  "*":
    endpoint: ["https://cache.example.com/v2/proxy/"]
configs:
  "mirror.example.com:5000":
    auth: {username: node, password: secret}
    tls: {ca_file: /etc/skiff/mirror.crt}
  https://registry.example.com/:
    auth: {auth: dXNlcjpwYXNz}
"#;

    fn places(registry: &str, repository: &str) -> Vec<String> {
        let endpoints = Registries::parse(FILE).unwrap().endpoints(registry, repository);
        endpoints.iter().map(|one| format!("{}{one:?}", if one.plain { "clear " } else { "" })).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_registry_last() {
        assert_eq!(
            places("docker.io", "library/hello"),
            ["mirror.example.com:5000/hub/hello", "clear 127.0.0.1:5001/hub/hello", "docker.io/library/hello"]
        );
        assert_eq!(places("docker.io", "team/app")[0], "mirror.example.com:5000/team/app");
        assert_eq!(places("ghcr.io", "a/b"), ["cache.example.com/proxy/a/b", "ghcr.io/a/b"]);
        assert_eq!(Registries::default().endpoints("localhost:5000", "a").len(), 1);
    }

    #[test]
    fn each_host_has_its_own_identity_and_authorities() {
        let registries = Registries::parse(FILE).unwrap();
        let mirrored = registries.endpoints("docker.io", "library/hello");
        assert_eq!(mirrored[0].auth.as_ref().unwrap().username, "node");
        assert_eq!(mirrored[0].tls.ca_file.as_deref(), Some(std::path::Path::new("/etc/skiff/mirror.crt")));
        assert!(mirrored[1].auth.is_none() && !mirrored[1].is_named);
        assert!(mirrored[2].auth.is_none() && mirrored[2].is_named);
        let named = registries.endpoints("registry.example.com", "app").pop().unwrap();
        let auth = named.auth.unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("user", "pass"));
    }

    #[test]
    fn plain_http_only_on_this_machine() {
        for (registry, plain) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_this_machine(registry), plain, "{registry}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, why) in [
            ("mirrors: {a: {endpoint: ['http://10.0.0.1:5000']}}", "is not encrypted"),
            ("mirrors: {a: {endpoint: ['ftp://10.0.0.1']}}", "is not a URL"),
            ("mirrors: {a: {endpoint: ['https://']}}", "is not a URL"),
            ("mirrors: {a: {endpoint: ['https://user:secret@host']}}", "is not a URL"),
            ("mirrors: {a: {rewrite: {'(': b}}}", "no pattern"),
            ("mirrors: {a: {rewrite: {'(a{1000}){1000}': b}}}", "no pattern"),
            ("configs: {a: {tls: {insecure_skip_verify: true}}}", "ca_file"),
            ("mirrors: 1", "cannot be read"),
        ] {
            let error = Registries::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Registries::parse("").unwrap().endpoints("a", "b").len() == 1);
    }
}
