//! The controllers against the real API server, in one process and without a node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod certificates;
mod deletion;
mod harness;
