//! Pulling images from registries.

use std::net::IpAddr;

use futures::TryStreamExt;
use oci_client::{
    Client,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use super::{
    Entry, ImageError, Reference, Store, Version,
    manifest::{Descriptor, Document, MAX_JSON_BYTES, Manifest},
    stage::Staging,
};

/// How long a registry may keep silent.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// How long a connection may take.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
/// How deep indexes may point to indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// The manifests taken.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Who pulls.
#[derive(Clone, Default)]
pub enum Auth {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user with a password.
    Basic(String, String),
    /// The bearer of a token.
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic(..) => "Basic(..)",
            Self::Bearer(..) => "Bearer(..)",
        })
    }
}

/// One pull: where from, as whom, into what.
struct Pull {
    client: Client,
    reference: Reference,
    at: oci_client::Reference,
    auth: RegistryAuth,
    staging: Staging,
}

impl Store {
    /// Pulls the image `name`. Content that is here already is not fetched again.
    ///
    /// # Errors
    /// When the name is none, the registry does not give it, or it is not a Wasm image.
    pub async fn pull(&self, name: &str, auth: Auth) -> Result<Entry, ImageError> {
        let reference = Reference::parse(name)?;
        let mut pull = Pull::new(self, reference.clone(), auth);
        let digest = pull.fetch().await?;
        let store = self.clone();
        let finish = move || {
            let entry = pull.staging.entry(&digest, &reference)?;
            store.commit(pull.staging, std::slice::from_ref(&entry))?;
            Ok(entry)
        };
        let joined = tokio::task::spawn_blocking(finish).await;
        joined.unwrap_or_else(|error| Err(ImageError::Invalid(format!("the import ended early: {error}"))))
    }
}

impl Pull {
    fn new(store: &Store, reference: Reference, auth: Auth) -> Self {
        let protocol = if is_loopback(&reference.registry) { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            platform_resolver: None,
            user_agent: concat!("skiff/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let auth = match auth {
            Auth::Anonymous => RegistryAuth::Anonymous,
            Auth::Basic(user, password) => RegistryAuth::Basic(user, password),
            Auth::Bearer(token) => RegistryAuth::Bearer(token),
        };
        let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
        let at = match reference.version.clone() {
            Version::Tag(tag) => oci_client::Reference::with_tag(registry, repository, tag),
            Version::Digest(digest) => oci_client::Reference::with_digest(registry, repository, digest),
        };
        Self { client: Client::new(config), reference, at, auth, staging: Staging::new(store) }
    }

    /// Stages all content of the image; the digest of its manifest.
    async fn fetch(&mut self) -> Result<String, ImageError> {
        let mut at = self.at.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            let (digest, bytes) = self.document(&at).await?;
            match Document::parse(&bytes)? {
                Document::Image(manifest) => {
                    self.content(&manifest).await?;
                    return Ok(digest);
                }
                Document::Index(index) => {
                    let chosen = index.choose().ok_or_else(|| ImageError::Invalid("an empty index".into()))?;
                    at = at.clone_with_digest(chosen.digest.clone());
                }
            }
        }
        Err(ImageError::Invalid("indexes nested too deeply".into()))
    }

    /// Stages one manifest or index.
    async fn document(&mut self, at: &oci_client::Reference) -> Result<(String, bytes::Bytes), ImageError> {
        let pulled = self.client.pull_manifest_raw(at, &self.auth, &ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|error| self.resolve_error(&error))?;
        let digest = self.staging.add(&mut bytes.as_ref(), MAX_JSON_BYTES)?;
        match at.digest() {
            Some(wanted) if wanted != digest => {
                Err(ImageError::Invalid(format!("the registry sent {digest} for {wanted}")))
            }
            _ => Ok((digest, bytes)),
        }
    }

    async fn content(&mut self, manifest: &Manifest) -> Result<(), ImageError> {
        for part in manifest.layers.iter().chain([&manifest.config]) {
            if !self.staging.contains(&part.digest) {
                self.blob(part).await?;
            }
        }
        Ok(())
    }

    async fn blob(&mut self, part: &Descriptor) -> Result<(), ImageError> {
        let wanted = OciDescriptor {
            digest: part.digest.clone(),
            size: i64::try_from(part.size).unwrap_or(i64::MAX),
            media_type: part.media_type.clone(),
            ..OciDescriptor::default()
        };
        let broken = |problem: String| ImageError::Pull {
            reference: self.reference.to_string(),
            problem: format!("failed to copy: {problem}"),
            not_found: false,
        };
        let stream = self.client.pull_blob_stream(&self.at, &wanted).await;
        let mut stream = stream.map_err(|error| broken(crate::error::chain(&error)))?.stream;
        let mut writer = self.staging.writer(part.size)?;
        while let Some(chunk) = stream.try_next().await.map_err(|error| broken(error.to_string()))? {
            std::io::Write::write_all(&mut writer, &chunk).map_err(|error| broken(error.to_string()))?;
        }
        let digest = self.staging.finish(writer)?;
        if digest == part.digest {
            return Ok(());
        }
        Err(ImageError::Pull {
            reference: self.reference.to_string(),
            problem: format!("failed commit on ref \"layer-{}\": unexpected commit digest {digest}", part.digest),
            not_found: false,
        })
    }

    /// Says in containerd's words why a manifest cannot be had.
    fn resolve_error(&self, error: &OciDistributionError) -> ImageError {
        let reference = self.reference.to_string();
        let not_found = is_missing(error);
        let reason = match error {
            _ if not_found => format!("{reference}: not found"),
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => format!(
                "pull access denied, repository does not exist or may require authorization: {}",
                crate::error::chain(error)
            ),
            _ => format!("failed to do request: {}", crate::error::chain(error)),
        };
        let problem = format!("failed to resolve reference \"{reference}\": {reason}");
        ImageError::Pull { reference, problem, not_found }
    }
}

fn is_missing(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound)
        }),
        _ => false,
    }
}

/// Whether the registry is on this machine, the only one spoken to without TLS.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

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
            assert_eq!(is_loopback(registry), plain, "{registry}");
        }
    }
}
