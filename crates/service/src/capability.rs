//! Capabilities: short texts that the master signs and storage nodes check, so that only those whom the
//! master has told may append, pull or delete.
//!
//! Form: `RIGHTS.VOLUME.FIRST.END.EXPIRES.MAC`, numbers in decimal, `EXPIRES` in ms since 1970, `MAC` the hex
//! HMAC-SHA256 (RFC 2104) of all before it. The key is random, made with the cluster, and told to nodes when
//! they register.

use dfs_proto::{BlobKey, VolumeId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write;

/// What a capability allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// PUT of keys in the range; pull and sync of the volume.
    Append,
    /// Pull, sync and repair of the volume.
    Pull,
    /// Delete of any blob.
    Delete,
}

impl Rights {
    fn letter(self) -> &'static str {
        match self {
            Rights::Append => "a",
            Rights::Pull => "p",
            Rights::Delete => "d",
        }
    }

    fn of_letter(letter: &str) -> Option<Rights> {
        [Rights::Append, Rights::Pull, Rights::Delete].into_iter().find(|r| r.letter() == letter)
    }
}

/// What a token says once its signature has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What may be done.
    pub rights: Rights,
    /// To this volume; 0 for any.
    pub volume: VolumeId,
    /// From this key on.
    pub first: BlobKey,
    /// Below this key.
    pub end: BlobKey,
    /// Until then, ms since 1970.
    pub expires_ms: u64,
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Not a token, or not signed with this cluster's key.
    #[error("the capability is not one of this cluster")]
    Forged,
    /// Its time is over.
    #[error("the capability has expired; ask the master for another one")]
    Expired,
    /// It is for something else.
    #[error("the capability does not cover this")]
    OutOfScope,
}

/// The signing key.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

impl TokenKey {
    /// A new key.
    pub fn random() -> TokenKey {
        TokenKey(rand::random())
    }

    /// 64 hex digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The key that [`TokenKey::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<TokenKey> {
        let mut key = [0u8; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(TokenKey(key))
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac
    }

    /// The token for `c`.
    pub fn sign(&self, c: &Capability) -> String {
        let mut text = format!("{}.{}.{}.{}.{}", c.rights.letter(), c.volume, c.first, c.end, c.expires_ms);
        let mac = hex(&self.mac(&text).finalize().into_bytes());
        text.push('.');
        text.push_str(&mac);
        text
    }

    /// Checks the signature and the time of `token`; `now_ms` is the wall clock.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Capability, CapabilityError> {
        let (text, mac) = token.rsplit_once('.').ok_or(CapabilityError::Forged)?;
        let mac = unhex(mac).ok_or(CapabilityError::Forged)?;
        self.mac(text).verify_slice(&mac).map_err(|_| CapabilityError::Forged)?;
        let capability = parse(text).ok_or(CapabilityError::Forged)?;
        if now_ms > capability.expires_ms { Err(CapabilityError::Expired) } else { Ok(capability) }
    }
}

impl Capability {
    /// Whether it allows a PUT of `key` in `volume`.
    pub fn allows_put(&self, volume: VolumeId, key: BlobKey) -> Result<(), CapabilityError> {
        let fits =
            self.rights == Rights::Append && self.volume == volume && (self.first..self.end).contains(&key);
        if fits { Ok(()) } else { Err(CapabilityError::OutOfScope) }
    }

    /// Whether it allows pulling, syncing and repairing `volume`.
    pub fn allows_pull(&self, volume: VolumeId) -> Result<(), CapabilityError> {
        let fits = self.rights != Rights::Delete && (self.volume == volume || self.volume.0 == 0);
        if fits { Ok(()) } else { Err(CapabilityError::OutOfScope) }
    }

    /// Whether it allows deleting.
    pub fn allows_delete(&self) -> Result<(), CapabilityError> {
        if self.rights == Rights::Delete { Ok(()) } else { Err(CapabilityError::OutOfScope) }
    }
}

fn parse(text: &str) -> Option<Capability> {
    let mut parts = text.split('.');
    let rights = Rights::of_letter(parts.next()?)?;
    let mut number = || parts.next()?.parse::<u64>().ok();
    let c = Capability {
        rights,
        volume: VolumeId(number()?),
        first: BlobKey(number()?),
        end: BlobKey(number()?),
        expires_ms: number()?,
    };
    parts.next().is_none().then_some(c)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        write!(s, "{b:02x}").expect("writing to a String cannot fail");
        s
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability() -> Capability {
        Capability {
            rights: Rights::Append,
            volume: VolumeId(7),
            first: BlobKey(10),
            end: BlobKey(20),
            expires_ms: 1000,
        }
    }

    #[test]
    fn a_signed_capability_is_read_back() {
        let key = TokenKey::random();
        let key_again = TokenKey::from_hex(&key.to_hex()).unwrap();
        assert_eq!(key_again.verify(&key.sign(&capability()), 1000), Ok(capability()));
    }

    #[test]
    fn changed_foreign_and_late_tokens_are_refused() {
        let key = TokenKey::random();
        let token = key.sign(&capability());
        assert_eq!(key.verify(&token, 1001), Err(CapabilityError::Expired));
        assert_eq!(TokenKey::random().verify(&token, 0), Err(CapabilityError::Forged));
        assert_eq!(key.verify(&token.replacen(".20.", ".21.", 1), 0), Err(CapabilityError::Forged));
        for garbage in ["", "x", "a.7.10.20.1000", "a.7.10.20.1000.zz", "......"] {
            assert_eq!(key.verify(garbage, 0), Err(CapabilityError::Forged), "{garbage}");
        }
    }

    #[test]
    fn scope_is_volume_range_and_right() {
        let c = capability();
        assert!(c.allows_put(VolumeId(7), BlobKey(10)).is_ok());
        assert!(c.allows_put(VolumeId(7), BlobKey(20)).is_err());
        assert!(c.allows_put(VolumeId(8), BlobKey(10)).is_err());
        assert!(c.allows_pull(VolumeId(7)).is_ok());
        assert!(c.allows_delete().is_err());
        let pull = Capability { rights: Rights::Pull, ..c };
        assert!(pull.allows_put(VolumeId(7), BlobKey(10)).is_err());
    }
}
