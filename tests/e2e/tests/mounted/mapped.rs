//! Shared mappings of one file on two mounts, by processes of their own.

use crate::bed::Bed;
use crate::children::Python;
use std::fs;

/// Adds 1 to the number at the start of a mapped file, again and again, each time under a lock.
const COUNTS: &str = r#"
import fcntl, mmap, os, sys
path, how, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open(path, os.O_RDWR)
mapped = mmap.mmap(file, 4096)
lock = {"flock": fcntl.flock, "range": fcntl.lockf}[how]
for _ in range(steps):
    lock(file, fcntl.LOCK_EX)
    mapped[:8] = (int.from_bytes(mapped[:8], "little") + 1).to_bytes(8, "little")
    lock(file, fcntl.LOCK_UN)
print("done")

"#;

/// Programs that change a file through shared mappings under a lock, on several mounts at once, lose nothing:
/// what was written to the mapping is handed over with the lock, without msync(2). A lock of a part of the file
/// does the same; what others write to the same page of 4,096 bytes under another lock at that time may be lost.
#[test]
fn what_is_written_through_mappings_is_handed_over_with_the_lock() {
    const STEPS: u64 = 40;
    let mut bed = Bed::new();
    let mounts = [bed.mount(), bed.mount()];
    for how in ["flock", "range"] {
        fs::write(mounts[0].join(how), [0; 4096]).unwrap();
        let mut counting: Vec<Python> = mounts
            .iter()
            .map(|mount| {
                let steps = STEPS.to_string();
                Python::start(COUNTS, &[&mount.join(how), how.as_ref(), steps.as_ref()])
            })
            .collect();
        counting.iter_mut().for_each(|program| assert_eq!(program.line(), "done", "{how}"));
        drop(counting);
        for mount in &mounts {
            let count = u64::from_le_bytes(fs::read(mount.join(how)).unwrap()[..8].try_into().unwrap());
            assert_eq!(count, 2 * STEPS, "{how}");
        }
    }
}
