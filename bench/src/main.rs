//! The same work on a mounted cluster and on the bare disk below it, alternating, in one run.
//!
//!     cargo run --release -p dfs-bench -- --mib 1024 --files 2000 --rounds 3
//!
//! Prints a table (medians with minimum and maximum) and, with `--json FILE`, writes every single figure. The
//! cluster (three nodes, two copies) runs in this process, so its CPU seconds are those of client and servers
//! together. Machines are shared: compare columns of one run, not runs.

mod place;
mod report;
mod work;

use anyhow::Context;
use clap::Parser;
use place::{BareDisk, MountedCluster, Place};
use report::{Figure, Report};
use std::path::PathBuf;
use work::{Work, run};

/// Measures a mounted cluster beside the bare disk.
#[derive(Debug, Parser)]
struct Args {
    /// Size of the large file, MiB
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Number of small files
    #[arg(long, default_value_t = 2000)]
    files: usize,
    /// How often everything is done
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the data goes
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// Write every figure to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let base = tempfile::Builder::new()
        .prefix("dfs-bench")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot use {}", args.dir.display()))?;
    let mut places: Vec<Box<dyn Place>> = vec![
        Box::new(BareDisk::new(base.path().join("disk"))?),
        Box::new(MountedCluster::start(&runtime, base.path())?),
    ];
    let mut report = Report::default();
    for round in 1..=args.rounds {
        for work in Work::ALL {
            for place in &mut places {
                eprint!(
                    "\rround {round} of {}: {} on {} ...          ",
                    args.rounds,
                    work.name(),
                    place.name()
                );
                let measured = run(work, place.as_mut(), args.mib, args.files)?;
                report.add(Figure { work: work.name(), place: place.name(), unit: work.unit(), measured });
            }
        }
        for place in &mut places {
            work::clean(place.as_mut())?;
        }
    }
    eprintln!();
    print!("{}", report.table());
    if let Some(path) = &args.json {
        std::fs::write(path, report.json()?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    places.into_iter().try_for_each(|place| place.end())
}
