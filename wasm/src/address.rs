//! The addresses of pods: which of the node's range is whose.
//!
//! A pod's address needs no set-up: the whole range is routed to this machine, so giving one out is only a record.

use std::{collections::HashSet, net::Ipv4Addr};

/// A range that cannot be used for pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("pod CIDR {0:?} is not an IPv4 range such as 10.64.0.0/19")]
    Range(String),
    #[error("all {0} addresses of the node's pod range are in use")]
    Exhausted(u32),
    #[error("the node has no pod range yet")]
    NoRange,
}

/// One range of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    base: u32,
    size: u32,
}

/// The node's ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    parts: Vec<Part>,
}

/// The shortest and longest prefix taken: a /8 holds more pods than any node, a /29 leaves five addresses.
const PREFIXES: std::ops::RangeInclusive<u32> = 8..=29;
/// Most ranges of a node: a /8 without one of its /24s has 16.
const MAX_PARTS: usize = 32;
/// Addresses at a range's start that no pod gets: the network's own, and that of a bridge or router.
const RESERVED: u32 = 2;

impl Range {
    /// Parses CRI's `pod_cidr`; all IPv4 ranges of a list count.
    pub(crate) fn parse(cidrs: &str) -> Result<Self, AddressError> {
        let parse_one = |cidr: &str| -> Option<Part> {
            let (address, prefix) = cidr.trim().split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix: u32 = prefix.parse().ok().filter(|prefix| PREFIXES.contains(prefix))?;
            let size = 1u32 << (32 - prefix);
            Some(Part { base: u32::from(address) & !(size - 1), size })
        };
        let parts: Vec<Part> = cidrs.split(',').filter_map(parse_one).take(MAX_PARTS).collect();
        if parts.is_empty() { Err(AddressError::Range(cidrs.to_owned())) } else { Ok(Self { parts }) }
    }

    /// How many pods can have an address.
    fn usable(&self) -> u32 {
        self.parts.iter().map(|part| part.usable()).fold(0, u32::saturating_add)
    }

    /// The address of a place in the range.
    fn at(&self, mut offset: u32) -> Option<u32> {
        for part in &self.parts {
            match offset.checked_sub(part.usable()) {
                Some(beyond) => offset = beyond,
                None => return Some(part.base + RESERVED + offset),
            }
        }
        None
    }

    /// Whether the addresses are this machine's alone (`skiff dev`).
    pub(crate) fn is_loopback(&self) -> bool {
        self.parts.iter().all(|part| Ipv4Addr::from(part.base).is_loopback())
    }
}

impl Part {
    /// All but the reserved ones and the broadcast address.
    fn usable(self) -> u32 {
        self.size - RESERVED - 1
    }
}

/// Which addresses are in use. They are given out in turn, so that an address just freed is not met again at once by
/// clients of the pod that had it.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    range: Option<Range>,
    used: HashSet<u32>,
    next: u32,
}

impl Pool {
    pub(crate) fn set_range(&mut self, range: Range) {
        if self.range.as_ref() != Some(&range) {
            self.range = Some(range);
            self.next = 0;
        }
    }

    pub(crate) fn range(&self) -> Option<&Range> {
        self.range.as_ref()
    }

    /// Takes a free address.
    pub(crate) fn take(&mut self) -> Result<Ipv4Addr, AddressError> {
        let range = self.range.as_ref().ok_or(AddressError::NoRange)?;
        let usable = range.usable();
        for step in 0..usable {
            let offset = (self.next + step) % usable;
            let Some(address) = range.at(offset) else { break };
            if self.used.insert(address) {
                self.next = offset + 1;
                return Ok(Ipv4Addr::from(address));
            }
        }
        Err(AddressError::Exhausted(usable))
    }

    /// Gives an address back.
    pub(crate) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn ranges() {
        for (text, base, size) in [
            ("127.64.0.0/24", "127.64.0.0", 256),
            ("10.64.32.7/19", "10.64.32.0", 8192),
            ("fd00::/64,10.0.0.0/29", "10.0.0.0", 8),
        ] {
            let range = Range::parse(text).unwrap();
            let part = range.parts[0];
            assert_eq!((Ipv4Addr::from(part.base).to_string().as_str(), part.size), (base, size));
        }
        for text in ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/7", "fd00::/64", "x/24", "10.0.0.0/99999999999"] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_parts_of_a_list_are_used() {
        let mut pool = Pool::default();
        pool.set_range(Range::parse("10.0.0.8/29,10.0.0.16/29").unwrap());
        let taken: HashSet<_> = (0..10).map(|_| pool.take().unwrap().octets()[3]).collect();
        assert_eq!(taken, [10, 11, 12, 13, 14, 18, 19, 20, 21, 22].into());
        assert_eq!(pool.take(), Err(AddressError::Exhausted(10)));
    }

    #[test]
    fn every_address_once_and_a_freed_one_last() {
        let mut pool = Pool::default();
        assert_eq!(pool.take(), Err(AddressError::NoRange));
        pool.set_range(Range::parse("10.0.0.0/29").unwrap());
        let taken: Vec<_> = (0..5).map(|_| pool.take().unwrap().to_string()).collect();
        assert_eq!(taken, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(pool.take(), Err(AddressError::Exhausted(5)));
        pool.give_back("10.0.0.4".parse().unwrap());
        pool.give_back("10.0.0.2".parse().unwrap());
        assert_eq!(pool.take().unwrap().to_string(), "10.0.0.2");
        pool.give_back("10.0.0.2".parse().unwrap());
        assert_eq!(pool.take().unwrap().to_string(), "10.0.0.4");
    }
}
