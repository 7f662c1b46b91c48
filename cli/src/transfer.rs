//! Local bytes, in and out, off the async workers and with few blocks in memory.

use bytes::{Bytes, BytesMut};
use dfs_client::ClientError;
use dfs_client::checksum::Md5Hasher;
use dfs_proto::{ErrorCode, Md5};
use futures_util::stream::{self, Stream};
use std::io::{self, Read, Write};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is read at once, bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks between the thread that does the local I/O and the one that talks to the cluster.
const BLOCKS_AHEAD: usize = 4;

/// The bytes of `reader` as a stream; `name` is for errors.
pub(crate) fn source(
    mut reader: impl Read + Send + 'static,
    name: String,
) -> impl Stream<Item = Result<Bytes, ClientError>> + Send + Unpin {
    let (sender, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let block = match read_block(&mut reader) {
                Ok(block) if block.is_empty() => return,
                Ok(block) => Ok(block),
                Err(e) => {
                    let message = format!("{name} cannot be read to its end: {e}");
                    Err(ClientError::local(ErrorCode::Io, message))
                }
            };
            let failed = block.is_err();
            // Nobody takes blocks any more when the upload has ended early.
            if sender.blocking_send(block).is_err() || failed {
                return;
            }
        }
    });
    stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// Up to a block; fewer bytes only at the end, none after it.
fn read_block(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut block = BytesMut::zeroed(BLOCK_BYTES);
    let mut filled = 0;
    while filled < BLOCK_BYTES {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    block.truncate(filled);
    Ok(block.freeze())
}

/// A thread that writes and hashes what it is given.
#[derive(Debug)]
pub(crate) struct Sink<W> {
    blocks: mpsc::Sender<Bytes>,
    thread: JoinHandle<io::Result<Written<W>>>,
}

/// What a sink has written.
#[derive(Debug)]
pub(crate) struct Written<W> {
    pub writer: W,
    pub md5: Md5,
}

impl<W: Write + Send + 'static> Sink<W> {
    pub(crate) fn start(mut writer: W) -> Sink<W> {
        let (blocks, mut receiver) = mpsc::channel::<Bytes>(BLOCKS_AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            let mut hasher = Md5Hasher::new();
            while let Some(block) = receiver.blocking_recv() {
                writer.write_all(&block)?;
                hasher.update(&block);
            }
            writer.flush()?;
            Ok(Written { writer, md5: hasher.finish() })
        });
        Sink { blocks, thread }
    }

    /// Hands over a block; `false` when writing has failed, which [`Sink::finish`] explains.
    pub(crate) async fn write(&self, block: Bytes) -> bool {
        self.blocks.send(block).await.is_ok()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> io::Result<Written<W>> {
        drop(self.blocks);
        self.thread.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn what_goes_in_comes_out_with_its_md5() {
        let content: Vec<u8> = (0..3 * BLOCK_BYTES + 7).map(|i| (i % 251) as u8).collect();
        let mut blocks = source(io::Cursor::new(content.clone()), "memory".to_owned());
        let sink = Sink::start(Vec::new());
        while let Some(block) = blocks.next().await {
            assert!(sink.write(block.unwrap()).await);
        }
        let written = sink.finish().await.unwrap();
        assert!(written.writer == content);
        assert_eq!(written.md5, dfs_client::checksum::md5(&content));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_to_its_end_is_an_error_not_an_end() {
        struct Breaks(bool);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("bad sector"));
                }
                buffer.fill(1);
                Ok(buffer.len())
            }
        }
        let blocks: Vec<_> = source(Breaks(false), "disk.img".to_owned()).collect().await;
        assert!(blocks[0].is_ok());
        let message = blocks[1].as_ref().unwrap_err().to_string();
        assert!(message.contains("disk.img") && message.contains("bad sector"), "{message}");
        assert_eq!(blocks.len(), 2);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::start(Full);
        while sink.write(Bytes::from_static(b"x")).await {}
        assert_eq!(sink.finish().await.err().unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
