//! Settings of access: tokens, users, and what callers without either may do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Secret, field::settings};

/// What callers without credentials may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnonymousPolicy {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl AnonymousPolicy {
    /// The name, as in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            AnonymousPolicy::None => "none",
            AnonymousPolicy::Read => "read",
            AnonymousPolicy::ReadWrite => "read-write",
        }
    }
}

/// What users of an htpasswd file may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserScope {
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read, write and look after the store.
    Admin,
}

settings! {
    /// Who may do what. While no token, user or fixed token exists, credentials are ignored.
    pub struct AuthConfig in "auth" {
        /// File of token hashes, as `zim token create` writes it; watched while serving.
        /// Absent, it is `zimcache/tokens.toml` in the user's configuration folder.
        tokens: Option<PathBuf> = None,
            accepts "the path of a file", flag "--tokens";
        /// File of users and bcrypt hashes, as `htpasswd -B` writes it; watched while serving.
        htpasswd: Option<PathBuf> = None,
            accepts "the path of a file", flag "--htpasswd";
        /// What the users of the htpasswd file may do, in every namespace.
        htpasswd_scope: UserScope = UserScope::Write,
            accepts "read, write or admin";
        /// One token that may read and write everywhere, for servers with a single secret. Never printed.
        #[serde(skip_serializing)]
        token: Option<Secret> = None,
            accepts "a text";
        /// File with the secret that signs the URLs handed out to clients of GitHub Actions' cache, at least 32 bytes, as
        /// `openssl rand -hex 32` writes it; watched while serving. Absent, each start has a secret of its own, so
        /// URLs handed out before it no longer hold; several servers behind one address need the same file.
        signing_key_file: Option<PathBuf> = None,
            accepts "the path of a file";
        /// What callers without credentials may do; absent, it is `read-write` when every address listened on is a
        /// loopback address, and `none` otherwise.
        anonymous: Option<AnonymousPolicy> = None,
            accepts "none, read or read-write", flag "--anonymous";
    }
}
