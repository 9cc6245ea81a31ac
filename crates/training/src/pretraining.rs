//! Masked-language-model pre-training (Devlin et al., 2019), resumable at any step.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use burn::module::{Module, ParamGroup};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{
    AdjustLrFn, GradientsAccumulator, GradientsParams, ModuleOptimizer, Muon, MuonConfig,
};
use burn::tensor::{Device, Int, Tensor};
use burn::train::Interrupter;
use nsmc_bert::{BertForMaskedLm, BertInput, NoHooks, Sequences, int_tensor};
use nsmc_data::pretraining::{PretrainingBatch, PretrainingLoader};
use nsmc_eval::duration;
use nsmc_experiment::{
    Optimizer, PretrainingConfig, PretrainingOptimizer, PretrainingRecipe, write_durably,
};
use nsmc_peft::AdaptedMaskedLm;
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoints, Schedule, record};
use crate::on_device::OnDevice;
use crate::threads::pools;
use crate::writer::Writer;
use crate::{AdamW, Dashboard, TrainingError, clip_grad_norm, losses, step_seed};

/// A model that can be pre-trained.
pub trait MaskedLanguageModel: Module {
    /// The logits of the tokens at `rows`: `[rows.len(), vocab_size]`.
    fn logits(&self, input: &BertInput, rows: Tensor<1, Int>) -> Tensor<2>;
}

impl MaskedLanguageModel for BertForMaskedLm {
    fn logits(&self, input: &BertInput, rows: Tensor<1, Int>) -> Tensor<2> {
        self.forward(input, rows, &NoHooks)
    }
}

impl MaskedLanguageModel for AdaptedMaskedLm {
    fn logits(&self, input: &BertInput, rows: Tensor<1, Int>) -> Tensor<2> {
        self.forward(input, rows)
    }
}

/// What is pre-trained, on what, and how.
pub struct Pretraining {
    /// The whole configuration.
    pub config: PretrainingConfig,
    /// Trained on.
    pub train: PretrainingLoader,
    /// Measured on, always with the same masks.
    pub held_out: Vec<PretrainingBatch>,
    /// Whether the model has dropout.
    pub dropout: bool,
    /// Where to compute. The model must have been made on its autodiff form.
    pub device: Device,
    /// The run directory.
    pub folder: PathBuf,
    /// What a person sees.
    pub dashboard: Dashboard,
    /// Stops the training between two steps, after a checkpoint.
    pub interrupter: Interrupter,
}

/// Where a pre-training stands after a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PretrainingState {
    /// Steps done.
    step: usize,
    /// The epoch of the next batch, from 0.
    epoch: usize,
    /// The next batch of that epoch, from 0.
    batch: usize,
    /// Tokens trained on.
    tokens: usize,
    /// Time of the training steps.
    seconds: f64,
    /// Losses since the last measurement.
    loss_sum: f64,
    /// Steps since the last measurement.
    loss_steps: usize,
    /// The measurements so far.
    #[serde(default)]
    metrics: Vec<PretrainingMetrics>,
}

/// A measurement: a line of the run directory's `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainingMetrics {
    /// Steps done.
    pub step: usize,
    /// Tokens trained on.
    pub tokens: usize,
    /// Time of the training steps alone.
    pub seconds: f64,
    /// Mean loss over the masked tokens since the measurement before.
    pub train_loss: f64,
    /// Mean loss over the masked tokens of the held-out reviews.
    pub held_out_loss: f64,
    /// Share of them that is predicted rightly.
    pub held_out_accuracy: f64,
}

/// transformers' `get_wsd_schedule` with a linear decay to 0: the learning rate of step `step`, from
/// 0, rises from 0 in `warmup_steps`, stays, and falls in the last `decay_steps`.
pub fn warmup_stable_decay(recipe: &PretrainingRecipe, step: usize) -> f64 {
    let share = if step < recipe.warmup_steps {
        step as f64 / recipe.warmup_steps as f64
    } else if step + recipe.decay_steps < recipe.num_train_steps {
        1.0
    } else {
        let decayed = step + recipe.decay_steps - recipe.num_train_steps;
        let decayed = decayed as f64 / recipe.decay_steps.max(1) as f64;
        (1.0 - decayed).max(0.0)
    };
    recipe.learning_rate * share
}

/// Refuses a run directory whose checkpoints are of this configuration, but of another length, and all
/// of them too far on for a training of this length to go on from: see [`pretrain`].
pub fn check_length(run: &Path, config: &PretrainingConfig) -> Result<(), TrainingError> {
    checkpoints(run, config).find::<PretrainingState>(|_| Ok(true)).map(|_| ())
}

fn checkpoints(run: &Path, config: &PretrainingConfig) -> Checkpoints {
    let PretrainingRecipe { num_train_steps, .. } = config.training;
    let schedule = Schedule { num_train_steps, decay_start: decay_start(&config.training) };
    Checkpoints::new(run.join("checkpoint"), config.identity(), schedule)
}

/// The step after which the learning rate falls.
fn decay_start(recipe: &PretrainingRecipe) -> usize {
    recipe.num_train_steps.saturating_sub(recipe.decay_steps)
}

/// Trains `model` to its last step, from the last checkpoint in the run directory if there is one. One
/// of a training of another length will do, if it is of before either's learning rate fell.
///
/// Every step is a function of the configuration and the step's number, so that a training that was
/// killed ends with the weights of one that was not, bit for bit on the CPU.
pub fn pretrain<M: MaskedLanguageModel>(
    mut model: M,
    run: &Pretraining,
) -> Result<(M, Vec<PretrainingMetrics>), TrainingError> {
    if run.train.num_reviews() == 0 || run.held_out.is_empty() {
        return Err(TrainingError::NoCorpus);
    }
    let recipe = run.config.training;
    let decay_start = decay_start(&recipe);
    let checkpoints = checkpoints(&run.folder, &run.config);
    let new_optimizer = || new_optimizer(&recipe, &run.device);
    let mut optimizer = new_optimizer();
    let mut state = PretrainingState::default();
    if let Some(loaded) = checkpoints.load(new_optimizer, |_| Ok(true))? {
        let weights = model.try_load_record(loaded.weights);
        model = weights.map_err(|error| record(&run.folder.join("checkpoint"), &error))?;
        (optimizer, state) = (loaded.optimizer, loaded.state);
        tracing::info!(step = state.step, "gone on from a checkpoint");
        run.dashboard.say(&format!("resumed after step {}", state.step));
    }
    write_metrics(&run.folder, &state.metrics)?;
    let pools = share_threads(run)?;
    let mut writer = Writer::default();

    std::thread::scope(|scope| {
        // Those of the next step are made while one is computed.
        let (sender, prepared) = sync_channel(0);
        let (epoch, batch) = (state.epoch, state.batch);
        scope.spawn(move || send_batches(&run.train, &recipe, epoch, batch, &sender));
        while state.step < recipe.num_train_steps {
            writer.check()?;
            let started = Instant::now();
            let batches;
            (batches, state.epoch, state.batch) = prepared.recv().expect("batches have no end");
            let (gradients, loss) = gradients(&model, &batches, run, state.step, &pools)?;
            let (gradients, norm) = clip_grad_norm(&model, gradients, recipe.max_grad_norm);
            let learning_rate = warmup_stable_decay(&recipe, state.step);
            let grad_norm = norm.try_into_scalar::<f32>()?;
            if !loss.is_finite() || !grad_norm.is_finite() {
                return Err(TrainingError::Diverged {
                    step: state.step + 1,
                    steps: recipe.num_train_steps,
                    epoch: state.epoch + 1,
                    loss: loss as f32,
                    grad_norm,
                    learning_rate,
                    reviews: batches
                        .iter()
                        .flat_map(|batch| run.train.ids(&batch.reviews))
                        .collect(),
                });
            }
            model = optimizer.step(learning_rate, model, gradients);
            state.seconds += started.elapsed().as_secs_f64();
            state.step += 1;
            state.tokens += batches.iter().map(|batch| batch.input_ids.len()).sum::<usize>();
            state.loss_sum += loss;
            state.loss_steps += 1;

            let last = state.step == recipe.num_train_steps;
            if state.step.is_multiple_of(run.config.evaluation.evaluate_every) || last {
                let (held_out_loss, held_out_accuracy) = evaluate(&model.valid(), run)?;
                let line = PretrainingMetrics {
                    step: state.step,
                    tokens: state.tokens,
                    seconds: state.seconds,
                    train_loss: state.loss_sum / state.loss_steps as f64,
                    held_out_loss,
                    held_out_accuracy,
                };
                (state.loss_sum, state.loss_steps) = (0.0, 0);
                run.dashboard.say(&summary(&line, &recipe));
                state.metrics.push(line);
                write_metrics(&run.folder, &state.metrics)?;
            }
            let stop = run.interrupter.should_stop();
            let due = state.step.is_multiple_of(run.config.evaluation.save_every);
            if due || last || stop || state.step == decay_start {
                // Before the copies are made: there are those of one checkpoint at a time.
                writer.finish()?;
                let (weights, moments) = (model.clone().into_record(), optimizer.to_record());
                let (checkpoints, state) = (checkpoints.clone(), state.clone());
                writer.begin(move || checkpoints.save(weights, moments, state.step, &state))?;
            }
            if stop && !last {
                writer.finish()?;
                let reason =
                    format!("after step {}; the same command goes on from there", state.step);
                return Err(TrainingError::Interrupted { reason });
            }
        }
        writer.finish()?;
        Ok((model.valid(), state.metrics))
    })
}

fn new_optimizer(recipe: &PretrainingRecipe, device: &Device) -> ModuleOptimizer {
    let adamw = AdamW {
        flavour: Optimizer::AdamwTorch,
        beta1: recipe.adam_beta1,
        beta2: recipe.adam_beta2,
        epsilon: recipe.adam_epsilon,
        weight_decay: recipe.weight_decay,
    };
    let optimizer = adamw.for_module(device);
    match recipe.optimizer {
        PretrainingOptimizer::Adamw => optimizer,
        PretrainingOptimizer::Muon => {
            let muon = OnDevice::new(muon(recipe.weight_decay), device);
            optimizer.with_group(encoder_matrices(), muon, None)
        }
    }
}

/// The weights of the encoder's linear layers; LayerNorm's are named `gamma` and `beta`.
fn encoder_matrices() -> ParamGroup {
    ParamGroup::from_regexes(vec![r"(^|\.)encoder\..*\.weight$"]).expect("the pattern is valid")
}

fn muon(weight_decay: f64) -> Muon {
    MuonConfig::new()
        .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
        .with_weight_decay(Some(WeightDecayConfig::new(weight_decay as f32)))
        .build()
}

/// The batches of one step, with epoch and index of the batch after them.
type StepBatches = (Vec<PretrainingBatch>, usize, usize);

/// Sends the batches of one step after the other, from a batch of an epoch on, until nobody receives.
fn send_batches(
    loader: &PretrainingLoader,
    recipe: &PretrainingRecipe,
    mut epoch: usize,
    mut batch: usize,
    sender: &SyncSender<StepBatches>,
) {
    loop {
        let mut batches = Vec::with_capacity(recipe.gradient_accumulation_steps);
        while batches.len() < recipe.gradient_accumulation_steps {
            if batch >= loader.num_batches(epoch) {
                epoch += 1;
                batch = 0;
            }
            batches.push(loader.batch(epoch, batch));
            batch += 1;
        }
        if sender.send((batches, epoch, batch)).is_err() {
            return;
        }
    }
}

/// The gradients and the loss of a step: the mean over the masked tokens of all of its batches.
///
/// Where there are `pools`, batches are computed side by side, each on one of them: kernels of a small
/// model are too short to be worth dividing. They are added up in their order, so that threads change
/// nothing.
fn gradients<M: MaskedLanguageModel>(
    model: &M,
    batches: &[PretrainingBatch],
    run: &Pretraining,
    step: usize,
    pools: &[ThreadPool],
) -> Result<(GradientsParams, f64), TrainingError> {
    let device = &run.device.clone().autodiff();
    let masked: usize = batches.iter().map(|batch| batch.masked_rows.len()).sum();
    let inner = model.valid();
    let mut accumulator = GradientsAccumulator::new();
    let mut total = 0.0;
    let mut add = |(gradients, loss): (GradientsParams, f64)| {
        accumulator.accumulate(model, gradients);
        total += loss;
    };
    if pools.is_empty() {
        for (index, batch) in batches.iter().enumerate() {
            device.seed(step_seed(run.config.seed, step * batches.len() + index));
            add(batch_gradients(&inner.clone().train(), batch, masked, device)?);
        }
    } else {
        // As many at once as there are pools: each holds its graph in memory.
        for batches in batches.chunks(pools.len()) {
            let parts = std::thread::scope(|scope| {
                let mut threads = Vec::with_capacity(batches.len());
                for (batch, pool) in batches.iter().zip(pools) {
                    // Each thread has a graph of its own over the same weights.
                    let model = inner.clone().train();
                    let gradients = move || batch_gradients(&model, batch, masked, device);
                    threads.push(scope.spawn(|| pool.install(gradients)));
                }
                let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                    thread.join().expect("a batch's computation does not panic")
                };
                threads.into_iter().map(join).collect::<Result<Vec<_>, TrainingError>>()
            })?;
            parts.into_iter().for_each(&mut add);
        }
    }
    Ok((accumulator.grads(), total))
}

/// A pool for each batch of a step, or for each thread if there are fewer: they share the threads. None
/// where batches are computed one after the other: on a GPU, and with dropout, which draws in order.
fn share_threads(run: &Pretraining) -> Result<Vec<ThreadPool>, TrainingError> {
    if run.dropout || Sequences::prefer_padding(&run.device) {
        return Ok(Vec::new());
    }
    pools(run.config.training.gradient_accumulation_steps)
}

fn batch_gradients<M: MaskedLanguageModel>(
    model: &M,
    batch: &PretrainingBatch,
    masked: usize,
    device: &Device,
) -> Result<(GradientsParams, f64), TrainingError> {
    let loss = masked_losses(model, batch, device).sum() / masked as f64;
    let value = loss.clone().inner();
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    Ok((gradients, f64::from(value.try_into_scalar::<f32>()?)))
}

fn logits(
    model: &impl MaskedLanguageModel,
    batch: &PretrainingBatch,
    device: &Device,
) -> Tensor<2> {
    let types = vec![0; batch.input_ids.len()];
    let input = BertInput::unpadded(&batch.input_ids, &types, batch.lengths.clone(), device);
    let masked = int_tensor(batch.masked_rows.iter().copied(), device);
    match input.for_device() {
        (input, None) => model.logits(&input, masked),
        (input, Some(positions)) => model.logits(&input, positions.select(0, masked)),
    }
}

/// Cross-entropy of each masked token.
fn masked_losses(
    model: &impl MaskedLanguageModel,
    batch: &PretrainingBatch,
    device: &Device,
) -> Tensor<1> {
    losses(logits(model, batch, device), labels(batch, device))
}

fn labels(batch: &PretrainingBatch, device: &Device) -> Tensor<1, Int> {
    int_tensor(batch.masked_labels.iter().copied(), device)
}

/// Mean loss and accuracy over the masked tokens of the held-out reviews.
fn evaluate(
    model: &impl MaskedLanguageModel,
    run: &Pretraining,
) -> Result<(f64, f64), TrainingError> {
    let device = &run.device;
    let (mut loss_sum, mut right, mut masked) = (0.0, 0, 0);
    for batch in &run.held_out {
        let logits = logits(model, batch, device);
        let classes = logits.clone().argmax(1).flatten::<1>(0, 1);
        let labels = labels(batch, device);
        let equal = classes.equal(labels.clone()).int().sum();
        right += equal.try_into_scalar::<i64>()?;
        loss_sum += f64::from(losses(logits, labels).sum().try_into_scalar::<f32>()?);
        masked += batch.masked_rows.len();
    }
    Ok((loss_sum / masked as f64, right as f64 / masked as f64))
}

fn summary(line: &PretrainingMetrics, recipe: &PretrainingRecipe) -> String {
    let rate = line.tokens as f64 / line.seconds;
    let left = (recipe.num_train_steps - line.step) as f64 * line.seconds / line.step as f64;
    format!(
        "step {}/{}: {:.1} M tokens, {rate:.0}/s, {} left, loss {:.4}, held out {:.4}, \
         accuracy {:.4}",
        line.step,
        recipe.num_train_steps,
        line.tokens as f64 / 1e6,
        duration(left),
        line.train_loss,
        line.held_out_loss,
        line.held_out_accuracy
    )
}

/// Writes `metrics.jsonl`, whole or not at all.
fn write_metrics(folder: &Path, metrics: &[PretrainingMetrics]) -> Result<(), TrainingError> {
    let mut text = String::new();
    for line in metrics {
        text += &serde_json::to_string(line).expect("a measurement is representable in JSON");
        text.push('\n');
    }
    Ok(write_durably(&folder.join("metrics.jsonl"), text)?)
}
