//! Reading the files of nodes on this host, without the way through TCP.
//!
//! A node tells where a blob is and passes a descriptor of the file; the bytes are then read like those of any
//! file. They count for no more than bytes from the network: whoever reads them here verifies them, and a place
//! that holds something else by now (the blob was deleted or moved) is forgotten. Everything that is unusual
//! ends in "not here", and then the node is asked by HTTP as if there were no short cut.

pub mod socket;

use crate::buffers::Buffer;
use crate::{FetchedBlob, NodeClient};
use bytes::Bytes;
use dfs_proto::blob::chunks_of;
use dfs_proto::codec::Encoding;
use dfs_proto::local::{LocalBlob, PACKET_BYTES_MAX, WhereIs, Whereabouts};
use dfs_proto::{BlobId, CHUNK_BYTES};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rustix::io::ReadWriteFlags;
use socket::Packets;
use std::collections::HashMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Places that are remembered for each node, of about 350 bytes: 16 GiB of large blobs.
const PLACES_MAX: usize = 4096;

/// Descriptors that are kept for each node; files have up to 1 GiB.
const FILES_MAX: usize = 64;

/// Nodes that are remembered.
const NODES_MAX: usize = 1024;

/// A node that has no short cut to offer is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A node on this host answers within this, unless it hangs.
const ANSWER_WITHIN: Duration = Duration::from_millis(1000);

/// Reads up to this size are tried where the caller stands when the bytes are in the page cache: copying them
/// takes less time than handing the work to another thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Blobs in files of nodes on this host.
pub(crate) struct Local {
    enabled: bool,
    /// By URL. Held for look-ups only.
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Clone)]
enum Host {
    Near(Arc<Near>),
    /// Not on this host, or not offering it, as of then.
    Far(Instant),
}

/// A node on this host.
struct Near {
    /// One request at a time: they take microseconds, and one tells where a whole blob is.
    connection: tokio::sync::Mutex<Packets>,
    places: Cache<BlobId, Arc<LocalBlob>>,
    /// Held for look-ups only.
    files: Mutex<HashMap<u32, Arc<File>>>,
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Never,
    Disk,
}

impl Local {
    pub fn new(enabled: bool) -> Local {
        Local { enabled, hosts: Mutex::default() }
    }

    /// The blob, or `chunks` of it, from the node's file: **not yet verified**. `None` when it has to be asked
    /// for by HTTP.
    pub async fn read(
        &self,
        nodes: &dyn NodeClient,
        url: &str,
        id: BlobId,
        chunks: Option<Range<u32>>,
    ) -> Option<FetchedBlob> {
        if !self.enabled {
            return None;
        }
        let near = self.near(nodes, url).await?;
        let (place, file) = match near.known(id) {
            Some(known) => known,
            None => match near.ask(id).await {
                Ok(found) => found?,
                Err(e) => {
                    log::info!("{url} is read by HTTP for a while: {e}");
                    self.set(url, Host::Far(Instant::now()));
                    return None;
                }
            },
        };
        let bytes = bytes_of(&place, chunks.as_ref());
        if bytes.len() <= INLINE_BYTES_MAX
            && let Some(data) = read_at(&file, place.at, &bytes, Wait::Never)
        {
            return Some(fetched(&place, data, chunks));
        }
        let reading = tokio::task::spawn_blocking(move || {
            let data = read_at(&file, place.at, &bytes, Wait::Disk)?;
            Some(fetched(&place, data, chunks))
        });
        reading.await.ok().flatten()
    }

    /// The same if it needs no waiting, neither for the node nor for the disk.
    pub fn try_read(&self, url: &str, id: BlobId, chunks: Range<u32>) -> Option<FetchedBlob> {
        let near = match self.hosts.lock().get(url) {
            Some(Host::Near(near)) => near.clone(),
            _ => return None,
        };
        let (place, file) = near.known(id)?;
        let bytes = bytes_of(&place, Some(&chunks));
        let data = read_at(&file, place.at, &bytes, Wait::Never)?;
        Some(fetched(&place, data, Some(chunks)))
    }

    /// Whether the node is known to be on this host.
    pub fn is_near(&self, url: &str) -> bool {
        matches!(self.hosts.lock().get(url), Some(Host::Near(_)))
    }

    /// The place of a blob was found not to hold it.
    pub fn forget(&self, url: &str, id: BlobId) {
        if let Some(Host::Near(near)) = self.hosts.lock().get(url) {
            near.places.remove(&id);
        }
    }

    fn set(&self, url: &str, host: Host) {
        let mut hosts = self.hosts.lock();
        if hosts.len() >= NODES_MAX && !hosts.contains_key(url) {
            // Any one: it is asked again when it is needed.
            if let Some(any) = hosts.keys().next().cloned() {
                hosts.remove(&any);
            }
        }
        hosts.insert(url.to_owned(), host);
    }

    async fn near(&self, nodes: &dyn NodeClient, url: &str) -> Option<Arc<Near>> {
        match self.hosts.lock().get(url) {
            Some(Host::Near(near)) => return Some(near.clone()),
            Some(Host::Far(since)) if since.elapsed() < ASK_AGAIN => return None,
            Some(Host::Far(_)) | None => {}
        }
        // Others who come meanwhile go by HTTP rather than ask as well.
        self.set(url, Host::Far(Instant::now()));
        let socket = tokio::time::timeout(ANSWER_WITHIN, nodes.local_socket(url)).await.ok()?.ok()?;
        match Packets::connect(&socket.name) {
            Ok(connection) => {
                let near = Arc::new(Near::new(connection));
                self.set(url, Host::Near(near.clone()));
                log::info!("the files of {url} are read directly: it is on this host");
                Some(near)
            }
            Err(e) => {
                log::debug!("{url} is not on this host, or keeps its files to itself: {e}");
                None
            }
        }
    }
}

impl Near {
    fn new(connection: Packets) -> Near {
        Near {
            connection: tokio::sync::Mutex::new(connection),
            places: Cache::new(PLACES_MAX),
            files: Mutex::default(),
        }
    }

    fn known(&self, id: BlobId) -> Option<(Arc<LocalBlob>, Arc<File>)> {
        let place = self.places.get(&id)?;
        let file = self.files.lock().get(&place.file).cloned()?;
        Some((place, file))
    }

    /// Asks the node. An error means that the connection is of no more use.
    async fn ask(&self, id: BlobId) -> std::io::Result<Option<(Arc<LocalBlob>, Arc<File>)>> {
        let question = Encoding::Postcard.encode(&WhereIs { blob: id }).map_err(std::io::Error::other)?;
        let exchange = async {
            let connection = self.connection.lock().await;
            connection.send(&question, None).await?;
            loop {
                let Some((packet, file)) = connection.receive(PACKET_BYTES_MAX).await? else {
                    return Err(std::io::Error::other("the node has closed the connection"));
                };
                let answer: Whereabouts =
                    Encoding::Postcard.decode(&packet).map_err(std::io::Error::other)?;
                // Other answers are for those who asked before and did not wait.
                match answer {
                    Whereabouts::Here(place) if place.blob == id => return Ok(Some(place).zip(file)),
                    Whereabouts::AskByHttp(blob) if blob == id => return Ok(None),
                    Whereabouts::Here(_) | Whereabouts::AskByHttp(_) => {}
                }
            }
        };
        let found = tokio::time::timeout(ANSWER_WITHIN, exchange).await??;
        Ok(found.filter(|(place, _)| place.crc32c.len() == chunks_of(place.length as usize)).map(
            |(place, file)| {
                let file = self.keep(place.file, file);
                let place = Arc::new(place);
                self.places.insert(id, place.clone());
                (place, file)
            },
        ))
    }

    /// The descriptor to use for file `number`: one is enough.
    fn keep(&self, number: u32, file: File) -> Arc<File> {
        let mut files = self.files.lock();
        if files.len() >= FILES_MAX && !files.contains_key(&number) {
            // Any one: the next blob in it brings another.
            if let Some(any) = files.keys().next().copied() {
                files.remove(&any);
            }
        }
        files.entry(number).or_insert_with(|| Arc::new(file)).clone()
    }
}

/// The bytes of the blob that `chunks` cover, or all.
fn bytes_of(place: &LocalBlob, chunks: Option<&Range<u32>>) -> Range<usize> {
    let length = place.length as usize;
    let at = |chunk: u32| (chunk as usize * CHUNK_BYTES).min(length);
    chunks.map_or(0..length, |chunks| at(chunks.start)..at(chunks.end))
}

/// `bytes` of the blob that begins at `start` of `file`; `None` when the file does not have them, or not at
/// once and `wait` forbids to wait.
fn read_at(file: &File, start: u64, bytes: &Range<usize>, wait: Wait) -> Option<Bytes> {
    let offset = start.checked_add(bytes.start as u64)?;
    let mut buffer = Buffer::of(bytes.len());
    let room = buffer.room();
    let is_filled = match wait {
        Wait::Disk => file.read_exact_at(room, offset).is_ok(),
        Wait::Never => {
            let wanted = room.len();
            let read =
                rustix::io::preadv2(file, &mut [IoSliceMut::new(room)], offset, ReadWriteFlags::NOWAIT);
            read.is_ok_and(|got| got == wanted)
        }
    };
    is_filled.then(|| buffer.freeze())
}

fn fetched(place: &LocalBlob, data: Bytes, chunks: Option<Range<u32>>) -> FetchedBlob {
    let (first_chunk, crc32c) = match chunks {
        None => (0, place.crc32c.clone()),
        Some(chunks) => {
            let all = chunks.start as usize..(chunks.end as usize).min(place.crc32c.len());
            (chunks.start, place.crc32c.get(all).unwrap_or_default().to_vec())
        }
    };
    FetchedBlob { data, first_chunk, crc32c, md5: place.md5, seq: place.seq }
}
