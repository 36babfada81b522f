//! What was measured, as it is kept: every sample of every round, in one JSON file that later runs update row by row.
//!
//! Ratios are formed inside a round, between samples taken one after the other; the median of the ratios is what a
//! goal is held against, never the ratio of two medians.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    machine::{Machine, Noise},
    rows::{Goal, Row},
    subject::Subject,
};

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Who.
    pub(super) subject: Subject,
    /// In which round, from 0.
    pub(super) round: usize,
    /// The figure, in the row's unit.
    pub(super) value: f64,
    /// Figures beside it, by name; the unit is the last part of the name.
    #[serde(default)]
    pub(super) extra: BTreeMap<String, f64>,
}

impl Sample {
    /// A sample without further figures.
    pub(super) fn new(subject: Subject, round: usize, value: f64) -> Sample {
        Sample {
            subject,
            round,
            value,
            extra: BTreeMap::new(),
        }
    }

    /// A figure beside the value by its name, or the value.
    fn figure(&self, name: Option<&str>) -> Option<f64> {
        match name {
            Some(name) => self.extra.get(name).copied(),
            None => Some(self.value),
        }
    }

    /// Adds a figure.
    pub(super) fn with(mut self, name: &str, value: f64) -> Sample {
        self.extra.insert(name.to_owned(), value);
        self
    }
}

/// All samples of a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// The run they were taken in, milliseconds since the epoch.
    pub(super) taken_at: u64,
    /// What else went on before.
    pub(super) noise: Noise,
    /// A shortened run: not a result.
    pub(super) quick: bool,
    /// The samples.
    pub(super) samples: Vec<Sample>,
}

/// Everything measured so far on one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    /// Where.
    pub(super) machine: Machine,
    /// Versions of the programs.
    pub(super) versions: BTreeMap<String, String>,
    /// Rows by id.
    pub(super) rows: BTreeMap<String, Measured>,
}

impl Results {
    /// Reads earlier results; a missing file is an empty result. Those of another machine are dropped.
    pub(super) fn load(path: &Path, machine: &Machine) -> Result<Results> {
        let mut results = match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} is no result file", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Results::default(),
            Err(error) => return Err(error.into()),
        };
        if results.machine != *machine {
            results.rows.clear();
            results.machine = machine.clone();
        }
        Ok(results)
    }

    /// Writes them.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Median and bounds of some numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Spread {
    /// The middle one; between the two middle ones.
    pub(super) median: f64,
    /// The smallest.
    pub(super) least: f64,
    /// The largest.
    pub(super) most: f64,
    /// How many.
    pub(super) count: usize,
}

impl Spread {
    /// Of at least one number.
    pub(super) fn of(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 {
            numbers[middle]
        } else {
            f64::midpoint(numbers[middle - 1], numbers[middle])
        };
        Some(Spread {
            median,
            least,
            most,
            count: numbers.len(),
        })
    }
}

/// How a goal came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// The goal.
    pub(super) goal: Goal,
    /// The ratio or figure held against it.
    pub(super) spread: Spread,
    /// Whether the median reaches it and no request failed.
    pub(super) met: bool,
}

impl Measured {
    /// The figures of a subject.
    pub(super) fn of(&self, subject: Subject) -> Option<Spread> {
        self.figure(subject, None)
    }

    /// Median of a further figure of a subject.
    pub(super) fn extra(&self, subject: Subject, name: &str) -> Option<f64> {
        self.figure(subject, Some(name)).map(|spread| spread.median)
    }

    fn figure(&self, subject: Subject, name: Option<&str>) -> Option<Spread> {
        let numbers = self.each(subject).filter_map(|sample| sample.figure(name));
        Spread::of(numbers.collect())
    }

    /// One subject's figure over another's, round by round. A subject measured once stands for every round.
    pub(super) fn ratio(&self, over: Subject, under: Subject) -> Option<Spread> {
        self.ratio_of(over, under, None)
    }

    fn ratio_of(&self, over: Subject, under: Subject, name: Option<&str>) -> Option<Spread> {
        let ratios = self.each(over).filter_map(|top| {
            let same_round = self.each(under).find(|bottom| bottom.round == top.round);
            let bottom = same_round.or_else(|| self.each(under).next())?;
            Some(top.figure(name)? / bottom.figure(name)?)
        });
        Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// Whether all goals can be judged. Those against a peer that need not be there do not count without it.
    pub(super) fn is_complete(&self, row: &Row) -> bool {
        let optional = |goal: &&Goal| {
            let peer = goal.against.filter(|peer| peer.is_optional());
            peer.is_none_or(|peer| self.of(peer).is_some())
        };
        let needed = row.goals.iter().filter(optional).count();
        needed > 0 && self.verdicts(row).len() >= needed
    }

    /// The row's goals, each with what was reached; those that cannot be judged are left out.
    pub(super) fn verdicts(&self, row: &Row) -> Vec<Verdict> {
        row.goals
            .iter()
            .filter_map(|&goal| {
                let spread = match goal.against {
                    Some(peer) => self.ratio_of(row.judged, peer, goal.figure)?,
                    None => self.figure(row.judged, goal.figure)?,
                };
                let reached = if goal.more_is_better(row.unit) {
                    spread.median >= goal.bound
                } else {
                    spread.median <= goal.bound
                };
                Some(Verdict {
                    goal,
                    spread,
                    met: reached && self.errors() == 0.0,
                })
            })
            .collect()
    }

    /// Failed requests of all subjects.
    pub(super) fn errors(&self) -> f64 {
        self.samples
            .iter()
            .filter_map(|sample| sample.extra.get("errors"))
            .sum()
    }

    fn each(&self, subject: Subject) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.subject == subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(samples: &[(Subject, usize, f64)]) -> Measured {
        Measured {
            samples: samples
                .iter()
                .map(|&(subject, round, value)| Sample::new(subject, round, value))
                .collect(),
            ..Measured::default()
        }
    }

    #[test]
    fn the_median_of_ratios_is_not_the_ratio_of_medians() {
        let (ours, theirs) = (Subject::Zimcache, Subject::BazelRemote);
        let rows = [
            (ours, 0, 10.0),
            (theirs, 0, 1.0),
            (ours, 1, 20.0),
            (theirs, 1, 10.0),
            (ours, 2, 90.0),
            (theirs, 2, 30.0),
        ];
        let spread = measured(&rows).ratio(ours, theirs).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (2.0, 3.0, 10.0));
    }

    #[test]
    fn a_peer_measured_once_stands_for_every_round() {
        let (ours, theirs) = (Subject::Zimcache, Subject::BazelRemote);
        let rows = [(ours, 0, 10.0), (ours, 1, 30.0), (theirs, 0, 10.0)];
        let spread = measured(&rows).ratio(ours, theirs).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
        assert!(measured(&rows).ratio(ours, Subject::Nginx).is_none());
    }

    #[test]
    fn a_goal_may_be_about_a_figure_beside_the_value() {
        let row = super::super::rows::all()
            .into_iter()
            .find(|row| row.id == "reapi-findmissing-50-16")
            .unwrap();
        let mut rows = measured(&[
            (Subject::Zimcache, 0, 70.0),
            (Subject::BazelRemote, 0, 10.0),
        ]);
        for (sample, p99) in rows.samples.iter_mut().zip([100.0, 1_000.0]) {
            sample.extra.insert("p99_us".to_owned(), p99);
        }
        let verdicts = rows.verdicts(&row);
        let ratios: Vec<f64> = verdicts.iter().map(|v| v.spread.median).collect();
        assert_eq!(ratios, [7.0, 0.1]);
        assert!(verdicts.iter().all(|verdict| verdict.met));
        assert!(rows.is_complete(&row), "bb-storage need not be there");
        rows.samples.push(Sample::new(Subject::BbStorage, 0, 20.0));
        assert!(!rows.is_complete(&row), "its p99 is not known");
    }

    #[test]
    fn failed_requests_fail_the_goal() {
        let row = super::super::rows::all()
            .into_iter()
            .find(|row| row.id == "put-1k")
            .unwrap();
        let mut rows = measured(&[
            (Subject::Zimcache, 0, 70.0),
            (Subject::BazelRemote, 0, 10.0),
        ]);
        assert!(rows.verdicts(&row)[0].met);
        rows.samples[0].extra.insert("errors".to_owned(), 1.0);
        assert!(!rows.verdicts(&row)[0].met);
    }
}
