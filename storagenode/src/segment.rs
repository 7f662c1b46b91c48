//! Segment files: append-only runs of records, named by number.
//!
//! Owns names, the file header and positioned reads. A segment's header is on disk before its first record
//! is written, so an unreadable one in a file with records is damage, not a crash.

use crate::error::StoreError;
use crate::record::ParseError;
use dfs_service::durable::sync_dir;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Length of a segment's header; the first record stands here.
pub const SEGMENT_HEADER_BYTES: u64 = 64;

const MAGIC: [u8; 8] = *b"\x89DFSseg\n";
const FORMAT: u32 = 1;

/// The number of a segment; later ones are higher, and numbers are not used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// Random number that marks the records that were written to this file; see `Header::stamp`.
    pub salt: u64,
    /// The file.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// The file once more, for others to read; opened when it is first asked for.
    reading: OnceLock<File>,
}

/// Path of segment `id` in `dir`.
pub fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.seg"))
}

/// Path of the sidecar index of segment `id` in `dir`.
pub fn sidecar_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.idx"))
}

/// The segment that a file name with this `extension` stands for.
pub fn id_of_name(path: &Path, extension: &str) -> Option<SegmentId> {
    if path.extension()? != extension {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok().map(SegmentId)
}

impl Segment {
    /// Makes a segment whose name and header are on disk when it returns.
    pub fn create(dir: &Path, id: SegmentId) -> Result<Segment, StoreError> {
        let path = segment_path(dir, id);
        let salt: u64 = rand::random();
        match create_file(&path, dir, id, salt) {
            Ok(file) => Ok(Segment { id, salt, file, path, reading: OnceLock::new() }),
            Err(e) => {
                // A file without records must not stay and be taken for damage; if this fails as well, the
                // next start finds it empty and removes it.
                let _ = std::fs::remove_file(&path);
                Err(StoreError::io("create the segment", &path, e))
            }
        }
    }

    /// Opens an existing segment; `false` beside it when its header, and so its salt, cannot be read.
    pub fn open(dir: &Path, id: SegmentId) -> Result<(Segment, bool), StoreError> {
        let path = segment_path(dir, id);
        let fail = |e| StoreError::io("open the segment", &path, e);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        let salt = match file.read_exact_at(&mut header, 0) {
            Ok(()) => salt_of_header(&header, id),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(e) => return Err(fail(e)),
        };
        let segment = Segment { id, salt: salt.unwrap_or(0), file, path, reading: OnceLock::new() };
        Ok((segment, salt.is_some()))
    }

    /// The stamp of a record at `offset`.
    pub fn stamp(&self, offset: u64) -> u64 {
        self.salt ^ offset
    }

    /// Length of the file.
    pub fn length(&self) -> Result<u64, StoreError> {
        let meta = self.file.metadata().map_err(|e| StoreError::io("look at the segment", &self.path, e))?;
        Ok(meta.len())
    }

    /// Fills `buffer` from `offset` on. The file ending early is a damaged record, any other failure an error
    /// of the disk.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.file.read_exact_at(buffer, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => ReadError::Damaged(ParseError::Short),
            _ => ReadError::Disk(e),
        })
    }

    /// The file, open for reading only: a descriptor that is passed on carries its rights with it.
    pub fn for_reading(&self) -> std::io::Result<&File> {
        if let Some(file) = self.reading.get() {
            return Ok(file);
        }
        let file = File::open(&self.path)?;
        Ok(self.reading.get_or_init(|| file))
    }

    /// Waits until everything written is on disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|e| StoreError::io("sync the segment", &self.path, e))
    }
}

/// Why bytes could not be had from a segment.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They are not what was written.
    #[error(transparent)]
    Damaged(#[from] ParseError),
    /// The disk refused.
    #[error("the disk cannot read it: {0}")]
    Disk(std::io::Error),
}

fn create_file(path: &Path, dir: &Path, id: SegmentId, salt: u64) -> std::io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.write_all(&encode_header(id, salt))?;
    file.sync_all()?;
    sync_dir(dir)?;
    Ok(file)
}

fn encode_header(id: SegmentId, salt: u64) -> [u8; SEGMENT_HEADER_BYTES as usize] {
    let mut out = [0; SEGMENT_HEADER_BYTES as usize];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..16].copy_from_slice(&id.0.to_le_bytes());
    out[16..24].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn salt_of_header(header: &[u8; SEGMENT_HEADER_BYTES as usize], id: SegmentId) -> Option<u64> {
    let mut salt = [0; 8];
    salt.copy_from_slice(&header[16..24]);
    let salt = u64::from_le_bytes(salt);
    (*header == encode_header(id, salt)).then_some(salt)
}
