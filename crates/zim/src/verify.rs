//! `zim cache verify`: reads and checks everything stored, with a progress bar on a terminal.

use std::process::ExitCode;

use indicatif::ProgressBar;
use serde::Deserialize;
use zimcache_store::{Progress, VerifyReport};

use crate::{
    args::VerifyArgs,
    error::{Error, Result},
    local::LocalStore,
    output, progress,
    remote::Server,
    target::Target,
};

/// A line of the server's answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Progress),
    Report(VerifyReport),
    Error(String),
}

/// Runs it; damage makes the exit code 1.
pub(crate) fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let bar = progress::bar(0);
    let report = match Target::of(&args.target)? {
        Target::Server(server) => ask(&server, &bar),
        Target::Store(store) => check(store, &bar),
    };
    bar.finish_and_clear();
    let report = report?;
    if args.target.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(ExitCode::from(u8::from(report.damaged > 0)))
}

fn ask(server: &Server, bar: &ProgressBar) -> Result<VerifyReport> {
    let mut report = None;
    server.post_lines("/api/v1/verify", |line| {
        match serde_json::from_slice(line).map_err(|error| Error::Answer(error.to_string()))? {
            Line::Progress(progress) => advance(bar, progress),
            Line::Report(found) => report = Some(found),
            Line::Error(text) => return Err(Error::Verification(text)),
        }
        Ok(())
    })?;
    report.ok_or_else(|| Error::Answer("it ends without a report".to_owned()))
}

fn check(store: Box<LocalStore>, bar: &ProgressBar) -> Result<VerifyReport> {
    let bar = bar.clone();
    store.run(async |admin| {
        let on_progress = Box::new(move |progress| advance(&bar, progress));
        Ok(admin.verify(on_progress).await?)
    })
}

fn advance(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total_bytes);
    bar.set_position(progress.done_bytes);
}

fn describe(report: &VerifyReport) -> String {
    let read = format!(
        "{}, {}",
        output::counted(report.records, "record", "records"),
        output::bytes(report.bytes)
    );
    if report.damaged == 0 {
        return format!("Verified {read}: no damage\n");
    }
    let mut text = format!(
        "Verified {read}: {} damaged, no longer served\n",
        output::count(report.damaged)
    );
    for example in &report.examples {
        text.extend(["  ", example, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_answer_are_told_apart() {
        let line = |text: &str| serde_json::from_str::<Line>(text).unwrap();
        let progress = line(r#"{"progress":{"done_bytes":1,"total_bytes":2}}"#);
        assert!(matches!(
            progress,
            Line::Progress(Progress {
                done_bytes: 1,
                total_bytes: 2
            })
        ));
        assert!(
            matches!(line(r#"{"report":{"damaged":3}}"#), Line::Report(report) if report.damaged == 3)
        );
        assert!(matches!(line(r#"{"error":"x"}"#), Line::Error(text) if text == "x"));
    }

    #[test]
    fn damage_is_told_with_examples() {
        let mut report = VerifyReport {
            records: 2000,
            bytes: 1 << 20,
            ..VerifyReport::default()
        };
        assert_eq!(
            describe(&report),
            "Verified 2 000 records, 1MiB: no damage\n"
        );
        report.damaged = 1;
        report.examples = vec!["blob ab".to_owned()];
        assert_eq!(
            describe(&report),
            "Verified 2 000 records, 1MiB: 1 damaged, no longer served\n  blob ab\n"
        );
    }
}
