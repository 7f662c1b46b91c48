//! A cluster of real programs whose processes are killed, stopped, damaged and lied to.
#![allow(clippy::unwrap_used, missing_docs)]

mod collisions;
mod crashes;
mod cut_connections;
mod damage;
mod joining;
mod many_clients;
mod memory;
mod names;
mod nodes_lost;
mod storm;
mod writers;
mod wrong_requests;
