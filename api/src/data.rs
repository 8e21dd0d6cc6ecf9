//! The files of `api/data/`, which `cargo xtask-kinds` writes: facts on Kubernetes 1.36 that the crate is built with.

use std::io::Read;

use serde_json::Value;

/// The largest file of `api/data/` when unpacked; all are far smaller.
const MAX_UNPACKED_BYTES: u64 = 16 << 20;

/// The JSON in a compressed data file. The files are part of the crate and held by its tests, so one that cannot be
/// read (which would be a fault of the build) reads as null.
pub(crate) fn json_gz(bytes: &[u8]) -> Value {
    let mut text = Vec::new();
    let unpacked = flate2::read::GzDecoder::new(bytes).take(MAX_UNPACKED_BYTES).read_to_end(&mut text);
    unpacked.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The JSON in a plain data file; see [`json_gz`] for one that cannot be read.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}
