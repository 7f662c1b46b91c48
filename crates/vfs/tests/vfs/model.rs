//! One file against an array of bytes: whatever is written, cut, published and read again, here or through
//! another mount, is what the array says.

use crate::cluster::{CALLER, Cluster, READ, READ_WRITE};
use crate::{close, name};
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::meta::AttrChanges;
use dfs_proto::{Ino, LockOwner};
use dfs_vfs::{Vfs, VfsConfig};
use proptest::prelude::*;

/// The file is a few blobs long, so that steps meet their borders.
const SIZE_MAX: u64 = 3 * BLOB_BYTES_MAX as u64;

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, length: usize, byte: u8 },
    Truncate(u64),
    TruncateByPath(u64),
    Read { offset: u64, length: u32 },
    Flush,
    Fsync,
    Reopen,
    ReadElsewhere { offset: u64, length: u32 },
}

fn offset() -> impl Strategy<Value = u64> {
    let near_a_border =
        (0..3u64, 0..64u64).prop_map(|(blob, d)| (blob * BLOB_BYTES_MAX as u64 + d).saturating_sub(32));
    prop_oneof![0..SIZE_MAX, near_a_border, 0..200u64]
}

fn step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![1..64usize, 1..(300usize << 10), Just(BLOB_BYTES_MAX)];
    prop_oneof![
        6 => (offset(), length(), any::<u8>()).prop_map(|(offset, length, byte)| Step::Write { offset, length, byte }),
        2 => offset().prop_map(Step::Truncate),
        1 => offset().prop_map(Step::TruncateByPath),
        4 => (offset(), 1..(1u32 << 20)).prop_map(|(offset, length)| Step::Read { offset, length }),
        1 => Just(Step::Flush),
        1 => Just(Step::Fsync),
        1 => Just(Step::Reopen),
        1 => (offset(), 1..(1u32 << 20)).prop_map(|(offset, length)| Step::ReadElsewhere { offset, length }),
    ]
}

fn expected(model: &[u8], offset: u64, length: u32) -> &[u8] {
    let from = (offset as usize).min(model.len());
    &model[from..(from + length as usize).min(model.len())]
}

async fn check_read(vfs: &Vfs, ino: Ino, model: &[u8], offset: u64, length: u32) {
    let fh = vfs.open(CALLER, ino, READ).await.unwrap().fh;
    let got = vfs.read(fh, offset, length).await.unwrap();
    assert!(got == expected(model, offset, length), "read of {length} at {offset} differs");
    assert_eq!(vfs.getattr(ino).await.unwrap().size, model.len() as u64);
    close(vfs, fh).await.unwrap();
}

async fn run(steps: Vec<Step>) {
    let cluster = Cluster::new().await;
    let config = VfsConfig {
        staged_bytes_max: 3 * BLOB_BYTES_MAX,
        cache_bytes_max: BLOB_BYTES_MAX,
        ..VfsConfig::default()
    };
    let (vfs, other) = (cluster.mount(config.clone()), cluster.mount(config));
    let created = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, READ_WRITE).await.unwrap();
    let (ino, mut fh) = (created.attr.ino, created.opened.fh);
    let mut model: Vec<u8> = Vec::new();
    for step in steps {
        match step {
            Step::Write { offset, length, byte } => {
                let data: Vec<u8> = (0..length).map(|i| byte.wrapping_add(i as u8)).collect();
                assert_eq!(vfs.write(fh, offset, &data, false).await.unwrap() as usize, length);
                let end = offset as usize + length;
                model.resize(model.len().max(end), 0);
                model[offset as usize..end].copy_from_slice(&data);
            }
            Step::Truncate(size) => {
                let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
                vfs.setattr(CALLER, ino, changes, Some(fh)).await.unwrap();
                model.resize(size as usize, 0);
            }
            Step::TruncateByPath(size) => {
                let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
                vfs.setattr(CALLER, ino, changes, None).await.unwrap();
                model.resize(size as usize, 0);
            }
            Step::Read { offset, length } => {
                let got = vfs.read(fh, offset, length).await.unwrap();
                assert!(got == expected(&model, offset, length), "read of {length} at {offset} differs");
            }
            Step::Flush => vfs.flush(fh, LockOwner(1), |_, _| false).await.unwrap(),
            Step::Fsync => vfs.fsync(fh).await.unwrap(),
            Step::Reopen => {
                close(&vfs, fh).await.unwrap();
                fh = vfs.open(CALLER, ino, READ_WRITE).await.unwrap().fh;
            }
            Step::ReadElsewhere { offset, length } => {
                vfs.fsync(fh).await.unwrap();
                check_read(&other, ino, &model, offset, length).await;
            }
        }
        assert_eq!(vfs.getattr(ino).await.unwrap().size, model.len() as u64);
    }
    close(&vfs, fh).await.unwrap();
    check_read(&other, ino, &model, 0, SIZE_MAX as u32 * 2).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn one_file_is_what_an_array_of_bytes_says(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
