//! `cargo xtask images`: the product, Redis and an S3 server as container images, written as files to `target/images`.
//!
//! Each image is one program with the libraries it is linked to and nothing else: no base image, no shell, no package
//! manager, no network. Beside each `NAME.tar` (docker-archive, for `ctr images import` and `docker load`) lies
//! `NAME.cdx.json`, what is in it as CycloneDX. Not here: registries and signatures.
//! `--debug` is for tests of the cluster, which need no fast programs.
//! Invariants: the same programs give the same bytes; every image has the version of the workspace and the user 65532.

mod archive;
mod content;
mod recipe;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use self::{content::Content, recipe::Recipe, sbom::Workspace};
use crate::{cluster, tree::Tree};

/// What to pack.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the images go [default: target/images]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Packs programs of target/debug, which have been built already, instead of building those to release
    #[arg(long)]
    debug: bool,
    /// Only images of these names, e.g. zimcache
    names: Vec<String>,
}

/// Builds our programs and packs everything.
pub(crate) fn run(tree: &Tree, args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::of(&tree.root)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| tree.root.join("target/images"));
    fs::create_dir_all(&out)?;
    let profile = if args.debug { "debug" } else { "release" };
    let programs = cluster::target(&tree.root).join(profile);
    let recipes = recipe::all(&workspace, &programs)?;
    let wanted = |recipe: &&Recipe| {
        args.names.is_empty() || args.names.iter().any(|name| name == recipe.name)
    };
    let recipes: Vec<_> = recipes.iter().filter(wanted).collect();
    ensure!(!recipes.is_empty(), "there is no image of that name");
    if !args.debug {
        build(&tree.root, &recipes)?;
    }
    for recipe in recipes {
        pack(recipe, &workspace, &out).with_context(|| format!("image {}", recipe.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Our own programs, as they are released.
fn build(root: &Path, recipes: &[&Recipe]) -> Result<()> {
    let ours: Vec<_> = recipes.iter().filter_map(|recipe| recipe.bin).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let status = Command::new("cargo")
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(ours.iter().flat_map(|bin| ["--bin", bin]))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    Ok(())
}

fn pack(recipe: &Recipe, workspace: &Workspace, out: &Path) -> Result<()> {
    let mut content = Content::new();
    content.program(&recipe.program, recipe.path)?;
    for link in recipe.links {
        content.link(link, recipe.path);
    }
    content.certificates()?;
    let image = archive::Image {
        name: format!("localhost/{}:{}", recipe.name, workspace.version),
        title: recipe.title,
        version: &workspace.version,
        entry_point: recipe.path,
        layer: content.layer()?,
    };
    let file = out.join(format!("{}.tar", recipe.name));
    archive::write(&image, &file)?;
    let bill = sbom::bill(recipe, workspace, &content)?;
    fs::write(
        out.join(format!("{}.cdx.json", recipe.name)),
        serde_json::to_vec_pretty(&bill)?,
    )?;
    let mebibytes = image.layer.len() as f64 / f64::from(1 << 20);
    println!(
        "{:<40} {mebibytes:>6.1} MiB  {}",
        image.name,
        file.display()
    );
    Ok(())
}
