//! `dfs up`: a whole cluster in this process.

use crate::args::UpArgs;
use crate::failure::{Failure, OrFail};
use crate::mounted;
use crate::output::{self, Output};
use dfs_cluster::{Cluster, ClusterConfig};
use dfs_mount::Mounted;
use dfs_service::process::wait_for_signal;
use serde_json::json;
use std::path::{Path, PathBuf};

pub(crate) async fn run(args: UpArgs, out: Output) -> Result<(), Failure> {
    let config = config(&args)?;
    let replicas = config.replicas;
    let starting = Cluster::start(config);
    let cluster = tokio::select! {
        started = starting => started.or_fail(|| "start a cluster".to_owned())?,
        signal = wait_for_signal() => {
            signal.or_fail(|| "listen for signals".to_owned())?;
            return Err(Failure::interrupted());
        }
    };
    let mounted = match &args.mount {
        None => None,
        Some(directory) => match mounted::mount(directory, cluster.master_url()).await {
            Ok(mounted) => Some(mounted),
            Err(e) => {
                cluster.stop().await;
                return Err(e).or_fail(|| "bring up the mount".to_owned());
            }
        },
    };
    let told = tell(&cluster, replicas, args.mount.as_deref(), out);
    let ended = match &told {
        Ok(()) => until_signal(mounted.as_ref()).await,
        Err(_) => Ok(()),
    };
    if !out.is_json() {
        eprintln!("\nStopping ...");
    }
    // The mount first: it hands over what it has not published yet.
    let unmounted = match mounted {
        Some(mounted) => mounted.unmount().await.or_fail(|| "unmount cleanly".to_owned()),
        None => Ok(()),
    };
    cluster.stop().await;
    told.and(ended).and(unmounted)?;
    if out.is_json() { Ok(()) } else { out.line("Stopped. Everything is kept for the next start.") }
}

/// Waits for the signal to stop. A mount that somebody unmounts in the meantime does not stop the cluster.
async fn until_signal(mounted: Option<&Mounted>) -> Result<(), Failure> {
    let unmounted = async {
        if let Some(mounted) = mounted {
            mounted.ended().await;
            log::info!("{} was unmounted; the cluster goes on", mounted.mountpoint().display());
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        signal = wait_for_signal() => signal.or_fail(|| "listen for signals".to_owned()).map(drop),
        () = unmounted => Ok(()),
    }
}

fn config(args: &UpArgs) -> Result<ClusterConfig, Failure> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => default_data()?,
    };
    let mut config = ClusterConfig::new(data);
    config.nodes = usize::from(args.nodes);
    config.replicas = args.replicas;
    config.listen = args.listen;
    config.advertise_host = args.advertise.clone();
    config.redis = args.redis.clone();
    Ok(config)
}

/// Where programs keep a user's data, by the XDG Base Directory Specification.
fn default_data() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("dfs"))
        .ok_or_else(|| Failure::usage("there is no home directory to keep the files in: say --data DIR"))
}

fn tell(cluster: &Cluster, replicas: u32, mount: Option<&Path>, out: Output) -> Result<(), Failure> {
    let master = cluster.master_url();
    if out.is_json() {
        let nodes = cluster.nodes().iter().map(|n| json!({ "name": n.name(), "url": n.url() }));
        return out.document(&json!({
            "master": master,
            "nodes": nodes.collect::<Vec<_>>(),
            "data": cluster.data_dir().to_string_lossy(),
            "mount": mount.map(Path::to_string_lossy),
        }));
    }
    let mut rows = vec![["master".to_owned(), master.to_owned()]];
    rows.extend(cluster.nodes().iter().map(|n| [n.name().to_owned(), n.url().to_owned()]));
    rows.push(["data".to_owned(), cluster.data_dir().display().to_string()]);
    rows.extend(mount.map(|dir| ["mounted at".to_owned(), dir.display().to_string()]));
    let rows: Vec<_> = rows.into_iter().map(|[label, text]| vec![format!("  {label}"), text]).collect();
    out.line(format!(
        "dfs is up: {}, {} of each file\n{}\n\n{}\n\nCtrl-C stops it. Started again with the same data \
         folder, it has all the files.",
        output::counted(cluster.node_count() as u64, "storage node", "storage nodes"),
        output::counted(u64::from(replicas), "copy", "copies"),
        output::table(&rows, &[]),
        usage(master, mount, &programs()),
    ))
}

/// The folder to type before names of programs: that of this one when it was called by a path, none when it
/// was found by its name.
fn programs() -> PathBuf {
    let called_by_path = std::env::args_os().next().is_some_and(|arg| arg.to_string_lossy().contains('/'));
    let folder = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    folder.filter(|_| called_by_path).unwrap_or_default()
}

/// What to type in another terminal, with programs that are in the folder `programs`.
fn usage(master: &str, mount: Option<&Path>, programs: &Path) -> String {
    let address = master.strip_prefix("http://").unwrap_or(master);
    let mut dfs = programs.join("dfs").display().to_string();
    if address != "127.0.0.1:8820" {
        dfs += &format!(" --master {address}");
    }
    let mut lines = vec!["In another terminal:".to_owned()];
    match mount {
        Some(dir) => lines.push(format!("  cp FILE {0}/ && ls -l {0}", dir.display())),
        None => {
            let dfs_mount = programs.join("dfs-mount");
            lines.push(format!("  {} DIRECTORY --master {address}", dfs_mount.display()));
        }
    }
    lines.push(format!("  {dfs} put FILE"));
    lines.push(format!("  {dfs} ls -l"));
    lines.push(format!("  {dfs} status"));
    lines.push(format!("  curl -T FILE {master}/files/"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_typed() {
        let here = usage("http://127.0.0.1:8820", None, Path::new(""));
        assert!(here.contains("\n  dfs put FILE\n  dfs ls -l\n"), "{here}");
        let elsewhere = usage("http://10.0.0.1:9", Some(Path::new("/mnt/dfs")), Path::new("/opt/dfs"));
        assert!(elsewhere.contains("/opt/dfs/dfs --master 10.0.0.1:9 status"), "{elsewhere}");
        assert!(elsewhere.contains("cp FILE /mnt/dfs/ && ls -l /mnt/dfs"), "{elsewhere}");
    }
}
