//! Addresses that stay with a service when it is started again.

use crate::wait::wait_for;
use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// How long to wait for a port that the service's earlier run is about to give up.
const REBIND: Duration = Duration::from_secs(10);

/// Listens at an address for the first time; port 0 takes any free one.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| {
        format!("cannot listen at {address}; is something running there already? (choose another address)")
    })
}

/// Listens again where an earlier run of the service did.
pub(crate) async fn bind_again(address: SocketAddr) -> anyhow::Result<TcpListener> {
    wait_for(&format!("listening at {address} again"), REBIND, || async {
        TcpListener::bind(address).map_err(|e| e.to_string())
    })
    .await
}

/// The host by which others reach what listens at `listen`.
pub(crate) fn host_of(listen: IpAddr, advertise: Option<&str>) -> String {
    let ip = match advertise {
        Some(host) => return host.to_owned(),
        None if listen.is_unspecified() => outgoing(listen),
        None => listen,
    };
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The address that this machine reaches others by. Connecting a UDP socket sends nothing; it makes the
/// kernel choose. The destinations are those of RFC 5737 and RFC 3849, which nobody has.
fn outgoing(unspecified: IpAddr) -> IpAddr {
    let (elsewhere, fallback): (IpAddr, IpAddr) = match unspecified {
        IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()),
    };
    let chosen = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        socket.connect((elsewhere, 9))?;
        socket.local_addr()
    });
    chosen.map_or(fallback, |address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_they_can_use() {
        assert_eq!(host_of(Ipv4Addr::LOCALHOST.into(), None), "127.0.0.1");
        assert_eq!(host_of(Ipv6Addr::LOCALHOST.into(), None), "[::1]");
        assert_eq!(host_of(Ipv4Addr::LOCALHOST.into(), Some("web1")), "web1");
        let found: IpAddr = host_of(Ipv4Addr::UNSPECIFIED.into(), None).parse().unwrap();
        assert!(!found.is_unspecified());
    }

    #[tokio::test]
    async fn a_port_is_taken_again_once_it_is_free() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert!(bind(address).unwrap_err().to_string().contains(&address.to_string()));
        let free = tokio::spawn(async move {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert_eq!(bind_again(address).await.unwrap().local_addr().unwrap(), address);
        free.await.unwrap();
    }
}
