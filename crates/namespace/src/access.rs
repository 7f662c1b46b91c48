//! The access control lists of inodes: kept as extended attributes, in the form that [`Acl`] knows.
//!
//! - An access list is kept only where it says more than the mode, and then the permission bits of the mode are
//!   those that go with it.
//! - Only directories have default lists, and symbolic links have none at all.
//! - `has_acl` of the row says whether there is any, so that nothing is looked for where there is not.

use crate::acl::{Acl, PERMISSIONS};
use crate::error::OpError;
use dfs_metastore::row::InodeRow;
use dfs_metastore::{ReadTxn, StoreError, WriteTxn};
use dfs_proto::{FileKind, Ino};

/// The two lists that an inode can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Who may do what with it.
    Access,
    /// What new inodes in the directory get.
    Default,
}

impl Which {
    /// Both.
    pub const ALL: [Which; 2] = [Which::Access, Which::Default];

    /// The list that is the attribute of this name, if it is one.
    pub fn named(attribute: &[u8]) -> Option<Which> {
        Which::ALL.into_iter().find(|which| which.attribute() == attribute)
    }

    /// The name of the attribute.
    pub fn attribute(self) -> &'static [u8] {
        match self {
            Which::Access => b"system.posix_acl_access",
            Which::Default => b"system.posix_acl_default",
        }
    }
}

/// A list of the inode, if it has one.
pub fn fetch(txn: &dyn ReadTxn, row: &InodeRow, which: Which) -> Result<Option<Acl>, OpError> {
    if !row.has_acl {
        return Ok(None);
    }
    let Some(value) = txn.xattr(row.ino, which.attribute())? else { return Ok(None) };
    let list = Acl::parse(&value);
    list.map_err(|why| StoreError::Corrupt(format!("a list of inode {} {why}", row.ino)).into())
}

/// Writes or removes a list; the row learns whether there is one, and is not written.
pub fn store(
    txn: &mut dyn WriteTxn,
    row: &mut InodeRow,
    which: Which,
    list: Option<&Acl>,
) -> Result<(), OpError> {
    put(txn, row.ino, which, list)?;
    row.has_acl = list.is_some();
    for which in Which::ALL {
        row.has_acl |= txn.xattr(row.ino, which.attribute())?.is_some();
    }
    Ok(())
}

fn put(txn: &mut dyn WriteTxn, ino: Ino, which: Which, list: Option<&Acl>) -> Result<(), OpError> {
    match list {
        Some(list) => txn.put_xattr(ino, which.attribute(), &list.encode())?,
        None => txn.delete_xattr(ino, which.attribute())?,
    }
    Ok(())
}

/// chmod(2): the access list, if there is one, follows the mode of the row.
pub fn follow_mode(txn: &mut dyn WriteTxn, row: &InodeRow) -> Result<(), OpError> {
    if let Some(mut list) = fetch(txn, row, Which::Access)? {
        list.set_permissions(row.mode);
        put(txn, row.ino, Which::Access, Some(&list))?;
    }
    Ok(())
}

/// Lists that a new inode has from its directory.
#[derive(Default)]
pub struct Inherited {
    access: Option<Acl>,
    default: Option<Acl>,
}

impl Inherited {
    /// Applies the default list of `parent` to a new row, and `umask` where there is no such list (acl(5),
    /// OBJECT CREATION AND DEFAULT ACLs; umask(2)).
    pub fn apply(
        txn: &dyn ReadTxn,
        parent: &InodeRow,
        row: &mut InodeRow,
        umask: u16,
    ) -> Result<Inherited, OpError> {
        if row.kind == FileKind::Symlink {
            return Ok(Inherited::default());
        }
        let Some(default) = fetch(txn, parent, Which::Default)? else {
            row.mode &= !(umask & PERMISSIONS);
            return Ok(Inherited::default());
        };
        let access = default.inherited(row.mode);
        row.mode = (row.mode & !PERMISSIONS) | access.permissions();
        let inherited = Inherited {
            access: Some(access).filter(|list| !list.is_mode_alone()),
            default: Some(default).filter(|_| row.kind == FileKind::Directory),
        };
        row.has_acl = inherited.access.is_some() || inherited.default.is_some();
        Ok(inherited)
    }

    /// Writes them.
    pub fn put(&self, txn: &mut dyn WriteTxn, ino: Ino) -> Result<(), OpError> {
        for (which, list) in [(Which::Access, &self.access), (Which::Default, &self.default)] {
            if list.is_some() {
                put(txn, ino, which, list.as_ref())?;
            }
        }
        Ok(())
    }
}
