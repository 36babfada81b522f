//! Real Bazel over gRPC, with both releases that can be had: Debian's 4.2.3 and npm's 2.1.0.
//!
//! Build, wipe, build again: everything has to be a remote hit, byte for byte. Then what goes wrong in life: a server
//! that dies, outputs that are lost, callers who may only read, credentials that are wrong.

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::bazel::{Release, Workspace, digest_of_input};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http;
use zimcache_tests::relay::{Relay, killed_with};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};
use zimcache_tests::tokens::{self, Tokens};

const ACTIONS: u64 = Workspace::C_ACTIONS;
const STEPS: u64 = Workspace::STEPS;
const SMALL_INPUT_BYTES: usize = 300_000;
/// More than any limit of a message or a batch, and not a multiple of anything.
const LARGE_INPUT_BYTES: usize = 70_000_001;
/// How much of the large upload arrives before the server is killed.
const CUT_BYTES: u64 = 40_000_000;
/// How much of that the server has to hold after its restart, at least.
const LEAST_HELD_BYTES: u64 = 10_000_000;
const NAMESPACE: &str = "acme";
const INSTANCE: &str = "team/ios";
/// What Bazel says when its first call fails.
const NO_CAPABILITIES: &str = "Failed to query remote execution capabilities";

/// The flag that names a cache; `credentials` is empty or ends with `@`.
fn remote(server: &Server, credentials: &str) -> String {
    format!("--remote_cache=grpc://{credentials}{}", server.address())
}

fn instance(name: &str) -> String {
    format!("--remote_instance_name={name}")
}

fn hits_everything(release: Release) -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::of_c(release)?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let flags = [remote(&server, "")];

    let first = workspace.build(&flags)?;
    first.demand(ACTIONS, ACTIONS)?;
    ensure!(first.outputs.len() > 20, "{:?}", first.outputs.keys());
    let again = workspace.build(&flags)?;
    again.demand_all_of(&first, ACTIONS).context("plain")?;

    let flags = [remote(&server, ""), instance(INSTANCE)];
    let other = workspace.build(&flags)?;
    other
        .demand(ACTIONS, ACTIONS)
        .context("an instance is a room of its own")?;
    let again = workspace.build(&flags)?;
    again
        .demand_all_of(&other, ACTIONS)
        .context("with an instance name")?;

    server.kill_9()?;
    let server = serve.start()?;
    for flags in [
        vec![remote(&server, "")],
        vec![remote(&server, ""), instance(INSTANCE)],
    ] {
        let again = workspace.build(&flags)?;
        again
            .demand_all_of(&first, ACTIONS)
            .context("after kill -9")?;
    }
    server.stop()?;
    say(&format!(
        "bazel over gRPC, {release:?}: {ACTIONS} actions, 6 builds after a wipe, 2 instances"
    ));
    Ok(())
}

#[test]
fn a_second_build_of_bazel_4_hits_everything_also_after_a_kill() -> Result<()> {
    hits_everything(Release::Debian4)
}

#[test]
fn a_second_build_of_bazel_2_hits_everything_also_after_a_kill() -> Result<()> {
    hits_everything(Release::Upstream2)
}

/// Removes a blob over HTTP, as `zim cache rm` does.
fn remove_blob(server: &Server, digest: &str) -> Result<()> {
    let path = format!("/cas/{digest}");
    let removed = http::once(server.address(), "DELETE", &path, &[], None)?;
    ensure!(removed.status == 204, "DELETE {path}: {}", removed.status);
    Ok(())
}

fn runs_again_what_was_lost(release: Release) -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::of_steps(release, SMALL_INPUT_BYTES)?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "1GB").start()?;
    let flags = [remote(&server, "")];

    let first = workspace.build(&flags)?;
    first.demand(STEPS, STEPS)?;
    let output = digest_of_input(SMALL_INPUT_BYTES);
    let message = content::sha256(b"now loud\n");
    for (lost, what) in [(output, "an output"), (message, "a message")] {
        remove_blob(&server, &lost)?;
        let again = workspace.build(&flags)?;
        again.demand(STEPS, 1).context(what)?;
        ensure!(again.outputs == first.outputs, "the outputs differ: {what}");
        let healed = workspace.build(&flags)?;
        healed.demand_all_of(&first, STEPS).context(what)?;
    }
    server.stop()?;
    say(&format!(
        "bazel over gRPC, {release:?}: 2 blobs removed behind action results"
    ));
    Ok(())
}

#[test]
fn bazel_4_runs_an_action_again_whose_result_lost_a_blob() -> Result<()> {
    runs_again_what_was_lost(Release::Debian4)
}

#[test]
fn bazel_2_runs_an_action_again_whose_result_lost_a_blob() -> Result<()> {
    runs_again_what_was_lost(Release::Upstream2)
}

/// A server with two tokens, and nothing for callers without one.
struct Guarded {
    server: Server,
    write: String,
    read: String,
    _storage: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Result<Guarded> {
        let storage = scratch("store")?;
        let tokens = Tokens::in_folder(storage.path());
        let write = tokens.create(NAMESPACE, "write")?;
        let read = tokens.create(NAMESPACE, "read")?;
        let serve = Serve::on(&storage.path().join("store"), "1GB")
            .flags(&["--anonymous", "none"])
            .flags(&tokens.flags()?);
        Ok(Guarded {
            server: serve.start()?,
            write,
            read,
            _storage: storage,
        })
    }

    /// The ways to give Bazel a token: in the URL, which Bazel sends as `:authority`, and as a header, which 2.1.0 leaves
    /// out of its first call and of its uploads.
    fn ways(&self, release: Release, token: &str) -> Vec<Vec<String>> {
        let mut ways = vec![vec![remote(&self.server, &format!("anyone:{token}@"))]];
        if release == Release::Debian4 {
            let header = format!("--remote_header=Authorization=Bearer {token}");
            ways.push(vec![remote(&self.server, ""), header]);
        }
        ways
    }
}

fn demand_absent(guarded: &Guarded, digest: &str) -> Result<()> {
    let path = format!("/cas/{digest}");
    let credentials = format!("Authorization: Bearer {}", guarded.read);
    let answer = http::once(
        guarded.server.address(),
        "GET",
        &path,
        &[&credentials],
        None,
    )?;
    ensure!(answer.status == 404, "a refused blob: {}", answer.status);
    Ok(())
}

fn reads_but_writes_nothing(release: Release) -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::of_steps(release, SMALL_INPUT_BYTES)?;
    let guarded = Guarded::start()?;
    for flags in guarded.ways(release, &guarded.read) {
        let refused = workspace.build(&flags)?;
        refused.demand_counts(STEPS, STEPS)?;
        ensure!(
            refused.text.contains("Writing to Remote Cache:"),
            "no word of refused writes: {}",
            refused.text
        );
    }
    demand_absent(&guarded, &digest_of_input(SMALL_INPUT_BYTES))?;
    let mut builds = Vec::new();
    for flags in guarded.ways(release, &guarded.write) {
        let named = [flags.clone(), vec![instance(NAMESPACE)]].concat();
        builds.push(workspace.build(&flags)?);
        builds.push(workspace.build(&named)?);
    }
    let (first, others) = builds.split_first().context("a build")?;
    first
        .demand(STEPS, STEPS)
        .context("what was refused was stored")?;
    for other in others {
        other.demand_all_of(first, STEPS).context("writer")?;
    }
    for flags in guarded.ways(release, &guarded.read) {
        let again = workspace.build(&flags)?;
        again.demand_all_of(first, STEPS).context("reader")?;
    }
    for flags in guarded.ways(release, tokens::UNKNOWN) {
        let (code, text) = workspace.attempt(&flags)?;
        let clear = text.contains(NO_CAPABILITIES) && text.contains("UNAUTHENTICATED");
        ensure!(code == Some(34) && clear, "{code:?}: {text}");
    }
    let ways = guarded.ways(release, "").len();
    guarded.server.stop()?;
    say(&format!(
        "bazel over gRPC, {release:?}: reader, writer and wrong token, {ways} ways to give it"
    ));
    Ok(())
}

#[test]
fn bazel_4_with_a_read_only_token_hits_and_stores_nothing() -> Result<()> {
    reads_but_writes_nothing(Release::Debian4)
}

#[test]
fn bazel_2_with_a_read_only_token_hits_and_stores_nothing() -> Result<()> {
    reads_but_writes_nothing(Release::Upstream2)
}

#[test]
fn bazel_4_builds_without_a_cache_when_told_to_and_its_token_is_wrong() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::of_steps(Release::Debian4, SMALL_INPUT_BYTES)?;
    let guarded = Guarded::start()?;
    for mut flags in guarded.ways(Release::Debian4, tokens::UNKNOWN) {
        flags.push("--remote_local_fallback".to_owned());
        let build = workspace.build(&flags)?;
        build.demand_counts(STEPS, STEPS)?;
        ensure!(build.text.contains(NO_CAPABILITIES), "{}", build.text);
    }
    guarded.server.stop()?;
    say("bazel over gRPC: a wrong token with --remote_local_fallback is a warning");
    Ok(())
}

/// The server is killed when 40 of 70 MB have arrived, and comes back on the same address and store. Gives how many
/// bytes Bazel sent in all.
fn finishes_an_upload(release: Release, relayed: impl Fn(&Relay)) -> Result<u64> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::of_steps(release, LARGE_INPUT_BYTES)?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let relay = Relay::to(server.address())?;
    relayed(&relay);
    let flags = [format!("--remote_cache=grpc://{}", relay.address())];

    relay.stop_after_bytes(CUT_BYTES);
    let build = || workspace.build(&flags);
    let (first, server) = killed_with(2 * LEAST_HELD_BYTES, &relay, &serve, server, build)?;
    first.demand(STEPS, STEPS)?;
    let sent = relay.sent_bytes();
    let again = workspace.build(&flags)?;
    again
        .demand_all_of(&first, STEPS)
        .with_context(|| format!("after a build that said: {}", first.text))?;
    let copy = again
        .outputs
        .iter()
        .find(|(path, _)| path.ends_with("copy.bin"));
    let copy = copy.map(|(_, digest)| digest.as_str());
    ensure!(
        copy == Some(digest_of_input(LARGE_INPUT_BYTES).as_str()),
        "what came back is {copy:?}"
    );
    server.stop()?;
    say(&format!(
        "bazel over gRPC, {release:?}: killed in an upload of 70 MB, {} MB sent in all, 70 MB read back",
        sent / 1_000_000
    ));
    Ok(sent)
}

/// Bazel asks at once how much the server has, and gets no answer.
#[test]
fn bazel_4_sends_a_large_output_again_when_its_server_was_killed_and_is_away() -> Result<()> {
    finishes_an_upload(Release::Debian4, |_| ()).map(drop)
}

/// Bazel asks how much the server has, and the new server answers.
#[test]
fn bazel_4_takes_a_large_upload_up_where_the_killed_server_had_it() -> Result<()> {
    let sent = finishes_an_upload(Release::Debian4, Relay::wait_for_servers)?;
    ensure!(
        sent < CUT_BYTES + LARGE_INPUT_BYTES as u64 - LEAST_HELD_BYTES,
        "{sent} bytes were sent: it began again"
    );
    Ok(())
}

/// It asks, too, but breaks down unless the answer is 0: it cannot go back to any other place.
#[test]
fn bazel_2_sends_a_large_output_again_when_its_server_was_killed() -> Result<()> {
    finishes_an_upload(Release::Upstream2, Relay::wait_for_servers).map(drop)
}
