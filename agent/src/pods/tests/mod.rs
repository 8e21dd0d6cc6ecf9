#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value, reason = "tests")]
//! What `decide` and `status` promise: by examples, and over random orders of events.

mod examples;
mod shell;
mod tokens;
mod world;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::model::DesiredPod;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
}

pub(super) fn desired(spec: Value) -> DesiredPod {
    let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 3});
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    DesiredPod::new(Arc::new(pod), false, vec!["127.0.0.1".parse().unwrap()])
}
