//! Why an operation did not happen.

use dfs_metastore::StoreError;
use dfs_proto::{ErrorCode, WireError};

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The rules of the file system refuse it; the caller is told as it is.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<OpError> for WireError {
    fn from(error: OpError) -> WireError {
        let store = match error {
            OpError::Refused(wire) => return wire,
            OpError::Store(store) => store,
        };
        let code = match &store {
            StoreError::Full => ErrorCode::NoSpace,
            StoreError::Closed => ErrorCode::Unavailable,
            StoreError::Failed { .. } | StoreError::Corrupt(_) => ErrorCode::Io,
        };
        WireError::new(code, store.to_string())
    }
}

/// Refuses the operation.
pub(crate) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, OpError> {
    Err(WireError::new(code, message).into())
}
