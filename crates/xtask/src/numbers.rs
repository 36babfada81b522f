//! Our row beside the codebases we compare ourselves with: size, documented files, function length, unwraps.
//!
//! Counted by line, generated code and fuzzing excluded: lines that are not blank in all Rust files; files that open
//! with `//!`; lengths of functions and `.unwrap()` calls outside tests.

use std::process::ExitCode;

use crate::{
    source,
    tree::{File, Tree},
};

/// What others look like in the middle of 2026: name, thousand lines, documented files in %, median and 95th
/// percentile of function lines, unwraps per thousand lines.
const OTHERS: &[(&str, f64, f64, usize, usize, f64)] = &[
    ("linkerd/linkerd2-proxy", 101.0, 16.0, 6, 37, 0.4),
    ("stackabletech/operator-rs", 47.0, 28.0, 6, 37, 0.1),
    ("foyer-rs/foyer", 25.0, 7.0, 4, 38, 5.7),
    ("kube-rs/kube", 41.0, 51.0, 7, 39, 2.4),
    ("slatedb/slatedb", 151.0, 32.0, 8, 48, 0.2),
    ("quickwit-oss/quickwit", 325.0, 21.0, 8, 53, 3.1),
    ("tokio-rs/mini-redis", 4.0, 30.0, 9, 54, 2.2),
    ("zhaofengli/attic", 14.0, 52.0, 8, 61, 7.5),
    ("deuxfleurs-org/garage", 55.0, 13.0, 10, 78, 7.3),
    ("TraceMachina/nativelink", 113.0, 7.0, 9, 84, 1.3),
    ("astral-sh/uv", 523.0, 19.0, 8, 90, 1.9),
    ("mozilla/sccache", 56.0, 6.0, 8, 95, 6.4),
];

/// Figures of one codebase.
#[derive(Debug, Default, PartialEq)]
struct Row {
    lines: usize,
    lines_outside_tests: usize,
    files: usize,
    documented_files: usize,
    /// Lengths of all functions outside tests, ascending.
    function_lines: Vec<usize>,
    unwraps: usize,
}

impl Row {
    fn of(tree: &Tree) -> Self {
        let mut row = Self::default();
        let counts = |file: &&File| !file.path.contains("/fuzz/") && !file.is_generated();
        for file in tree.rust().filter(counts) {
            let filled = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
            row.lines += filled(file.text());
            row.files += 1;
            row.documented_files += usize::from(file.text().starts_with("//!"));
            if file.is_test() {
                continue;
            }
            let code = source::without_tests(&source::blank(file.text()));
            row.lines_outside_tests += filled(&source::without_tests(file.text()));
            row.unwraps += code.matches(".unwrap()").count();
            let functions = source::functions(&code);
            row.function_lines
                .extend(functions.into_iter().map(|function| function.lines));
        }
        row.function_lines.sort_unstable();
        row
    }

    /// Function length below which so many percent of the functions stay.
    fn percentile(&self, percent: usize) -> usize {
        let at = self.function_lines.len() * percent / 100;
        self.function_lines.get(at).copied().unwrap_or_default()
    }
}

/// Prints the table.
pub(crate) fn run(tree: &Tree) -> ExitCode {
    println!(
        "{:<28} {:>6} {:>7} {:>7} {:>5} {:>13}",
        "", "kLOC", "//! %", "median", "P95", "unwraps/kLOC"
    );
    for (name, kloc, docs, median, p95, unwraps) in OTHERS {
        println!("{name:<28} {kloc:>6.1} {docs:>7.0} {median:>7} {p95:>5} {unwraps:>13.1}");
    }
    let row = Row::of(tree);
    println!(
        "{:<28} {:>6.1} {:>7.0} {:>7} {:>5} {:>13.1}",
        "ZimCache",
        row.lines as f64 / 1e3,
        100.0 * row.documented_files as f64 / row.files.max(1) as f64,
        row.percentile(50),
        row.percentile(95),
        1e3 * row.unwraps as f64 / row.lines_outside_tests.max(1) as f64,
    );
    println!(
        "{:<28} {:>6} {:>7} {:>7} {:>5} {:>13}",
        "where we want to be", "", 100, "<= 8", "<= 45", "< 0.3"
    );
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count_as_functions_or_unwraps_and_generated_code_not_at_all() {
        let text = "//! Doc.\nfn a() {\n    b().unwrap();\n}\n\n#[cfg(test)]\nmod tests {\n    fn c() {\n        d().unwrap()\n    }\n}\n";
        let file = |path: &str| File {
            path: path.into(),
            size_bytes: 0,
            text: Some(text.into()),
        };
        let row = Row::of(&Tree {
            root: "".into(),
            files: vec![
                file("a/src/lib.rs"),
                file("a/src/generated/c.rs"),
                file("a/tests/b.rs"),
            ],
        });
        assert_eq!((row.files, row.documented_files, row.lines), (2, 2, 20));
        assert_eq!(
            (row.function_lines.as_slice(), row.unwraps),
            ([3].as_slice(), 1)
        );
        assert_eq!(row.lines_outside_tests, 4);
    }
}
