//! Extended attributes (xattr(7)), and those under `user.dfs.` that this file system answers itself:
//!
//! | name | on | meaning |
//! |---|---|---|
//! | `user.dfs.collision` | directories | the collision rule: `rename` or `replace`; inherited by new subdirectories |
//! | `user.dfs.version` | files, directories | the content version; read only |
//! | `user.dfs.md5` | files | MD5 of the whole content, when it is known; read only |
//!
//! Nothing under that prefix is ever stored as an attribute. Only a rule that is set shows up in lists: a copy
//! made with all attributes should carry the rule along, and could not set the others.
//!
//! Of `system.` there are the access control lists only, which [`super::acl`] has the rules of.

use super::acl;
use crate::access::Which;
use crate::error::{OpError, refuse};
use crate::{WriteContext, fetch};
use bytes::Bytes;
use dfs_metastore::row::InodeRow;
use dfs_metastore::{ReadTxn, StoreError, WriteTxn};
use dfs_proto::limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use dfs_proto::meta::XattrMode;
use dfs_proto::{CollisionPolicy, ErrorCode, EventKind, FileKind, Ino, MetaReply, XattrName};

const USER: &[u8] = b"user.";
const OTHERS: [&[u8]; 2] = [b"trusted.", b"security."];
const RESERVED: &[u8] = b"user.dfs.";
const COLLISION: &[u8] = b"user.dfs.collision";
const VERSION: &[u8] = b"user.dfs.version";
const MD5: &[u8] = b"user.dfs.md5";

pub fn get(txn: &dyn ReadTxn, ino: Ino, name: &XattrName) -> Result<MetaReply, OpError> {
    let row = fetch::inode(txn, ino)?;
    check_name(name)?;
    if Which::named(name.as_bytes()).is_some() {
        acl::check_kind(&row)?;
    }
    let value = match is_reserved(name) {
        true => virtual_value(&row, name).map(Bytes::from),
        false => txn.xattr(ino, name.as_bytes())?.map(Bytes::from),
    };
    match value {
        Some(value) => Ok(MetaReply::Value(value)),
        None => missing(ino, name),
    }
}

pub fn list(txn: &dyn ReadTxn, ino: Ino) -> Result<MetaReply, OpError> {
    let row = fetch::inode(txn, ino)?;
    let mut names = txn.xattr_names(ino)?;
    if row.collision.is_some() {
        names.push(COLLISION.to_vec());
        names.sort_unstable();
    }
    let names: Result<Vec<XattrName>, _> = names.into_iter().map(XattrName::new).collect();
    let names = names.map_err(|e| StoreError::Corrupt(format!("an attribute of inode {ino}: {e}")))?;
    Ok(MetaReply::Names(names))
}

/// What an attribute is to be.
pub struct NewValue<'a> {
    /// Which.
    pub name: &'a XattrName,
    /// Its value.
    pub value: &'a [u8],
    /// Whether it must exist, or must not.
    pub mode: XattrMode,
    /// See [`dfs_proto::meta::WriteOp::SetXattr`].
    pub drops_set_gid: bool,
}

pub fn set(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    new: NewValue<'_>,
) -> Result<MetaReply, OpError> {
    let NewValue { name, value, mode, drops_set_gid } = new;
    let mut row = fetch::inode(txn, ino)?;
    check_writable(&row, name)?;
    if value.len() > XATTR_VALUE_BYTES_MAX {
        let message = format!("a value may have {XATTR_VALUE_BYTES_MAX} bytes, this one has {}", value.len());
        return refuse(ErrorCode::ValueTooLarge, message);
    }
    if let Some(which) = Which::named(name.as_bytes()) {
        return acl::set(txn, context, row, which, value, drops_set_gid);
    }
    if name.as_bytes() == COLLISION {
        let policy = parse_policy(value)?;
        check_mode(ino, name, mode, row.collision.is_some())?;
        row.collision = Some(policy);
    } else {
        let is_new = txn.xattr(ino, name.as_bytes())?.is_none();
        check_mode(ino, name, mode, !is_new)?;
        if is_new {
            check_room(txn, ino, name)?;
        }
        txn.put_xattr(ino, name.as_bytes(), value)?;
    }
    finish(txn, context, row)
}

pub fn remove(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    name: &XattrName,
) -> Result<MetaReply, OpError> {
    let mut row = fetch::inode(txn, ino)?;
    check_writable(&row, name)?;
    if let Some(which) = Which::named(name.as_bytes()) {
        return acl::remove(txn, context, row, which);
    }
    if name.as_bytes() == COLLISION {
        if row.collision.take().is_none() {
            return missing(ino, name);
        }
    } else {
        if txn.xattr(ino, name.as_bytes())?.is_none() {
            return missing(ino, name);
        }
        txn.delete_xattr(ino, name.as_bytes())?;
    }
    finish(txn, context, row)
}

/// Notes the change of an attribute: ctime, and the news of it.
pub fn finish(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    mut row: InodeRow,
) -> Result<MetaReply, OpError> {
    row.ctime = context.now;
    txn.put_inode(&row)?;
    context.changes.push(EventKind::Attr(row.ino));
    Ok(MetaReply::Done)
}

fn is_reserved(name: &XattrName) -> bool {
    name.as_bytes().starts_with(RESERVED)
}

fn virtual_value(row: &InodeRow, name: &XattrName) -> Option<String> {
    match (name.as_bytes(), row.kind) {
        (COLLISION, FileKind::Directory) => row.collision.map(|policy| policy.as_str().to_owned()),
        (VERSION, FileKind::File | FileKind::Directory) => Some(row.version.to_string()),
        (MD5, FileKind::File) => row.md5.map(|md5| md5.to_string()),
        _ => None,
    }
}

fn check_name(name: &XattrName) -> Result<(), OpError> {
    let bytes = name.as_bytes();
    if Which::named(bytes).is_some() {
        return Ok(());
    }
    let mut namespaces = OTHERS.iter().copied().chain([USER]);
    let Some(namespace) = namespaces.find(|namespace| bytes.starts_with(namespace)) else {
        let message = format!(
            "attribute `{name}` is in none of user., trusted. and security., and no access control list"
        );
        return refuse(ErrorCode::NotSupported, message);
    };
    if bytes.len() == namespace.len() {
        return refuse(ErrorCode::InvalidArgument, format!("attribute `{name}` has no name"));
    }
    Ok(())
}

fn check_writable(row: &InodeRow, name: &XattrName) -> Result<(), OpError> {
    check_name(name)?;
    if name.as_bytes() == COLLISION {
        return match row.kind {
            FileKind::Directory => Ok(()),
            _ => refuse(ErrorCode::InvalidArgument, format!("only directories have `{name}`")),
        };
    }
    if is_reserved(name) {
        return refuse(ErrorCode::NotPermitted, format!("`{name}` belongs to the file system itself"));
    }
    let may_have_user = matches!(row.kind, FileKind::File | FileKind::Directory);
    if name.as_bytes().starts_with(USER) && !may_have_user {
        let message =
            format!("only files and directories have user attributes, inode {} is neither", row.ino);
        return refuse(ErrorCode::NotPermitted, message);
    }
    Ok(())
}

fn check_mode(ino: Ino, name: &XattrName, mode: XattrMode, is_there: bool) -> Result<(), OpError> {
    match (mode, is_there) {
        (XattrMode::Create, true) => {
            refuse(ErrorCode::Exists, format!("inode {ino} has the attribute `{name}` already"))
        }
        (XattrMode::Replace, false) => missing(ino, name),
        (XattrMode::Any | XattrMode::Create | XattrMode::Replace, _) => Ok(()),
    }
}

fn missing<T>(ino: Ino, name: &XattrName) -> Result<T, OpError> {
    refuse(ErrorCode::NoAttribute, format!("inode {ino} has no attribute `{name}`"))
}

/// Keeps the names of an inode within what listxattr(2) can return, with room for those that are always taken:
/// the collision rule and the access control lists.
fn check_room(txn: &dyn WriteTxn, ino: Ino, name: &XattrName) -> Result<(), OpError> {
    let listed_bytes = |name: &[u8]| name.len() + 1;
    let always = Which::ALL.map(Which::attribute).into_iter().chain([COLLISION]).map(listed_bytes);
    let present = txn.xattr_names(ino)?;
    let present = present.iter().filter(|other| Which::named(other).is_none());
    let bytes: usize = present.map(|other| listed_bytes(other)).chain(always).sum();
    if bytes + listed_bytes(name.as_bytes()) > XATTR_LIST_BYTES_MAX {
        return refuse(ErrorCode::NoSpace, format!("inode {ino} has no room for another attribute"));
    }
    Ok(())
}

fn parse_policy(value: &[u8]) -> Result<CollisionPolicy, OpError> {
    let text = String::from_utf8_lossy(value);
    // `setfattr` and `echo` in scripts tend to leave a newline.
    match text.trim_end_matches('\n').parse() {
        Ok(policy) => Ok(policy),
        Err(why) => refuse(ErrorCode::InvalidArgument, why),
    }
}
