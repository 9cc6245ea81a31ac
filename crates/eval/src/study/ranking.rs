use std::collections::BTreeMap;

use nsmc_experiment::Rows;

use super::contrast::{finding, matched, same_reviews};
use super::{Cell, Finding, Metric, Study};
use crate::EvalError;
use crate::compare::{Pair, compare};
use crate::statistics::holm;

/// The methods of a setting, recipe and training size by their accuracy, and the baseline beside them.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Model and test set, in words.
    pub setting: String,
    /// The recipe; empty if there is none.
    pub recipe: String,
    /// Training reviews.
    pub train_size: Rows,
    /// Indices in [`Study::cells`] of what has finished runs, the most accurate first. Baselines are
    /// not among them.
    pub methods: Vec<usize>,
    /// The most accurate baseline of this size, if one was tested on the same reviews.
    pub baseline: Option<Beside>,
}

/// A baseline and the most accurate method beside it.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Index of the baseline in [`Study::cells`].
    pub cell: usize,
    /// The method less the baseline; p is corrected by Holm for the training sizes of the recipe.
    ///
    /// That the method is the best of several is not corrected for.
    pub pair: Pair,
}

impl Beside {
    /// Whether the method is more accurate than the baseline.
    pub fn finding(&self) -> Finding {
        finding(&self.pair)
    }
}

/// Of every setting, recipe and size that has a method with a finished run, in the cells' order.
pub(super) fn rankings(cells: &[Cell]) -> Result<Vec<Ranking>, EvalError> {
    let accuracy = |cell: usize| cells[cell].mean(Metric::Accuracy).unwrap_or(f64::NEG_INFINITY);
    let mut rankings: Vec<Ranking> = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let key = &cell.key;
        if key.is_baseline() || cell.finished().next().is_none() {
            continue;
        }
        let known = rankings.iter_mut().find(|ranking| {
            (&ranking.setting, &ranking.recipe, ranking.train_size)
                == (&key.setting, &key.recipe, key.train_size)
        });
        match known {
            Some(ranking) => ranking.methods.push(index),
            None => rankings.push(Ranking {
                setting: key.setting.clone(),
                recipe: key.recipe.clone(),
                train_size: key.train_size,
                methods: vec![index],
                baseline: None,
            }),
        }
    }
    for ranking in &mut rankings {
        ranking.methods.sort_by(|&a, &b| accuracy(b).total_cmp(&accuracy(a)));
        let best = ranking.methods[0];
        let baselines = (0..cells.len()).filter(|&index| {
            let baseline = &cells[index];
            baseline.key.is_baseline()
                && baseline.key.train_size == ranking.train_size
                && same_reviews(&cells[best], baseline)
        });
        let baseline = baselines.max_by(|&a, &b| accuracy(a).total_cmp(&accuracy(b)));
        if let Some(cell) = baseline
            && let (Some(one), Some(two)) = (matched(&cells[best]), matched(&cells[cell]))
        {
            let pair = compare(&one, &two, Study::RESAMPLING)?;
            ranking.baseline = Some(Beside { cell, pair });
        }
    }
    let mut families: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (index, ranking) in rankings.iter().enumerate() {
        if ranking.baseline.is_some() {
            families.entry((&ranking.setting, &ranking.recipe)).or_default().push(index);
        }
    }
    let families: Vec<Vec<usize>> = families.into_values().collect();
    for members in families {
        let p = |&index: &usize| {
            rankings[index].baseline.as_ref().map(|beside| beside.pair.mcnemar.p())
        };
        let corrected = holm(&members.iter().filter_map(p).collect::<Vec<_>>())?;
        for (index, p) in members.into_iter().zip(corrected) {
            if let Some(beside) = &mut rankings[index].baseline {
                beside.pair.holm_p = p;
            }
        }
    }
    Ok(rankings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::fabricated::{self, config, lora, majority, tfidf};

    fn study(accuracies: [f64; 3]) -> Study {
        let folder = tempfile::tempdir().unwrap();
        for seed in [0, 1] {
            let paper = config("paper", 1000, seed);
            fabricated::run(folder.path(), &paper, accuracies[0], 1.0);
            fabricated::run(folder.path(), &lora(paper, 64, 1.0), accuracies[1], 1.0);
        }
        fabricated::run(folder.path(), &majority(config("paper", 1000, 0)), 0.5, 1.0);
        fabricated::run(folder.path(), &tfidf(config("paper", 1000, 0)), accuracies[2], 1.0);
        Study::read_runs(folder.path(), None).unwrap()
    }

    #[test]
    fn the_most_accurate_method_is_held_against_the_most_accurate_baseline() {
        for (accuracies, best, finding) in [
            ([0.86, 0.70, 0.78], "vanilla", Finding::Holds),
            ([0.70, 0.86, 0.98], "lora", Finding::Reversed),
            ([0.80, 0.70, 0.80], "vanilla", Finding::Undecided),
        ] {
            let study = study(accuracies);
            let [ranking] = study.rankings.as_slice() else { panic!("one size of one recipe") };
            let method = |cell: usize| study.cells[cell].key.method.name();
            assert_eq!((method(ranking.methods[0]), ranking.methods.len()), (best, 2));
            let beside = ranking.baseline.as_ref().unwrap();
            assert_eq!((method(beside.cell), beside.finding()), ("tfidf", finding));
            let difference = beside.pair.bootstrap.difference;
            let expected = accuracies[0].max(accuracies[1]) - accuracies[2];
            assert!((difference - expected).abs() < 0.01, "{difference} {expected}");
            assert_eq!(beside.pair.holm_p.to_bits(), beside.pair.mcnemar.p().to_bits());
        }
    }
}
