//! Extended attributes.

use crate::VfsError;
use crate::file::Origin;
use crate::vfs::Vfs;
use bytes::Bytes;
use dfs_client::ClientError;
use dfs_proto::meta::{ReadOp, WriteOp, XattrMode};
use dfs_proto::{ErrorCode, Ino, MetaReply, XattrName};

/// The attribute that tells a writer under which name its file was stored.
const STORED_AS: &[u8] = b"user.dfs.stored_as";

/// The attribute that the kernel looks for before each write, to take a file's capabilities away.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// The attributes that the kernel asks for when it checks permissions.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

fn is_acl(name: &XattrName) -> bool {
    ACLS.contains(&name.as_bytes())
}

impl Vfs {
    /// What [`Vfs::getxattr`] answers, if that is known without asking the master. The kernel asks for capabilities
    /// before each write through its page cache.
    pub fn try_getxattr(&self, ino: Ino, name: &XattrName) -> Option<Result<Bytes, VfsError>> {
        if name.as_bytes() == STORED_AS {
            let stored = self.names.stored_as(ino);
            return Some(stored.map(|name| Bytes::copy_from_slice(name.as_bytes())).ok_or_else(no_attribute));
        }
        if is_acl(name) && self.known_to_pass_on(ino).is_some_and(|p| !p.has_acl) {
            return Some(Err(no_attribute()));
        }
        let file = self.file(ino)?;
        let state = file.lock();
        // A file that exists here only has none yet.
        let has_none = !matches!(state.origin, Origin::Published)
            || (name.as_bytes() == CAPABILITY && state.no_capability && !state.stale);
        has_none.then(|| Err(no_attribute()))
    }

    /// Value of an attribute. `user.dfs.stored_as` tells the name under which this mount stored a file that
    /// could not have the one it was written to.
    pub async fn getxattr(&self, ino: Ino, name: impl Into<XattrName>) -> Result<Bytes, VfsError> {
        let name = name.into();
        if let Some(known) = self.try_getxattr(ino, &name) {
            return known;
        }
        let file = self.file(ino).filter(|_| name.as_bytes() == CAPABILITY);
        match self.read_op(ReadOp::GetXattr { ino, name }).await {
            Ok(MetaReply::Value(value)) => Ok(value),
            Ok(_) => Err(VfsError::OddAnswer("a getxattr")),
            Err(e) => {
                if let Some(file) = file.filter(|_| e.code() == ErrorCode::NoAttribute) {
                    file.lock().no_capability = true;
                }
                Err(e)
            }
        }
    }

    /// Names of all attributes.
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<XattrName>, VfsError> {
        if self.file(ino).is_some_and(|f| !Vfs::is_published(&f)) {
            return Ok(Vec::new());
        }
        match self.read_op(ReadOp::ListXattr { ino }).await? {
            MetaReply::Names(names) => Ok(names),
            _ => Err(VfsError::OddAnswer("a listxattr")),
        }
    }

    /// Sets an attribute. `drops_set_gid`: see [`WriteOp::SetXattr`].
    pub async fn setxattr(
        &self,
        ino: Ino,
        name: impl Into<XattrName>,
        value: Bytes,
        mode: XattrMode,
        drops_set_gid: bool,
    ) -> Result<(), VfsError> {
        let name = name.into();
        self.publish_if_new(ino).await?;
        if let Some(file) = self.file(ino) {
            file.lock().no_capability = false;
        }
        let changes_mode = is_acl(&name);
        self.write_op(WriteOp::SetXattr { ino, name, value, mode, drops_set_gid }).await?;
        match changes_mode {
            true => self.names.attributes_changed(ino),
            false => self.names.changed_here(ino),
        }
        Ok(())
    }

    /// Removes an attribute.
    pub async fn removexattr(&self, ino: Ino, name: impl Into<XattrName>) -> Result<(), VfsError> {
        let name = name.into();
        self.publish_if_new(ino).await?;
        let changes_mode = is_acl(&name);
        self.write_op(WriteOp::RemoveXattr { ino, name }).await?;
        match changes_mode {
            true => self.names.attributes_changed(ino),
            false => self.names.changed_here(ino),
        }
        Ok(())
    }
}

fn no_attribute() -> VfsError {
    ClientError::local(ErrorCode::NoAttribute, "there is no such attribute").into()
}
