//! Readers on the same host: they are told where a blob is in which file and get a descriptor of it, for reading.
//!
//! Nothing is promised about the bytes at that place but that they are the blob now: readers verify what they
//! read, and ask by HTTP when it does not match.

use crate::node::{Node, blocking};
use dfs_client::local::socket::{Listener, Packets};
use dfs_proto::codec::Encoding;
use dfs_proto::local::{LocalBlob, LocalSocket, PACKET_BYTES_MAX, WhereIs, Whereabouts};
use dfs_service::Stopper;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Readers at once: mounts and commands on this host. More are turned away and use HTTP.
const READERS_MAX: usize = 256;

/// Begins to listen under a name that nobody can guess, and that is new with each run.
pub fn listen() -> io::Result<(Listener, LocalSocket)> {
    let name = format!("dfs-storagenode-{:032x}", rand::random::<u128>());
    Ok((Listener::bind(&name)?, LocalSocket { name }))
}

/// Serves readers until the node is stopped.
pub async fn serve(node: Arc<Node>, listener: Listener, mut stopper: Stopper) {
    let mut readers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopper.stopped() => return,
        };
        while readers.try_join_next().is_some() {}
        match accepted {
            Ok(_) if readers.len() >= READERS_MAX => {
                log::warn!("{READERS_MAX} readers on this host have a connection; one more has to use HTTP");
            }
            Ok(connection) => {
                let node = node.clone();
                readers.spawn(async move {
                    if let Err(e) = answer(&node, &connection).await {
                        log::debug!("a reader on this host is let go: {e}");
                    }
                });
            }
            Err(e) => {
                log::error!("readers on this host use HTTP from now on: they cannot be accepted: {e}");
                return;
            }
        }
    }
}

/// Answers one reader until it goes.
async fn answer(node: &Node, connection: &Packets) -> io::Result<()> {
    while let Some((packet, _)) = connection.receive(PACKET_BYTES_MAX).await? {
        let WhereIs { blob } = Encoding::Postcard.decode(&packet).map_err(io::Error::other)?;
        let store = node.store.clone();
        let found = blocking(move || store.place(blob)).await;
        let (answer, file) = match found {
            Ok((header, place, segment)) => {
                let here = LocalBlob {
                    blob,
                    file: segment.id.0,
                    at: place,
                    length: header.payload_bytes,
                    md5: header.md5,
                    crc32c: header.crc32c,
                    seq: header.seq,
                };
                (Whereabouts::Here(here), Some(segment))
            }
            Err(_) => (Whereabouts::AskByHttp(blob), None),
        };
        let packet = Encoding::Postcard.encode(&answer).map_err(io::Error::other)?;
        let for_reading = file.as_ref().map(|segment| segment.for_reading()).transpose()?;
        connection.send(&packet, for_reading.map(AsFd::as_fd)).await?;
    }
    Ok(())
}
