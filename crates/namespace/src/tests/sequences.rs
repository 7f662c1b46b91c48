//! Random sequences of operations: whatever is asked for, the invariants hold after each, and what is refused
//! has changed nothing (the world sees to both).

use super::acl::list;
use super::harness::*;
use dfs_proto::meta::{AttrChanges, CloneRange, Collision, Commit, MakeUnnamed, RenameMode, WriteOp};
use dfs_proto::{
    CollisionPolicy, Extent, FileKind, Ino, LockMode, LockOwner, LockRange, LockRequest, LockSpace,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Few, so that operations meet each other.
const NAMES: [&str; 4] = ["a", "b", "c.txt", "c-1.txt"];

/// A step; numbers pick from the inodes seen so far, removed ones included.
#[derive(Clone, Debug)]
enum Step {
    Make(FileKind, usize, usize),
    Put(usize, usize, Vec<Extent>, Collision),
    Edit(usize, Vec<Extent>, Option<u64>),
    Resize(usize, u64),
    Link(usize, usize, usize),
    Unlink(usize, usize),
    Rmdir(usize, usize),
    Rename((usize, usize), (usize, usize), RenameMode),
    Rule(usize, bool),
    /// Whether it is the default list, and how much it gives.
    List(usize, bool, u16),
    Chmod(usize, u16),
    MakeUnnamed(usize),
    Clone((usize, u64), (usize, u64), u64),
    Open(usize),
    CloseAll,
    Lock(usize, u64, bool),
    Unlock(usize, u64),
    Reap(u32),
}

fn some_extents() -> impl Strategy<Value = Vec<Extent>> {
    let extent = (0..100u64, 1..50u64, 1..20u64, 0..10u32);
    let extent = extent.prop_map(|(offset, length, key, at)| part(offset, length, key, at));
    proptest::collection::vec(extent, 0..4)
}

fn some_step() -> impl Strategy<Value = Step> {
    use Step::*;
    let kind = prop_oneof![
        3 => Just(FileKind::Directory),
        1 => Just(FileKind::File),
        1 => Just(FileKind::Symlink),
    ];
    let collision = prop_oneof![
        Just(Collision::Default(CollisionPolicy::Rename)),
        Just(Collision::Explicit(CollisionPolicy::Replace)),
    ];
    let mode =
        prop_oneof![Just(RenameMode::Replace), Just(RenameMode::NoReplace), Just(RenameMode::Exchange)];
    let ino = || 0..12usize;
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (kind, ino(), name()).prop_map(|(kind, parent, name)| Make(kind, parent, name)),
        4 => (ino(), name(), some_extents(), collision).prop_map(|(p, n, e, c)| Put(p, n, e, c)),
        2 => (ino(), some_extents(), proptest::option::of(0..150u64)).prop_map(|(i, e, t)| Edit(i, e, t)),
        1 => (ino(), 0..150u64).prop_map(|(ino, size)| Resize(ino, size)),
        2 => (ino(), ino(), name()).prop_map(|(ino, parent, name)| Link(ino, parent, name)),
        3 => (ino(), name()).prop_map(|(parent, name)| Unlink(parent, name)),
        2 => (ino(), name()).prop_map(|(parent, name)| Rmdir(parent, name)),
        6 => ((ino(), name()), (ino(), name()), mode).prop_map(|(from, to, mode)| Rename(from, to, mode)),
        1 => (ino(), any::<bool>()).prop_map(|(ino, replace)| Rule(ino, replace)),
        2 => (ino(), any::<bool>(), 0..8u16).prop_map(|(ino, default, gives)| List(ino, default, gives)),
        1 => (ino(), 0..0o10000u16).prop_map(|(ino, mode)| Chmod(ino, mode)),
        1 => ino().prop_map(MakeUnnamed),
        2 => ((ino(), 0..100u64), (ino(), 0..100u64), 0..60u64).prop_map(|(from, to, n)| Clone(from, to, n)),
        2 => ino().prop_map(Open),
        1 => Just(CloseAll),
        3 => (ino(), 0..20u64, any::<bool>()).prop_map(|(ino, first, shared)| Lock(ino, first, shared)),
        1 => (ino(), 0..20u64).prop_map(|(ino, first)| Unlock(ino, first)),
        1 => (1..4u32).prop_map(Reap),
    ]
}

fn bytes_from(first: u64) -> LockRange {
    LockRange { first, last: first + 5 }
}

/// The operation that a step stands for; the others are done at once.
fn operation(world: &mut World<'_>, seen: &[Ino], step: Step) -> Option<WriteOp> {
    let pick = |n: usize| seen[n % seen.len()];
    let op = match step {
        Step::Make(FileKind::Symlink, parent, n) => make_symlink(pick(parent), NAMES[n], "target"),
        Step::Make(kind, parent, n) => make(kind, pick(parent), NAMES[n]),
        Step::Put(parent, n, extents, rule) => WriteOp::Commit(create(pick(parent), NAMES[n], extents, rule)),
        Step::Edit(ino, extents, truncate_to) => {
            WriteOp::Commit(Commit { truncate_to, ..edit(pick(ino), extents) })
        }
        Step::Resize(ino, size) => {
            let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
            WriteOp::SetAttr { ino: pick(ino), changes }
        }
        Step::Link(ino, parent, n) => {
            WriteOp::Link { ino: pick(ino), parent: pick(parent), name: name(NAMES[n]) }
        }
        Step::Unlink(parent, n) => unlink(pick(parent), NAMES[n]),
        Step::Rmdir(parent, n) => rmdir(pick(parent), NAMES[n]),
        Step::Rename((from, old), (to, new), mode) => {
            rename((pick(from), NAMES[old]), (pick(to), NAMES[new]), mode)
        }
        Step::Rule(ino, replace) => {
            let rule: &[u8] = if replace { b"replace" } else { b"rename" };
            set_xattr(pick(ino), "user.dfs.collision", rule, dfs_proto::meta::XattrMode::Any)
        }
        Step::List(ino, is_default, gives) => {
            let which = if is_default { "system.posix_acl_default" } else { "system.posix_acl_access" };
            // What it gives decides whether anybody is named, too.
            let value = list(gives, (gives > 3).then_some(gives), gives, (gives > 2).then_some(6), 1);
            set_xattr(pick(ino), which, &value, dfs_proto::meta::XattrMode::Any)
        }
        Step::Chmod(ino, mode) => {
            let changes = AttrChanges { mode: Some(mode), ..AttrChanges::default() };
            WriteOp::SetAttr { ino: pick(ino), changes }
        }
        Step::MakeUnnamed(parent) => {
            let (parent, ino, mode, umask) = (pick(parent), Ino(0), 0o666, 0o022);
            WriteOp::MakeUnnamed(MakeUnnamed { parent, ino, mode, umask, uid: 1, gid: 1 })
        }
        Step::Clone((source, source_offset), (target, target_offset), length) => {
            let (source, target) = (pick(source), pick(target));
            let locked_by = None;
            WriteOp::Clone(CloneRange { source, source_offset, target, target_offset, length, locked_by })
        }
        Step::Open(ino) => {
            world.open.insert(pick(ino));
            return None;
        }
        Step::CloseAll => {
            world.open.clear();
            return None;
        }
        Step::Lock(ino, first, shared) => {
            let (owner, space, range) = (LockOwner(first % 3), LockSpace::Range, bytes_from(first));
            let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
            let request = LockRequest { ino: pick(ino), space, owner, range, mode, pid: 1 };
            WriteOp::Lock { request, wait: shared }
        }
        Step::Unlock(ino, first) => {
            let (owner, space, range) = (LockOwner(first % 3), LockSpace::Range, bytes_from(first));
            WriteOp::Unlock { ino: pick(ino), space, owner, range }
        }
        Step::Reap(extents_max) => {
            for ino in world.txn.orphans(Ino(0), 100).unwrap() {
                world.reap(ino, extents_max);
            }
            return None;
        }
    };
    Some(op)
}

fn follow(world: &mut World<'_>, steps: Vec<Step>) {
    let mut seen = BTreeSet::from([Ino::ROOT]);
    for step in steps {
        let known: Vec<Ino> = seen.iter().copied().collect();
        if let Some(op) = operation(world, &known, step)
            && world.write(&op).is_ok()
        {
            let made = NAMES.iter().flat_map(|n| known.iter().map(move |parent| (*parent, *n)));
            let made = made.filter_map(|(parent, n)| world.txn.dentry(parent, n.as_bytes()).unwrap());
            seen.extend(made.map(|entry| entry.ino));
            seen.extend(world.txn.orphans(Ino(0), 100).unwrap());
        }
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_sequence_keeps_the_invariants(steps in proptest::collection::vec(some_step(), 1..50)) {
        on_memory(move |world| follow(world, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn every_sequence_keeps_the_invariants_in_sqlite(
        steps in proptest::collection::vec(some_step(), 1..50),
    ) {
        on_sqlite(move |world| follow(world, steps));
    }
}
