//! The bill of materials of an image, as CycloneDX 1.6: our crates and those they need, Go modules, Debian packages.
//!
//! Nothing is guessed: crates come from the lock file by `cargo metadata`, modules from the program itself, packages from
//! dpkg by the files that were taken. No time and no serial number, so that the same image has the same bill.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    content::Content,
    recipe::{Recipe, Source},
};

/// One part: its name, version, package URL and licence as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Component {
    purl: String,
    name: String,
    version: String,
    licence: Option<String>,
}

/// What cargo knows of this workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) version: String,
    metadata: Value,
}

impl Workspace {
    pub(super) fn of(root: &Path) -> Result<Workspace> {
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new("cargo")
            .current_dir(root)
            .args([
                "metadata",
                "--locked",
                "--format-version=1",
                "--filter-platform",
                &host,
            ])
            .output()
            .context("cannot run cargo")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo metadata: {complaint}");
        let metadata = serde_json::from_slice(&output.stdout)?;
        let mut workspace = Workspace {
            version: String::new(),
            metadata,
        };
        let zim = workspace.package("zimcache-zim")?;
        let version = zim["version"].as_str().context("the version of zim")?;
        workspace.version = version.to_owned();
        Ok(workspace)
    }

    /// Whether there is a package of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.package(name).is_ok()
    }

    fn package(&self, name: &str) -> Result<&Value> {
        let packages = self.metadata["packages"].as_array().into_iter().flatten();
        let mut ours = packages.filter(|package| package["source"].is_null());
        let found = ours.find(|package| package["name"] == name);
        found.with_context(|| format!("there is no package {name}"))
    }

    /// A package of ours and every crate that it is linked with.
    fn crates_of(&self, name: &str) -> Result<BTreeSet<Component>> {
        let nodes = self.metadata["resolve"]["nodes"]
            .as_array()
            .into_iter()
            .flatten();
        let needs: HashMap<&str, &Value> = nodes
            .filter_map(|node| Some((node["id"].as_str()?, &node["deps"])))
            .collect();
        let mut open = vec![self.package(name)?["id"].as_str().context("a package id")?];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                let deps = needs.get(id).and_then(|deps| deps.as_array());
                let deps = deps.into_iter().flatten();
                open.extend(
                    deps.filter(|dep| is_linked(dep))
                        .filter_map(|dep| dep["pkg"].as_str()),
                );
            }
        }
        let packages = self.metadata["packages"].as_array().into_iter().flatten();
        let wanted =
            packages.filter(|package| package["id"].as_str().is_some_and(|id| seen.contains(id)));
        wanted.map(crate_component).collect()
    }
}

/// Whether a dependency is neither for building nor for tests alone.
fn is_linked(dep: &Value) -> bool {
    let mut kinds = dep["dep_kinds"].as_array().into_iter().flatten();
    kinds.any(|kind| kind["kind"].is_null())
}

fn crate_component(package: &Value) -> Result<Component> {
    let text = |name: &str| package[name].as_str().map(ToOwned::to_owned);
    let name = text("name").context("the name of a crate")?;
    let version = text("version").context("the version of a crate")?;
    Ok(Component {
        purl: format!("pkg:cargo/{name}@{version}"),
        name,
        version,
        licence: text("license"),
    })
}

/// Everything that an image consists of.
pub(super) fn bill(recipe: &Recipe, workspace: &Workspace, content: &Content) -> Result<Value> {
    let mut components = debian_packages(content)?;
    match recipe.source {
        Source::Crate(name) => components.extend(workspace.crates_of(name)?),
        Source::Go => components.extend(go_modules(&recipe.program)?),
        Source::Debian => {}
    }
    ensure!(!components.is_empty(), "nothing is known of what is in it");
    let components: Vec<_> = components.iter().map(Component::json).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "container", "name": recipe.name, "version": workspace.version,
        }},
        "components": components,
    }))
}

impl Component {
    fn json(&self) -> Value {
        let mut json = json!({
            "type": "library", "bom-ref": self.purl, "name": self.name, "version": self.version, "purl": self.purl,
        });
        if let Some(licence) = &self.licence {
            // Old manifests write a slash where the expression has "OR".
            json["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        json
    }
}

/// The packages whose files are in the image.
fn debian_packages(content: &Content) -> Result<BTreeSet<Component>> {
    let mut packages = BTreeSet::from([debian_package("ca-certificates")?]);
    for file in &content.from_system {
        let Some(name) = owner(file) else { continue };
        packages.insert(debian_package(&name)?);
    }
    Ok(packages)
}

/// The package that a file belongs to. The same file may be known to dpkg by its path below /usr, or by the one above.
fn owner(file: &Path) -> Option<String> {
    let real = file.canonicalize().ok()?;
    let above = Path::new("/").join(real.strip_prefix("/usr").ok()?);
    [file, &real, &above].into_iter().find_map(|path| {
        let output = Command::new("dpkg").arg("-S").arg(path).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (owner, _) = text.lines().next()?.split_once(": ")?;
        output.status.success().then(|| owner.to_owned())
    })
}

fn debian_package(name: &str) -> Result<Component> {
    let output = Command::new("dpkg-query")
        .args([
            "--show",
            "--showformat=${Package} ${Version} ${Architecture}",
            name,
        ])
        .output()
        .context("cannot run dpkg-query")?;
    ensure!(output.status.success(), "dpkg does not know {name}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<_> = text.split(' ').collect();
    let [name, version, architecture] = words[..] else {
        bail!("dpkg-query said {text}");
    };
    Ok(Component {
        purl: format!(
            "pkg:deb/debian/{name}@{}?arch={architecture}",
            version.replace('+', "%2B")
        ),
        name: name.to_owned(),
        version: version.to_owned(),
        licence: None,
    })
}

/// The modules that a program of Go was built of.
fn go_modules(program: &Path) -> Result<BTreeSet<Component>> {
    let go = ["go", "/usr/local/go/bin/go"];
    let ask = |go: &&str| {
        Command::new(go)
            .args(["version", "-m"])
            .arg(program)
            .output()
            .ok()
    };
    let output = go
        .iter()
        .find_map(ask)
        .context("Go is needed to list its modules")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go version: {complaint}");
    Ok(parse_modules(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines such as `dep  golang.org/x/sys  v0.38.0  h1:…`.
fn parse_modules(text: &str) -> BTreeSet<Component> {
    let module = |line: &str| {
        let mut words = line.split_whitespace();
        matches!(words.next()?, "dep" | "mod").then_some(())?;
        let (name, version) = (words.next()?, words.next()?);
        Some(Component {
            purl: format!("pkg:golang/{name}@{version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            licence: None,
        })
    };
    text.lines().filter_map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_what_go_says() {
        let text = "x: go1.26\n\tpath\tcmd/x\n\tmod\ttool\t(devel)\t\n\tdep\tgolang.org/x/sys\tv0.38.0\th1:abc=\n";
        let names: Vec<_> = parse_modules(text)
            .into_iter()
            .map(|module| module.purl)
            .collect();
        assert_eq!(
            names,
            [
                "pkg:golang/golang.org/x/sys@v0.38.0",
                "pkg:golang/tool@(devel)"
            ]
        );
    }

    #[test]
    fn a_bill_of_the_program_names_what_it_is_linked_with() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let workspace = Workspace::of(&root).expect("the workspace");
        let crates = workspace.crates_of("zimcache-zim").expect("crates");
        let has = |name: &str| crates.iter().any(|part| part.name == name);
        assert!(has("zimcache-gateway") && has("tokio") && has("rustls"));
        assert!(!has("proptest"), "only for tests");
    }
}
