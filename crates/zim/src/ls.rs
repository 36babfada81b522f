//! `zim cache ls`: what is stored in a namespace, by tool and key.
//!
//! Pages are asked for one after the other until the limit, so neither side holds a whole namespace.

use std::{fmt::Write as _, process::ExitCode};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use zimcache_config::Environment;
use zimcache_types::Namespace;

use crate::{
    args::LsArgs,
    error::{Error, Result},
    output,
    remote::Server,
    settings::{Endpoint, Settings},
};

/// Most rows asked for at once.
const PAGE_ROWS: usize = 1000;

/// A page of a listing.
#[derive(Debug, Deserialize)]
struct Page {
    entries: Vec<Row>,
    next: Option<String>,
}

/// One thing that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    tool: String,
    key: String,
    size_bytes: u64,
    created: String,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Listing {
    entries: Vec<Row>,
    /// Whether there is more than the limit allowed.
    more: bool,
}

/// Runs it.
pub(crate) fn run(args: &LsArgs) -> Result<ExitCode> {
    let settings = Settings::load(Environment::of_process())?;
    let endpoint = settings.endpoint(&args.server)?;
    let listing = list(&Server::at(&endpoint)?, &endpoint, args)?;
    if args.json {
        output::print_json(&listing)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&table(&listing.entries))?;
    if listing.more {
        output::tell(&format!("there is more: --limit is {}", args.limit));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(server: &Server, endpoint: &Endpoint, args: &LsArgs) -> Result<Listing> {
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let rows = PAGE_ROWS.min(args.limit - entries.len());
        let query = query(&[
            (
                "namespace",
                endpoint.namespace.as_ref().map(Namespace::as_str),
            ),
            ("tool", args.tool.as_deref()),
            ("prefix", args.prefix.as_deref()),
            ("after", after.as_deref()),
            ("limit", Some(&rows.to_string())),
        ]);
        let answer = server.get(&format!("/api/v1/entries{query}"))?;
        let page: Page =
            serde_json::from_slice(&answer).map_err(|error| Error::Answer(error.to_string()))?;
        entries.extend(page.entries);
        let more = page.next.is_some();
        // A server that goes on without getting on would be asked for ever.
        if !more || entries.len() >= args.limit || page.next == after {
            return Ok(Listing { entries, more });
        }
        after = page.next;
    }
}

/// The query of a URL, without the absent ones.
pub(crate) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        let separator = if text.is_empty() { '?' } else { '&' };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        // Writing to a String cannot fail.
        write!(text, "{separator}{name}={value}").ok();
    }
    text
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let tool_width = width(|row| row.tool.len());
    let size_width = width(|row| output::bytes(row.size_bytes).len());
    for row in rows {
        let size = output::bytes(row.size_bytes);
        let Row {
            tool, created, key, ..
        } = row;
        writeln!(
            text,
            "{tool:tool_width$}  {size:>size_width$}  {created}  {key}"
        )
        .ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_what_is_given_and_nothing_that_a_url_would_misread() {
        let all = [
            ("tool", Some("nx")),
            ("prefix", None),
            ("after", Some("a&b=c/ü")),
        ];
        assert_eq!(query(&all), "?tool=nx&after=a%26b%3Dc%2F%C3%BC");
        assert_eq!(query(&[("tool", None)]), "");
    }

    #[test]
    fn columns_of_a_listing_stand_below_one_another() {
        let row = |tool: &str, size_bytes| Row {
            tool: tool.to_owned(),
            key: "k".to_owned(),
            size_bytes,
            created: "2026-01-02T03:04:05Z".to_owned(),
        };
        let text = table(&[row("nx", 2048), row("gradle", 1)]);
        assert_eq!(
            text,
            "nx      2KiB  2026-01-02T03:04:05Z  k\ngradle    1B  2026-01-02T03:04:05Z  k\n"
        );
    }
}
