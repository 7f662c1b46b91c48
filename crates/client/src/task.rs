//! Tasks that end with whoever started them.

use crate::ClientError;
use dfs_proto::ErrorCode;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// A task that is aborted when this is dropped. Awaiting it gives its result.
pub(crate) struct AbortOnDrop<T>(JoinHandle<T>);

impl<T: Send + 'static> AbortOnDrop<T> {
    pub fn spawn(future: impl Future<Output = T> + Send + 'static) -> AbortOnDrop<T> {
        AbortOnDrop(tokio::spawn(future))
    }
}

impl<T> AbortOnDrop<T> {
    pub fn abort(&self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<Result<T, ClientError>> {
    type Output = Result<T, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|joined| joined.unwrap_or_else(|e| Err(not_finished(&e))))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The error of a task that panicked or was aborted with its runtime.
pub(crate) fn not_finished(e: &tokio::task::JoinError) -> ClientError {
    ClientError::local(ErrorCode::Internal, format!("a part of the operation was not finished: {e}"))
}
