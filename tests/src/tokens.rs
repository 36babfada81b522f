//! A server's tokens, made as operators make them: by `zim token create`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process::zim;

/// A token that no server knows, in the usual form.
pub const UNKNOWN: &str = "zim_aaaa2222_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The file in which a server finds its tokens.
#[derive(Debug)]
pub struct Tokens {
    file: PathBuf,
}

impl Tokens {
    /// Tokens kept in a folder.
    pub fn in_folder(folder: &Path) -> Tokens {
        Tokens {
            file: folder.join("tokens"),
        }
    }

    /// The flags that tell a server where its tokens are.
    ///
    /// # Errors
    /// When the path is not text.
    pub fn flags(&self) -> Result<[&str; 2]> {
        Ok([
            "--tokens",
            self.file.to_str().context("a path that is text")?,
        ])
    }

    /// Makes a token for a namespace; scope is `read`, `write` or `admin`.
    ///
    /// # Errors
    /// When `zim` refuses.
    pub fn create(&self, namespace: &str, scope: &str) -> Result<String> {
        let output = zim(30)?
            .args([
                "token",
                "create",
                "--namespace",
                namespace,
                "--scope",
                scope,
            ])
            .args(["--file".as_ref(), self.file.as_os_str()])
            .run_ok()?;
        let text = String::from_utf8(output.stdout)?;
        let token = text
            .split_whitespace()
            .find(|word| word.starts_with("zim_"));
        let token = token.with_context(|| format!("no token in {text:?}"))?;
        ensure!(token.len() >= 32, "a token that can be guessed: {token}");
        Ok(token.to_owned())
    }
}
