//! `dfs`: files in a dfs cluster from the command line, and a cluster in one process.
//!
//! One file per command below `commands/`; what they share is how they reach the cluster (`connection`), how
//! bytes come and go locally (`transfer`), and how they talk to people and scripts (`output`, `progress`,
//! `failure`). No command knows HTTP.

mod args;
mod commands;
mod connection;
mod failure;
mod mounted;
mod output;
mod progress;
mod remote;
mod transfer;

use clap::Parser;
use failure::Failure;
use std::process::ExitCode;
use std::time::Duration;

/// Time for local files under way to be closed or removed at the end.
const FAREWELL: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = args::Args::parse();
    dfs_service::memory::give_back_large_buffers();
    dfs_service::logging::init_with(args.command.log_level());
    let json = args.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::new(format!("cannot start: {e}")).report(json),
    };
    let result = runtime.block_on(commands::run(args));
    runtime.shutdown_timeout(FAREWELL);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
