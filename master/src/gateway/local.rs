//! The master's operations, called from within its own process.

use crate::master::Master;
use crate::meta::execute_one;
use async_trait::async_trait;
use dfs_client::{ClientError, MetaClient};
use dfs_proto::{ErrorCode, MetaOp, MetaReply, WireError};
use std::sync::Arc;

/// [`MetaClient`] without a network.
pub struct LocalMeta {
    master: Arc<Master>,
}

impl LocalMeta {
    /// Calls `master`.
    pub fn new(master: Arc<Master>) -> LocalMeta {
        LocalMeta { master }
    }
}

#[async_trait]
impl MetaClient for LocalMeta {
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError> {
        let master = Arc::clone(&self.master);
        // A task of its own: an operation that has begun is carried to its end, whoever hangs up.
        let done = tokio::spawn(async move { execute_one(&master, op).await }).await;
        let failed =
            |e| WireError::new(ErrorCode::Internal, format!("an operation was not carried out: {e}"));
        Ok(done.map_err(failed)??)
    }
}
