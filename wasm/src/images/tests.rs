#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use super::*;

const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", disk::hex(&stage::sha256(bytes)))
}

/// A tar of these files.
fn archive(dir: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let path = dir.join("images.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
    path
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", digest(bytes).strip_prefix("sha256:").unwrap())
}

fn manifest(config: (&str, &[u8]), layer: (&str, &[u8])) -> Vec<u8> {
    let part = |(kind, bytes): (&str, &[u8])| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "config": part(config), "layers": [part(layer)]}))
        .unwrap()
}

fn index(entries: &[(&[u8], &str)]) -> Vec<u8> {
    let entry = |(bytes, name): &(&[u8], &str)| {
        serde_json::json!({"mediaType": manifest::MANIFEST, "digest": digest(bytes), "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": name}})
    };
    let manifests: Vec<_> = entries.iter().map(entry).collect();
    serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
}

#[test]
fn a_wasm_file_is_found_by_any_of_its_names() {
    let (dir, store) = store();
    let file = dir.path().join("Hello World.wasm");
    std::fs::write(&file, WASM).unwrap();
    let imported = store.import(&file, None).unwrap();
    assert_eq!(imported.images[0].reference, "docker.io/library/hello-world:latest");
    store.import(&file, Some("ghcr.io/me/hello:v1")).unwrap();
    let id = imported.images[0].manifest.clone();
    let by_digest = format!("hello-world@{id}");
    for name in ["hello-world", "hello-world:latest", "docker.io/library/hello-world", &by_digest, &id, &id[7..]] {
        let image = store.find(name).unwrap();
        assert_eq!(image.id, id, "{name}");
        assert_eq!(image.tags, ["docker.io/library/hello-world:latest", "ghcr.io/me/hello:v1"], "{name}");
        assert_eq!(image.digests.len(), 2, "{name}");
        assert_eq!(image.entry.component, digest(WASM), "{name}");
        assert_eq!(std::fs::read(store.blob_path(&image.entry.component)).unwrap(), WASM);
    }
    for name in ["other", "hello-world:v2", &format!("sha256:{}", "0".repeat(64))] {
        assert!(store.find(name).unwrap_err().is_not_found(), "{name}");
    }
}

#[test]
fn removal_takes_a_name_then_the_content() {
    let (dir, store) = store();
    let file = dir.path().join("a.wasm");
    std::fs::write(&file, WASM).unwrap();
    for name in ["a", "b"] {
        store.import(&file, Some(name)).unwrap();
    }
    let component = digest(WASM);
    assert_eq!(store.remove("a").unwrap().len(), 1);
    assert!(store.find("a").is_err() && store.find("b").is_ok());
    assert!(store.blob_path(&component).exists());
    let id = store.find("b").unwrap().id;
    assert_eq!(store.remove(&id).unwrap().len(), 1);
    assert!(!store.blob_path(&component).exists());
    assert_eq!(store.used_bytes(), 0);
    assert!(store.remove(&id).unwrap().is_empty() && store.remove("b").unwrap().is_empty());
}

#[test]
fn an_oci_archive_of_an_artifact_and_an_image() {
    let (dir, store) = store();
    let artifact_config = br#"{"os":"wasip2"}"#.as_slice();
    let artifact = manifest((manifest::WASM_CONFIG, artifact_config), (manifest::WASM_LAYER, WASM));
    let layer = std::fs::read(archive(dir.path(), &[("app/main.wasm", WASM), ("etc/x", b"y")])).unwrap();
    let config =
        br#"{"config":{"Entrypoint":["main.wasm","-v"],"Cmd":null,"Env":["A=1"],"WorkingDir":"/app"}}"#.as_slice();
    let kind = "application/vnd.oci.image.config.v1+json";
    let image = manifest((kind, config), ("application/vnd.oci.image.layer.v1.tar", &layer));
    let index = index(&[(&artifact, "registry.example/art:1"), (&image, "2")]);
    let blobs = [artifact_config, WASM, &artifact, config, &layer, &image];
    let names: Vec<String> = blobs.iter().map(|bytes| blob(bytes)).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(blobs).collect();
    files.push(("index.json", &index));
    let imported = store.import(&archive(dir.path(), &files), None).unwrap().images;
    let references: Vec<&str> = imported.iter().map(|entry| entry.reference.as_str()).collect();
    assert_eq!(references, ["registry.example/art:1", "docker.io/library/images:2"]);
    assert_eq!(imported[1].component, digest(WASM));
    assert_eq!(imported[1].run.entrypoint, ["main.wasm", "-v"]);
    assert_eq!(
        (imported[1].run.env.as_slice(), imported[1].run.working_dir.as_str()),
        (["A=1".to_owned()].as_slice(), "/app")
    );
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn a_docker_archive() {
    let (dir, store) = store();
    let layer = std::fs::read(archive(dir.path(), &[("./run.wasm", WASM)])).unwrap();
    let config = br#"{"config":{"Cmd":["/run.wasm"]}}"#;
    let list = br#"[{"Config":"c.json","RepoTags":["hello:3","other:1"],"Layers":["l/layer.tar"]}]"#;
    let file = archive(dir.path(), &[("c.json", config), ("l/layer.tar", &layer), ("manifest.json", list)]);
    store.import(&file, None).unwrap();
    assert_eq!(store.find("other:1").unwrap().tags, ["docker.io/library/hello:3", "docker.io/library/other:1"]);
}

#[test]
fn what_is_refused() {
    let (dir, store) = store();
    let config = br#"{"config":{"Entrypoint":["/bin/sh"]}}"#;
    let list = br#"[{"Config":"c.json","RepoTags":["sh:1"],"Layers":[]}]"#;
    let native = archive(dir.path(), &[("c.json", config), ("manifest.json", list)]);
    assert!(matches!(store.import(&native, None), Err(ImageError::NotWasm)));

    let forged = archive(dir.path(), &[(&blob(b"one"), b"two"), ("index.json", b"{\"manifests\":[]}")]);
    let error = store.import(&forged, None).unwrap_err().to_string();
    assert!(error.contains("has the digest"), "{error}");

    let art = manifest((manifest::WASM_CONFIG, b"{}"), (manifest::WASM_LAYER, b"no wasm"));
    let index = index(&[(&art, "a:1")]);
    let files: [(&str, &[u8]); 4] =
        [(&blob(b"{}"), b"{}"), (&blob(b"no wasm"), b"no wasm"), (&blob(&art), &art), ("index.json", &index)];
    let error = store.import(&archive(dir.path(), &files), None).unwrap_err().to_string();
    assert!(error.contains("not WebAssembly"), "{error}");

    let text = dir.path().join("a.txt");
    std::fs::write(&text, "hello").unwrap();
    assert!(matches!(store.import(&text, None), Err(ImageError::UnknownFile { .. })));
    assert!(store.import(&dir.path().join("absent"), None).is_err());
    assert!(store.list().unwrap().is_empty());
    // Nothing half-written stays.
    assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
}
