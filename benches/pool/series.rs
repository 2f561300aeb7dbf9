//! All samples of a run, and what is asked of them: medians, and ratios within a round.
//!
//! The machine's speed drifts by a third within minutes, its ratios hardly. So two contenders are compared round by
//! round, and the median is taken of the ratios, never a ratio of medians.

use crate::cell::{Sample, Shape};
use crate::contender::Kind;

/// One cell of one round.
pub(crate) struct Entry {
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
    pub(crate) round: usize,
    pub(crate) result: Result<Sample, String>,
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

/// What is read from a sample; none where there is no such figure.
pub(crate) type Figure = fn(&Sample) -> Option<f64>;

/// All cells of all rounds.
#[derive(Default)]
pub(crate) struct Series {
    pub(crate) entries: Vec<Entry>,
    /// Greatest share of the machine that other processes used in a round.
    pub(crate) others_share: f64,
}

impl Series {
    /// One figure of one cell over all rounds.
    pub(crate) fn spread(&self, shape: Shape, kind: Kind, figure: Figure) -> Option<Spread> {
        Spread::of(
            self.samples(shape, kind)
                .filter_map(|(_, sample)| figure(sample))
                .collect(),
        )
    }

    /// The same figure of two contenders, divided within each round.
    pub(crate) fn ratio(&self, shape: Shape, kind: Kind, to: Kind, figure: Figure) -> Option<Spread> {
        let ratios = self.samples(shape, kind).filter_map(|(round, sample)| {
            let (_, other) = self.samples(shape, to).find(|(of, _)| *of == round)?;
            Some(figure(sample)? / figure(other)?)
        });
        Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// Why a cell failed, the first time it did.
    pub(crate) fn failure(&self, shape: Shape, kind: Kind) -> Option<&str> {
        let failures = self
            .entries
            .iter()
            .filter(|entry| entry.shape == shape && entry.kind == kind);
        failures
            .filter_map(|entry| entry.result.as_ref().err())
            .map(String::as_str)
            .next()
    }

    fn samples(&self, shape: Shape, kind: Kind) -> impl Iterator<Item = (usize, &Sample)> {
        let entries = self
            .entries
            .iter()
            .filter(move |entry| entry.shape == shape && entry.kind == kind);
        entries.filter_map(|entry| Some((entry.round, entry.result.as_ref().ok()?)))
    }
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_unstable_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let (below, above) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Spread {
            median: (below + above) / 2.0,
            least,
            greatest,
        })
    }
}
