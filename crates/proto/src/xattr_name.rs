//! Names of extended attributes: bytes, too, but not those of directory entries: a `/` is nothing special.

use crate::bytes_as_text::{self, Checked};
use crate::error::{ErrorCode, WireError};
use crate::limits::XATTR_NAME_BYTES_MAX;
use crate::name::Name;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A valid name of an extended attribute with its namespace (`user.note`): 1 to 255 bytes, no NUL.
///
/// It cannot be made otherwise, decoding from the wire included. In JSON it is a string when it is UTF-8 and
/// an array of byte values when it is not.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XattrName(Vec<u8>);

impl XattrName {
    /// Checks `bytes`; errors are `name_too_long` above 255 bytes and `invalid_name` for the rest.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<XattrName, WireError> {
        let bytes = bytes.into();
        if bytes.len() > XATTR_NAME_BYTES_MAX {
            let message = format!(
                "the name of an attribute may have {XATTR_NAME_BYTES_MAX} bytes, this one has {}",
                bytes.len()
            );
            return Err(WireError::new(ErrorCode::NameTooLong, message));
        }
        if bytes.is_empty() || bytes.contains(&0) {
            let message = "the name of an attribute may not be empty or contain a NUL byte";
            return Err(WireError::new(ErrorCode::InvalidName, message));
        }
        Ok(XattrName(bytes))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Checked for XattrName {
    const WHAT: &'static str = "the name of an extended attribute";
    const BYTES_MAX: usize = XATTR_NAME_BYTES_MAX;
    fn check(bytes: Vec<u8>) -> Result<XattrName, WireError> {
        XattrName::new(bytes)
    }
}

/// What can name an entry can name an attribute.
impl From<Name> for XattrName {
    fn from(name: Name) -> XattrName {
        XattrName(name.as_bytes().to_vec())
    }
}

impl TryFrom<&str> for XattrName {
    type Error = WireError;
    fn try_from(s: &str) -> Result<Self, Self::Error> {
        XattrName::new(s)
    }
}

/// Readable form, as that of a [`Name`].
impl fmt::Display for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytes_as_text::display(&self.0, f)
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XattrName({:?})", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for XattrName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        bytes_as_text::serialize(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for XattrName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        bytes_as_text::deserialize(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_but_nul_are_carried_by_json_and_postcard() {
        for bytes in [&b"user.a/b"[..], b"user...", &[b'u', 0xff, b'/'], &[b'x'; 255]] {
            let name = XattrName::new(bytes).unwrap();
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<XattrName>(&json).unwrap(), name);
            let binary = postcard::to_stdvec(&name).unwrap();
            assert_eq!(postcard::from_bytes::<XattrName>(&binary).unwrap(), name);
        }
    }

    #[test]
    fn names_that_no_attribute_can_have_are_refused() {
        assert_eq!(XattrName::new("").unwrap_err().code, ErrorCode::InvalidName);
        assert_eq!(XattrName::new("user.a\0").unwrap_err().code, ErrorCode::InvalidName);
        assert_eq!(XattrName::new(vec![b'x'; 256]).unwrap_err().code, ErrorCode::NameTooLong);
        assert!(serde_json::from_str::<XattrName>("\"\"").is_err());
    }
}
