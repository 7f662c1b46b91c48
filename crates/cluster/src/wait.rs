//! Waiting for something that is expected to happen, without guessing how long it takes.

use std::future::Future;
use std::time::{Duration, Instant};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers `Ok`. When `deadline` has passed, fails with `what` and the last state that
/// the probe told. A probe that does not answer in time counts as one that says so.
pub async fn wait_for<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    let mut state = "nothing was heard".to_owned();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(said)) => state = said,
            Err(_) => {}
        }
        anyhow::ensure!(Instant::now() < end, "{what}: not within {deadline:?}; last state: {state}");
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_value_comes_as_soon_as_it_is_there() {
        let mut looks = 0;
        let got = wait_for("three looks", Duration::from_secs(5), || {
            looks += 1;
            let looks = looks;
            async move { if looks == 3 { Ok(looks) } else { Err(format!("{looks} so far")) } }
        });
        assert_eq!(got.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn the_last_state_is_told_when_time_is_up() {
        let never = wait_for("the moon", Duration::from_millis(50), || async {
            Err::<(), _>("still up there".to_owned())
        });
        let message = never.await.unwrap_err().to_string();
        assert!(message.contains("the moon") && message.contains("still up there"), "{message}");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_cut_off() {
        let hangs =
            wait_for("an answer", Duration::from_millis(50), std::future::pending::<Result<(), String>>);
        assert!(hangs.await.is_err());
    }
}
