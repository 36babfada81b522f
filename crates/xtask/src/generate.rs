//! Generated files: each is a path and the function that renders it; `--check` only compares.
//!
//! Sources of truth live in other crates; nothing is computed here.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result};

use crate::tree::{File, Tree};

/// Path below the root, and what renders it.
type Generated = (&'static str, fn() -> String);

const FILES: &[Generated] = &[("docs/config.md", zimcache_config::reference::render)];

/// Writes or compares every generated file.
pub(crate) fn run(tree: &Tree, check: bool) -> Result<ExitCode> {
    let stale: Vec<_> = FILES
        .iter()
        .filter(|(path, render)| is_stale(tree, path, &render()))
        .collect();
    for (path, render) in &stale {
        if check {
            println!("{path} is out of date: run `make gen`");
        } else {
            fs::write(tree.root.join(path), render())
                .with_context(|| format!("cannot write {path}"))?;
            println!("wrote {path}");
        }
    }
    println!(
        "gen: {} generated files, {} out of date",
        FILES.len(),
        stale.len()
    );
    Ok(ExitCode::from(u8::from(check && !stale.is_empty())))
}

fn is_stale(tree: &Tree, path: &str, rendered: &str) -> bool {
    tree.get(path).map(File::text) != Some(rendered)
}
