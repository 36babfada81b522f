//! What people and programs read: aligned rows, human units, JSON lines, complaints on standard error.
//!
//! A reader that goes away (`zim … | head`) is no failure.

use std::{
    error::Error as _,
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
};

use serde::Serialize;
use zimcache_types::ByteSize;

use crate::error::{Error, Result};

/// Prints text on standard output, at once.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Prints a value as JSON for people and programs.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Error::Output(error.into()))?;
    print(&format!("{text}\n"))
}

/// Tells a failure with all its causes on standard error.
pub(crate) fn complain(error: &Error) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.extend([": ", &inner.to_string()]);
        cause = inner.source();
    }
    tell(&text);
}

/// Tells a line on standard error. When even that fails, there is nobody to tell.
pub(crate) fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Asks for something on standard error; the line stays open.
pub(crate) fn ask(question: &str) {
    let mut err = io::stderr();
    err.write_all(question.as_bytes())
        .and_then(|()| err.flush())
        .ok();
}

/// Rows of name and value, the values in one column; an empty name starts a new block with the value as its title.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a String cannot fail.
        match *name {
            "" => writeln!(text, "{value}").ok(),
            name => writeln!(text, "  {name:width$}  {value}").ok(),
        };
    }
    text
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    ByteSize(count).to_string()
}

/// A number with its thousands set apart: `1 234 567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// So many things: `1 blob`, `2 blobs`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{} {noun}", count(number))
}

/// A share in percent, one decimal; `-` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!(counted(0, "entry", "entries"), "0 entries");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "-");
    }

    #[test]
    fn values_of_a_table_stand_in_one_column() {
        let rows = [
            ("", "Title".to_owned()),
            ("a", "1".to_owned()),
            ("long", "2".to_owned()),
        ];
        assert_eq!(table(&rows), "Title\n  a     1\n  long  2\n");
    }
}
