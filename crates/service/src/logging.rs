//! Log lines on standard error: `2026-01-31T12:00:00Z INFO  dfs_master::nodes: sn1 is live`.

/// Starts logging. `DFS_LOG` sets the levels as RUST_LOG does elsewhere; without it `info` and above is
/// shown. Does nothing when logging has been started already.
pub fn init() {
    init_with("info,actix_server=warn,actix_web=warn");
}

/// The same with other levels where `DFS_LOG` does not set them: for a program that people watch.
pub fn init_with(levels: &str) {
    let env = env_logger::Env::new().filter_or("DFS_LOG", levels);
    // A second call comes from a second service in the process; the first one's settings stand.
    let _already = env_logger::Builder::from_env(env).format_timestamp_secs().try_init();
}
