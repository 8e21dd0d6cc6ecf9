//! Pulling images from registries, or from the mirrors that the node's `registries.yaml` names.

use std::path::Path;

use futures::TryStreamExt;
use oci_client::{
    Client,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use skiff_registries::{Endpoint, Registries};

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
    /// Pulls the image `name` from the first place that gives it, as `registries.yaml` (the text of it) orders them.
    /// Content that is here already is not fetched again.
    ///
    /// # Errors
    /// When the name is none, `registries.yaml` cannot be followed, no place gives the image (the last one's error), or
    /// it is not a Wasm image.
    pub async fn pull(&self, name: &str, auth: Auth, registries: &str) -> Result<Entry, ImageError> {
        let reference = Reference::parse(name)?;
        let registries =
            Registries::parse(registries).map_err(|error| refused(&reference, crate::error::chain(&error)))?;
        let mut outcome = Err(ImageError::NotFound(name.to_owned()));
        for endpoint in registries.endpoints(&reference.registry, &reference.repository) {
            outcome = self.pull_from(&endpoint, &reference, &auth).await;
            match &outcome {
                Ok(_) => break,
                Err(error) => tracing::debug!(?endpoint, error = crate::error::chain(error), "not pulled from here"),
            }
        }
        outcome
    }

    async fn pull_from(&self, from: &Endpoint, reference: &Reference, auth: &Auth) -> Result<Entry, ImageError> {
        let mut pull = Pull::new(self, reference.clone(), from, auth)?;
        let digest = pull.fetch().await?;
        let (store, reference) = (self.clone(), reference.clone());
        let finish = move || {
            let entry = pull.staging.entry(&digest, &reference)?;
            store.commit(pull.staging, std::slice::from_ref(&entry))?;
            Ok(entry)
        };
        let joined = tokio::task::spawn_blocking(finish).await;
        joined.unwrap_or_else(|error| Err(ImageError::Invalid(format!("the import ended early: {error}"))))
    }
}

fn refused(reference: &Reference, problem: String) -> ImageError {
    ImageError::Pull { reference: reference.to_string(), problem, not_found: false }
}

impl Pull {
    fn new(store: &Store, reference: Reference, from: &Endpoint, auth: &Auth) -> Result<Self, ImageError> {
        if from.tls.cert_file.is_some() || from.tls.key_file.is_some() {
            let problem =
                format!("registries.yaml: {}: Wasm images are pulled without a client certificate", from.host);
            return Err(refused(&reference, problem));
        }
        let config = ClientConfig {
            protocol: if from.plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: from.tls.ca_file.iter().map(|file| authority(file)).collect::<Result<_, _>>()?,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            platform_resolver: None,
            user_agent: concat!("skiff/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let (registry, repository) = (from.host.clone(), from.repository.clone());
        let at = match reference.version.clone() {
            Version::Tag(tag) => oci_client::Reference::with_tag(registry, repository, tag),
            Version::Digest(digest) => oci_client::Reference::with_digest(registry, repository, digest),
        };
        let client = Client::try_from(config).map_err(|error| refused(&reference, crate::error::chain(&error)))?;
        Ok(Self { client, reference, at, auth: auth_at(from, auth), staging: Staging::new(store) })
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

/// Who the node is at an endpoint: whom the pod's pull secret says, which only the registry that the image names is
/// shown, else whom `registries.yaml` says.
fn auth_at(from: &Endpoint, pulls: &Auth) -> RegistryAuth {
    match (pulls, &from.auth) {
        (Auth::Basic(user, password), _) if from.is_named => RegistryAuth::Basic(user.clone(), password.clone()),
        (Auth::Bearer(token), _) if from.is_named => RegistryAuth::Bearer(token.clone()),
        (_, Some(own)) if own.identity_token.is_empty() => {
            RegistryAuth::Basic(own.username.clone(), own.password.clone())
        }
        (_, Some(own)) => RegistryAuth::Bearer(own.identity_token.clone()),
        (_, None) => RegistryAuth::Anonymous,
    }
}

/// An authority that a registry's certificate may be from.
fn authority(file: &Path) -> Result<Certificate, ImageError> {
    let data = crate::disk::read_bounded(file, MAX_JSON_BYTES).map_err(ImageError::io("read the authority", file))?;
    Ok(Certificate { encoding: CertificateEncoding::Pem, data })
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
