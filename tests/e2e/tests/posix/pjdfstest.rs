//! pjdfstest: some 400 cases, each about what one call leaves behind, for users that may and users that may not.

use crate::bed::Bed;
use crate::reference::Ext4;
use crate::tools::{run, tool};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long one run may take; it takes seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Cases that there are at least: fewer mean that the output was not understood.
const CASES_MIN: usize = 390;

/// All that Linux has. The users are those of any Debian system that have a group of their own name; naps are
/// longer than the tick by which ext4 takes the time.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [["daemon", "daemon"], ["www-data", "www-data"]]
"#;

/// Cases that end differently from ext4, with the reason. The only good one is that the kernel cannot do it
/// over FUSE. Each is in docs/SEMANTICS.md as well.
const DIFFERENT: &[(&str, &str)] = &[(
    "link::link_count_max",
    "skipped: the C library knows how many links a file may have by the kernel's name of the file system, and \
     for FUSE it does not know",
)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    Failed,
}

/// Outcomes by case.
type Outcomes = BTreeMap<String, Outcome>;

/// Runs the suite in `at`. The cases about read-only file systems remount it, which needs that no file is open
/// there: they get a run of their own.
fn suite(at: &Path, other: &Path) -> (Outcomes, String) {
    let (mut outcomes, mut text) = part(at, other, false);
    let (remounting, more) = part(at, other, true);
    assert!(!remounting.is_empty(), "no case has erofs in its name:\n{more}");
    outcomes.extend(remounting);
    text.push_str(&more);
    assert!(outcomes.len() >= CASES_MIN, "only {} cases in:\n{text}", outcomes.len());
    (outcomes, text)
}

fn part(at: &Path, other: &Path, remounting: bool) -> (Outcomes, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pjdfstest.toml");
    std::fs::write(&config, CONFIG.replace("REMOUNT", &remounting.to_string())).unwrap();
    // mount(8) would start the helper mount.fuse again for a remount, which cannot do that.
    let mount = folder.path().join("mount");
    std::fs::write(&mount, "#!/bin/sh\nexec /bin/mount -i \"$@\"\n").unwrap();
    std::fs::set_permissions(&mount, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(tool("pjdfstest"));
    command.env("PATH", path).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command.arg("-c").arg(&config).arg("-p").arg(at).arg("-s").arg(other);
    if remounting {
        command.arg("erofs");
    }
    let (_, text) = run(command, LIMIT);
    (text.lines().filter_map(outcome).collect(), text)
}

/// The outcome on a line of the suite's output, if it is one: the case's name, blanks, the outcome.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let mut words = line.split_whitespace();
    let (name, word) = (words.next()?, words.next()?);
    let is_case = name.contains("::") && !line.starts_with(char::is_whitespace) && words.next().is_none();
    let outcome = match word {
        "ok" => Outcome::Passed,
        "skipped" => Outcome::Skipped,
        "FAILED" => Outcome::Failed,
        _ => return None,
    };
    is_case.then(|| (name.to_owned(), outcome))
}

/// What the suite said about one case.
fn told<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| line.split_whitespace().next() != Some(name));
    lines.next();
    lines.take_while(|line| line.starts_with('\t')).map(str::trim).collect()
}

fn count(outcomes: &Outcomes, which: Outcome) -> usize {
    outcomes.values().filter(|o| **o == which).count()
}

/// Every case of pjdfstest, the suite for POSIX file systems, ends on the mount as it does on ext4: for each
/// call the errno, the modes, the owners and the times, for root and for others, also on a read-only mount.
#[test]
fn every_case_of_pjdfstest_ends_as_on_ext4() {
    let mut bed = Bed::new();
    std::fs::set_permissions(bed.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mount = bed.mount_replacing();
    std::fs::set_permissions(&mount, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ext4 = Ext4::new();
    let (expected, _) = suite(&ext4.path(), Path::new("/dev/shm"));
    let (got, text) = suite(&mount, &ext4.path());
    for (who, outcomes) in [("ext4", &expected), ("the mount", &got)] {
        let [passed, skipped, failed] =
            [Outcome::Passed, Outcome::Skipped, Outcome::Failed].map(|which| count(outcomes, which));
        eprintln!("{who}: {passed} passed, {skipped} skipped, {failed} failed");
    }
    let mut wrong = Vec::new();
    for (name, outcome) in &expected {
        let here = got.get(name);
        let excused = DIFFERENT.iter().any(|(listed, _)| listed == name);
        match here == Some(outcome) {
            true if excused => wrong.push(format!("{name} is as on ext4 now: take it off the list")),
            false if !excused => {
                wrong.push(format!("{name}: {outcome:?} on ext4, {here:?} here: {:?}", told(&text, name)));
            }
            _ => {}
        }
    }
    let unknown = DIFFERENT.iter().filter(|(name, _)| !expected.contains_key(*name));
    wrong.extend(unknown.map(|(name, _)| format!("{name} is listed, but there is no such case")));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
