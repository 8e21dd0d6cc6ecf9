//! Addresses without interfaces: a range that is routed to this machine itself (AnyIP), so that a process may bind
//! any address of it, with no step for each address.

use std::net::Ipv4Addr;

use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteScope, RouteType},
};

/// The kernel's table of local addresses (`ip route show table local`).
const LOCAL_TABLE: u32 = 255;

/// The loopback interface: the first of every network namespace.
const LOOPBACK: u32 = 1;

/// Why a range is not this machine's own.
#[derive(Debug, thiserror::Error)]
pub enum AnyIpError {
    /// The text is no IPv4 network.
    #[error("{0:?} is no IPv4 network")]
    Range(String),
    /// No netlink socket.
    #[error("cannot talk to the kernel about routes")]
    Netlink(#[source] std::io::Error),
    /// The kernel refused the route.
    #[error("cannot route {range} to this machine: `ip route add local {range} dev lo` needs root (CAP_NET_ADMIN)")]
    Route {
        /// The range.
        range: String,
        /// Why.
        #[source]
        source: Box<rtnetlink::Error>,
    },
}

/// Makes every address of a range this machine's own. Ranges of 127.0.0.0/8 are that already, without root.
pub async fn own(range: &str) -> Result<(), AnyIpError> {
    let no_range = || AnyIpError::Range(range.to_owned());
    let (base, prefix) = range.split_once('/').ok_or_else(no_range)?;
    let base: Ipv4Addr = base.parse().map_err(|_| no_range())?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(no_range)?;
    if base.is_loopback() {
        return Ok(());
    }
    let (connection, handle, _messages) = rtnetlink::new_connection().map_err(AnyIpError::Netlink)?;
    // Ends with the handle.
    tokio::spawn(connection);
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(base, prefix)
        .output_interface(LOOPBACK)
        .table_id(LOCAL_TABLE)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .build();
    let added = handle.route().add(route).replace().execute().await;
    added.map_err(|source| AnyIpError::Route { range: range.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_ranges_need_nothing_and_nonsense_is_refused() {
        assert!(own("127.64.0.0/12").await.is_ok());
        for nonsense in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "::1/64"] {
            assert!(matches!(own(nonsense).await, Err(AnyIpError::Range(_))), "{nonsense}");
        }
    }
}
