//! Plots: one line per step, one point per place, rates on a logarithmic axis, whiskers from the lowest to the
//! highest round.

use crate::results::{Group, Session, StepInfo, Unit};
use std::fmt::Write;

const LABELS_PX: f64 = 250.0;
const AXIS_PX: f64 = 560.0;
const LINE_PX: f64 = 26.0;
const TOP_PX: f64 = 44.0;

/// Colours that people with defective colour vision can tell apart (Okabe and Ito), ours first.
const COLOURS: [&str; 7] = ["#d55e00", "#000000", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One panel per unit that the group has, below each other.
pub(super) fn svg(session: &Session, group: Group) -> String {
    let (mut body, mut at) = (String::new(), TOP_PX);
    for unit in [Unit::MibPerS, Unit::PerS, Unit::Seconds] {
        let steps: Vec<&StepInfo> =
            session.steps.iter().filter(|step| step.group == group && step.unit == unit).collect();
        if let Some(scale) = Scale::of(session, &steps) {
            at = panel(&mut body, session, &steps, &scale, unit, at);
        }
    }
    let (width, height) = (LABELS_PX + AXIS_PX + 30.0, at);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, place) in session.places.iter().enumerate() {
        let (x, colour) = (20.0 + i as f64 * 130.0, colour(i));
        let label = escaped(&place.label);
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"16\" r=\"5\" fill=\"{colour}\"/><text x=\"{}\" y=\"20\">{label}</text>",
            x + 10.0
        );
    }
    out + &body + "</svg>\n"
}

fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

/// Powers of ten around all values.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(session: &Session, steps: &[&StepInfo]) -> Option<Scale> {
        let spreads =
            steps.iter().flat_map(|step| session.places.iter().map(|p| session.value(step, &p.label)));
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for spread in spreads.flatten().filter(|spread| spread.min > 0.0) {
            (low, high) = (low.min(spread.min.log10().floor()), high.max(spread.max.log10().ceil()));
        }
        (low < high).then_some(Scale { low, high })
    }

    fn x(&self, value: f64) -> f64 {
        LABELS_PX + (value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low) * AXIS_PX
    }
}

/// Draws the steps from `top` on; returns where the next panel may begin.
fn panel(
    out: &mut String,
    session: &Session,
    steps: &[&StepInfo],
    scale: &Scale,
    unit: Unit,
    top: f64,
) -> f64 {
    let bottom = top + steps.len() as f64 * LINE_PX;
    let better = if unit == Unit::Seconds { "less is better" } else { "more is better" };
    for power in scale.low as i32..=scale.high as i32 {
        let (x, value) = (scale.x(10f64.powi(power)), 10f64.powi(power));
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" \
             y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{value}</text>",
            bottom + 15.0
        );
    }
    for (i, step) in steps.iter().enumerate() {
        let y = top + (i as f64 + 0.5) * LINE_PX;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LABELS_PX - 12.0,
            y + 4.0,
            escaped(&step.title)
        );
        for (place, info) in session.places.iter().enumerate() {
            let Some(spread) = session.value(step, &info.label).filter(|spread| spread.min > 0.0) else {
                continue;
            };
            let (colour, middle) = (colour(place), scale.x(spread.median));
            let _ = writeln!(
                out,
                "<line x1=\"{:.1}\" y1=\"{y}\" x2=\"{:.1}\" y2=\"{y}\" stroke=\"{colour}\"/><circle cx=\"{middle:.1}\" \
                 cy=\"{y}\" r=\"5\" fill=\"{colour}\" fill-opacity=\"0.85\"/>",
                scale.x(spread.min),
                scale.x(spread.max)
            );
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{} ({better})</text>",
        LABELS_PX + AXIS_PX / 2.0,
        bottom + 31.0,
        unit.text()
    );
    bottom + 56.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
