//! Row 32: a cluster of real processes under load while everything that can break does, by seed. Whatever was
//! acknowledged is there afterwards through every gateway, no bytes are wrong, and the cluster is itself again within
//! a minute.
//!
//! `ZIMCACHE_CHAOS_SECONDS` and `ZIMCACHE_CHAOS_SEED` say how long and which.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::cluster::chaos::{Chaos, Pace};
use zimcache_tests::cluster::client::Recorder;
use zimcache_tests::cluster::load::{self, Load, Mix};
use zimcache_tests::cluster::wire::Rule;
use zimcache_tests::cluster::{Cluster, Plan, S3, backing};
use zimcache_tests::environment;
use zimcache_tests::loop_disk::LoopDisk;
use zimcache_tests::report::{say, skip};

const LENGTH: Duration = Duration::from_mins(1);
const CONVERGENCE: Duration = Duration::from_mins(1);
/// An owner that did not hear that another one uploaded a record looks for itself after a minute.
const UPLOADED: Duration = Duration::from_secs(150);
/// How long a gateway may keep a blob in memory that was deleted through another one.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// Runs from this length on have the time to wait for that.
const LONG: Duration = Duration::from_mins(3);
/// Larger than what a run writes, on demand.
const DISK_MIB: u64 = 8 << 10;
/// Keys that are read again while one node after the other is away.
const SAMPLED: usize = 1_500;

#[test]
fn nothing_acknowledged_is_lost_or_wrong_while_everything_breaks() -> Result<()> {
    if let Some(reason) = backing::unavailable() {
        return skip("32", &reason);
    }
    let seed = environment::chaos_seed()?;
    let length = environment::chaos_length()?.unwrap_or(LENGTH);
    say(&format!(
        "SEED={seed} replay: ZIMCACHE_CHAOS_SEED={seed} ZIMCACHE_CHAOS_SECONDS={} \
         cargo test -p zimcache-tests --test real nothing_acknowledged_is_lost_or_wrong_while_everything_breaks",
        length.as_secs()
    ));
    // A full disk evicts what the bucket has, so that not everything is on two nodes afterwards: every other run has one.
    let disk = if seed.is_multiple_of(2) {
        small_disk()?
    } else {
        None
    };
    let mut plan = Plan {
        bucket: true,
        redis: true,
        seed,
        ..Plan::default()
    };
    if length < LONG {
        plan.gateway_flags = vec!["--ram-cache".to_owned(), "0".to_owned()];
    }
    let disk_folder = disk.as_ref().map(|disk| (2, disk.path()));
    if let Some((node, path)) = &disk_folder {
        plan.disks.push((*node, path.join("store")));
    }
    let mut cluster = Cluster::start(&plan)?;
    let recorder = Recorder::new(plan.gateways);
    let done = run(&mut cluster, &recorder, seed, length, disk_folder);
    done.with_context(|| evidence(&mut cluster, &recorder, seed))
}

/// A file system that can be filled, where one can be had.
fn small_disk() -> Result<Option<LoopDisk>> {
    if let Some(reason) = LoopDisk::unavailable()? {
        skip("7-loop", &reason)?;
        return Ok(None);
    }
    LoopDisk::new(DISK_MIB).map(Some)
}

fn run(
    cluster: &mut Cluster,
    recorder: &Arc<Recorder>,
    seed: u64,
    length: Duration,
    disk: Option<(usize, std::path::PathBuf)>,
) -> Result<()> {
    let begun = Instant::now();
    let doors = cluster.doors();
    let is_long = length > Duration::from_mins(10);
    let mix = Mix {
        smaller: if is_long { 8 } else { 1 },
        ..Mix::default()
    };
    let load = Load::start(&doors, recorder, seed ^ 1, mix);
    let is_evicting = disk.is_some();
    let mut chaos = Chaos::new(cluster, recorder, seed);
    if let Some((node, path)) = disk {
        chaos = chaos.may_fill(node, path);
    }
    let faults = chaos.run(Pace::of(length))?;
    load.finish()?;
    let ended = Instant::now();
    let converged = cluster.wait_until_converged(CONVERGENCE)?;
    let tally = load::tally(recorder, 0, u64::MAX);
    if length >= LONG {
        std::thread::sleep(FORGOTTEN.saturating_sub(ended.elapsed()));
    }
    let keys = load::sweep(&doors, recorder)?;
    load::demand_clean(recorder)?;
    read_without_each_node(cluster, recorder, is_evicting)?;
    cluster.wait_until_uploaded(UPLOADED)?;
    ensure!(faults > 0 && tally.acknowledged > 0, "nothing happened");
    say(&format!(
        "row 32: {faults} faults in {} s, {} calls, {} writes acknowledged and {} not, {} reads failed, \
         converged after {:.1} s, {keys} keys swept, 0 lost, 0 wrong, {} s",
        length.as_secs(),
        tally.calls,
        tally.acknowledged,
        tally.not_acknowledged,
        tally.failed_reads,
        converged.as_secs_f64(),
        begun.elapsed().as_secs()
    ));
    Ok(())
}

/// Everything is on as many nodes as it should be: without any one node, and without the bucket where nothing was
/// evicted, all of it is read.
fn read_without_each_node(
    cluster: &Cluster,
    recorder: &Arc<Recorder>,
    is_evicting: bool,
) -> Result<()> {
    let keys = load::never_deleted(recorder);
    let every = keys.len().div_ceil(SAMPLED).max(1);
    let keys: Vec<_> = keys.into_iter().step_by(every).collect();
    for away in &cluster.nodes {
        cluster.wires.heal();
        cluster.wait_until_converged(CONVERGENCE)?;
        cluster.isolate(away.name(), Rule::refused());
        if !is_evicting {
            for node in &cluster.nodes {
                cluster.wires.put(node.name(), S3, Rule::refused());
            }
        }
        let begun = recorder.now();
        load::read_all(&cluster.doors(), recorder, &keys, false)?;
        recorder.was_broken(&format!("{} is away", away.name()), begun);
        let tally = load::tally(recorder, begun, u64::MAX);
        ensure!(
            tally.failed_reads + tally.misses == 0,
            "without {}: {tally:?}",
            away.name()
        );
        load::demand_clean(recorder).with_context(|| format!("without {}", away.name()))?;
    }
    cluster.wires.heal();
    Ok(())
}

/// What is kept for whoever looks for the cause.
fn evidence(cluster: &mut Cluster, recorder: &Recorder, seed: u64) -> String {
    let folder = cluster.keep_folder();
    let path = folder.join("history.jsonl");
    let written = std::fs::File::create(&path).map(|file| recorder.history().write(file));
    format!("seed {seed}, history in {}: {written:?}", path.display())
}
