//! A dfs cluster of real programs on this machine, for tests that kill, stop and damage them.
//!
//! Owns the life of the child processes ([`Process`], [`Fleet`]), what clients of a test are ([`Client`],
//! [`Http`]), waiting ([`wait_for`]) and contents ([`noise`]). Everything that was started is killed and
//! everything that was mounted is unmounted when a [`Fleet`] is dropped, also by a test that fails; the ends of
//! the logs are printed then. It must not know how the programs work inside: it uses their command lines, their
//! protocol and their data directories. What goes wrong in it is a failed test, so its functions panic.

mod client;
mod fleet;
mod http;
mod noise;
mod ports;
mod process;
mod redis;
mod wait;

pub use client::Client;
pub use fleet::{Fleet, Node, RedisUse, Setup};
pub use http::{Answer, Http, percent_encoded};
pub use noise::{Noise, noise};
pub use process::{Process, Program};
pub use redis::RedisServer;
pub use wait::{PATIENCE, wait_for};
