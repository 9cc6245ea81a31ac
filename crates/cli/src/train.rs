use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use burn::train::Interrupter;
use nsmc_data::{EncodedReviews, Order, Review, ReviewLoader};
use nsmc_eval::{EvaluatedRun, Prediction, Predictions, paper_table, results_table};
use nsmc_experiment::{ExperimentConfig, RunRecord, RunResults, RunStatus, Selection, sha256_hex};
use nsmc_peft::PeftModel;
use nsmc_training::{
    Dashboard, Fit, Fitted, Progress, TrainingError, fit, peak_memory_mib, predict,
};

use crate::args::Train;
use crate::classifier::Classifier;
use crate::corpus::{Corpus, cache_folder};
use crate::device::NamedDevice;
use crate::{device, logging};

pub(crate) fn run(args: &Train, verbosity: u8) -> Result<()> {
    let config = ExperimentConfig::read(&args.config)?;
    let device = device::choose(args.device)?;
    make_run_directory(&args.out, &config)?;
    logging::start(verbosity, Some(&args.out.join("log.txt")))?;
    let started = Instant::now();
    let mut record = RunRecord {
        run_id: config.run_id(),
        identity: config.identity(),
        status: RunStatus::Success,
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        total_seconds: 0.0,
        device: device.name.clone(),
        threads: rayon::current_num_threads(),
        version: env!("CARGO_PKG_VERSION").into(),
        results: None,
        config,
    };
    tracing::info!(run = record.run_id, device = record.device, "run started");
    let outcome = train_and_test(args, &record.config, &device);
    record.total_seconds = started.elapsed().as_secs_f64();
    let error = match outcome {
        Ok(results) => {
            record.results = Some(results);
            None
        }
        Err(error) => {
            record.status = RunStatus::Failed { error: format!("{error:#}") };
            Some(error)
        }
    };
    record.write(&args.out.join("record.json"))?;
    if let Some(error) = error {
        return Err(error.context(format!("run {}", record.run_id)));
    }
    print_tables(&[EvaluatedRun::read(&args.out)?]);
    Ok(())
}

/// Makes the directory and puts the configuration there; one that holds anything is left alone.
fn make_run_directory(folder: &Path, config: &ExperimentConfig) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    if fs_err::read_dir(folder)?.next().is_some() {
        bail!(
            "{}: the run directory is not empty; give another with `--out`, or delete it",
            folder.display()
        );
    }
    Ok(fs_err::write(folder.join("config.toml"), config.to_toml())?)
}

fn train_and_test(
    args: &Train,
    config: &ExperimentConfig,
    device: &NamedDevice,
) -> Result<RunResults> {
    let device = device.device.clone();
    let dashboard = dashboard(args.tui);
    let corpus = Corpus::read(&config.data)?;
    let trained_on: Vec<&Review> =
        corpus.split.train.iter().map(|&review| &corpus.train[review]).collect();
    let classifier = Classifier::to_train(config, &trained_on, &device.clone().autodiff())?;
    let counts = classifier.model.parameter_counts();
    tracing::info!(trainable = counts.trainable, total = counts.total, "model ready");

    let cache = cache_folder(args.cache.as_deref());
    let encode = |reviews: &[Review]| {
        let (tokenizer, max_length) = (&classifier.tokenizer, config.data.max_length);
        EncodedReviews::encode_cached(reviews, tokenizer, max_length, &cache)
            .map(Arc::new)
            .with_context(|| format!("the token cache {}", cache.display()))
    };
    let (encoded, encoded_test) = (encode(&corpus.train)?, encode(&corpus.test)?);

    let truncated_reviews = encoded.truncated();
    let fitted = train(args, config, &corpus, &encoded, classifier, &device, dashboard)?;
    let (checkpoint, tested_epoch) = match config.training.selection {
        Selection::Last => ("last", fitted.epochs.len()),
        Selection::Best => {
            ("best", fitted.best_epoch.context("no epoch was validated, so none is the best")?)
        }
    };
    // What is tested is what was saved: the model comes back from its checkpoint.
    let trained = Classifier::trained(&args.out.join("checkpoint").join(checkpoint), &device)?;
    let test_started = Instant::now();
    let predictions = test(config, &corpus, encoded_test, &trained, &device, dashboard)?;
    let test_seconds = test_started.elapsed().as_secs_f64();
    let mut bytes = Vec::new();
    predictions.write(&mut bytes)?;
    fs_err::write(args.out.join("predictions.tsv"), &bytes)?;

    Ok(RunResults {
        trainable_parameters: counts.trainable,
        total_parameters: counts.total,
        train_reviews: corpus.split.train.len(),
        validation_reviews: corpus.split.validation.len(),
        test_reviews: corpus.tested.len(),
        truncated_reviews,
        steps: fitted.epochs.iter().map(|epoch| epoch.steps).sum(),
        epochs: fitted.epochs,
        tested_epoch,
        test_seconds,
        peak_memory_mib: peak_memory_mib(&device),
        predictions_sha256: sha256_hex(&bytes),
    })
}

/// Trains the classifier; its checkpoints are in the run directory.
fn train(
    args: &Train,
    config: &ExperimentConfig,
    corpus: &Corpus,
    encoded: &Arc<EncodedReviews>,
    classifier: Classifier,
    device: &Device,
    dashboard: Dashboard,
) -> Result<Fitted> {
    let loader = |indices: &[usize], batch_size, order| {
        let (reviews, indices) = (corpus.train.clone(), indices.to_vec());
        ReviewLoader::new(reviews, encoded.clone(), indices, batch_size, order, device.clone())
    };
    let order = Order::Shuffled { seed: config.seed };
    let validation = (!corpus.split.validation.is_empty()).then(|| {
        loader(&corpus.split.validation, config.evaluation.eval_batch_size, Order::ByLength)
    });
    let interrupter = Interrupter::new();
    stop_on_signal(&interrupter)?;
    let Classifier { config: model_config, tokenizer, model } = classifier;
    let max_length = config.data.max_length;
    let fit_config = Fit {
        config: config.training.clone(),
        seed: config.seed,
        train: loader(&corpus.split.train, config.training.train_batch_size, order),
        validation,
        num_labels: config.data.labels.len(),
        device: device.clone(),
        folder: args.out.clone(),
        dashboard,
        interrupter,
    };
    let save = move |model: &PeftModel, folder: &Path| {
        model.base.save_pretrained(folder, &model_config)?;
        tokenizer
            .save(folder, max_length)
            .map_err(|error| TrainingError::Io(std::io::Error::other(error)))
    };
    Ok(fit(model, fit_config, save)?)
}

/// The predictions of the tested reviews, in the order of the test file.
pub(crate) fn test(
    config: &ExperimentConfig,
    corpus: &Corpus,
    encoded: Arc<EncodedReviews>,
    classifier: &Classifier,
    device: &Device,
    dashboard: Dashboard,
) -> Result<Predictions> {
    let loader = ReviewLoader::new(
        corpus.test.clone(),
        encoded,
        corpus.tested.clone(),
        config.evaluation.eval_batch_size,
        Order::ByLength,
        device.clone(),
    );
    let mut progress = Progress::start(dashboard, "test", corpus.tested.len());
    let logits = predict(&classifier.model, &loader, device, |done| {
        progress.update(done, "");
    })?;
    progress.finish();
    let rows = logits.into_iter().map(|(review, logits)| {
        ensure!(
            logits.iter().all(|logit| logit.is_finite()),
            "the model's logits for review {} are not finite",
            corpus.test[review].id
        );
        Ok(Prediction {
            id: corpus.test[review].id.clone(),
            label: corpus.test[review].label,
            in_training: corpus.in_training[review],
            logits,
        })
    });
    Ok(Predictions {
        num_labels: classifier.config.num_labels(),
        rows: rows.collect::<Result<_>>()?,
    })
}

/// The dashboard for this terminal.
pub(crate) fn dashboard(tui: bool) -> Dashboard {
    use std::io::IsTerminal;
    match (tui && std::io::stdout().is_terminal(), std::io::stderr().is_terminal()) {
        (true, _) => Dashboard::Tui,
        (false, true) => Dashboard::Bar,
        (false, false) => Dashboard::Lines,
    }
}

/// Ctrl-C and SIGTERM end the training after the step at hand; a second one ends the process.
fn stop_on_signal(interrupter: &Interrupter) -> Result<()> {
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if interrupter.should_stop() {
            std::process::exit(130);
        }
        interrupter.stop(Some("a signal asked the training to stop"));
    })
    .context("the signal handler")
}

#[expect(clippy::print_stdout, reason = "results go to stdout")]
pub(crate) fn print_tables(runs: &[EvaluatedRun]) {
    println!("{}", results_table(runs).terminal(None));
    if let Some(table) = paper_table(runs) {
        println!("Beside the paper, averaged over batches as it did:\n{}", table.terminal(None));
    }
}
