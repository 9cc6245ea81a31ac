use std::fmt;

use crate::statistics::StatisticsError;

/// Why predictions could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A comparison needs two.
    #[error("expected two methods or more to compare, found {0}")]
    Groups(usize),
    /// A method has no predictions.
    #[error("{0}: no predictions to compare")]
    NoMembers(String),
    /// Two runs of a method have one seed: the same run twice, or not the same method.
    #[error("{group}: {first} and {second} both have seed {seed}; give each run of a method once")]
    Seed {
        /// The method.
        group: String,
        /// A run.
        first: String,
        /// The other run.
        second: String,
        /// Their seed.
        seed: u64,
    },
    /// A review was predicted twice.
    #[error("{member}: more than one prediction for {ids}")]
    Duplicate {
        /// The run or file.
        member: String,
        /// The reviews.
        ids: Ids,
    },
    /// The reviews are not the same.
    #[error("{member}: no prediction for {ids}, which {other} has; compare on the same reviews")]
    Missing {
        /// The run or file that lacks them.
        member: String,
        /// The run or file that has them.
        other: String,
        /// The reviews.
        ids: Ids,
    },
    /// The true classes are not the same.
    #[error("{first} and {second} have different labels for {ids}")]
    Labels {
        /// A run or file.
        first: String,
        /// The other run or file.
        second: String,
        /// The reviews.
        ids: Ids,
    },
    /// A statistic could not be computed.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
}

/// Ids of reviews, of which a message shows the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids(pub Vec<String>);

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let Self(ids) = self;
        let shown = ids[..ids.len().min(SHOWN)].join(", ");
        let more = if ids.len() > SHOWN { ", ..." } else { "" };
        let reviews = if ids.len() == 1 { "review" } else { "reviews" };
        write!(f, "{} {reviews} (id {shown}{more})", ids.len())
    }
}
