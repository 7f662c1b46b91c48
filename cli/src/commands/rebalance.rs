//! `dfs rebalance`

use crate::args::RebalanceArgs;
use crate::connection;
use crate::failure::{Failure, OrFail};
use crate::output::Output;
use dfs_proto::node::RebalanceStatus;
use std::time::Duration;

/// Between looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Has used space evened out, and tells how far it is until it is done.
pub(crate) async fn run(args: &RebalanceArgs, url: &str, out: Output) -> Result<(), Failure> {
    let master = connection::master(url)?;
    let ask = || "ask for used space to be evened out".to_owned();
    let mut status = master.rebalance(!args.stop).await.or_fail(ask)?;
    let mut told = String::new();
    while status.running && !args.no_wait {
        tokio::time::sleep(LOOK_EVERY).await;
        status = master.rebalance_status().await.or_fail(ask)?;
        let line = text(&status);
        if line != told && !out.is_json() {
            out.line(&line)?;
            told = line;
        }
    }
    out.tell(&status, || if status.running { text(&status) } else { format!("Done. {}", text(&status)) })
}

fn text(status: &RebalanceStatus) -> String {
    let RebalanceStatus { moving, fullest_percent, emptiest_percent, .. } = status;
    format!(
        "The fullest node is {fullest_percent} % full, the emptiest {emptiest_percent} %; {moving} copies under way."
    )
}
