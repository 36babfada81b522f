//! Row 9, second half: every acknowledgement waits for a sync of its own, seen from outside by tracing system calls.
//!
//! One connection, one PUT after the other, so no sync can serve two. Between the write of a record and its 200 there
//! must be a finished sync. Where tracing is impossible the store's own count of syncs is compared instead.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http::Connection;
use zimcache_tests::process::{Tool, has_program};
use zimcache_tests::report::{Turn, say, skip};
use zimcache_tests::server::{Serve, Server};

use crate::crash::count;

const PUTS: u64 = 100;
const BODY_BYTES: usize = 1_000;
const TRACED: &str = "trace=fdatasync,fsync,sync_file_range,pwrite64,pwritev,pwritev2,\
                      write,writev,sendto,sendmsg";

#[test]
fn every_acknowledgement_comes_after_a_write_and_its_sync() -> Result<()> {
    let _turn = Turn::alone()?;
    let folder = scratch("sync")?;
    for direct in ["true", "false"] {
        let trace = folder.path().join(format!("trace-{direct}"));
        let store = folder.path().join(format!("store-{direct}"));
        let serve = Serve::on(&store, "1GB").env("ZIMCACHE_SERVE__STORE__DIRECT_IO", direct);
        if !can_trace(folder.path())? {
            skip(
                "strace",
                "no strace, or no right to trace; counting by the store's own figures",
            )?;
            return puts_count_syncs(&serve.start()?);
        }
        let trace_text = trace.to_string_lossy().into_owned();
        let wrapper = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "-s",
            "16",
            "-e",
            TRACED,
            "-o",
            &trace_text,
        ];
        let server = serve.wrapped_by(&wrapper).start()?;
        put_serially(&server)?;
        server.stop()?;
        let syncs =
            check_trace(&read_whole(&trace)?).with_context(|| format!("direct: {direct}"))?;
        say(&format!(
            "row 9: {PUTS} serial PUTs, direct writes {direct}: {syncs} syncs, each before its 200"
        ));
    }
    Ok(())
}

fn can_trace(folder: &Path) -> Result<bool> {
    if !has_program("strace") {
        return Ok(false);
    }
    let out = folder.join("probe");
    let probe = Tool::new("strace", 20).args(["-D", "-f", "-o"]).args([out]);
    Ok(probe.args(["true"]).run()?.status.success())
}

fn put_serially(server: &Server) -> Result<()> {
    let mut connection = Connection::open(server.address())?;
    for number in 0..PUTS {
        let body = content::body(number, BODY_BYTES);
        let path = format!("/cas/{}", content::sha256(&body));
        let response = connection.request("PUT", &path, &[], Some(&body))?;
        ensure!(response.status == 200, "PUT {number}: {}", response.status);
    }
    Ok(())
}

fn puts_count_syncs(server: &Server) -> Result<()> {
    let before = count(&server.stats()?, "syncs").context("syncs in /api/v1/stats")?;
    put_serially(server)?;
    let after = count(&server.stats()?, "syncs").context("syncs in /api/v1/stats")?;
    ensure!(
        after - before >= PUTS,
        "{} syncs for {PUTS} PUTs",
        after - before
    );
    say(&format!(
        "row 9: {PUTS} serial PUTs, {} syncs by the store's count",
        after - before
    ));
    Ok(())
}

/// The tracer writes on for a moment after the traced process ended; its last line tells.
fn read_whole(trace: &Path) -> Result<String> {
    for _ in 0..500 {
        let text = std::fs::read_to_string(trace)?;
        if text
            .lines()
            .last()
            .is_some_and(|line| line.contains("+++ exited"))
        {
            return Ok(text);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(std::fs::read_to_string(trace)?)
}

/// Goes through the calls in order: every 200 needs a data write since the last 200, and a sync finished after it.
fn check_trace(trace: &str) -> Result<u64> {
    let (mut syncs, mut answers) = (0, 0);
    let (mut written, mut synced) = (false, false);
    for line in trace.lines() {
        // `PID call(...) = result`, or `PID <... call resumed>...) = result`
        let call = line
            .split_once(' ')
            .map_or(line, |(_, call)| call.trim_start());
        if call.starts_with("pwrite") {
            (written, synced) = (true, false);
        } else if is_finished_sync(call) {
            syncs += 1;
            synced = written;
        } else if call.contains("\"HTTP/1.1 200") {
            answers += 1;
            // The first answer is that of /health after the start.
            if answers > 1 {
                ensure!(written, "answer {answers} without a write: {line}");
                ensure!(synced, "answer {answers} before its sync: {line}");
            }
            (written, synced) = (false, false);
        }
    }
    ensure!(answers == PUTS + 1, "{answers} answers in the trace");
    ensure!(syncs >= PUTS, "{syncs} syncs for {PUTS} PUTs");
    Ok(syncs)
}

fn is_finished_sync(call: &str) -> bool {
    let names = ["fdatasync", "fsync"];
    let whole = names.iter().any(|name| {
        call.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('('))
            && !call.contains("<unfinished")
    });
    let resumed = names
        .iter()
        .any(|name| call.contains(&format!("<... {name} resumed>")));
    (whole || resumed) && call.ends_with("= 0")
}

#[test]
fn a_trace_with_an_early_answer_is_refused() {
    let good = "1 sendto(9, \"HTTP/1.1 200 OK\"..., 90) = 90\n".to_owned()
        + &"2 pwrite64(5, \"\"..., 4096, 0) = 4096\n2 fdatasync(5 <unfinished ...>\n\
           2 <... fdatasync resumed>) = 0\n1 sendto(9, \"HTTP/1.1 200 OK\"..., 90) = 90\n"
            .repeat(PUTS as usize);
    check_trace(&good).expect("a good trace");
    let early = good.replace("2 <... fdatasync resumed>) = 0\n", "");
    check_trace(&early).expect_err("answers without syncs");
    let failed = good.replace("resumed>) = 0", "resumed>) = -1 EIO (Input/output error)");
    check_trace(&failed).expect_err("answers after failed syncs");
}
