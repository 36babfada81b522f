//! The rows: what is measured, in which unit, against whom, and what is to be reached.
//!
//! The first ten are the promise of the store and the server; the others say how the figures come about. Those of the
//! Remote Execution API and of a cluster come last, promises and others.

use zimcache_config::Compression;

use super::{cluster, presence, reapi, subject::Subject};

pub(super) use super::unit::{Goal, Unit};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

/// A steady load on every server of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// What is asked.
    pub(super) ask: Ask,
    /// Size of each blob in bytes.
    pub(super) size: u64,
    /// Connections.
    pub(super) connections: usize,
    /// Requests per second of an open loop; `None` for a closed one.
    pub(super) rate: Option<f64>,
}

/// What a load asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Uploads of distinct blobs.
    Put,
    /// Reads of blobs that are there, this many in turn.
    Get {
        /// How many.
        blobs: usize,
    },
    /// Reads of blobs that are not there.
    Miss,
    /// Reads of action results that are not there.
    MissResult,
}

/// How a row's figure is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Experiment {
    /// Requests per second (closed loop) or latency (open loop) under a steady load.
    Steady(Load),
    /// Many small entries: memory and restart; gives several rows.
    Many,
    /// Large uploads and downloads at once.
    Streaming,
    /// Uploads, then reads, of the size histogram; gives two rows.
    Histogram,
    /// Index memory through the store itself.
    Index,
    /// Durable writes through the store itself against a file per blob.
    StorePut {
        /// Threads that write.
        writers: usize,
        /// Blob size in bytes.
        size: u64,
    },
    /// Reads through the store itself against a file per blob.
    StoreGet {
        /// Threads that read.
        readers: usize,
    },
    /// Look-ups of many blobs through the store itself; gives several rows.
    StoreMissing,
    /// The store's codecs on build outputs.
    Codec(Compression),
    /// Our generator against wrk, on one server.
    CrossCheck(Subject),
    /// The Remote Execution API.
    Reapi(reapi::Experiment),
    /// A cluster.
    Cluster(cluster::Experiment),
}

/// A row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its name on the command line.
    pub(super) id: String,
    /// Its name for people.
    pub(super) title: String,
    /// Unit of its figure.
    pub(super) unit: Unit,
    /// Whose figure is held against the goals.
    pub(super) judged: Subject,
    /// Who is measured, in this order.
    pub(super) subjects: Vec<Subject>,
    /// What is to be reached.
    pub(super) goals: Vec<Goal>,
    /// How.
    pub(super) experiment: Experiment,
    /// Part of the promise.
    pub(super) promised: bool,
}

impl Row {
    /// A row without goals.
    pub(super) fn new(
        id: &str,
        title: &str,
        unit: Unit,
        subjects: &[Subject],
        experiment: Experiment,
    ) -> Row {
        Row {
            id: id.to_owned(),
            title: title.to_owned(),
            unit,
            judged: subjects[0],
            subjects: subjects.to_vec(),
            goals: Vec::new(),
            experiment,
            promised: false,
        }
    }

    fn steady(id: &str, title: &str, subjects: &[Subject], load: Load) -> Row {
        let unit = match load.rate {
            None => Unit::PerSecond,
            Some(_) => Unit::Micros,
        };
        Row::new(id, title, unit, subjects, Experiment::Steady(load))
    }

    /// With this to reach.
    pub(super) fn goal(mut self, against: Option<Subject>, bound: f64) -> Row {
        self.goals.push(Goal {
            against,
            bound,
            figure: None,
        });
        self
    }

    /// With this to reach by a figure beside its value, of which less is better.
    pub(super) fn figure_goal(
        mut self,
        against: Option<Subject>,
        figure: &'static str,
        bound: f64,
    ) -> Row {
        self.goals.push(Goal {
            against,
            bound,
            figure: Some(figure),
        });
        self
    }

    /// As part of the promise.
    pub(super) fn promised(mut self) -> Row {
        self.promised = true;
        self
    }
}

const SERVERS: [Subject; 3] = [Subject::Zimcache, Subject::BazelRemote, Subject::Nginx];
const CACHES: [Subject; 2] = [Subject::Zimcache, Subject::BazelRemote];

/// Every row, in the order of the report.
pub(super) fn all() -> Vec<Row> {
    let mut rows = throughput_rows();
    rows.extend(memory_rows());
    rows.extend(latency_rows());
    rows.extend(histogram_rows());
    rows.extend(store_rows());
    rows.extend(codec_rows());
    rows.extend(check_rows());
    rows.extend(reapi::all());
    rows.extend(cluster::all());
    rows
}

pub(super) const fn closed(ask: Ask, size: u64, connections: usize) -> Load {
    Load {
        ask,
        size,
        connections,
        rate: None,
    }
}

fn throughput_rows() -> Vec<Row> {
    let peer = Some(Subject::BazelRemote);
    let nginx = Some(Subject::Nginx);
    let get = |blobs| Ask::Get { blobs };
    vec![
        Row::steady(
            "put-1k",
            "durable PUT of 1 KiB, 64 connections",
            &SERVERS,
            closed(Ask::Put, KIB, 64),
        )
        .goal(peer, 6.0)
        .promised(),
        Row::steady(
            "put-1m",
            "durable PUT of 1 MiB, 64 connections",
            &SERVERS,
            closed(Ask::Put, MIB, 64),
        )
        .goal(peer, 1.5)
        .promised(),
        Row::steady(
            "get-1k",
            "GET of 1 KiB, warm, 64 connections",
            &SERVERS,
            closed(get(1_000), KIB, 64),
        )
        .goal(peer, 3.0)
        .goal(nginx, 1.0)
        .promised(),
        Row::steady(
            "get-miss",
            "GET that misses, 64 connections",
            &SERVERS,
            closed(Ask::Miss, KIB, 64),
        )
        .goal(peer, 1.5)
        .promised(),
        Row::steady(
            "get-64k",
            "GET of 64 KiB, warm, 64 connections",
            &SERVERS,
            closed(get(200), 64 * KIB, 64),
        )
        .goal(peer, 1.5)
        .promised(),
        Row::steady(
            "get-64m",
            "GET of 64 MiB, warm, 8 connections",
            &SERVERS,
            closed(get(4), 64 * MIB, 8),
        )
        .goal(nginx, 0.8)
        .promised(),
    ]
}

fn memory_rows() -> Vec<Row> {
    let peer = Some(Subject::BazelRemote);
    vec![
        Row::new(
            "index-10m",
            "index RAM per entry at 10 M entries",
            Unit::BytesPerEntry,
            &[Subject::Store],
            Experiment::Index,
        )
        .goal(None, 20.0)
        .promised(),
        Row::new(
            "rss-1m",
            "RSS with 1 M entries of 64 B, over idle",
            Unit::BytesPerEntry,
            &CACHES,
            Experiment::Many,
        )
        .goal(None, 40.0)
        .promised(),
        Row::new(
            "restart-1m",
            "restart after kill -9 with 1 M entries, to the first hit",
            Unit::Seconds,
            &CACHES,
            Experiment::Many,
        )
        .goal(peer, 0.1)
        .goal(None, 1.0)
        .promised(),
        Row::new(
            "rss-streaming",
            "peak RSS over idle, 64 × 256 MiB uploads, then downloads",
            Unit::Mib,
            &CACHES,
            Experiment::Streaming,
        )
        .goal(None, 150.0)
        .promised(),
        Row::new(
            "rss-1m-restarted",
            "RSS with 1 M entries of 64 B after that restart, over idle",
            Unit::BytesPerEntry,
            &CACHES,
            Experiment::Many,
        ),
    ]
}

fn latency_rows() -> Vec<Row> {
    let open = |ask, per_second| Load {
        ask,
        size: KIB,
        connections: 64,
        rate: Some(per_second),
    };
    vec![
        Row::steady(
            "latency-get-1k",
            "p99 of GET of 1 KiB, open loop, 10 000/s",
            &SERVERS,
            open(Ask::Get { blobs: 1_000 }, 10_000.0),
        )
        .goal(None, 1_000.0),
        Row::steady(
            "latency-put-1k",
            "p99 of durable PUT of 1 KiB, open loop, 1 000/s",
            &SERVERS,
            open(Ask::Put, 1_000.0),
        ),
    ]
}

fn histogram_rows() -> Vec<Row> {
    let row = |id, title| Row::new(id, title, Unit::PerSecond, &SERVERS, Experiment::Histogram);
    vec![
        row(
            "histogram-put",
            "durable PUT of the size histogram, 64 connections",
        ),
        row("histogram-get", "GET of the size histogram, 64 connections"),
    ]
}

fn store_rows() -> Vec<Row> {
    let subjects = [Subject::Store, Subject::FilePerBlob];
    let files = Some(Subject::FilePerBlob);
    let mut rows = Vec::new();
    for (name, size) in [("1k", KIB), ("16k", 16 * KIB), ("1m", MIB)] {
        for writers in [1, 8, 64] {
            rows.push(Row::new(
                &format!("store-put-{name}-{writers}"),
                &format!("durable write of {} KiB, writers: {writers}", size / KIB),
                Unit::PerSecond,
                &subjects,
                Experiment::StorePut { writers, size },
            ));
        }
    }
    for readers in [1, 8] {
        let row = Row::new(
            &format!("store-get-4k-{readers}"),
            &format!("warm read of 4 KiB, readers: {readers}"),
            Unit::PerSecond,
            &subjects,
            Experiment::StoreGet { readers },
        );
        rows.push(row.goal(files, 3.0));
    }
    for share in presence::SHARES {
        let row = Row::new(
            &presence::row_id(share),
            &format!("p50 of a look-up of 1 000 blobs, 1 M held, {share} % there, one thread"),
            Unit::Micros,
            &[Subject::Store],
            Experiment::StoreMissing,
        );
        rows.push(row.goal(None, 120.0));
    }
    rows
}

fn codec_rows() -> Vec<Row> {
    let row = |id, title, mode| {
        let experiment = Experiment::Codec(mode);
        Row::new(id, title, Unit::MibPerSecond, &[Subject::Store], experiment)
    };
    vec![
        row(
            "compression-zstd",
            "zstd on build outputs, one core",
            Compression::Zstd,
        )
        .goal(None, 190.0),
        row(
            "compression-lz4",
            "LZ4 on build outputs, one core",
            Compression::Lz4,
        )
        .goal(None, 477.0),
    ]
}

fn check_rows() -> Vec<Row> {
    [Subject::NullServer, Subject::Nginx, Subject::BazelRemote]
        .map(|server| {
            Row::new(
                &format!("check-{}", server.name().replace(' ', "-")),
                &format!("GET of 1 KiB from {}, 64 connections", server.name()),
                Unit::PerSecond,
                &[Subject::Generator, Subject::Wrk],
                Experiment::CrossCheck(server),
            )
        })
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_every_promise_a_goal() {
        let rows = all();
        let names: HashSet<_> = rows.iter().map(|row| row.id.clone()).collect();
        assert_eq!(names.len(), rows.len());
        let promised: Vec<_> = rows.iter().filter(|row| row.promised).collect();
        assert_eq!(promised.len(), 34);
        assert!(promised.iter().all(|row| !row.goals.is_empty()));
    }
}
