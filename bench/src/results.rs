//! Every figure of a session, as it is kept in JSON.

use crate::job::Latency;
use crate::machine::Machine;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Every figure of a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Session {
    pub machine: Machine,
    pub sizes: Sizes,
    pub rounds: usize,
    pub places: Vec<PlaceInfo>,
    pub steps: Vec<StepInfo>,
    pub runs: Vec<Run>,
}

/// How much work there is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// The large file, MiB.
    pub mib: usize,
    /// The very large file, MiB; 0 for none.
    pub big_mib: usize,
    /// How long random work goes on, s.
    pub random_s: f64,
    /// Small files.
    pub files: usize,
    /// Files of the tree.
    pub tree_files: usize,
    /// Entries of the wide directories; 0 for none.
    pub wide: [usize; 2],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlaceInfo {
    pub label: String,
    /// Whether it is this system.
    pub is_ours: bool,
    pub about: String,
    pub version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StepInfo {
    pub id: String,
    pub group: Group,
    pub title: String,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Group {
    Throughput,
    Small,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "MiB/s")]
    MibPerS,
    #[serde(rename = "1/s")]
    PerS,
    #[serde(rename = "s")]
    Seconds,
}

impl Unit {
    pub fn text(self) -> &'static str {
        match self {
            Unit::MibPerS => "MiB/s",
            Unit::PerS => "1/s",
            Unit::Seconds => "s",
        }
    }
}

/// One step at one place in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub step: String,
    pub place: String,
    pub round: usize,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Measured(Measured),
    /// It took longer than so many seconds, and was ended.
    Over(f64),
    /// It went wrong, or was not begun since what it needs was not done.
    Failed(String),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub amount: f64,
    pub bytes: u64,
    pub seconds: f64,
    /// CPU seconds of the application (its system calls included), the client, and the servers.
    pub cpu_application_s: f64,
    pub cpu_client_s: f64,
    pub cpu_servers_s: f64,
    /// What client and servers needed after it until nothing was left to do, copies above all; an idle second counts.
    pub cpu_after_s: f64,
    /// Most memory that any process had resident during it and after, MiB.
    pub peak_client_mib: f64,
    pub peak_server_mib: f64,
    pub latencies: BTreeMap<String, Latency>,
}

impl Measured {
    /// In the step's unit.
    pub fn value(&self, unit: Unit) -> f64 {
        match unit {
            Unit::MibPerS | Unit::PerS => self.amount / self.seconds,
            Unit::Seconds => self.seconds,
        }
    }

    /// CPU seconds of client and servers per GiB, until all copies were made.
    pub fn cpu_per_gib(&self) -> f64 {
        let gib = self.bytes as f64 / f64::from(1 << 30);
        (self.cpu_client_s + self.cpu_servers_s + self.cpu_after_s) / gib
    }
}

/// A median with the smallest and the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread { median, min, max })
    }
}

impl Session {
    pub fn load(path: &Path) -> anyhow::Result<Session> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no results", path.display()))
    }

    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn outcomes(&self, step: &str, place: &str) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter(move |run| run.step == step && run.place == place).map(|run| &run.outcome)
    }

    pub fn measured(&self, step: &str, place: &str) -> impl Iterator<Item = &Measured> {
        self.outcomes(step, place).filter_map(|outcome| match outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Over(_) | Outcome::Failed(_) => None,
        })
    }

    /// A figure of a step at a place over all rounds.
    pub fn spread(&self, step: &str, place: &str, figure: impl Fn(&Measured) -> f64) -> Option<Spread> {
        Spread::of(self.measured(step, place).map(figure).collect())
    }

    /// The step's value in its unit.
    pub fn value(&self, step: &StepInfo, place: &str) -> Option<Spread> {
        self.spread(&step.id, place, |measured| measured.value(step.unit))
    }

    /// How many times `a` is as good as `b` by their medians. A `b` that was ended counts with the time that it had,
    /// so the true ratio is larger then, which the second value says.
    pub fn times_as_good(&self, step: &StepInfo, a: &str, b: &str) -> Option<(f64, bool)> {
        let ours = self.spread(&step.id, a, |m| m.seconds / m.amount.max(1.0))?.median;
        if let Some(theirs) = self.spread(&step.id, b, |m| m.seconds / m.amount.max(1.0)) {
            return Some((theirs.median / ours, false));
        }
        let over = self.outcomes(&step.id, b).find_map(|outcome| match outcome {
            Outcome::Over(seconds) => Some(*seconds),
            Outcome::Measured(_) | Outcome::Failed(_) => None,
        })?;
        Some((over / self.spread(&step.id, a, |m| m.seconds)?.median, true))
    }

    pub fn step(&self, id: &str) -> Option<&StepInfo> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The first place that is this system.
    pub fn ours(&self) -> Option<&str> {
        self.places.iter().find(|place| place.is_ours).map(|place| place.label.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
