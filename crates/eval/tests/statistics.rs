//! The statistics against scipy and statsmodels: tests/statistics/make_cases.py.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nsmc_eval::statistics::{
    Agreement, BootstrapDifference, McNemar, McNemarTest, Resampling, SeedPairing, SeedSummary,
    StatisticsError, Term, bootstrap_contrast, bootstrap_difference, holm, sign_flip_p,
    wilson_interval,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde_json::Value;

/// Runs `check` on each case of a group.
fn each(group: &str, check: impl Fn(&Value)) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/statistics/cases.json");
    let cases: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    let cases = cases[group].as_array().unwrap();
    assert!(cases.len() > 4);
    cases.iter().for_each(check);
}

fn close(found: f64, expected: &Value, case: &Value) {
    let expected = expected.as_f64().unwrap();
    // Relative, so that a small p counts; the rest is for numbers that are 0 but for rounding.
    let tolerance = 1e-9 * expected.abs() + 1e-14;
    assert!((found - expected).abs() <= tolerance, "{found}, not {expected}: {case}");
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn seed_summaries_are_those_of_scipy() {
    each("seeds", |case| {
        let summary = SeedSummary::new(&numbers(&case["values"])).unwrap();
        close(summary.mean, &case["mean"], case);
        assert_eq!(summary.spread.is_none(), summary.seeds == 1);
        if let Some(spread) = summary.spread {
            close(spread.standard_deviation, &case["standard_deviation"], case);
            close(spread.interval.low, &case["low"], case);
            close(spread.interval.high, &case["high"], case);
        }
    });
}

#[test]
fn wilson_intervals_are_those_of_statsmodels() {
    each("wilson", |case| {
        let [right, reviews] = ["right", "reviews"].map(|name| case[name].as_u64().unwrap());
        let interval = wilson_interval(right, reviews).unwrap();
        close(interval.low, &case["low"], case);
        close(interval.high, &case["high"], case);
    });
}

#[test]
fn mcnemar_tests_are_those_of_statsmodels() {
    each("mcnemar", |case| {
        let [only_first, only_second] =
            ["only_first", "only_second"].map(|name| case[name].as_u64().unwrap());
        let agreement = Agreement { both_right: 100, only_first, only_second, both_wrong: 50 };
        let test = McNemar::new(&agreement);
        close(test.exact_p, &case["exact"], case);
        close(test.mid_p, &case["mid_p"], case);
        close(test.statistic, &case["statistic"], case);
        close(test.chi_square_p, &case["chi_square"], case);
        let exact = only_first + only_second < 25;
        assert_eq!(test.reported == McNemarTest::Exact, exact);
        close(test.p(), &case[if exact { "exact" } else { "chi_square" }], case);
    });
}

#[test]
fn holm_and_sign_flips_are_those_of_statsmodels_and_scipy() {
    each("holm", |case| {
        let corrected = holm(&numbers(&case["p"])).unwrap();
        let expected = case["adjusted"].as_array().unwrap();
        assert_eq!(corrected.len(), expected.len());
        corrected.iter().zip(expected).for_each(|(found, expected)| close(*found, expected, case));
    });
    each("sign_flip", |case| {
        let differences = case["differences"].as_array().unwrap();
        let differences: Vec<i64> = differences.iter().map(|d| d.as_i64().unwrap()).collect();
        close(sign_flip_p(&differences).unwrap(), &case["p"], case);
    });
}

/// The two methods of a bootstrap case, `[seed][review]`.
fn methods(case: &Value) -> (Vec<Vec<bool>>, Vec<Vec<bool>>) {
    let patterns = case["patterns"].as_array().unwrap();
    let runs = patterns[0][0].as_str().unwrap().len();
    let run = |run: usize| {
        let pattern = |pattern: &Value| {
            let right = pattern[0].as_str().unwrap().as_bytes()[run] == b'1';
            std::iter::repeat_n(right, pattern[1].as_u64().unwrap() as usize)
        };
        patterns.iter().flat_map(pattern).collect()
    };
    let first = case["first_seeds"].as_u64().unwrap() as usize;
    ((0..first).map(run).collect(), (first..runs).map(run).collect())
}

fn bootstrap(case: &Value, resampling: Resampling) -> BootstrapDifference {
    let (first, second) = methods(case);
    let paired = case["paired"].as_bool().unwrap();
    let pairing = if paired { SeedPairing::Paired } else { SeedPairing::Independent };
    bootstrap_difference(&first, &second, pairing, resampling).unwrap()
}

/// The intervals agree within Monte-Carlo error: five times that of both sides, and one step of the
/// differences that can occur.
#[test]
fn bootstrap_intervals_are_those_of_drawing_every_index() {
    each("bootstrap", |case| {
        let resampling = Resampling { resamples: 10_000, seed: 1 };
        let found = bootstrap(case, resampling);
        assert_eq!(found, bootstrap(case, resampling), "the same seed gives the same interval");
        close(found.difference, &case["difference"], case);
        close(found.standard_error, &case["standard_error"], case);

        let number = |name: &str| case[name].as_f64().unwrap();
        let (first, second) = methods(case);
        let step = 1.0 / (first.len() * second.len() * first[0].len()) as f64;
        for (end, name) in [(found.interval.low, "low"), (found.interval.high, "high")] {
            let theirs = number(&format!("{name}_noise"));
            let ours = theirs * (number("resamples") / 10_000.0).sqrt();
            let off = (end - number(name)).abs();
            assert!(off <= 5.0 * theirs.hypot(ours) + step + 1e-12, "{found:?}: {case}");
        }
        let other = bootstrap(case, Resampling { seed: 2, ..resampling });
        let certain = number("standard_error") == 0.0;
        assert_eq!(other == found, certain, "another seed draws otherwise");
    });
}

#[test]
fn a_contrast_is_of_the_methods_weighed_and_varies_with_seeds_as_they_do() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut runs = |accuracies: &[f64]| -> Vec<Vec<bool>> {
        let run = |&share: &f64| (0..400).map(|_| rng.random_bool(share)).collect();
        accuracies.iter().map(run).collect()
    };
    let (changed, from, to) = (runs(&[0.7, 0.75]), runs(&[0.6, 0.5, 0.62]), runs(&[0.85, 0.8]));
    let resampling = Resampling { resamples: 4000, seed: 1 };
    let beyond = |from: &[Vec<bool>], to: &[Vec<bool>], pairing| {
        let terms = [(2, &*changed), (-1, from), (-1, to)];
        let terms = terms.map(|(weight, runs)| Term { weight, runs });
        bootstrap_contrast(&terms, 2, pairing, resampling).unwrap()
    };
    // The middle of two that are the same is either.
    for pairing in [SeedPairing::Paired, SeedPairing::Independent] {
        let middle = beyond(&to, &to, pairing);
        let expected = bootstrap_difference(&changed, &to, pairing, resampling).unwrap();
        assert!((middle.difference - expected.difference).abs() < 1e-12);
        if pairing == SeedPairing::Paired {
            assert!((middle.standard_error - expected.standard_error).abs() < 1e-12);
            assert!((middle.interval.low - expected.interval.low).abs() < 1e-12);
        }
    }

    let accuracies = |runs: &[Vec<bool>]| -> Vec<f64> {
        let share = |run: &Vec<bool>| run.iter().filter(|right| **right).count() as f64 / 400.0;
        runs.iter().map(share).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of_mean = |values: &[f64]| {
        let squares: f64 = values.iter().map(|value| (value - mean(values)).powi(2)).sum();
        squares / (values.len() - 1) as f64 / values.len() as f64
    };
    let [a, b, c] = [&changed, &from, &to].map(|runs| accuracies(runs));
    let difference = mean(&a) - f64::midpoint(mean(&b), mean(&c));
    let of_seeds = of_mean(&a) + (of_mean(&b) + of_mean(&c)) / 4.0;
    let of_review = |runs: &[Vec<bool>], review: usize| {
        runs.iter().filter(|run| run[review]).count() as f64 / runs.len() as f64
    };
    let values: Vec<f64> = (0..400)
        .map(|review| {
            let ends = f64::midpoint(of_review(&from, review), of_review(&to, review));
            of_review(&changed, review) - ends
        })
        .collect();
    let of_reviews = of_mean(&values) * 399.0 / 400.0;
    let found = beyond(&from, &to, SeedPairing::Independent);
    assert!((found.difference - difference).abs() < 1e-12, "{found:?}");
    let error = (of_seeds + of_reviews).sqrt();
    assert!((found.standard_error - error).abs() < 1e-12, "{found:?}, {error}");
    // Student's t with some three degrees of freedom lies between the normal and that with one.
    for end in [found.difference - found.interval.low, found.interval.high - found.difference] {
        assert!((1.96 * error..12.7 * error).contains(&end), "{found:?}");
    }
}

#[test]
fn one_seed_beside_several_is_taken_to_vary_as_they_do() {
    let run = |right: usize| -> Vec<bool> { (0..100).map(|review| review < right).collect() };
    let (three, one) = ([60, 70, 80].map(run), [run(50)]);
    let resampling = Resampling { resamples: 4000, seed: 1 };
    let found = bootstrap_difference(&three, &one, SeedPairing::Independent, resampling).unwrap();
    // The variance of 0.6, 0.7 and 0.8 is 0.01: a third of it for their mean, all of it for the one.
    let of_seeds = 0.01 / 3.0 + 0.01;
    // Of ten reviews each, the difference is 1, 2/3 and 1/3; of all others 0.
    let of_reviews = (0.1 * (1.0 + 4.0 / 9.0 + 1.0 / 9.0) - 0.04) / 100.0;
    assert!((found.difference - 0.2).abs() < 1e-12, "{found:?}");
    let error: f64 = of_seeds + of_reviews;
    assert!((found.standard_error - error.sqrt()).abs() < 1e-12, "{found:?}");
    // The three alone leave their two degrees of freedom, whose quantile is 4.303.
    let (half, seeds) = ((found.interval.high - found.interval.low) / 2.0, of_seeds.sqrt());
    assert!((4.29 * seeds..4.7 * seeds).contains(&half), "{found:?}");
}

/// Of many experiments with three seeds, and reviews that matter less than they do, the intervals hold
/// the truth as often as they say.
#[test]
fn three_seeds_give_an_interval_that_holds_the_difference() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let of_seeds = Normal::new(0.0, 0.02).unwrap();
    let (trials, reviews) = (1000, 2000);
    let holds = (0..trials).filter(|trial| {
        let mut method = |mean: f64| -> Vec<Vec<bool>> {
            (0..3)
                .map(|_| {
                    let accuracy = mean + of_seeds.sample(&mut rng);
                    (0..reviews).map(|_| rng.random_bool(accuracy)).collect()
                })
                .collect()
        };
        let (first, second) = (method(0.85), method(0.80));
        let resampling = Resampling { resamples: 500, seed: *trial };
        let found = bootstrap_difference(&first, &second, SeedPairing::Paired, resampling);
        let interval = found.unwrap().interval;
        interval.low <= 0.05 && 0.05 <= interval.high
    });
    let share = holds.count() as f64 / trials as f64;
    assert!((0.93..=0.98).contains(&share), "{share}");
}

#[test]
fn bad_input_is_an_error() {
    use StatisticsError::{Count, Empty, Length, NotFinite, Probability};

    assert_eq!(SeedSummary::new(&[]), Err(Empty("seed")));
    assert_eq!(SeedSummary::new(&[0.5, f64::INFINITY]), Err(NotFinite(f64::INFINITY)));
    assert_eq!(wilson_interval(0, 0), Err(Empty("review")));
    assert_eq!(wilson_interval(2, 1), Err(Count { right: 2, reviews: 1 }));
    assert_eq!(Agreement::count(&[], &[]), Err(Empty("review")));
    let reviews = Length { what: "reviews", expected: 1, found: 2 };
    assert_eq!(Agreement::count(&[true], &[true, false]), Err(reviews.clone()));
    assert_eq!(holm(&[]), Err(Empty("p-value")));
    assert_eq!(holm(&[0.5, 1.5]), Err(Probability(1.5)));
    assert_eq!(sign_flip_p(&[]), Err(Empty("seed")));

    let check = |first: &[Vec<bool>], second: &[Vec<bool>], resamples| {
        let resampling = Resampling { resamples, seed: 0 };
        bootstrap_difference(first, second, SeedPairing::Paired, resampling).unwrap_err()
    };
    let one = vec![true];
    assert_eq!(check(&[], &[], 10), Empty("seed"));
    assert_eq!(check(&[vec![]], &[vec![]], 10), Empty("review"));
    assert_eq!(check(std::slice::from_ref(&one), std::slice::from_ref(&one), 0), Empty("resample"));
    assert_eq!(check(std::slice::from_ref(&one), &[vec![true; 2]], 10), reviews);
    let seeds = Length { what: "paired seeds", expected: 1, found: 2 };
    assert_eq!(check(std::slice::from_ref(&one), &[one.clone(), one.clone()], 10), seeds);
}
