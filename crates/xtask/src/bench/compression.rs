//! Rows of compression: the store's codecs on build outputs found on this machine, without disk or server.
//!
//! Files are cut as the store cuts values: whole up to 1 MiB, else into parts of 1 MiB. What the store would not try,
//! or would not keep, counts with its own size and with the time of finding that out. Times are processor time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use zimcache_config::Compression;
use zimcache_node::testing::codec::CodecProbe;

use super::{Bench, result::Sample, rows::Row, scale::Scale, subject::Subject};

/// Payload of one record.
const PART_BYTES: usize = 1 << 20;
/// Kinds of build output: a name, and how their files end.
const KINDS: [(&str, &[&str]); 4] = [
    ("rust", &[".rlib", ".rmeta", ".o"]),
    ("shared_object", &[".so"]),
    ("script", &[".js", ".ts", ".json", ".map", ".css"]),
    ("class", &[".class", ".jar"]),
];
/// Small values, cut from them.
const SMALL: [(&str, usize); 2] = [("cut_2k", 2 << 10), ("cut_16k", 16 << 10)];
/// Where build outputs lie besides cargo's target folder: what is installed.
const FOLDERS: [&str; 3] = ["/usr/lib", "/usr/share", "/usr/local/lib"];
const MIB: f64 = 1_048_576.0;

/// Time and sizes of some payloads.
#[derive(Debug, Default)]
struct Tally {
    raw: usize,
    stored: usize,
    encode_seconds: f64,
    decode_seconds: f64,
    decoded: usize,
    test_seconds: f64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.raw += other.raw;
        self.stored += other.stored;
        self.encode_seconds += other.encode_seconds;
        self.decode_seconds += other.decode_seconds;
        self.decoded += other.decoded;
        self.test_seconds += other.test_seconds;
    }

    fn ratio(&self) -> f64 {
        self.raw as f64 / self.stored.max(1) as f64
    }

    fn encode_rate(&self) -> f64 {
        self.raw as f64 / MIB / self.encode_seconds.max(1e-9)
    }

    fn decode_rate(&self) -> f64 {
        self.decoded as f64 / MIB / self.decode_seconds.max(1e-9)
    }
}

/// Every payload through one codec; MiB of payload a second.
pub(super) fn run(bench: &Bench, row: &Row, mode: Compression) -> Result<Vec<(String, Sample)>> {
    let probe = CodecProbe::new(mode);
    let kinds = KINDS.map(|(name, ends)| (name, payloads(ends, bench.scale)));
    let small = SMALL.map(|(name, bytes)| (name, cut(&kinds, bytes)));
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let mut all = Tally::default();
        let mut by_kind = Vec::new();
        for (name, payloads) in &kinds {
            let mut tally = Tally::default();
            for payload in payloads {
                measure(&probe, payload, &mut tally)?;
            }
            all.add(&tally);
            by_kind.push((name, tally));
        }
        ensure!(all.raw > 0, "no build outputs on this machine");
        for (name, payloads) in &small {
            let mut tally = Tally::default();
            for payload in payloads {
                measure(&probe, payload, &mut tally)?;
            }
            by_kind.push((name, tally));
        }
        let mut sample = Sample::new(Subject::Store, round, all.encode_rate())
            .with("ratio", all.ratio())
            .with("decode_mib_per_s", all.decode_rate())
            .with(
                "test_us_per_mib",
                all.test_seconds * 1e6 * MIB / all.raw as f64,
            )
            .with("payload_mib", all.raw as f64 / MIB);
        for (name, tally) in by_kind.iter().filter(|(_, tally)| tally.raw > 0) {
            sample = sample
                .with(&format!("{name}_ratio"), tally.ratio())
                .with(&format!("{name}_mib_per_s"), tally.encode_rate());
        }
        bench.say(&row.id, row.unit, &sample);
        samples.push((row.id.clone(), sample));
    }
    Ok(samples)
}

/// Processor time of this thread: a codec does not wait, so this is what it costs, whatever else runs.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn measure(probe: &CodecProbe, raw: &[u8], tally: &mut Tally) -> Result<()> {
    let started = cpu_seconds();
    let tried = probe.would_try(raw);
    tally.test_seconds += cpu_seconds() - started;
    let encoded = if tried { probe.encode(raw) } else { None };
    tally.encode_seconds += cpu_seconds() - started;
    tally.raw += raw.len();
    let Some((encoding, stored)) = encoded else {
        tally.stored += raw.len();
        return Ok(());
    };
    tally.stored += stored.len();
    let mut back = vec![0; raw.len()];
    let started = cpu_seconds();
    let decodes = probe.decode(encoding, &stored, &mut back);
    tally.decode_seconds += cpu_seconds() - started;
    tally.decoded += raw.len();
    ensure!(
        decodes && back == raw,
        "a payload does not decode to itself"
    );
    Ok(())
}

/// The beginnings of payloads that the store would try, as small values of their own.
fn cut(kinds: &[(&str, Vec<Vec<u8>>)], bytes: usize) -> Vec<Vec<u8>> {
    const MOST: usize = 2000;
    let all = kinds.iter().flat_map(|(_, payloads)| payloads);
    let long = all.filter(|payload| payload.len() >= bytes);
    long.map(|payload| payload[..bytes].to_vec())
        .take(MOST)
        .collect()
}

/// Files that end so, cut into payloads, up to the volume of a row; the same ones every time.
fn payloads(ends: &[&str], scale: Scale) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    find(Path::new(&target), ends, &mut files, 0);
    for folder in FOLDERS {
        find(Path::new(folder), ends, &mut files, 0);
    }
    files.sort();
    let mut payloads = Vec::new();
    let mut left = scale.codec_bytes;
    // Every seventh file and so on: not all of one library.
    for file in (0..7).flat_map(|first| files.iter().skip(first).step_by(7)) {
        let Ok(bytes) = fs::read(file) else { continue };
        if bytes.len() > left {
            continue;
        }
        left -= bytes.len();
        payloads.extend(bytes.chunks(PART_BYTES).map(<[u8]>::to_vec));
    }
    payloads
}

fn find(folder: &Path, ends: &[&str], files: &mut Vec<PathBuf>, depth: usize) {
    const DEEPEST: usize = 8;
    let Ok(items) = fs::read_dir(folder) else {
        return;
    };
    for item in items.flatten() {
        let Ok(kind) = item.file_type() else { continue };
        let path = item.path();
        let name = item.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() && depth < DEEPEST {
            find(&path, ends, files, depth + 1);
        } else if kind.is_file() && ends.iter().any(|end| name.ends_with(end)) {
            files.push(path);
        }
    }
}
