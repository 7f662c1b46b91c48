//! The two encodings of wire types: JSON for people and scripts, postcard for the mount.

use crate::error::{ErrorCode, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Content type of the compact binary encoding.
pub const POSTCARD: &str = "application/x-dfs-postcard";

/// Content type of JSON.
pub const JSON: &str = "application/json";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// [`JSON`]
    Json,
    /// [`POSTCARD`]
    Postcard,
}

impl Encoding {
    /// The encoding that a `Content-Type` (or `Accept`) value names; JSON unless it says postcard.
    pub fn of_content_type(value: &str) -> Encoding {
        if value.trim().starts_with(POSTCARD) { Encoding::Postcard } else { Encoding::Json }
    }

    /// The `Content-Type` of bodies in this encoding.
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Postcard => POSTCARD,
        }
    }

    /// Writes `value`; fails with `internal` only for values that the encoding cannot say.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Vec<u8>, WireError> {
        let result = match self {
            Encoding::Json => serde_json::to_vec(value).map_err(|e| e.to_string()),
            Encoding::Postcard => postcard::to_stdvec(value).map_err(|e| e.to_string()),
        };
        result.map_err(|e| WireError::new(ErrorCode::Internal, format!("cannot encode an answer: {e}")))
    }

    /// Reads a body; anything that is not exactly a `T` is `malformed`.
    pub fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, WireError> {
        let result = match self {
            Encoding::Json => serde_json::from_slice(body).map_err(|e| e.to_string()),
            Encoding::Postcard => match postcard::take_from_bytes(body) {
                Ok((value, [])) => Ok(value),
                Ok((_, rest)) => Err(format!("{} bytes follow the value", rest.len())),
                Err(e) => Err(e.to_string()),
            },
        };
        result.map_err(|e| WireError::new(ErrorCode::Malformed, format!("cannot read the body: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ino;
    use crate::meta::{MetaCall, MetaOp, MetaRequest, ReadOp};

    #[test]
    fn requests_survive_both_encodings() {
        let request = MetaRequest {
            session: None,
            acked_below: 0,
            calls: vec![MetaCall { seq: 0, op: MetaOp::Read(ReadOp::GetAttr { ino: Ino::ROOT }) }],
        };
        for encoding in [Encoding::Json, Encoding::Postcard] {
            let body = encoding.encode(&request).unwrap();
            assert_eq!(encoding.decode::<MetaRequest>(&body).unwrap(), request);
        }
    }

    #[test]
    fn garbage_is_malformed_in_both() {
        for encoding in [Encoding::Json, Encoding::Postcard] {
            let e =
                encoding.decode::<MetaRequest>(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").unwrap_err();
            assert_eq!(e.code, ErrorCode::Malformed);
        }
    }
}
