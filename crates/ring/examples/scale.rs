//! Placement at scale: how even, how much moves, how large and how fast, how many nodes a look-up asks.
//!
//! `cargo run --release -p zimcache-ring --example scale -- docs/scale.md` writes the figures into the page, between
//! the marks `<!-- name -->` and `<!-- end -->`; names after the path choose parts, without a path it prints. Sampled keys
//! have no pattern and are the same in every run; times are of the machine it runs on.

#![allow(clippy::print_stdout, reason = "prints its figures")]

use std::{
    collections::BTreeSet, error::Error, fmt::Write as _, fs, hint::black_box, time::Instant,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use zimcache_ring::{Change, Document, Member, NodeIx, Point, Ring, next};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SIZES: [usize; 6] = [3, 10, 30, 100, 300, 1000];
const KEYS: u64 = 10_000_000;
const REPLICAS: u32 = 2;
/// Clusters of other names, to see what names do.
const FAMILIES: u32 = 1000;
const KEYS_PER_FAMILY: u64 = 100_000;
/// Look-ups of 1,000 digests each.
const BATCHES: u64 = 1000;
const BATCH: u64 = 1000;
/// Sorts behind every other name, so that the others keep their numbers.
const NEWCOMER: &str = "z-late";

/// A part of the page and how its figures are made.
type Part = (&'static str, fn() -> Outcome<String>);

/// The table comes first, as long as no freed memory is at hand that would hide what it takes.
const PARTS: [Part; 4] = [
    ("table", table),
    ("balance and movement", placement),
    ("names", families),
    ("look-ups", fan_out),
];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = arguments.get(1..).unwrap_or_default();
    for (name, make) in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|each| each == name) {
            continue;
        }
        let figures = make()?;
        match arguments.first() {
            Some(path) => fs::write(path, fill(&fs::read_to_string(path)?, name, &figures)?)?,
            None => println!("{name}\n\n{figures}"),
        }
    }
    Ok(())
}

/// The page with other text between the marks of this name.
fn fill(page: &str, name: &str, text: &str) -> Outcome<String> {
    let mark = format!("<!-- {name} -->\n");
    let (before, rest) = page.split_once(&mark).ok_or("the page lacks a mark")?;
    let (_, after) = rest
        .split_once("<!-- end -->")
        .ok_or("the page lacks an end")?;
    Ok(format!("{before}{mark}\n{text}\n<!-- end -->{after}"))
}

fn points(count: u64) -> impl Iterator<Item = Point> {
    let mut random = StdRng::seed_from_u64(1);
    (0..count).map(move |_| Point(random.random()))
}

fn members(name: &str, count: usize, zones: usize) -> Vec<Member> {
    let member = |n| Member {
        zone: format!("zone-{}", n % zones),
        ..Member::new(format!("{name}{n}"))
    };
    (0..count).map(member).collect()
}

fn joined(document: &Document) -> Outcome<Ring> {
    let members = vec![Member {
        zone: "zone-0".to_owned(),
        ..Member::new(NEWCOMER)
    }];
    Ok(Ring::new(&next(document, &Change::Join { members })?))
}

fn left(document: &Document) -> Outcome<Ring> {
    let ids = vec![document.current().members[0].id.clone()];
    Ok(Ring::new(&next(document, &Change::Leave { ids })?))
}

/// Copies in `after` on nodes that had none in `before`.
fn gained(before: &[NodeIx], after: &[NodeIx]) -> u64 {
    after.iter().filter(|node| !before.contains(node)).count() as u64
}

fn placement() -> Outcome<String> {
    let mut text = String::from(
        "| nodes | zones | fullest / mean | emptiest / mean | first owner: fullest / mean | 1 G keys: copies on the fullest node | \
         a node joins: moved (ideal) | a node leaves: moved (ideal) |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let zoned = [(30, 3), (300, 3)];
    for (nodes, zones) in SIZES.map(|nodes| (nodes, 1)).into_iter().chain(zoned) {
        let document = Document::first(REPLICAS, members("node-", nodes, zones))?;
        writeln!(text, "{}", placement_row(&document, nodes, zones)?)?;
    }
    Ok(text)
}

fn placement_row(document: &Document, nodes: usize, zones: usize) -> Outcome<String> {
    let (join, leave) = (joined(document)?, left(document)?);
    let (mut copies, mut firsts) = (vec![0_u64; nodes], vec![0_u64; nodes]);
    let (mut came, mut went) = (0, 0);
    for point in points(KEYS) {
        let both = join.read_set(point);
        for node in both.previous {
            copies[node.index()] += 1;
        }
        firsts[both.previous[0].index()] += 1;
        came += gained(both.previous, both.current);
        went += gained(both.previous, leave.owners(point));
    }
    let total = KEYS * u64::from(REPLICAS);
    let over_mean = |count: u64, total: u64| count as f64 * nodes as f64 / total as f64;
    let most = copies.iter().max().copied().unwrap_or(0);
    let least = copies.iter().min().copied().unwrap_or(0);
    let first = firsts.iter().max().copied().unwrap_or(0);
    let share = |moved: u64| 100.0 * moved as f64 / total as f64;
    let at_1g = most as f64 / KEYS as f64 * 1e9 / 1e6;
    Ok(format!(
        "| {nodes} | {zones} | {:.3} | {:.3} | {:.3} | {at_1g:.1} M | {:.3} % ({:.3} %) | {:.3} % ({:.3} %) |",
        over_mean(most, total),
        over_mean(least, total),
        over_mean(first, KEYS),
        share(came),
        100.0 / (nodes + 1) as f64,
        share(went),
        100.0 / nodes as f64,
    ))
}

/// From three to four nodes in clusters of many names.
fn families() -> Outcome<String> {
    let mut text = String::from(
        "| copies | moved: median | 99 of 100 clusters | most | clusters above 27 % | fullest of three / mean, 99 of 100 |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for replicas in [1, 2, 3] {
        let mut moved = Vec::new();
        let mut fullest = Vec::new();
        for family in 0..FAMILIES {
            let document = Document::first(replicas, members(&format!("c{family}-"), 3, 1))?;
            let ring = joined(&document)?;
            let (share, full) = family_figures(&ring);
            moved.push(share);
            fullest.push(full);
        }
        moved.sort_by(f64::total_cmp);
        fullest.sort_by(f64::total_cmp);
        let at = |list: &[f64], percent: usize| list[(list.len() - 1) * percent / 100];
        let above = moved.iter().filter(|share| **share > 27.0).count();
        writeln!(
            text,
            "| {replicas} | {:.2} % | {:.2} % | {:.2} % | {above} of {FAMILIES} | {:.3} |",
            at(&moved, 50),
            at(&moved, 99),
            at(&moved, 100),
            at(&fullest, 99),
        )?;
    }
    Ok(text)
}

fn family_figures(ring: &Ring) -> (f64, f64) {
    let (mut moved, mut copies, mut total) = (0, [0_u64; 3], 0);
    for point in points(KEYS_PER_FAMILY) {
        let both = ring.read_set(point);
        for node in both.previous {
            copies[node.index()] += 1;
        }
        moved += gained(both.previous, both.current);
        total += both.current.len() as u64;
    }
    let most = copies.into_iter().max().unwrap_or(0) as f64;
    (
        100.0 * moved as f64 / total as f64,
        most * 3.0 / total as f64,
    )
}

fn table() -> Outcome<String> {
    let largest = Document::first(REPLICAS, members("node-", 1000, 3))?;
    let before = resident_bytes()?;
    let ring = Ring::new(&largest);
    let grown = resident_bytes()?.saturating_sub(before) as f64 / 1e6;
    black_box(ring);
    let mut text = String::from(
        "| nodes | virtual nodes | document | table | build | look-up |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for nodes in SIZES {
        let document = Document::first(REPLICAS, members("node-", nodes, 3))?;
        let start = Instant::now();
        let ring = Ring::new(&document);
        let build = start.elapsed();
        let start = Instant::now();
        let first = points(KEYS).map(|point| ring.owners(point)[0].index());
        black_box(first.sum::<usize>());
        let look_up = start.elapsed().as_nanos() / u128::from(KEYS);
        writeln!(
            text,
            "| {nodes} | {} | {} KB | {:.2} MB | {:.1} ms | {look_up} ns |",
            ring.virtual_nodes(),
            document.to_json()?.len().div_ceil(1000),
            ring.memory_bytes() as f64 / 1e6,
            build.as_secs_f64() * 1e3,
        )?;
    }
    writeln!(
        text,
        "\nA process that built the ring of 1,000 nodes held {grown:.1} MB more than before."
    )?;
    Ok(text)
}

fn resident_bytes() -> Outcome<u64> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages
        .split(' ')
        .nth(1)
        .ok_or("no resident pages")?
        .parse()?;
    Ok(pages * 4096)
}

fn fan_out() -> Outcome<String> {
    let mut text = String::from(
        "| nodes | nodes asked, each digest at its first owner | nodes asked, at an owner that is asked anyway | digests of the largest call, first owners |\n\
         | --- | --- | --- | --- |\n",
    );
    for nodes in SIZES {
        let ring = Ring::new(&Document::first(REPLICAS, members("node-", nodes, 1))?);
        let (mut firsts, mut grouped, mut largest) = (0, 0, 0);
        let keys: Vec<Point> = points(BATCH * BATCHES).collect();
        for batch in keys.chunks_exact(BATCH as usize) {
            let mut calls = vec![0_usize; nodes];
            for point in batch {
                calls[ring.owners(*point)[0].index()] += 1;
            }
            firsts += calls.iter().filter(|digests| **digests > 0).count();
            largest = largest.max(calls.into_iter().max().unwrap_or(0));
            grouped += asked_anyway(&ring, batch);
        }
        let mean = |sum: usize| sum as f64 / BATCHES as f64;
        writeln!(
            text,
            "| {nodes} | {:.1} | {:.1} | {largest} |",
            mean(firsts),
            mean(grouped)
        )?;
    }
    Ok(text)
}

/// How many nodes are asked if each digest goes to an owner that is asked already, where there is one.
fn asked_anyway(ring: &Ring, batch: &[Point]) -> usize {
    let mut asked = BTreeSet::new();
    for point in batch {
        let owners = ring.owners(*point);
        if !owners.iter().any(|node| asked.contains(node)) {
            asked.insert(owners[0]);
        }
    }
    asked.len()
}
