//! What this process takes of its machine, read from `/proc` when the metrics page is made.
//!
//! The names are those of every Prometheus client. Where there is no `/proc`, nothing is shown. Not here: what the
//! process does.

use std::{fs, time::Duration};

use prometheus::{
    Counter, Gauge, Result,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Ticks of a second in `/proc`, the same on every Linux.
const TICKS: f64 = 100.0;

/// The figures of this process.
#[derive(Debug)]
pub(crate) struct Process {
    cpu: Counter,
    resident: Gauge,
    open_files: Gauge,
    most_files: Gauge,
    threads: Gauge,
    started: Gauge,
}

/// What `/proc` says.
#[derive(Debug, PartialEq)]
struct Reading {
    cpu: Duration,
    threads: f64,
    /// Since the machine booted.
    started: Duration,
}

impl Process {
    pub(crate) fn new() -> Result<Process> {
        Ok(Process {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Time of processors spent by this process.",
            )?,
            resident: Gauge::new("process_resident_memory_bytes", "RAM that it has.")?,
            open_files: Gauge::new("process_open_fds", "Files and sockets that it has open.")?,
            most_files: Gauge::new("process_max_fds", "Most that it may have open.")?,
            threads: Gauge::new("process_threads", "Its threads.")?,
            started: Gauge::new(
                "process_start_time_seconds",
                "When it was started, in seconds since 1970.",
            )?,
        })
    }

    fn gauges(&self) -> [&Gauge; 5] {
        [
            &self.resident,
            &self.open_files,
            &self.most_files,
            &self.threads,
            &self.started,
        ]
    }

    fn read(&self) -> Option<()> {
        let reading = parse_stat(&text("/proc/self/stat")?)?;
        let more = reading.cpu.as_secs_f64() - self.cpu.get();
        self.cpu.inc_by(more.max(0.0));
        self.threads.set(reading.threads);
        let status = text("/proc/self/status")?;
        self.resident.set(number_after(&status, "VmRSS:")? * 1024.0);
        let limits = text("/proc/self/limits")?;
        self.most_files
            .set(number_after(&limits, "Max open files")?);
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        self.open_files.set(open as f64);
        let booted = number_after(&text("/proc/stat")?, "btime ")?;
        self.started.set(booted + reading.started.as_secs_f64());
        Some(())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges().into_iter().flat_map(Collector::desc);
        self.cpu.desc().into_iter().chain(gauges).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if self.read().is_none() {
            return Vec::new();
        }
        let gauges = self.gauges().into_iter().flat_map(Collector::collect);
        self.cpu.collect().into_iter().chain(gauges).collect()
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first number behind a word at the start of a line.
fn number_after(text: &str, word: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The line of `/proc/self/stat`. The name of the program, in brackets, may hold anything.
fn parse_stat(line: &str) -> Option<Reading> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Behind the name: field 3 of the manual is the first.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Reading {
        cpu: Duration::from_secs_f64((field(14)? + field(15)?) / TICKS),
        threads: field(20)?,
        started: Duration::from_secs_f64(field(22)? / TICKS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_program_is_called() {
        let line = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 1234 0 0";
        let reading = Reading {
            cpu: Duration::from_secs(2),
            threads: 9.0,
            started: Duration::from_millis(12_340),
        };
        assert_eq!(parse_stat(line), Some(reading));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }
}
