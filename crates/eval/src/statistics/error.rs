/// Why a statistic could not be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StatisticsError {
    /// There is nothing to compute from.
    #[error("expected at least one {0}, found none")]
    Empty(&'static str),
    /// Two lists that belong together differ in length.
    #[error("expected {expected} {what}, found {found}")]
    Length {
        /// What was counted.
        what: &'static str,
        /// As many as the first list has.
        expected: usize,
        /// As many as the other list has.
        found: usize,
    },
    /// A value is infinite or not a number.
    #[error("expected a finite number, found {0}")]
    NotFinite(f64),
    /// More reviews were predicted rightly than there are.
    #[error("expected at most {reviews} right predictions, found {right}")]
    Count {
        /// Reviews predicted rightly.
        right: u64,
        /// All reviews.
        reviews: u64,
    },
    /// A p-value is none.
    #[error("expected a p-value from 0 to 1, found {0}")]
    Probability(f64),
}
