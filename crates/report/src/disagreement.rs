use nsmc_eval::study::{Answer, Answers, Cell, Study};
use nsmc_experiment::MethodKind;

use crate::figures::{largest, panels};

/// A review on which methods disagree.
pub(crate) struct Disagreement {
    /// Its id.
    pub(crate) id: String,
    /// Its class.
    pub(crate) label: usize,
    /// What each method says of it.
    pub(crate) methods: Vec<Said>,
}

/// What a method's runs say of a review.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Said {
    /// Runs that are right.
    pub(crate) right: usize,
    /// All of them.
    pub(crate) runs: usize,
    /// The probability of the true class, mean over the runs; none where there are more than two
    /// classes, for an answer has the probability of the predicted one alone.
    pub(crate) sure: Option<f64>,
}

impl Said {
    /// Whether most of the runs are right.
    pub(crate) fn is_right(self) -> bool {
        2 * self.right > self.runs
    }

    /// Whether most of the runs are wrong. Half of them may be right.
    pub(crate) fn is_wrong(self) -> bool {
        2 * self.right < self.runs
    }

    /// What methods are furthest apart by.
    fn for_the_true_class(self) -> f64 {
        self.sure.unwrap_or(self.right as f64 / self.runs as f64)
    }
}

/// How many reviews are shown.
const SHOWN: usize = 12;

/// The cells whose answers are compared: of the first recipe that compares methods, at its largest
/// size, one LoRA.
pub(crate) fn compared(study: &Study) -> Vec<&Cell> {
    let Some(panel) = panels(study).into_iter().next() else { return Vec::new() };
    let mut cells = largest(&panel.cells);
    let mut methods: Vec<MethodKind> = Vec::new();
    cells.retain(|cell| {
        let method = cell.key.method;
        // A frozen model's classifier would be furthest apart from all others everywhere.
        let first = !methods.contains(&method) && !cell.key.is_probe();
        methods.push(method);
        first
    });
    cells
}

/// The reviews on which the methods are surest of different classes, each method's runs averaged; of
/// more than two classes, those on which the methods differ most in how many of their runs are right.
pub(crate) fn disagreements(study: &Study) -> Vec<Disagreement> {
    let cells = compared(study);
    let answers: Vec<Vec<&Answers>> = cells.iter().map(|cell| cell.answers()).collect();
    let Some(reference) = answers.first().and_then(|runs| runs.first()) else { return Vec::new() };
    let same = answers.iter().flatten().all(|run| run.test == reference.test);
    if cells.len() < 2 || !same {
        return Vec::new();
    }
    let of_two = cells[0].config().is_some_and(|config| config.data.labels.len() == 2);
    let test = &reference.test;
    let mut reviews: Vec<(f64, Disagreement)> = Vec::new();
    for (index, &label) in test.labels.iter().enumerate() {
        let method = |runs: &Vec<&Answers>| {
            let given = || runs.iter().map(|run| run.answers[index]);
            // Of two classes, the other has what this one leaves.
            let probability = |answer: Answer| {
                let probability = answer.probability();
                if answer.class == label { probability } else { 1.0 - probability }
            };
            let sure = given().map(probability).sum::<f64>() / runs.len() as f64;
            Said {
                right: given().filter(|answer| answer.class == label).count(),
                runs: runs.len(),
                sure: of_two.then_some(sure),
            }
        };
        let methods: Vec<Said> = answers.iter().map(method).collect();
        let (low, high) = methods.iter().fold((1.0_f64, 0.0_f64), |(low, high), said| {
            let value = said.for_the_true_class();
            (low.min(value), high.max(value))
        });
        if methods.iter().any(|said| said.is_right()) && methods.iter().any(|said| said.is_wrong())
        {
            let id = test.ids[index].clone();
            reviews.push((high - low, Disagreement { id, label, methods }));
        }
    }
    reviews.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    reviews.into_iter().take(SHOWN).map(|(_, review)| review).collect()
}
