use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Interval, StatisticsError, UPPER};

/// How often to resample, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// Number of resamples; 10,000 give the ends of an interval of reviews to about 3 % of a standard
    /// error. What seeds add is not drawn.
    pub resamples: usize,
    /// Seed of the generator: the same seed gives the same interval.
    pub seed: u64,
}

/// Whether the n-th runs of two methods share a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedPairing {
    /// They do: what varies over seeds is the difference of the two methods.
    Paired,
    /// They do not: each method varies by itself.
    Independent,
}

/// The difference of two methods' accuracies, first less second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapDifference {
    /// The difference of the mean accuracies.
    pub difference: f64,
    /// √(seeds' variance + reviews' variance): s² / n of the seeds' differences (for unpaired seeds
    /// the sum of both methods'), and the variance of a review's mean difference by the number of
    /// reviews.
    pub standard_error: f64,
    /// From the 0.025 to the 0.975 quantile of the resampled differences, between two of them by
    /// linear interpolation.
    pub interval: Interval,
}

/// Two-level percentile bootstrap of the difference of two methods' mean accuracies.
///
/// `first` and `second` say, `[seed][review]`, whether a review was predicted rightly. A resample
/// draws as many reviews as there are, with replacement; each counts in every seed and both methods,
/// as all were tested on the same reviews. To their mean difference it adds what another draw of
/// seeds may change: t · s / √n, where t is of Student's distribution with n − 1 degrees of
/// freedom and s is the standard deviation of the seeds' differences; for unpaired seeds, t with
/// Welch's degrees of freedom times √(s₁²/n₁ + s₂²/n₂). So the interval is Student's where the
/// reviews do not matter, and the bootstrap's where the seeds do not. Of R resamples the i-th, from 0,
/// has the (i + ½)/R quantile for its t, which are the distribution's own, where draws would leave the
/// long tails of few degrees of freedom to chance.
///
/// Seeds are not drawn with replacement, as Owen (2007), "The Pigeonhole Bootstrap", would: n of them
/// then vary (n − 1)/n times as much as they do, and of three even the quantiles cannot reach
/// beyond the furthest, so that an interval for 95 % holds 74 %.
///
/// Assumes that reviews are independent of each other, and seeds as well, whose accuracies are
/// roughly normal. With one seed in each method only reviews vary; one seed beside a method of several
/// is taken to vary as those do, by their standard deviations, each weighed by its degrees of freedom.
/// A method that has no seed, and so does not vary with it, is its one run once per seed of the other.
/// What varies with seed and review together counts
/// in both levels, which makes the interval long rather than short. Percentile interval: Efron and
/// Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13. Welch (1947), "The
/// Generalization of 'Student's' Problem when Several Different Population Variances are Involved".
///
/// The draws of reviews are exact, and cost nothing per review: a review matters only by its sum over
/// the seeds, which takes few values, and how often each value is drawn is multinomial.
///
/// An error if there are no seeds, reviews or resamples, not as many reviews in each seed, or not
/// as many seeds in both methods although they are paired.
pub fn bootstrap_difference(
    first: &[Vec<bool>],
    second: &[Vec<bool>],
    pairing: SeedPairing,
    resampling: Resampling,
) -> Result<BootstrapDifference, StatisticsError> {
    let terms = [Term { weight: 1, runs: first }, Term { weight: -1, runs: second }];
    bootstrap_contrast(&terms, 1, pairing, resampling)
}

/// A method in a linear contrast.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// What its mean accuracy is multiplied by.
    pub weight: i64,
    /// `[seed][review]`: whether a review was predicted rightly.
    pub runs: &'a [Vec<bool>],
}

/// [`bootstrap_difference`] of a linear contrast of several methods, `Σ weight · accuracy / divisor`:
/// all are tested on the reviews that are drawn. Paired seeds vary together, a contrast a seed;
/// of unpaired ones each method's variance counts by its weight's square.
pub fn bootstrap_contrast(
    terms: &[Term<'_>],
    divisor: u32,
    pairing: SeedPairing,
    resampling: Resampling,
) -> Result<BootstrapDifference, StatisticsError> {
    let reviews = check(terms, pairing, resampling)?;
    // A review's value in units of one prediction in one choice of seeds, undivided.
    let unit: usize = terms.iter().map(|term| term.runs.len()).product();
    let reach = |sign: i64| -> i64 {
        terms.iter().map(|term| (sign * term.weight).max(0)).sum::<i64>() * unit as i64
    };
    let widest = reach(1).max(reach(-1)) as usize;
    let mut counts = vec![0; 2 * widest + 1];
    for review in 0..reviews {
        let value = terms.iter().map(|Term { weight, runs }| {
            let right = runs.iter().filter(|run| run[review]).count();
            weight * (right * unit / runs.len()) as i64
        });
        counts[(widest as i64 + value.sum::<i64>()) as usize] += 1;
    }
    let whole = unit as f64 * f64::from(divisor);
    let scale = whole * reviews as f64;
    let seeds = seed_level(terms, f64::from(divisor), pairing);
    let students = seeds.map(|level| quantiles(level.freedom, resampling.resamples));
    let seed_error = seeds.map_or(0.0, |level| level.standard_error);

    let mut rng = ChaCha8Rng::seed_from_u64(resampling.seed);
    let mut differences: Vec<f64> = (0..resampling.resamples)
        .map(|resample| {
            let of_reviews = draw_total(&counts, widest, reviews as u64, &mut rng) as f64 / scale;
            of_reviews + students.as_ref().map_or(0.0, |students| students[resample] * seed_error)
        })
        .collect();
    differences.sort_unstable_by(f64::total_cmp);

    let means = terms.iter().map(|term| term.weight as f64 * mean_accuracy(term.runs));
    let difference = means.sum::<f64>() / f64::from(divisor);
    let squares = counts.iter().enumerate().map(|(index, &count)| {
        let value = (index as f64 - widest as f64) / whole;
        (value - difference).powi(2) * count as f64
    });
    let of_reviews = squares.sum::<f64>() / (reviews as f64).powi(2);
    Ok(BootstrapDifference {
        difference,
        standard_error: (seed_error.powi(2) + of_reviews).sqrt(),
        interval: Interval {
            low: quantile(&differences, 1.0 - UPPER),
            high: quantile(&differences, UPPER),
        },
    })
}

/// So many quantiles of Student's distribution, in the middle of as many equal shares. A study asks for
/// few of them, again and again, and they take longer than all else.
fn quantiles(freedom: f64, count: usize) -> Arc<[f64]> {
    type Known = BTreeMap<(u64, usize), Arc<[f64]>>;
    static KNOWN: Mutex<Known> = Mutex::new(Known::new());
    let key = (freedom.to_bits(), count);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known().get(&key) {
        return found.clone();
    }
    let student = StudentsT::new(0.0, 1.0, freedom).expect("two seeds leave degrees of freedom");
    let mut quantiles = vec![0.0; count];
    for low in 0..count / 2 {
        let quantile = student.inverse_cdf((low as f64 + 0.5) / count as f64);
        (quantiles[low], quantiles[count - 1 - low]) = (quantile, -quantile);
    }
    let quantiles: Arc<[f64]> = quantiles.into();
    known().insert(key, quantiles.clone());
    quantiles
}

/// How a difference varies over seeds.
#[derive(Clone, Copy)]
struct Level {
    standard_error: f64,
    /// Degrees of freedom.
    freedom: f64,
}

/// None where no method has two seeds that differ.
fn seed_level(terms: &[Term<'_>], divisor: f64, pairing: SeedPairing) -> Option<Level> {
    let samples = terms.iter().map(|Term { weight, runs }| -> (f64, Vec<f64>) {
        let accuracy = |run| mean_accuracy(std::slice::from_ref(run));
        (*weight as f64 / divisor, runs.iter().map(accuracy).collect())
    });
    let samples: Vec<(f64, Vec<f64>)> = match pairing {
        SeedPairing::Paired => samples
            .map(|(weight, values)| values.into_iter().map(|value| weight * value).collect())
            .reduce(|sums: Vec<f64>, more| sums.iter().zip(more).map(|(a, b)| a + b).collect())
            .map(|sums| (1.0, sums))
            .into_iter()
            .collect(),
        SeedPairing::Independent => samples.collect(),
    };
    let (alone, several): (Vec<_>, Vec<_>) =
        samples.iter().partition(|(_, values)| values.len() == 1);
    let alone: f64 = alone.iter().map(|(weight, _)| weight * weight).sum();
    let all_freedom: f64 = several.iter().map(|(_, values)| values.len() as f64 - 1.0).sum();
    let (mut variance, mut by_freedom) = (0.0, 0.0);
    for (weight, values) in several {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        // Its own mean's, and its share in what a method of one seed is taken to vary by.
        let weight = weight * weight / count + alone * (count - 1.0) / all_freedom;
        let part = weight * squares / (count - 1.0);
        variance += part;
        by_freedom += part.powi(2) / (count - 1.0);
    }
    let freedom = variance.powi(2) / by_freedom;
    // Seeds that do not differ leave 0 by 0.
    freedom.is_finite().then(|| Level { standard_error: variance.sqrt(), freedom })
}

/// Checks the input and gives the number of reviews.
fn check(
    terms: &[Term<'_>],
    pairing: SeedPairing,
    resampling: Resampling,
) -> Result<usize, StatisticsError> {
    let Some(first) = terms.first().map(|term| term.runs) else {
        return Err(StatisticsError::Empty("method"));
    };
    if terms.iter().any(|term| term.runs.is_empty()) {
        return Err(StatisticsError::Empty("seed"));
    }
    let unpaired = terms.iter().find(|term| term.runs.len() != first.len());
    if let (SeedPairing::Paired, Some(other)) = (pairing, unpaired) {
        let (expected, found) = (first.len(), other.runs.len());
        return Err(StatisticsError::Length { what: "paired seeds", expected, found });
    }
    let expected = first[0].len();
    if let Some(run) = terms.iter().flat_map(|term| term.runs).find(|run| run.len() != expected) {
        return Err(StatisticsError::Length { what: "reviews", expected, found: run.len() });
    }
    if expected == 0 {
        return Err(StatisticsError::Empty("review"));
    }
    if resampling.resamples == 0 {
        return Err(StatisticsError::Empty("resample"));
    }
    Ok(expected)
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
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}
