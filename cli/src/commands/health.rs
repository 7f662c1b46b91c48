//! `dfs health URL`

use crate::connection;
use crate::failure::{Failure, OrFail};
use crate::output::Output;
use serde_json::json;

/// Succeeds if the server at `url` is in service. Masters and storage nodes answer alike.
pub(crate) async fn run(url: &str, out: Output) -> Result<(), Failure> {
    let server = connection::master(url)?;
    server.healthy().await.or_fail(|| format!("see {url} in service"))?;
    out.tell(&json!({ "url": server.url(), "healthy": true }), || format!("{} is in service", server.url()))
}
