use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use burn::train::Interrupter;
use nsmc_data::{BertTokenizer, EncodedReviews, Order, Review, ReviewLoader};
use nsmc_eval::{EvaluatedRun, Prediction, Predictions};
use nsmc_experiment::{
    AdapterFusionMethod, AdapterTraining, ExperimentConfig, FusionAttention, MethodConfig,
    Provenance, RunRecord, RunResults, RunStatus, Selection, StageRecord, Stretch, TrainingConfig,
    create_folder_durably, sha256_hex, write_durably,
};
use nsmc_peft::PeftModel;
use nsmc_training::{Dashboard, Fit, Fitted, Progress, fit, predict, set_precision};

use crate::args::{DeviceChoice, Train};
use crate::classifier::{Classifier, checkpoint, save};
use crate::corpus::Corpus;
use crate::device::NamedDevice;
use crate::output::{print_attention, print_tables};
use crate::stop::Lifeline;
use crate::stretches::{self, Stretches};
use crate::{baseline, checksums, device, logging, method, provenance, run_directory};

pub(crate) fn run(args: &Train, verbosity: u8) -> Result<()> {
    let lifeline = Lifeline::watch(args.stop_with_stdin);
    let config = ExperimentConfig::read(&args.config)?;
    check_numerics(&args.config, &config)?;
    let (device, further_devices) = if config.method.is_baseline() {
        // It has no tensors.
        (device::choose(DeviceChoice::Cpu)?, Vec::new())
    } else {
        let chosen = device::choose_several(args.device, &args.devices)?;
        let device = &chosen.0.device;
        set_precision(config.training.precision, device).context("`training.precision`")?;
        chosen
    };
    let _lock = run_directory::lock(&args.out)?;
    let is_new = run_directory::is_new(&args.out)?;
    let mended = run_directory::open(&args.out, &config)?;
    logging::start(verbosity, Some(&args.out.join("log.txt")))?;
    mended.warn();
    let stretches = Stretches::begin(&args.out, &device)?;
    let run_id = config.run_id();
    tracing::info!(run = run_id, device = device.name, "run started");
    let mut reached = Reached::default();
    let outcome = if config.method.is_baseline() {
        baseline::fit_and_test(args, &config, &mut reached)
    } else {
        let devices = (&device.device, further_devices.as_slice());
        train_and_test(args, &config, devices, &lifeline, &mut reached)
    };
    let outcome = match outcome {
        Err(error) if is_new && !reached.training => {
            let _ = stretches.end();
            // It would stand in tables as a run that was made.
            run_directory::remove_new(&args.out);
            Err(error)
        }
        outcome => finish(args, &config, &device, reached.inputs, stretches, outcome),
    };
    outcome.with_context(|| format!("run {run_id}"))?;
    print_tables(&[EvaluatedRun::read(&args.out)?])?;
    let attention = args.out.join("fusion_attention.json");
    if attention.is_file() {
        print_attention(&serde_json::from_str::<Vec<_>>(&fs_err::read_to_string(attention)?)?)?;
    }
    Ok(())
}

/// How far a run has come, however it ends.
#[derive(Default)]
pub(crate) struct Reached {
    /// The hashes of what it read.
    pub(crate) inputs: BTreeMap<String, String>,
    /// All is read and made, and the training begins.
    pub(crate) training: bool,
}

/// Refuses a configuration of another program's run: what it comes to here is not what that run would.
fn check_numerics(path: &Path, config: &ExperimentConfig) -> Result<()> {
    if config.method.is_baseline() {
        return Ok(());
    }
    let numerics = (config.numerics, config.todays_numerics());
    let made_by = "`cargo xtask train` and `cargo xtask reproduce` make";
    same_numerics(path, numerics, &config.changed_since(), made_by)
}

/// Refuses numerics that are not today's; `made_by` says what makes a configuration of today.
pub(crate) fn same_numerics(
    path: &Path,
    (found, todays): (u32, u32),
    changes: &[(&str, &str)],
    made_by: &str,
) -> Result<()> {
    let path = path.display();
    let changes: Vec<&str> = changes.iter().map(|(what, _)| *what).collect();
    ensure!(
        changes.is_empty(),
        "{path}: expected `numerics = {todays}`, found {found}: it is of a program before this change: \
         {}. {made_by} the configuration anew; in one that was written by hand, set it",
        changes.join("; ")
    );
    ensure!(
        found == todays,
        "{path}: expected `numerics = {todays}`, found {found}: it is of a later program, or of a \
         configuration that was changed by hand"
    );
    Ok(())
}

/// Writes the record of a run, however it ended.
fn finish(
    args: &Train,
    config: &ExperimentConfig,
    device: &NamedDevice,
    inputs: BTreeMap<String, String>,
    stretches: Stretches,
    outcome: Result<RunResults>,
) -> Result<()> {
    let stretches = stretches.end();
    let (status, results, error) = match outcome {
        Ok(mut results) => {
            results.peak_memory_mib = Stretch::peak_memory_mib(&stretches);
            (RunStatus::Success, Some(results), None)
        }
        Err(error) => (RunStatus::Failed { error: format!("{error:#}") }, None, Some(error)),
    };
    let record = RunRecord {
        run_id: config.run_id(),
        identity: config.identity(),
        status,
        started: stretches.first().map_or(0, |first| first.started),
        total_seconds: Stretch::total_seconds(&stretches),
        stretches,
        device: device.name.clone(),
        threads: rayon::current_num_threads(),
        version: env!("CARGO_PKG_VERSION").into(),
        provenance: Some(Provenance { inputs, ..provenance::of_this_program() }),
        results,
        config: config.without_paths(),
    };
    let path = args.out.join("record.json");
    if let Some(error) = error {
        // On a full disk, say, the record cannot be written either: the run's error is what matters.
        return match record.write(&path) {
            Ok(()) => Err(error),
            Err(second) => Err(error.context(format!("and no record could be written ({second})"))),
        };
    }
    checksums::write(&args.out, &record.to_json())?;
    record.write(&path)?;
    Ok(fs_err::remove_file(args.out.join(stretches::FILE))?)
}

fn train_and_test(
    args: &Train,
    config: &ExperimentConfig,
    (device, further_devices): (&Device, &[Device]),
    lifeline: &Lifeline,
    reached: &mut Reached,
) -> Result<RunResults> {
    let corpus = Corpus::read(&config.data)?;
    corpus.warn(&config.data.labels);
    reached.inputs = provenance::inputs(config)?;
    let trained_on: Vec<&Review> =
        corpus.split.train.iter().map(|&review| &corpus.train[review]).collect();
    let base = Classifier::base(config, &trained_on, &device.clone().autodiff())?;
    let model = method::first_stage(base.model, &config.method, config.seed)?;
    ensure!(
        model.parameter_counts().trainable > 0,
        "nothing trains: the method puts no parameter on this model, and `method.trains` is empty"
    );

    let cache = args.cache.folder();
    let encode = |reviews: &[Review]| {
        let (tokenizer, max_length) = (&base.tokenizer, config.data.max_length);
        EncodedReviews::encode_cached(reviews, tokenizer, max_length, &cache)
            .map(Arc::new)
            .with_context(|| format!("the token cache {}", cache.display()))
    };
    let (encoded, encoded_test) = (encode(&corpus.train)?, encode(&corpus.test)?);
    for (encoded, file) in [(&encoded, "training"), (&encoded_test, "test")] {
        let (cut, all) = (encoded.truncated(), encoded.len());
        // `max_length` is there for the longest few.
        if cut * 10 > all {
            let length = config.data.max_length;
            tracing::warn!(
                "`data.max_length` = {length} cuts {cut} of {all} texts of the {file} file"
            );
        }
    }

    let interrupter = lifeline.interrupter()?;
    reached.training = true;
    let trainer = Trainer {
        config,
        corpus: &corpus,
        encoded: &encoded,
        tokenizer: &base.tokenizer,
        device,
        further_devices,
        inputs: &reached.inputs,
        dashboard: if args.progress_json { Dashboard::Json } else { dashboard(args.tui) },
        interrupter,
    };
    let (counts, adapter_stage, fitted) = lifeline.during(&trainer.interrupter, || {
        let (model, adapter_stage) = match &config.method {
            MethodConfig::AdapterFusion(fusion) => {
                let (model, stage) = trainer.adapter_stage(model, fusion, &args.out)?;
                (model, Some(stage))
            }
            _ => (model, None),
        };
        let counts = model.parameter_counts();
        let fitted = trainer.fit(model, &config.training, &args.out, None)?;
        anyhow::Ok((counts, adapter_stage, fitted))
    })?;

    // What is tested is what was saved: the model comes back from its checkpoint.
    trainer.check_weights()?;
    let checkpoint = checkpoint(&args.out, config.training.selection);
    let trained = Classifier::trained(&checkpoint, config, device)?;
    let test_started = Instant::now();
    let (predictions, attention) =
        test(config, &corpus, encoded_test, &trained, device, trainer.dashboard)?;
    let test_seconds = test_started.elapsed().as_secs_f64();
    let predictions_sha256 = save_predictions(&predictions, &args.out)?;
    if !attention.is_empty() {
        let json = serde_json::to_string_pretty(&attention)?;
        write_durably(&args.out.join("fusion_attention.json"), json + "\n")?;
    }

    Ok(RunResults {
        trainable_parameters: counts.trainable,
        total_parameters: counts.total,
        train_reviews: corpus.split.train.len(),
        validation_reviews: corpus.split.validation.len(),
        test_reviews: corpus.tested.len(),
        truncated_reviews: encoded.truncated(),
        adapter_stage,
        steps: fitted.epochs.iter().map(|epoch| epoch.steps).sum(),
        tested_epoch: taken_epoch(&fitted, config.training.selection)?,
        epochs: fitted.epochs,
        epoch_seconds_alone: None,
        test_seconds,
        peak_memory_mib: None,
        predictions_sha256,
    })
}

/// Writes `predictions.tsv`, which appears whole or not at all, and gives its sha256.
pub(crate) fn save_predictions(predictions: &Predictions, run: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    predictions.write(&mut bytes)?;
    write_durably(&run.join("predictions.tsv"), &bytes)?;
    Ok(sha256_hex(&bytes))
}

/// What the stages of a run share.
struct Trainer<'a> {
    config: &'a ExperimentConfig,
    corpus: &'a Corpus,
    encoded: &'a Arc<EncodedReviews>,
    tokenizer: &'a BertTokenizer,
    device: &'a Device,
    further_devices: &'a [Device],
    /// The hashes of what the run began with.
    inputs: &'a BTreeMap<String, String>,
    dashboard: Dashboard,
    interrupter: Interrupter,
}

impl Trainer<'_> {
    /// Trains the adapter of an AdapterFusion in `run/adapter`, and gives the model of the next
    /// stage.
    fn adapter_stage(
        &self,
        model: PeftModel,
        method: &AdapterFusionMethod,
        run: &Path,
    ) -> Result<(PeftModel, StageRecord)> {
        let counts = model.parameter_counts();
        let folder = run.join("adapter");
        create_folder_durably(&folder)?;
        let AdapterTraining { num_train_epochs, learning_rate } = method.adapter_training;
        let training =
            TrainingConfig { num_train_epochs, learning_rate, ..self.config.training.clone() };
        self.dashboard.stage(1, &format!("the adapter `{}`", method.adapter.name));
        let fitted = self.fit(model, &training, &folder, Some(run))?;
        self.dashboard.stage(2, &method.setup);
        self.check_weights()?;
        let checkpoint = checkpoint(&folder, training.selection);
        let device = self.device.clone().autodiff();
        let Classifier { model, .. } = Classifier::trained(&checkpoint, self.config, &device)?;
        let model = method::fusion_stage(model, method, self.config.seed)?;
        let taken_epoch = taken_epoch(&fitted, training.selection)?;
        let trainable_parameters = counts.trainable;
        Ok((model, StageRecord { trainable_parameters, epochs: fitted.epochs, taken_epoch }))
    }

    /// Refuses a base or adapters that were replaced while the run was at work: a checkpoint holds
    /// what was added to them, and on others it means something else.
    fn check_weights(&self) -> Result<()> {
        if self.config.method == MethodConfig::Vanilla {
            return Ok(());
        }
        let weights = |inputs: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let mut weights = inputs.clone();
            weights.retain(|key, _| !key.starts_with("data."));
            weights
        };
        let now = provenance::inputs(self.config).context("read again after the training")?;
        ensure!(
            weights(&now) == weights(self.inputs),
            "the weights that the run began with were replaced while it was at work; put them back, \
             and the same command goes on"
        );
        Ok(())
    }

    /// Trains a model; its checkpoints are in `folder`, and those of the stage after it in
    /// `next_stage`.
    fn fit(
        &self,
        model: PeftModel,
        training: &TrainingConfig,
        folder: &Path,
        next_stage: Option<&Path>,
    ) -> Result<Fitted> {
        let Self { config, corpus, .. } = self;
        let counts = model.parameter_counts();
        tracing::info!(trainable = counts.trainable, total = counts.total, "model ready");
        let loader = |indices: &[usize], batch_size, order| {
            let (reviews, encoded) = (corpus.train.clone(), self.encoded.clone());
            let indices = indices.to_vec();
            ReviewLoader::new(reviews, encoded, indices, batch_size, order, self.device.clone())
        };
        let order = Order::Shuffled { seed: config.seed };
        let validation = (!corpus.split.validation.is_empty()).then(|| {
            loader(&corpus.split.validation, config.evaluation.eval_batch_size, Order::ByLength)
        });
        let fit_config = Fit {
            config: training.clone(),
            seed: config.seed,
            train: loader(&corpus.split.train, training.train_batch_size, order),
            validation,
            num_labels: config.data.labels.len(),
            device: self.device.clone(),
            further_devices: self.further_devices.to_vec(),
            folder: folder.into(),
            identity: config.identity(),
            next_stage: next_stage.map(Into::into),
            dashboard: self.dashboard,
            interrupter: self.interrupter.clone(),
        };
        let (tokenizer, max_length) = (self.tokenizer.clone(), config.data.max_length);
        let save =
            move |model: &PeftModel, folder: &Path| save(model, &tokenizer, max_length, folder);
        Ok(fit(model, fit_config, save)?)
    }
}

/// The epoch whose model goes on, from 1.
fn taken_epoch(fitted: &Fitted, selection: Selection) -> Result<usize> {
    match selection {
        Selection::Last => Ok(fitted.epochs.len()),
        Selection::Best => fitted.best_epoch.context("no epoch was validated, so none is the best"),
    }
}

/// The predictions of the tested reviews, in the order of the test file, and where the model's
/// fusions attended to.
pub(crate) fn test(
    config: &ExperimentConfig,
    corpus: &Corpus,
    encoded: Arc<EncodedReviews>,
    classifier: &Classifier,
    device: &Device,
    dashboard: Dashboard,
) -> Result<(Predictions, Vec<FusionAttention>)> {
    let loader = ReviewLoader::new(
        corpus.test.clone(),
        encoded,
        corpus.tested.clone(),
        config.evaluation.eval_batch_size,
        Order::ByLength,
        device.clone(),
    );
    let mut progress = Progress::start(dashboard, "test", corpus.tested.len());
    let predicted = predict(&classifier.model, &loader, device, |done| {
        progress.update(done, None);
    })?;
    progress.finish();
    let rows = predicted.logits.into_iter().map(|(review, logits)| {
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
    let predictions = Predictions {
        num_labels: classifier.config.num_labels(),
        rows: rows.collect::<Result<_>>()?,
    };
    Ok((predictions, predicted.attention))
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
