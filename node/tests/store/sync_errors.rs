//! Row 4: a sync that fails, once, for ever or with a lie, costs no acknowledged write, and is never tried again on
//! the same segment.

use zimcache_node::testing::{Fault, FaultKind, OpKind, Operation, SimRng};
use zimcache_store::{EntryMeta, Precondition};
use zimcache_types::{Code, EntryKey, EntryKind};

use crate::{
    harness::Rig,
    ops::{Mix, Model, Op, Value, sequence, team},
    volume::Row,
};

const WRITES: Mix = Mix {
    large_permille: 20,
    recover: false,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Once,
    Lie,
    FailedWrite,
    ForEver,
}

fn case(seed: u64) -> Result<(), String> {
    let mut rng = SimRng::new(seed);
    let trouble = *rng.pick(&[
        Trouble::Once,
        Trouble::Lie,
        Trouble::Lie,
        Trouble::FailedWrite,
        Trouble::ForEver,
    ]);
    let mut rig = Rig::fresh(seed);
    let mut model = Model::default();
    let skip = rng.below(40);
    let eio = FaultKind::Errno(Fault::EIO);
    rig.disk.inject(match trouble {
        Trouble::Once => Fault::once(OpKind::Sync, skip, eio).on("segments/"),
        Trouble::Lie => Fault::once(OpKind::Sync, skip, FaultKind::LyingSync).on("segments/"),
        Trouble::FailedWrite => Fault::once(OpKind::Write, skip, eio).on("segments/"),
        Trouble::ForEver => Fault {
            skip,
            ..Fault::always(OpKind::Sync, FaultKind::LyingSync)
        },
    });
    for op in sequence(&mut rng, 60, WRITES) {
        apply_in_trouble(&mut rig, &mut model, op, trouble)?;
    }
    let used = rig.disk.counts().used_after_failed_sync;
    if used > 0 {
        return Err(format!(
            "a segment was used {used} times after its sync failed:\n{}",
            uses_after_failure(&rig).join("\n")
        ));
    }
    read_only_or_not(&mut rig, trouble)?;
    model.observe(&rig)?;
    model.recover(&mut rig, |rig| rig.crash(seed))?;
    model.observe(&rig)?;
    model.apply(
        &mut rig,
        Op::Put(
            16,
            Value {
                number: 9999,
                size: 10,
            },
        ),
    )?;
    model.observe(&rig).map(drop)
}

/// The failed sync, and what was done to that file afterwards.
fn uses_after_failure(rig: &Rig) -> Vec<String> {
    let log = rig.disk.log();
    let failed = |op: &&Operation| op.kind == OpKind::Sync && op.fault.is_some();
    let Some(failed) = log.iter().find(failed) else {
        return Vec::new();
    };
    let later = log.iter().filter(|op| op.number >= failed.number);
    let there = later.filter(|op| op.name == failed.name && op.kind.changes());
    there.take(6).map(ToString::to_string).collect()
}

/// After the second failure every write is refused; the model must know that these refusals are fine.
fn apply_in_trouble(
    rig: &mut Rig,
    model: &mut Model,
    op: Op,
    trouble: Trouble,
) -> Result<(), String> {
    model.refusals_are_fine = trouble == Trouble::ForEver;
    model
        .apply(rig, op)
        .map_err(|why| format!("{trouble:?}: {why}"))
}

fn read_only_or_not(rig: &mut Rig, trouble: Trouble) -> Result<(), String> {
    let why = rig.stats().read_only;
    if trouble != Trouble::ForEver {
        return why.map_or(Ok(()), |why| {
            Err(format!("{trouble:?} made the store read-only: {why}"))
        });
    }
    let stores = rig.stores();
    let key = EntryKey::new(team().clone(), EntryKind::Ccache, "probe").unwrap();
    let mut refusal = None;
    for _ in 0..50 {
        let writer = rig.wait(async {
            let put = stores
                .entries
                .put(&key, EntryMeta::default(), Precondition::None, None);
            put.await?.commit().await
        })?;
        refusal = Some(writer.map_err(|error| error.code()));
    }
    if refusal != Some(Err(Code::Unavailable)) || rig.stats().read_only.is_none() {
        return Err(format!("a disk that never syncs answers {refusal:?}"));
    }
    Ok(())
}

#[test]
fn a_failed_sync_costs_nothing_acknowledged_and_is_not_tried_again() {
    Row::new("row 4", 1000, 25).run(case);
}
