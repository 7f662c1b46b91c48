//! Ports for servers that are killed and started again at the same address.
//!
//! A port that the kernel picks (bind to 0) is from the range that it also takes the near ends of outgoing
//! connections from. While the server is down, a client's connection attempt can get that very port, be
//! connected to itself, and keep the server from coming back. So ports are looked for below that range.

use std::net::TcpListener;

/// Lowest port that needs no privilege and is seldom anybody's.
const LOWEST: u16 = 10_000;

/// Tries to find a free port.
const TRIES_MAX: usize = 1_000;

/// A port that nobody listens at now.
pub fn free_port() -> u16 {
    let end = outgoing_range_start().max(LOWEST + 1);
    for _ in 0..TRIES_MAX {
        let port = rand::random_range(LOWEST..end);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {LOWEST} to {end}");
}

fn outgoing_range_start() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    // 32768 is Linux's default.
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768)
}
