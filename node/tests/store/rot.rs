//! Row 5: damage to synced bytes, bit by bit in every field of everything on disk, page by page, and by writes that
//! got lost or went astray: never a wrong byte, never an older version, only the hit record lost.

use std::collections::BTreeMap;

use zimcache_node::testing::{Fault, FaultKind, OpKind, SimDisk, SimRng};

use crate::{
    harness::Rig,
    ops::{BLOBS, Mix, Model, Op, PLACES, Value, sequence},
    volume::{Row, scaled},
};

const PAGE: usize = 4096;
/// Sizes of blobs and entries: most are small, so that headers make up much of what is stored.
const SMALL: [u32; 8] = [80, 1, 300, 79, 4095, 900, 20_000, 2500];

/// A field of something on disk; layouts are those of `docs/format.md`.
#[derive(Debug, Clone)]
struct Field {
    name: &'static str,
    file: String,
    first: usize,
    len: usize,
}

/// A store with some of everything, stopped in an orderly way.
fn filled(seed: u64) -> Result<(Rig, Model), String> {
    let mut rig = Rig::fresh(seed);
    let mut model = Model::default();
    for round in 0..2 {
        for place in 0..PLACES {
            let op = if place < BLOBS {
                let value = Value::of_blob(place);
                if value.size > 100_000 && place != BLOBS - 1 {
                    continue;
                }
                Op::Put(place, value)
            } else {
                let size = if place == BLOBS {
                    200_000
                } else {
                    SMALL[place % SMALL.len()]
                };
                Op::Put(
                    place,
                    Value {
                        number: 3000 + 100 * round + place as u32,
                        size,
                    },
                )
            };
            model.apply(&mut rig, op)?;
        }
    }
    model.apply(&mut rig, Op::Delete(BLOBS + 3))?;
    model.apply(&mut rig, Op::Delete(1))?;
    model.recover(&mut rig, Rig::restart)?;
    model.observe(&rig)?;
    Ok((rig, model))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap()))
}

/// Everything with a name in the files of a store.
fn fields(disk: &SimDisk) -> Vec<Field> {
    let mut all = Vec::new();
    for name in disk.names() {
        let bytes = disk.file_bytes(&name).unwrap();
        let mut add = |field, first: usize, len: usize| {
            if len > 0 && first + len <= bytes.len() {
                all.push(Field {
                    name: field,
                    file: name.clone(),
                    first,
                    len,
                });
            }
        };
        if name == "store.meta" {
            add("meta", 0, 64);
            add("meta copy", PAGE, 64);
        }
        if !name.starts_with("segments/") || word(&bytes, 0) == 0 {
            continue;
        }
        add("segment header", 0, 48);
        if word(&bytes, bytes.len() - PAGE) == 0x5a43_4654 {
            let footer = bytes.len() - PAGE;
            add("footer", footer, 40);
            add(
                "table of contents",
                word(&bytes, footer + 8) as usize,
                48 * word(&bytes, footer + 12) as usize,
            );
        }
        for at in (PAGE..bytes.len()).step_by(8) {
            match word(&bytes, at) {
                0x5a43_4254 if at % PAGE == 0 => add("batch header", at, 48),
                0x5a43_5245 => record_fields(&bytes, at, &mut add),
                _ => {}
            }
        }
    }
    all
}

fn record_fields(bytes: &[u8], at: usize, add: &mut impl FnMut(&'static str, usize, usize)) {
    let stored = word(bytes, at + 36) as usize;
    let parts = [
        ("record magic", 4),
        ("record checksum", 4),
        ("kind", 1),
        ("function", 1),
        ("encoding", 2),
        ("flags", 2),
        ("hint targets", 4),
        ("writer", 10),
        ("namespace", 4),
        ("part number", 4),
        ("stored length", 4),
        ("raw size", 8),
        ("version", 8),
        ("key", 32),
        ("payload checksums", 4 * stored.div_ceil(64 << 10)),
        ("payload", stored),
    ];
    let mut first = at;
    for (name, len) in parts {
        add(name, first, len);
        first += len;
    }
}

/// What happens between the damage and the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reopen {
    No,
    /// A clean stop.
    Clean,
    /// A kill. The damaged store had been stopped in an orderly way before, so that all segments are sealed, and
    /// their tables of contents tell which versions there were.
    Killed,
}

impl Reopen {
    fn pick(rng: &mut SimRng) -> Reopen {
        *rng.pick(&[Reopen::No, Reopen::No, Reopen::Clean, Reopen::Killed])
    }
}

/// Reads everything after a damage: how many of the places lost their newest value.
fn lost_after(rig: &mut Rig, mut model: Model, reopen: Reopen) -> Result<u64, String> {
    match reopen {
        Reopen::No => {}
        Reopen::Clean => model.recover(rig, Rig::restart)?,
        Reopen::Killed => model.recover(rig, |rig| rig.kill(1))?,
    }
    model.lossy = true;
    let before = model.states();
    let after = model.observe(rig)?;
    for (place, (was, is)) in before.iter().zip(&after).enumerate() {
        if is.is_some() && is != was {
            return Err(format!("place {place}: {is:?} came back where {was:?} was"));
        }
    }
    // What is lost stays lost, and nothing else gets lost by looking.
    let again = model.observe(rig)?;
    if again != after {
        return Err("a second look differs".into());
    }
    Ok(before
        .iter()
        .zip(&after)
        .filter(|(was, is)| was != is)
        .count() as u64)
}

#[test]
fn a_flipped_bit_in_any_field_loses_at_most_the_record_it_hits() {
    let mut per_field: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let counts = std::sync::Mutex::new(&mut per_field);
    Row::new("row 5, flips", 2000, 30).run(|seed| {
        let mut rng = SimRng::new(seed);
        let (mut rig, model) = filled(seed % 4)?;
        let all = fields(&rig.disk);
        let mut names: Vec<&str> = all.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        let wanted = names[seed as usize % names.len()];
        let of_name: Vec<&Field> = all.iter().filter(|field| field.name == wanted).collect();
        let field = (*rng.pick(&of_name)).clone();
        let bit = rng.below(8) as u8;
        let offset = field.first + rng.index(field.len);
        rig.disk.flip_bit(&field.file, offset as u64, bit);
        let reopen = Reopen::pick(&mut rng);
        let context = format!(
            "bit {bit} of byte {} of {field:?}, reopened: {reopen:?}",
            offset - field.first
        );
        let lost =
            lost_after(&mut rig, model, reopen).map_err(|why| format!("{context}: {why}"))?;
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(field.name).or_default();
        *count = (count.0 + 1, count.1 + lost);
        (lost <= 1)
            .then_some(())
            .ok_or_else(|| format!("{context}: {lost} values lost"))
    });
    println!("row 5: flips and lost values by field: {per_field:?}");
}

#[test]
fn a_zeroed_or_stale_page_gives_no_wrong_byte_and_no_older_version() {
    Row::new("row 5, pages", 500, 12).run(|seed| {
        let mut rng = SimRng::new(seed);
        let (mut rig, model) = filled(seed % 4)?;
        let names: Vec<String> = rig
            .disk
            .names()
            .into_iter()
            .filter(|name| name.starts_with("segments/"))
            .collect();
        let name = rng.pick(&names).clone();
        let bytes = rig.disk.file_bytes(&name).unwrap();
        let used: Vec<usize> = (0..bytes.len() / PAGE)
            .filter(|page| bytes[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0))
            .collect();
        if used.is_empty() {
            return Ok(());
        }
        let page = *rng.pick(&used);
        let other = *rng.pick(&used);
        let stale = rng.permille(500);
        if stale {
            // A write of some other page that went to this place.
            let mut moved = bytes.clone();
            moved.copy_within(other * PAGE..(other + 1) * PAGE, page * PAGE);
            rig.disk.plant_file(&name, &moved);
        } else {
            rig.disk.zero(&name, (page * PAGE) as u64, PAGE as u64);
        }
        // A planted file is another one than the node has open.
        let reopen = if stale {
            Reopen::Killed
        } else {
            Reopen::pick(&mut rng)
        };
        let context = format!("page {page} of {name}, reopened: {reopen:?}");
        lost_after(&mut rig, model, reopen)
            .map(drop)
            .map_err(|why| format!("{context}: {why}"))
    });
}

#[test]
fn writes_that_got_lost_or_went_astray_give_no_wrong_byte() {
    let mix = Mix {
        large_permille: 20,
        recover: true,
    };
    Row::new("row 5, lost and misdirected writes", 400, 12).run(|seed| {
        let mut rng = SimRng::new(seed);
        let mut rig = Rig::fresh(seed);
        let mut model = Model::default().lossy();
        for op in sequence(&mut rng, 80, mix) {
            let kind = match rng.below(3) {
                0 => FaultKind::LostWrite,
                _ => FaultKind::MisdirectedWrite(*rng.pick(&[-100, -7, -1, 1, 2, 30])),
            };
            if rng.permille(100) {
                rig.disk
                    .inject(Fault::once(OpKind::Write, rng.below(4), kind).on("segments/"));
            }
            model.apply(&mut rig, op)?;
        }
        rig.disk.heal();
        model.observe(&rig).map(drop)
    });
}

#[test]
fn a_read_that_flips_a_bit_once_is_read_again() {
    let cases = scaled(100);
    let mut failed = 0;
    for seed in 0..cases {
        let (rig, mut model) = filled(seed % 4).unwrap();
        let mut rng = SimRng::new(seed);
        model.lossy = true;
        for _ in 0..10 {
            let flip = Fault::once(OpKind::Read, rng.below(60), FaultKind::FlippedRead);
            rig.disk.inject(flip.on("segments/"));
            model.observe(&rig).unwrap();
            // With values in RAM a round may read less often than that: two flips at once would be a bad disk.
            rig.disk.heal();
        }
        failed += model.lost;
    }
    println!(
        "row 5: {} flipped reads, {failed} values lost by them",
        cases * 10
    );
    assert_eq!(failed, 0, "a bad cache is told from a bad disk");
}

#[test]
fn a_verification_finds_the_damage_that_was_done() {
    let (mut rig, mut model) = filled(1).unwrap();
    let payloads: Vec<Field> = fields(&rig.disk)
        .into_iter()
        .filter(|field| field.name == "payload")
        .collect();
    let longest = payloads.iter().max_by_key(|field| field.len).unwrap();
    rig.disk
        .flip_bit(&longest.file, (longest.first + longest.len / 2) as u64, 3);
    let admin = rig.node().admin();
    let report = rig.wait(admin.verify(Box::new(|_| {}))).unwrap().unwrap();
    assert_eq!(
        (report.damaged, report.examples.len()),
        (1, 1),
        "{report:?}"
    );
    assert!(rig.stats().corrupt_records >= 1);
    let again = rig.wait(admin.verify(Box::new(|_| {}))).unwrap().unwrap();
    assert_eq!(again.damaged, 0, "it is no longer served");
    model.lossy = true;
    model.observe(&rig).unwrap();
    assert_eq!(model.lost, 1);
    model.lossy = false;
    model.recover(&mut rig, Rig::restart).unwrap();
}
