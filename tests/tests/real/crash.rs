//! Row 8: the real process is killed under 64 writers again and again; whatever it acknowledged is there afterwards.
//!
//! After every kill the server starts on the same folder and all that was ever acknowledged is read back. The store is
//! large enough that nothing is evicted, which is checked, so "gone" always means "lost".

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content::Random;
use zimcache_tests::environment::{scaled, scratch, seed};
use zimcache_tests::ledger::Ledger;
use zimcache_tests::report::{Turn, say, say_seed};
use zimcache_tests::server::{Serve, Server};
use zimcache_tests::writers::{Load, Tally, sweep};

const KILLS: u64 = 8;
const WRITERS: u64 = 64;
/// From the design: a start takes at most a second. Half of them must, on a machine that others may use too.
const USUAL_START: Duration = Duration::from_secs(1);
const SLOWEST_START: Duration = Duration::from_secs(10);

#[test]
fn nothing_acknowledged_is_lost_or_wrong_after_kills_under_load() -> Result<()> {
    let _turn = Turn::alone()?;
    let seed = seed()?;
    say_seed(
        "nothing_acknowledged_is_lost_or_wrong_after_kills_under_load",
        seed,
    );
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let folder = scratch("crash")?;
    let ledger = Arc::new(Ledger::create(&folder.path().join("ledger"))?);
    let serve = Serve::on(&folder.path().join("store"), "16GB");
    let mut server = serve.start()?;
    let mut total = Tally::default();
    let mut starts = Vec::new();
    let mut known = 0;
    let kills = scaled(KILLS);
    for kill in 1..=kills {
        let load = Load::start(server.address(), &ledger, random.next_u64(), WRITERS);
        // The gap is the fault's moment, not a wait for something.
        std::thread::sleep(Duration::from_millis(200 + random.below(2_800)));
        let evicted = evicted_records(&server)?;
        let log = server.log_tail();
        server.kill_9()?;
        let tally = load.finish()?;
        ensure!(
            evicted == 0,
            "{evicted} records were evicted: the store is too small"
        );
        tally
            .demand_clean()
            .with_context(|| format!("before kill {kill}, log:\n{log}"))?;
        ensure!(tally.refused == 0, "{} writes refused", tally.refused);
        ensure!(tally.blobs > 0, "nothing was written before kill {kill}");
        total.add(tally);
        server = serve
            .start()
            .with_context(|| format!("after kill {kill}"))?;
        starts.push(server.started_in());
        let verdict = sweep(server.address(), &ledger, known)?;
        verdict
            .demand_clean()
            .with_context(|| format!("after kill {kill}"))?;
        known = total.blobs as usize;
    }
    sweep(server.address(), &ledger, 0)?.demand_clean()?;
    server.stop()?;
    starts.sort();
    let (usual, slowest) = (starts[starts.len() / 2], starts[starts.len() - 1]);
    ensure!(
        usual <= USUAL_START,
        "half of the starts took over {usual:?}"
    );
    ensure!(slowest <= SLOWEST_START, "a start took {slowest:?}");
    say(&format!(
        "row 8: {kills} kills under {WRITERS} writers, {} blobs and {} entry writes acknowledged ({} MB), \
         0 lost, 0 wrong, starts {} ms (slowest {} ms), {} s",
        total.blobs,
        total.entries,
        total.payload_bytes / 1_000_000,
        usual.as_millis(),
        slowest.as_millis(),
        begun.elapsed().as_secs()
    ));
    Ok(())
}

/// How many records the store evicted since its start.
pub(crate) fn evicted_records(server: &Server) -> Result<u64> {
    let stats = server.stats()?;
    count(&stats, "evicted_records").context("evicted_records in /api/v1/stats")
}

/// A count in the statistics, at any depth.
pub(crate) fn count(stats: &serde_json::Value, name: &str) -> Option<u64> {
    let object = stats.as_object()?;
    let here = object.get(name).and_then(serde_json::Value::as_u64);
    here.or_else(|| object.values().find_map(|value| count(value, name)))
}
