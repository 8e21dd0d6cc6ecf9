//! Behaviours of the registry, on a store in memory for the most part: a request goes in at `Dispatch`, an answer comes
//! out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cluster;
mod concurrency;
mod decisions;
mod deletion;
mod disk;
mod grants;
mod identity;
mod limits;
mod nodes;
mod pods;
mod reading;
mod services;
mod tokens;
mod writing;
