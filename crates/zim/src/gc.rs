//! `zim cache gc`: compacts, removes what is old, evicts down to a target, says what was freed or would be.

use std::process::ExitCode;

use serde_json::json;
use zimcache_store::{GcOptions, GcReport};
use zimcache_types::ByteSize;

use crate::{
    args::GcArgs,
    error::{Error, Result},
    output, settings,
    target::Target,
};

/// Runs it.
pub(crate) fn run(args: &GcArgs) -> Result<ExitCode> {
    let namespace = args.target.server.namespace.as_deref();
    let options = GcOptions {
        target_bytes: args.target_size.map(ByteSize::as_u64),
        older_than: args.older_than,
        // Only one that was written down: a namespace in somebody's settings must not halve what they asked for.
        namespace: namespace.map(settings::namespace_of).transpose()?,
        dry_run: args.dry_run,
    };
    let report = match Target::of(&args.target)? {
        Target::Server(server) => {
            let body = json!(options).to_string();
            let answer = server.post("/api/v1/gc", body.into())?;
            serde_json::from_slice(&answer).map_err(|error| Error::Answer(error.to_string()))?
        }
        Target::Store(store) => store.run(async |admin| Ok(admin.gc(options).await?))?,
    };
    if args.target.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(report: &GcReport) -> String {
    let freed = report.before_bytes.saturating_sub(report.after_bytes);
    let evicted = format!(
        "{}, {}",
        output::counted(report.evicted_records, "record", "records"),
        output::bytes(report.evicted_bytes)
    );
    let expired = format!(
        "{}, {}",
        output::counted(report.expired_records, "record", "records"),
        output::bytes(report.expired_bytes)
    );
    let swept = format!(
        "{}, {}",
        output::counted(report.swept_objects, "object", "objects"),
        output::bytes(report.swept_bytes)
    );
    let did = if report.dry_run {
        "Would free"
    } else {
        "Freed"
    };
    let title = format!("{did} {}", output::bytes(freed));
    output::table(&[
        ("", title),
        ("live before", output::bytes(report.before_bytes)),
        ("live after", output::bytes(report.after_bytes)),
        ("evicted", evicted),
        ("too old", expired),
        ("compacted", output::bytes(report.compacted_bytes)),
        ("from bucket", swept),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_was_freed() {
        let report = GcReport {
            before_bytes: 3 << 30,
            after_bytes: 1 << 30,
            evicted_records: 1234,
            evicted_bytes: 2 << 30,
            compacted_bytes: 5 << 20,
            ..GcReport::default()
        };
        let dry = GcReport {
            dry_run: true,
            ..report
        };
        assert!(describe(&dry).starts_with("Would free 2GiB\n"));
        let text = describe(&report);
        assert!(text.starts_with("Freed 2GiB\n"), "{text}");
        assert!(
            text.contains("evicted      1 234 records, 2GiB\n"),
            "{text}"
        );
        assert!(text.contains("compacted    5MiB\n"), "{text}");
    }
}
