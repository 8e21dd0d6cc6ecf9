//! What the node keeps on disk so that it can go on without the server, across a reboot too: its pods, its Node, and
//! what its pods refer to, all encrypted.
//!
//! - [`vault`]: encrypted files.
//! - [`transport`]: the transport to the API server, which keeps what passes and answers from it while the server is
//!   away. Nothing above it knows: informers list what was kept, and follow the server again once it answers.

pub mod transport;
pub mod vault;
