//! What the random test does, step by step. Everything is chosen by small numbers that are taken modulo what
//! there is, so that any list of steps makes sense, and still does when steps are left out.

use dfs_proto::FileKind;
use dfs_proto::limits::{BLOB_BYTES_MAX, FILE_BYTES_MAX};
use dfs_proto::meta::{RenameMode, XattrMode};
use dfs_vfs::{Allocation, OpenFlags, Seek};
use proptest::prelude::*;

/// An entry: which directory, which name. Few of both, so that steps meet.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub dir: u8,
    pub name: u8,
}

/// What an operation on an inode is about.
#[derive(Clone, Copy, Debug)]
pub enum About {
    Path(Place),
    Handle(u8),
}

#[derive(Clone, Copy, Debug)]
pub enum Time {
    Omit,
    Now,
    At(i64, u32),
}

#[derive(Clone, Debug)]
pub enum Step {
    Create {
        at: Place,
        flags: OpenFlags,
        mode: u16,
    },
    Open {
        at: Place,
        flags: OpenFlags,
    },
    Read {
        handle: u8,
        offset: u64,
        length: u32,
    },
    Write {
        handle: u8,
        offset: u64,
        length: usize,
        mapped: bool,
        at_once: bool,
    },
    Truncate {
        what: About,
        size: u64,
        through_handle: bool,
    },
    /// `dup`: the process has the file open by another descriptor.
    Flush {
        handle: u8,
        dup: bool,
    },
    FlushFails {
        handle: u8,
    },
    Fsync {
        handle: u8,
    },
    Release {
        handle: u8,
    },
    Mkdir {
        at: Place,
        mode: u16,
    },
    Rmdir(Place),
    Symlink {
        at: Place,
        length: u16,
    },
    Mknod {
        at: Place,
        kind: FileKind,
    },
    Link {
        what: About,
        at: Place,
    },
    Unlink(Place),
    Rename {
        from: Place,
        to: Place,
        mode: RenameMode,
    },
    SetMode {
        what: About,
        mode: u16,
    },
    SetOwner {
        what: About,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    SetTimes {
        what: About,
        atime: Time,
        mtime: Time,
    },
    SetXattr {
        what: About,
        name: u8,
        length: u16,
        mode: XattrMode,
    },
    RemoveXattr {
        what: About,
        name: u8,
    },
    Tmpfile {
        dir: u8,
        flags: OpenFlags,
        mode: u16,
    },
    Allocate {
        handle: u8,
        offset: u64,
        length: u64,
        how: Allocation,
    },
    Seek {
        handle: u8,
        offset: u64,
        what: Seek,
    },
    CopyRange {
        from: u8,
        from_offset: u64,
        to: u8,
        to_offset: u64,
        length: u64,
    },
    Look(Place),
    Forget(Place),
    OpenDir {
        dir: u8,
    },
    List {
        listing: u8,
        entries: u8,
    },
    /// seekdir(3) to a place that was told before.
    SeekBack {
        listing: u8,
        to: u8,
    },
    CloseDir {
        listing: u8,
    },
}

fn place() -> impl Strategy<Value = Place> {
    (0..4u8, 0..5u8).prop_map(|(dir, name)| Place { dir, name })
}

fn about() -> impl Strategy<Value = About> {
    prop_oneof![place().prop_map(About::Path), (0..8u8).prop_map(About::Handle)]
}

pub fn offset() -> impl Strategy<Value = u64> {
    let blob = BLOB_BYTES_MAX as u64;
    let near_a_border = (0..3u64, 0..64u64).prop_map(move |(n, d)| (n * blob + d).saturating_sub(32));
    let near_a_page = (0..20u64, 0..16u64).prop_map(|(n, d)| (n * 4096 + d).saturating_sub(8));
    prop_oneof![
        6 => 0..64u64,
        4 => near_a_page,
        2 => near_a_border,
        1 => 0..2 * blob,
        1 => (0..100u64).prop_map(|d| FILE_BYTES_MAX - d),
    ]
}

pub fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        10 => 1..64usize,
        5 => 1..20_000usize,
        1 => (0..64usize).prop_map(|d| BLOB_BYTES_MAX - 32 + d),
        1 => Just(0usize),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![10 => offset(), 1 => Just(FILE_BYTES_MAX), 1 => Just(u64::MAX)]
}

pub fn flags() -> impl Strategy<Value = OpenFlags> {
    let truncating = prop_oneof![3 => Just(false), 1 => Just(true)];
    (0..3u8, prop_oneof![3 => Just(false), 1 => Just(true)], truncating, any::<bool>()).prop_map(
        |(access, append, truncate, exclusive)| OpenFlags {
            read: access != 1,
            write: access != 0,
            append: append && access != 0,
            truncate: truncate && access != 0,
            exclusive,
            no_atime: false,
            execute: false,
        },
    )
}

fn mode() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0o644), Just(0o600), Just(0o755), Just(0)]
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        Just(Time::Omit),
        Just(Time::Now),
        (prop_oneof![Just(-5i64), Just(0), Just(1_000_000_000), Just(1 << 33)], 0..1_000_000_000u32)
            .prop_map(|(secs, nanos)| Time::At(secs, nanos)),
    ]
}

fn xattr_mode() -> impl Strategy<Value = XattrMode> {
    prop_oneof![Just(XattrMode::Any), Just(XattrMode::Create), Just(XattrMode::Replace)]
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![4 => Just(RenameMode::Replace), 1 => Just(RenameMode::NoReplace), 1 => Just(RenameMode::Exchange)]
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        Just(FileKind::File),
        Just(FileKind::Fifo),
        Just(FileKind::Socket),
        Just(FileKind::CharDevice),
        Just(FileKind::BlockDevice)
    ]
}

fn allocation() -> impl Strategy<Value = Allocation> {
    prop_oneof![
        any::<bool>().prop_map(|keep_size| Allocation::Reserve { keep_size }),
        Just(Allocation::PunchHole),
        any::<bool>().prop_map(|keep_size| Allocation::Zero { keep_size }),
    ]
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (offset(), prop_oneof![4 => 0..100u64, 3 => 0..20_000u64, 1 => offset()])
}

fn range_step() -> impl Strategy<Value = Step> {
    let seek = prop_oneof![Just(Seek::Data), Just(Seek::Hole)];
    prop_oneof![
        1 => (0..4u8, flags(), mode()).prop_map(|(dir, flags, mode)| {
            Step::Tmpfile { dir, flags: OpenFlags { write: true, truncate: false, ..flags }, mode }
        }),
        3 => (0..8u8, range(), allocation())
            .prop_map(|(handle, (offset, length), how)| Step::Allocate { handle, offset, length, how }),
        2 => (0..8u8, offset(), seek).prop_map(|(handle, offset, what)| Step::Seek { handle, offset, what }),
        2 => (0..8u8, range(), 0..8u8, offset()).prop_map(|(from, (from_offset, length), to, to_offset)| {
            Step::CopyRange { from, from_offset, to, to_offset, length }
        }),
    ]
}

fn file_step() -> impl Strategy<Value = Step> {
    let handle = || 0..8u8;
    prop_oneof![
        6 => (place(), flags(), mode()).prop_map(|(at, flags, mode)| Step::Create { at, flags, mode }),
        4 => (place(), flags()).prop_map(|(at, flags)| Step::Open { at, flags }),
        6 => (handle(), offset(), 0..70_000u32)
            .prop_map(|(handle, offset, length)| Step::Read { handle, offset, length }),
        10 => (handle(), offset(), length(), any::<bool>(), any::<bool>()).prop_map(
            |(handle, offset, length, mapped, at_once)| {
                Step::Write { handle, offset, length, mapped: mapped && offset % 4 == 0, at_once }
            }
        ),
        3 => (about(), size(), any::<bool>())
            .prop_map(|(what, size, through_handle)| Step::Truncate { what, size, through_handle }),
        3 => (handle(), any::<bool>()).prop_map(|(handle, dup)| Step::Flush { handle, dup }),
        1 => handle().prop_map(|handle| Step::FlushFails { handle }),
        1 => handle().prop_map(|handle| Step::Fsync { handle }),
        4 => handle().prop_map(|handle| Step::Release { handle }),
    ]
}

fn name_step() -> impl Strategy<Value = Step> {
    let dir_mode = prop_oneof![3 => Just(0o755), 1 => Just(0o2775), 1 => Just(0o1777)];
    prop_oneof![
        2 => (place(), dir_mode).prop_map(|(at, mode)| Step::Mkdir { at, mode }),
        2 => place().prop_map(Step::Rmdir),
        1 => (place(), prop_oneof![4 => 1..100u16, 1 => Just(4095), 1 => Just(4096), 1 => Just(0)])
            .prop_map(|(at, length)| Step::Symlink { at, length }),
        1 => (place(), kind()).prop_map(|(at, kind)| Step::Mknod { at, kind }),
        3 => (about(), place()).prop_map(|(what, at)| Step::Link { what, at }),
        4 => place().prop_map(Step::Unlink),
        6 => (place(), place(), rename_mode()).prop_map(|(from, to, mode)| Step::Rename { from, to, mode }),
        2 => place().prop_map(Step::Look),
        1 => place().prop_map(Step::Forget),
        2 => (0..4u8).prop_map(|dir| Step::OpenDir { dir }),
        4 => (0..4u8, 1..4u8).prop_map(|(listing, entries)| Step::List { listing, entries }),
        1 => (0..4u8, any::<u8>()).prop_map(|(listing, to)| Step::SeekBack { listing, to }),
        1 => (0..4u8).prop_map(|listing| Step::CloseDir { listing }),
    ]
}

fn attribute_step() -> impl Strategy<Value = Step> {
    let id = || prop::option::of(0..3u32);
    let value = prop_oneof![4 => 0..50u16, 1 => Just(u16::MAX)];
    prop_oneof![
        1 => (about(), mode()).prop_map(|(what, mode)| Step::SetMode { what, mode }),
        1 => (about(), id(), id()).prop_map(|(what, uid, gid)| Step::SetOwner { what, uid, gid }),
        2 => (about(), time(), time()).prop_map(|(what, atime, mtime)| Step::SetTimes { what, atime, mtime }),
        2 => (about(), 0..4u8, value, xattr_mode())
            .prop_map(|(what, name, length, mode)| Step::SetXattr { what, name, length, mode }),
        1 => (about(), 0..4u8).prop_map(|(what, name)| Step::RemoveXattr { what, name }),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![10 => file_step(), 6 => name_step(), 2 => attribute_step(), 3 => range_step()]
}

/// Steps that are printed one a line.
#[derive(Clone)]
pub struct Steps<S>(pub Vec<S>);

impl<S: std::fmt::Debug> std::fmt::Debug for Steps<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}
