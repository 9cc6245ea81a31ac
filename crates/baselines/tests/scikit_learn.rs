//! The baselines beside scikit-learn's answers (`tests/baselines/make_cases.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use nsmc_baselines::{LogisticRegression, Regression, TfidfVectorizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    texts: Vec<String>,
    labels: Vec<usize>,
    classes: usize,
    tested: Vec<String>,
    vectoriser: Vectoriser,
    c: f64,
    features: usize,
    entries: usize,
    row_sums: Vec<f64>,
    probabilities: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Vectoriser {
    ngram_range: (usize, usize),
    min_df: usize,
    sublinear_tf: bool,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/baselines/cases.json");
    let document: Document = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    assert_eq!(document.cases.len(), 3);
    document.cases
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let exponentials: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|exponential| exponential / sum).collect()
}

#[test]
fn n_grams_and_their_weights_are_those_of_scikit_learn() {
    for case in cases() {
        let Vectoriser { ngram_range, min_df, sublinear_tf } = case.vectoriser;
        let options = TfidfVectorizer { ngram_range, min_df, sublinear_tf };
        let (tfidf, rows) = options.fit_transform(&case.texts).unwrap();
        assert_eq!((tfidf.width(), rows.entries()), (case.features, case.entries), "{}", case.name);
        let tested = tfidf.transform(&case.tested);
        for (row, expected) in case.row_sums.iter().enumerate() {
            let sum: f64 = tested.row(row).map(|(_, value)| value).sum();
            assert!((sum - expected).abs() < 1e-5, "{}, {row}: {sum} {expected}", case.name);
        }
    }
}

#[test]
fn probabilities_are_those_of_scikit_learn() {
    for case in cases() {
        let Vectoriser { ngram_range, min_df, sublinear_tf } = case.vectoriser;
        let options = TfidfVectorizer { ngram_range, min_df, sublinear_tf };
        let (tfidf, rows) = options.fit_transform(&case.texts).unwrap();
        let regression = Regression { c: case.c, tol: 1e-7, max_iter: 1000 };
        let model =
            LogisticRegression::fit(&rows, &case.labels, case.classes, &regression).unwrap();
        let logits = model.logits(&tfidf.transform(&case.tested));
        let mut largest = 0.0_f64;
        for (logits, expected) in logits.iter().zip(&case.probabilities) {
            for (ours, theirs) in softmax(logits).iter().zip(expected) {
                largest = largest.max((ours - theirs).abs());
            }
        }
        assert!(largest < 1e-5, "{}: {largest:e}", case.name);
    }
}
