//! What `zim setup TOOL` tells a user to configure, applied as a user would: the suites of real clients use nothing else.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{Tool, zim};

/// Files and variables.
#[derive(Debug)]
pub struct Setup {
    files: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// Asks for the settings of a tool. Without a namespace, the token says which one is meant.
    ///
    /// # Errors
    /// When `zim` fails or does not answer with JSON of the known form.
    pub fn of(tool: &str, url: &str, token: &str, namespace: Option<&str>) -> Result<Setup> {
        let mut flags = vec!["--token", token];
        if let Some(namespace) = namespace {
            flags.extend(["--namespace", namespace]);
        }
        Setup::with(tool, url, &flags)
    }

    /// The same for a server that wants no token.
    ///
    /// # Errors
    /// As [`Setup::of`].
    pub fn without_token(tool: &str, url: &str) -> Result<Setup> {
        Setup::with(tool, url, &[])
    }

    fn with(tool: &str, url: &str, flags: &[&str]) -> Result<Setup> {
        let command = zim(30)?
            .args(["setup", tool, "--format", "json", "--url", url])
            .args(flags);
        // Without a home there are no settings of the tester's own.
        let output = command.clear_env().env("PATH", "/usr/bin:/bin").run_ok()?;
        let setup: Value = serde_json::from_slice(&output.stdout)?;
        let mut found = Setup {
            files: Vec::new(),
            variables: Vec::new(),
        };
        for file in setup["files"].as_array().context("files")? {
            found
                .files
                .push((text(&file["path"])?, text(&file["text"])?));
        }
        for (name, value) in setup["variables"].as_object().context("variables")? {
            found.variables.push((name.clone(), text(value)?));
        }
        Ok(found)
    }

    /// Appends each file's lines to what is there, below the root of a project.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append_to(&self, root: &Path, existing: &str) -> Result<()> {
        for (path, lines) in &self.files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().context("a file below the root")?)?;
            std::fs::write(&path, format!("{existing}{lines}"))?;
        }
        Ok(())
    }

    /// Sets the variables.
    #[must_use]
    pub fn env(&self, tool: Tool) -> Tool {
        let variables = self.variables.iter();
        variables.fold(tool, |tool, (name, value)| tool.env(name, value))
    }
}

fn text(value: &Value) -> Result<String> {
    let text = value
        .as_str()
        .with_context(|| format!("{value} is no text"))?;
    Ok(text.to_owned())
}
