//! The life of a process.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGINT or SIGTERM; returns its name.
pub async fn wait_for_signal() -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
