//! Ranges of pod addresses for nodes, cut from the cluster's. No I/O.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: u128,
    prefix: u8,
    is_v6: bool,
}

/// How many ranges are tried at most.
const MAX_RANGES: u128 = 1 << 20;

impl Cidr {
    /// Reads `10.64.0.0/12`. `None` where it is no range.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, is_v6) = match address.parse().ok()? {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), false),
            IpAddr::V6(v6) => (u128::from(v6), true),
        };
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= bits(is_v6)).then(|| Self { address: address & mask(prefix, is_v6), prefix, is_v6 })
    }

    fn overlaps(&self, other: &Self) -> bool {
        if self.is_v6 != other.is_v6 {
            return false;
        }
        let mask = mask(self.prefix.min(other.prefix), self.is_v6);
        self.address & mask == other.address & mask
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = match u32::try_from(self.address) {
            Ok(v4) if !self.is_v6 => IpAddr::V4(Ipv4Addr::from(v4)),
            _ => IpAddr::V6(Ipv6Addr::from(self.address)),
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

fn bits(is_v6: bool) -> u8 {
    if is_v6 { 128 } else { 32 }
}

fn mask(prefix: u8, is_v6: bool) -> u128 {
    let all = if is_v6 { u128::MAX } else { u128::from(u32::MAX) };
    let host = u32::from(bits(is_v6) - prefix);
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

/// The first range with a prefix of `mask_bits` within the cluster's that none of the used ones overlaps; `None` if
/// there is none left.
pub fn allocate(cluster: &Cidr, mask_bits: u8, used: &[Cidr]) -> Option<Cidr> {
    let host_bits = bits(cluster.is_v6).checked_sub(mask_bits)?;
    let count_bits = mask_bits.checked_sub(cluster.prefix)?;
    let step = 1_u128.checked_shl(u32::from(host_bits))?;
    let count = 1_u128.checked_shl(u32::from(count_bits)).unwrap_or(MAX_RANGES).min(MAX_RANGES);
    let exact: HashSet<u128> =
        used.iter().filter(|u| u.prefix == mask_bits && u.is_v6 == cluster.is_v6).map(|u| u.address).collect();
    let odd: Vec<&Cidr> = used.iter().filter(|used| used.prefix != mask_bits).collect();
    let ranges =
        (0..count).map(|n| Cidr { address: cluster.address + n * step, prefix: mask_bits, is_v6: cluster.is_v6 });
    ranges.into_iter().find(|range| !exact.contains(&range.address) && !odd.iter().any(|used| used.overlaps(range)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_first_free_range() {
        for (cluster, mask, used, expected) in [
            ("10.64.0.0/12", 19, vec![], Some("10.64.0.0/19")),
            ("10.64.0.0/12", 19, vec!["10.64.0.0/19", "10.64.64.0/19"], Some("10.64.32.0/19")),
            ("10.64.0.0/12", 19, vec!["10.64.0.0/16"], Some("10.65.0.0/19")),
            ("10.64.0.0/12", 19, vec!["10.64.1.0/24"], Some("10.64.32.0/19")),
            ("10.0.0.0/31", 32, vec!["10.0.0.0/32", "10.0.0.1/32"], None),
            ("10.0.0.0/24", 16, vec![], None),
            ("fd00::/48", 64, vec!["fd00::/64", "10.0.0.0/8"], Some("fd00:0:0:1::/64")),
        ] {
            let used: Vec<Cidr> = used.into_iter().map(|text| Cidr::parse(text).unwrap()).collect();
            let found = allocate(&Cidr::parse(cluster).unwrap(), mask, &used).map(|range| range.to_string());
            assert_eq!(found.as_deref(), expected, "{cluster} {mask}");
        }
        assert!(["", "10.0.0.0", "10.0.0.0/33", "x/8"].iter().all(|text| Cidr::parse(text).is_none()));
    }
}
