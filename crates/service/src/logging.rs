//! Log lines on standard error: `2026-01-31T12:00:00Z INFO  dfs_master::nodes: sn1 is live`.

/// What libraries say at these levels is of no use to people who run a cluster: each worker thread that starts
/// and stops, each kind of request that has a default answer, an unmount of what is unmounted already.
const LIBRARIES: &str = "actix_server=warn,actix_web=warn,fuser=error";

/// Starts logging. `DFS_LOG` sets the levels as RUST_LOG does elsewhere; without it `info` and above is
/// shown. Does nothing when logging has been started already.
pub fn init() {
    init_with("info");
}

/// The same with another level where `DFS_LOG` does not set any: for a program that people watch.
pub fn init_with(level: &str) {
    let env = env_logger::Env::new().filter_or("DFS_LOG", format!("{level},{LIBRARIES}"));
    // A second call comes from a second service in the process; the first one's settings stand.
    let _already = env_logger::Builder::from_env(env).format_timestamp_secs().try_init();
}
