//! Methods beside each other on the same test reviews: accuracies, differences and their tests.

use std::borrow::Cow;

mod error;
mod group;
mod member;

pub use error::{CompareError, Ids};
pub use group::{Candidate, group};
pub use member::{Member, Outcome};

use self::member::ids;
use crate::Table;
use crate::statistics::{
    Agreement, BootstrapDifference, Interval, McNemar, Resampling, SeedPairing, SeedSummary,
    StatisticsError, Term, bootstrap_contrast, bootstrap_difference, holm, sign_flip_p,
    wilson_interval,
};
use crate::study::{self, Finding};

/// A method: one trained model per seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What tables call it.
    pub name: String,
    /// In any order.
    pub members: Vec<Member>,
    /// Whether another seed gives another model. It does not of a baseline, whose one run is beside
    /// every seed of another method.
    pub has_seeds: bool,
}

/// What a method reached.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAccuracy {
    /// The method.
    pub name: String,
    /// Accuracy over its seeds.
    pub accuracy: SeedSummary,
    /// 95 % interval of the accuracy: Student's over seeds, or Wilson's over reviews for one seed.
    pub interval: Interval,
    /// The run of median accuracy, the lower of two: the one that McNemar's test compares.
    pub median_member: String,
}

/// How two methods differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Index of the first method in [`Comparison::groups`].
    pub first: usize,
    /// Index of the second.
    pub second: usize,
    /// Whether the same seeds were drawn for both: they are if both methods ran with the same ones, or
    /// one of them has no seeds.
    pub pairing: SeedPairing,
    /// Mean accuracy of the first less that of the second, over seeds and reviews.
    pub bootstrap: BootstrapDifference,
    /// The differences seed by seed; none unless both methods have seeds, and two or more are paired.
    pub seeds: Option<PairedSeeds>,
    /// How many reviews the runs of median accuracy predicted rightly.
    pub agreement: Agreement,
    /// McNemar's test of those two runs.
    pub mcnemar: McNemar,
    /// The p that McNemar's test reports, corrected by Holm for the number of pairs.
    pub holm_p: f64,
}

/// The differences of two methods seed by seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedSeeds {
    /// Differences of accuracy, first less second.
    pub differences: SeedSummary,
    /// p of the sign-flip permutation test.
    pub sign_flip_p: f64,
}

/// Methods and every pair of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Test reviews.
    pub reviews: usize,
    /// In the order given.
    pub groups: Vec<GroupAccuracy>,
    /// Every method with every later one.
    pub pairs: Vec<Pair>,
}

/// A method's runs on the same reviews, in the order of their seeds.
pub(crate) struct Matched {
    seeds: Seeds,
    /// `[run][review]`.
    right: Vec<Vec<bool>>,
    /// Reviews predicted rightly, per run.
    counts: Vec<u64>,
    /// Index of the run of median accuracy.
    median: usize,
}

/// The seeds of a method's runs.
#[derive(PartialEq, Eq)]
enum Seeds {
    /// Those of every run.
    Known(Vec<u64>),
    /// At least one run's is not known.
    Unknown,
    /// Its one run is the same with any.
    None,
}

impl Matched {
    /// Runs by seed, each with whether it predicted each review rightly. At least one, and all of as
    /// many reviews; of a method without seeds no more.
    pub(crate) fn new(mut runs: Vec<(Option<u64>, Vec<bool>)>, has_seeds: bool) -> Self {
        runs.sort_by_key(|(seed, _)| *seed);
        let known: Option<Vec<u64>> = runs.iter().map(|(seed, _)| *seed).collect();
        let seeds = match known {
            _ if !has_seeds && runs.len() == 1 => Seeds::None,
            Some(known) => Seeds::Known(known),
            None => Seeds::Unknown,
        };
        let right: Vec<Vec<bool>> = runs.into_iter().map(|(_, right)| right).collect();
        let counts: Vec<u64> =
            right.iter().map(|run| run.iter().filter(|right| **right).count() as u64).collect();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&run| counts[run]);
        let median = order[(order.len() - 1) / 2];
        Self { seeds, right, counts, median }
    }

    /// Whether the n-th runs of both have one seed.
    fn has_seeds_of(&self, other: &Self) -> bool {
        matches!(self.seeds, Seeds::Known(_)) && self.seeds == other.seeds
    }

    /// Its runs beside as many of another method: of a method without seeds the one again and again.
    fn beside(&self, other: &Self) -> Cow<'_, [Vec<bool>]> {
        match self.seeds {
            Seeds::None => vec![self.right[0].clone(); other.right.len()].into(),
            Seeds::Known(_) | Seeds::Unknown => (&self.right).into(),
        }
    }
}

impl Comparison {
    /// Compares methods on the same reviews, matched by id.
    ///
    /// McNemar's test, the agreement and Holm's correction are about the runs of median accuracy;
    /// the bootstrap and the sign-flip test about all seeds.
    pub fn new(groups: &[Group], resampling: Resampling) -> Result<Self, CompareError> {
        if groups.len() < 2 {
            return Err(CompareError::Groups(groups.len()));
        }
        if let Some(group) = groups.iter().find(|group| group.members.is_empty()) {
            return Err(CompareError::NoMembers(group.name.clone()));
        }
        let reference = &groups[0].members[0];
        let reviews = reference.outcomes.len();
        let (mut accuracies, mut matched) = (Vec::new(), Vec::new());
        for group in groups {
            let (accuracy, runs) = match_group(group, reference)?;
            accuracies.push(accuracy);
            matched.push(runs);
        }
        let mut pairs = Vec::new();
        for (first, a) in matched.iter().enumerate() {
            for (second, b) in matched.iter().enumerate().skip(first + 1) {
                pairs.push(Pair { first, second, ..compare(a, b, resampling)? });
            }
        }
        let p_values: Vec<f64> = pairs.iter().map(|pair| pair.mcnemar.p()).collect();
        for (pair, p) in pairs.iter_mut().zip(holm(&p_values)?) {
            pair.holm_p = p;
        }
        Ok(Self { reviews, groups: accuracies, pairs })
    }

    /// One row per method: its accuracy.
    pub fn accuracy_table(&self) -> Table {
        let header = ["method", "interval over", "seeds", "accuracy", "95 % interval", "std"];
        let mut table = Table::new(header, 2);
        for GroupAccuracy { name, accuracy, interval, .. } in &self.groups {
            let (over, deviation) = match accuracy.spread {
                Some(spread) => ("seeds (t)", format!("{:.4}", spread.standard_deviation)),
                None => ("reviews (Wilson)", "–".into()),
            };
            table.push([
                name.clone(),
                over.into(),
                accuracy.seeds.to_string(),
                format!("{:.4}", accuracy.mean),
                format!("{:.4} to {:.4}", interval.low, interval.high),
                deviation,
            ]);
        }
        table
    }

    /// One row per pair of methods: their difference and its tests.
    pub fn table(&self) -> Table {
        let mut table = Table::new(
            [
                "first",
                "second",
                "difference of\naccuracies",
                "95 % interval,\nbootstrap",
                "only first\nright",
                "only second\nright",
                "McNemar's\np",
                "p after\nHolm",
                "sign-flip\np",
            ],
            2,
        );
        for pair in &self.pairs {
            let BootstrapDifference { difference, interval, .. } = pair.bootstrap;
            let [difference, low, high] =
                [difference, interval.low, interval.high].map(study::difference);
            table.push([
                self.groups[pair.first].name.clone(),
                self.groups[pair.second].name.clone(),
                difference,
                format!("{low} to {high}"),
                pair.agreement.only_first.to_string(),
                pair.agreement.only_second.to_string(),
                format!("{} ({})", p_value(pair.mcnemar.p()), pair.mcnemar.reported),
                p_value(pair.holm_p),
                pair.seeds.map_or_else(|| "–".into(), |seeds| p_value(seeds.sign_flip_p)),
            ]);
        }
        table
    }
}

/// Brings the predictions of a method's runs into the order of `reference`.
fn match_group(
    group: &Group,
    reference: &Member,
) -> Result<(GroupAccuracy, Matched), CompareError> {
    let mut members: Vec<&Member> = group.members.iter().collect();
    members.sort_by_key(|member| member.seed);
    for pair in members.windows(2) {
        if let Some(seed) = pair[0].seed.filter(|_| pair[0].seed == pair[1].seed) {
            let [group, first, second] =
                [&group.name, &pair[0].name, &pair[1].name].map(Clone::clone);
            return Err(CompareError::Seed { group, first, second, seed });
        }
    }
    let runs = members.iter().map(|member| Ok((member.seed, right(member, reference)?)));
    let matched = Matched::new(runs.collect::<Result<_, CompareError>>()?, group.has_seeds);
    let Matched { counts, median, .. } = &matched;

    let reviews = reference.outcomes.len() as u64;
    let shares: Vec<f64> = counts.iter().map(|&count| count as f64 / reviews as f64).collect();
    let accuracy = SeedSummary::new(&shares)?;
    let interval = match accuracy.spread {
        Some(spread) => spread.interval.of_a_share(),
        None => wilson_interval(counts[0], reviews)?,
    };
    let median_member = members[*median].name.clone();
    let accuracy = GroupAccuracy { name: group.name.clone(), accuracy, interval, median_member };
    Ok((accuracy, matched))
}

/// Whether each review of `reference`, in its order, was predicted rightly by `member`.
fn right(member: &Member, reference: &Member) -> Result<Vec<bool>, CompareError> {
    let (ours, theirs) = (member.by_id()?, reference.by_id()?);
    let missing = |member: &Member, other: &Member, ids| {
        let (member, other) = (member.name.clone(), other.name.clone());
        CompareError::Missing { member, other, ids }
    };
    let lacks = |outcome: &&Outcome| !ours.contains_key(outcome.id.as_str());
    if let Some(ids) = ids(reference.outcomes.iter().filter(lacks)) {
        return Err(missing(member, reference, ids));
    }
    let lacks = |outcome: &&Outcome| !theirs.contains_key(outcome.id.as_str());
    if let Some(ids) = ids(member.outcomes.iter().filter(lacks)) {
        return Err(missing(reference, member, ids));
    }
    let differs = |outcome: &&Outcome| ours[outcome.id.as_str()].label != outcome.label;
    if let Some(ids) = ids(reference.outcomes.iter().filter(differs)) {
        let (first, second) = (reference.name.clone(), member.name.clone());
        return Err(CompareError::Labels { first, second, ids });
    }
    let right = |outcome: &Outcome| ours[outcome.id.as_str()].class == outcome.label;
    Ok(reference.outcomes.iter().map(right).collect())
}

/// Compares two methods; the caller fills in their indices and Holm's p.
pub(crate) fn compare(
    a: &Matched,
    b: &Matched,
    resampling: Resampling,
) -> Result<Pair, StatisticsError> {
    let same_seeds = a.has_seeds_of(b);
    let paired = same_seeds || [a, b].iter().any(|method| method.seeds == Seeds::None);
    let pairing = if paired { SeedPairing::Paired } else { SeedPairing::Independent };
    let differences: Vec<i64> =
        a.counts.iter().zip(&b.counts).map(|(a, b)| *a as i64 - *b as i64).collect();
    let reviews = a.right[0].len() as f64;
    // A run that no seed changes is exchangeable with none.
    let seeds = if same_seeds && differences.len() > 1 {
        let shares: Vec<f64> = differences.iter().map(|&count| count as f64 / reviews).collect();
        let sign_flip_p = sign_flip_p(&differences)?;
        Some(PairedSeeds { differences: SeedSummary::new(&shares)?, sign_flip_p })
    } else {
        None
    };
    let agreement = Agreement::count(&a.right[a.median], &b.right[b.median])?;
    let mcnemar = McNemar::new(&agreement);
    let bootstrap = bootstrap_difference(&a.beside(b), &b.beside(a), pairing, resampling)?;
    Ok(Pair { first: 0, second: 0, pairing, bootstrap, seeds, agreement, mcnemar, holm_p: 1.0 })
}

/// How far `changed` lies beyond the middle of `from` and `to`: `changed - (from + to) / 2` of mean
/// accuracies.
pub(crate) fn beyond_middle(
    changed: &Matched,
    [from, to]: [&Matched; 2],
    resampling: Resampling,
) -> Result<BootstrapDifference, StatisticsError> {
    let paired = changed.has_seeds_of(from) && changed.has_seeds_of(to);
    let pairing = if paired { SeedPairing::Paired } else { SeedPairing::Independent };
    let terms = [(2, changed), (-1, from), (-1, to)];
    let terms = terms.map(|(weight, method)| Term { weight, runs: &method.right });
    bootstrap_contrast(&terms, 2, pairing, resampling)
}

/// A p as tables show it: with so many digits that it lies on its side of [`Finding::LEVEL`].
pub fn p_value(p: f64) -> String {
    if p < 0.0001 {
        return "< 0.0001".into();
    }
    let shown = |digits: usize| format!("{p:.digits$}");
    let is_level = |text: &str| text.parse() == Ok(Finding::LEVEL);
    let digits = (4..17).find(|&digits| p == Finding::LEVEL || !is_level(&shown(digits)));
    shown(digits.unwrap_or(17))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLING: Resampling = Resampling { resamples: 500, seed: 7 };

    /// A run over reviews of class 1; `classes` holds the predicted ones.
    fn member(seed: Option<u64>, classes: &str) -> Member {
        let outcome = |(id, class): (usize, char)| Outcome {
            id: id.to_string(),
            label: 1,
            class: usize::from(class == '1'),
        };
        let name = format!("{classes}.tsv");
        Member { name, seed, outcomes: classes.chars().enumerate().map(outcome).collect() }
    }

    fn group(name: &str, members: impl Into<Vec<Member>>) -> Group {
        Group { name: name.into(), members: members.into(), has_seeds: true }
    }

    #[test]
    fn seeds_are_paired_by_their_number_and_reviews_by_their_id() {
        let mut shuffled = member(Some(1), "1110");
        shuffled.outcomes.reverse();
        let lora = [member(Some(0), "1000"), member(Some(2), "1100"), shuffled];
        let head =
            [1, 0, 2].map(|seed| member(Some(seed), ["0000", "1000", "1100"][seed as usize]));
        let comparison =
            Comparison::new(&[group("lora", lora), group("head", head)], RESAMPLING).unwrap();
        let lora = &comparison.groups[0];
        assert_eq!((lora.accuracy.mean, lora.median_member.as_str()), (0.5, "1100.tsv"));
        let students = lora.accuracy.spread.unwrap().interval;
        assert!(students.low < 0.0 && students.high > 1.0, "{students:?}");
        assert_eq!(lora.interval, Interval { low: 0.0, high: 1.0 });
        let [pair] = comparison.pairs.as_slice() else { panic!("two methods are one pair") };
        assert_eq!(pair.pairing, SeedPairing::Paired);
        // Differences of 1, 2 and 0 reviews: 2 of 8 signs give a sum of 3 or more, and twice as
        // many one with the 0's sign turned.
        let seeds = pair.seeds.unwrap();
        assert_eq!((seeds.differences.smallest, seeds.differences.largest), (0.0, 0.5));
        assert!((seeds.sign_flip_p - 0.5).abs() < 1e-12);
        let agreement = Agreement { both_right: 1, only_first: 1, only_second: 0, both_wrong: 2 };
        assert_eq!(pair.agreement, agreement);
        assert!((pair.bootstrap.difference - 0.25).abs() < 1e-12);
    }

    #[test]
    fn single_runs_have_wilson_intervals_and_holm_counts_the_pairs() {
        let runs = ["1111111111", "1111000000", "0000000000"];
        let groups = runs.map(|classes| group(classes, [member(None, classes)]));
        let comparison = Comparison::new(&groups, RESAMPLING).unwrap();
        assert_eq!(comparison.groups[1].interval, wilson_interval(4, 10).unwrap());
        let named: Vec<_> = comparison.pairs.iter().map(|p| (p.first, p.second)).collect();
        assert_eq!(named, [(0, 1), (0, 2), (1, 2)]);
        // Exact p: 2/2^6, 2/2^10 and 2/2^4; the smallest counts three times, the next twice.
        let expected = [2.0 * 0.03125, 3.0 * 0.001_953_125, 0.125];
        for (pair, expected) in comparison.pairs.iter().zip(expected) {
            assert!((pair.holm_p - expected).abs() < 1e-12, "{pair:?}");
            assert!(pair.seeds.is_none());
        }
        let table = comparison.table().markdown();
        let row = table.lines().nth(3).unwrap().split('|').map(str::trim);
        let cells = ["1111111111", "0000000000", "+1.0000", "+1.0000 to +1.0000", "10", "0"];
        let cells = cells.into_iter().chain(["0.0020 (exact)", "0.0059", "–"]);
        assert!(row.skip(1).take(9).eq(cells), "{table}");
        assert!(comparison.accuracy_table().markdown().contains("reviews (Wilson)"));
    }

    #[test]
    fn methods_with_other_seeds_are_not_paired() {
        let runs = |seeds: [Option<u64>; 3]| seeds.map(|seed| member(seed, "1100"));
        for (first, second) in [
            ([Some(0), Some(1), Some(2)], [Some(0), Some(1), Some(3)]),
            ([Some(0), Some(1), None], [Some(0), Some(1), None]),
            ([None; 3], [None; 3]),
        ] {
            let groups = [group("a", runs(first)), group("b", runs(second))];
            let comparison = Comparison::new(&groups, RESAMPLING).unwrap();
            assert_eq!(comparison.pairs[0].pairing, SeedPairing::Independent);
            assert!(comparison.pairs[0].seeds.is_none());
        }
    }

    #[test]
    fn a_method_without_seeds_varies_with_none() {
        let right = |count: usize| "1".repeat(count) + &"0".repeat(10 - count);
        let three = [6, 7, 8].map(|count| member(Some(count as u64), &right(count)));
        let one = Group { has_seeds: false, ..group("baseline", [member(Some(6), &right(5))]) };
        // The variance of 0.6, 0.7 and 0.8 is 0.01, a third of it their mean's. Of one review each, the
        // difference is 1, 2/3 and 1/3; of all others 0.
        let of_seeds = 0.01 / 3.0;
        let of_reviews = (0.1 * (1.0 + 4.0 / 9.0 + 1.0 / 9.0) - 0.04) / 10.0;
        let expected = f64::sqrt(of_seeds + of_reviews);
        let unknown = three.clone().map(|member| Member { seed: None, ..member });
        for methods in [
            [group("a", three.clone()), one.clone()],
            [one.clone(), group("a", three)],
            [group("a", unknown), one],
        ] {
            let comparison = Comparison::new(&methods, RESAMPLING).unwrap();
            let Pair { pairing, bootstrap, seeds, .. } = &comparison.pairs[0];
            assert_eq!((*pairing, seeds), (SeedPairing::Paired, &None));
            assert!((bootstrap.standard_error - expected).abs() < 1e-12, "{bootstrap:?}");
            assert!((bootstrap.difference.abs() - 0.2).abs() < 1e-12, "{bootstrap:?}");
        }
    }

    #[test]
    fn a_figure_shows_on_which_side_of_its_limit_it_lies() {
        for (p, expected) in [
            (0.049_996_5, "0.049996"),
            (0.050_03, "0.05003"),
            (0.05, "0.0500"),
            (0.05 - 4e-17, "0.04999999999999996"),
            (0.049_94, "0.0499"),
            (0.050_06, "0.0501"),
            (0.000_099, "< 0.0001"),
            (1.0, "1.0000"),
        ] {
            assert_eq!(p_value(p), expected, "{p}");
        }
        let runs = ["1100", "1010"].map(|classes| member(None, classes));
        let [a, b] = runs.map(|run| group(&run.name.clone(), [run]));
        let mut comparison = Comparison::new(&[a, b], RESAMPLING).unwrap();
        let bootstrap = &mut comparison.pairs[0].bootstrap;
        bootstrap.difference = -0.0;
        bootstrap.interval = Interval { low: -0.000_03, high: 0.000_04 };
        let table = comparison.table().markdown();
        let row: Vec<&str> = table.lines().nth(2).unwrap().split('|').map(str::trim).collect();
        assert_eq!(row[3..5], ["+0.0000", "-0.00003 to +0.00004"], "{table}");
    }

    #[test]
    fn predictions_of_other_reviews_are_refused() {
        let whole = || member(Some(0), "1111111");
        let changed = |change: fn(&mut Vec<Outcome>)| {
            let mut member = Member { name: "other.csv".into(), ..whole() };
            change(&mut member.outcomes);
            vec![member]
        };
        for (second, expected) in [
            (
                changed(|outcomes| outcomes.truncate(1)),
                "other.csv: no prediction for 6 reviews (id 1, 2, 3, 4, 5, ...), which 1111111.tsv",
            ),
            (
                changed(|outcomes| outcomes.push(Outcome { id: "x".into(), label: 0, class: 0 })),
                "1111111.tsv: no prediction for 1 review (id x), which other.csv has",
            ),
            (
                changed(|outcomes| outcomes[2].id = "3".into()),
                "other.csv: more than one prediction for 1 review (id 3)",
            ),
            (
                changed(|outcomes| outcomes[6].label = 0),
                "1111111.tsv and other.csv have different labels for 1 review (id 6)",
            ),
            (vec![whole(), whole()], "b: 1111111.tsv and 1111111.tsv both have seed 0"),
            (vec![], "b: no predictions"),
        ] {
            let groups = [group("a", [whole()]), group("b", second)];
            let message = Comparison::new(&groups, RESAMPLING).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
        let one = Comparison::new(&[group("a", [whole()])], RESAMPLING).unwrap_err();
        assert!(one.to_string().contains("two methods or more to compare, found 1"));
    }
}
