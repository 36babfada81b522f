//! Rows 2, 3 and 6: what was acknowledged survives power cuts at any moment, with any blocks torn, also cuts during
//! recovery, also in segments full of old records; nothing deleted or superseded comes back.

use zimcache_node::testing::{SimDisk, SimRng};
use zimcache_store::Touch;

use crate::{
    harness::{Rig, config},
    ops::{BLOBS, Mix, Model, Op, PLACES, Value, sequence},
    volume::{Row, scaled},
};

/// Writes of every kind and size, with room for all of them.
fn workload() -> Vec<Op> {
    let mut ops = Vec::new();
    let value = |number, size| Value { number, size };
    for round in 0..3u32 {
        for place in 0..BLOBS {
            let size = Value::of_blob(place).size;
            if size < 100_000 || round == 1 && place % 3 == 0 {
                ops.push(Op::Put(place, Value::of_blob(place)));
            }
        }
        for place in BLOBS..PLACES {
            let size =
                [0, 10, 500, 4000, 40_000, 70_000, 150_000, 2000][(place + round as usize) % 8];
            ops.push(Op::Put(
                place,
                value(2000 + round * 100 + place as u32, size),
            ));
        }
        ops.extend([
            Op::Interrupt(12, 900_000),
            Op::Abort(13, Value::of_blob(13), 2 << 20),
            Op::Hostile(5),
        ]);
        ops.extend([
            Op::Touch(u32::MAX, Touch::Lease),
            Op::Delete(3 + round as usize),
            Op::Delete(17),
        ]);
        ops.push(Op::Resume(12));
        ops.push(Op::Put(17, value(2900 + round, 30)));
        ops.extend([Op::Delete(18), Op::Delete(12), Op::Later(10)]);
    }
    ops
}

/// Does operations until the power goes off; then all others are moot.
fn play(rig: &mut Rig, model: &mut Model, ops: &[Op]) -> Result<(), String> {
    for op in ops {
        if rig.disk.is_off() {
            break;
        }
        model.apply(rig, *op)?;
    }
    Ok(())
}

/// The recovered store holds what it must, is the same after one more recovery, and takes writes.
fn recovered_well(rig: &mut Rig, model: &mut Model, seed: u64) -> Result<(), String> {
    let first = model.observe(rig)?;
    let settled = rig.stats().evicted_records;
    model.recover(rig, |rig| rig.crash(seed ^ 0x5555))?;
    let second = model.observe(rig)?;
    // A full store may make room while it is being looked at; the model judges that.
    let evicted = settled + rig.stats().evicted_records;
    if first != second && evicted == 0 {
        return Err(format!(
            "a second recovery differs: {first:?} then {second:?}"
        ));
    }
    for (place, size) in [(1, 1), (16, 100), (17, 70_000)] {
        let value = if place < BLOBS {
            Value::of_blob(place)
        } else {
            Value {
                number: 9000 + place as u32,
                size,
            }
        };
        model.apply(rig, Op::Put(place, value))?;
    }
    model.observe(rig).map(drop)
}

/// Cuts the power at a change, recovers and checks.
fn cut_at(change: u64, ops: &[Op]) -> Result<(), String> {
    let mut rig = Rig::fresh(7);
    let mut model = Model::default();
    rig.disk.cut_power_after(change);
    play(&mut rig, &mut model, ops)?;
    model.recover(&mut rig, |rig| rig.crash(change))?;
    recovered_well(&mut rig, &mut model, change)
}

#[test]
fn a_power_cut_at_any_disk_operation_loses_nothing_acknowledged() {
    let ops = workload();
    let mut rig = Rig::fresh(7);
    let before = rig.disk.counts().changes;
    play(&mut rig, &mut Model::default(), &ops).unwrap();
    rig.close();
    let points = rig.disk.counts().changes - before;
    println!("row 2: the workload makes {points} changes to the disk");
    let wanted = scaled(2000).min(points + 20);
    Row::new("row 2", wanted, 45).run(|case| cut_at(case * (points + 20) / wanted, &ops));
}

#[test]
fn a_power_cut_while_a_new_store_is_made_leaves_one_that_opens() {
    Row::new("row 2, new store", 60, 10).run(|seed| {
        let disk = SimDisk::new(seed);
        disk.cut_power_after(seed / 2);
        let made = Rig::open(disk.clone(), config(64));
        drop(made);
        let found = disk.after_crash(seed);
        let mut rig =
            Rig::open(found, config(64)).map_err(|error| format!("does not open: {error:?}"))?;
        recovered_well(&mut rig, &mut Model::default(), seed)
    });
}

/// Random work, a cut at a random moment, and perhaps another one during recovery.
fn torn(seed: u64, mix: Mix, count: usize, changes: u64) -> Result<(), String> {
    let mut rng = SimRng::new(seed);
    let ops = sequence(&mut rng, count, mix);
    let mut rig = Rig::fresh(seed);
    let mut model = Model::default();
    rig.disk.cut_power_after(rng.below(changes));
    play(&mut rig, &mut model, &ops)?;
    rig.disk.cut_power();
    let mut found = rig.disk.after_crash(seed);
    while rng.permille(400) {
        found.cut_power_after(rng.below(12));
        let half = Rig::open(found.clone(), rig.config.clone());
        drop(half);
        found = found.after_crash(rng.next_u64());
    }
    rig.abandon();
    // The machine may start with its clock hours behind: this one shows the first moment again.
    let mut next = Rig::open(found, rig.config.clone())
        .map_err(|error| format!("does not open: {error:?}"))?;
    next.inherit(&rig);
    model.recovered(&next);
    recovered_well(&mut next, &mut model, seed)
}

#[test]
fn torn_writes_of_any_shape_lose_nothing_acknowledged() {
    let mix = Mix {
        large_permille: 20,
        recover: false,
    };
    Row::new("row 3", 4000, 50).run(|seed| torn(seed, mix, 60, 120));
}

#[test]
fn recycled_segments_full_of_old_records_give_none_of_them_back() {
    // A store that was filled several times over: every segment in use was another one before.
    let fill = Mix {
        large_permille: 800,
        recover: false,
    };
    Row::new("row 6", 200, 25).run(|seed| torn(seed, fill, 250, 2000));
}
