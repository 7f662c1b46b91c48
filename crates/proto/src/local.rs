//! How a node lets readers on its own host read its files (docs/PROTOCOL.md, "On one host").

use crate::id::{BlobId, Seq};
use crate::md5::Md5;
use serde::{Deserialize, Serialize};

/// Path on a node: GET answers a [`LocalSocket`].
pub const LOCAL_PATH: &str = "/v1/local";

/// Longest packet on the socket, bytes: a place with the checksums of the largest blob, with room to spare.
pub const PACKET_BYTES_MAX: usize = 2048;

/// Where a node listens for readers on its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSocket {
    /// Name of a Unix socket (SOCK_SEQPACKET) in Linux's abstract namespace. A random part of it is new with
    /// each run of the node, so whoever can connect to it is on the same host as that run.
    pub name: String,
}

/// One request on the socket: where is this blob?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhereIs {
    /// The blob.
    pub blob: BlobId,
}

/// The answer to [`WhereIs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whereabouts {
    /// Here. The packet carries a descriptor of the file, for reading.
    Here(LocalBlob),
    /// Ask for this blob by HTTP: the answer there says what is the matter.
    AskByHttp(BlobId),
}

/// A blob in a file of the node. Blobs do not change, but after a deletion or a move the place may hold
/// something else, so what is read there counts only once it matches the checksums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalBlob {
    /// Which.
    pub blob: BlobId,
    /// Number of the file; the same number is the same file for as long as the node runs.
    pub file: u32,
    /// Where in the file the blob's first byte is.
    pub at: u64,
    /// Its length, bytes.
    pub length: u32,
    /// MD5 of all of it.
    pub md5: Md5,
    /// CRC32C of each chunk ([`crate::CHUNK_BYTES`]).
    pub crc32c: Vec<u32>,
    /// Its place in the volume's log.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::chunks_of;
    use crate::codec::Encoding;
    use crate::id::{BlobKey, VolumeId};
    use crate::limits::BLOB_BYTES_MAX;

    #[test]
    fn the_longest_answer_fits_into_a_packet() {
        let longest = Whereabouts::Here(LocalBlob {
            blob: BlobId { volume: VolumeId(u64::MAX), key: BlobKey(u64::MAX) },
            file: u32::MAX,
            at: u64::MAX,
            length: u32::MAX,
            md5: Md5([255; 16]),
            crc32c: vec![u32::MAX; chunks_of(BLOB_BYTES_MAX)],
            seq: Seq(u64::MAX),
        });
        let packet = Encoding::Postcard.encode(&longest).unwrap();
        assert!(packet.len() <= PACKET_BYTES_MAX, "{}", packet.len());
    }
}
