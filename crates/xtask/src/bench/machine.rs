//! The machine under the benchmark: what it is, how busy it is, which core does what, what a process uses.
//!
//! Everything is read from `/proc`; nothing here changes the machine except the generator's own core.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The core a server runs on.
pub(super) const SERVER_CORE: usize = 0;
/// The core the generator runs on.
const GENERATOR_CORE: usize = 1;
/// The kernel's unit of processor time, per second; fixed in its interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Above this share of busy processor time by others, figures are not worth keeping.
const QUIET: f64 = 0.10;

/// What the machine is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Processor.
    pub(super) processor: String,
    /// Cores.
    pub(super) cores: usize,
    /// RAM in GiB.
    pub(super) ram_gib: f64,
    /// Kernel release.
    pub(super) kernel: String,
    /// File system under the data.
    pub(super) file_system: String,
}

impl Machine {
    /// Describes this machine, with the file system of `data`.
    pub(super) fn describe(data: &Path) -> Result<Machine> {
        let ram_kib = field_of("/proc/meminfo", "MemTotal")?;
        Ok(Machine {
            processor: processor(),
            cores: cores(),
            ram_gib: ram_kib as f64 / f64::from(1 << 20),
            kernel: kernel(),
            file_system: file_system(data)?,
        })
    }
}

/// How much else goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Noise {
    /// Load average of the last minute.
    pub(super) load: f64,
    /// Share of all cores that was busy while the benchmark itself rested.
    pub(super) busy: f64,
}

impl Noise {
    /// Looks for a second; the caller has nothing running.
    pub(super) fn measure() -> Result<Noise> {
        let (busy_before, all_before) = processor_ticks()?;
        thread::sleep(Duration::from_secs(1));
        let (busy_after, all_after) = processor_ticks()?;
        let load = read_trimmed("/proc/loadavg");
        Ok(Noise {
            load: load
                .split(' ')
                .next()
                .and_then(|first| first.parse().ok())
                .unwrap_or_default(),
            busy: (busy_after - busy_before) as f64 / (all_after - all_before).max(1) as f64,
        })
    }

    /// Whether figures taken now can be compared with others.
    pub(super) fn is_quiet(self) -> bool {
        self.busy <= QUIET
    }
}

/// How many cores there are.
pub(super) fn cores() -> usize {
    read_trimmed("/proc/cpuinfo")
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
        .max(1)
}

/// Whether server and generator can have a core each.
pub(super) fn can_pin() -> bool {
    cores() > GENERATOR_CORE
}

/// Puts the calling thread on the generator's core.
pub(super) fn pin_generator() -> Result<()> {
    if can_pin() {
        run_on(&[GENERATOR_CORE])?;
    }
    Ok(())
}

/// Lets the calling thread, and threads it starts, run on all cores.
pub(super) fn unpin() -> Result<()> {
    run_on(&(0..cores()).collect::<Vec<_>>())
}

fn run_on(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).context("cannot choose the core")
}

/// Resident bytes of a process now.
pub(super) fn rss_bytes(pid: u32) -> Result<u64> {
    Ok(field_of(&format!("/proc/{pid}/status"), "VmRSS")? << 10)
}

/// Most resident bytes the process ever had.
pub(super) fn peak_rss_bytes(pid: u32) -> Result<u64> {
    Ok(field_of(&format!("/proc/{pid}/status"), "VmHWM")? << 10)
}

/// Waits until the resident size has not moved by more than 1 % for two seconds (at most 20), then gives it.
pub(super) fn settled_rss_bytes(pid: u32) -> Result<u64> {
    let start = Instant::now();
    let mut last = rss_bytes(pid)?;
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = rss_bytes(pid)?;
        if now.abs_diff(last) <= now / 100 || start.elapsed() > Duration::from_secs(20) {
            return Ok(now);
        }
        last = now;
    }
}

/// Processor seconds a process and its children have used.
pub(super) fn processor_seconds(pid: u32) -> f64 {
    let own = stat_ticks(pid).unwrap_or_default() as f64 / TICKS_PER_SECOND;
    let children = read_trimmed(&format!("/proc/{pid}/task/{pid}/children"));
    own + children
        .split_whitespace()
        .filter_map(|child| stat_ticks(child.parse().ok()?))
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .sum::<f64>()
}

/// Processor seconds this process has used, without its children.
pub(super) fn own_processor_seconds() -> f64 {
    stat_ticks(std::process::id()).unwrap_or_default() as f64 / TICKS_PER_SECOND
}

/// User plus system time of a process.
fn stat_ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Busy and all ticks of all cores since boot.
fn processor_ticks() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .take(8)
        .collect();
    let all: u64 = ticks.iter().sum();
    // Fields 3 and 4 are idle and waiting for the disk.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// The kernel's version without what a packager added.
fn kernel() -> String {
    let release = read_trimmed("/proc/sys/kernel/osrelease");
    release.split('-').next().unwrap_or_default().to_owned()
}

fn processor() -> String {
    read_trimmed("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(": ")?
                    .1
                    .to_owned(),
            )
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Type of the file system that holds a folder: the longest mount point above it.
pub(super) fn file_system(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut best = ("", "unknown");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(kind)) = (words.next(), words.next())
            && folder.starts_with(point)
            && point.len() >= best.0.len()
        {
            best = (point, kind);
        }
    }
    Ok(best.1.to_owned())
}

fn field_of(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            value.split_whitespace().next()?.parse().ok()
        })
        .with_context(|| format!("{path} has no {name}"))
}

fn read_trimmed(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_machine_can_be_read() {
        let machine = Machine::describe(Path::new("/")).unwrap();
        assert!(machine.cores >= 1 && machine.ram_gib > 0.0 && !machine.kernel.is_empty());
        let pid = std::process::id();
        assert!(rss_bytes(pid).unwrap() > 0);
        assert!(peak_rss_bytes(pid).unwrap() >= rss_bytes(pid).unwrap() / 2);
        assert!(stat_ticks(pid).is_some());
        let (busy, all) = processor_ticks().unwrap();
        assert!(busy <= all && all > 0);
    }
}
