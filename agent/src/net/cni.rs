//! How a node's range is shared between Wasm and OCI pods, and the CNI configuration of the latter; pure.
//!
//! OCI pods are on a bridge that has the range's first /24; the rest is routed to the machine itself (AnyIP), where
//! Wasm pods bind addresses with no set-up at all. Both are reached through the node, which has an address in each, so
//! either kind reaches the other.

use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

/// The prefix of the OCI pods' part: 253 addresses, more than the 110 pods that a node takes.
const BRIDGE_PREFIX: u8 = 24;
/// The longest prefix of a range that can be shared.
const LONGEST_SHARED: u8 = 22;

/// A range, shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The bridge's part.
    pub bridge: Network,
    /// The machine's own parts.
    pub own: Vec<Network>,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub base: Ipv4Addr,
    /// The length of its prefix.
    pub prefix: u8,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Network {
    /// Reads `10.64.0.0/19`; `None` for what is no IPv4 network.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
        let mask = u32::MAX << (32 - u32::from(prefix));
        Some(Self { base: Ipv4Addr::from(u32::from(base.parse::<Ipv4Addr>().ok()?) & mask), prefix })
    }

    /// Whether another network lies within it.
    pub fn contains(self, other: Self) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix));
        other.prefix >= self.prefix && u32::from(other.base) & mask == u32::from(self.base)
    }

    /// The address at an offset.
    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(offset))
    }

    fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }
}

/// Shares a node's range; `None` where it is too small for both kinds of pods.
pub fn share(range: Network) -> Option<Shares> {
    if range.prefix > LONGEST_SHARED {
        return None;
    }
    let bridge = Network { base: range.base, prefix: BRIDGE_PREFIX };
    // What is left of a range without its first /24 are the upper halves of what encloses it: /24, /23, ... .
    let halves = (range.prefix + 1..=BRIDGE_PREFIX).rev();
    let half = |prefix: u8| {
        let size = Network { base: range.base, prefix }.size();
        Network { base: range.at(size), prefix }
    };
    Some(Shares { bridge, own: halves.map(half).collect() })
}

/// What the pod network's configuration depends on.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    /// The bridge's name.
    pub name: &'a str,
    /// Its range.
    pub network: Network,
    /// Where the addresses that are given out are noted.
    pub leases: &'a Path,
    /// Whether the world sees the node's address instead of the pods', and host ports are forwarded: both need
    /// `iptables`.
    pub iptables: bool,
}

/// The CNI configuration list of a bridge with addresses from its range.
pub fn configuration(bridge: &Bridge<'_>) -> Value {
    let (gateway, size) = (bridge.network.at(1), bridge.network.size());
    let range = json!({
        "subnet": bridge.network.to_string(), "gateway": gateway,
        "rangeStart": bridge.network.at(2), "rangeEnd": bridge.network.at(size - 2),
    });
    let mut plugins = vec![json!({
        "type": "bridge", "bridge": bridge.name, "isGateway": true, "isDefaultGateway": true, "hairpinMode": true,
        "ipMasq": bridge.iptables,
        "ipam": {"type": "host-local", "dataDir": bridge.leases, "ranges": [[range]]},
    })];
    if bridge.iptables {
        plugins.push(json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}));
    }
    json!({"cniVersion": "0.4.0", "name": "skiff", "plugins": plugins})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_shares_are_the_whole_range() {
        let shares = share(Network::parse("10.64.32.0/19").unwrap()).unwrap();
        assert_eq!(shares.bridge.to_string(), "10.64.32.0/24");
        let own: Vec<_> = shares.own.iter().map(Network::to_string).collect();
        assert_eq!(own, ["10.64.33.0/24", "10.64.34.0/23", "10.64.36.0/22", "10.64.40.0/21", "10.64.48.0/20"]);
        for prefix in 8..=LONGEST_SHARED {
            let range = Network { base: Ipv4Addr::new(10, 0, 0, 0), prefix };
            let shares = share(range).unwrap();
            let sum: u64 = shares.own.iter().chain([&shares.bridge]).map(|part| u64::from(part.size())).sum();
            assert_eq!(sum, u64::from(range.size()));
        }
        assert!(share(Network::parse("10.0.0.0/24").unwrap()).is_none());
    }

    #[test]
    fn pods_get_what_is_neither_the_gateways_nor_the_broadcast_address() {
        let network = Network::parse("10.64.0.0/24").unwrap();
        let made = configuration(&Bridge { name: "skiff0", network, leases: Path::new("/run/x"), iptables: false });
        let range = &made["plugins"][0]["ipam"]["ranges"][0][0];
        assert_eq!((&range["gateway"], &range["rangeStart"]), (&json!("10.64.0.1"), &json!("10.64.0.2")));
        assert_eq!(range["rangeEnd"], "10.64.0.254");
        assert_eq!(made["plugins"].as_array().unwrap().len(), 1);
    }
}
