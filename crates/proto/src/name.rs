//! Names of directory entries: bytes, as on every Unix file system.

use crate::bytes_as_text::{self, Checked};
use crate::error::{ErrorCode, WireError};
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A valid entry name: 1 to 255 bytes, no `/`, no NUL, and neither `.` nor `..`.
///
/// It cannot be made otherwise, decoding from the wire included. In JSON it is a string when it is UTF-8 and
/// an array of byte values when it is not.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// Checks `bytes`; errors are `name_too_long` above 255 bytes and `invalid_name` for the rest.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Name, WireError> {
        let bytes = bytes.into();
        if bytes.len() > NAME_BYTES_MAX {
            let message = format!("a name may have {NAME_BYTES_MAX} bytes, this one has {}", bytes.len());
            return Err(WireError::new(ErrorCode::NameTooLong, message));
        }
        let reason = match bytes.as_slice() {
            b"" => "a name may not be empty",
            b"." | b".." => "`.` and `..` are not names",
            b if b.contains(&b'/') => "a name may not contain `/`",
            b if b.contains(&0) => "a name may not contain a NUL byte",
            _ => return Ok(Name(bytes)),
        };
        Err(WireError::new(ErrorCode::InvalidName, reason))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Splits a path below the root into names. Empty components (`//`, a leading or trailing `/`) are
    /// passed over, so `""` and `/` are the root. `.` and `..` are refused: the caller has a real path or
    /// an attack.
    pub fn split_path(path: &[u8]) -> Result<Vec<Name>, WireError> {
        if path.len() > PATH_BYTES_MAX {
            let message = format!("a path may have {PATH_BYTES_MAX} bytes, this one has {}", path.len());
            return Err(WireError::new(ErrorCode::NameTooLong, message));
        }
        path.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(Name::new).collect()
    }

    /// The `n`-th alternative name of the collision rule: `-n` goes before the last extension
    /// (`report.txt` -> `report-1.txt`, `Makefile` -> `Makefile-1`, `.profile` -> `.profile-1`,
    /// `a.tar.gz` -> `a.tar-1.gz`). A stem that would make the name too long is shortened, at a UTF-8
    /// boundary where there is one.
    pub fn numbered(&self, n: u64) -> Name {
        let dot = self.0.iter().rposition(|b| *b == b'.').filter(|at| *at > 0).unwrap_or(self.0.len());
        let suffix = format!("-{n}");
        let (stem, extension) = self.0.split_at(dot);
        // An extension so long that no stem would be left is cut like a stem.
        let (stem, extension) = if extension.len() + suffix.len() >= NAME_BYTES_MAX {
            (self.0.as_slice(), &b""[..])
        } else {
            (stem, extension)
        };
        let room = NAME_BYTES_MAX - suffix.len() - extension.len();
        let stem = cut_at_char(stem, room);
        Name([stem, suffix.as_bytes(), extension].concat())
    }
}

/// At most `room` bytes of `bytes`, not ending within a UTF-8 sequence.
fn cut_at_char(bytes: &[u8], room: usize) -> &[u8] {
    if bytes.len() <= room {
        return bytes;
    }
    let is_continuation = |b: u8| b & 0b1100_0000 == 0b1000_0000;
    let mut end = room;
    while end > room.saturating_sub(4) && is_continuation(bytes[end]) {
        end -= 1;
    }
    if is_continuation(bytes[end]) || end == 0 { &bytes[..room] } else { &bytes[..end] }
}

impl TryFrom<&str> for Name {
    type Error = WireError;
    fn try_from(s: &str) -> Result<Self, Self::Error> {
        Name::new(s)
    }
}

impl Checked for Name {
    const WHAT: &'static str = "a file name";
    const BYTES_MAX: usize = NAME_BYTES_MAX;
    fn check(bytes: Vec<u8>) -> Result<Name, WireError> {
        Name::new(bytes)
    }
}

/// Readable form: invalid UTF-8 is replaced and control characters are escaped, so a name cannot forge a
/// log line.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytes_as_text::display(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({:?})", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        bytes_as_text::serialize(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        bytes_as_text::deserialize(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(name: &str, n: u64) -> String {
        Name::try_from(name).unwrap().numbered(n).to_string()
    }

    #[test]
    fn number_goes_before_the_last_extension() {
        assert_eq!(numbered("dummy.txt", 1), "dummy-1.txt");
        assert_eq!(numbered("Makefile", 2), "Makefile-2");
        assert_eq!(numbered(".profile", 1), ".profile-1");
        assert_eq!(numbered("a.tar.gz", 10), "a.tar-10.gz");
        assert_eq!(numbered("ends.", 1), "ends-1.");
    }

    #[test]
    fn numbered_names_stay_within_the_limit_and_valid_utf8() {
        let long = format!("{}.txt", "é".repeat(125));
        let got = Name::try_from(long.as_str()).unwrap().numbered(12);
        assert!(got.as_bytes().len() <= NAME_BYTES_MAX);
        let text = std::str::from_utf8(got.as_bytes()).unwrap();
        assert!(text.ends_with("-12.txt"), "{text}");
        let all_extension = format!("a.{}", "x".repeat(253));
        assert!(numbered(&all_extension, 7).ends_with("-7"));
    }

    #[test]
    fn names_that_no_directory_can_hold_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\0b"] {
            assert_eq!(Name::new(bad).unwrap_err().code, ErrorCode::InvalidName, "{bad:?}");
        }
        assert_eq!(Name::new(vec![b'x'; 256]).unwrap_err().code, ErrorCode::NameTooLong);
        assert!(Name::new(vec![b'x'; 255]).is_ok());
    }

    #[test]
    fn paths_with_dot_dot_are_refused() {
        assert!(Name::split_path(b"/a/../b").is_err());
        assert_eq!(Name::split_path(b"//a//b/").unwrap().len(), 2);
        assert!(Name::split_path(b"/").unwrap().is_empty());
    }

    #[test]
    fn json_and_postcard_carry_any_bytes() {
        for bytes in [&b"plain \"quoted\" 'single'"[..], &[0xff, 0xfe, b'a'][..]] {
            let name = Name::new(bytes).unwrap();
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
            let binary = postcard::to_stdvec(&name).unwrap();
            assert_eq!(postcard::from_bytes::<Name>(&binary).unwrap(), name);
        }
        assert!(serde_json::from_str::<Name>("\"a/b\"").is_err());
    }
}
