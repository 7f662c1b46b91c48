//! Requests under way, and when one of them must not be waited for any longer.
//!
//! Owns which request a signal concerns and how patient each kind of request is with it. It does not answer
//! requests and ends no operation: it only says "now".

use crate::signals::{self, Verdict};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Requests that can be interrupted at once. Applications have a thread for each; what is beyond that is
/// served too, but cannot be interrupted.
const REQUESTS_MAX: usize = 1 << 16;

/// Interrupts remembered that came before their request: threads that read from the kernel may overtake each
/// other. Most of those here came after the answer and concern nobody.
const EARLY_MAX: usize = 256;

/// How long such an interrupt is remembered: far longer than a thread takes to hand a request on.
const EARLY_KEPT: Duration = Duration::from_secs(10);

/// How often the signals of a process are looked at again after an interrupt. The kernel sends only one for
/// each request, however many signals follow.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long an operation goes on after a signal that the program catches: in a cluster that is well it ends
/// by itself, and the program never sees an EINTR that it may not be prepared for.
const ASKED_GRACE: Duration = Duration::from_secs(1);

/// How long a lock that was interrupted has to withdraw itself before a process that is killed goes without.
const LOCK_GRACE: Duration = Duration::from_secs(1);

/// How long the end of a process that was killed may wait for what it had open.
const DYING_GRACE: Duration = Duration::from_secs(1);

/// What ends the wait for an operation before the operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Only the end of the process: the operation changes something and cannot be made a second time.
    Whole,
    /// A caught request to stop, too: the operation can be made again.
    Retried,
    /// The operation listens to the interrupt itself; should it not, the end of the process.
    Lock,
    /// A process that was killed waits here no longer than moments.
    Closing,
}

#[derive(Default)]
struct Table {
    under_way: HashMap<u64, watch::Sender<bool>>,
    early: VecDeque<(u64, Instant)>,
}

/// The requests under way of a mount.
#[derive(Clone, Default)]
pub(crate) struct Requests {
    table: Arc<Mutex<Table>>,
}

impl Requests {
    /// A request of thread `pid` begins; it ends with the ticket.
    pub fn enter(&self, unique: u64, pid: u32) -> Ticket {
        let mut table = self.table.lock();
        let came_before = table.early.iter().position(|(of, _)| *of == unique);
        let (sender, interrupted) = watch::channel(came_before.is_some());
        if let Some(at) = came_before {
            table.early.remove(at);
        }
        if table.under_way.len() < REQUESTS_MAX {
            table.under_way.insert(unique, sender);
        }
        Ticket { requests: self.clone(), unique, pid, interrupted: Interrupted(interrupted) }
    }

    /// The process that waits for the request got a signal.
    pub fn interrupt(&self, unique: u64) {
        let mut table = self.table.lock();
        if let Some(sender) = table.under_way.get(&unique) {
            sender.send_replace(true);
            return;
        }
        let now = Instant::now();
        while let Some((_, at)) = table.early.front()
            && (table.early.len() >= EARLY_MAX || now.duration_since(*at) > EARLY_KEPT)
        {
            table.early.pop_front();
        }
        table.early.push_back((unique, now));
    }
}

/// Resolves when the request is interrupted.
#[derive(Clone)]
pub(crate) struct Interrupted(watch::Receiver<bool>);

impl Interrupted {
    /// Resolves when the request is interrupted, for whatever signal.
    pub async fn wait(mut self) {
        // A sender that is gone interrupts nobody any more.
        if self.0.wait_for(|interrupted| *interrupted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A request under way.
pub(crate) struct Ticket {
    requests: Requests,
    unique: u64,
    pid: u32,
    interrupted: Interrupted,
}

impl Ticket {
    /// What an operation that listens for the interrupt itself gets.
    pub fn interrupted(&self) -> Interrupted {
        self.interrupted.clone()
    }

    /// Resolves when the caller must not wait any longer.
    pub async fn cut_short(&self, patience: Patience) {
        match patience {
            Patience::Whole => self.until(Duration::ZERO, Verdict::Fatal).await,
            Patience::Retried => tokio::select! {
                () = self.until(Duration::ZERO, Verdict::Fatal) => {}
                () = self.until(ASKED_GRACE, Verdict::Asked) => {}
            },
            Patience::Lock => self.until(LOCK_GRACE, Verdict::Fatal).await,
            Patience::Closing => tokio::select! {
                () = self.until(Duration::ZERO, Verdict::Fatal) => {}
                () = self.dying() => {}
            },
        }
    }

    /// Resolves when the request has been interrupted, the grace is over, and the process is to end or at
    /// least asked to, as `wanted` says.
    async fn until(&self, grace: Duration, wanted: Verdict) {
        self.interrupted().wait().await;
        tokio::time::sleep(grace).await;
        loop {
            let verdict = self.look(signals::verdict_on).await.unwrap_or(Verdict::GoOn);
            if verdict == wanted || verdict == Verdict::Fatal {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Resolves when the process is found to end by a signal. No interrupt comes for what it closes then.
    async fn dying(&self) {
        loop {
            tokio::time::sleep(DYING_GRACE).await;
            if self.look(signals::is_dying_now).await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn look<T: Send + 'static>(&self, at: fn(u32) -> T) -> Option<T> {
        let pid = self.pid;
        // An error means that the runtime ends, and with it every request.
        tokio::task::spawn_blocking(move || at(pid)).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.requests.table.lock().under_way.remove(&self.unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    const DEADLINE: Duration = Duration::from_secs(20);

    async fn resolves(ticket: &Ticket, patience: Patience) -> bool {
        tokio::time::timeout(DEADLINE, ticket.cut_short(patience)).await.is_ok()
    }

    async fn stays(ticket: &Ticket, patience: Patience) -> bool {
        tokio::time::timeout(4 * LOOK_EVERY, ticket.cut_short(patience)).await.is_err()
    }

    /// A process that is stopped, so that its signals stay pending.
    struct Stopped(Child);

    impl Stopped {
        fn start(script: &str) -> Stopped {
            let child = Command::new("sh")
                .args(["-c", &format!("{script}; echo ready; read end")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("sh runs");
            let mut stopped = Stopped(child);
            // The trap is set once the shell says so.
            let mut line = String::new();
            let out = stopped.0.stdout.take().expect("piped");
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
            stopped.signal(libc::SIGSTOP);
            let deadline = Instant::now() + DEADLINE;
            while !std::fs::read_to_string(format!("/proc/{}/stat", stopped.0.id())).unwrap().contains(") T ")
            {
                assert!(Instant::now() < deadline, "the child does not stop");
                std::thread::sleep(Duration::from_millis(5));
            }
            stopped
        }

        fn signal(&self, signal: i32) {
            // SAFETY: the child has not been waited for, so its id is its own.
            assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
        }
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn an_interrupt_reaches_its_request_also_when_it_comes_first() {
        let requests = Requests::default();
        let (ticket, other) = (requests.enter(2, 0), requests.enter(4, 0));
        requests.interrupt(2);
        ticket.interrupted().wait().await;
        let early = tokio::time::timeout(Duration::from_millis(20), other.interrupted().wait()).await;
        assert!(early.is_err(), "another request was interrupted");
        requests.interrupt(6);
        tokio::time::timeout(DEADLINE, requests.enter(6, 0).interrupted().wait()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded_and_ends_with_the_request() {
        let requests = Requests::default();
        for unique in 0..10_000 {
            requests.interrupt(unique);
        }
        assert_eq!(requests.table.lock().early.len(), EARLY_MAX);
        let ticket = requests.enter(20_000, 0);
        assert_eq!(requests.table.lock().under_way.len(), 1);
        drop(ticket);
        assert!(requests.table.lock().under_way.is_empty());
    }

    #[tokio::test]
    async fn a_fatal_signal_ends_every_wait_even_when_another_signal_came_first() {
        let child = Stopped::start("trap : USR1");
        let requests = Requests::default();
        let ticket = requests.enter(2, child.0.id());
        child.signal(libc::SIGUSR1);
        requests.interrupt(2);
        for patience in [Patience::Whole, Patience::Retried, Patience::Closing] {
            assert!(stays(&ticket, patience).await, "{patience:?} ended for a signal that is caught");
        }
        child.signal(libc::SIGTERM);
        for patience in [Patience::Whole, Patience::Retried, Patience::Lock, Patience::Closing] {
            assert!(resolves(&ticket, patience).await, "{patience:?} goes on after SIGTERM");
        }
    }

    #[tokio::test]
    async fn a_caught_request_to_stop_ends_what_can_be_made_again() {
        let child = Stopped::start("trap : INT");
        let requests = Requests::default();
        let ticket = requests.enter(2, child.0.id());
        child.signal(libc::SIGINT);
        requests.interrupt(2);
        assert!(resolves(&ticket, Patience::Retried).await);
        assert!(stays(&ticket, Patience::Whole).await);
        assert!(stays(&ticket, Patience::Closing).await);
    }

    #[tokio::test]
    async fn without_an_interrupt_nothing_is_cut_short() {
        let child = Stopped::start(":");
        let ticket = Requests::default().enter(2, child.0.id());
        child.signal(libc::SIGTERM);
        assert!(stays(&ticket, Patience::Retried).await);
    }
}
