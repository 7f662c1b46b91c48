use crate::cluster::{APPEND, CALLER, Cluster, READ, READ_WRITE, TRUNCATE_READ, WRITE};
use crate::{close, content, name, store, write_all};
use dfs_proto::limits::{BLOB_BYTES_MAX, FILE_BYTES_MAX};
use dfs_proto::meta::AttrChanges;
use dfs_proto::{ErrorCode, Ino};
use dfs_vfs::{Allocation, Fh, Seek, Vfs, VfsConfig, VfsError};
use std::sync::atomic::Ordering;

const ZERO: Allocation = Allocation::Zero { keep_size: false };
const RESERVE: Allocation = Allocation::Reserve { keep_size: false };

async fn open(vfs: &Vfs, ino: Ino) -> Fh {
    vfs.open(CALLER, ino, READ_WRITE).await.unwrap().fh
}

/// Where data and holes begin, in turn, the end of the file last.
async fn borders(vfs: &Vfs, fh: Fh) -> Vec<u64> {
    let (mut borders, mut at) = (Vec::new(), 0);
    while let Ok(data) = vfs.seek(fh, at, Seek::Data).await {
        at = vfs.seek(fh, data, Seek::Hole).await.unwrap();
        borders.extend([data, at]);
    }
    borders
}

/// A punched hole reads as zeros at once for everybody on the mount, and for other mounts after the close. The
/// size stays, what the hole took is free, and writes into it count again.
#[tokio::test]
async fn a_punched_hole_reads_as_zeros_and_takes_no_room() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "f", b"0123456789").await;
    let fh = open(&a, ino).await;
    a.fallocate(fh, 2, 4, Allocation::PunchHole).await.unwrap();
    assert_eq!(a.read(fh, 0, 100).await.unwrap(), "01\0\0\0\x006789");
    assert_eq!(a.getattr(ino).await.unwrap().allocated, 6);
    assert_eq!(borders(&a, fh).await, [0, 2, 6, 10]);
    a.fallocate(fh, 8, 1000, Allocation::PunchHole).await.unwrap();
    write_all(&a, fh, 3, b"x").await;
    assert_eq!(content(&b, "f").await.unwrap(), b"0123456789", "others see it after the close");
    close(&a, fh).await.unwrap();
    assert_eq!(content(&b, "f").await.unwrap(), b"01\0x\0\x0067\0\0");
    assert_eq!(b.getattr(ino).await.unwrap().allocated, 5);
}

/// Ranges are zeroed and reserved in order with writes and truncations through the same descriptor. Only those
/// that are allowed to make the file longer.
#[tokio::test]
async fn ranges_are_zeroed_and_reserved_in_order_with_writes() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let fh = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE_READ).await.unwrap().opened.fh;
    write_all(&vfs, fh, 0, b"abcdef").await;
    vfs.fallocate(fh, 4, 4, Allocation::Zero { keep_size: true }).await.unwrap();
    assert_eq!(vfs.read(fh, 0, 100).await.unwrap(), "abcd\0\0");
    vfs.fallocate(fh, 1, 7, ZERO).await.unwrap();
    assert_eq!(vfs.read(fh, 0, 100).await.unwrap(), "a\0\0\0\0\0\0\0");
    write_all(&vfs, fh, 2, b"c").await;
    vfs.fallocate(fh, 0, 20, Allocation::Reserve { keep_size: true }).await.unwrap();
    vfs.fallocate(fh, 0, 10, RESERVE).await.unwrap();
    close(&vfs, fh).await.unwrap();
    assert_eq!(content(&vfs, "f").await.unwrap(), b"a\0c\0\0\0\0\0\0\0");
}

/// What one mount reserves or punches never cuts what another one has written meanwhile.
#[tokio::test]
async fn allocation_never_cuts_what_others_wrote() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "f", b"0123456789").await;
    let fa = open(&a, ino).await;
    a.fallocate(fa, 5, 10, RESERVE).await.unwrap();
    a.fallocate(fa, 0, 2, Allocation::PunchHole).await.unwrap();
    let fb = open(&b, ino).await;
    write_all(&b, fb, 10, b"and much more from b").await;
    close(&b, fb).await.unwrap();
    close(&a, fa).await.unwrap();
    assert_eq!(content(&b, "f").await.unwrap(), b"\0\x0023456789and much more from b");
    let fa = open(&a, ino).await;
    a.fallocate(fa, 0, 30, Allocation::PunchHole).await.unwrap();
    let changes = AttrChanges { size: Some(3), ..AttrChanges::default() };
    b.setattr(CALLER, ino, changes, None).await.unwrap();
    close(&a, fa).await.unwrap();
    assert_eq!(content(&b, "f").await.unwrap(), b"\0\0\0", "a hole makes no file longer");
}

/// Room is not set aside: a reservation fails with ENOSPC when the cluster could not take now what the range
/// still lacks, copies counted, and promises nothing for later.
#[tokio::test]
async fn a_reservation_is_refused_when_the_cluster_has_no_room_for_it() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"0123456789").await;
    let fh = open(&vfs, ino).await;
    cluster.free_bytes.store(100, Ordering::SeqCst);
    let refused = vfs.fallocate(fh, 0, 111, RESERVE).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NoSpace);
    assert_eq!(vfs.getattr(ino).await.unwrap().size, 10);
    vfs.fallocate(fh, 0, 110, RESERVE).await.unwrap();
    assert_eq!(vfs.getattr(ino).await.unwrap().size, 110);
    close(&vfs, fh).await.unwrap();
}

#[tokio::test]
async fn ranges_that_cannot_be_are_refused_as_linux_does_and_change_nothing() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"0123456789").await;
    let before = vfs.getattr(ino).await.unwrap();
    let fh = open(&vfs, ino).await;
    for (offset, length, code) in [
        (0, 0, ErrorCode::InvalidArgument),
        (u64::MAX, 2, ErrorCode::TooLarge),
        (FILE_BYTES_MAX, 1, ErrorCode::TooLarge),
        (1, FILE_BYTES_MAX, ErrorCode::TooLarge),
    ] {
        assert_eq!(vfs.fallocate(fh, offset, length, ZERO).await.unwrap_err().code(), code);
    }
    let reader = vfs.open(CALLER, ino, READ).await.unwrap().fh;
    assert!(matches!(vfs.fallocate(reader, 0, 1, ZERO).await, Err(VfsError::BadHandle(_))));
    for at in [10, 11, u64::MAX] {
        for what in [Seek::Data, Seek::Hole] {
            assert!(matches!(vfs.seek(fh, at, what).await, Err(VfsError::NothingThere)));
        }
    }
    assert!(matches!(vfs.copy_range(fh, 0, reader, 0, 1).await, Err(VfsError::BadHandle(_))));
    let overlap = vfs.copy_range(fh, 0, fh, 9, 10).await.unwrap_err();
    assert_eq!(overlap.code(), ErrorCode::InvalidArgument);
    assert_eq!(vfs.copy_range(fh, 0, fh, FILE_BYTES_MAX, 5).await.unwrap_err().code(), ErrorCode::TooLarge);
    assert_eq!(vfs.copy_range(fh, 10, fh, 0, 5).await.unwrap(), 0, "nothing is there to be copied");
    close(&vfs, fh).await.unwrap();
    close(&vfs, reader).await.unwrap();
    assert_eq!(vfs.getattr(ino).await.unwrap(), before);
}

/// lseek(2) with SEEK_DATA and SEEK_HOLE tells data from holes, in what is published and in what was only
/// written so far; the end of the file counts as a hole.
#[tokio::test]
async fn data_and_holes_are_told_apart_before_and_after_they_are_published() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let blob = BLOB_BYTES_MAX as u64;
    let fh = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE_READ).await.unwrap().opened.fh;
    write_all(&vfs, fh, 3 * blob, b"data").await;
    write_all(&vfs, fh, 5 * blob, &vec![1; BLOB_BYTES_MAX]).await;
    vfs.fallocate(fh, 0, 7 * blob, RESERVE).await.unwrap();
    let expected = [3 * blob, 3 * blob + 4, 5 * blob, 6 * blob];
    assert_eq!(borders(&vfs, fh).await, expected);
    vfs.fsync(fh).await.unwrap();
    assert_eq!(borders(&vfs, fh).await, expected);
    assert_eq!(vfs.seek(fh, 0, Seek::Hole).await.unwrap(), 0);
    assert_eq!(vfs.seek(fh, 5 * blob + 1, Seek::Hole).await.unwrap(), 6 * blob);
    vfs.fallocate(fh, 3 * blob, 2, Allocation::PunchHole).await.unwrap();
    assert_eq!(vfs.seek(fh, 0, Seek::Data).await.unwrap(), 3 * blob + 2);
    assert!(matches!(vfs.seek(fh, 6 * blob, Seek::Data).await, Err(VfsError::NothingThere)));
    close(&vfs, fh).await.unwrap();
}

/// copy_file_range(2) copies by reference: what is copied between files of a mount is not sent anywhere, however
/// much it is. What was written to either file before is part of it.
#[tokio::test]
async fn a_copy_between_files_moves_no_byte() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let from = a.create(CALLER, Ino::ROOT, &name("from"), 0o644, TRUNCATE_READ).await.unwrap().opened.fh;
    let to = a.create(CALLER, Ino::ROOT, &name("to"), 0o644, TRUNCATE_READ).await.unwrap().opened.fh;
    write_all(&a, from, 0, b"0123456789").await;
    write_all(&a, to, 0, b"abcdefghij").await;
    assert_eq!(a.copy_range(from, 2, to, 4, 3).await.unwrap(), 3);
    assert_eq!(a.read(to, 0, 100).await.unwrap(), "abcd234hij");
    write_all(&a, to, 5, b"X").await;
    let blobs = cluster.blobs();
    assert_eq!(a.copy_range(from, 5, to, 20, 1000).await.unwrap(), 5, "as much as there is");
    assert_eq!(cluster.blobs(), blobs + 1, "only what was written to the target before");
    close(&a, from).await.unwrap();
    close(&a, to).await.unwrap();
    let expected = b"abcd2X4hij\0\0\0\0\0\0\0\0\0\x0056789";
    assert_eq!(content(&a, "to").await.unwrap(), expected);
    assert_eq!(content(&b, "to").await.unwrap(), expected);
}

#[tokio::test]
async fn a_part_of_a_file_is_copied_elsewhere_in_it() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"0123456789").await;
    let fh = open(&vfs, ino).await;
    assert_eq!(vfs.copy_range(fh, 0, fh, 5, 5).await.unwrap(), 5);
    assert_eq!(vfs.read(fh, 0, 100).await.unwrap(), "0123401234");
    let appender = vfs.open(CALLER, ino, APPEND).await.unwrap().fh;
    assert!(matches!(vfs.copy_range(fh, 0, appender, 0, 1).await, Err(VfsError::BadHandle(_))));
    close(&vfs, appender).await.unwrap();
    close(&vfs, fh).await.unwrap();
}

#[tokio::test]
async fn a_copy_into_a_file_that_was_diverted_goes_where_its_writes_go() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let old = store(&vfs, "f", b"old").await;
    let from = store(&vfs, "from", b"copied").await;
    vfs.lookup(Ino::ROOT, &name("f")).await.unwrap();
    let source = vfs.open(CALLER, from, READ).await.unwrap().fh;
    let target = vfs.open(CALLER, old, crate::cluster::TRUNCATE).await.unwrap().fh;
    assert_eq!(vfs.copy_range(source, 0, target, 0, 100).await.unwrap(), 6);
    close(&vfs, target).await.unwrap();
    close(&vfs, source).await.unwrap();
    assert_eq!(content(&vfs, "f").await.unwrap(), b"old");
    assert_eq!(content(&vfs, "f-1").await.unwrap(), b"copied");
}

/// `st_blocks` counts what was written, once, whether it is published or not, and no holes.
#[tokio::test]
async fn what_a_file_takes_is_right_before_and_after_it_is_published() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", &[1; 10_000]).await;
    let fh = open(&vfs, ino).await;
    let allocated = async || vfs.getattr(ino).await.unwrap().allocated;
    write_all(&vfs, fh, 5_000, &[2; 10_000]).await;
    assert_eq!(allocated().await, 15_000);
    write_all(&vfs, fh, 1 << 30, &[3; 1_000]).await;
    assert_eq!(allocated().await, 16_000);
    vfs.fallocate(fh, 0, 1_000, ZERO).await.unwrap();
    assert_eq!(allocated().await, 15_000);
    let changes = AttrChanges { size: Some(12_000), ..AttrChanges::default() };
    vfs.setattr(CALLER, ino, changes, Some(fh)).await.unwrap();
    assert_eq!(allocated().await, 11_000);
    vfs.fsync(fh).await.unwrap();
    assert_eq!(allocated().await, 11_000);
    close(&vfs, fh).await.unwrap();
}

/// Appends that wait while a hole is punched are still appended, after what others have appended meanwhile.
#[tokio::test]
async fn a_hole_among_appends_loses_no_record() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "log", b"start\n").await;
    let fa = a.open(CALLER, ino, APPEND).await.unwrap().fh;
    write_all(&a, fa, 0, b"a1\n").await;
    let fb = b.open(CALLER, ino, APPEND).await.unwrap().fh;
    write_all(&b, fb, 0, b"b1\n").await;
    close(&b, fb).await.unwrap();
    a.fallocate(fa, 0, 2, Allocation::PunchHole).await.unwrap();
    close(&a, fa).await.unwrap();
    assert_eq!(content(&b, "log").await.unwrap(), b"\0\0art\nb1\na1\n");
    let fh = a.open(CALLER, ino, WRITE).await.unwrap().fh;
    close(&a, fh).await.unwrap();
}
