//! Timing what a finished run does without training: reading tokens, and the test set.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use nsmc_data::{EncodedReviews, Order, ReviewLoader};
use nsmc_eval::statistics::median;
use nsmc_training::{peak_memory_mib, predict};

use crate::args::BenchInference;
use crate::classifier::Classifier;
use crate::corpus::Corpus;
use crate::output::print;
use crate::{device, logging, run_directory};

/// Encodes the run's reviews and predicts its test reviews, sorted by length, without any cache, and
/// prints one JSON line: the medians of several rounds.
pub(crate) fn run(args: &BenchInference, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = run_directory::record(&args.run, &args.moved.set)?;
    let config = &record.config;
    let named = device::choose(args.device)?;
    let corpus = Corpus::read(&config.data)?;
    let classifier = Classifier::of_run(&args.run, &record, &named.device)?;
    let max_length = config.data.max_length;

    let (mut encode, mut forward) = (Vec::new(), Vec::new());
    let mut tokens = 0;
    for _ in 0..args.rounds {
        let started = Instant::now();
        EncodedReviews::encode(&corpus.train, &classifier.tokenizer, max_length)?;
        let encoded = EncodedReviews::encode(&corpus.test, &classifier.tokenizer, max_length)?;
        encode.push(started.elapsed().as_secs_f64());

        let loader = ReviewLoader::new(
            corpus.test.clone(),
            Arc::new(encoded),
            corpus.tested.clone(),
            args.batch_size,
            Order::ByLength,
            named.device.clone(),
        );
        tokens = loader.num_tokens();
        let started = Instant::now();
        let predicted = predict(&classifier.model, &loader, &named.device, |_| ())?;
        forward.push(started.elapsed().as_secs_f64());
        ensure!(predicted.logits.len() == corpus.tested.len(), "a review was not predicted");
    }
    let (encode, forward) = (median(&encode), median(&forward));
    print(serde_json::json!({
        "run": record.run_id,
        "device": named.name,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "encoded_reviews": corpus.train.len() + corpus.test.len(),
        "encode_s": encode,
        "test_reviews": corpus.tested.len(),
        "tokens": tokens,
        "predict_s": forward,
        "tokens_per_s": tokens as f64 / forward,
        "peak_rss_mib": peak_memory_mib(&named.device).map(f64::round),
        "nsmc": env!("CARGO_PKG_VERSION"),
    }))
}
