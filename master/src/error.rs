//! Errors of the store as the wire has them.

use dfs_metastore::StoreError;
use dfs_namespace::OpError;
use dfs_proto::WireError;

/// What a client is told when the store could not do its part.
pub fn from_store(error: StoreError) -> WireError {
    OpError::Store(error).into()
}
