//! Which images there are, and where their programs come from.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::sbom::Workspace;
use crate::{cluster, cluster::S3_PROGRAM};

/// Where the parts of a program come from, for the bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A package of this workspace, with its crates.
    Crate(&'static str),
    /// Go modules, which the program itself lists.
    Go,
    /// A package of Debian.
    Debian,
}

/// An image to be.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The file on this machine.
    pub(super) program: PathBuf,
    /// Its path in the image, and the entry point.
    pub(super) path: &'static str,
    /// Other names of the program.
    pub(super) links: &'static [&'static str],
    /// The target of cargo that makes it, if it is ours.
    pub(super) bin: Option<&'static str>,
    pub(super) source: Source,
}

/// All of them, ours with the programs of this folder, which may not be built yet.
pub(super) fn all(workspace: &Workspace, programs: &Path) -> Result<Vec<Recipe>> {
    let mut recipes = vec![Recipe {
        name: "zimcache",
        title: "ZimCache, one build cache for every build tool",
        program: programs.join("zim"),
        path: "/usr/bin/zim",
        links: &["/usr/bin/zim-gateway", "/usr/bin/zim-node"],
        bin: Some("zim"),
        source: Source::Crate("zimcache-zim"),
    }];
    let operator = "zimcache-operator";
    if workspace.has(operator) {
        recipes.push(Recipe {
            name: operator,
            title: "The operator of ZimCache for Kubernetes",
            program: programs.join("zim-operator"),
            path: "/usr/bin/zim-operator",
            links: &[],
            bin: Some("zim-operator"),
            source: Source::Crate(operator),
        });
    }
    recipes.push(Recipe {
        name: "zimcache-redis",
        title: "Redis, for trying out the limits that gateways share",
        program: cluster::installed("redis-server")?.into(),
        path: "/usr/bin/redis-server",
        links: &[],
        bin: None,
        source: Source::Debian,
    });
    recipes.push(Recipe {
        name: "zimcache-versitygw",
        title: "An S3 server on a folder, for trying out the durable tier",
        program: cluster::tool(S3_PROGRAM)?,
        path: "/usr/bin/versitygw",
        links: &[],
        bin: None,
        source: Source::Go,
    });
    Ok(recipes)
}
