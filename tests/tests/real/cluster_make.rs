//! `make cluster`, but for building: what it starts, what it writes down, and that a process that was killed runs again
//! by the command written down, also with an empty disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use zimcache_tests::content::sha256;
use zimcache_tests::environment::{scratch, zim_binary};
use zimcache_tests::http;
use zimcache_tests::process::Tool;

const LIMIT: Duration = Duration::from_mins(1);

/// A cluster, stopped with the guard.
struct Made {
    folder: PathBuf,
}

impl Made {
    fn in_folder(folder: &Path) -> Result<Made> {
        let made = Made {
            folder: folder.to_owned(),
        };
        made.xtask("up")?;
        Ok(made)
    }

    fn xtask(&self, action: &str) -> Result<()> {
        let zim = zim_binary()?;
        Tool::new(zim.with_file_name("xtask"), 120)
            .args(["cluster", action, "--folder"])
            .args([&self.folder])
            .env("ZIM_BIN", &zim)
            .current_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .run_ok()?;
        Ok(())
    }

    fn processes(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("processes.json"))?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.xtask("down").ok();
    }
}

fn of_role<'a>(processes: &'a [Value], role: &str) -> Vec<&'a Value> {
    let of_role = processes.iter().filter(|process| process["role"] == role);
    of_role.collect()
}

fn text<'a>(process: &'a Value, field: &str) -> Result<&'a str> {
    process[field]
        .as_str()
        .with_context(|| format!("{field} of {process}"))
}

/// Whether its process still runs: one that ended and was not waited for is no more.
fn runs(process: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process["pid"])).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Asks a process for a path; the status, and the body.
fn ask(process: &Value, method: &str, path: &str, body: Option<&[u8]>) -> Result<(u16, Vec<u8>)> {
    let url = text(process, "url")?;
    let address = url.strip_prefix("http://").context("an http:// URL")?;
    let answer = http::once(address.parse()?, method, path, &[], body)?;
    Ok((answer.status, answer.body))
}

fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn again(process: &Value) -> Result<Child> {
    let words = process["command"].as_array().context("its command")?;
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let (program, args) = words.split_first().context("a program")?;
    let child = Command::new(program)
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child)
}

#[test]
fn make_cluster_writes_down_what_runs_and_each_node_runs_again_on_an_empty_disk() -> Result<()> {
    let folder = scratch("made")?;
    let made = Made::in_folder(folder.path())?;
    let processes = made.processes()?;
    for (role, count) in [("gateway", 2), ("node", 3), ("s3", 1), ("redis", 1)] {
        ensure!(
            of_role(&processes, role).len() == count,
            "{role}: {processes:?}"
        );
    }
    let gateways = of_role(&processes, "gateway");
    let body = b"through one gateway and out of the other";
    let path = format!("/cas/{}", sha256(body));
    let get = |gateway: usize| ask(gateways[gateway], "GET", &path, None);
    let there = (200, body.to_vec());
    ensure!(ask(gateways[0], "PUT", &path, Some(body))?.0 == 200);
    ensure!(get(1)? == there);

    let node = of_role(&processes, "node")[0];
    let pid = node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).context("its pid")?;
    kill_process(pid, Signal::KILL)?;
    until("the node is gone", || !runs(node))?;
    ensure!(get(1)? == there, "beside a dead node");
    let disk = Path::new(text(node, "dir")?);
    fs::remove_dir_all(disk)?;
    fs::create_dir(disk)?;
    let mut child = again(node)?;
    until("the node is ready", || {
        ask(node, "GET", "/ready", None).is_ok_and(|(status, _)| status == 200)
    })?;
    ensure!(get(0)? == there, "on a new disk");

    drop(made);
    child.wait()?;
    let left = processes.iter().find(|process| runs(process));
    ensure!(left.is_none(), "still runs: {left:?}");
    Ok(())
}
