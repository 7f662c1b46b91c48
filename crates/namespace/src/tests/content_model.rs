//! Copies by extents among writes and truncations of a few files, against a model that keeps for each byte which
//! byte of which blob it is.

use super::harness::*;
use dfs_proto::meta::{AttrChanges, CloneRange, WriteOp};
use dfs_proto::{ErrorCode, Extent, Ino, MetaReply};
use proptest::prelude::*;

const FILES: usize = 3;
/// Offsets and sizes stay below this.
const SPAN: u64 = 120;
/// Few blobs, so that they meet themselves.
const BLOBS: u64 = 6;

/// Where a byte is: (key, offset in the blob); `None` reads as zero.
type Byte = Option<(u64, u32)>;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Extent),
    Resize(usize, u64),
    Clone {
        source: usize,
        from: u64,
        target: usize,
        to: u64,
        length: u64,
    },
    /// The file is removed, and an empty one takes its place.
    Renew(usize),
}

fn some_step() -> impl Strategy<Value = Step> {
    let file = || 0..FILES;
    let extent = (0..SPAN, 1..40u64, 1..=BLOBS, 0..30u32);
    let extent = extent.prop_map(|(offset, length, key, at)| part(offset, length, key, at));
    let length = prop_oneof![4 => 0..SPAN, 1 => Just(u64::MAX)];
    prop_oneof![
        3 => (file(), extent).prop_map(|(file, extent)| Step::Write(file, extent)),
        1 => (file(), 0..SPAN).prop_map(|(file, size)| Step::Resize(file, size)),
        6 => (file(), 0..SPAN, file(), 0..SPAN, length)
            .prop_map(|(source, from, target, to, length)| Step::Clone { source, from, target, to, length }),
        1 => file().prop_map(Step::Renew),
    ]
}

/// Puts `bytes` at `at`, which may be beyond the end.
fn lay(content: &mut Vec<Byte>, at: u64, bytes: &[Byte]) {
    let at = at as usize;
    content.resize(content.len().max(at + bytes.len()), None);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn stored(world: &World<'_>, ino: Ino) -> Vec<Byte> {
    let mut bytes = vec![None; world.attr(ino).size as usize];
    for extent in world.extents(ino) {
        for at in 0..extent.length {
            let key = extent.blob.unwrap().id.key.0;
            bytes[(extent.offset + at) as usize] = Some((key, extent.blob_offset + at as u32));
        }
    }
    bytes
}

fn clone(world: &mut World<'_>, files: &mut [(Ino, Vec<Byte>)], step: &Step) {
    let &Step::Clone { source, from, target, to, length } = step else { return };
    let content = &files[source].1;
    let end = content.len().min(from.saturating_add(length).try_into().unwrap_or(usize::MAX));
    let bytes: Vec<Byte> = content.get(from as usize..end).unwrap_or_default().to_vec();
    let (source_ino, target_ino) = (files[source].0, files[target].0);
    let op = WriteOp::Clone(CloneRange {
        source: source_ino,
        source_offset: from,
        target: target_ino,
        target_offset: to,
        length,
        locked_by: None,
    });
    if source == target && from.abs_diff(to) < bytes.len() as u64 {
        assert_eq!(world.refused(&op), ErrorCode::InvalidArgument);
        return;
    }
    let before = world.attr(target_ino);
    let Ok(MetaReply::Cloned(cloned)) = world.write(&op) else { panic!("{op:?}") };
    assert_eq!(cloned.length, bytes.len() as u64, "{op:?}");
    if bytes.is_empty() {
        assert_eq!(cloned.attr, before);
    } else {
        assert_eq!(cloned.attr.version, before.version.next());
        lay(&mut files[target].1, to, &bytes);
    }
}

fn follow(world: &mut World<'_>, steps: Vec<Step>) {
    let names: [String; FILES] = std::array::from_fn(|n| format!("file{n}"));
    let mut files: Vec<(Ino, Vec<Byte>)> =
        names.iter().map(|name| (world.touch(Ino::ROOT, name), Vec::new())).collect();
    for step in steps {
        match &step {
            Step::Write(file, extent) => {
                let (ino, content) = &mut files[*file];
                world.commit(edit(*ino, vec![*extent]));
                let byte = |n| extent.blob.map(|b| (b.id.key.0, extent.blob_offset + n as u32));
                lay(content, extent.offset, &(0..extent.length).map(byte).collect::<Vec<_>>());
            }
            Step::Resize(file, size) => {
                let changes = AttrChanges { size: Some(*size), ..AttrChanges::default() };
                world.write(&WriteOp::SetAttr { ino: files[*file].0, changes }).unwrap();
                files[*file].1.resize(*size as usize, None);
            }
            Step::Clone { .. } => clone(world, &mut files, &step),
            Step::Renew(file) => {
                world.unlink(Ino::ROOT, &names[*file]);
                files[*file] = (world.touch(Ino::ROOT, &names[*file]), Vec::new());
            }
        }
        // The invariants too: what each blob's last reference was decides whether it is garbage.
        world.check();
        for (ino, content) in &files {
            assert_eq!(&stored(world, *ino), content, "{ino} after {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn copies_do_to_bytes_what_the_model_does(steps in proptest::collection::vec(some_step(), 1..25)) {
        on_memory(move |world| follow(world, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn copies_do_to_bytes_what_the_model_does_in_sqlite(
        steps in proptest::collection::vec(some_step(), 1..25),
    ) {
        on_sqlite(move |world| follow(world, steps));
    }
}
