use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor, TensorReadError};
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents,
    TrainingItem, ValidLoader,
};
use nsmc_data::{Batch, ReviewLoader};
use nsmc_eval::{ConfusionMatrix, class_of, duration};
use nsmc_experiment::{EpochRecord, sync_entries, sync_folder, write_durably};
use nsmc_peft::PeftModel;
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoints, make_durably, record, remove};
use crate::fit::{Finished, Fit};
use crate::fit_state::{EpochProgress, FitState};
use crate::saved_models::{INCOMING, SavedModels};
use crate::writer::Writer;
use crate::{
    ClassificationTask, LinearSchedule, Replicas, Step, StepOutput, TrainingError,
    among_the_threads,
};

/// A line for each epoch.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Writes a model, with all that is needed to use it, into a folder.
pub(crate) type Save = Box<dyn Fn(&PeftModel, &std::path::Path) -> Result<(), TrainingError>>;

/// The learning strategy of transformers' `Trainer`, on one device or, batch by batch, on several.
///
/// burn's own differs in five ways that a reproduction cannot bear: its loader's order depends on how
/// often it was iterated, dropout on all random numbers drawn before, clipping is per tensor, no
/// time is taken, and it goes on from epochs, not from steps. The learner's optimiser cannot be
/// looked into, so that model and optimiser are held here.
pub(crate) struct RecipeStrategy {
    /// What it was asked for; a validation split in it has reviews.
    pub(crate) fit: Fit,
    /// `fit.device`, recording gradients.
    pub(crate) device: Device,
    /// What the dashboard asks to stop.
    pub(crate) dashboard_interrupter: Interrupter,
    pub(crate) checkpoints: Checkpoints,
    /// Makes the optimiser as it is before the first step.
    pub(crate) optimizer: Box<dyn Fn() -> ModuleOptimizer>,
    pub(crate) schedule: LinearSchedule,
    pub(crate) save: Save,
    pub(crate) outcome: Arc<Mutex<Outcome>>,
}

/// What a training leaves beside the model.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) best_epoch: Option<usize>,
    pub(crate) error: Option<TrainingError>,
}

/// The seed of one step's dropout: a pure function of the run's seed and the step (from 0), so that
/// a step draws the same numbers whether or not the process was started anew before it.
pub fn step_seed(seed: u64, step: usize) -> u64 {
    let digest = Sha256::new()
        .chain_update("dropout")
        .chain_update(seed.to_le_bytes())
        .chain_update((step as u64).to_le_bytes())
        .finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// What is trained, with its optimiser and where it stands.
struct Training {
    /// None within a step.
    task: Option<ClassificationTask>,
    replicas: Replicas,
    optimizer: ModuleOptimizer,
    state: FitState,
    /// Steps that this process has done.
    own_steps: usize,
    writer: Writer,
    /// What the writer has put into `checkpoint/`, or is about to.
    kept: Arc<Mutex<SavedModels>>,
}

impl Training {
    fn task(&self) -> &ClassificationTask {
        self.task.as_ref().expect("a step gives it back")
    }
}

/// A step whose loss has not been read yet: reading it one step late does not hold up the device.
struct Pending {
    step: Step,
    losses: Tensor<1>,
    grad_norm: Tensor<1>,
    reviews: Vec<usize>,
}

/// A copy of all it takes to go on from a step.
struct Snapshot {
    checkpoints: Checkpoints,
    weights: ModuleRecord,
    optimizer: OptimizerRecord,
    step: usize,
    state: FitState,
}

impl Snapshot {
    /// Writes it, with what `checkpoint/` holds by then.
    fn save(mut self, kept: SavedModels) -> Result<(), TrainingError> {
        self.state.kept = kept;
        self.checkpoints.save(self.weights, self.optimizer, self.step, &self.state)
    }
}

/// What is written down with the model of an epoch.
enum AfterEpoch {
    /// It was the last: what the training found.
    Done(FitState),
    /// Another follows: what it takes to go on.
    GoesOn(Box<Snapshot>),
}

/// burn's side of a training: who is told of it, and who may stop it.
struct Observers<'a> {
    processor: &'a mut SupervisedTrainingEventProcessor<ClassificationTask>,
    interrupter: &'a Interrupter,
    dashboard_interrupter: &'a Interrupter,
}

impl Observers<'_> {
    fn train(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.processor.process_train(event));
    }

    fn validate(&mut self, event: LearnerEvent<StepOutput>) {
        self.interrupter.fail_on_error(self.processor.process_valid(event));
    }

    /// Whether someone asked the training to stop.
    fn should_stop(&self) -> bool {
        if self.dashboard_interrupter.should_stop() {
            self.interrupter.stop(Some("the dashboard asked the training to stop"));
        }
        self.interrupter.should_stop()
    }
}

impl SupervisedLearningStrategy<ClassificationTask> for RecipeStrategy {
    fn fit(
        &self,
        components: TrainingComponents<ClassificationTask>,
        mut learner: Learner<ClassificationTask>,
        _: TrainLoader<ClassificationTask>,
        _: ValidLoader<ClassificationTask>,
        starting_epoch: usize,
    ) -> (ClassificationTask, SupervisedTrainingEventProcessor<ClassificationTask>) {
        let TrainingComponents { interrupter, mut event_processor, .. } = components;
        learner.fork(&self.device);
        let task = learner.model();
        // It would hold the weights that the training began with as long as that takes.
        drop(learner);
        let mut training = Training {
            task: Some(task),
            replicas: Replicas::default(),
            optimizer: (self.optimizer)(),
            state: FitState::default(),
            own_steps: 0,
            writer: Writer::default(),
            kept: Arc::default(),
        };
        let mut observers = Observers {
            processor: &mut event_processor,
            interrupter: &interrupter,
            dashboard_interrupter: &self.dashboard_interrupter,
        };
        let result = self.epochs(starting_epoch, &mut training, &mut observers);
        let mut outcome = locked(&self.outcome);
        if let Err(error) = result {
            outcome.error = Some(error);
            interrupter.stop(None);
        }
        outcome.epochs = training.state.epochs;
        outcome.best_epoch = training.state.best_epoch;
        (training.task.expect("a step gives it back"), event_processor)
    }
}

impl RecipeStrategy {
    /// Trains the epochs that are left, until somebody asks to stop, and waits for what is written.
    fn epochs(
        &self,
        starting_epoch: usize,
        training: &mut Training,
        observers: &mut Observers<'_>,
    ) -> Result<(), TrainingError> {
        self.resume(training)?;
        training.replicas = Replicas::new(training.task(), &self.fit.further_devices);
        let first = starting_epoch + training.state.epochs.len();
        if first > starting_epoch {
            // burn has told those who show progress that the first epoch begins.
            observers.train(LearnerEvent::EndEpoch(first - 1));
        }
        for epoch in first..=self.fit.config.num_train_epochs {
            if !self.epoch(epoch, training, observers)? {
                break;
            }
        }
        training.writer.finish()
    }

    /// Goes on from the last checkpoint, if there is one.
    fn resume(&self, training: &mut Training) -> Result<(), TrainingError> {
        let folder = self.fit.folder.join("checkpoint");
        let usable = |state: &FitState| {
            let usable = state.kept.best_is_there(&folder)?;
            if !usable {
                let folder = folder.join("best");
                tracing::warn!(folder = %folder.display(), "damaged or missing");
            }
            Ok(usable)
        };
        let Some(loaded) = self.checkpoints.load(&self.optimizer, usable)? else {
            return Ok(());
        };
        let model = training.task().model.clone();
        let (found, expected) = (loaded.weights.len(), model.trainable_paths().len());
        if found != expected {
            // burn would leave what is not in it as it was drawn.
            let path = self.fit.folder.clone();
            return Err(TrainingError::ParameterCount { path, expected, found });
        }
        // The frozen base is not in it.
        let model = model.try_load_record(loaded.weights.allow_partial(true));
        let model = model.map_err(|error| record(&self.fit.folder, &error))?;
        training.task = Some(ClassificationTask { model });
        training.optimizer = loaded.optimizer;
        training.state = loaded.state;
        *locked(&training.kept) = training.state.kept.clone();
        let FitState { epochs, progress, .. } = &training.state;
        let (epoch, steps) = (epochs.len() + 1, self.fit.train.num_batches());
        tracing::info!(epoch, step = progress.index, "gone on from a checkpoint");
        let place = match progress.index {
            index if index == steps => "after its last step".to_owned(),
            index => format!("step {} of {steps}", index + 1),
        };
        self.fit.dashboard.say(&format!("resumed: epoch {epoch}, {place}"));
        Ok(())
    }

    fn snapshot(&self, training: &Training) -> Snapshot {
        let model = &training.task().model;
        let state = training.state.clone();
        Snapshot {
            checkpoints: self.checkpoints.clone(),
            weights: model.clone().into_record_group(model.trainable()),
            optimizer: training.optimizer.to_record(),
            step: state.epochs.len() * self.fit.train.num_batches() + state.progress.index,
            state,
        }
    }

    /// Begins to write what it takes to go on from here.
    fn checkpoint(&self, training: &mut Training) -> Result<(), TrainingError> {
        // Before the copies are made: there are those of one checkpoint at a time.
        training.writer.finish()?;
        let (snapshot, kept) = (self.snapshot(training), training.kept.clone());
        training.writer.begin(move || snapshot.save(locked(&kept).clone()))
    }

    /// Trains what is left of an epoch, from 1, validates and saves it. False if it was interrupted,
    /// after a checkpoint.
    fn epoch(
        &self,
        epoch: usize,
        training: &mut Training,
        observers: &mut Observers<'_>,
    ) -> Result<bool, TrainingError> {
        let epochs = self.fit.config.num_train_epochs;
        let start = |total_items| LearnerEvent::StartSplit { epoch_number: epoch, total_items };
        observers.train(start(self.fit.train.num_items()));
        let Some(mut record) = self.train_epoch(epoch, training, observers)? else {
            return Ok(false);
        };
        observers.train(LearnerEvent::EndSplit(epoch));

        if let Some(validation) = &self.fit.validation {
            observers.validate(start(validation.num_items()));
            let Some((loss, accuracy)) = self.validate(validation, training.task(), observers)?
            else {
                // Without a step since, the one that was gone on from says the same.
                if training.own_steps > 0 {
                    self.checkpoint(training)?;
                }
                return Ok(false);
            };
            record.validation_loss = Some(loss);
            record.validation_accuracy = Some(accuracy);
            observers.validate(LearnerEvent::EndSplit(epoch));
        }
        observers.train(LearnerEvent::EndEpoch(epoch));
        tracing::info!(
            epoch,
            seconds = record.train_seconds,
            loss = record.train_loss,
            validation_loss = record.validation_loss,
            validation_accuracy = record.validation_accuracy,
            "epoch done"
        );
        self.fit.dashboard.say(&summary(&record, epochs));
        self.keep(record, training, epoch == epochs)?;
        Ok(!observers.should_stop())
    }

    /// Trains what is left of an epoch, from 1. None if it was interrupted, after a checkpoint.
    fn train_epoch(
        &self,
        epoch: usize,
        training: &mut Training,
        observers: &mut Observers<'_>,
    ) -> Result<Option<EpochRecord>, TrainingError> {
        let loader = self.fit.train.on(&self.device);
        let (steps, save_steps) = (loader.num_batches(), self.fit.config.save_steps);
        let mut batches = loader.batches(epoch - 1, training.state.progress.index);
        let mut pending: Option<Pending> = None;
        self.sync()?;
        training.state.progress.clock.start();
        while training.state.progress.index < steps {
            // Without one, the epoch would be a shorter one, and its record say that it was not.
            let batch = batches.next().expect("there are as many batches as there are steps")?;
            let step = (epoch - 1) * steps + training.state.progress.index;
            let (item, stepped) = self.step(training, batch, step);
            let learning_rate = stepped.step.learning_rate;
            training.writer.check()?;
            training.own_steps += 1;
            let is_first = training.own_steps == 1;
            let progress = &mut training.state.progress;
            progress.index += 1;
            if let Some(previous) = pending.replace(stepped) {
                progress.loss_sum += self.read(previous)?;
            }
            if is_first {
                self.sync()?;
                progress.clock.first_step();
            } else {
                progress.clock.step();
            }
            let (done, rate) = (Some(progress.index), Some(learning_rate.into()));
            let item = TrainingItem::new(item, batches.progress(), done, rate);
            observers.train(LearnerEvent::ProcessedItem(item));

            let stop = observers.should_stop();
            let due = save_steps > 0 && (step + 1).is_multiple_of(save_steps);
            if stop || (due && progress.index < steps) {
                self.pause(progress, pending.take())?;
                self.checkpoint(training)?;
                training.state.progress.clock.start();
            }
            if stop {
                return Ok(None);
            }
        }
        let progress = &mut training.state.progress;
        self.pause(progress, pending)?;
        Ok(Some(EpochRecord {
            epoch,
            steps,
            train_seconds: progress.clock.seconds(steps),
            tokens: loader.num_tokens(),
            train_loss: progress.loss_sum / loader.num_items() as f64,
            validation_loss: None,
            validation_accuracy: None,
        }))
    }

    /// Reads the loss of the last step, waits for the device and stops the clock: the progress is then
    /// that of the steps that are done.
    fn pause(
        &self,
        progress: &mut EpochProgress,
        pending: Option<Pending>,
    ) -> Result<(), TrainingError> {
        if let Some(last) = pending {
            progress.loss_sum += self.read(last)?;
        }
        self.sync()?;
        progress.clock.stop();
        Ok(())
    }

    /// The sum of a step's losses, if they and the gradient are still numbers.
    fn read(&self, pending: Pending) -> Result<f64, TrainingError> {
        let losses = pending.losses.sum().try_into_scalar::<f32>()?;
        let grad_norm = pending.grad_norm.try_into_scalar::<f32>()?;
        if losses.is_finite() && grad_norm.is_finite() {
            return Ok(f64::from(losses));
        }
        let (steps, step) = (self.fit.train.num_batches(), pending.step);
        Err(TrainingError::Diverged {
            step: step.index + 1,
            steps: steps * self.fit.config.num_train_epochs,
            epoch: step.index / steps + 1,
            loss: losses / pending.reviews.len() as f32,
            grad_norm,
            learning_rate: step.learning_rate,
            reviews: self.fit.train.ids(&pending.reviews),
        })
    }

    /// The optimiser step `index` of the training, from 0, with its loss still on the device.
    fn step(&self, training: &mut Training, batch: Batch, index: usize) -> (StepOutput, Pending) {
        let max_grad_norm = self.fit.config.max_grad_norm;
        let step = Step { index, learning_rate: self.schedule.at(index), max_grad_norm };
        self.device.seed(step_seed(self.fit.seed, index));
        let task = training.task.take().expect("a step gives it back");
        let reviews = batch.reviews.clone();
        let (task, item, grad_norm) =
            task.optimize(&mut training.replicas, &mut training.optimizer, batch, step);
        training.task = Some(task);
        let losses = item.losses.clone().inner();
        (item, Pending { step, losses, grad_norm, reviews })
    }

    /// Mean loss and accuracy over the validation split, with dropout off. None if it was interrupted.
    fn validate(
        &self,
        loader: &ReviewLoader,
        task: &ClassificationTask,
        observers: &mut Observers<'_>,
    ) -> Result<Option<(f64, f64)>, TrainingError> {
        let model = task.valid();
        let loader = loader.on(&self.device.clone().inner());
        let mut batches = loader.batches(0, 0);
        let mut loss_sum = 0.0;
        let mut pairs = Vec::with_capacity(loader.num_items());
        let mut iteration = 0;
        while let Some(batch) = batches.next().transpose()? {
            if observers.should_stop() {
                return Ok(None);
            }
            iteration += 1;
            let model = model.clone();
            let output =
                among_the_threads(&self.device, move || InferenceStep::step(&model, batch));
            loss_sum += f64::from(output.losses.clone().sum().try_into_scalar::<f32>()?);
            let labels = output.labels.clone().try_into_vec_as::<i64>()?;
            let logits = output.logits.clone().try_into_vec_as::<f32>()?;
            let classes = logits.chunks(self.fit.num_labels).map(class_of);
            pairs.extend(labels.into_iter().map(|label| label as usize).zip(classes));
            let item = TrainingItem::new(output, batches.progress(), Some(iteration), None);
            observers.validate(LearnerEvent::ProcessedItem(item));
        }
        let reviews = pairs.len() as f64;
        let accuracy = ConfusionMatrix::new(self.fit.num_labels, pairs).accuracy();
        Ok(Some((loss_sum / reviews, accuracy)))
    }

    /// Keeps a finished epoch: the checkpoints it makes last and best, its line of `metrics.jsonl`,
    /// and what it takes to go on from there or, after the last, to know that there is no more to do.
    fn keep(
        &self,
        record: EpochRecord,
        training: &mut Training,
        is_last: bool,
    ) -> Result<(), TrainingError> {
        training.writer.finish()?;
        let checkpoints = self.fit.folder.join("checkpoint");
        let incoming = checkpoints.join(INCOMING);
        make_durably(&checkpoints)?;
        remove(&incoming)?;
        // The model is read from the device here: what goes to the writer is on the host.
        (self.save)(&training.task().valid().model, &incoming)?;

        let is_best = training.state.finish_epoch(record);
        let lines = metrics(&training.state.epochs);
        let after = if is_last {
            AfterEpoch::Done(training.state.clone())
        } else {
            AfterEpoch::GoesOn(Box::new(self.snapshot(training)))
        };
        let (kept, folder) = (training.kept.clone(), self.fit.folder.clone());
        let (identity, resume) = (self.fit.identity.clone(), self.checkpoints.clone());
        training.writer.begin(move || {
            let mut kept = locked(&kept);
            sync_folder(&incoming)?;
            sync_entries(&checkpoints)?;
            kept.announce(&checkpoints, is_best)?;
            match after {
                AfterEpoch::Done(FitState { epochs, best_epoch, .. }) => {
                    let kept = kept.clone();
                    Finished { identity, best_epoch, kept, epochs }.write(&folder)?;
                }
                AfterEpoch::GoesOn(snapshot) => snapshot.save(kept.clone())?,
            }
            kept.put(&checkpoints)?;
            // Written anew each time: a line of an epoch that is done again would stand there twice.
            write_durably(&folder.join(METRICS), lines)?;
            if is_last {
                resume.remove()?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), TrainingError> {
        Ok(self.device.sync().map_err(TensorReadError::from)?)
    }
}

/// What `metrics.jsonl` says of epochs.
pub(crate) fn metrics(epochs: &[EpochRecord]) -> String {
    let line = |epoch: &EpochRecord| {
        serde_json::to_string(epoch).expect("a record is representable in JSON") + "\n"
    };
    epochs.iter().map(line).collect()
}

/// An epoch in one line.
fn summary(record: &EpochRecord, epochs: usize) -> String {
    let mut line = format!(
        "epoch {}/{epochs}: {}, loss {:.4}",
        record.epoch,
        duration(record.train_seconds),
        record.train_loss
    );
    if let (Some(loss), Some(accuracy)) = (record.validation_loss, record.validation_accuracy) {
        line += &format!(", validation loss {loss:.4}, accuracy {accuracy:.4}");
    }
    line
}

fn locked<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().expect("no holder of the lock panics")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_of_every_seed_has_a_seed_of_its_own_which_stays_what_it_was() {
        let seeds = [0, 42, u64::MAX].map(|seed| (0..1000).map(move |step| step_seed(seed, step)));
        let seeds: BTreeSet<u64> = seeds.into_iter().flatten().collect();
        assert_eq!(seeds.len(), 3000);
        // The first 8 bytes of sha256("dropout", 42, 7), both numbers in 8 bytes, lowest first: with
        // another, no run that is stopped ends as it would have, and no recorded one comes back.
        assert_eq!(step_seed(42, 7), 0x1cf7_f6be_0864_24f0);
    }
}
