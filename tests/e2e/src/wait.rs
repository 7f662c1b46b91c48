//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// How long anything in a test may take until it counts as failed, on a machine that is busy with other
/// things. Not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks again and again until `look` has something; after `deadline` panics with what it said last.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    let mut last = "nothing: it did not come back from its first look".to_owned();
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => last = state,
            Err(_) => panic!("{what}: not within {deadline:?}; last seen: {last}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
