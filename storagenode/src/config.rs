//! Settings of a storage node.

use std::path::PathBuf;
use std::time::Duration;

/// Largest segment, bytes.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Memory for bodies of PUTs: 14 blobs of the largest size.
const PUT_BYTES_MAX: usize = 60 << 20;

/// Memory for answers of GETs.
const GET_BYTES_MAX: usize = 24 << 20;

/// A week, as Ceph and ZFS users have it: bad sectors are found while there is another copy.
const SCRUB_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// A fifth of what a slow disk reads, and a tenth of a core for the MD5s.
const SCRUB_BYTES_MAX: u64 = 32 << 20;

/// Settings of a storage node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base URL of the master.
    pub master: String,
    /// Directory that holds everything the node keeps; made when it is missing.
    pub data: PathBuf,
    /// Base URL that others reach the node by; `None` derives it from the listener's address. With the host
    /// `0.0.0.0` the master fills in the address that the registration came from.
    pub advertise: Option<String>,
    /// Name for people; empty for the one it had, or one the master makes.
    pub name: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Shared secret of the cluster's operators, when the master was given one; else empty.
    pub cluster_key: String,
    /// Threads that serve HTTP.
    pub workers: usize,
    /// A new segment is begun before one grows over this, bytes; at most 1 GiB.
    pub segment_bytes_max: u64,
    /// Bytes of the file system that blobs leave free; `None` for a hundredth of it, at least 64 MiB, but
    /// never more than a tenth.
    pub reserve_bytes: Option<u64>,
    /// Memory for bodies of PUTs under way, bytes; those over it wait.
    pub put_bytes_max: usize,
    /// Memory for answers of GETs under way, bytes; those over it wait.
    pub get_bytes_max: usize,
    /// Everything is read and verified once in this time.
    pub scrub_every: Duration,
    /// But never more than so much in a second, bytes.
    pub scrub_bytes_max: u64,
}

impl Config {
    /// The settings for a node of the cluster of `master` (base URL) that keeps its data in `data`.
    pub fn new(master: impl Into<String>, data: impl Into<PathBuf>) -> Config {
        Config {
            master: master.into(),
            data: data.into(),
            advertise: None,
            name: String::new(),
            zone: String::new(),
            cluster_key: String::new(),
            workers: 2,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            reserve_bytes: None,
            put_bytes_max: PUT_BYTES_MAX,
            get_bytes_max: GET_BYTES_MAX,
            scrub_every: SCRUB_EVERY,
            scrub_bytes_max: SCRUB_BYTES_MAX,
        }
    }
}
