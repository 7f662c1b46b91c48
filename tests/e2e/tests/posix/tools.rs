//! The programs of the suites.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Between two looks at a child process.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A suite's program, from `tools/bin` in the folder that cargo builds into; `scripts/tools` puts it there.
pub fn tool(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("tests are three folders below cargo's target folder");
    let at = target.join("tools/bin").join(name);
    assert!(at.exists(), "{} is not there: run scripts/tools first", at.display());
    at
}

/// Runs `command` to its end, with its output in one text that is printed when it fails or takes longer than
/// `limit`; says whether it ended well.
pub fn run(mut command: Command, limit: Duration) -> (bool, String) {
    let output = tempfile::NamedTempFile::new().unwrap();
    // One description for both, or they would write over each other.
    let stdout = output.reopen().unwrap();
    let stderr = stdout.try_clone().unwrap();
    command.stdin(std::process::Stdio::null());
    command.stdout(stdout).stderr(stderr);
    let mut child = command.spawn().unwrap();
    let ended = ended_within(&mut child, limit);
    if !ended {
        // An error means that it has ended just now.
        let _ = child.kill();
    }
    // One that cannot be killed waits in the kernel: dropping the mount, when this panics, frees it.
    let well = ended && child.wait().unwrap().success();
    let text = String::from_utf8_lossy(&std::fs::read(output.path()).unwrap()).into_owned();
    assert!(ended, "{command:?} was not done after {limit:?}; so far:\n{text}");
    (well, text)
}

fn ended_within(child: &mut Child, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}
