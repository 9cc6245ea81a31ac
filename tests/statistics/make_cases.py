"""Writes cases.json: the numbers that crates/eval/tests/statistics.rs compares with.

    python tests/statistics/make_cases.py

Needs scipy and statsmodels; their versions are written into the file. Everything but the bootstrap
is a library's own answer, except where a comment says that the library has none.
"""

import json
import math
import pathlib

import numpy
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


def seed_case(values):
    case = {"values": values, "mean": float(numpy.mean(values))}
    if len(values) > 1:
        sd = float(numpy.std(values, ddof=1))
        low = high = case["mean"]
        # A scale of 0 has no t interval in scipy; its limit is the mean itself.
        if sd > 0:
            low, high = stats.t.interval(
                0.95, len(values) - 1, case["mean"], sd / math.sqrt(len(values))
            )
        case |= {"standard_deviation": sd, "low": float(low), "high": float(high)}
    return case


def wilson_case(right, reviews):
    low, high = proportion_confint(right, reviews, alpha=0.05, method="wilson")
    return {"right": right, "reviews": reviews, "low": float(low), "high": float(high)}


def mcnemar_case(only_first, only_second):
    table = [[100, only_first], [only_second, 50]]
    exact = mcnemar(table, exact=True)
    # statsmodels corrects a tie by one review away from 0 and divides by 0 without discordant
    # pairs; both statistics are 0, as in R's mcnemar.test.
    statistic, p = 0.0, 1.0
    if only_first != only_second:
        corrected = mcnemar(table, exact=False, correction=True)
        statistic, p = float(corrected.statistic), float(corrected.pvalue)
    # statsmodels has no mid-p: 2 P(X <= k) - P(X = k), Fagerland et al. (2013), equation 4.
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    distribution = stats.binom(discordant, 0.5)
    return {
        "only_first": only_first,
        "only_second": only_second,
        "exact": float(exact.pvalue),
        "mid_p": float(2 * distribution.cdf(fewer) - distribution.pmf(fewer)),
        "statistic": statistic,
        "chi_square": p,
    }


def holm_case(p):
    return {"p": p, "adjusted": [float(q) for q in multipletests(p, method="holm")[1]]}


def sign_flip_case(differences):
    # scipy refuses one seed, whose two signs give equally large sums.
    if len(differences) == 1:
        return {"differences": differences, "p": 1.0}
    test = stats.permutation_test(
        (differences, [0] * len(differences)),
        lambda a, b: numpy.sum(a) - numpy.sum(b),
        permutation_type="samples",
        n_resamples=numpy.inf,
    )
    return {"differences": differences, "p": float(test.pvalue)}


def seed_level(first, second, paired):
    """Standard error of the mean difference over seeds, and its degrees of freedom."""
    accuracies = [first.mean(1) - second.mean(1)] if paired else [first.mean(1), second.mean(1)]
    several = [values for values in accuracies if len(values) > 1]
    variances = [values.var(ddof=1) / len(values) for values in several]
    if sum(variances) == 0:
        return 0.0, math.inf
    if len(several) == 2:
        freedom = stats.ttest_ind(*several, equal_var=False).df
    else:
        freedom = len(several[0]) - 1
    return math.sqrt(sum(variances)), float(freedom)


def bootstrap_case(name, first, second, paired, resamples, rng):
    """`first` and `second` are [seeds, reviews], 1 where a review was predicted rightly.

    Draws indices, as a bootstrap is defined, and not counts, as the code under test does.
    """
    reviews = first.shape[1]
    differences = first.mean(0) - second.mean(0)
    if len(first) == len(second) == 1:
        result = stats.bootstrap(
            (first[0] - second[0],), numpy.mean, method="percentile", n_resamples=resamples, rng=rng
        )
        values = result.bootstrap_distribution
    else:
        values = numpy.empty(resamples)
        for resample in range(resamples):
            values[resample] = differences[rng.integers(reviews, size=reviews)].mean()
    seed_error, freedom = seed_level(first, second, paired)
    if seed_error > 0:
        values = values + stats.t.rvs(freedom, scale=seed_error, size=resamples, random_state=rng)
    low, high = numpy.quantile(values, [0.025, 0.975])
    # How far the quantiles of so many resamples lie from those of infinitely many.
    parts = numpy.quantile(values.reshape(20, -1), [0.025, 0.975], axis=1)
    noise = parts.std(axis=1, ddof=1) / math.sqrt(20)
    # Reviews that the same seeds predicted rightly count as one pattern, to keep the file small.
    columns, counts = numpy.unique(numpy.concatenate([first, second]), axis=1, return_counts=True)
    return {
        "name": name,
        "first_seeds": len(first),
        "paired": paired,
        "patterns": [
            ["".join(map(str, column)), int(count)] for column, count in zip(columns.T, counts)
        ],
        "resamples": resamples,
        "difference": float(first.mean() - second.mean()),
        "standard_error": math.sqrt(seed_error**2 + differences.var() / reviews),
        "low": float(low),
        "high": float(high),
        "low_noise": float(noise[0]),
        "high_noise": float(noise[1]),
    }


def predictions(rng, hardness, accuracies):
    """Right (1) and wrong (0): reviews share a hardness, seeds differ in accuracy."""
    noise = rng.normal(size=(len(accuracies), len(hardness)))
    limits = stats.norm.ppf(accuracies)[:, None]
    return ((0.9 * hardness + math.sqrt(1 - 0.81) * noise) < limits).astype(int)


def bootstrap_cases():
    rng = numpy.random.default_rng(20)
    few, many = rng.normal(size=400), rng.normal(size=50_000)
    one = predictions(rng, few, [0.86]), predictions(rng, few, [0.83])
    three = predictions(rng, few, [0.84, 0.87, 0.90]), predictions(rng, few, [0.85, 0.84, 0.83])
    two = predictions(rng, few, [0.80, 0.88])
    large = (
        predictions(rng, many, [0.871, 0.868, 0.873]),
        predictions(rng, many, [0.866, 0.869, 0.864]),
    )
    right = numpy.ones((3, 50), dtype=int)
    return [
        bootstrap_case("one seed", *one, True, 100_000, rng),
        bootstrap_case("three seeds, paired", *three, True, 100_000, rng),
        bootstrap_case("three seeds, independent", *three, False, 100_000, rng),
        bootstrap_case("three seeds and two", three[0], two, False, 100_000, rng),
        bootstrap_case("three seeds, 50,000 reviews", *large, True, 20_000, rng),
        bootstrap_case("all right", right, right, True, 100, rng),
    ]


def main():
    cases = {
        "versions": {
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
            "statsmodels": statsmodels.__version__,
        },
        "seeds": [
            seed_case(values)
            for values in (
                [0.8712],
                [0.87, 0.88],
                [0.8712, 0.8695, 0.8731],
                [1.0, 1.0, 1.0],
                [0.9012, 0.8987, 0.9003, 0.8991, 0.9020],
                [0.85 + 0.001 * (seed * 7 % 20) for seed in range(20)],
            )
        ],
        "wilson": [
            wilson_case(*counts)
            for counts in (
                (0, 1), (1, 1), (1, 2), (0, 10), (3, 10), (10, 10), (43_550, 50_000),
                (44_997, 49_997), (0, 50_000), (49_999, 50_000), (50_000, 50_000),
            )
        ],
        "mcnemar": [
            mcnemar_case(*counts)
            for counts in (
                (0, 0), (1, 0), (0, 1), (1, 1), (5, 5), (2, 9), (9, 2), (0, 10), (12, 12),
                (17, 7), (12, 13), (18, 7), (121, 59), (1_500, 1_620), (2_000, 2_000),
                (24_900, 25_100), (0, 50_000), (49_700, 50_300), (50_000, 50_000),
            )
        ],
        "holm": [
            holm_case(p)
            for p in (
                [0.03], [0.01, 0.04, 0.03], [0.04, 0.01, 0.03, 0.01], [0.0, 1.0, 0.5],
                [0.6, 0.7, 0.9], [1e-12, 0.012, 0.049, 0.2, 0.011, 0.9],
            )
        ],
        "sign_flip": [
            sign_flip_case(differences)
            for differences in (
                [12], [12, 30, 7], [12, -30, 7], [0, 0, 0], [0, 5, 5, -5],
                [310, 250, -40, 120, 90], [3, -1, 2, 0, 4, 4, -2, 9, 11, -3, 5, 6],
            )
        ],
        "bootstrap": bootstrap_cases(),
    }
    path = pathlib.Path(__file__).with_name("cases.json")
    text = ",\n".join(
        f' "{name}": '
        + (
            json.dumps(group)
            if isinstance(group, dict)
            else "[\n  " + ",\n  ".join(json.dumps(case) for case in group) + "\n ]"
        )
        for name, group in cases.items()
    )
    path.write_text("{\n" + text + "\n}\n")


main()
