//! What can go wrong between this program and a server.

use dfs_proto::{ErrorCode, WireError};

/// Why an operation did not succeed, after every retry that made sense.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error.
    #[error("{0}")]
    Remote(#[from] WireError),
    /// No connection, or it broke.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Base URL.
        server: String,
        /// What the transport said.
        reason: String,
    },
    /// No answer within the deadline.
    #[error("{server} did not answer {what} within {deadline_ms} ms")]
    Timeout {
        /// Base URL.
        server: String,
        /// The request.
        what: String,
        /// The deadline.
        deadline_ms: u64,
    },
    /// An answer that cannot be understood.
    #[error("{server} answered {what} with something that makes no sense: {reason}")]
    BadAnswer {
        /// Base URL.
        server: String,
        /// The request.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No copy of a blob could be read and verified; one line for each try.
    #[error("no good copy of blob {blob}: {}", tries.join("; "))]
    NoGoodCopy {
        /// The blob.
        blob: dfs_proto::BlobId,
        /// Node and reason of each try.
        tries: Vec<String>,
    },
    /// A blob could not be stored anywhere; one line for each try.
    #[error("{bytes} bytes could not be stored on any node: {}", tries.join("; "))]
    NotStored {
        /// Length of the blob.
        bytes: usize,
        /// Why the last try failed.
        code: ErrorCode,
        /// Node and reason of each try.
        tries: Vec<String>,
    },
}

impl ClientError {
    /// The code that stands for the error on the wire and in an errno.
    pub fn code(&self) -> ErrorCode {
        match self {
            ClientError::Remote(e) => e.code,
            ClientError::Unreachable { .. } => ErrorCode::Unreachable,
            ClientError::Timeout { .. } => ErrorCode::Timeout,
            ClientError::BadAnswer { .. } => ErrorCode::Internal,
            ClientError::NoGoodCopy { .. } => ErrorCode::NoGoodCopy,
            ClientError::NotStored { code, .. } => *code,
        }
    }

    /// An error of this program's own making, with a code from the wire.
    pub fn local(code: ErrorCode, message: impl Into<String>) -> ClientError {
        ClientError::Remote(WireError::new(code, message))
    }
}

impl From<ClientError> for WireError {
    fn from(e: ClientError) -> WireError {
        match e {
            ClientError::Remote(e) => e,
            e => WireError::new(e.code(), e.to_string()),
        }
    }
}
