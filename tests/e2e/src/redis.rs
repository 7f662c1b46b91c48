//! A Redis server of a test's own.

use crate::ports::free_port;
use crate::process::{Process, Program};
use crate::wait::{PATIENCE, wait_for};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A Redis server of a test's own.
pub struct RedisServer {
    /// The server.
    pub process: Process,
    port: u16,
}

impl RedisServer {
    /// Starts one in `folder` and waits until it answers. What it holds outlives a kill only when it is
    /// `kept`.
    pub async fn start(folder: &Path, kept: bool) -> RedisServer {
        let data = folder.join("redis");
        std::fs::create_dir_all(&data).expect("a folder can be made");
        let port = free_port();
        let (port_text, data_text) = (port.to_string(), data.display().to_string());
        let mut args = vec!["--port", &port_text, "--bind", "127.0.0.1", "--dir", &data_text, "--save", ""];
        args.extend(["--appendonly", if kept { "yes" } else { "no" }, "--appendfsync", "always"]);
        let process = Process::start(Program::installed("redis", "redis-server", &args), folder);
        let server = RedisServer { process, port };
        server.wait_ready().await;
        server
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until it answers.
    pub async fn wait_ready(&self) {
        wait_for("redis to answer", PATIENCE, async || match self.command("PING").await {
            Ok(answer) if answer.starts_with("+PONG") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Starts it again after a kill and waits until it answers.
    pub async fn restart(&mut self) {
        self.process.restart();
        self.wait_ready().await;
    }

    /// Sends an inline command; the answer is as it comes (RESP), its first piece only.
    pub async fn command(&self, command: &str) -> std::io::Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut answer = vec![0; 4096];
            let length = stream.read(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
        };
        tokio::time::timeout(Duration::from_secs(5), exchange).await?
    }
}
