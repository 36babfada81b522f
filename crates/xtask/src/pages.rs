//! House rules about pages: what the README must have, and that links and names in pages lead somewhere.
//!
//! Each rule is a function from the tree to its complaints; [`crate::tidy`] lists and tests them.

use crate::tree::{File, Tree};

/// The README has two `sh` blocks, and a quick start they belong to.
pub(crate) fn readme_blocks(tree: &Tree) -> Vec<String> {
    let readme = tree.get("README.md").map(File::text).unwrap_or_default();
    let blocks = readme.lines().filter(|line| line.trim() == "```sh").count();
    let starts = readme.lines().position(|line| line == "## Quick start");
    match (blocks, starts) {
        (2, Some(_)) => Vec::new(),
        _ => vec![format!(
            "README.md has {blocks}, quick start at line {starts:?}"
        )],
    }
}

/// Relative links of every Markdown page.
pub(crate) fn page_links(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for page in tree
        .files
        .iter()
        .filter(|file| file.extension() == Some("md"))
    {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, _) in page.text().match_indices("](") {
            let rest = &page.text()[at + 2..];
            let link = rest.split([')', '#', ' ']).next().unwrap_or_default();
            let is_outside = link.is_empty() || link.contains("://");
            if !is_outside && !exists(tree, &join(folder, link)) {
                broken.push(format!("{}: {link}", page.path));
            }
        }
    }
    broken
}

/// Pages below `docs` that comments of the source point to, in backticks.
pub(crate) fn pages_named_in_source(tree: &Tree) -> Vec<String> {
    let in_file = |file: &File| {
        let comments = file
            .text()
            .lines()
            .filter(|line| line.trim().starts_with("//"));
        let names = comments.flat_map(|line| line.split('`').skip(1).step_by(2));
        let lost = names.filter(|name| name.starts_with("docs/") && !exists(tree, name));
        lost.map(|name| format!("{}: {name}", file.path))
            .collect::<Vec<_>>()
    };
    tree.rust().flat_map(in_file).collect()
}

/// The path that `link` means in `folder`, both with `/`.
fn join(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Whether a file or folder of that path exists.
fn exists(tree: &Tree, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let inside = |file: &File| {
        file.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    tree.get(path).is_some() || tree.files.iter().any(inside)
}

/// Paths (with a `/`) and functions (with `()`) that the architecture page names in backticks.
pub(crate) fn named_things(tree: &Tree) -> Vec<String> {
    let Some(page) = tree.get("ARCHITECTURE.md") else {
        return vec!["ARCHITECTURE.md is missing".to_owned()];
    };
    // Every second piece between backticks; fenced blocks are pictures.
    let fences = page.text().split("```").step_by(2);
    let names = fences.flat_map(|text| text.split('`').skip(1).step_by(2));
    let is_wrong = |name: &&str| match name.strip_suffix("()") {
        Some(function) => !is_function(tree, function),
        None => is_path(name) && !exists(tree, name),
    };
    names
        .filter(is_wrong)
        .map(|name| format!("ARCHITECTURE.md: {name}"))
        .collect()
}

/// Whether it is a path below one of our folders.
fn is_path(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let folder = name.split_once('/').map_or("", |(folder, _)| folder);
    let ours = ["gateway", "node", "crates", "tests", "docs", ".ci"].contains(&folder);
    ours && name.chars().all(plain)
}

/// Whether `function` or `Type::function` is declared outside tests.
fn is_function(tree: &Tree, function: &str) -> bool {
    let name = function.rsplit("::").next().unwrap_or(function);
    let declarations = ["(", "<"].map(|open| format!("fn {name}{open}"));
    let declared = |file: &File| declarations.iter().any(|it| file.text().contains(it));
    tree.rust().filter(|file| !file.is_test()).any(declared)
}
