//! The tables of goals: what each row is to reach, what was reached, and by whom.

use super::{
    report::{cell, or_dash},
    result::{Measured, Results, Spread, Verdict},
    rows::{Goal, Row, Unit},
    subject::Subject,
    text::{self, number},
};

/// A table of the promised rows among these, with a column for each of these servers.
pub(super) fn table<'a>(
    results: &Results,
    rows: impl Iterator<Item = &'a Row>,
    servers: &[Subject],
) -> String {
    let names: Vec<&str> = servers.iter().map(|server| server.name()).collect();
    let mut lines = vec![
        format!("| row | {} | reached | goal | met |", names.join(" | ")),
        format!("| --- |{} --- | --- | --- |", " --- |".repeat(names.len())),
    ];
    for row in rows.filter(|row| row.promised) {
        lines.push(line(row, results.rows.get(&row.id), servers));
    }
    lines.join("\n") + "\n"
}

fn line(row: &Row, measured: Option<&Measured>, servers: &[Subject]) -> String {
    let figures: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(place, &server)| {
            // The first column is ours, whichever of ours was measured.
            let subject = if place == 0 { row.judged } else { server };
            cell(row.unit, measured.and_then(|measured| measured.of(subject)))
        })
        .collect();
    let verdicts = measured
        .map(|measured| measured.verdicts(row))
        .unwrap_or_default();
    let reached: Vec<String> = verdicts
        .iter()
        .map(|verdict| reached(row, verdict))
        .collect();
    let goals: Vec<String> = row.goals.iter().map(|goal| goal_text(row, goal)).collect();
    let complete = measured.is_some_and(|measured| measured.is_complete(row));
    let met = if !complete {
        "not measured"
    } else if verdicts.iter().all(|verdict| verdict.met) {
        "yes"
    } else {
        "**no**"
    };
    format!(
        "| {} | {} | {} | {} | {met} |",
        row.title,
        figures.join(" | "),
        or_dash(&reached.join("<br>")),
        goals.join("<br>"),
    )
}

fn reached(row: &Row, verdict: &Verdict) -> String {
    let Spread {
        median,
        least,
        most,
        ..
    } = verdict.spread;
    let name = verdict.goal.figure.map(figure_name).unwrap_or_default();
    match verdict.goal.against {
        Some(peer) => format!(
            "{name}{}× {} ({}–{})",
            number(median),
            peer.name(),
            number(least),
            number(most)
        ),
        None => format!("{name}{} {}", number(median), goal_unit(row, &verdict.goal)),
    }
}

/// A goal in words.
pub(super) fn goal_text(row: &Row, goal: &Goal) -> String {
    let sign = if goal.more_is_better(row.unit) {
        "≥"
    } else {
        "≤"
    };
    let name = goal.figure.map(figure_name).unwrap_or_default();
    let bound = text::bound(goal.bound);
    match goal.against {
        Some(peer) => format!("{name}{sign} {bound}× {}", peer.name()),
        None => format!("{name}{sign} {bound} {}", goal_unit(row, goal)),
    }
}

/// The unit of what a goal is about.
fn goal_unit(row: &Row, goal: &Goal) -> &'static str {
    goal.figure.map_or(row.unit, Unit::of_figure).name()
}

/// How a latency is called before its figure; of what else is counted the unit says it.
fn figure_name(figure: &str) -> String {
    match figure.strip_suffix("_us") {
        Some(name) => format!("{name} "),
        None => String::new(),
    }
}
