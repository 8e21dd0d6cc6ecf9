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

/// The node's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    base: u32,
    size: u32,
}

/// The shortest and longest prefix taken: a /8 holds more pods than any node, a /29 leaves five addresses.
const PREFIXES: std::ops::RangeInclusive<u32> = 8..=29;
/// Addresses at the range's start that no pod gets: the network's own, and that of a bridge or router.
const RESERVED: u32 = 2;

impl Range {
    /// Parses CRI's `pod_cidr`; of a dual-stack list the first IPv4 range counts.
    pub(crate) fn parse(cidrs: &str) -> Result<Self, AddressError> {
        let parse_one = |cidr: &str| -> Option<Self> {
            let (address, prefix) = cidr.trim().split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix: u32 = prefix.parse().ok().filter(|prefix| PREFIXES.contains(prefix))?;
            let size = 1u32 << (32 - prefix);
            Some(Self { base: u32::from(address) & !(size - 1), size })
        };
        cidrs.split(',').find_map(parse_one).ok_or_else(|| AddressError::Range(cidrs.to_owned()))
    }

    /// How many pods can have an address: all but the reserved ones and the broadcast address.
    fn usable(self) -> u32 {
        self.size - RESERVED - 1
    }

    /// Whether the addresses are this machine's alone (`skiff dev`).
    pub(crate) fn is_loopback(self) -> bool {
        Ipv4Addr::from(self.base).is_loopback()
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
        if self.range != Some(range) {
            self.range = Some(range);
            self.next = 0;
        }
    }

    pub(crate) fn range(&self) -> Option<Range> {
        self.range
    }

    /// Takes a free address.
    pub(crate) fn take(&mut self) -> Result<Ipv4Addr, AddressError> {
        let range = self.range.ok_or(AddressError::NoRange)?;
        for step in 0..range.usable() {
            let offset = (self.next + step) % range.usable();
            let address = range.base + RESERVED + offset;
            if self.used.insert(address) {
                self.next = offset + 1;
                return Ok(Ipv4Addr::from(address));
            }
        }
        Err(AddressError::Exhausted(range.usable()))
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
            assert_eq!((Ipv4Addr::from(range.base).to_string().as_str(), range.size), (base, size));
        }
        for text in ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/7", "fd00::/64", "x/24", "10.0.0.0/99999999999"] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
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
