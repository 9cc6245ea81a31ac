use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution};

use super::{Interval, StatisticsError, UPPER};

/// How often to resample, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// Number of resamples; 10,000 give the ends of an interval to about 3 % of a standard error.
    pub resamples: usize,
    /// Seed of the generator: the same seed gives the same interval.
    pub seed: u64,
}

/// Whether the n-th runs of two methods share a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedPairing {
    /// They do: a resample draws the same seeds for both methods.
    Paired,
    /// They do not: the seeds of each method are drawn by themselves.
    Independent,
}

/// The difference of two methods' accuracies, first less second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapDifference {
    /// The difference of the mean accuracies.
    pub difference: f64,
    /// Standard deviation of the resampled differences; 0 for a single resample.
    pub standard_error: f64,
    /// From the 0.025 to the 0.975 quantile of the resampled differences, between two of them by
    /// linear interpolation.
    pub interval: Interval,
}

/// Two-level percentile bootstrap of the difference of two methods' mean accuracies.
///
/// `first` and `second` say, `[seed][review]`, whether a review was predicted rightly. A resample
/// draws as many seeds, and as many reviews, as there are, with replacement, and takes the
/// difference of mean accuracies over them. Each drawn review counts in every drawn seed and both
/// methods, as all were tested on the same reviews: the bootstrap of a crossed design, the
/// pigeonhole bootstrap of Owen (2007), "The Pigeonhole Bootstrap". Percentile interval: Efron and
/// Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.
///
/// Assumes that reviews are independent of each other, and seeds as well. With one seed only
/// reviews vary. With n seeds, the seeds' own variance counts (n − 1)/n times, so that few seeds
/// make an interval short; what varies with seed and review together counts up to three times
/// (Owen), which makes it long.
///
/// The draws are exact, and cost nothing per review: given the seeds drawn, a review matters only
/// by its sum over them, which takes few values, and how often each value is drawn is multinomial.
///
/// An error if there are no seeds, reviews or resamples, not as many reviews in each seed, or not
/// as many seeds in both methods although they are paired.
pub fn bootstrap_difference(
    first: &[Vec<bool>],
    second: &[Vec<bool>],
    pairing: SeedPairing,
    resampling: Resampling,
) -> Result<BootstrapDifference, StatisticsError> {
    let reviews = check(first, second, pairing, resampling)?;
    // Reviews that the same seeds of both methods predicted rightly are alike.
    let mut patterns: BTreeMap<Vec<bool>, u64> = BTreeMap::new();
    for review in 0..reviews {
        let pattern = first.iter().chain(second).map(|seed| seed[review]).collect();
        *patterns.entry(pattern).or_default() += 1;
    }

    let mut rng = ChaCha8Rng::seed_from_u64(resampling.seed);
    let widest = first.len() * second.len();
    let mut counts = vec![0; 2 * widest + 1];
    let mut totals: Vec<i64> = (0..resampling.resamples)
        .map(|_| {
            let weights = seed_weights(first.len(), second.len(), pairing, &mut rng);
            counts.fill(0);
            for (pattern, count) in &patterns {
                let right = pattern.iter().zip(&weights).filter(|(right, _)| **right);
                let value: i64 = right.map(|(_, weight)| weight).sum();
                counts[(value + widest as i64) as usize] += count;
            }
            draw_total(&counts, widest, reviews as u64, &mut rng)
        })
        .collect();
    totals.sort_unstable();

    // A total is the difference in units of one review in one pair of seeds.
    let scale = widest as f64 * reviews as f64;
    let mean = totals.iter().sum::<i64>() as f64 / totals.len() as f64;
    let squares: f64 = totals.iter().map(|&total| (total as f64 - mean).powi(2)).sum();
    Ok(BootstrapDifference {
        difference: mean_accuracy(first) - mean_accuracy(second),
        standard_error: (squares / (totals.len() - 1).max(1) as f64).sqrt() / scale,
        interval: Interval {
            low: quantile(&totals, 1.0 - UPPER) / scale,
            high: quantile(&totals, UPPER) / scale,
        },
    })
}

/// Checks the input and gives the number of reviews.
fn check(
    first: &[Vec<bool>],
    second: &[Vec<bool>],
    pairing: SeedPairing,
    resampling: Resampling,
) -> Result<usize, StatisticsError> {
    if first.is_empty() || second.is_empty() {
        return Err(StatisticsError::Empty("seed"));
    }
    if pairing == SeedPairing::Paired && first.len() != second.len() {
        let (expected, found) = (first.len(), second.len());
        return Err(StatisticsError::Length { what: "paired seeds", expected, found });
    }
    let expected = first[0].len();
    if let Some(seed) = first.iter().chain(second).find(|seed| seed.len() != expected) {
        return Err(StatisticsError::Length { what: "reviews", expected, found: seed.len() });
    }
    if expected == 0 {
        return Err(StatisticsError::Empty("review"));
    }
    if resampling.resamples == 0 {
        return Err(StatisticsError::Empty("resample"));
    }
    Ok(expected)
}

/// How much a right prediction by each seed adds to a total: for the first method, the times the
/// seed is drawn by the number of the other's seeds; for the second, the negative of the same.
fn seed_weights(
    first: usize,
    second: usize,
    pairing: SeedPairing,
    rng: &mut ChaCha8Rng,
) -> Vec<i64> {
    let mut weights = vec![0; first + second];
    for _ in 0..first {
        let seed = rng.random_range(0..first);
        weights[seed] += second as i64;
        if pairing == SeedPairing::Paired {
            weights[first + seed] -= first as i64;
        }
    }
    if pairing == SeedPairing::Independent {
        for _ in 0..second {
            weights[first + rng.random_range(0..second)] -= first as i64;
        }
    }
    weights
}

/// Draws `reviews` reviews with replacement and adds their values; `counts[value + widest]` reviews
/// have a value.
///
/// The multinomial counts are drawn one after the other, each binomial given those before.
fn draw_total(counts: &[u64], widest: usize, reviews: u64, rng: &mut ChaCha8Rng) -> i64 {
    let (mut to_draw, mut left, mut total) = (reviews, reviews, 0);
    for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let binomial = Binomial::new(to_draw, count as f64 / left as f64)
            .expect("a part of what is left is a share of it");
        let drawn = binomial.sample(rng);
        total += (index as i64 - widest as i64) * drawn as i64;
        to_draw -= drawn;
        left -= count;
    }
    total
}

fn mean_accuracy(seeds: &[Vec<bool>]) -> f64 {
    let right = seeds.iter().flatten().filter(|right| **right).count();
    right as f64 / (seeds.len() * seeds[0].len()) as f64
}

/// The quantile of sorted values at `share` of the way from the first to the last.
fn quantile(sorted: &[i64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below as f64 + (above - below) as f64 * position.fract()
}
