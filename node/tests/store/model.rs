//! Row 1: random operations give the same answers as a model, eviction being the only excuse.

use zimcache_node::testing::SimRng;

use crate::{
    harness::Rig,
    ops::{Mix, Model, Op, sequence},
    volume::Row,
};

/// Does the operations on a fresh store.
fn play(seed: u64, ops: &[Op]) -> Result<(), String> {
    let mut rig = Rig::fresh(seed);
    let mut model = Model::default();
    for (number, op) in ops.iter().enumerate() {
        model
            .apply(&mut rig, *op)
            .map_err(|why| format!("operation {number}: {why}"))?;
    }
    model
        .observe(&rig)
        .map(drop)
        .map_err(|why| format!("at the end: {why}"))
}

/// Drops operations as long as the rest still fails.
fn shrink(seed: u64, mut ops: Vec<Op>, mut why: String) -> String {
    let mut step = ops.len() / 2;
    let mut tries = 0;
    while step > 0 && tries < 150 {
        let mut at = 0;
        while at < ops.len() && tries < 150 {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + step).min(ops.len()));
            tries += 1;
            match play(seed, &fewer) {
                Err(still) => (ops, why) = (fewer, still),
                Ok(()) => at += step,
            }
        }
        step /= 2;
    }
    format!("{why}\nshrunk to {} operations: {ops:#?}", ops.len())
}

fn case(seed: u64, count: usize, mix: Mix) -> Result<(), String> {
    let ops = sequence(&mut SimRng::new(seed), count, mix);
    play(seed, &ops).map_err(|why| shrink(seed, ops, why))
}

#[test]
fn random_operations_give_the_answers_of_the_model() {
    let mix = Mix {
        large_permille: 20,
        recover: true,
    };
    Row::new("row 1", 15_000, 45).run(|seed| case(seed, 60, mix));
}

#[test]
fn random_operations_on_a_full_store_lose_only_what_was_evicted() {
    let mix = Mix {
        large_permille: 700,
        recover: true,
    };
    Row::new("row 1, full store", 200, 25).run(|seed| case(seed, 250, mix));
}
