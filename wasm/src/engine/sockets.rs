//! A pod's sockets are on the pod's own address: a guest that binds "any address" gets that one, and what it connects to
//! sees it come from there. WASI's own functions do the work; a few of them are given another address first. Addresses
//! that are neither are refused by `run`'s check.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wasmtime::{
    Result,
    component::{Linker, Resource},
};
use wasmtime_wasi::{
    p2::bindings::sockets::{
        network::{ErrorCode, Host as _, IpSocketAddress, Network},
        tcp::{HostTcpSocket, TcpSocket},
        udp::{HostUdpSocket, UdpSocket},
    },
    p3::bindings::sockets::types as p3,
    sockets::WasiSocketsView as _,
};

use super::{guest::Guest, outgoing::answers_to};

/// The instances that hold the functions, by the versions that the linker has them in.
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const UDP: &str = "wasi:sockets/udp@0.2.12";
const TYPES_P3: &str = "wasi:sockets/types@0.3.0";

/// What a guest of the address `own` gets when it asks to bind `asked`.
fn instead(own: Ipv4Addr, asked: SocketAddr) -> SocketAddr {
    let any = asked.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if any { SocketAddr::new(IpAddr::V4(own), asked.port()) } else { asked }
}

/// Puts the functions that bind in the place of WASI's own.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    linker.allow_shadowing(true);
    tcp(linker)?;
    udp(linker)?;
    types_p3(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

type Bind<T> = (Resource<T>, Resource<Network>, IpSocketAddress);

fn tcp(linker: &mut Linker<Guest>) -> Result<()> {
    let mut instance = linker.instance(TCP)?;
    instance.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store, (this, network, asked): Bind<TcpSocket>| {
            Box::new(async move {
                let guest = store.data_mut();
                let address = instead(guest.address(), asked.into());
                let bound = HostTcpSocket::start_bind(&mut guest.sockets(), this, network, address.into()).await;
                told(guest, bound)
            })
        },
    )?;
    instance.func_wrap_async("[method]tcp-socket.start-connect", |mut store, (this, network, to): Bind<TcpSocket>| {
        Box::new(async move {
            let guest = store.data_mut();
            from_own_address(guest, this.rep(), network.rep(), &to.into()).await;
            let started = HostTcpSocket::start_connect(&mut guest.sockets(), this, network, to);
            told(guest, started)
        })
    })
}

/// Binds a socket that is about to connect and not bound yet. What fails here fails when it connects.
async fn from_own_address(guest: &mut Guest, socket: u32, network: u32, to: &SocketAddr) {
    let own = guest.address();
    if own.is_unspecified() || !answers_to(*to, own) {
        return;
    }
    let this = || Resource::<TcpSocket>::new_borrow(socket);
    let mut sockets = guest.sockets();
    if HostTcpSocket::local_address(&mut sockets, this()).is_ok() {
        return;
    }
    let any_port = SocketAddr::new(IpAddr::V4(own), 0);
    if HostTcpSocket::start_bind(&mut sockets, this(), Resource::new_borrow(network), any_port.into()).await.is_ok() {
        let _ = HostTcpSocket::finish_bind(&mut sockets, this());
    }
}

fn udp(linker: &mut Linker<Guest>) -> Result<()> {
    linker.instance(UDP)?.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store, (this, network, asked): Bind<UdpSocket>| {
            Box::new(async move {
                let guest = store.data_mut();
                let address = instead(guest.address(), asked.into());
                let bound = HostUdpSocket::start_bind(&mut guest.sockets(), this, network, address.into()).await;
                told(guest, bound)
            })
        },
    )
}

/// An outcome as the guest is told it.
fn told(guest: &mut Guest, outcome: Result<(), wasmtime_wasi::p2::SocketError>) -> Result<(Result<(), ErrorCode>,)> {
    match outcome {
        Ok(()) => Ok((Ok(()),)),
        Err(error) => Ok((Err(guest.sockets().convert_error_code(error)?),)),
    }
}

fn types_p3(linker: &mut Linker<Guest>) -> Result<()> {
    let mut instance = linker.instance(TYPES_P3)?;
    instance.func_wrap_async(
        "[method]tcp-socket.bind",
        |mut store, (this, asked): (Resource<p3::TcpSocket>, p3::IpSocketAddress)| {
            Box::new(async move {
                let guest = store.data_mut();
                let address = instead(guest.address(), asked.into());
                let bound = p3::HostTcpSocket::bind(&mut guest.sockets(), this, address.into()).await;
                Ok((match bound {
                    Ok(()) => Ok(()),
                    Err(error) => Err(p3::Host::convert_error_code(&mut guest.sockets(), error)?),
                },))
            })
        },
    )?;
    instance.func_wrap_async(
        "[method]udp-socket.bind",
        |mut store, (this, asked): (Resource<p3::UdpSocket>, p3::IpSocketAddress)| {
            Box::new(async move {
                let guest = store.data_mut();
                let address = instead(guest.address(), asked.into());
                let bound = p3::HostUdpSocket::bind(&mut guest.sockets(), this, address.into()).await;
                Ok((match bound {
                    Ok(()) => Ok(()),
                    Err(error) => Err(p3::Host::convert_error_code(&mut guest.sockets(), error)?),
                },))
            })
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn any_address_is_the_pods_own() {
        let own: Ipv4Addr = "10.64.0.5".parse().unwrap();
        for (asked, gets) in [
            ("0.0.0.0:80", "10.64.0.5:80"),
            ("0.0.0.0:0", "10.64.0.5:0"),
            ("10.64.0.6:80", "10.64.0.6:80"),
            ("[::]:80", "[::]:80"),
        ] {
            assert_eq!(instead(own, asked.parse().unwrap()), gets.parse().unwrap(), "{asked}");
        }
    }
}
