//! This system, the bare disk and others of its kind, at the same work, in turns.
//!
//!     cargo run --release -p dfs-bench -- all
//!     cargo run --release -p dfs-bench -- throughput --places dfs,passthrough,gluster --only write-1m,read --rounds 5
//!     cargo run --release -p dfs-bench -- small --places old:dfs=../old/target/release,new:dfs --only create
//!
//! Machines are shared and disks have moods: compare columns of one run, not runs. docs/PERFORMANCE.md has the
//! results and how to read them.

mod fixtures;
mod job;
mod machine;
mod mounts;
mod passthrough;
mod place;
mod process;
mod report;
mod results;
mod session;
mod steps;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use fixtures::Fixtures;
use place::{Kind, Manner, Wanted};
use results::{Group, Session, Sizes};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "dfs-bench",
    about = "This system beside the bare disk and others of its kind, at the same work"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Large files
    Throughput(Options),
    /// Small files and directories
    Small(Options),
    /// Both
    All(Options),
    /// Tables and plots of results that were kept
    Report {
        /// Files that --json wrote; those of several sessions come one after the other
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The page between whose marks the tables go; the plots go into a folder `plots` beside it
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
    },
    /// One job, as a session starts it
    #[command(hide = true)]
    Work { job: String, dir: PathBuf },
    /// The pass-through, as a session starts it
    #[command(hide = true)]
    Passthrough { below: PathBuf, at: PathBuf },
}

#[derive(Args)]
struct Options {
    /// Where to work, as `[NAME:]KIND`: `dfs[=FOLDER OF PROGRAMS][+FLAG OF dfs-mount...]`, disk, passthrough, gluster,
    /// sshfs, moosefs
    #[arg(long, value_delimiter = ',', default_value = "dfs,disk,passthrough,gluster,moosefs,sshfs")]
    places: Vec<Wanted>,
    /// Only the steps whose names contain one of these, and what they need
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often everything is done
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The large file, MiB
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// The very large file, MiB; 0 for none
    #[arg(long, default_value_t = 8192)]
    big_mib: usize,
    /// How long random reads and writes go on, s
    #[arg(long, default_value_t = 10.0)]
    random_s: f64,
    /// Small files
    #[arg(long, default_value_t = 2000)]
    files: usize,
    /// Files of the tree that is unpacked, copied and cloned
    #[arg(long, default_value_t = 5000)]
    tree_files: usize,
    /// Entries of the two wide directories; 0 for none
    #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
    wide: Vec<usize>,
    /// When a step is ended, s
    #[arg(long, default_value_t = 180)]
    limit_s: u64,
    /// Where the data goes while it runs
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Keep every figure in this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Everything small, one round, dfs and disk only: shows that it works, measures nothing
    #[arg(long)]
    quick: bool,
    /// Do not build the programs first
    #[arg(long)]
    no_build: bool,
}

impl Options {
    fn made_quick(mut self) -> Options {
        if self.quick {
            (self.rounds, self.mib, self.big_mib, self.random_s) = (1, 16, 24, 0.2);
            (self.files, self.tree_files, self.wide) = (24, 60, vec![50, 100]);
            self.places.retain(|place| matches!(place.kind, Kind::Dfs | Kind::Disk));
        }
        self
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            mib: self.mib,
            big_mib: self.big_mib,
            random_s: self.random_s,
            files: self.files,
            tree_files: self.tree_files,
            wide: [0, 1].map(|i| self.wide.get(i).copied().unwrap_or(0)),
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Throughput(options) => measure(options.made_quick(), &[Group::Throughput]),
        Command::Small(options) => measure(options.made_quick(), &[Group::Small]),
        Command::All(options) => measure(options.made_quick(), &[Group::Throughput, Group::Small]),
        Command::Report { files, page } => report_on(&files, page.as_deref()),
        Command::Work { job, dir } => {
            let done = job::run(&serde_json::from_str(&job)?, &dir)?;
            println!("{}", serde_json::to_string(&done)?);
            Ok(())
        }
        Command::Passthrough { below, at } => passthrough::serve(&below, &at),
    }
}

fn measure(options: Options, groups: &[Group]) -> anyhow::Result<()> {
    anyhow::ensure!(!options.places.is_empty(), "there is no place to work at");
    let programs = programs(&options)?;
    process::take_charge()?;
    let base = tempfile::Builder::new()
        .prefix("dfs-bench-")
        .tempdir_in(&options.dir)
        .with_context(|| format!("cannot use {}", options.dir.display()))?;
    let sizes = options.sizes();
    let fixtures = Fixtures::make(&base.path().join("fixtures"), &sizes)?;
    let machine = machine::Machine::here(base.path());
    let mut session = Session { machine, sizes, rounds: options.rounds, ..Session::default() };
    let limit = Duration::from_secs(options.limit_s);
    let plan = session::Plan {
        places: options.places,
        rounds: options.rounds,
        base: base.path().to_owned(),
        manner: Manner { programs, is_hurried: options.quick },
        json: options.json,
    };
    for group in groups {
        let steps = steps::only(steps::of(*group, &sizes, &fixtures, limit), &options.only);
        session::run(&plan, *group, &steps, &mut session)?;
    }
    print!("{}", report::page(&session, None));
    for (place, steps) in session::missing(&session) {
        eprintln!("not measured at {place}: {}", steps.join(", "));
    }
    Ok(())
}

/// The folder of this system's programs: beside this one. When cargo runs this program, it builds them first, so that
/// what is measured is what is in the tree.
fn programs(options: &Options) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program is in a folder")?.to_owned();
    let uses_own = options.places.iter().any(|place| place.kind == Kind::Dfs && place.bin.is_none());
    if let Some(cargo) = std::env::var_os("CARGO").filter(|_| uses_own && !options.no_build) {
        let packages = ["dfs-cli", "dfs-master", "dfs-storagenode", "dfs-replicator", "dfs-mount"];
        let mut build = Program::new(cargo);
        build.args(["build", "--locked", "--bins"]).args(packages.iter().flat_map(|package| ["-p", package]));
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        anyhow::ensure!(build.status()?.success(), "the programs cannot be built");
    }
    Ok(folder)
}

fn report_on(files: &[PathBuf], page: Option<&Path>) -> anyhow::Result<()> {
    let sessions: Vec<Session> =
        files.iter().map(|file| Session::load(file)).collect::<anyhow::Result<_>>()?;
    match page {
        None => sessions.iter().for_each(|session| print!("{}", report::page(session, None))),
        Some(page) => report::write(&sessions, page)?,
    }
    Ok(())
}
