//! `dfs node ls`

use crate::connection;
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use dfs_proto::NodeState;
use dfs_proto::node::NodeStatus;

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

/// The nodes as people see them.
pub(super) fn table(nodes: &[NodeStatus]) -> String {
    let head = ["NAME", "STATE", "USED", "FREE", "VOLUMES", "BEHIND", "HEARD", "ZONE", "URL"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(nodes.iter().map(|n| {
        vec![
            n.info.name.clone(),
            state(n.info.state).to_owned(),
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
