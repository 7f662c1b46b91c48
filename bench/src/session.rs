//! A session: all steps at all places, round by round, in turns.
//!
//! Every round starts each place anew. A step is done at each place, one after the other, before the next step begins,
//! and each round begins with another place, so that what else goes on in the machine meets all of them alike. Between
//! two runs everything that is left of the first is waited for: copies, and pages on their way to the disk.

use crate::job::{Done, Job};
use crate::place::{self, Manner, Place, Processes, Wanted};
use crate::process::{self, Bounded, bounded, command};
use crate::results::{Group, Measured, Outcome, PlaceInfo, Run, Session};
use crate::steps::Step;
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long removing what a step left may take.
const REMOVE_LIMIT: Duration = Duration::from_secs(120);

/// Where and with what to measure.
pub(crate) struct Plan {
    pub places: Vec<Wanted>,
    pub rounds: usize,
    /// Folder for everything.
    pub base: PathBuf,
    pub manner: Manner,
    /// Where the results are kept, after each step.
    pub json: Option<PathBuf>,
}

/// A place that runs, with what was not done there in this round.
struct Contender {
    label: String,
    place: Box<dyn Place>,
    undone: BTreeSet<String>,
}

/// Does all `steps` of `group` and adds what came of it to `session`.
pub(crate) fn run(plan: &Plan, group: Group, steps: &[Step], session: &mut Session) -> anyhow::Result<()> {
    session.steps.extend(steps.iter().map(|step| step.info.clone()));
    for round in 0..plan.rounds {
        let folder = plan.base.join(format!("{group:?}{round}").to_lowercase());
        let mut contenders = start_all(plan, &folder, session)?;
        contenders.retain(|c| group == Group::Throughput || c.place.is_complete());
        anyhow::ensure!(!contenders.is_empty(), "no place that can do this is left");
        let others_first = round % contenders.len();
        contenders.rotate_left(others_first);
        for step in steps {
            contenders.rotate_left(1);
            for contender in &mut contenders {
                let (label, id) = (contender.label.clone(), &step.info.id);
                progress(&format!("round {} of {}: {id} at {label}", round + 1, plan.rounds));
                let outcome = attempt(contender, step, plan)?;
                progress("");
                eprintln!("{id:<20} {label:<14} {}", shown(&outcome, step));
                session.runs.push(Run { step: id.clone(), place: label, round, outcome });
            }
            if let Some(json) = &plan.json {
                session.save(json)?;
            }
        }
        drop(contenders);
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// What goes on now, on a line that the next one replaces.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{what}\x1b[K");
    }
}

fn shown(outcome: &Outcome, step: &Step) -> String {
    match outcome {
        Outcome::Measured(m) => format!(
            "{:>9.2} {:<6} cpu {:.2}+{:.2}+{:.2}+{:.2} s (application, client, servers, after)",
            m.value(step.info.unit),
            step.info.unit.text(),
            m.cpu_application_s,
            m.cpu_client_s,
            m.cpu_servers_s,
            m.cpu_after_s
        ),
        Outcome::Over(seconds) => format!("over {seconds:.0} s"),
        Outcome::Failed(why) => why.clone(),
    }
}

fn start_all(plan: &Plan, folder: &Path, session: &mut Session) -> anyhow::Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    for (i, wanted) in plan.places.iter().enumerate() {
        process::go_on()?;
        progress(&format!("starting {}", wanted.label));
        let own = folder.join(format!("p{i}"));
        std::fs::create_dir_all(&own)?;
        let place = match place::start(wanted, &plan.manner, &own) {
            Ok(place) => place,
            Err(e) if wanted.kind == place::Kind::Dfs || process::interrupted() => {
                return Err(e.context(format!("{} cannot be started", wanted.label)));
            }
            // What is not installed is not compared with.
            Err(e) => {
                progress("");
                eprintln!("without {}: {e:#}", wanted.label);
                continue;
            }
        };
        if !session.places.iter().any(|known| known.label == wanted.label) {
            session.places.push(PlaceInfo {
                label: wanted.label.clone(),
                is_ours: wanted.kind == place::Kind::Dfs,
                about: place.about(),
                version: place.version(),
            });
        }
        contenders.push(Contender { label: wanted.label.clone(), place, undone: BTreeSet::new() });
    }
    Ok(contenders)
}

/// Does `step`, whatever comes of it; an error only when somebody wants the benchmark to end.
fn attempt(contender: &mut Contender, step: &Step, plan: &Plan) -> anyhow::Result<Outcome> {
    process::go_on()?;
    if let Some(needed) = step.needs.filter(|needed| contender.undone.contains(*needed)) {
        contender.undone.insert(step.info.id.clone());
        return Ok(Outcome::Failed(format!("{needed} was not done")));
    }
    let outcome =
        measure(contender.place.as_mut(), step, plan).unwrap_or_else(|e| Outcome::Failed(format!("{e:#}")));
    process::go_on()?;
    if !matches!(outcome, Outcome::Measured(_)) {
        contender.undone.insert(step.info.id.clone());
    }
    remove(contender.place.dir(), &step.rubbish);
    Ok(outcome)
}

fn measure(place: &mut dyn Place, step: &Step, plan: &Plan) -> anyhow::Result<Outcome> {
    if let Some(job) = &step.before {
        if in_a_process(job, place.dir(), step.limit)?.is_none() {
            bail!("its preparation took longer than {:?}", step.limit);
        }
        place.settle()?;
        sync(plan)?;
    }
    if step.is_cold {
        place.make_cold()?;
    }
    let processes = place.processes();
    processes.client.iter().chain(&processes.servers).for_each(|pid| process::reset_peak_memory(*pid));
    let before = Cpu::of(&processes);
    let Some(done) = in_a_process(&step.job, place.dir(), step.limit)? else {
        place.settle()?;
        return Ok(Outcome::Over(step.limit.as_secs_f64()));
    };
    // Some place may have got another process meanwhile, for another connection.
    let processes = place.processes();
    let after = Cpu::of(&processes);
    if step.job.writes_data() {
        place.settle()?;
    }
    let settled = Cpu::of(&processes);
    let peak = |pids: &[u32]| {
        pids.iter().map(|pid| process::peak_memory(*pid)).max().unwrap_or(0) as f64 / f64::from(1 << 20)
    };
    if step.job.writes_data() || !step.rubbish.is_empty() {
        sync(plan)?;
    }
    Ok(Outcome::Measured(Measured {
        amount: done.amount,
        bytes: done.bytes,
        seconds: done.seconds,
        cpu_application_s: done.cpu_s,
        // A process that ended meanwhile takes its seconds with it.
        cpu_client_s: (after.client - before.client).max(0.0),
        cpu_servers_s: (after.servers - before.servers).max(0.0),
        cpu_after_s: (settled.client + settled.servers - after.client - after.servers).max(0.0),
        peak_client_mib: peak(&processes.client),
        peak_server_mib: peak(&processes.servers),
        latencies: done.latencies,
    }))
}

/// CPU seconds so far.
struct Cpu {
    client: f64,
    servers: f64,
}

impl Cpu {
    fn of(processes: &Processes) -> Cpu {
        let sum = |pids: &[u32]| pids.iter().map(|pid| process::cpu_seconds(*pid)).sum();
        Cpu { client: sum(&processes.client), servers: sum(&processes.servers) }
    }
}

/// Does a job in a process of its own; None when it was not done within `limit`.
fn in_a_process(job: &Job, dir: &Path, limit: Duration) -> anyhow::Result<Option<Done>> {
    let own = std::env::current_exe()?;
    let job = serde_json::to_string(job)?;
    let command = command(own, &["work".as_ref(), std::ffi::OsStr::new(&job), dir.as_os_str()]);
    match bounded(command, limit, true)? {
        Bounded::OutOfTime => Ok(None),
        Bounded::Ended(output) if output.status.success() => {
            Ok(Some(serde_json::from_slice(&output.stdout).context("a job's answer cannot be read")?))
        }
        Bounded::Ended(output) => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn remove(dir: &Path, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    let args = std::iter::once("-rf".as_ref()).chain(paths.iter().map(|path| path.as_os_str()));
    // What stays in spite of this goes with the place.
    if !matches!(bounded(command("rm", &args.collect::<Vec<_>>()), REMOVE_LIMIT, true), Ok(Bounded::Ended(_)))
    {
        eprintln!("{names:?} could not be removed in {}", dir.display());
    }
}

/// Waits until the disk has everything that was written to its file system.
fn sync(plan: &Plan) -> anyhow::Result<()> {
    if plan.manner.is_hurried {
        return Ok(());
    }
    let folder = std::fs::File::open(&plan.base)?;
    // SAFETY: the descriptor is open for the call.
    let synced = unsafe { libc::syncfs(folder.as_raw_fd()) };
    anyhow::ensure!(synced == 0, "syncfs: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Figures of `session` that are not as they should be: places and steps without a single measurement.
pub(crate) fn missing(session: &Session) -> BTreeMap<String, Vec<String>> {
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run in &session.runs {
        if !matches!(run.outcome, Outcome::Measured(_)) {
            missing.entry(run.place.clone()).or_default().push(run.step.clone());
        }
    }
    missing
}
