//! One file per command.

mod backup;
mod get;
mod health;
mod ls;
mod mkdir;
mod mv;
mod node;
mod put;
mod rebalance;
mod rm;
mod stat;
mod status;
mod up;

use crate::args::{Args, BackupCommand, Command, NodeCommand};
use crate::failure::{Failure, OrFail};
use crate::output::Output;

/// Carries out what was asked for, until it is done or a signal comes.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if let Command::Up(up) = args.command {
        // A cluster ends by a signal, and cleanly.
        return up::run(up, Output::new(args.json)).await;
    }
    tokio::select! {
        result = run_to_the_end(args) => result,
        signal = dfs_service::process::wait_for_signal() => {
            signal.or_fail(|| "listen for signals".to_owned())?;
            Err(Failure::interrupted())
        }
    }
}

async fn run_to_the_end(args: Args) -> Result<(), Failure> {
    let (url, out) = (args.master.as_str(), Output::new(args.json));
    match args.command {
        Command::Put(args) => put::run(args, url, out).await,
        Command::Get(args) => get::run(args, url, out).await,
        Command::Ls(args) => ls::run(args, url, out).await,
        Command::Rm(args) => rm::run(args, url, out).await,
        Command::Mkdir(args) => mkdir::run(args, url, out).await,
        Command::Mv(args) => mv::run(args, url, out).await,
        Command::Stat(args) => stat::run(args, url, out).await,
        Command::Status => status::run(url, out).await,
        Command::Node(NodeCommand::Ls) => node::list(url, out).await,
        Command::Node(NodeCommand::Drain(args)) => node::drain(&args, url, out).await,
        Command::Node(NodeCommand::Remove(args)) => node::remove(&args, url, out).await,
        Command::Backup(BackupCommand::Ls(args)) => backup::list(&args, url, out).await,
        Command::Backup(BackupCommand::Now) => backup::now(url, out).await,
        Command::Backup(BackupCommand::Restore(args)) => backup::restore(&args, url, out).await,
        Command::Rebalance(args) => rebalance::run(&args, url, out).await,
        Command::Health { url } => health::run(&url, out).await,
        Command::Up(_) => unreachable!("handled by the caller"),
    }
}
