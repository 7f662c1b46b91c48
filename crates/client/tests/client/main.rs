//! The client library against fakes: a master and nodes in memory that fail on demand (`fakes`), and a small
//! HTTP server that misbehaves on demand (`server`).

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like the tests")]

mod blobs;
mod fakes;
mod files;
mod local;
mod nodes;
mod server;
mod session;

use std::time::Duration;

/// Polls until `condition` holds; fails with `what` after ten seconds.
async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("still waiting for {what} after 10 s");
}
