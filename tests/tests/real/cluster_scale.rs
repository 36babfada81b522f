//! A cluster of real processes grows from three nodes to five and shrinks to two while clients work: no call fails,
//! nothing is lost, and what is in the cache is found all the time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::cluster::client::Recorder;
use zimcache_tests::cluster::load::{self, Load, Mix};
use zimcache_tests::cluster::{Cluster, Plan};
use zimcache_tests::environment::seed;
use zimcache_tests::report::{say, say_seed};

const CONVERGENCE: Duration = Duration::from_mins(1);
/// Before anything changes, and after everything has: long enough for a hit ratio.
const QUIET: Duration = Duration::from_secs(5);

#[test]
fn no_call_fails_and_nothing_is_missed_from_three_nodes_to_five_to_two() -> Result<()> {
    let seed = seed()?;
    say_seed(
        "no_call_fails_and_nothing_is_missed_from_three_nodes_to_five_to_two",
        seed,
    );
    let plan = Plan {
        seed,
        ..Plan::default()
    };
    let mut cluster = Cluster::start(&plan)?;
    let recorder = Recorder::new(plan.gateways);
    let mix = Mix {
        deletes: 0,
        ..Mix::default()
    };
    let load = Load::start(&cluster.doors(), &recorder, seed, mix);
    std::thread::sleep(QUIET);
    let begun = recorder.now();
    let grown = grow(&mut cluster).with_context(|| cluster.log_tails())?;
    let between = recorder.now();
    let shrunk = shrink(&mut cluster).with_context(|| cluster.log_tails())?;
    let ended = recorder.now();
    std::thread::sleep(QUIET);
    load.finish()?;
    let before = load::tally(&recorder, 0, begun);
    for (what, from, until) in [
        ("while it grew", begun, between),
        ("while it shrank", between, ended),
        ("afterwards", ended, u64::MAX),
    ] {
        let during = load::tally(&recorder, from, until);
        let failed = during.not_acknowledged + during.failed_reads;
        ensure!(
            failed == 0,
            "{what} calls failed: {during:?}\n{}",
            cluster.log_tails()
        );
        let dip = ratio(before) - ratio(during);
        ensure!(
            dip < 0.02,
            "{what} the hit ratio was lower by {dip}: {during:?}, before {before:?}"
        );
    }
    cluster.wait_until_converged(CONVERGENCE)?;
    let keys = load::sweep(&cluster.doors(), &recorder)?;
    load::demand_clean(&recorder)?;
    let all = load::tally(&recorder, 0, u64::MAX);
    say(&format!(
        "3 to 5 nodes in {:.1} s, 5 to 2 in {:.1} s: {} calls, 0 failed, {} misses, {keys} keys swept",
        grown.as_secs_f64(),
        shrunk.as_secs_f64(),
        all.calls,
        all.misses
    ));
    Ok(())
}

fn ratio(tally: load::Tally) -> f64 {
    tally.hits as f64 / (tally.hits + tally.misses).max(1) as f64
}

fn grow(cluster: &mut Cluster) -> Result<Duration> {
    let begun = Instant::now();
    let new = [cluster.add_node()?, cluster.add_node()?];
    for node in &mut cluster.nodes[3..] {
        node.start()?;
    }
    cluster.zim_cluster_ring(&["ring", "join", &new[0], &new[1]])?;
    Ok(begun.elapsed())
}

/// The three oldest leave; each is stopped when it has handed everything over.
fn shrink(cluster: &mut Cluster) -> Result<Duration> {
    let begun = Instant::now();
    for leaving in 0..3 {
        let name = cluster.nodes[leaving].name().to_owned();
        cluster.zim_cluster_ring(&["drain", &name])?;
        cluster.nodes[leaving].stop()?;
    }
    Ok(begun.elapsed())
}
