//! Generated files: each is a path and what was rendered for it; `--check` only compares.
//!
//! Sources of truth live in other crates; nothing is computed here.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result};

use crate::{protos, tree::Tree};

/// Path below the root, and content.
type Generated = (String, Vec<u8>);

fn render(tree: &Tree) -> Result<Vec<Generated>> {
    let config = zimcache_config::reference::render();
    let mut files = protos::render(tree)?;
    files.push(("docs/config.md".to_owned(), config.into_bytes()));
    let definition = zimcache_operator::crd::definition_yaml();
    for folder in ["crds", "charts/zimcache/crds"] {
        let path = format!("{folder}/zimcache.dev_zimcaches.yaml");
        files.push((path, definition.clone().into_bytes()));
    }
    Ok(files)
}

/// Writes or compares every generated file.
pub(crate) fn run(tree: &Tree, check: bool) -> Result<ExitCode> {
    let files = render(tree)?;
    let stale: Vec<_> = files.iter().filter(|file| is_stale(tree, file)).collect();
    for (path, content) in &stale {
        if check {
            println!("{path} is out of date: run `make gen`");
        } else {
            fs::write(tree.root.join(path), content)
                .with_context(|| format!("cannot write {path}"))?;
            println!("wrote {path}");
        }
    }
    println!(
        "gen: {} generated files, {} out of date",
        files.len(),
        stale.len()
    );
    Ok(ExitCode::from(u8::from(check && !stale.is_empty())))
}

fn is_stale(tree: &Tree, (path, content): &Generated) -> bool {
    fs::read(tree.root.join(path)).ok().as_ref() != Some(content)
}
