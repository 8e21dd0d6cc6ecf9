//! Import from files: a bare `.wasm`, an OCI archive (`index.json`), a Docker archive (`manifest.json`); archives may be
//! packed with gzip.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Entry, ImageError, Reference, Store,
    manifest::{
        Descriptor, Index, MANIFEST, MAX_INDEX_ENTRIES, MAX_JSON_BYTES, MAX_LAYER_BYTES, Manifest, WASM_CONFIG,
        WASM_LAYER,
    },
    reference::is_hex64,
    stage::{Staging, WASM_MAGIC, normal, unpacked},
};

/// Most files of an archive.
const MAX_FILES: usize = 4096;
/// The annotations that name an archive's image, containerd's first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Imports `file`; the entries that came of it.
pub(crate) fn import(store: &Store, file: &Path, name: Option<Reference>) -> Result<Vec<Entry>, ImageError> {
    let mut opened = File::open(file).map_err(ImageError::io("open", file))?;
    let mut magic = [0; 4];
    let is_wasm = opened.read_exact(&mut magic).is_ok() && magic == WASM_MAGIC;
    opened.rewind().map_err(ImageError::io("read", file))?;
    let mut staging = Staging::new(store);
    let entries = if is_wasm {
        vec![import_wasm(&mut staging, opened, file, name)?]
    } else {
        import_archive(&mut staging, opened, file, name)?
    };
    store.commit(staging, &entries)?;
    Ok(entries)
}

/// Wraps a bare component in the manifest that a registry would hold for it.
fn import_wasm(
    staging: &mut Staging,
    mut opened: File,
    file: &Path,
    name: Option<Reference>,
) -> Result<Entry, ImageError> {
    let reference = match name {
        Some(name) => name,
        None => Reference::parse(&stem(file))?,
    };
    let layer = staging.add(&mut opened, MAX_LAYER_BYTES)?;
    let title = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let config = format!(r#"{{"architecture":"wasm","os":"wasip2","layerDigests":["{layer}"]}}"#);
    let config_digest = staging.add(&mut config.as_bytes(), MAX_JSON_BYTES)?;
    let descriptor = |media_type: &str, digest: &str, annotations| Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: staging.size(digest),
        annotations,
        platform: None,
    };
    let title = BTreeMap::from([("org.opencontainers.image.title".to_owned(), title)]);
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: descriptor(WASM_CONFIG, &config_digest, BTreeMap::new()),
        layers: vec![descriptor(WASM_LAYER, &layer, title)],
    };
    let digest = add_manifest(staging, &manifest)?;
    staging.entry(&digest, &reference)
}

fn add_manifest(staging: &mut Staging, manifest: &Manifest) -> Result<String, ImageError> {
    let bytes = serde_json::to_vec(manifest).map_err(ImageError::json("manifest"))?;
    staging.add(&mut bytes.as_slice(), MAX_JSON_BYTES)
}

/// The files of an archive: their digests by path.
type Files = HashMap<PathBuf, String>;

fn import_archive(
    staging: &mut Staging,
    opened: File,
    file: &Path,
    name: Option<Reference>,
) -> Result<Vec<Entry>, ImageError> {
    let files = read_files(staging, opened, file)?;
    let found = if let Some(index) = files.get(Path::new("index.json")) {
        oci_images(staging, index, file)?
    } else if let Some(list) = files.get(Path::new("manifest.json")) {
        docker_images(staging, &files, list)?
    } else {
        return Err(ImageError::UnknownFile { path: file.to_owned() });
    };
    let named = match name {
        Some(name) if found.len() == 1 => found.into_iter().map(|(digest, _)| (digest, name.clone())).collect(),
        Some(_) => {
            return Err(ImageError::Invalid(format!("it has {} images: one name cannot name them", found.len())));
        }
        None => found,
    };
    if named.is_empty() {
        return Err(ImageError::Invalid("the archive has no image".into()));
    }
    named.iter().map(|(digest, reference)| staging.entry(digest, reference)).collect()
}

/// Stages every file of the archive; one that is named by a digest must have it.
fn read_files(staging: &mut Staging, opened: File, file: &Path) -> Result<Files, ImageError> {
    let unknown = || ImageError::UnknownFile { path: file.to_owned() };
    let mut tar = tar::Archive::new(unpacked(opened)?);
    let mut files = Files::new();
    for entry in tar.entries().map_err(|_| unknown())? {
        let mut entry = entry.map_err(|_| unknown())?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if files.len() == MAX_FILES {
            return Err(ImageError::Invalid(format!("an archive of more than {MAX_FILES} files")));
        }
        let path = normal(&entry.path().map_err(|_| unknown())?);
        let digest = staging.add(&mut entry, MAX_LAYER_BYTES)?;
        if let Ok(hex) = path.strip_prefix("blobs/sha256") {
            let hex = hex.to_string_lossy();
            if is_hex64(&hex) && digest.strip_prefix("sha256:") != Some(&*hex) {
                return Err(ImageError::Invalid(format!("the content of sha256:{hex} has the digest {digest}")));
            }
        }
        files.insert(path, digest);
    }
    Ok(files)
}

fn oci_images(staging: &Staging, index: &str, file: &Path) -> Result<Vec<(String, Reference)>, ImageError> {
    let index: Index = serde_json::from_slice(&staging.json(index)?).map_err(ImageError::json("index"))?;
    if index.manifests.len() > MAX_INDEX_ENTRIES {
        return Err(ImageError::Invalid("an archive of too many images".into()));
    }
    let name_of = |entry: &Descriptor| -> Result<Reference, ImageError> {
        let name = NAMES.iter().find_map(|key| entry.annotations.get(*key));
        Ok(match name {
            // By the specification a bare tag is a name within the archive.
            Some(tag) if !tag.contains([':', '/']) => Reference::parse(&format!("{}:{tag}", stem(file)))?,
            Some(name) => Reference::parse(name)?,
            None => Reference::parse(&stem(file))?,
        })
    };
    index.manifests.iter().map(|entry| Ok((entry.digest.clone(), name_of(entry)?))).collect()
}

/// One image of a Docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

fn docker_images(staging: &mut Staging, files: &Files, list: &str) -> Result<Vec<(String, Reference)>, ImageError> {
    let images: Vec<DockerImage> =
        serde_json::from_slice(&staging.json(list)?).map_err(ImageError::json("manifest"))?;
    let mut found = Vec::new();
    for image in images.iter().take(MAX_INDEX_ENTRIES) {
        let descriptor = |path: &Path, media_type: &str| -> Result<Descriptor, ImageError> {
            let digest = files.get(&normal(path));
            let digest = digest.ok_or_else(|| ImageError::Invalid(format!("{} is missing", path.display())))?;
            let (size, digest) = (staging.size(digest), digest.clone());
            Ok(Descriptor { media_type: media_type.into(), digest, size, annotations: BTreeMap::new(), platform: None })
        };
        let layers = image.layers.iter().map(|path| descriptor(path, "application/vnd.oci.image.layer.v1.tar"));
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: descriptor(&image.config, "application/vnd.oci.image.config.v1+json")?,
            layers: layers.collect::<Result<_, _>>()?,
        };
        let digest = add_manifest(staging, &manifest)?;
        for tag in image.repo_tags.iter().flatten() {
            found.push((digest.clone(), Reference::parse(tag)?));
        }
    }
    Ok(found)
}

/// The file's name without its ending, in the letters that an image name may have.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = [".wasm", ".tar.gz", ".tgz", ".tar"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    name.trim_matches(['-', '.', '_']).to_owned()
}
