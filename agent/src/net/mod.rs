//! The node's part of the cluster's network.

pub mod anyip;
pub mod cni;
pub mod routes;
pub mod services;
