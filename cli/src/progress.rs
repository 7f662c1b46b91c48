//! A bar for what takes long, when somebody is watching.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Counts bytes; shows them as a bar on standard error once it has taken a while, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    total: Option<u64>,
    since: Instant,
    watched: bool,
    done: AtomicU64,
    bar: OnceLock<ProgressBar>,
}

impl Progress {
    /// `total` bytes, when that is known.
    pub(crate) fn new(label: String, total: Option<u64>) -> Progress {
        Progress {
            label,
            total,
            since: Instant::now(),
            watched: std::io::stderr().is_terminal(),
            done: AtomicU64::new(0),
            bar: OnceLock::new(),
        }
    }

    /// So many more.
    pub(crate) fn add(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if self.watched && self.since.elapsed() >= PATIENCE {
            self.bar.get_or_init(|| self.new_bar()).set_position(done);
        }
    }

    fn new_bar(&self) -> ProgressBar {
        let (bar, template) = match self.total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {bytes}, {bytes_per_sec}"),
        };
        let style = ProgressStyle::with_template(template).expect("the templates are valid");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(self.label.clone());
        bar.with_elapsed(self.since.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
