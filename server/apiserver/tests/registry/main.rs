//! Behaviours of the registry on a store in memory: a request goes in at `Dispatch`, an answer comes out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cluster;
mod concurrency;
mod deletion;
mod identity;
mod pods;
mod reading;
mod services;
mod tokens;
mod writing;
