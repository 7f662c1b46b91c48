//! A Redis server of one's own, for tests: on a port that the kernel picked, in a directory that goes with it.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);
/// Ports that are tried: another process may take one between its choice and its use.
const PORTS_TRIED_MAX: u32 = 5;

/// A `redis-server` process that ends with this value. What it acknowledges is on disk (append-only file,
/// always synced), so that it outlives [`RedisServer::kill`].
#[derive(Debug)]
pub struct RedisServer {
    directory: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one. Panics when that cannot be done, and says what to install when it is missing.
    pub fn start() -> RedisServer {
        let mut server = RedisServer::stopped();
        for _ in 0..PORTS_TRIED_MAX {
            if server.try_resume() {
                return server;
            }
            server.port = free_port();
        }
        panic!("redis-server could not be started on any of {PORTS_TRIED_MAX} ports");
    }

    /// One that does not run yet.
    pub fn stopped() -> RedisServer {
        let directory = tempfile::tempdir().expect("a temporary directory for redis-server");
        RedisServer { directory, port: free_port(), process: None }
    }

    /// `redis://127.0.0.1:PORT`; the same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only for a process that has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same port with the same data.
    pub fn resume(&mut self) {
        assert!(self.try_resume(), "redis-server did not start on port {}", self.port);
    }

    /// Runs a command by redis-cli and answers what it prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output();
        let output = output.unwrap_or_else(|e| panic!("{}", cannot_run("redis-cli", &e)));
        assert!(output.status.success(), "redis-cli {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Halts the process or lets it go on: `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server runs");
        let status = Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()).status();
        assert!(status.expect("kill(1) can be run").success(), "kill -{signal}");
    }

    /// False when the process ended at once, as it does when the port is taken.
    fn try_resume(&mut self) -> bool {
        self.kill();
        let mut process = spawn("redis-server", self.port, self.directory.path())
            .unwrap_or_else(|e| panic!("{}", cannot_run("redis-server", &e)));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if process.try_wait().expect("the state of a child process").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "redis-server does not answer at {address}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
        true
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &str, port: u16, directory: &Path) -> io::Result<Child> {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}

fn cannot_run(program: &str, e: &io::Error) -> String {
    format!("{program} cannot be run ({e}): install it (apt-get install redis-server)")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("the address of a bound socket").port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_named_with_what_to_install() {
        let e = spawn("no-such-redis-server", 1, Path::new("/")).unwrap_err();
        let message = cannot_run("redis-server", &e);
        assert!(message.contains("apt-get install redis-server"), "{message}");
    }
}
