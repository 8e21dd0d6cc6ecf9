//! How a registry is set up, and its limits.

use std::{net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use jiff::Timestamp;

use crate::strategy::services::Cidr;

/// How often an update is tried again when another write came first. From the second try on the writers of one object
/// wait for each other, so that only writes of other servers can still come first.
pub(super) const MAX_SWAPS: usize = 16;

/// How many names are tried for an object that only brings the beginning of one.
pub(super) const MAX_NAME_TRIES: usize = 8;

/// How many deletions of a collection are under way at once; they share the store's group commits.
pub(super) const COLLECTION_CONCURRENCY: usize = 32;

/// The longest `fieldManager`.
pub(super) const MAX_FIELD_MANAGER_BYTES: usize = 128;

/// The longest `continue` token; real ones hold a revision, a namespace and a name.
pub(super) const MAX_TOKEN_BYTES: usize = 2048;

/// How long a watch lasts that does not say how long it wants to.
pub(super) const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How a registry is set up.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// The addresses of Services.
    pub service_cidr: Cidr,
    /// The ports of Services on nodes.
    pub node_ports: RangeInclusive<u16>,
    /// The address at which the API server is reached from within the cluster.
    pub advertise_address: Ipv4Addr,
    /// The port at that address.
    pub advertise_port: u16,
    /// Who signs the certificates of clients, as PEM: published for extension API servers. Empty for none.
    pub client_ca: String,
    /// Whether the cluster has the StorageClass of volumes that are folders of nodes.
    pub local_path_class: bool,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// The source of UIDs and of the ends of generated names: 128 random bits.
    pub random: fn() -> uuid::Uuid,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            service_cidr: Cidr { base: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
            node_ports: 30000..=32767,
            advertise_address: Ipv4Addr::LOCALHOST,
            advertise_port: 6443,
            client_ca: String::new(),
            local_path_class: false,
            now: skiff_client::clock::now,
            random: uuid::Uuid::new_v4,
        }
    }
}
