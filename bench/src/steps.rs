//! What is measured, in order: later steps use what earlier ones made.

use crate::fixtures::Fixtures;
use crate::job::{Job, Writes};
use crate::results::{Group, Sizes, StepInfo, Unit};
use std::time::Duration;

/// Bytes of a small file.
const SMALL_BYTES: usize = 4096;

/// Passes of the stat storm over all small files.
const STAT_PASSES: usize = 10;

/// One thing that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub info: StepInfo,
    pub job: Job,
    /// The client starts with nothing in memory.
    pub is_cold: bool,
    /// The step without which this one cannot be done.
    pub needs: Option<&'static str>,
    /// Done before it, untimed.
    pub before: Option<Job>,
    /// Removed after it: nothing later uses it.
    pub rubbish: Vec<String>,
    /// When it is ended.
    pub limit: Duration,
}

impl Step {
    fn new(id: &str, group: Group, title: impl Into<String>, unit: Unit, job: Job) -> Step {
        Step {
            info: StepInfo { id: id.to_owned(), group, title: title.into(), unit },
            job,
            is_cold: false,
            needs: None,
            before: None,
            rubbish: Vec::new(),
            limit: Duration::ZERO,
        }
    }

    fn cold(self) -> Step {
        Step { is_cold: true, ..self }
    }

    fn needs(self, id: &'static str) -> Step {
        Step { needs: Some(id), ..self }
    }

    fn after(self, job: Job) -> Step {
        Step { before: Some(job), ..self }
    }

    fn then_remove(self, names: &[&str]) -> Step {
        Step { rubbish: names.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }
}

/// All steps of a group; each ends after `limit`.
pub(crate) fn of(group: Group, sizes: &Sizes, fixtures: &Fixtures, limit: Duration) -> Vec<Step> {
    let mut steps = match group {
        Group::Throughput => throughput(sizes, fixtures),
        Group::Small => {
            let mut steps = small_files(sizes.files);
            steps.extend(tree(sizes, fixtures));
            steps.extend(wide(sizes));
            steps
        }
    };
    for step in &mut steps {
        step.limit = limit;
    }
    steps
}

/// Those whose id is one of `texts`, or contains one that is no id itself; and what they need.
pub(crate) fn only(steps: Vec<Step>, texts: &[String]) -> Vec<Step> {
    let is_id = |text: &String| steps.iter().any(|step| step.info.id == *text);
    let is_asked_for = |id: &str| {
        texts.is_empty() || texts.iter().any(|text| id == text || (!is_id(text) && id.contains(text)))
    };
    let mut wanted: Vec<&str> = Vec::new();
    // Backwards, since what is needed comes before.
    for step in steps.iter().rev() {
        if is_asked_for(&step.info.id) || wanted.contains(&step.info.id.as_str()) {
            wanted.push(&step.info.id);
            wanted.extend(step.needs);
        }
    }
    let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
    steps.into_iter().filter(|step| wanted.contains(&step.info.id)).collect()
}

fn write(files: &[&str], mib: usize, block_kib: usize, fsync: bool) -> Job {
    Job::Write { files: owned(files), mib, block_kib, fsync }
}

fn read(files: &[&str], mib: usize) -> Job {
    Job::Read { files: owned(files), mib, block_kib: 1024 }
}

fn random(block_kib: usize, threads: usize, sizes: &Sizes, writes: Writes) -> Job {
    Job::Random { file: "large".into(), block_kib, threads, seconds: sizes.random_s, writes }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn throughput(sizes: &Sizes, fixtures: &Fixtures) -> Vec<Step> {
    let step = |id, title: String, unit, job| Step::new(id, Group::Throughput, title, unit, job);
    let rate = |id, title: &str, job| step(id, title.to_owned(), Unit::MibPerS, job);
    let operations = |id, title: &str, job| step(id, title.to_owned(), Unit::PerS, job).needs("write-1m");
    let (mib, bytes) = (sizes.mib, (sizes.mib as u64) << 20);
    let source = fixtures.source.to_string_lossy().into_owned();
    let streams = ["stream0", "stream1", "stream2", "stream3"];
    let quarter = (mib / streams.len()).max(1);
    let mut steps = vec![
        rate("write-1m", "write, bs=1M, close included", write(&["large"], mib, 1024, false)),
        rate("write-128k", "write, bs=128k", write(&["large128k"], mib, 128, false))
            .then_remove(&["large128k"]),
        rate("write-1m-fsync", "write, bs=1M, fsync", write(&["synced"], mib, 1024, true))
            .then_remove(&["synced"]),
        rate("read-cold", "read, client cold", read(&["large"], mib)).needs("write-1m").cold(),
        rate("read-warm", "read again, warm", read(&["large"], mib)).needs("read-cold"),
        rate("cp-in", "cp in", program(&["cp", &source, "copied"], 0, bytes)),
        rate("cat-out", "cat out, client cold", program(&["cat", "copied"], 0, bytes))
            .needs("cp-in")
            .cold()
            .then_remove(&["copied"]),
        rate("write-4-streams", "write 4 files at once", write(&streams, quarter, 1024, false)),
        rate("read-4-streams", "read 4 files at once, client cold", read(&streams, quarter))
            .needs("write-4-streams")
            .cold()
            .then_remove(&streams),
        operations("random-read-4k-1", "random 4 KiB reads, client cold", random(4, 1, sizes, Writes::None))
            .cold(),
        operations(
            "random-read-4k-16",
            "random 4 KiB reads, 16 jobs, client cold",
            random(4, 16, sizes, Writes::None),
        )
        .cold(),
        operations(
            "random-read-64k-1",
            "random 64 KiB reads, client cold",
            random(64, 1, sizes, Writes::None),
        )
        .cold(),
        operations(
            "random-read-64k-16",
            "random 64 KiB reads, 16 jobs, client cold",
            random(64, 16, sizes, Writes::None),
        )
        .cold(),
        operations(
            "random-mixed-4k",
            "random 4 KiB, 70 % reads, final fsync",
            random(4, 1, sizes, Writes::Some),
        ),
        operations("random-write-4k", "random 4 KiB writes, final fsync", random(4, 1, sizes, Writes::All))
            .then_remove(&["large"]),
    ];
    if sizes.big_mib > 0 {
        let gib = sizes.big_mib as f64 / 1024.0;
        let (job, back) = (write(&["big"], sizes.big_mib, 1024, false), read(&["big"], sizes.big_mib));
        steps.push(step("write-big", format!("write {gib} GiB"), Unit::MibPerS, job));
        let back = step("read-big", format!("read {gib} GiB, client cold"), Unit::MibPerS, back);
        steps.push(back.needs("write-big").cold().then_remove(&["big"]));
    }
    steps
}

fn program(argv: &[&str], files: usize, bytes: u64) -> Job {
    Job::Program { argv: owned(argv), environment: Vec::new(), files, bytes }
}

fn small_files(count: usize) -> Vec<Step> {
    let step = |id, title: &str, job| Step::new(id, Group::Small, title, Unit::PerS, job);
    let timed = |id, title: &str, job| Step::new(id, Group::Small, title, Unit::Seconds, job);
    let create = |dir: &str, threads, fsync| Job::Create {
        dir: dir.into(),
        count,
        threads,
        bytes: SMALL_BYTES,
        fsync,
    };
    let read = |threads| Job::ReadSmall { dir: "small".into(), count, threads, bytes: SMALL_BYTES };
    let dir = || "small".to_owned();
    let directories = count.div_ceil(4);
    vec![
        step("create", "create + write 4 KiB + close", create("small", 1, false)),
        step("create-8", "create + write 4 KiB + close, 8 at once", create("small8", 8, false))
            .then_remove(&["small8"]),
        step("create-fsync", "create + write 4 KiB + fsync + close", create("synced", 1, true))
            .then_remove(&["synced"]),
        step("read-small-cold", "read 4 KiB files, client cold", read(1)).needs("create").cold(),
        step("read-small-cold-8", "read 4 KiB files, 8 at once, client cold", read(8)).needs("create").cold(),
        step("read-small-warm", "read 4 KiB files again", read(1)).needs("read-small-cold"),
        timed("ls-l", "ls -l, client cold", program(&["ls", "-l", "small"], count, 0)).needs("create").cold(),
        step("stat-cold", "stat, client cold", Job::Stat { dir: dir(), count, passes: 1 })
            .needs("create")
            .cold(),
        step("stat-storm", "stat storm", Job::Stat { dir: dir(), count, passes: STAT_PASSES })
            .needs("create"),
        step("rename", "rename", Job::Rename { dir: dir(), count }).needs("create"),
        step("unlink", "unlink", Job::Unlink { dir: dir(), count }).needs("create"),
        step("mkdir", "mkdir", Job::Mkdir { dir: "directories".into(), count: directories }),
        step("rmdir", "rmdir", Job::Rmdir { dir: "directories".into(), count: directories }).needs("mkdir"),
    ]
}

fn tree(sizes: &Sizes, fixtures: &Fixtures) -> Vec<Step> {
    let files = sizes.tree_files;
    let step = |id, title: &str, argv: &[&str]| {
        Step::new(id, Group::Small, title, Unit::Seconds, program(argv, files, 0))
    };
    let git = |id, title: &str, argv: &[&str]| {
        let job =
            Job::Program { argv: owned(argv), environment: Fixtures::git_environment(), files, bytes: 0 };
        Step::new(id, Group::Small, title, Unit::Seconds, job)
    };
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (archive, repository, source) =
        (path(&fixtures.archive), path(&fixtures.repository), path(&fixtures.package));
    let build = Job::Program {
        argv: owned(&["cargo", "build", "--quiet", "--offline", "--manifest-path", "package/Cargo.toml"]),
        environment: vec![("CARGO_TARGET_DIR".into(), "package/target".into())],
        files: 1,
        bytes: 0,
    };
    let status = ["git", "-C", "clone", "status", "--porcelain"];
    vec![
        step("untar", &format!("untar {files} files"), &["tar", "xf", &archive]),
        step("find", "find in the tree, client cold", &["find", "tree", "-type", "f", "-size", "+100k"])
            .needs("untar")
            .cold(),
        step("cp-r", "cp -r of the tree", &["cp", "-r", "tree", "tree2"]).needs("untar"),
        step("rm-rf", "rm -rf of the tree", &["rm", "-rf", "tree2"]).needs("cp-r"),
        git("git-clone", "git clone", &["git", "clone", "-q", &format!("file://{repository}"), "clone"])
            .then_remove(&["tree"]),
        git("git-status-1", "git status, client cold", &status).needs("git-clone").cold(),
        git("git-status-2", "git status again", &status).needs("git-clone").then_remove(&["clone"]),
        Step::new("cargo-build", Group::Small, "cargo build of a small package", Unit::Seconds, build)
            .after(program(&["cp", "-r", &source, "package"], 1, 0)),
    ]
}

fn wide(sizes: &Sizes) -> Vec<Step> {
    let names = [("wide0", "wide-create-0", "wide-list-0"), ("wide1", "wide-create-1", "wide-list-1")];
    let wanted = sizes.wide.into_iter().zip(names).filter(|(count, _)| *count > 0);
    let steps = wanted.flat_map(|(count, (dir, create, list))| {
        let job = Job::Create { dir: dir.into(), count, threads: 1, bytes: 0, fsync: false };
        let title = format!("create {count} empty files in one directory");
        let listing = program(&["ls", "-l", dir], count, 0);
        [
            Step::new(create, Group::Small, title, Unit::PerS, job),
            Step::new(
                list,
                Group::Small,
                format!("ls -l of {count} entries, client cold"),
                Unit::Seconds,
                listing,
            )
            .needs(create)
            .cold(),
        ]
    });
    steps.collect()
}
