//! Access control lists: as attributes, and what they do to modes.

use super::harness::*;
use dfs_proto::meta::{AttrChanges, Create, Make, MakeUnnamed, WriteOp, XattrMode};
use dfs_proto::{Attr, ErrorCode, EventKind, FileKind, Ino, MetaReply};

const ROOT: Ino = Ino::ROOT;
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// A list in its binary form: what owner, user 1000, group, mask and others may; user and mask only if given.
pub fn list(owner: u16, user: Option<u16>, group: u16, mask: Option<u16>, others: u16) -> Vec<u8> {
    let no_id = u32::MAX;
    let entries = [Some((0x01u16, owner, no_id)), user.map(|p| (0x02, p, 1000)), Some((0x04, group, no_id))];
    let entries = entries.into_iter().chain([mask.map(|p| (0x10, p, no_id)), Some((0x20, others, no_id))]);
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries.flatten() {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn set_mode(world: &mut World<'_>, ino: Ino, mode: u16) -> Attr {
    let changes = AttrChanges { mode: Some(mode), ..AttrChanges::default() };
    match world.write(&WriteOp::SetAttr { ino, changes }) {
        Ok(MetaReply::Attr(attr)) => attr,
        other => panic!("{other:?}"),
    }
}

fn with_default(world: &mut World<'_>, value: &[u8]) -> Ino {
    let directory = world.mkdir(ROOT, "directory");
    world.set_xattr(directory, DEFAULT, value);
    directory
}

fn make_with(world: &mut World<'_>, kind: FileKind, parent: Ino, entry: &str, modes: (u16, u16)) -> Attr {
    let target = if kind == FileKind::Symlink { "x" } else { "" }.into();
    let (name, mode, umask) = (name(entry), modes.0, modes.1);
    let (ino, uid, gid, rdev) = (Ino(0), 1, 1, 0);
    let make = Make { parent, name, ino, kind, mode, umask, uid, gid, rdev, target, opened: false };
    match world.write(&WriteOp::Make(make)) {
        Ok(MetaReply::Attr(attr)) => attr,
        other => panic!("{other:?}"),
    }
}

fn remove(ino: Ino, attribute: &str) -> WriteOp {
    WriteOp::RemoveXattr { ino, name: attribute.try_into().unwrap() }
}

fn put(ino: Ino, attribute: &str, value: &[u8]) -> WriteOp {
    set_xattr(ino, attribute, value, XattrMode::Any)
}

on_each_store! {
    fn an_access_list_sets_the_permission_bits_of_the_mode(world) {
        let ino = world.touch(ROOT, "file");
        set_mode(world, ino, 0o4600);
        let value = list(6, Some(7), 4, Some(5), 1);
        world.set_xattr(ino, ACCESS, &value);
        assert_eq!(world.changes, [EventKind::Attr(ino)]);
        let attr = world.attr(ino);
        assert_eq!((attr.mode, attr.has_acl, attr.ctime), (0o4651, true, world.now()));
        assert_eq!(world.xattr(ino, ACCESS), Ok(value));
        assert_eq!(world.xattr(ino, DEFAULT), Err(ErrorCode::NoAttribute));
    }

    fn a_list_that_a_mode_can_say_is_kept_as_mode_alone(world) {
        let ino = world.touch(ROOT, "file");
        world.set_xattr(ino, ACCESS, &list(6, Some(7), 4, Some(5), 1));
        world.set_xattr(ino, ACCESS, &list(7, None, 5, None, 0));
        let attr = world.attr(ino);
        assert_eq!((attr.mode, attr.has_acl), (0o750, false));
        assert_eq!(world.xattr(ino, ACCESS), Err(ErrorCode::NoAttribute));
        world.set_xattr(ino, ACCESS, &list(7, None, 5, Some(7), 0));
        assert_eq!((world.attr(ino).mode, world.attr(ino).has_acl), (0o770, true));
    }

    fn removing_a_list_leaves_the_mode_and_removing_none_is_fine(world) {
        let ino = world.touch(ROOT, "file");
        let value = list(6, Some(7), 4, Some(5), 1);
        let empty = 2u32.to_le_bytes();
        for op in [remove(ino, ACCESS), put(ino, ACCESS, &empty)] {
            world.set_xattr(ino, ACCESS, &value);
            assert_eq!(world.write(&op), Ok(MetaReply::Done));
            assert_eq!(world.changes, [EventKind::Attr(ino)]);
            let attr = world.attr(ino);
            assert_eq!((attr.mode, attr.has_acl, attr.ctime), (0o651, false, world.now()));
            assert_eq!(world.write(&op), Ok(MetaReply::Done));
            assert!(world.changes.is_empty());
            assert_eq!(world.attr(ino), attr);
        }
    }

    fn one_list_goes_and_the_other_stays(world) {
        let directory = world.mkdir(ROOT, "directory");
        world.set_xattr(directory, ACCESS, &list(7, Some(7), 5, Some(5), 1));
        world.set_xattr(directory, DEFAULT, &list(7, None, 5, None, 0));
        assert_eq!(world.attr(directory).mode, 0o751, "a default list is nobody's permission");
        world.write(&remove(directory, ACCESS)).unwrap();
        assert!(world.attr(directory).has_acl);
        world.write(&remove(directory, DEFAULT)).unwrap();
        assert!(!world.attr(directory).has_acl);
    }

    fn who_is_not_in_the_group_loses_set_group_id(world) {
        let ino = world.touch(ROOT, "file");
        for (drops_set_gid, left) in [(false, 0o6751), (true, 0o4751)] {
            set_mode(world, ino, 0o6755);
            let value = list(7, Some(7), 4, Some(5), 1).into();
            let mode = XattrMode::Any;
            let name = ACCESS.try_into().unwrap();
            world.write(&WriteOp::SetXattr { ino, name, value, mode, drops_set_gid }).unwrap();
            assert_eq!(world.attr(ino).mode, left);
        }
    }

    fn lists_that_are_none_and_places_that_have_none_are_refused(world) {
        let file = world.touch(ROOT, "file");
        let link = world.symlink(ROOT, "link", "x");
        let good = list(7, None, 5, None, 0);
        for (ino, attribute, value, code) in [
            (file, ACCESS, &b""[..], ErrorCode::InvalidArgument),
            (file, ACCESS, &good[..good.len() - 1], ErrorCode::InvalidArgument),
            (file, ACCESS, &list(7, Some(7), 5, None, 0), ErrorCode::InvalidArgument),
            (ROOT, DEFAULT, &list(8, None, 5, None, 0), ErrorCode::InvalidArgument),
            (file, DEFAULT, &good, ErrorCode::NotPermitted),
            (link, ACCESS, &good, ErrorCode::NotSupported),
            (link, DEFAULT, &good, ErrorCode::NotSupported),
            (file, ACCESS, &vec![0; 65_537], ErrorCode::ValueTooLarge),
        ] {
            assert_eq!(world.refused(&put(ino, attribute, value)), code, "{attribute} of {ino}: {value:?}");
        }
        assert_eq!(world.write(&remove(file, DEFAULT)), Ok(MetaReply::Done));
        assert_eq!(world.refused(&remove(link, ACCESS)), ErrorCode::NotSupported);
        assert_eq!(world.xattr(link, ACCESS), Err(ErrorCode::NotSupported));
        let fifo = make_with(world, FileKind::Fifo, ROOT, "fifo", (0o600, 0)).ino;
        world.set_xattr(fifo, ACCESS, &list(6, Some(6), 0, Some(6), 0));
    }

    fn chmod_changes_the_mask(world) {
        let ino = world.touch(ROOT, "file");
        world.set_xattr(ino, ACCESS, &list(6, Some(7), 4, Some(5), 1));
        assert_eq!(set_mode(world, ino, 0o2720).mode, 0o2720);
        assert_eq!(world.xattr(ino, ACCESS), Ok(list(7, Some(7), 4, Some(2), 0)));
        let changes = AttrChanges { uid: Some(5), ..AttrChanges::default() };
        world.write(&WriteOp::SetAttr { ino, changes }).unwrap();
        assert_eq!(world.xattr(ino, ACCESS), Ok(list(7, Some(7), 4, Some(2), 0)));
    }

    fn without_a_default_list_the_umask_counts(world) {
        let directory = world.mkdir(ROOT, "directory");
        world.set_xattr(directory, ACCESS, &list(7, Some(7), 7, Some(7), 7));
        let file = make_with(world, FileKind::File, directory, "file", (0o6666, 0o022));
        assert_eq!((file.mode, file.has_acl), (0o6644, false));
        let link = make_with(world, FileKind::Symlink, directory, "link", (0o777, 0o022));
        assert_eq!(link.mode, 0o777);
    }

    fn with_a_default_list_the_umask_does_not_count(world) {
        let default = list(7, Some(6), 5, Some(7), 5);
        let directory = with_default(world, &default);
        let expected = list(6, Some(6), 5, Some(6), 4);
        let file = make_with(world, FileKind::File, directory, "file", (0o4666, 0o077));
        assert_eq!((file.mode, file.has_acl), (0o4664, true));
        assert_eq!(world.attr(file.ino), file);
        assert_eq!(world.xattr(file.ino, ACCESS), Ok(expected.clone()));
        assert_eq!(world.xattr(file.ino, DEFAULT), Err(ErrorCode::NoAttribute));

        let mut commit = create(directory, "committed", vec![data(0, 10, 1)], rename_rule());
        commit.create = commit.create.map(|create| Create { mode: 0o666, umask: 0o077, ..create });
        let committed = world.commit(commit).attr;
        assert_eq!((committed.mode, committed.has_acl), (0o664, true));
        assert_eq!(world.xattr(committed.ino, ACCESS), Ok(expected.clone()));

        let make = MakeUnnamed { parent: directory, ino: Ino(0), mode: 0o666, umask: 0o077, uid: 1, gid: 1 };
        let Ok(MetaReply::Attr(unnamed)) = world.write(&WriteOp::MakeUnnamed(make)) else { panic!() };
        assert_eq!((unnamed.mode, unnamed.has_acl), (0o664, true));
        assert_eq!(world.xattr(unnamed.ino, ACCESS), Ok(expected));
    }

    fn directories_inherit_the_default_list_and_symlinks_nothing(world) {
        let default = list(7, Some(6), 5, Some(7), 5);
        let directory = with_default(world, &default);
        let below = make_with(world, FileKind::Directory, directory, "below", (0o770, 0o077));
        assert_eq!((below.mode, below.has_acl), (0o770, true));
        assert_eq!(world.xattr(below.ino, ACCESS), Ok(list(7, Some(6), 5, Some(7), 0)));
        assert_eq!(world.xattr(below.ino, DEFAULT), Ok(default.clone()));
        let deeper = make_with(world, FileKind::Directory, below.ino, "deeper", (0o700, 0o077));
        assert_eq!(world.xattr(deeper.ino, DEFAULT), Ok(default));
        let link = make_with(world, FileKind::Symlink, directory, "link", (0o777, 0o077));
        assert_eq!((link.mode, link.has_acl), (0o777, false));
    }

    fn a_default_list_that_a_mode_can_say_bounds_the_mode(world) {
        let default = list(7, None, 5, None, 0);
        let directory = with_default(world, &default);
        let file = make_with(world, FileKind::File, directory, "file", (0o666, 0o777));
        assert_eq!((file.mode, file.has_acl), (0o640, false));
        let below = make_with(world, FileKind::Directory, directory, "below", (0o1777, 0o777));
        assert_eq!((below.mode, below.has_acl), (0o1750, true));
        assert_eq!(world.xattr(below.ino, ACCESS), Err(ErrorCode::NoAttribute));
        assert_eq!(world.xattr(below.ino, DEFAULT), Ok(default));
    }
}
