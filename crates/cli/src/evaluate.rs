use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nsmc_data::EncodedReviews;
use nsmc_eval::{ClassificationReport, EvaluatedRun, Prediction, Predictions};

use crate::args::Evaluate;
use crate::classifier::Classifier;
use crate::corpus::Corpus;
use crate::output::{print, print_attention, print_tables};
use crate::train::{dashboard, test};
use crate::{device, logging, run_directory};

/// Tests the run's checkpoint again, says whether the saved predictions come back, and prints the
/// metrics. The run directory is only read.
pub(crate) fn run(args: &Evaluate, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = run_directory::record(&args.run, &args.moved.set)?;
    let config = &record.config;
    let device = device::choose(args.device)?.device;
    let corpus = Corpus::read(&config.data)?;
    let classifier = Classifier::of_run(&args.run, &record, &device)?;
    let cache = args.cache.folder();
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
    let other = difference(&predictions, &saved);
    match &other {
        Other::No => print("The saved predictions come back to the last bit.")?,
        Other::Bits(how) | Other::Answers(how) => print(how)?,
    }
    let report = ClassificationReport::new(&predictions, config.evaluation.metric_batch_size);
    print_tables(&[EvaluatedRun { record: record.clone(), report: Some(report) }])?;
    print_attention(&attention)?;
    if let Other::Answers(_) = other {
        bail!("{}: the saved predictions do not come back", args.run.display());
    }
    Ok(())
}

/// In what predictions are not those that were saved.
enum Other {
    No,
    /// In logits alone, as on another kind of device.
    Bits(String),
    /// In reviews or classes.
    Answers(String),
}

fn difference(predictions: &Predictions, saved: &Predictions) -> Other {
    if predictions == saved {
        return Other::No;
    }
    let (now, before) = (&predictions.rows, &saved.rows);
    if now.len() != before.len() {
        return Other::Answers(format!(
            "The saved predictions are of other reviews: {} of them, {} tested now.",
            before.len(),
            now.len()
        ));
    }
    let pairs = || now.iter().zip(before);
    let review = |row: &Prediction| {
        let seen = if row.in_training { ", in the training file, too" } else { "" };
        format!("review {}, label {}{seen}", row.id, row.label)
    };
    // The header is line 1.
    let mut reviews = (2..).zip(pairs().map(|(now, before)| (review(now), review(before))));
    if let Some((line, (now, before))) = reviews.find(|(_, (now, before))| now != before) {
        return Other::Answers(format!(
            "The saved predictions are of other reviews: line {line} of predictions.tsv is {before}; \
             tested now is {now}."
        ));
    }
    let largest = pairs()
        .flat_map(|(a, b)| a.logits.iter().zip(&b.logits).map(|(a, b)| (a - b).abs()))
        .fold(0.0, f32::max);
    let classes = pairs().filter(|(a, b)| a.class() != b.class()).count();
    let how = format!(
        "The saved predictions do not come back to the last bit: logits differ by up to {largest:e}, \
         {classes} of {} classes differ.",
        now.len()
    );
    if classes == 0 { Other::Bits(how) } else { Other::Answers(how) }
}
