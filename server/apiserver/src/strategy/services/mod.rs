//! Services: their addresses and node ports, and which fields a Service of a type has.
//!
//! - [`pool`]: numbers of which each has at most one holder.
//! - [`shape`]: which fields go with which type, and what an update carries over; pure.
//! - [`Allocators`]: the cluster's pools. A number is held while a write is under way, kept when it is done, and
//!   released when the Service that had it no longer does.

pub mod pool;
mod shape;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive, sync::Arc};

use serde_json::{Value, json};
use skiff_api::{object::Object, status::FieldError};

use self::pool::{Hold, Pool, PoolError};
use super::{Context, Part, Strategy};

/// Addresses at the beginning of the range that are given only when asked for, at most; the rule by which DNS and
/// other fixed addresses do not collide with given ones (KEP-3070).
const MAX_RESERVED_ADDRESSES: u32 = 256;

/// The same for node ports (KEP-3668).
const MAX_RESERVED_PORTS: u32 = 128;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub base: Ipv4Addr,
    /// How many bits of an address name the network.
    pub prefix: u8,
}

impl Cidr {
    /// How many addresses the network has.
    fn size(self) -> u32 {
        1_u32.checked_shl(32_u32.saturating_sub(self.prefix.into())).unwrap_or(u32::MAX)
    }

    /// The address of a number within the network, e.g. 1 for the API server's own Service.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(n))
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no IPv4 network such as 10.43.0.0/16");
        let (base, prefix) = text.split_once('/').ok_or_else(bad)?;
        let base: Ipv4Addr = base.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=30).contains(prefix)).ok_or_else(bad)?;
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(Self { base: Ipv4Addr::from(u32::from(base) & mask), prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// The cluster's pools of Service addresses and node ports.
pub struct Allocators {
    cidr: Cidr,
    ports: RangeInclusive<u16>,
    addresses: Arc<Pool>,
    node_ports: Arc<Pool>,
}

/// How many numbers at the beginning of a range are given only when asked for.
fn reserved(size: u32, most: u32) -> u32 {
    (size / 16).clamp(16, most).min(size / 2)
}

/// What a Service holds of the pools.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    addresses: BTreeSet<u32>,
    ports: BTreeSet<u32>,
}

impl Claims {
    pub(crate) fn of(service: &Object) -> Self {
        let addresses = shape::addresses(service).filter_map(|ip| ip.parse::<Ipv4Addr>().ok()).map(u32::from);
        Self { addresses: addresses.collect(), ports: shape::node_ports(service).collect() }
    }

    /// Every number; an address is greater than any port.
    pub(crate) fn all(&self) -> impl Iterator<Item = u32> {
        self.addresses.iter().chain(&self.ports).copied()
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.addresses.contains(&number) || self.ports.contains(&number)
    }
}

impl Allocators {
    /// Pools of which the given Services hold what they have.
    pub fn new<'a>(cidr: Cidr, ports: RangeInclusive<u16>, services: impl IntoIterator<Item = &'a Object>) -> Self {
        let addresses = cidr.size().saturating_sub(2);
        let count = u32::from(*ports.end()).saturating_sub(u32::from(*ports.start())) + 1;
        let this = Self {
            cidr,
            addresses: Arc::new(Pool::new(cidr.nth(1).into(), addresses, reserved(addresses, MAX_RESERVED_ADDRESSES))),
            node_ports: Arc::new(Pool::new((*ports.start()).into(), count, reserved(count, MAX_RESERVED_PORTS))),
            ports,
        };
        services.into_iter().for_each(|service| this.adopt(service));
        this
    }

    /// The network of the Service addresses.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// Marks what a Service has as taken.
    pub fn adopt(&self, service: &Object) {
        let claims = Claims::of(service);
        claims.addresses.iter().for_each(|address| self.addresses.adopt(*address));
        claims.ports.iter().for_each(|port| self.node_ports.adopt(*port));
    }

    /// Marks a number as taken that another server has given out.
    pub(crate) fn note(&self, number: u32) {
        self.addresses.adopt(number);
        self.node_ports.adopt(number);
    }

    /// Releases what a Service had and has no more. Called once the write is done.
    pub fn settle(&self, old: Option<&Object>, new: Option<&Object>) {
        let before = old.map(Claims::of).unwrap_or_default();
        let after = new.map(Claims::of).unwrap_or_default();
        before.addresses.difference(&after.addresses).for_each(|address| self.addresses.release(*address));
        before.ports.difference(&after.ports).for_each(|port| self.node_ports.release(*port));
    }

    /// Holds an address that was asked for, or gives one.
    fn take_address(&self, asked: Option<&str>) -> Result<Hold, String> {
        let Some(text) = asked else {
            let full = |_| format!("failed to allocate a serviceIP: range is full: {}", self.cidr);
            return self.addresses.take_any().map_err(full);
        };
        let why = |detail: &str| format!("failed to allocate IP {text}: {detail}");
        let address: Ipv4Addr = text.parse().map_err(|_| why("not a valid IP address"))?;
        self.addresses.take(address.into()).map_err(|error| match error {
            PoolError::Taken => why("provided IP is already allocated"),
            PoolError::OutOfRange | PoolError::Full => why(&format!(
                "the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            )),
        })
    }

    /// Holds a node port that was asked for, or gives one.
    fn take_port(&self, asked: Option<u32>) -> Result<Hold, String> {
        let Some(port) = asked else {
            return self.node_ports.take_any().map_err(|_| "failed to allocate a nodePort: range is full".to_owned());
        };
        self.node_ports.take(port).map_err(|error| match error {
            PoolError::Taken => "provided port is already allocated".to_owned(),
            PoolError::OutOfRange | PoolError::Full => {
                let (first, last) = (self.ports.start(), self.ports.end());
                format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
            }
        })
    }
}

/// The strategy of Services.
pub(super) struct Services;

impl Services {
    /// Takes the address that a Service needs and does not have.
    fn allocate_address(cx: &mut Context<'_>, service: &mut Object, had: &Claims) {
        if !shape::wants_address(service) {
            return;
        }
        let asked = shape::addresses(service).next().map(str::to_owned);
        if asked
            .as_deref()
            .and_then(|ip| ip.parse::<Ipv4Addr>().ok())
            .is_some_and(|ip| had.addresses.contains(&ip.into()))
        {
            return;
        }
        match cx.allocators.take_address(asked.as_deref()) {
            Ok(hold) => {
                shape::set_address(service, &Ipv4Addr::from(hold.value()).to_string());
                cx.holds.push(hold);
            }
            Err(why) => {
                let value = service.at(&["spec", "clusterIPs"]).cloned().unwrap_or_else(|| json!([]));
                cx.errors.push(FieldError::invalid("spec.clusterIPs", value, why));
            }
        }
    }

    /// Takes the node ports that a Service needs and does not have. Ports of one Service that differ only in their
    /// protocol may share a number.
    fn allocate_ports(cx: &mut Context<'_>, service: &mut Object, had: &Claims) {
        if !shape::wants_node_ports(service) {
            return;
        }
        let mut ports = service.at(&["spec", "ports"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut mine = had.ports.clone();
        for (at, port) in ports.iter_mut().enumerate() {
            let asked = port.get("nodePort").and_then(Value::as_u64).filter(|n| *n != 0);
            let asked = asked.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            if asked.is_some_and(|n| mine.contains(&n)) {
                continue;
            }
            match cx.allocators.take_port(asked) {
                Ok(hold) => {
                    mine.insert(hold.value());
                    port["nodePort"] = hold.value().into();
                    cx.holds.push(hold);
                }
                Err(why) => {
                    let path = format!("spec.ports[{at}].nodePort");
                    cx.errors.push(FieldError::invalid(path, asked.unwrap_or_default(), why));
                }
            }
        }
        service.set_at(&["spec", "ports"], ports);
        Self::allocate_health_check(cx, service, &mine);
    }

    /// Takes the port at which a load balancer asks a node whether it has endpoints of the Service.
    fn allocate_health_check(cx: &mut Context<'_>, service: &mut Object, mine: &BTreeSet<u32>) {
        if !shape::wants_health_check(service) {
            return;
        }
        let asked = service.int_at(&["spec", "healthCheckNodePort"]).filter(|port| *port != 0);
        let asked = asked.map(|port| u32::try_from(port).unwrap_or(u32::MAX));
        if asked.is_some_and(|port| mine.contains(&port)) {
            return;
        }
        match cx.allocators.take_port(asked) {
            Ok(hold) => {
                service.set_at(&["spec", "healthCheckNodePort"], hold.value());
                cx.holds.push(hold);
            }
            Err(why) => {
                cx.errors.push(FieldError::invalid("spec.healthCheckNodePort", asked.unwrap_or_default(), why));
            }
        }
    }
}

impl Strategy for Services {
    fn prepare_create(&self, cx: &mut Context<'_>, service: &mut Object) {
        shape::normalize(service);
        cx.errors.extend(shape::families(service));
        Self::allocate_address(cx, service, &Claims::default());
        Self::allocate_ports(cx, service, &Claims::default());
    }

    fn prepare_update(&self, cx: &mut Context<'_>, service: &mut Object, old: &Object, part: Part) {
        if part != Part::Main {
            return;
        }
        shape::carry_over(service, old);
        shape::drop_type_dependent(service, old);
        shape::normalize(service);
        cx.errors.extend(shape::families(service));
        let immutable = shape::check_address_kept(service, old);
        if let Some(error) = immutable {
            cx.errors.push(error);
            return;
        }
        let had = Claims::of(old);
        Self::allocate_address(cx, service, &had);
        Self::allocate_ports(cx, service, &had);
    }
}
