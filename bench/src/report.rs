//! Figures as a table and as JSON.

use crate::work::Measured;
use std::fmt::Write;

/// One measurement of one work at one place.
pub struct Figure {
    pub work: &'static str,
    pub place: &'static str,
    pub unit: &'static str,
    pub measured: Measured,
}

#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
}

#[derive(serde::Serialize)]
struct Line {
    work: &'static str,
    place: &'static str,
    unit: &'static str,
    rate: f64,
    cpu_s: f64,
}

impl Report {
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Works down, places across: median (minimum-maximum) and CPU seconds, and the ratio of the last place
    /// to the first.
    pub fn table(&self) -> String {
        let (works, places) = (self.distinct(|f| f.work), self.distinct(|f| f.place));
        let mut out = format!("| work | unit | {} | ratio |\n", places.join(" | "));
        let _ = writeln!(out, "|---|---|{}---|", "---|".repeat(places.len()));
        for work in works {
            let of = |place: &str| -> Vec<&Figure> {
                self.figures.iter().filter(|f| f.work == work && f.place == place).collect()
            };
            let cells: Vec<String> = places.iter().map(|place| cell(&of(place))).collect();
            let median = |place: &str| median(of(place).iter().map(|f| f.measured.rate).collect());
            let ratio = median(places[places.len() - 1]) / median(places[0]);
            let unit = of(places[0]).first().map_or("", |f| f.unit);
            let _ = writeln!(out, "| {work} | {unit} | {} | {ratio:.2} |", cells.join(" | "));
        }
        out
    }

    fn distinct(&self, of: impl Fn(&Figure) -> &'static str) -> Vec<&'static str> {
        let mut seen = Vec::new();
        for name in self.figures.iter().map(of) {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        seen
    }

    pub fn json(&self) -> anyhow::Result<String> {
        let lines: Vec<Line> = self
            .figures
            .iter()
            .map(|f| Line {
                work: f.work,
                place: f.place,
                unit: f.unit,
                rate: f.measured.rate,
                cpu_s: f.measured.cpu_s,
            })
            .collect();
        Ok(serde_json::to_string_pretty(&lines)?)
    }
}

fn cell(figures: &[&Figure]) -> String {
    let rates: Vec<f64> = figures.iter().map(|f| f.measured.rate).collect();
    let (min, max) = rates.iter().fold((f64::MAX, 0f64), |(a, b), r| (a.min(*r), b.max(*r)));
    let cpu = median(figures.iter().map(|f| f.measured.cpu_s).collect());
    format!("{:.0} ({min:.0}-{max:.0}), {cpu:.2} CPU s", median(rates))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_the_ratio_of_places() {
        let mut report = Report::default();
        for (place, rates) in [("disk", [100.0, 300.0, 200.0]), ("mount", [90.0, 100.0, 110.0])] {
            for rate in rates {
                let measured = Measured { rate, cpu_s: 1.0 };
                report.add(Figure { work: "write", place, unit: "MiB/s", measured });
            }
        }
        let table = report.table();
        assert!(
            table.contains("| write | MiB/s | 200 (100-300), 1.00 CPU s | 100 (90-110), 1.00 CPU s | 0.50 |"),
            "{table}"
        );
    }
}
