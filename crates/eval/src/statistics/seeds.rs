use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Interval, StatisticsError, UPPER};

/// What the seeds of one method gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeedSummary {
    /// Number of seeds, n.
    pub seeds: usize,
    /// x̄ = Σ xᵢ / n.
    pub mean: f64,
    /// The smallest value.
    pub smallest: f64,
    /// The largest value.
    pub largest: f64,
    /// How far the seeds lie apart; none for a single seed.
    pub spread: Option<Spread>,
}

/// How far seeds lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Sample standard deviation s = √(Σ (xᵢ − x̄)² / (n − 1)).
    pub standard_deviation: f64,
    /// Student's interval of the mean, x̄ ± t₀.₉₇₅(n − 1) · s / √n.
    pub interval: Interval,
}

impl SeedSummary {
    /// Summarises one value per seed: accuracies, or differences of accuracies of paired seeds.
    ///
    /// Assumes that the values are independent and roughly normal. The interval is that of the
    /// method's mean over seeds on these very reviews; other reviews are not in it, nor is it cut
    /// to shares from 0 to 1. Source: Student (1908), "The Probable Error of a Mean".
    ///
    /// An error if there are no values, or one is not finite.
    pub fn new(values: &[f64]) -> Result<Self, StatisticsError> {
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return Err(StatisticsError::NotFinite(value));
        }
        let (Some(smallest), Some(largest)) =
            (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
        else {
            return Err(StatisticsError::Empty("seed"));
        };
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let spread = (values.len() > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let standard_deviation = (squares / (count - 1.0)).sqrt();
            let student = StudentsT::new(0.0, 1.0, count - 1.0)
                .expect("two values or more leave a degree of freedom");
            let half = student.inverse_cdf(UPPER) * standard_deviation / count.sqrt();
            let interval = Interval { low: mean - half, high: mean + half };
            Spread { standard_deviation, interval }
        });
        Ok(Self { seeds: values.len(), mean, smallest, largest, spread })
    }
}
