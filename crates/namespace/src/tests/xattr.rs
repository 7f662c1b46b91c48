//! Extended attributes.

use super::harness::*;
use dfs_proto::meta::{ReadOp, WriteOp, XattrMode};
use dfs_proto::{ErrorCode, EventKind, FileKind, Ino, MetaReply};

const ROOT: Ino = Ino::ROOT;

fn list(world: &World<'_>, ino: Ino) -> Vec<String> {
    match world.read(&ReadOp::ListXattr { ino }) {
        Ok(MetaReply::Names(names)) => names.iter().map(ToString::to_string).collect(),
        other => panic!("a list gave {other:?}"),
    }
}

fn remove(ino: Ino, attribute: &str) -> WriteOp {
    WriteOp::RemoveXattr { ino, name: attribute.try_into().unwrap() }
}

on_each_store! {
    fn attributes_are_set_read_listed_and_removed(world) {
        let ino = world.touch(ROOT, "file");
        world.set_xattr(ino, "user.b", b"one");
        assert_eq!(world.changes, [EventKind::Attr(ino)]);
        assert_eq!(world.attr(ino).ctime, world.now());
        world.set_xattr(ino, "user.a", b"");
        world.set_xattr(ino, "trusted.x", &[0xff; 65_536]);
        world.set_xattr(ino, "user.b", b"two");
        assert_eq!(list(world, ino), ["trusted.x", "user.a", "user.b"]);
        assert_eq!(world.xattr(ino, "user.b"), Ok(b"two".to_vec()));
        assert_eq!(world.xattr(ino, "user.a"), Ok(vec![]));
        assert_eq!(world.write(&remove(ino, "user.b")), Ok(MetaReply::Done));
        assert_eq!(world.changes, [EventKind::Attr(ino)]);
        assert_eq!(world.xattr(ino, "user.b"), Err(ErrorCode::NoAttribute));
        assert_eq!(world.refused(&remove(ino, "user.b")), ErrorCode::NoAttribute);
        assert_eq!(world.attr(ino).version.0, 1);
    }

    fn names_of_attributes_are_no_paths(world) {
        let ino = world.touch(ROOT, "file");
        for attribute in ["user.a/b", "user...", "user./"] {
            world.set_xattr(ino, attribute, b"x");
            assert_eq!(world.xattr(ino, attribute), Ok(b"x".to_vec()), "{attribute}");
        }
        assert_eq!(list(world, ino), ["user...", "user./", "user.a/b"]);
    }

    fn modes_say_whether_it_must_be_there(world) {
        let ino = world.touch(ROOT, "file");
        let set = |mode| set_xattr(ino, "user.a", b"x", mode);
        assert_eq!(world.refused(&set(XattrMode::Replace)), ErrorCode::NoAttribute);
        world.write(&set(XattrMode::Create)).unwrap();
        assert_eq!(world.refused(&set(XattrMode::Create)), ErrorCode::Exists);
        world.write(&set(XattrMode::Replace)).unwrap();
    }

    fn limits_of_xattr_7_hold(world) {
        let ino = world.touch(ROOT, "file");
        let large = set_xattr(ino, "user.a", &vec![0; 65_537], XattrMode::Any);
        assert_eq!(world.refused(&large), ErrorCode::ValueTooLarge);
        let long = |n: u32| format!("user.{n:0>250}");
        let refused = (0..300).find(|n| {
            let op = set_xattr(ino, &long(*n), b"", XattrMode::Any);
            world.write(&op).is_err()
        });
        // 255 names of 255 bytes and a NUL are 65,280 bytes; one more and the rule would not fit.
        assert_eq!(refused, Some(255));
        let op = set_xattr(ino, &long(255), b"", XattrMode::Any);
        assert_eq!(world.refused(&op), ErrorCode::NoSpace);
        world.set_xattr(ino, &long(3), b"what is there can still change");
    }

    fn only_known_namespaces_are_taken(world) {
        let ino = world.touch(ROOT, "file");
        for (attribute, code) in [
            ("colour", ErrorCode::NotSupported),
            ("os2.x", ErrorCode::NotSupported),
            ("User.x", ErrorCode::NotSupported),
            ("user.", ErrorCode::InvalidArgument),
            ("trusted.", ErrorCode::InvalidArgument),
            ("system.x", ErrorCode::NotSupported),
            ("system.posix_acl_access.", ErrorCode::NotSupported),
        ] {
            assert_eq!(world.refused(&set_xattr(ino, attribute, b"", XattrMode::Any)), code, "{attribute}");
            assert_eq!(world.refused(&remove(ino, attribute)), code, "{attribute}");
            assert_eq!(world.xattr(ino, attribute), Err(code), "{attribute}");
        }
        for attribute in ["security.x", "trusted.x", "user.dfs"] {
            world.set_xattr(ino, attribute, b"");
        }
        assert_eq!(world.refused(&set_xattr(Ino(999), "user.a", b"", XattrMode::Any)), ErrorCode::NotFound);
        assert_eq!(world.refused(&remove(Ino(999), "user.a")), ErrorCode::NotFound);
        assert_eq!(world.unreadable(&ReadOp::ListXattr { ino: Ino(999) }), ErrorCode::NotFound);
    }

    fn user_attributes_are_for_files_and_directories(world) {
        let link = world.symlink(ROOT, "link", "x");
        world.write(&make(FileKind::Fifo, ROOT, "fifo")).unwrap();
        let fifo = world.lookup(ROOT, "fifo").unwrap();
        for ino in [link, fifo] {
            assert_eq!(world.refused(&set_xattr(ino, "user.a", b"", XattrMode::Any)), ErrorCode::NotPermitted);
            assert_eq!(world.xattr(ino, "user.a"), Err(ErrorCode::NoAttribute));
            world.set_xattr(ino, "trusted.a", b"");
        }
        world.set_xattr(ROOT, "user.a", b"");
    }

    fn the_collision_rule_is_an_attribute_of_directories(world) {
        let directory = world.mkdir(ROOT, "directory");
        let before = world.mkdir(directory, "before");
        let rule = "user.dfs.collision";
        assert_eq!(world.xattr(directory, rule), Err(ErrorCode::NoAttribute));
        assert_eq!(world.refused(&remove(directory, rule)), ErrorCode::NoAttribute);
        assert_eq!(world.refused(&set_xattr(directory, rule, b"keep", XattrMode::Any)), ErrorCode::InvalidArgument);
        let replace = |mode| set_xattr(directory, rule, b"replace", mode);
        assert_eq!(world.refused(&replace(XattrMode::Replace)), ErrorCode::NoAttribute);
        world.write(&replace(XattrMode::Create)).unwrap();
        assert_eq!(world.changes, [EventKind::Attr(directory)]);
        assert_eq!(world.refused(&replace(XattrMode::Create)), ErrorCode::Exists);

        assert_eq!(world.xattr(directory, rule), Ok(b"replace".to_vec()));
        world.set_xattr(directory, "user.a", b"");
        world.set_xattr(directory, "user.z", b"");
        assert_eq!(list(world, directory), ["user.a", rule, "user.z"]);
        let after = world.mkdir(directory, "after");
        assert_eq!(world.xattr(after, rule), Ok(b"replace".to_vec()));
        assert_eq!(world.xattr(before, rule), Err(ErrorCode::NoAttribute));

        world.set_xattr(after, rule, b"rename\n");
        assert_eq!(world.xattr(after, rule), Ok(b"rename".to_vec()));
        world.write(&remove(directory, rule)).unwrap();
        assert_eq!(list(world, directory), ["user.a", "user.z"]);

        let file = world.touch(directory, "file");
        assert_eq!(world.refused(&set_xattr(file, rule, b"rename", XattrMode::Any)), ErrorCode::InvalidArgument);
        assert_eq!(world.refused(&remove(file, rule)), ErrorCode::InvalidArgument);
        assert_eq!(world.xattr(file, rule), Err(ErrorCode::NoAttribute));
    }

    fn version_and_md5_can_be_read_and_nothing_reserved_written(world) {
        let mut new = create(ROOT, "file", vec![data(0, 10, 1)], rename_rule());
        new.md5 = Some(blob(1).md5);
        let file = world.commit(new).attr.ino;
        assert_eq!(world.xattr(file, "user.dfs.version"), Ok(b"1".to_vec()));
        assert_eq!(world.xattr(file, "user.dfs.md5"), Ok(blob(1).md5.to_string().into_bytes()));
        world.commit(edit(file, vec![data(3, 1, 2)]));
        assert_eq!(world.xattr(file, "user.dfs.version"), Ok(b"2".to_vec()));
        assert_eq!(world.xattr(file, "user.dfs.md5"), Err(ErrorCode::NoAttribute));
        assert_eq!(world.xattr(ROOT, "user.dfs.version"), Ok(b"2".to_vec()));
        assert_eq!(world.xattr(ROOT, "user.dfs.md5"), Err(ErrorCode::NoAttribute));
        assert_eq!(list(world, file), [] as [&str; 0]);
        for attribute in ["user.dfs.version", "user.dfs.md5", "user.dfs.other"] {
            assert_eq!(world.refused(&set_xattr(file, attribute, b"1", XattrMode::Any)), ErrorCode::NotPermitted);
            assert_eq!(world.refused(&remove(file, attribute)), ErrorCode::NotPermitted);
        }
        assert_eq!(world.xattr(file, "user.dfs.other"), Err(ErrorCode::NoAttribute));
    }
}
