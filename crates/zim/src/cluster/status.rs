//! `zim cluster status`: the nodes as a table.

use std::{fmt::Write as _, thread, time::Duration};

use zimcache_config::Environment;
use zimcache_store::{ClusterReport, MemberReport};

use crate::{
    args::{ClusterStatusArgs, ServerArgs},
    error::{Error, Result},
    output,
    remote::Server,
    settings::Settings,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows it, once or for ever.
pub(super) fn run(args: &ClusterStatusArgs) -> Result<()> {
    loop {
        let report = ask(&args.server)?;
        if args.json {
            return output::print_json(&report);
        }
        let text = describe(&report);
        if !args.watch {
            return output::print(&text);
        }
        output::print(&format!("{CLEAR}{text}"))?;
        thread::sleep(PAUSE);
    }
}

/// What a gateway says.
pub(super) fn ask(server: &ServerArgs) -> Result<ClusterReport> {
    let settings = Settings::load(Environment::of_process())?;
    let server = Server::at(&settings.endpoint(server)?)?;
    let answer = server.get("/api/v1/cluster")?;
    serde_json::from_slice(&answer).map_err(|error| Error::Answer(error.to_string()))
}

const HEAD: [&str; 9] = [
    "NODE", "STATE", "ZONE", "USED", "OF", "BLOBS", "ENTRIES", "HINTS", "DIRTY",
];

fn describe(report: &ClusterReport) -> String {
    let mut text = format!(
        "epoch {}, {} of everything{}\n\n",
        report.epoch,
        output::counted(u64::from(report.replicas), "copy", "copies"),
        if report.changing {
            ", a change is under way"
        } else {
            ""
        },
    );
    let rows: Vec<[String; 9]> = report.members.iter().map(row).collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(HEAD[column].len())
        })
        .collect();
    line(&mut text, &widths, &HEAD.map(str::to_owned));
    for row in &rows {
        line(&mut text, &widths, row);
    }
    if !report.waiting_for.is_empty() {
        let names = report.waiting_for.join(", ");
        text.extend(["\nthe change waits for ", &names, "\n"]);
    }
    text
}

fn row(member: &MemberReport) -> [String; 9] {
    if !member.reachable {
        let mut row = [(); 9].map(|()| "-".to_owned());
        row[0].clone_from(&member.id);
        row[1] = format!("{}, no answer", member.state);
        row[2].clone_from(&member.zone);
        return row;
    }
    let state = if member.catching_up {
        format!("{}, catching up", member.state)
    } else {
        member.state.clone()
    };
    [
        member.id.clone(),
        state,
        member.zone.clone(),
        output::bytes(member.live_bytes),
        output::bytes(member.capacity_bytes),
        output::count(member.blobs),
        output::count(member.entries),
        output::count(member.hints),
        output::count(member.dirty),
    ]
}

/// Names to the left, numbers to the right.
fn line(text: &mut String, widths: &[usize], cells: &[String; 9]) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        // Writing to a String cannot fail.
        match column {
            0..=2 => write!(text, "{cell:width$}  ").ok(),
            _ => write!(text, "{cell:>width$}  ").ok(),
        };
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_node_also_for_those_that_do_not_answer() {
        let report = ClusterReport {
            epoch: 7,
            replicas: 2,
            changing: true,
            waiting_for: vec!["node-1".to_owned()],
            members: vec![
                MemberReport {
                    id: "node-0".to_owned(),
                    state: "ready".to_owned(),
                    reachable: true,
                    live_bytes: 3 << 30,
                    capacity_bytes: 8 << 30,
                    blobs: 1234,
                    ..MemberReport::default()
                },
                MemberReport {
                    id: "node-1".to_owned(),
                    state: "draining".to_owned(),
                    ..MemberReport::default()
                },
            ],
            ring: None,
        };
        let text = describe(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "epoch 7, 2 copies of everything, a change is under way"
        );
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(lines[3])[..4], ["node-0", "ready", "3GiB", "8GiB"]);
        assert!(
            lines[4].starts_with("node-1  draining, no answer"),
            "{text}"
        );
        assert_eq!(lines[6], "the change waits for node-1");
    }
}
