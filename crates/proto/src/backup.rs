//! Copies of the master's database that storage nodes keep (docs/PROTOCOL.md, "Backups").
//!
//! All that is known of one is in its name, so that whoever has nothing but the nodes can tell them apart.

use crate::error::{ErrorCode, WireError};
use crate::md5::Md5;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Path of the list on a node.
pub const BACKUPS_PATH: &str = "/v1/backups";

/// Request header: the cluster's shared secret, where it has one. A backup holds the key that signs capabilities.
pub const HEADER_CLUSTER_KEY: &str = "x-dfs-cluster-key";

/// Longest name of a cluster in a backup's name, bytes.
const CLUSTER_BYTES_MAX: usize = 64;

/// A copy of the master's database. As text, which is the name of its file: `CLUSTER.MS.BYTES.MD5.sqlite`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupName {
    /// When it was taken, Unix time in ms. First, so that backups sort by their age.
    pub taken_ms: u64,
    /// The cluster.
    pub cluster: String,
    /// Its length.
    pub bytes: u64,
    /// Its MD5.
    pub md5: Md5,
}

impl BackupName {
    /// Path of it on a node.
    pub fn path(&self) -> String {
        format!("{BACKUPS_PATH}/{self}")
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BackupName { taken_ms, cluster, bytes, md5 } = self;
        write!(f, "{cluster}.{taken_ms}.{bytes}.{md5}.sqlite")
    }
}

impl FromStr for BackupName {
    type Err = WireError;

    fn from_str(text: &str) -> Result<BackupName, WireError> {
        parse(text).ok_or_else(|| {
            WireError::new(ErrorCode::InvalidArgument, format!("{text:?} is not the name of a backup"))
        })
    }
}

fn parse(text: &str) -> Option<BackupName> {
    let mut parts = text.split('.');
    let mut next = || parts.next();
    let (cluster, taken, bytes, md5, ending) = (next()?, next()?, next()?, next()?, next()?);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let named = !cluster.is_empty() && cluster.len() <= CLUSTER_BYTES_MAX && cluster.chars().all(is_plain);
    if !named || ending != "sqlite" || parts.next().is_some() {
        return None;
    }
    let name = BackupName {
        taken_ms: taken.parse().ok()?,
        cluster: cluster.to_owned(),
        bytes: bytes.parse().ok()?,
        md5: md5.parse().ok()?,
    };
    // One backup has one name: no leading zeros, no signs.
    (name.to_string() == text).then_some(name)
}

impl TryFrom<String> for BackupName {
    type Error = WireError;

    fn try_from(text: String) -> Result<BackupName, WireError> {
        text.parse()
    }
}

impl From<BackupName> for String {
    fn from(name: BackupName) -> String {
        name.to_string()
    }
}

/// Answer of `POST /v1/backups` on the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupTaken {
    /// The backup.
    pub name: BackupName,
    /// Names of the nodes that have it.
    pub nodes: Vec<String>,
}

/// Query of `PUT /v1/backups/{name}` on a node: one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceQuery {
    /// Where the piece begins; 0 begins anew.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_everything_and_is_read_back() {
        let name = BackupName { taken_ms: 1_763, cluster: "dfs-12ab".into(), bytes: 4096, md5: Md5([7; 16]) };
        let text = name.to_string();
        assert_eq!(text, "dfs-12ab.1763.4096.07070707070707070707070707070707.sqlite");
        assert_eq!(text.parse::<BackupName>().unwrap(), name);
    }

    #[test]
    fn what_is_no_name_of_a_backup_is_refused() {
        let md5 = "07070707070707070707070707070707";
        for text in [
            "".to_owned(),
            "../../etc/passwd".to_owned(),
            format!("a/b.1.1.{md5}.sqlite"),
            format!(".1.1.{md5}.sqlite"),
            format!("c.+1.1.{md5}.sqlite"),
            format!("c.01.1.{md5}.sqlite"),
            format!("c.1.1.{md5}.sqlite.part"),
            format!("c.1.1.{md5}.txt"),
            "c.1.1.abc.sqlite".to_owned(),
        ] {
            assert!(text.parse::<BackupName>().is_err(), "{text}");
        }
    }
}
