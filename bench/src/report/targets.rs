//! What was promised, and whether it is so.

use super::short;
use crate::results::{Group, Measured, Session};
use std::fmt::Write;

enum Target {
    /// So many times as good as the place of that name.
    Times(f64, &'static str),
    /// No more CPU seconds per GiB than this, client and servers.
    CpuPerGib(f64),
}

/// Most memory that any program may have had, MiB.
const PEAK_MIB: f64 = 300.0;

const TARGETS: [(&str, Target); 20] = [
    ("write-1m", Target::Times(3.0, "gluster")),
    ("write-1m", Target::Times(0.6, "passthrough")),
    ("read-cold", Target::Times(2.5, "gluster")),
    ("read-cold", Target::Times(0.6, "passthrough")),
    ("read-warm", Target::Times(0.9, "passthrough")),
    ("random-read-4k-16", Target::Times(2.0, "gluster")),
    ("random-write-4k", Target::Times(5.0, "gluster")),
    ("write-1m", Target::CpuPerGib(3.5)),
    ("read-cold", Target::CpuPerGib(1.6)),
    ("create", Target::Times(15.0, "gluster")),
    ("create-8", Target::Times(15.0, "gluster")),
    ("create-fsync", Target::Times(4.0, "gluster")),
    ("read-small-cold", Target::Times(4.0, "gluster")),
    ("untar", Target::Times(15.0, "gluster")),
    ("rm-rf", Target::Times(10.0, "gluster")),
    ("find", Target::Times(5.0, "gluster")),
    ("ls-l", Target::Times(5.0, "gluster")),
    ("git-status-2", Target::Times(0.5, "disk")),
    // With --writeback, at a place that was asked for as `writeback:dfs+writeback`.
    ("create", Target::Times(50.0, "gluster")),
    ("untar", Target::Times(0.25, "disk")),
];

/// The label of a place of this system that acknowledges before it has published.
const WRITEBACK: &str = "writeback";

/// A row for each target that the session has figures for.
pub(super) fn table(session: &Session) -> String {
    let Some(ours) = session.ours() else { return String::new() };
    let mut rows = String::new();
    for (id, target) in &TARGETS {
        let Some(step) = session.step(id) else { continue };
        let (wanted, found, is_met) = match target {
            Target::Times(times, place) => {
                let needs_writeback =
                    matches!((*id, *place, *times), ("create", _, 50.0) | ("untar", "disk", _));
                let ours = if needs_writeback { WRITEBACK } else { ours };
                let Some((found, is_bound)) = session.times_as_good(step, ours, place) else { continue };
                let at_least = if is_bound { "> " } else { "" };
                let suffix = if needs_writeback { " with --writeback" } else { "" };
                (
                    format!("≥ {times} × {place}{suffix}"),
                    format!("{at_least}{} ×", short(found)),
                    found >= *times,
                )
            }
            Target::CpuPerGib(most) => {
                let Some(found) = session.spread(id, ours, Measured::cpu_per_gib) else { continue };
                (format!("≤ {most} CPU s/GiB"), short(found.median), found.median <= *most)
            }
        };
        let _ = writeln!(rows, "| {} | {wanted} | {found} | {} |", step.title, met(is_met));
    }
    let large = session.steps.iter().filter(|step| step.group == Group::Throughput);
    let peaks = large.flat_map(|step| session.measured(&step.id, ours));
    if let Some(peak) = peaks.map(|m| m.peak_client_mib.max(m.peak_server_mib)).max_by(f64::total_cmp) {
        let is_met = met(peak <= PEAK_MIB);
        let _ = writeln!(
            rows,
            "| peak memory of any program, large files | ≤ {PEAK_MIB} MiB | {peak:.0} MiB | {is_met} |"
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!("| work | at least | found | |\n|---|---|---|---|\n{rows}")
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**not met**" }
}
