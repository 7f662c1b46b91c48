//! `dfs node ls`, `drain` and `remove`

use crate::args::{DrainArgs, RemoveArgs};
use crate::connection;
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use dfs_client::MasterClient;
use dfs_proto::NodeState;
use dfs_proto::node::NodeStatus;
use std::time::Duration;

/// Between looks at how far a node is emptied.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A node of which nothing goes away for so many looks gets a word of explanation.
const STUCK_LOOKS: u32 = 20;

pub(crate) async fn list(url: &str, out: Output) -> Result<(), Failure> {
    let nodes = connection::master(url)?.nodes().await.or_fail(|| "list the storage nodes".to_owned())?;
    if out.is_json() {
        return nodes.iter().try_for_each(|node| out.document(node));
    }
    if nodes.is_empty() {
        return out.line("No storage nodes so far: start one with `dfs-storagenode --master ...`.");
    }
    out.line(table(&nodes))
}

/// Has a node emptied, and tells how far it is until it is done.
pub(crate) async fn drain(args: &DrainArgs, url: &str, out: Output) -> Result<(), Failure> {
    let master = connection::master(url)?;
    let node = find(&master, &args.name).await?;
    let verb = if args.undo { "have it hold data again" } else { "empty it" };
    let status = master.drain(node.info.id, !args.undo).await;
    let mut status = status.or_fail(|| format!("tell {} to {verb}", args.name))?;
    if args.undo {
        return out.tell(&status, || format!("{} holds data again.", args.name));
    }
    let (all, mut stuck) = (status.volumes, 0);
    while status.volumes > 0 && !args.no_wait {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = find(&master, &args.name).await?;
        if !now.draining {
            return Err(Failure::new(format!(
                "{} holds data again: somebody has undone the emptying",
                args.name
            )));
        }
        stuck = if now.volumes < status.volumes { 0 } else { stuck + 1 };
        if stuck % STUCK_LOOKS == STUCK_LOOKS - 1 {
            explain(&master, &now, out).await?;
        }
        if now.volumes != status.volumes && !out.is_json() {
            let left = output::counted(now.volumes, "volume", "volumes");
            out.line(format!("{left} of {all} left, {} behind", now.copies_behind))?;
        }
        status = now;
    }
    out.tell(&status, || match status.volumes {
        0 => format!("{} is empty: stop it, and forget it with `dfs node remove {}`.", args.name, args.name),
        left => {
            format!("{} is being emptied; {} left.", args.name, output::counted(left, "volume", "volumes"))
        }
    })
}

/// Why nothing goes on.
async fn explain(master: &MasterClient, node: &NodeStatus, out: Output) -> Result<(), Failure> {
    let status = master.status().await.or_fail(|| "ask how replication is".to_owned())?;
    let takers = status.nodes.iter().filter(|n| n.info.state == NodeState::Live && !n.draining).count();
    if !out.is_json() && takers < status.replicas as usize {
        out.line(format!(
            "{} waits: {} copies of everything are wanted, and {takers} other nodes are live. Start another one.",
            node.info.name, status.replicas
        ))?;
    }
    Ok(())
}

/// Forgets a node.
pub(crate) async fn remove(args: &RemoveArgs, url: &str, out: Output) -> Result<(), Failure> {
    let master = connection::master(url)?;
    let node = find(&master, &args.name).await?;
    master.remove_node(node.info.id, args.force).await.or_fail(|| format!("remove {}", args.name))?;
    out.tell(&node, || format!("{} is forgotten. Its data directory can be deleted.", args.name))
}

async fn find(master: &MasterClient, name: &str) -> Result<NodeStatus, Failure> {
    let nodes = master.nodes().await.or_fail(|| "list the storage nodes".to_owned())?;
    let known: Vec<String> = nodes.iter().map(|n| n.info.name.clone()).collect();
    let unknown =
        || Failure::new(format!("there is no storage node {name:?}; there are: {}", known.join(", ")));
    nodes.into_iter().find(|n| n.info.name == name).ok_or_else(unknown)
}

/// The nodes as people see them.
pub(super) fn table(nodes: &[NodeStatus]) -> String {
    let head = ["NAME", "STATE", "USED", "FREE", "VOLUMES", "BEHIND", "HEARD", "ZONE", "URL"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(nodes.iter().map(|n| {
        vec![
            n.info.name.clone(),
            if n.draining {
                format!("{}, draining", state(n.info.state))
            } else {
                state(n.info.state).to_owned()
            },
            output::bytes(n.used_bytes),
            output::bytes(n.free_bytes),
            output::number(n.volumes),
            output::number(n.copies_behind),
            format!("{} ago", output::span(n.heartbeat_age_ms)),
            if n.info.zone.is_empty() { "-".to_owned() } else { n.info.zone.clone() },
            n.info.url.clone(),
        ]
    }));
    output::table(&rows, &[2, 3, 4, 5, 6])
}

/// The word for how the master sees a node.
pub(super) fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Live => "live",
        NodeState::Suspect => "suspect",
        NodeState::Dead => "dead",
    }
}
