//! Programs that wait on a mount, for tests that end them.

use crate::bed::{Bed, DEADLINE, wait_for};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Within this time a program that is ended has to be gone. Far below every deadline of the mount.
pub const SOON: Duration = Duration::from_secs(10);

/// A python program, which is killed when the test ends.
pub struct Python {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Python {
    /// Runs `script` with `arguments`. What it prints is read by [`Python::line`].
    pub fn start(script: &str, arguments: &[&std::path::Path]) -> Python {
        let mut child = Command::new("python3")
            .args(["-u", "-c", script])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Python { child, out }
    }

    /// The next line that it prints; empty at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("python prints text");
        line.trim_end().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it waits in a system call of this number.
    pub fn wait_until_in(&self, call: libc::c_long) {
        let (start, mut seen) = (Instant::now(), 0);
        // A call that only passes by is not seen so often in a row.
        while seen < 20 {
            assert!(start.elapsed() < DEADLINE, "python does not come to wait in system call {call}");
            let text = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid())).unwrap_or_default();
            seen = if text.split(' ').next() == Some(&call.to_string()) { seen + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end and fails when that does not come soon.
    pub fn ends_soon(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(start.elapsed() < SOON, "the program does not end within {SOON:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses where connections are taken and nothing ever answers: machines that hang.
pub struct Silent(#[expect(dead_code)] Vec<TcpListener>);

impl Silent {
    /// Stops all storage nodes and takes their addresses.
    pub fn nodes(bed: &mut Bed) -> Silent {
        let urls: Vec<String> = bed.cluster().nodes().iter().map(|node| node.url().to_owned()).collect();
        for node in 0..urls.len() {
            bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_node(node));
        }
        Silent(urls.iter().map(|url| listen(url)).collect())
    }

    /// Gives the addresses back and starts the nodes again.
    pub fn end(self, bed: &mut Bed) {
        drop(self);
        for node in 0..bed.cluster().node_count() {
            bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_node(node)).unwrap();
        }
    }
}

fn listen(url: &str) -> TcpListener {
    let address = url.trim_start_matches("http://").to_owned();
    let mut listener = None;
    wait_for("the address of a stopped node", || {
        listener = Some(TcpListener::bind(&address).map_err(|e| e.to_string())?);
        Ok(())
    });
    listener.expect("it was bound")
}
