//! A whole cluster in one process: the master, storage nodes and a replicator, started by the same functions
//! as the programs. Behind `dfs up` and every test on a running system.
//!
//! Owns which service has which address and folder: `master/` and `sn1/`, `sn2/`, ... below one data folder.
//! A service that is stopped and started again keeps both, as a process that is restarted does. It must not
//! know how any service works; what it learns of them comes over HTTP.

mod address;
mod cluster;
mod config;
mod wait;

pub use cluster::{Cluster, Node};
pub use config::{ClusterConfig, Timings};
pub use wait::wait_for;
