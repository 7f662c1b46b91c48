use crate::bed::{Bed, list, noise, sh, wait_for};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Barrier};

/// Writing a whole new file under a name that is taken keeps the old file, with its content, times and
/// blocks, and stores the new one beside it as `name-1.ext`, `name-2.ext` and so on. This is the rule
/// `rename`, the default.
#[test]
fn a_second_cp_goes_beside_and_leaves_the_first_as_it_was() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let (first, second) = (noise(1, 300_000), noise(2, 500_000));
    let source = bed.dir.path().join("dummy.txt");
    fs::write(&source, &first).unwrap();
    sh("cp \"$1\" \"$2\"/", &[&source, &a]);
    let before = fs::metadata(a.join("dummy.txt")).unwrap();
    let cached = fs::read(a.join("dummy.txt")).unwrap();
    assert!(cached == first);
    fs::write(&source, &second).unwrap();
    sh("cp \"$1\" \"$2\"/", &[&source, &a]);
    for mount in [&a, &b] {
        assert_eq!(list(mount), ["dummy-1.txt", "dummy.txt"]);
        assert!(fs::read(mount.join("dummy.txt")).unwrap() == first);
        assert!(fs::read(mount.join("dummy-1.txt")).unwrap() == second);
        let after = fs::metadata(mount.join("dummy.txt")).unwrap();
        assert_eq!(
            (after.ino(), after.len(), after.mtime(), after.mtime_nsec(), after.ctime(), after.blocks()),
            (
                before.ino(),
                before.len(),
                before.mtime(),
                before.mtime_nsec(),
                before.ctime(),
                before.blocks()
            )
        );
    }
    let told = sh("getfattr --absolute-names --only-values -n user.dfs.stored_as \"$1\"/dummy.txt", &[&a]);
    assert_eq!(told, "dummy-1.txt");
    sh("cp \"$1\" \"$2\"/", &[&source, &b]);
    assert_eq!(fs::read_dir(&a).unwrap().count(), 3);
}

/// While such a new file is being written, everybody else goes on seeing the old one under the name.
#[test]
fn the_old_file_stays_readable_while_a_new_one_of_its_name_is_written() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let path = a.join("f");
    let old = noise(5, 200_000);
    fs::write(&path, &old).unwrap();
    let reader = File::open(&path).unwrap();
    let mut writer = File::create(&path).unwrap();
    let is_old = || {
        use std::os::unix::fs::FileExt;
        let size = fs::metadata(&path).unwrap().len();
        let mut through_held = vec![0; old.len()];
        reader.read_exact_at(&mut through_held, 0).unwrap();
        size == old.len() as u64 && through_held == old && fs::read(&path).unwrap() == old
    };
    assert!(is_old());
    for part in noise(6, 3 << 20).chunks(100_000) {
        writer.write_all(part).unwrap();
        assert!(is_old());
    }
    drop(writer);
    assert!(is_old());
    assert!(fs::read(a.join("f-1")).unwrap() == noise(6, 3 << 20));
}

/// Two mounts that write whole new files (O_CREAT with O_TRUNC) of the same name at the same moment both keep
/// their file: one under the name, the other beside it.
#[test]
fn two_mounts_that_create_a_name_at_the_same_moment_both_keep_their_file() {
    let mut bed = Bed::new();
    let mounts = [bed.mount(), bed.mount()];
    for round in 0..25u64 {
        let barrier = Arc::new(Barrier::new(2));
        let writers: Vec<_> = mounts
            .iter()
            .cloned()
            .enumerate()
            .map(|(i, mount)| {
                let barrier = barrier.clone();
                std::thread::spawn(move || {
                    barrier.wait();
                    fs::write(mount.join(format!("{round}.txt")), noise(round * 2 + i as u64, 10_000))
                        .unwrap();
                })
            })
            .collect();
        writers.into_iter().for_each(|w| w.join().unwrap());
        let mut expected = [noise(round * 2, 10_000), noise(round * 2 + 1, 10_000)];
        expected.sort();
        for mount in &mounts {
            wait_for("both files", || {
                let names = [format!("{round}.txt"), format!("{round}-1.txt")];
                let mut got = Vec::new();
                for name in names {
                    got.push(fs::read(mount.join(name)).map_err(|e| e.to_string())?);
                }
                got.sort();
                if got == expected {
                    Ok(())
                } else {
                    Err("the contents are not the two that were written".into())
                }
            });
        }
    }
    assert_eq!(fs::read_dir(&mounts[0]).unwrap().count(), 50);
}

/// With `--collision replace` (or `user.dfs.collision` set to `replace` on the directory) a new file takes
/// the place of the old one, as POSIX has it.
#[test]
fn with_replace_a_second_cp_overwrites() {
    let mut bed = Bed::new();
    let a = bed.mount_replacing();
    let source = bed.dir.path().join("dummy.txt");
    for content in ["first and longer", "second"] {
        fs::write(&source, content).unwrap();
        sh("cp \"$1\" \"$2\"/", &[&source, &a]);
        assert_eq!(fs::read_to_string(a.join("dummy.txt")).unwrap(), content);
    }
    assert_eq!(list(&a), ["dummy.txt"]);
    let before = fs::metadata(a.join("dummy.txt")).unwrap().ino();
    sh("echo third > \"$1\"/dummy.txt; echo fourth >> \"$1\"/dummy.txt", &[&a]);
    assert_eq!(fs::read_to_string(a.join("dummy.txt")).unwrap(), "third\nfourth\n");
    assert_eq!(
        fs::metadata(a.join("dummy.txt")).unwrap().ino(),
        before,
        "it is the same file, as POSIX has it"
    );
}

/// The collision rule of a directory is its attribute `user.dfs.collision`; new subdirectories inherit it.
#[test]
fn the_rule_of_a_directory_is_set_by_an_attribute_and_inherited() {
    let mut bed = Bed::new();
    let a = bed.mount();
    sh("mkdir \"$1\"/d && setfattr -n user.dfs.collision -v replace \"$1\"/d && mkdir \"$1\"/d/e", &[&a]);
    sh("echo 1 > \"$1\"/d/e/f; echo 2 > \"$1\"/d/e/f; echo 1 > \"$1\"/f; echo 2 > \"$1\"/f", &[&a]);
    assert_eq!(list(&a.join("d/e")), ["f"]);
    assert_eq!(fs::read_to_string(a.join("d/e/f")).unwrap(), "2\n");
    assert_eq!(list(&a), ["d", "f", "f-1"]);
}

/// Writes in place, appends, truncate(2) and rename(2) change the file that they name, under either rule.
#[test]
fn edits_in_place_are_edits_under_either_rule() {
    let mut bed = Bed::new();
    let a = bed.mount();
    sh(
        "echo one > \"$1\"/f; echo two >> \"$1\"/f; sed -i s/one/ONE/ \"$1\"/f; truncate -s 5 \"$1\"/f",
        &[&a],
    );
    assert_eq!(list(&a), ["f"]);
    assert_eq!(fs::read_to_string(a.join("f")).unwrap(), "ONE\nt");
}
