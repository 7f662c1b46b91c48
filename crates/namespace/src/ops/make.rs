//! `Make`: a directory, symlink, device, FIFO, socket, or an empty file (O_EXCL).

use crate::WriteContext;
use crate::birth::{self, Wanted};
use crate::directory::{must_take_subdirectory, put_entry, touch};
use crate::error::{OpError, refuse};
use crate::fetch;
use dfs_metastore::WriteTxn;
use dfs_proto::limits::SYMLINK_BYTES_MAX;
use dfs_proto::meta::Make;
use dfs_proto::{ErrorCode, FileKind, MetaReply};

/// The mode of every symbolic link (symlink(7)).
const SYMLINK_MODE: u16 = 0o777;

pub fn make(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    make: &Make,
) -> Result<MetaReply, OpError> {
    check_target(make)?;
    let mut parent = fetch::directory(txn, make.parent)?;
    fetch::must_be_free(txn, make.parent, &make.name)?;
    birth::check_number(txn, make.ino)?;
    if make.kind == FileKind::Directory {
        must_take_subdirectory(&parent)?;
    }

    let ino = birth::number(txn, make.ino)?;
    let Make { kind, mode, umask, uid, gid, .. } = *make;
    let wanted = Wanted { kind, mode, umask, uid, gid };
    let mut child = birth::child(txn, &parent, ino, wanted, context.now)?;
    let row = &mut child.row;
    match make.kind {
        FileKind::Symlink => {
            row.mode = SYMLINK_MODE;
            row.size = make.target.len() as u64;
        }
        FileKind::CharDevice | FileKind::BlockDevice => row.rdev = make.rdev,
        FileKind::Directory => parent.nlink += 1,
        FileKind::File | FileKind::Fifo | FileKind::Socket => {}
    }
    child.put(txn)?;
    if make.kind == FileKind::Symlink {
        txn.put_symlink(ino, &make.target)?;
    }
    put_entry(txn, context, make.parent, &make.name, ino, None)?;
    touch(&mut parent, context.now);
    txn.put_inode(&parent)?;
    Ok(MetaReply::Attr(child.row.attr()))
}

fn check_target(make: &Make) -> Result<(), OpError> {
    let target = &make.target;
    if make.kind != FileKind::Symlink {
        return match target.is_empty() {
            true => Ok(()),
            false => refuse(ErrorCode::InvalidArgument, "only a symbolic link has a target"),
        };
    }
    if target.is_empty() || target.contains(&0) {
        let message = "the target of a symbolic link may not be empty or contain a NUL byte";
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if target.len() > SYMLINK_BYTES_MAX {
        let message = format!("a target may have {SYMLINK_BYTES_MAX} bytes, this one has {}", target.len());
        return refuse(ErrorCode::NameTooLong, message);
    }
    Ok(())
}
