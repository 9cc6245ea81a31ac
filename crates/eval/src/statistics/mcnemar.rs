use std::fmt;

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, Discrete, DiscreteCDF};

use super::StatisticsError;

/// Reviews by which of two trained models predicted them rightly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Right by both, n₁₁.
    pub both_right: u64,
    /// Right by the first alone, n₁₀.
    pub only_first: u64,
    /// Right by the second alone, n₀₁.
    pub only_second: u64,
    /// Right by neither, n₀₀.
    pub both_wrong: u64,
}

impl Agreement {
    /// Counts; `first` and `second` say of the same reviews whether they were predicted rightly.
    ///
    /// An error if there are no reviews, or not as many in both.
    pub fn count(first: &[bool], second: &[bool]) -> Result<Self, StatisticsError> {
        if first.is_empty() {
            return Err(StatisticsError::Empty("review"));
        }
        if first.len() != second.len() {
            let (expected, found) = (first.len(), second.len());
            return Err(StatisticsError::Length { what: "reviews", expected, found });
        }
        let mut agreement = Self::default();
        for pair in first.iter().zip(second) {
            *match pair {
                (true, true) => &mut agreement.both_right,
                (true, false) => &mut agreement.only_first,
                (false, true) => &mut agreement.only_second,
                (false, false) => &mut agreement.both_wrong,
            } += 1;
        }
        Ok(agreement)
    }

    /// Reviews that only one of the two predicted rightly.
    pub fn discordant(&self) -> u64 {
        self.only_first + self.only_second
    }
}

/// McNemar's test: are two trained models equally accurate on reviews like these?
///
/// Of the n = n₁₀ + n₀₁ discordant reviews, equally accurate models share each with chance 1/2.
/// Assumes independent reviews and takes both models as they are: it says nothing of other seeds.
/// Source: McNemar (1947), "Note on the Sampling Error of the Difference Between Correlated
/// Proportions or Percentages". Fagerland, Lydersen and Laake (2013), "The McNemar Test for Binary
/// Matched-Pairs Data: Mid-p and Asymptotic Are Better Than Exact Conditional", advise the mid-p or the
/// uncorrected χ²; what is reported here is more conservative than either.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct McNemar {
    /// Exact p: min(1, 2 P(X ≤ k)), k = min(n₁₀, n₀₁), X ~ Binomial(n, 1/2).
    ///
    /// Never too small, but conservative for few discordant reviews.
    pub exact_p: f64,
    /// Mid-p: 2 P(X ≤ k) − P(X = k). Less conservative; not guaranteed, but seldom too small.
    pub mid_p: f64,
    /// max(0, |n₁₀ − n₀₁| − 1)² / n, with Edwards's (1948) continuity correction; 0 if n = 0.
    pub statistic: f64,
    /// The chance of that much or more in χ² with one degree of freedom.
    pub chi_square_p: f64,
    /// Which of the tests [`Self::p`] reports.
    pub reported: McNemarTest,
}

/// A form of McNemar's test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McNemarTest {
    /// The exact binomial test.
    Exact,
    /// The chi-square with continuity correction.
    ChiSquare,
}

impl McNemar {
    /// Discordant reviews from which the chi-square is reported, the usual limit.
    pub const CHI_SQUARE_FROM: u64 = 25;

    /// Computes all forms of the test.
    ///
    /// The exact test is reported below [`Self::CHI_SQUARE_FROM`] discordant reviews, the
    /// chi-square from there on. The continuity correction approximates the exact test, so that p
    /// does not jump at the limit; mid-p, which would, is there to be reported beside it.
    pub fn new(agreement: &Agreement) -> Self {
        let discordant = agreement.discordant();
        let (exact_p, mid_p) = exact_and_mid_p(agreement);
        let difference = agreement.only_first.abs_diff(agreement.only_second);
        let corrected = difference.saturating_sub(1) as f64;
        let statistic =
            if discordant == 0 { 0.0 } else { corrected * corrected / discordant as f64 };
        let chi_squared = ChiSquared::new(1.0).expect("one degree of freedom is positive");
        let chi_square_p = chi_squared.sf(statistic);
        let reported = if discordant < Self::CHI_SQUARE_FROM {
            McNemarTest::Exact
        } else {
            McNemarTest::ChiSquare
        };
        Self { exact_p, mid_p, statistic, chi_square_p, reported }
    }

    /// The p-value to report, of the test that [`Self::reported`] names.
    pub fn p(&self) -> f64 {
        match self.reported {
            McNemarTest::Exact => self.exact_p,
            McNemarTest::ChiSquare => self.chi_square_p,
        }
    }
}

impl fmt::Display for McNemarTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::ChiSquare => "χ²",
        })
    }
}

/// statrs keeps nine digits up to 100,000 discordant reviews; beyond 25 they are not reported.
fn exact_and_mid_p(agreement: &Agreement) -> (f64, f64) {
    // By symmetry, and without the rounding of the sum: 2 P(X ≤ n/2) = 1 + P(X = n/2).
    if agreement.only_first == agreement.only_second {
        return (1.0, 1.0);
    }
    let fewer = agreement.only_first.min(agreement.only_second);
    let binomial = Binomial::new(0.5, agreement.discordant()).expect("1/2 is a probability");
    let both_tails = 2.0 * binomial.cdf(fewer);
    (both_tails.min(1.0), both_tails - binomial.pmf(fewer))
}
