//! Which method is the most accurate, in words.

use nsmc_eval::study::{Finding, Metric, Ranking, Study};
use nsmc_eval::{Words, method_words};

use crate::words::{estimate, recipe, reviews, turned, words};

/// The most accurate method, and whether it beats the baselines; none where there is nothing to hold it
/// against.
pub(crate) fn leader(study: &Study, ranking: &Ranking) -> Option<Words> {
    let under = under(study, ranking);
    let best = named(study, ranking.methods[0]);
    let en = format!("{}, the most accurate method is {}", under.en, best.en);
    let ko = format!("{} 기준으로는 {}의 정확도가 가장 높", under.ko, best.ko);
    let Some(beside) = &ranking.baseline else {
        return (ranking.methods.len() > 1).then(|| words(en + ".", ko + "습니다."));
    };
    let baseline = named(study, beside.cell);
    let difference = beside.pair.bootstrap;
    Some(match beside.finding() {
        Finding::Holds => {
            let by = estimate(difference);
            words(
                format!("{en}, {} ahead of the best baseline, {}.", by.en, baseline.en),
                format!("{ko}으며, 가장 나은 베이스라인 {}보다 {} 높습니다.", baseline.ko, by.ko),
            )
        }
        Finding::Reversed => {
            let by = estimate(turned(difference));
            words(
                format!("{en}, but the baseline {} is {} ahead of it.", baseline.en, by.en),
                format!("{ko}지만, 베이스라인 {}보다 {} 낮습니다.", baseline.ko, by.ko),
            )
        }
        Finding::Undecided | Finding::Missing => {
            let by = estimate(difference);
            words(
                format!(
                    "{en}. The data do not decide whether it beats the best baseline, {}: {}.",
                    baseline.en, by.en
                ),
                format!(
                    "{ko}습니다. 가장 나은 베이스라인은 {}인데, 둘의 우열은 판단할 수 없습니다(차이 {}).",
                    baseline.ko, by.ko
                ),
            )
        }
    })
}

/// Methods and the baseline by their accuracy.
pub(crate) fn order(study: &Study, ranking: &Ranking) -> Words {
    let mut cells = ranking.methods.clone();
    cells.extend(ranking.baseline.as_ref().map(|beside| beside.cell));
    let accuracy = |&cell: &usize| study.cells[cell].mean(Metric::Accuracy).unwrap_or_default();
    cells.sort_by(|a, b| accuracy(b).total_cmp(&accuracy(a)));
    let cells: Vec<Words> = cells.into_iter().map(|cell| named(study, cell)).collect();
    let under = under(study, ranking);
    // Names have commas of their own.
    let join =
        |language: fn(&Words) -> &str| cells.iter().map(language).collect::<Vec<_>>().join("; ");
    words(
        format!("{}, by accuracy: {}.", under.en, join(|cell| &cell.en)),
        format!("{}, 정확도 순: {}.", under.ko, join(|cell| &cell.ko)),
    )
}

/// The recipe and the training size of a ranking, and the model and test set where there are others.
fn under(study: &Study, ranking: &Ranking) -> Words {
    let recipe = recipe(&ranking.recipe);
    let size = reviews(ranking.train_size);
    let setting = study
        .rankings
        .iter()
        .any(|other| other.setting != ranking.setting)
        .then(|| study.setting(&ranking.setting));
    let (en, ko) = setting
        .map_or_else(Default::default, |Words { en, ko }| (format!(" ({en})"), format!("({ko})")));
    words(
        format!("With {}{en}, trained on {}", recipe.en, size.en),
        format!("{}{ko}, {}", recipe.ko, size.ko),
    )
}

/// A cell with its accuracy.
fn named(study: &Study, cell: usize) -> Words {
    let cell = &study.cells[cell];
    let label = method_words(&cell.key.label);
    let accuracy = cell.mean(Metric::Accuracy).unwrap_or_default();
    let short = |label: &str, kind: &str| label.strip_prefix(kind).unwrap_or(label).to_owned();
    words(
        format!("{} ({accuracy:.4})", short(&label.en, "Baseline: ")),
        format!("{}({accuracy:.4})", short(&label.ko, "베이스라인: ")),
    )
}

#[cfg(test)]
mod tests {
    use nsmc_eval::study::Verdict;
    use nsmc_experiment::ExperimentConfig;

    use super::*;
    use crate::fabricated;

    #[test]
    fn of_two_models_each_ranking_says_of_which_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for max_length in [64, 128] {
            let mut config = fabricated::config("tuned", 1000, 0);
            config.data.dataset = format!("mine {max_length}");
            fabricated::run(folder.path(), &config, 0.8, 1.0);
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        assert_eq!(study.rankings.len(), 2);
        for (ranking, other) in study.rankings.iter().zip(study.rankings.iter().rev()) {
            let said = order(&study, ranking);
            let of = |ranking: &Ranking| study.setting(&ranking.setting);
            assert!(said.en.contains(&of(ranking).en) && said.ko.contains(&of(ranking).ko));
            assert!(!said.en.contains(&of(other).en), "{said:?}");
        }
    }

    /// The verdict on one's own data, of two methods and TF-IDF with these accuracies.
    fn verdict([vanilla, lora, tfidf]: [f64; 3]) -> Vec<Words> {
        let folder = tempfile::tempdir().unwrap();
        let config = fabricated::config("tuned", 1000, 0);
        let own = |mut config: ExperimentConfig, accuracy| {
            config.data.dataset = "mine".into();
            fabricated::run(folder.path(), &config, accuracy, 1.0);
        };
        own(config.clone(), vanilla);
        own(fabricated::lora(config.clone(), 16, 32.0), lora);
        own(fabricated::tfidf(config), tfidf);
        let study = Study::read_runs(folder.path(), None).unwrap();
        crate::words::verdict(&study, &Verdict::new(&study))
    }

    #[test]
    fn of_own_data_the_baseline_is_spoken_of_and_the_paper_is_not() {
        for (accuracies, order, en, ko) in [
            (
                [0.86, 0.70, 0.78],
                "by accuracy: Vanilla (0.8",
                "is Vanilla (0.8",
                "가장 나은 베이스라인 TF-IDF와 로지스틱 회귀(0.7",
            ),
            (
                [0.70, 0.86, 0.98],
                "by accuracy: TF-IDF, logistic regression (0.9",
                "but the baseline TF-IDF, logistic regression (0.9",
                "낮습니다.",
            ),
            (
                [0.80, 0.70, 0.80],
                "; LoRA r=16 (0.",
                "TF-IDF, logistic regression (0.",
                "둘의 우열은 판단할 수 없습니다(차이 ",
            ),
        ] {
            let found = verdict(accuracies);
            let (first, second) = (&found[0], &found[1]);
            assert!(first.en.contains(order), "{first:?}");
            assert!(second.en.contains(en) && second.ko.contains(ko), "{second:?}");
            let pair = &found[2];
            assert!(pair.en.contains("Vanilla") && pair.en.contains("LoRA r=16"), "{pair:?}");
            let all = |language: fn(&Words) -> &str| found.iter().map(language).collect::<String>();
            assert!(!all(|words| &words.en).contains("paper"), "{found:?}");
            assert!(!all(|words| &words.ko).contains("논문"), "{found:?}");
        }
    }
}
