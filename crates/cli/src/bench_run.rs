//! Timing steps of a finished run's own training: its model, method, batches and recipe.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nsmc_data::{Batch, EncodedReviews, Order, Review, ReviewLoader};
use nsmc_experiment::{MethodConfig, RunRecord};
use nsmc_training::{AdamW, ClassificationTask, Replicas, Step, set_precision};

use crate::args::BenchRun;
use crate::classifier::Classifier;
use crate::corpus::Corpus;
use crate::output::print;
use crate::stop::Lifeline;
use crate::{checksums, device, logging, method, run_directory};

/// Trains some steps as the run did, and prints one JSON line: what an epoch takes at that pace. Of
/// AdapterFusion it is the second stage, as in its record.
pub(crate) fn run(args: &BenchRun, verbosity: u8) -> Result<()> {
    let _lifeline = Lifeline::watch(args.stop_with_stdin);
    logging::start(verbosity, None)?;
    let path = args.run.join("record.json");
    ensure!(path.is_file(), "{}: no finished run: it has no record.json", args.run.display());
    let _lock = args.record.then(|| run_directory::lock(&args.run)).transpose()?;
    let record = run_directory::record(&args.run, &args.moved.set)?;
    let config = &record.config;
    let named = device::choose(args.device)?;
    ensure!(
        !args.record || record.gpus() == named.gpus(),
        "{}: the run computed on {}, and the time of another device is not put into its record: \
         expected as many GPUs, found {}; choose with `--device`, or leave `--record` out",
        args.run.display(),
        record.device,
        named.name
    );
    set_precision(config.training.precision, &named.device)
        .context("the run's `training.precision`; `--device cuda` measures it")?;
    let device = named.device.clone().autodiff();

    let corpus = Corpus::read(&config.data)?;
    let trained_on: Vec<&Review> =
        corpus.split.train.iter().map(|&review| &corpus.train[review]).collect();
    let base = Classifier::base(config, &trained_on, &device)?;
    let mut model = method::first_stage(base.model, &config.method, config.seed)?;
    if let MethodConfig::AdapterFusion(fusion) = &config.method {
        model = method::fusion_stage(model, fusion, config.seed)?;
    }
    let cache = args.cache.folder();
    let max_length = config.data.max_length;
    let encoded = EncodedReviews::encode_cached(&corpus.train, &base.tokenizer, max_length, &cache)
        .with_context(|| format!("the token cache {}", cache.display()))?;
    let loader = ReviewLoader::new(
        corpus.train.clone(),
        Arc::new(encoded),
        corpus.split.train.clone(),
        config.training.train_batch_size,
        Order::Shuffled { seed: config.seed },
        device.clone(),
    );

    let mut task = ClassificationTask { model };
    let mut optimizer = AdamW::new(&config.training).for_module(&named.device);
    let mut alone = Replicas::default();
    let (mut done, mut epoch) = (0, 0);
    let (mut tokens, mut started) = (0, Instant::now());
    while done < args.warmup + args.steps {
        for batch in loader.batches(epoch, 0).take(args.warmup + args.steps - done) {
            let batch: Batch = batch.context("the reviews")?;
            if done == args.warmup {
                device.sync().context("the device")?;
                started = Instant::now();
            }
            if done >= args.warmup {
                tokens += batch.lengths.iter().sum::<usize>();
            }
            let step = Step {
                index: done,
                learning_rate: config.training.learning_rate,
                max_grad_norm: config.training.max_grad_norm,
            };
            (task, _, _) = task.optimize(&mut alone, &mut optimizer, batch, step);
            done += 1;
        }
        epoch += 1;
    }
    device.sync().context("the device")?;
    let tokens_per_second = tokens as f64 / started.elapsed().as_secs_f64();
    let epoch_seconds = loader.num_tokens() as f64 / tokens_per_second;
    if args.record {
        let mut record = RunRecord::read(&path)?;
        let results = record.results.as_mut();
        let results = results.with_context(|| format!("{}: the run failed", args.run.display()))?;
        results.epoch_seconds_alone = Some(epoch_seconds);
        // The hashes first, as when the run ended: killed in between, the time is measured again.
        checksums::update(&args.run, &record.to_json())?;
        record.write(&path)?;
    }
    print(serde_json::json!({
        "run": config.run_id(),
        "device": named.name,
        "steps": args.steps,
        "tokens_per_s": tokens_per_second,
        "epoch_s": epoch_seconds,
        "nsmc": env!("CARGO_PKG_VERSION"),
    }))
}
