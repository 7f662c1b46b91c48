//! What the work takes in: a large file, a tree of small ones, a repository and a package. Made once for a session,
//! the same each time.

use crate::job::Noise;
use crate::process::{command, run};
use crate::results::Sizes;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files of one directory of the tree.
const FILES_PER_DIRECTORY: usize = 50;

/// Largest file of the tree, bytes; most are much smaller, as in trees of sources.
const TREE_FILE_BYTES_MAX: u64 = 32 << 10;

/// Modules of the package.
const MODULES: usize = 20;

/// Where everything is that the work takes in.
pub(crate) struct Fixtures {
    pub source: PathBuf,
    pub archive: PathBuf,
    pub repository: PathBuf,
    pub package: PathBuf,
}

impl Fixtures {
    /// Makes what the sizes ask for in `folder`.
    pub fn make(folder: &Path, sizes: &Sizes) -> anyhow::Result<Fixtures> {
        fs::create_dir_all(folder)?;
        let fixtures = Fixtures {
            source: folder.join("source"),
            archive: folder.join("tree.tar"),
            repository: folder.join("tree"),
            package: folder.join("package"),
        };
        let mut source = fs::File::create(&fixtures.source)?;
        let block = Noise::new(5).bytes(1 << 20);
        for _ in 0..sizes.mib {
            source.write_all(&block)?;
        }
        tree(&fixtures.repository, sizes.tree_files)?;
        let (folder, archive) = (folder.to_string_lossy(), fixtures.archive.to_string_lossy());
        run(command("tar", &["-C", &folder, "-cf", &archive, "tree"]))?;
        repository(&fixtures.repository)?;
        package(&fixtures.package)?;
        Ok(fixtures)
    }

    /// What git needs so that nothing of the user's settings matters, and nothing goes on behind its back.
    pub fn git_environment() -> Vec<(String, String)> {
        let pairs = [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_COUNT", "2"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
            ("GIT_CONFIG_KEY_1", "maintenance.auto"),
            ("GIT_CONFIG_VALUE_1", "false"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

fn tree(root: &Path, count: usize) -> anyhow::Result<()> {
    let mut chance = Noise::new(7);
    for i in 0..count {
        let directory = i / FILES_PER_DIRECTORY;
        // Two levels, ten directories in each of the first.
        let folder = root.join(format!("part{:02}/set{directory:03}", directory / 10));
        if i % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(&folder)?;
        }
        // The square of a fraction: a third of them below 4 KiB.
        let share = (chance.next() % 1000) as f64 / 1000.0;
        let length = (share * share * TREE_FILE_BYTES_MAX as f64) as usize + 64;
        fs::write(folder.join(format!("file{i:05}.txt")), Noise::new(i as u64 + 1).bytes(length))?;
    }
    Ok(())
}

fn repository(tree: &Path) -> anyhow::Result<()> {
    let tree = tree.to_string_lossy();
    let commit = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "tree"];
    for args in [&["init", "-q"][..], &["add", "-A"], &commit] {
        let mut git = command("git", &[&["-C", &tree], args].concat());
        git.envs(Fixtures::git_environment());
        run(git)?;
    }
    Ok(())
}

fn package(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("src"))?;
    let manifest = "[package]\nname = \"package\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n";
    fs::write(folder.join("Cargo.toml"), manifest)?;
    let mut main = String::new();
    for i in 0..MODULES {
        let module =
            format!("pub fn sum(n: u64) -> u64 {{\n    (0..n).map(|x| x.wrapping_mul({i})).sum()\n}}\n");
        fs::write(folder.join(format!("src/m{i}.rs")), module)?;
        main += &format!("mod m{i};\n");
    }
    let calls: Vec<String> = (0..MODULES).map(|i| format!("m{i}::sum(10)")).collect();
    main += &format!("fn main() {{\n    println!(\"{{}}\", {});\n}}\n", calls.join(" + "));
    fs::write(folder.join("src/main.rs"), main)?;
    Ok(())
}
