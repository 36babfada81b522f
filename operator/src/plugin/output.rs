//! Tables, JSON and complaints. A reader that goes away (`kubectl zim … | head`) is no failure.

use std::io::{self, ErrorKind, Write as _};

use serde::Serialize;
use zimcache_types::ByteSize;

use super::Result;

/// Prints text on standard output, at once.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a value as JSON for people and programs.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Tells a line on standard error. When even that fails, there is nobody to tell.
pub(super) fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// A table; the first `names` columns are to the left, numbers to the right.
pub(super) fn table<const N: usize>(head: [&str; N], names: usize, rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        let cells = all().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            let pad = " ".repeat(width - cell.chars().count());
            let (left, right) = if column < names {
                ("", &*pad)
            } else {
                (&*pad, "")
            };
            line.extend([left, cell, right, "  "]);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A number of bytes for people.
pub(super) fn bytes(count: i64) -> String {
    ByteSize(u64::try_from(count).unwrap_or(0)).to_string()
}

/// `1 node`, `2 nodes`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_to_the_left_and_numbers_to_the_right() {
        let rows = [
            ["a".to_owned(), "5".to_owned()],
            ["long".to_owned(), "1000".to_owned()],
        ];
        let text = table(["NAME", "N"], 1, &rows);
        assert_eq!(text, "NAME     N\na        5\nlong  1000\n");
    }
}
