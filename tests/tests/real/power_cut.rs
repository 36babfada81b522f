//! Row 9: the power is cut under load on a real file system, with and without direct writes.
//!
//! The store lies on a loop ext4, the client's ledger on the machine's own disk. After the cut the file system drops
//! what was not synced and fails every access; the server must not acknowledge anything more. Then it is killed, the
//! file system is mounted again (its journal is replayed) and all that was acknowledged is read back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content::Random;
use zimcache_tests::environment::{scaled, scratch, seed};
use zimcache_tests::ledger::Ledger;
use zimcache_tests::loop_disk::LoopDisk;
use zimcache_tests::report::{Turn, say, say_seed, skip};
use zimcache_tests::server::Serve;
use zimcache_tests::writers::{Load, Tally, sweep};

use crate::crash::evicted_records;

const CUTS: u64 = 3;
const WRITERS: u64 = 64;
const DISK_MIB: u64 = 6 << 10;

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut_with_direct_writes() -> Result<()> {
    cut_power_under_load(
        "nothing_acknowledged_is_lost_in_a_power_cut_with_direct_writes",
        true,
    )
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut_with_buffered_writes() -> Result<()> {
    cut_power_under_load(
        "nothing_acknowledged_is_lost_in_a_power_cut_with_buffered_writes",
        false,
    )
}

fn cut_power_under_load(test: &str, direct: bool) -> Result<()> {
    let _turn = Turn::alone()?;
    if let Some(reason) = LoopDisk::unavailable()? {
        return skip("9", &reason);
    }
    let seed = seed()?;
    say_seed(test, seed);
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let folder = scratch("power-cut")?;
    let ledger = Arc::new(Ledger::create(&folder.path().join("ledger"))?);
    let mut disk = LoopDisk::new(DISK_MIB)?;
    let serve = Serve::on(&disk.path().join("store"), "5GB").env(
        "ZIMCACHE_SERVE__STORE__DIRECT_IO",
        if direct { "true" } else { "false" },
    );
    let mut total = Tally::default();
    let cuts = scaled(CUTS);
    for cut in 1..=cuts {
        let mut server = serve.start()?;
        let load = Load::start(server.address(), &ledger, random.next_u64(), WRITERS);
        std::thread::sleep(Duration::from_millis(300 + random.below(1_700)));
        let evicted = evicted_records(&server)?;
        ensure!(
            evicted == 0,
            "{evicted} records were evicted: the store is too small"
        );
        // While ext4 is being shut down, an fdatasync of buffered pages may still succeed although nothing of them stays
        // (a plain loop of pwrite and fdatasync shows it). After a real power cut no client hears of that; with direct
        // writes the write itself fails, so every acknowledgement counts.
        disk.cut_power(|| ledger.hear(direct))?;
        // Long enough for every writer to meet the dead disk; what is acknowledged now must be durable too.
        std::thread::sleep(Duration::from_millis(200));
        ensure!(
            server.is_running(),
            "the server died of a dead disk:\n{}",
            server.log_tail()
        );
        server.kill_9()?;
        let tally = load.finish()?;
        ensure!(tally.blobs > 0, "nothing was written before cut {cut}");
        // Also on a dead disk a read is right or refused: never "not there", never a failure of another kind.
        tally
            .demand_clean()
            .with_context(|| format!("around cut {cut}"))?;
        total.add(tally);
        ledger.hear(true);
        disk.remount()?;
        let server = serve.start().with_context(|| format!("after cut {cut}"))?;
        let verdict = sweep(server.address(), &ledger, 0)?;
        verdict
            .demand_clean()
            .with_context(|| format!("after cut {cut}"))?;
        server.stop()?;
    }
    say(&format!(
        "row 9: {cuts} power cuts with {} writes under {WRITERS} writers, {} blobs and {} entry writes acknowledged \
         ({} MB), {} refused by the dead disk, 0 lost, 0 wrong, {} s",
        if direct { "direct" } else { "buffered" },
        total.blobs,
        total.entries,
        total.payload_bytes / 1_000_000,
        total.refused,
        begun.elapsed().as_secs()
    ));
    Ok(())
}
