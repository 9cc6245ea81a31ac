//! Statistics of accuracies, over reviews and over seeds.
//!
//! | question | answer |
//! |---|---|
//! | how accurate is one trained model on reviews like these? | [`wilson_interval`] |
//! | how accurate is a method, whatever the seed? | [`SeedSummary`] |
//! | do two trained models differ on these reviews? | [`McNemar`] of an [`Agreement`] |
//! | do two methods differ on these reviews, whatever the seed? | [`sign_flip_p`] |
//! | how far apart are two methods, over seeds and reviews? | [`bootstrap_difference`] |
//! | how far is a method from the middle of two others? | [`bootstrap_contrast`] |
//! | which of several differences remain? | [`holm`] |
//!
//! Accuracies and differences are shares from 0 to 1, not percentages. Intervals are two-sided and
//! hold [`CONFIDENCE`]; p-values are two-sided. Dror et al. (2018, "The Hitchhiker's Guide to
//! Testing Statistical Significance in Natural Language Processing") discuss the choice of tests.

use statrs::statistics::{Data, OrderStatistics};

mod bootstrap;
mod error;
mod holm;
mod mcnemar;
mod seeds;
mod sign_flip;
mod wilson;

pub use bootstrap::{
    BootstrapDifference, Resampling, SeedPairing, Term, bootstrap_contrast, bootstrap_difference,
};
pub use error::StatisticsError;
pub use holm::holm;
pub use mcnemar::{Agreement, McNemar, McNemarTest};
pub use seeds::{SeedSummary, Spread};
pub use sign_flip::sign_flip_p;
pub use wilson::wilson_interval;

/// The middle of these values, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    OrderStatistics::median(&mut Data::new(values.to_vec()))
}

/// The confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// The quantile that leaves half of what [`CONFIDENCE`] leaves above it: 0.975.
const UPPER: f64 = 0.5 + CONFIDENCE / 2.0;

/// An interval with [`CONFIDENCE`], its ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// What of it a share can be: Student's t knows no bounds, and of few seeds its ends may lie beyond
    /// 0 and 1.
    #[must_use]
    pub fn of_a_share(self) -> Self {
        Self { low: self.low.clamp(0.0, 1.0), high: self.high.clamp(0.0, 1.0) }
    }
}
