//! The runs of baselines: reviews of the same splits, and run directories like all others.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nsmc_baselines::{LogisticRegression, Majority, Regression, TfidfVectorizer};
use nsmc_eval::{Prediction, Predictions};
use nsmc_experiment::{ExperimentConfig, MethodConfig, RunResults, TfidfMethod};

use crate::args::Train;
use crate::corpus::Corpus;
use crate::provenance;
use crate::train::{Reached, save_predictions};

/// What a baseline says of reviews.
struct Answered {
    /// Of each tested review.
    logits: Vec<Vec<f32>>,
    /// Numbers that were fitted.
    parameters: usize,
    /// Seconds of the test.
    test_seconds: f64,
}

/// Fits a baseline to the training reviews and tests it. The reviews held out for validation choose
/// nothing, and are held out all the same: the methods have no more.
pub(crate) fn fit_and_test(
    args: &Train,
    config: &ExperimentConfig,
    reached: &mut Reached,
) -> Result<RunResults> {
    ensure!(!args.tui, "`--tui`: a baseline has no training to show");
    let corpus = Corpus::read(&config.data)?;
    corpus.warn(&config.data.labels);
    reached.inputs = provenance::inputs(config)?;
    reached.training = true;
    let num_labels = config.data.labels.len();
    let trained_on = corpus.split.train.iter().map(|&review| &corpus.train[review]);
    let (texts, labels): (Vec<&str>, Vec<usize>) =
        trained_on.map(|review| (review.document.as_str(), review.label)).unzip();
    let tested = corpus.tested.iter().map(|&review| &corpus.test[review]);
    let tested_texts: Vec<&str> = tested.map(|review| review.document.as_str()).collect();
    let answered = match &config.method {
        MethodConfig::Majority => {
            let majority = Majority::fit(&labels, num_labels);
            let logits = vec![majority.logits().to_vec(); tested_texts.len()];
            Answered { logits, parameters: num_labels, test_seconds: 0.0 }
        }
        MethodConfig::Tfidf(method) => tfidf(method, &texts, &labels, num_labels, &tested_texts)?,
        other => bail!("`method.name`: `{}` is no baseline", other.name()),
    };
    let rows = corpus.tested.iter().zip(answered.logits).map(|(&review, logits)| Prediction {
        id: corpus.test[review].id.clone(),
        label: corpus.test[review].label,
        in_training: corpus.in_training[review],
        logits,
    });
    let predictions = Predictions { num_labels, rows: rows.collect() };
    let predictions_sha256 = save_predictions(&predictions, &args.out)?;
    Ok(RunResults {
        trainable_parameters: answered.parameters,
        total_parameters: answered.parameters,
        train_reviews: corpus.split.train.len(),
        validation_reviews: corpus.split.validation.len(),
        test_reviews: corpus.tested.len(),
        truncated_reviews: 0,
        adapter_stage: None,
        steps: 0,
        epochs: Vec::new(),
        epoch_seconds_alone: None,
        tested_epoch: 0,
        test_seconds: answered.test_seconds,
        peak_memory_mib: None,
        predictions_sha256,
    })
}

fn tfidf(
    method: &TfidfMethod,
    texts: &[&str],
    labels: &[usize],
    num_labels: usize,
    tested: &[&str],
) -> Result<Answered> {
    let [low, high] = method.ngram_range;
    let options = TfidfVectorizer {
        ngram_range: (low, high),
        min_df: method.min_df,
        sublinear_tf: method.sublinear_tf,
    };
    let TfidfMethod { c, tol, max_iter, .. } = *method;
    let context = "the baseline `tfidf`";
    let (tfidf, rows) = options.fit_transform(texts).context(context)?;
    tracing::info!(terms = tfidf.width(), entries = rows.entries(), "n-grams counted");
    let regression = Regression { c, tol, max_iter };
    let model = LogisticRegression::fit(&rows, labels, num_labels, &regression).context(context)?;
    tracing::info!(iterations = model.iterations(), "logistic regression fitted");
    let started = Instant::now();
    let logits = model.logits(&tfidf.transform(tested));
    Ok(Answered {
        logits,
        parameters: model.parameters(),
        test_seconds: started.elapsed().as_secs_f64(),
    })
}
