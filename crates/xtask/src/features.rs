//! House rule about `docs/features.md`: every row names the tests that show it, and those tests exist.
//!
//! A row reads `| id | what | `test`, `test` |`; what stands in backticks in the last column are names of test functions.
//! A feature whose proof is no Rust test (a page, a file of a deployment) names the test that reads that file.

use std::collections::HashSet;

use crate::tree::Tree;

/// The page.
const PAGE: &str = "docs/features.md";
/// What a function must be marked with to be a test.
const MARKS: [&str; 3] = ["#[test]", "#[tokio::test", "#[test_case"];

/// Rows without a test, and tests that do not exist.
pub(crate) fn features_have_tests(tree: &Tree) -> Vec<String> {
    let Some(page) = tree.get(PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let tests = test_names(tree);
    let rows = page
        .text()
        .lines()
        .zip(1..)
        .filter(|(line, _)| is_row(line));
    let broken = rows.flat_map(|(line, number)| {
        let named = named_tests(line);
        let lost = named.iter().filter(|name| !tests.contains(**name));
        let mut found: Vec<String> = lost
            .map(|name| format!("{PAGE}:{number}: there is no test {name}"))
            .collect();
        if named.is_empty() {
            found.push(format!("{PAGE}:{number}: names no test"));
        }
        found
    });
    broken.collect()
}

/// Whether a line is a row with an id such as `Z028`.
fn is_row(line: &str) -> bool {
    let Some(cell) = line
        .strip_prefix("| ")
        .and_then(|rest| rest.split(' ').next())
    else {
        return false;
    };
    let mut characters = cell.chars();
    let letter = characters.next().is_some_and(|c| c.is_ascii_uppercase());
    let digits = characters.as_str();
    letter && digits.len() == 3 && digits.bytes().all(|c| c.is_ascii_digit())
}

/// What stands in backticks in the last column.
fn named_tests(line: &str) -> Vec<&str> {
    let cells = line.trim_end().trim_end_matches('|');
    let last = cells.rsplit('|').next().unwrap_or_default();
    last.split('`').skip(1).step_by(2).collect()
}

/// Every test function of the checkout, by name.
fn test_names(tree: &Tree) -> HashSet<&str> {
    let mut names = HashSet::new();
    for file in tree.rust() {
        let mut marked = false;
        for line in file.text().lines().map(str::trim) {
            let signature = line.strip_prefix("async ").unwrap_or(line);
            if MARKS.iter().any(|mark| line.starts_with(mark)) {
                marked = true;
            } else if let Some(rest) = signature.strip_prefix("fn ") {
                // A property test has its mark inside the macro, as every other.
                if marked {
                    names.extend(rest.split(['(', '<']).next());
                }
                marked = false;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_from_other_lines_and_give_their_tests() {
        assert!(is_row("| Z028 | GET gives an object | `a_test` |"));
        assert!(!is_row("| id | what | test |"));
        assert!(!is_row("| --- | --- | --- |"));
        assert!(!is_row("Z028 is a row"));
        assert_eq!(
            named_tests("| Z028 | GET `x` gives it | `one_test`, `another_test` |"),
            ["one_test", "another_test"]
        );
        assert!(named_tests("| Z028 | GET | not yet |").is_empty());
    }
}
