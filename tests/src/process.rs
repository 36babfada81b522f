//! Running tools to their end, with a time limit and with everything they said kept for the failure text.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::environment::zim_binary;

/// Finds a program on the search path.
pub fn has_program(name: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v -- \"$1\"", "sh", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A tool to run: arguments and variables are added, then [`Tool::run`] or [`Tool::run_ok`].
#[derive(Debug)]
pub struct Tool {
    name: String,
    command: Command,
}

impl Tool {
    /// A tool that is stopped, with its process group, after `limit_seconds`.
    pub fn new(program: impl AsRef<OsStr>, limit_seconds: u32) -> Tool {
        let name = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &limit_seconds.to_string()]);
        command.arg(program).stdin(Stdio::null());
        Tool { name, command }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Tool {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Tool {
        self.command.env(name, value);
        self
    }

    /// Forgets the tester's environment and what was set until now.
    #[must_use]
    pub fn clear_env(mut self) -> Tool {
        self.command.env_clear();
        self
    }

    /// Sets the folder it runs in.
    #[must_use]
    pub fn current_dir(mut self, folder: &Path) -> Tool {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started or ran out of time.
    pub fn run(mut self) -> Result<Output> {
        let output = self.command.output();
        let output = output.with_context(|| format!("starting {}", self.name))?;
        if output.status.code() == Some(124) {
            bail!("{} ran out of time:\n{}", self.name, said(&output));
        }
        Ok(output)
    }

    /// Runs it to its end and demands success.
    ///
    /// # Errors
    /// When it fails; the text holds what it said.
    pub fn run_ok(self) -> Result<Output> {
        let name = self.name.clone();
        let output = self.run()?;
        if !output.status.success() {
            bail!("{name} ended with {}:\n{}", output.status, said(&output));
        }
        Ok(output)
    }
}

/// The binary under test as a tool: for `zim cache verify` and its like.
///
/// # Errors
/// When it has not been built.
pub fn zim(limit_seconds: u32) -> Result<Tool> {
    Ok(Tool::new(zim_binary()?, limit_seconds))
}

/// Both output streams as text.
pub fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}
