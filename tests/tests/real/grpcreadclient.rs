//! bazel-remote's own client of its gRPC tests, against our port: what it reads and writes with and without credentials.
//!
//! It gives a user's name and password in `:authority`, as Bazel does with those of a URL; it wants UNAUTHENTICATED where
//! it may do nothing, and health without credentials, by a service name of its own. Built once from the Go module proxy
//! into the user's cache folder by `.ci/needs`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::process::{Tool, said};
use zimcache_tests::report::{Turn, say, skip};
use zimcache_tests::server::{Serve, Server};

const USER: &str = "ada";
const PASSWORD: &str = "swordfish";
/// The user with the password, by bcrypt at its lowest cost.
const USERS: &str = "ada:$2y$04$u7TIhmJnJU2YXbp1471zLOE/vDpru6TousbhIYx/J5U7pn/Pd3fI.\n";
/// What it says of each call when everything went as it wanted.
const CALLS: [&str; 9] = [
    "GetCapabilities",
    "BatchReadBlobs",
    "FindMissingBlobsRequest",
    "GetActionResult",
    "BytestreamRead",
    "Health check",
    "BatchUpdateBlobs",
    "UpdateActionResult",
    "BytestreamWrite",
];

fn client() -> Result<PathBuf> {
    let path = cache_folder()?.join("bin/grpcreadclient-2.6.2");
    ensure!(path.is_file(), "{} is missing", path.display());
    Ok(path)
}

/// Runs it with credentials or without; every one of its calls has to end as it wants.
fn check(client: &Path, server: &Server, credentials: Option<(&str, &str)>) -> Result<()> {
    let mut tool = Tool::new(client, 60).args(["-server-addr", &server.address().to_string()]);
    if let Some((user, password)) = credentials {
        tool = tool.args(["-basic-auth-user", user, "-basic-auth-pass", password]);
    }
    let text = said(&tool.run_ok()?);
    for call in CALLS {
        let wanted = if credentials.is_some() || call == "Health check" {
            "succeeded"
        } else {
            "failed"
        };
        let line = format!("{call} {wanted}, as expected");
        ensure!(text.contains(&line), "no {line:?} in:\n{text}");
    }
    Ok(())
}

#[test]
fn the_test_client_of_bazel_remote_gets_what_it_wants_with_credentials_and_without() -> Result<()> {
    let _turn = Turn::shared()?;
    let client = match client() {
        Ok(path) => path,
        Err(error) => return skip("grpcreadclient", &format!("{error:#}")),
    };
    let folder = scratch("grpcreadclient")?;
    let users = folder.path().join("users");
    std::fs::write(&users, USERS)?;
    let users = users.to_str().context("a path that is text")?;
    let server = Serve::on(&folder.path().join("store"), "256MB")
        .flags(&["--anonymous", "none", "--htpasswd", users])
        .start()?;
    check(&client, &server, Some((USER, PASSWORD))).context("a user")?;
    check(&client, &server, None).context("nobody")?;
    server.stop()?;
    say(&format!(
        "grpcreadclient: {} calls as a user and as nobody",
        CALLS.len()
    ));
    Ok(())
}
