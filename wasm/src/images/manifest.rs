//! What of an OCI image matters here: its manifest, its config, and which of its bytes are the component.

use serde::{Deserialize, Serialize};

use super::{ImageError, reference::is_digest};

/// Most bytes of a manifest, an index or a config (the distribution specification's advice for manifests).
pub(crate) const MAX_JSON_BYTES: u64 = 4 << 20;
/// Most bytes of a layer, packed or not.
pub(crate) const MAX_LAYER_BYTES: u64 = 1 << 30;
/// Most layers of an image.
const MAX_LAYERS: usize = 128;
/// Most images of an index or archive.
pub(crate) const MAX_INDEX_ENTRIES: usize = 1024;

/// The config of a Wasm artifact (CNCF's Wasm OCI artifact layout).
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The layer of a Wasm artifact.
pub(crate) const WASM_LAYER: &str = "application/wasm";
/// The media type of an OCI manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Layers that are a component or module themselves, under the names that tools have given them over the years.
const WASM_LAYERS: [&str; 4] = [
    WASM_LAYER,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

/// A piece of content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// What machine an image is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

/// An image manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// An index, or an archive's `index.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// A manifest file: one image, or a choice of several.
pub(crate) enum Document {
    Image(Manifest),
    Index(Index),
}

/// What an image's config says about how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunConfig {
    /// The image's entry point.
    #[serde(rename = "Entrypoint")]
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    #[serde(rename = "Cmd")]
    pub cmd: Vec<String>,
    /// Its environment, `NAME=value`.
    #[serde(rename = "Env")]
    pub env: Vec<String>,
    /// Its working folder.
    #[serde(rename = "WorkingDir")]
    pub working_dir: String,
}

/// A config file, as Docker and OCI write it: absent lists may be `null`.
#[derive(Deserialize)]
struct ConfigFile {
    config: Option<RawRunConfig>,
}

#[derive(Deserialize)]
struct RawRunConfig {
    #[serde(rename = "Entrypoint")]
    entrypoint: Option<Vec<String>>,
    #[serde(rename = "Cmd")]
    cmd: Option<Vec<String>>,
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
    #[serde(rename = "WorkingDir")]
    working_dir: Option<String>,
}

/// Where an image's component is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A layer is the component.
    Layer(String),
    /// A file in one of the layers; the last layer that has it counts.
    File(String),
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(ImageError::json("manifest"))?;
        if value.get("manifests").is_some() {
            let index: Index = serde_json::from_value(value).map_err(ImageError::json("index"))?;
            if index.manifests.len() > MAX_INDEX_ENTRIES {
                return Err(ImageError::Invalid("an index of too many images".into()));
            }
            check(index.manifests.iter())?;
            return Ok(Self::Index(index));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(ImageError::json("manifest"))?;
        manifest.check()?;
        Ok(Self::Image(manifest))
    }
}

impl Index {
    /// The image to take: one for Wasm, else one for this machine's kind, else the first.
    pub(crate) fn choose(&self) -> Option<&Descriptor> {
        let is_for = |entry: &&Descriptor, architectures: &[&str]| {
            entry.platform.as_ref().is_some_and(|platform| architectures.contains(&platform.architecture.as_str()))
        };
        let host = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let find = |architectures: &[&str]| self.manifests.iter().find(|entry| is_for(entry, architectures));
        find(&["wasm", "wasm32"]).or_else(|| find(&[host])).or_else(|| self.manifests.first())
    }
}

impl Manifest {
    fn check(&self) -> Result<(), ImageError> {
        if self.schema_version != 2 {
            return Err(ImageError::Invalid(format!("manifest schema version {} is not 2", self.schema_version)));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(ImageError::Invalid(format!(
                "an image of {} layers, more than {MAX_LAYERS}",
                self.layers.len()
            )));
        }
        if let Some(big) = self.layers.iter().find(|layer| layer.size > MAX_LAYER_BYTES) {
            return Err(ImageError::Invalid(format!("layer {} is larger than {MAX_LAYER_BYTES} bytes", big.digest)));
        }
        check(self.layers.iter().chain([&self.config]))
    }

    /// Where the component is, by the manifest and the image's config.
    pub(crate) fn locate(&self, run: &RunConfig) -> Result<Location, ImageError> {
        if let Some(layer) = self.layers.iter().find(|layer| WASM_LAYERS.contains(&layer.media_type.as_str())) {
            return Ok(Location::Layer(layer.digest.clone()));
        }
        let program = run.entrypoint.first().or(run.cmd.first());
        match program.filter(|program| program.ends_with(".wasm")) {
            Some(program) => Ok(Location::File(program.clone())),
            None => Err(ImageError::NotWasm),
        }
    }

    /// The name that the component's layer carries, for `argv[0]`.
    pub(crate) fn title(&self) -> Option<&String> {
        let layer = self.layers.iter().find(|layer| WASM_LAYERS.contains(&layer.media_type.as_str()))?;
        layer.annotations.get("org.opencontainers.image.title")
    }
}

fn check<'a>(mut descriptors: impl Iterator<Item = &'a Descriptor>) -> Result<(), ImageError> {
    match descriptors.find(|descriptor| !is_digest(&descriptor.digest)) {
        Some(bad) => Err(ImageError::Invalid(format!("{:?} is no SHA-256 digest", bad.digest))),
        None => Ok(()),
    }
}

/// Reads an image's config; that of an artifact says nothing about running.
pub(crate) fn run_config(bytes: &[u8]) -> Result<RunConfig, ImageError> {
    let file: ConfigFile = serde_json::from_slice(bytes).map_err(ImageError::json("config"))?;
    Ok(file.config.map_or_else(RunConfig::default, |raw| RunConfig {
        entrypoint: raw.entrypoint.unwrap_or_default(),
        cmd: raw.cmd.unwrap_or_default(),
        env: raw.env.unwrap_or_default(),
        working_dir: raw.working_dir.unwrap_or_default(),
    }))
}
