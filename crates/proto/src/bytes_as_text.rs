//! How names travel: in JSON as a string when they are UTF-8 and as an array of byte values when they are not; as
//! bytes elsewhere.

use crate::error::WireError;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A name that is checked when it is made.
pub(crate) trait Checked: Sized {
    /// What is expected, for errors.
    const WHAT: &'static str;
    /// Longer ones need not be read to their end.
    const BYTES_MAX: usize;
    fn check(bytes: Vec<u8>) -> Result<Self, WireError>;
}

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) if s.is_human_readable() => s.serialize_str(text),
        Err(_) if s.is_human_readable() => bytes.serialize(s),
        _ => s.serialize_bytes(bytes),
    }
}

pub(crate) fn deserialize<'de, T: Checked, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    let visitor = BytesVisitor(PhantomData);
    if d.is_human_readable() { d.deserialize_any(visitor) } else { d.deserialize_bytes(visitor) }
}

/// Readable form: invalid UTF-8 is replaced and control characters are escaped, so a name cannot forge a log
/// line.
pub(crate) fn display(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
    }
    Ok(())
}

struct BytesVisitor<T>(PhantomData<T>);

impl<'de, T: Checked> Visitor<'de> for BytesVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a string, or an array of byte values", T::WHAT)
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<T, E> {
        T::check(s.into()).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, b: &[u8]) -> Result<T, E> {
        T::check(b.into()).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        let mut bytes = Vec::new();
        while let Some(b) = seq.next_element::<u8>()? {
            if bytes.len() > T::BYTES_MAX {
                break;
            }
            bytes.push(b);
        }
        T::check(bytes).map_err(de::Error::custom)
    }
}
