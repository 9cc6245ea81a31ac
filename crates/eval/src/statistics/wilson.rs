use statrs::distribution::{ContinuousCDF, Normal};

use super::{Interval, StatisticsError, UPPER};

/// Wilson's score interval of a share, for instance of the accuracy of one trained model.
///
/// (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n), with p̂ = `right` / n, n = `reviews` and
/// z = 1.96. Unlike p̂ ± z √(p̂(1 − p̂)/n) it stays within 0 and 1 and has a width when all reviews
/// are right. Assumes independent reviews; the model is taken as it is, so seeds are not in it.
/// Source: Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference".
///
/// An error if there are no reviews, or more right than there are.
pub fn wilson_interval(right: u64, reviews: u64) -> Result<Interval, StatisticsError> {
    if reviews == 0 {
        return Err(StatisticsError::Empty("review"));
    }
    if right > reviews {
        return Err(StatisticsError::Count { right, reviews });
    }
    let count = reviews as f64;
    let share = right as f64 / count;
    let z = Normal::standard().inverse_cdf(UPPER);
    let scale = 1.0 + z * z / count;
    let centre = (share + z * z / (2.0 * count)) / scale;
    let variance = share * (1.0 - share) / count + z * z / (4.0 * count * count);
    let half = z * variance.sqrt() / scale;
    // At 0 and n the ends are 0 and 1 but for rounding.
    Ok(Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}
