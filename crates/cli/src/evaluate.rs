use std::sync::Arc;

use anyhow::{Context, Result};
use nsmc_data::EncodedReviews;
use nsmc_eval::{ClassificationReport, EvaluatedRun, Predictions};

use crate::args::Evaluate;
use crate::classifier::Classifier;
use crate::corpus::{Corpus, cache_folder};
use crate::output::{print, print_attention, print_tables};
use crate::train::{dashboard, test};
use crate::{device, logging, run_directory};

/// Tests the run's checkpoint again, says whether the saved predictions come back, and prints the
/// metrics. The run directory is only read.
pub(crate) fn run(args: &Evaluate, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = run_directory::record(&args.run)?;
    let config = &record.config;
    let device = device::choose(args.device)?.device;
    let corpus = Corpus::read(&config.data)?;
    let classifier = Classifier::of_run(&args.run, &record, &device)?;
    let cache = cache_folder(args.cache.as_deref());
    let encoded = EncodedReviews::encode_cached(
        &corpus.test,
        &classifier.tokenizer,
        config.data.max_length,
        &cache,
    )
    .with_context(|| format!("the token cache {}", cache.display()))?;
    let (predictions, attention) =
        test(config, &corpus, Arc::new(encoded), &classifier, &device, dashboard(false))?;
    let saved = Predictions::read(&args.run.join("predictions.tsv"))?;
    print_difference(&predictions, &saved)?;
    let report = ClassificationReport::new(&predictions, config.evaluation.metric_batch_size);
    print_tables(&[EvaluatedRun { record: record.clone(), report: Some(report) }])?;
    print_attention(&attention)
}

fn print_difference(predictions: &Predictions, saved: &Predictions) -> Result<()> {
    if predictions == saved {
        return print("The saved predictions come back to the last bit.");
    }
    let reviews = |predictions: &Predictions| -> Vec<_> {
        let rows = predictions.rows.iter();
        rows.map(|row| (row.id.clone(), row.label, row.in_training)).collect()
    };
    if reviews(predictions) != reviews(saved) {
        return print(format_args!(
            "The saved predictions are of other reviews: {} of them with their ids and labels, {} \
             tested now.",
            saved.rows.len(),
            predictions.rows.len()
        ));
    }
    let pairs = || predictions.rows.iter().zip(&saved.rows);
    let largest = pairs()
        .flat_map(|(a, b)| a.logits.iter().zip(&b.logits).map(|(a, b)| (a - b).abs()))
        .fold(0.0, f32::max);
    let classes = pairs().filter(|(a, b)| a.class() != b.class()).count();
    print(format_args!(
        "The saved predictions do not come back: logits differ by up to {largest:e}, {classes} of \
         {} classes differ.",
        predictions.rows.len()
    ))
}
