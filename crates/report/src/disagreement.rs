use nsmc_eval::study::{Answers, Cell, Study};

use crate::figures::{largest, panels};

/// A review on which methods disagree.
pub(crate) struct Disagreement {
    /// Its id.
    pub(crate) id: String,
    /// Its class.
    pub(crate) label: usize,
    /// Per method: share of its runs that are right, and how sure they are of the true class.
    pub(crate) methods: Vec<(f64, f64)>,
}

/// How many reviews are shown.
const SHOWN: usize = 12;

/// The cells whose answers are compared: of the first recipe that compares methods, at its largest
/// size, one LoRA.
pub(crate) fn compared(study: &Study) -> Vec<&Cell> {
    let Some(panel) = panels(study).into_iter().next() else { return Vec::new() };
    let mut cells = largest(&panel.cells);
    let mut methods: Vec<&str> = Vec::new();
    cells.retain(|cell| {
        let method = cell.key.method.as_str();
        // A frozen model's classifier would be furthest apart from all others everywhere.
        let first = !methods.contains(&method) && !cell.key.is_probe();
        methods.push(method);
        first
    });
    cells
}

/// The reviews on which the methods are surest of different classes, each method's runs averaged.
pub(crate) fn disagreements(study: &Study) -> Vec<Disagreement> {
    let cells = compared(study);
    let answers: Vec<Vec<&Answers>> = cells.iter().map(|cell| cell.answers()).collect();
    let Some(reference) = answers.first().and_then(|runs| runs.first()) else { return Vec::new() };
    let same = answers.iter().flatten().all(|run| run.test == reference.test);
    if cells.len() < 2 || !same {
        return Vec::new();
    }
    let test = &reference.test;
    let mut reviews: Vec<(f64, Disagreement)> = Vec::new();
    for (index, &label) in test.labels.iter().enumerate() {
        let method = |runs: &Vec<&Answers>| {
            let count = runs.len() as f64;
            let mean = |value: &dyn Fn(&Answers) -> f64| {
                runs.iter().map(|run| value(run)).sum::<f64>() / count
            };
            let right = mean(&|run| f64::from(u8::from(run.answers[index].class == label)));
            // Of two classes, the other has what this one leaves.
            let sure = mean(&|run| {
                let answer = run.answers[index];
                let probability = answer.probability();
                if answer.class == label { probability } else { 1.0 - probability }
            });
            (right, sure)
        };
        let methods: Vec<(f64, f64)> = answers.iter().map(method).collect();
        let (low, high) = methods
            .iter()
            .fold((1.0_f64, 0.0_f64), |(low, high), (_, sure)| (low.min(*sure), high.max(*sure)));
        if methods.iter().any(|(right, _)| *right > 0.5)
            && methods.iter().any(|(right, _)| *right < 0.5)
        {
            let id = test.ids[index].clone();
            reviews.push((high - low, Disagreement { id, label, methods }));
        }
    }
    reviews.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    reviews.into_iter().take(SHOWN).map(|(_, review)| review).collect()
}
