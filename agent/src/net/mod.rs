//! The node's part of the cluster's network.

pub mod services;
