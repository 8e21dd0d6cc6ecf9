//! An OCI image of one layer as an archive in memory (OCI image layout), the same bytes from the same files.

use std::io;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A file of the layer.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, without a leading slash.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What a file is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file of these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link.
    Link(String),
    /// A folder.
    Folder,
}

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its full name, e.g. `skiff.dev/pause:1`.
    pub name: String,
    /// The machine that it is for, e.g. `amd64`.
    pub architecture: String,
    /// How it is run: the `config` of an OCI image, e.g. `{"Entrypoint": ["/pause"]}`.
    pub config: Value,
    /// Its files.
    pub files: Vec<File>,
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

fn append(tar: &mut tar::Builder<Vec<u8>>, file: &File) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(file.mode);
    header.set_mtime(0);
    let mut data: &[u8] = &[];
    match &file.content {
        Content::Bytes(bytes) => {
            header.set_entry_type(tar::EntryType::Regular);
            data = bytes;
        }
        Content::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            return tar.append_link(&mut header, &file.path, target);
        }
        Content::Folder => header.set_entry_type(tar::EntryType::Directory),
    }
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, &file.path, data)
}

fn tar_of(files: &[File]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(vec![]);
    files.iter().try_for_each(|file| append(&mut tar, file))?;
    tar.into_inner()
}

impl Image {
    /// The archive. Fails where a file's path cannot stand in a tar archive.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let layer = tar_of(&self.files)?;
        let config = json!({
            "architecture": self.architecture, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        });
        let config = config.to_string().into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("manifest.v1+json", &manifest);
        entry["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name});
        entry["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes();
        let file = |path: String, bytes| File { path, mode: 0o644, content: Content::Bytes(bytes) };
        let blob = |bytes: Vec<u8>| file(format!("blobs/sha256/{}", digest(&bytes)), bytes);
        tar_of(&[
            file("oci-layout".into(), layout),
            file("index.json".into(), index),
            blob(config),
            blob(layer),
            blob(manifest),
        ])
    }
}
