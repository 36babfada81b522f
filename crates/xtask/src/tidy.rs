//! House rules that no compiler checks, each a function from the tree to its complaints.
//!
//! Run as `cargo xtask tidy` and as a test of this crate. Sizes are shown, never judged. Patterns that would find
//! themselves here are put together with `concat!`.

use std::process::ExitCode;

use crate::{
    features, pages, source,
    tree::{File, Tree},
};

/// Files longer than this (lines outside tests) are listed.
const LONG_FILE_LINES: usize = 400;
/// Functions longer than this are listed.
const LONG_FUNCTION_LINES: usize = 70;
/// Largest file that is neither text nor a fixture, in bytes.
const BINARY_LIMIT_BYTES: u64 = 256 << 10;

/// A rule, and the sentence it stands for.
type Rule = (&'static str, fn(&Tree) -> Vec<String>);

const RULES: &[Rule] = &[
    ("every Rust file opens with //!", module_docs),
    ("no debris and no big binaries", debris),
    ("what is to do has a number: TODO(#n)", open_ends),
    ("nothing is left open: no stub, no ignored test", stubs),
    ("no path of one machine", machine_paths),
    ("every Rust file is a module of something", dead_files),
    ("packages are named after their folder", package_names),
    ("the README has exactly two sh blocks", pages::readme_blocks),
    ("protocol files keep their order", protocol_order),
    ("no build settings in .cargo/config.toml", cargo_config),
    (
        "comments name pages that exist",
        pages::pages_named_in_source,
    ),
    ("links between pages lead somewhere", pages::page_links),
    ("ARCHITECTURE.md names what exists", pages::named_things),
    (
        "every feature names tests that exist",
        features::features_have_tests,
    ),
];

/// Checks every rule and shows what is long.
pub(crate) fn run(tree: &Tree) -> ExitCode {
    let complaints = complaints(tree);
    for complaint in &complaints {
        println!("{complaint}");
    }
    show_sizes(tree);
    println!(
        "tidy: {} rules, {} files, {} complaints",
        RULES.len(),
        tree.files.len(),
        complaints.len()
    );
    ExitCode::from(u8::from(!complaints.is_empty()))
}

fn complaints(tree: &Tree) -> Vec<String> {
    let each = |(rule, check): &Rule| {
        let broken = |found: String| format!("{found}: {rule}");
        check(tree).into_iter().map(broken).collect::<Vec<_>>()
    };
    RULES.iter().flat_map(each).collect()
}

fn module_docs(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| !file.text().starts_with("//!"))
        .map(|file| file.path.clone())
        .collect()
}

fn debris(tree: &Tree) -> Vec<String> {
    let is_debris = |file: &&File| {
        let left_over = matches!(
            file.extension(),
            Some("orig" | "rej" | "bak" | "swp" | "tmp")
        );
        left_over
            || file.path.ends_with('~')
            || (file.text.is_none() && file.size_bytes > BINARY_LIMIT_BYTES)
    };
    let debris = tree.files.iter().filter(is_debris);
    debris.map(|file| file.path.clone()).collect()
}

fn open_ends(tree: &Tree) -> Vec<String> {
    let numbered = |rest: &str| {
        let digits = rest
            .strip_prefix("(#")
            .and_then(|rest| rest.split_once(')'));
        digits.is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    lines_with(tree, |line| {
        let mark = concat!("TO", "DO");
        let bare = line
            .match_indices(mark)
            .any(|(at, _)| !numbered(&line[at + mark.len()..]));
        (bare && !line.contains("TODO(#n)"))
            || [concat!("FIX", "ME"), concat!("XX", "X ")]
                .iter()
                .any(|mark| line.contains(mark))
    })
}

fn stubs(tree: &Tree) -> Vec<String> {
    let open = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
    ];
    lines_with(tree, |line| open.iter().any(|mark| line.contains(mark)))
}

/// Lines of Rust source that a test holds for, as `path:line`.
fn lines_with(tree: &Tree, holds: impl Fn(&str) -> bool) -> Vec<String> {
    let in_file = |file: &File| {
        let numbered = file.text().lines().zip(1..);
        let hits = numbered.filter(|(line, _)| holds(line));
        hits.map(|(_, n)| format!("{}:{n}", file.path))
            .collect::<Vec<_>>()
    };
    tree.rust().flat_map(in_file).collect()
}

fn machine_paths(tree: &Tree) -> Vec<String> {
    let foreign = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
    ];
    // A path begins after a blank, a quote or `=`; elsewhere it is the tail of a URL or of a relative path.
    let begins =
        |before: &str| before.is_empty() || before.ends_with([' ', '"', '\'', '`', '=', '(', ':']);
    let found = |line: &str| {
        let starts = |mark: &str| line.match_indices(mark).any(|(at, _)| begins(&line[..at]));
        foreign.iter().any(|mark| starts(mark))
    };
    let in_file = |file: &File| {
        let numbered = file.text().lines().zip(1..);
        let hits = numbered.filter(|(line, _)| found(line));
        hits.map(|(_, n)| format!("{}:{n}", file.path))
            .collect::<Vec<_>>()
    };
    tree.files.iter().flat_map(in_file).collect()
}

fn dead_files(tree: &Tree) -> Vec<String> {
    let dead = |file: &&File| {
        let Some((folder, name)) = file.path.rsplit_once('/') else {
            return false;
        };
        let stem = name.trim_end_matches(".rs");
        let is_root = matches!(stem, "main" | "lib" | "build")
            || ["bin", "tests", "benches", "examples", "fuzz_targets"]
                .iter()
                .any(|root| folder == *root || folder.ends_with(&format!("/{root}")));
        !is_root && !is_declared(tree, folder, stem)
    };
    tree.rust()
        .filter(dead)
        .map(|file| file.path.clone())
        .collect()
}

/// Whether the parent of the file declares it as a module, or some file includes it by path.
fn is_declared(tree: &Tree, folder: &str, stem: &str) -> bool {
    let (module, folder) = match (stem, folder.rsplit_once('/')) {
        ("mod", Some((above, own))) => (own, above),
        _ => (stem, folder),
    };
    let beside = ["mod.rs", "lib.rs", "main.rs"].map(|name| format!("{folder}/{name}"));
    let mut parents: Vec<_> = beside.iter().filter_map(|path| tree.get(path)).collect();
    parents.extend(tree.get(&format!("{folder}.rs")));
    // `tests/<suite>/part.rs` and `bin/<tool>/part.rs` hang below any file of their folder.
    parents.extend(tree.rust().filter(|file| {
        file.path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.matches('/').count() == 1)
    }));
    let declares = |file: &&File| {
        let text = file.text();
        text.contains(&format!("mod {module};")) || text.contains(&format!("mod {module} {{"))
    };
    parents.iter().any(declares)
}

fn package_names(tree: &Tree) -> Vec<String> {
    let misnamed = |file: &&File| {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else {
            return false;
        };
        let expected = match folder.strip_suffix("/fuzz") {
            Some(of) => format!("zimcache-{}-fuzz", last_part(of)),
            None => format!("zimcache-{}", last_part(folder)),
        };
        !file
            .text()
            .lines()
            .any(|line| line == format!("name = \"{expected}\""))
    };
    tree.files
        .iter()
        .filter(misnamed)
        .map(|file| file.path.clone())
        .collect()
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A protocol file opens with its specification, then the routes; wire tests come last.
fn protocol_order(tree: &Tree) -> Vec<String> {
    let is_protocol = |file: &&File| {
        let name = file.path.strip_prefix("gateway/src/protocol/");
        name.is_some_and(|name| name != "mod.rs" && !file.is_test() && !name.contains('/'))
    };
    tree.rust()
        .filter(is_protocol)
        .flat_map(protocol_complaints)
        .collect()
}

fn protocol_complaints(file: &File) -> Vec<String> {
    let docs: String = file
        .text()
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .collect();
    let code = source::without_tests(&source::blank(file.text()));
    let functions = source::functions(&code);
    let mut found = Vec::new();
    if !docs.contains("http") {
        found.push(format!("{} names no specification", file.path));
    }
    if !docs.contains("Tried") {
        found.push(format!(
            "{} does not say which client versions it was tried with",
            file.path
        ));
    }
    if functions.first().is_none_or(|first| first.name != "routes") {
        found.push(format!("{} does not begin with routes()", file.path));
    }
    found
}

fn cargo_config(tree: &Tree) -> Vec<String> {
    let config = tree
        .get(".cargo/config.toml")
        .map(File::text)
        .unwrap_or_default();
    let other = |line: &&str| line.starts_with('[') && *line != "[alias]";
    config
        .lines()
        .filter(other)
        .map(|line| format!(".cargo/config.toml {line}"))
        .collect()
}

fn show_sizes(tree: &Tree) {
    let ours = |file: &&File| !file.is_test() && !file.is_generated();
    for file in tree.rust().filter(ours) {
        let code = source::without_tests(&source::blank(file.text()));
        let lines = source::without_tests(file.text()).lines().count();
        if lines > LONG_FILE_LINES {
            println!("shown: {} has {lines} lines outside tests", file.path);
        }
        for function in source::functions(&code) {
            if function.lines > LONG_FUNCTION_LINES {
                println!(
                    "shown: {}() in {} has {} lines",
                    function.name, file.path, function.lines
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        let found = complaints(&Tree::find().unwrap());
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    fn write(root: &Path, path: &str, text: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn every_rule_finds_its_offence() {
        let root = tempfile::tempdir().unwrap();
        let offences: [(&str, String); 10] = [
            (
                "ARCHITECTURE.md",
                "`lost/file.rs`, `lost()`, [x](lost.md)\n".into(),
            ),
            ("gateway/src/lib.rs", "mod protocol;\n".into()),
            (
                "gateway/src/protocol/mod.rs",
                "//! Table.\nmod odd;\n".into(),
            ),
            (
                "gateway/src/protocol/odd.rs",
                "//! See `docs/lost.md`.\nfn parse() {}\n".into(),
            ),
            (
                "gateway/src/lost.rs",
                format!("//! Nobody's.\n// {}: later\n", concat!("TO", "DO")),
            ),
            (
                "node/src/lib.rs",
                format!("//! Stub.\nfn f() {{ {}) }}\n", concat!("todo", "!(")),
            ),
            ("node/Cargo.toml", "name = \"storage\"\n".into()),
            (
                "README.md",
                "## Quick start\n```sh\nmake test\n```\n".into(),
            ),
            (
                "docs/a.md.orig",
                format!("see {}x/y\n", concat!("/Us", "ers/")),
            ),
            (".cargo/config.toml", "[alias]\n[build]\n".into()),
        ];
        for (path, text) in &offences {
            write(root.path(), path, text.as_bytes());
        }
        write(root.path(), "target/CACHEDIR.TAG", b"");
        write(root.path(), "target/x.rs", b"");
        let tree = Tree::read(root.path()).unwrap();
        for (rule, check) in RULES {
            assert!(!check(&tree).is_empty(), "nothing found by: {rule}");
        }
    }

    #[test]
    fn numbered_work_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "a/src/lib.rs",
            b"//! Fine.\n// TODO(#12): later\n",
        );
        assert!(open_ends(&Tree::read(root.path()).unwrap()).is_empty());
    }
}
