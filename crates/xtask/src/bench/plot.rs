//! The plot of the report: every goal, how far it was reached, drawn as SVG.
//!
//! Two panels. Above: how many times better than the peer, on a logarithmic axis from 1 (as good as the peer), with a
//! tick where the goal is. Below: how much of an absolute limit is used. Text and lines follow the reader's light or
//! dark mode; the two bar colours are readable in both and each bar says in words when its goal is missed.

use std::fmt::Write;

use super::{
    goals::goal_text,
    result::{Results, Verdict},
    rows::Row,
    text::{bound, number},
};

const WIDTH: f64 = 920.0;
const LABEL: f64 = 330.0;
const PLOT: f64 = 440.0;
const LINE: f64 = 26.0;
const BAR: f64 = 14.0;

/// One bar.
struct Bar {
    label: String,
    /// Where the bar ends, where its goal is, and least and most, on the panel's axis.
    reached: f64,
    goal: f64,
    least: f64,
    most: f64,
    note: String,
    met: bool,
}

/// The plot of all promised goals.
pub(super) fn goals(results: &Results, rows: &[Row]) -> String {
    let mut ratios = Vec::new();
    let mut limits = Vec::new();
    for row in rows.iter().filter(|row| row.promised) {
        let Some(measured) = results.rows.get(&row.id) else {
            continue;
        };
        for verdict in measured.verdicts(row) {
            if verdict.goal.against.is_some() {
                ratios.push(ratio_bar(row, &verdict));
            } else {
                limits.push(limit_bar(row, &verdict));
            }
        }
    }
    let mut svg = Svg::default();
    svg.panel(
        "Times better than the peer (logarithmic); tick = goal",
        &ratios,
        &Axis::doublings(&ratios),
    );
    svg.panel(
        "Share of the limit that is used; tick = limit",
        &limits,
        &Axis::share(&limits),
    );
    svg.finish()
}

/// A rate counts as "over peer"; a time or size as "peer over ours", so that longer is always better.
fn ratio_bar(row: &Row, verdict: &Verdict) -> Bar {
    let more = verdict.goal.more_is_better(row.unit);
    let better = |ratio: f64| if more { ratio } else { 1.0 / ratio };
    let (one, other) = (better(verdict.spread.least), better(verdict.spread.most));
    let peer = verdict
        .goal
        .against
        .map_or("", super::subject::Subject::name);
    let reached = better(verdict.spread.median);
    let goal = better(verdict.goal.bound);
    Bar {
        label: format!("{} vs {peer}", subject_of(row, verdict)),
        reached,
        goal,
        least: one.min(other),
        most: one.max(other),
        note: format!("{}× (goal {}×)", number(reached), bound(goal)),
        met: verdict.met,
    }
}

fn limit_bar(row: &Row, verdict: &Verdict) -> Bar {
    // Of a limit of nothing every bit counts as a whole.
    let limit = if verdict.goal.bound > 0.0 {
        verdict.goal.bound
    } else {
        1.0
    };
    let share = |value: f64| value / limit;
    Bar {
        label: subject_of(row, verdict),
        reached: share(verdict.spread.median),
        goal: share(verdict.goal.bound),
        least: share(verdict.spread.least),
        most: share(verdict.spread.most),
        note: format!(
            "{} ({})",
            number(verdict.spread.median),
            goal_text(row, &verdict.goal)
        ),
        met: verdict.met,
    }
}

/// What a goal is about, in few words.
fn subject_of(row: &Row, verdict: &Verdict) -> String {
    match verdict.goal.figure {
        Some(figure) => format!("{}, {}", short(row), figure.trim_end_matches("_us")),
        None => short(row),
    }
}

fn short(row: &Row) -> String {
    let title = row.title.replace("durable ", "").replace(", warm", "");
    let title = title.split(", 64 connections").next().unwrap_or_default();
    title
        .replace(
            "restart after kill -9 with 1 M entries, to the first hit",
            "restart with 1 M entries",
        )
        .replace(
            "peak RSS over idle, 64 × 256 MiB uploads, then downloads",
            "RSS over idle, 64 × 256 MiB streams",
        )
        .replace(
            " with 1 M entries of 64 B, over idle",
            " per entry, 1 M entries of 64 B",
        )
        .replace(" of 1,000 digests", "")
        .replace(" naming 10 outputs, checked for completeness", "")
        .replace(
            " with 1 M blobs held, after look-ups, uploads and downloads",
            " with 1 M blobs",
        )
}

/// Maps values to the width of the plot.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    marks: Vec<(f64, String)>,
}

impl Axis {
    fn doublings(bars: &[Bar]) -> Axis {
        let ends = |bar: &Bar| [bar.reached, bar.goal, bar.least, bar.most];
        let values = || bars.iter().flat_map(ends);
        let low = values().fold(1.0, f64::min).log2().floor().exp2();
        let high = values().fold(2.0, f64::max).log2().ceil().exp2();
        let mut marks = Vec::new();
        let mut mark = low;
        while mark <= high {
            marks.push((mark, format!("{}×", trimmed(mark))));
            mark *= 2.0;
        }
        Axis {
            low,
            high,
            logarithmic: true,
            marks,
        }
    }

    fn share(bars: &[Bar]) -> Axis {
        let most = bars
            .iter()
            .map(|bar| bar.most.max(bar.reached))
            .fold(1.0, f64::max);
        let high = (most * 1.05 * 4.0).ceil() / 4.0;
        let step = if high <= 2.0 {
            0.25
        } else {
            (high / 5.0).ceil()
        };
        let mut marks = Vec::new();
        let mut mark = 0.0;
        while mark <= high {
            marks.push((mark, format!("{:.0} %", mark * 100.0)));
            mark += step;
        }
        Axis {
            low: 0.0,
            high,
            logarithmic: false,
            marks,
        }
    }

    fn x(&self, value: f64) -> f64 {
        let scale = |v: f64| {
            if self.logarithmic {
                v.max(self.low).log2()
            } else {
                v
            }
        };
        let share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low));
        LABEL + PLOT * share.clamp(0.0, 1.0)
    }

    /// Where bars begin: as good as the peer, or nothing used.
    fn base(&self) -> f64 {
        self.x(if self.logarithmic { 1.0 } else { 0.0 })
    }
}

fn trimmed(value: f64) -> String {
    if value < 1.0 {
        format!("{value}")
    } else {
        format!("{value:.0}")
    }
}

#[derive(Default)]
struct Svg {
    body: String,
    y: f64,
}

impl Svg {
    fn panel(&mut self, title: &str, bars: &[Bar], axis: &Axis) {
        self.y += 24.0;
        self.text(12.0, self.y, "start", "title", title);
        self.y += 14.0;
        let top = self.y;
        let bottom = top + LINE * bars.len().max(1) as f64;
        for (value, name) in &axis.marks {
            let x = axis.x(*value);
            self.line("grid", x, top, x, bottom);
            self.text(x, bottom + 16.0, "middle", "small", name);
        }
        if bars.is_empty() {
            self.text(LABEL, top + 17.0, "start", "small", "not measured yet");
        }
        for (index, bar) in bars.iter().enumerate() {
            self.bar(bar, axis, top + LINE * index as f64);
        }
        let base = axis.base();
        self.line("axis", base, top, base, bottom);
        self.y = bottom + 28.0;
    }

    fn bar(&mut self, bar: &Bar, axis: &Axis, top: f64) {
        let middle = top + LINE / 2.0;
        let (base, end) = (axis.base(), axis.x(bar.reached));
        self.text(LABEL - 10.0, middle + 4.0, "end", "label", &bar.label);
        let class = if bar.met { "met" } else { "missed" };
        // Writing to a string does not fail.
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{BAR}" rx="2"/>"#,
            base.min(end),
            middle - BAR / 2.0,
            (end - base).abs().max(1.0),
        );
        self.line(
            "spread",
            axis.x(bar.least),
            middle,
            axis.x(bar.most),
            middle,
        );
        let goal = axis.x(bar.goal);
        self.line("goal", goal, middle - 10.0, goal, middle + 10.0);
        let note = if bar.met {
            bar.note.clone()
        } else {
            format!("{}: missed", bar.note)
        };
        let after = end.max(goal).max(axis.x(bar.most)).max(base) + 8.0;
        self.text(after, middle + 4.0, "start", "small", &note);
    }

    fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        let _ = writeln!(
            self.body,
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        );
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    fn finish(self) -> String {
        let height = self.y + 6.0;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" role="img" font-family="system-ui, sans-serif">
<title>Goals of the benchmark and what was reached</title>
<style>
text {{ fill: #24292f; font-size: 12px; }}
.title {{ font-size: 14px; font-weight: 600; }}
.small {{ font-size: 11px; }}
.grid {{ stroke: #8c959f; stroke-opacity: 0.35; }}
.axis {{ stroke: #57606a; stroke-width: 1.5; }}
.goal {{ stroke: #24292f; stroke-width: 2.5; }}
.spread {{ stroke: #24292f; stroke-opacity: 0.55; stroke-width: 1.5; }}
.met {{ fill: #4f86c6; }}
.missed {{ fill: #d98032; }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3; }}
.axis {{ stroke: #b1bac4; }}
.goal, .spread {{ stroke: #e6edf3; }}
}}
</style>
{}</svg>
"#,
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        result::{Measured, Sample},
        rows,
        subject::Subject,
    };
    use super::*;

    #[test]
    fn a_missed_goal_says_so_and_a_met_one_does_not() {
        let mut results = Results::default();
        for (id, ours) in [("put-1k", 10.0), ("get-1k", 2.0)] {
            let samples = vec![
                Sample::new(Subject::Zimcache, 0, ours),
                Sample::new(Subject::BazelRemote, 0, 1.0),
            ];
            let measured = Measured {
                samples,
                ..Measured::default()
            };
            results.rows.insert(id.to_owned(), measured);
        }
        let svg = goals(&results, &rows::all());
        assert!(svg.contains("10.0× (goal 6×)<"));
        assert!(svg.contains("2.00× (goal 3×): missed<"));
        assert!(svg.contains("not measured yet"));
    }

    #[test]
    fn a_ratio_where_less_is_better_is_drawn_the_other_way_round() {
        let mut results = Results::default();
        let samples = vec![
            Sample::new(Subject::Zimcache, 0, 0.1),
            Sample::new(Subject::BazelRemote, 0, 10.0),
        ];
        let measured = Measured {
            samples,
            ..Measured::default()
        };
        results.rows.insert("restart-1m".to_owned(), measured);
        let svg = goals(&results, &rows::all());
        assert!(svg.contains("100× (goal 10×)<"), "{svg}");
    }
}
