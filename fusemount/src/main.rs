//! `dfs-mount MOUNTPOINT --master HOST:PORT`

use clap::Parser;
use dfs_mount::args::Args;
use dfs_mount::{MountConfig, daemon, mount};

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dfs-mount: {e:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.config()?;
    let ready = if args.foreground { None } else { Some(daemon::split_off(&args.log_file())?) };
    dfs_service::memory::give_back_large_buffers();
    dfs_service::logging::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, ready))
}

async fn serve(config: MountConfig, ready: Option<daemon::Ready>) -> anyhow::Result<()> {
    let mounted = match mount(config).await {
        Ok(mounted) => mounted,
        Err(e) => {
            if let Some(ready) = ready {
                ready.fail(&e);
            }
            return Err(e);
        }
    };
    if let Some(ready) = ready {
        ready.tell()?;
    }
    tokio::select! {
        () = mounted.ended() => mounted.wait().await,
        signal = dfs_service::process::wait_for_signal() => {
            log::info!("{} received: unmounting", signal?);
            mounted.unmount().await
        }
    }
}
