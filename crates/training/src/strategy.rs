use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::module::Module;
use burn::optim::ModuleOptimizer;
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
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoints, make_durably, record, remove};
use crate::fit::Finished;
use crate::kept::{INCOMING, Kept};
use crate::writer::Writer;
use crate::{
    ClassificationTask, Dashboard, LinearSchedule, Replicas, StepOutput, TrainingError,
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
    pub(crate) seed: u64,
    pub(crate) max_grad_norm: f64,
    /// Records gradients.
    pub(crate) device: Device,
    /// Further devices, which compute shares of each batch.
    pub(crate) further_devices: Vec<Device>,
    pub(crate) train: ReviewLoader,
    pub(crate) validation: Option<ReviewLoader>,
    pub(crate) num_labels: usize,
    pub(crate) dashboard: Dashboard,
    /// What the dashboard asks to stop.
    pub(crate) dashboard_interrupter: Interrupter,
    /// The run directory.
    pub(crate) folder: PathBuf,
    /// Steps between two checkpoints to go on from; 0 makes them after epochs alone.
    pub(crate) save_steps: usize,
    pub(crate) checkpoints: Checkpoints,
    /// Says which training it is.
    pub(crate) identity: String,
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

/// Where a training stands after a step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// The epochs that are done.
    epochs: Vec<EpochRecord>,
    best_epoch: Option<usize>,
    /// Steps done of the epoch at hand.
    index: usize,
    /// Sum of the losses of its reviews.
    loss_sum: f64,
    /// Time of those of its steps that are timed.
    timed_seconds: f64,
    timed_steps: usize,
    /// Time of the others, each the first of a process; of those of older checkpoints, 0.
    #[serde(default)]
    untimed_seconds: f64,
    /// What is in `checkpoint/`.
    kept: Kept,
}

impl State {
    /// The time of an epoch's steps, as if each had taken as long as those that are timed; what they
    /// took, if none is.
    fn train_seconds(&self, steps: usize) -> f64 {
        match self.timed_steps {
            0 => self.untimed_seconds,
            timed => self.timed_seconds / timed as f64 * steps as f64,
        }
    }
}

/// What is trained, with its optimiser and where it stands.
struct Training {
    /// None within a step.
    task: Option<ClassificationTask>,
    replicas: Replicas,
    optimizer: ModuleOptimizer,
    state: State,
    /// Steps that this process has done.
    own_steps: usize,
    writer: Writer,
    /// What the writer has put into `checkpoint/`, or is about to.
    kept: Arc<Mutex<Kept>>,
}

impl Training {
    fn task(&self) -> &ClassificationTask {
        self.task.as_ref().expect("a step gives it back")
    }
}

/// A step whose loss has not been read yet: reading it one step late does not hold up the device.
struct Pending {
    step: usize,
    learning_rate: f64,
    losses: Tensor<1>,
    grad_norm: Tensor<1>,
    reviews: Vec<usize>,
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
        let TrainingComponents { num_epochs, interrupter, mut event_processor, .. } = components;
        learner.fork(&self.device);
        let task = learner.model();
        // It would hold the weights that the training began with as long as that takes.
        drop(learner);
        let mut training = Training {
            task: Some(task),
            replicas: Replicas::default(),
            optimizer: (self.optimizer)(),
            state: State::default(),
            own_steps: 0,
            writer: Writer::default(),
            kept: Arc::default(),
        };
        let mut result = self.resume(&mut training).map(|()| true);
        training.replicas = Replicas::new(training.task(), &self.further_devices);
        let first = starting_epoch + training.state.epochs.len();
        if first > starting_epoch {
            // burn has told those who show progress that the first epoch begins.
            let event = LearnerEvent::EndEpoch(first - 1);
            interrupter.fail_on_error(event_processor.process_train(event));
        }
        for epoch in first..=num_epochs {
            if !matches!(result, Ok(true)) {
                break;
            }
            result =
                self.epoch(epoch, num_epochs, &mut training, &mut event_processor, &interrupter);
        }
        let result = result.and_then(|_| training.writer.finish());
        let mut outcome = self.outcome();
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
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        locked(&self.outcome)
    }

    /// Goes on from the last checkpoint, if there is one.
    fn resume(&self, training: &mut Training) -> Result<(), TrainingError> {
        let folder = self.folder.join("checkpoint");
        let usable = |state: &State| {
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
            let message = format!(
                "expected {expected} parameters that train, found {found} in its checkpoint"
            );
            return Err(TrainingError::Record { path: self.folder.clone(), message });
        }
        // The frozen base is not in it.
        let model = model.try_load_record(loaded.weights.allow_partial(true));
        let model = model.map_err(|error| record(&self.folder, &error))?;
        training.task = Some(ClassificationTask { model });
        training.optimizer = loaded.optimizer;
        training.state = loaded.state;
        *locked(&training.kept) = training.state.kept.clone();
        let State { epochs, index, .. } = &training.state;
        let (epoch, steps) = (epochs.len() + 1, self.train.num_batches());
        tracing::info!(epoch, step = index, "gone on from a checkpoint");
        let place = match *index {
            index if index == steps => "after its last step".to_owned(),
            index => format!("step {} of {steps}", index + 1),
        };
        self.dashboard.say(&format!("resumed: epoch {epoch}, {place}"));
        Ok(())
    }

    /// Copies what it takes to go on from here; the answer writes it.
    fn snapshot(
        &self,
        training: &Training,
    ) -> impl FnOnce(Kept) -> Result<(), TrainingError> + Send + use<> {
        let model = &training.task().model;
        let weights = model.clone().into_record_group(model.trainable());
        let optimizer = training.optimizer.to_record();
        let mut state = training.state.clone();
        let step = state.epochs.len() * self.train.num_batches() + state.index;
        let checkpoints = self.checkpoints.clone();
        move |kept| {
            state.kept = kept;
            checkpoints.save(weights, optimizer, step, &state)
        }
    }

    /// Begins to write what it takes to go on from here.
    fn checkpoint(&self, training: &mut Training) -> Result<(), TrainingError> {
        // Before the copies are made: there are those of one checkpoint at a time.
        training.writer.finish()?;
        let (save, kept) = (self.snapshot(training), training.kept.clone());
        training.writer.begin(move || save(locked(&kept).clone()))
    }

    /// Trains what is left of an epoch, from 1, validates and saves it. False if it was interrupted,
    /// after a checkpoint.
    fn epoch(
        &self,
        epoch: usize,
        epochs: usize,
        training: &mut Training,
        processor: &mut SupervisedTrainingEventProcessor<ClassificationTask>,
        interrupter: &Interrupter,
    ) -> Result<bool, TrainingError> {
        let start = |total_items| LearnerEvent::StartSplit { epoch_number: epoch, total_items };
        interrupter.fail_on_error(processor.process_train(start(self.train.num_items())));
        let Some(mut record) = self.train_epoch(epoch, epochs, training, processor, interrupter)?
        else {
            return Ok(false);
        };
        interrupter.fail_on_error(processor.process_train(LearnerEvent::EndSplit(epoch)));

        if let Some(validation) = &self.validation {
            interrupter.fail_on_error(processor.process_valid(start(validation.num_items())));
            let Some((loss, accuracy)) =
                self.validate(validation, training.task(), processor, interrupter)?
            else {
                // Without a step since, the one that was gone on from says the same.
                if training.own_steps > 0 {
                    self.checkpoint(training)?;
                }
                return Ok(false);
            };
            record.validation_loss = Some(loss);
            record.validation_accuracy = Some(accuracy);
            interrupter.fail_on_error(processor.process_valid(LearnerEvent::EndSplit(epoch)));
        }
        interrupter.fail_on_error(processor.process_train(LearnerEvent::EndEpoch(epoch)));
        tracing::info!(
            epoch,
            seconds = record.train_seconds,
            loss = record.train_loss,
            validation_loss = record.validation_loss,
            validation_accuracy = record.validation_accuracy,
            "epoch done"
        );
        self.dashboard.say(&summary(&record, epochs));
        self.keep(record, training, epoch == epochs)?;
        Ok(!self.should_stop(interrupter))
    }

    /// Whether someone asked the training to stop.
    fn should_stop(&self, interrupter: &Interrupter) -> bool {
        if self.dashboard_interrupter.should_stop() {
            interrupter.stop(Some("the dashboard asked the training to stop"));
        }
        interrupter.should_stop()
    }

    fn train_epoch(
        &self,
        epoch: usize,
        epochs: usize,
        training: &mut Training,
        processor: &mut SupervisedTrainingEventProcessor<ClassificationTask>,
        interrupter: &Interrupter,
    ) -> Result<Option<EpochRecord>, TrainingError> {
        let loader = self.train.on(&self.device);
        let steps = self.train.num_batches();
        let mut iterator = loader.batches(epoch - 1, training.state.index);
        let mut pending: Option<Pending> = None;
        let read = |pending: Pending| -> Result<f64, TrainingError> {
            let losses = pending.losses.sum().try_into_scalar::<f32>()?;
            let grad_norm = pending.grad_norm.try_into_scalar::<f32>()?;
            if losses.is_finite() && grad_norm.is_finite() {
                return Ok(f64::from(losses));
            }
            Err(TrainingError::Diverged {
                step: pending.step + 1,
                steps: steps * epochs,
                epoch,
                loss: losses / pending.reviews.len() as f32,
                grad_norm,
                learning_rate: pending.learning_rate,
                reviews: self.train.ids(&pending.reviews),
            })
        };

        self.sync()?;
        let mut started = Instant::now();
        while training.state.index < steps {
            // Without one, the epoch would be a shorter one, and its record say that it was not.
            let batch = iterator.next().expect("there are as many batches as there are steps")?;
            let step = (epoch - 1) * steps + training.state.index;
            let learning_rate = self.schedule.at(step);
            let reviews = batch.reviews.clone();
            let (item, grad_norm) = self.step(training, batch, step, learning_rate);
            training.writer.check()?;
            training.state.index += 1;
            training.own_steps += 1;

            let previous = pending.replace(Pending {
                step,
                learning_rate,
                losses: item.losses.clone().inner(),
                grad_norm,
                reviews,
            });
            if let Some(previous) = previous {
                training.state.loss_sum += read(previous)?;
            }
            if training.own_steps == 1 {
                // The first step of a process compiles and tunes kernels.
                self.sync()?;
                training.state.untimed_seconds += started.elapsed().as_secs_f64();
                started = Instant::now();
            } else {
                training.state.timed_steps += 1;
            }
            let item = TrainingItem::new(
                item,
                iterator.progress(),
                Some(training.state.index),
                Some(learning_rate.into()),
            );
            interrupter.fail_on_error(processor.process_train(LearnerEvent::ProcessedItem(item)));

            let stop = self.should_stop(interrupter);
            let due = self.save_steps > 0 && (step + 1).is_multiple_of(self.save_steps);
            if stop || (due && training.state.index < steps) {
                if let Some(last) = pending.take() {
                    training.state.loss_sum += read(last)?;
                }
                self.sync()?;
                training.state.timed_seconds += started.elapsed().as_secs_f64();
                self.checkpoint(training)?;
                started = Instant::now();
            }
            if stop {
                return Ok(None);
            }
        }
        if let Some(last) = pending {
            training.state.loss_sum += read(last)?;
        }
        self.sync()?;
        let state = &mut training.state;
        state.timed_seconds += started.elapsed().as_secs_f64();
        Ok(Some(EpochRecord {
            epoch,
            steps,
            train_seconds: state.train_seconds(steps),
            tokens: self.train.num_tokens(),
            train_loss: state.loss_sum / self.train.num_items() as f64,
            validation_loss: None,
            validation_accuracy: None,
        }))
    }

    /// One optimiser step; also gives the gradient's norm before clipping.
    fn step(
        &self,
        training: &mut Training,
        batch: Batch,
        step: usize,
        learning_rate: f64,
    ) -> (StepOutput, Tensor<1>) {
        self.device.seed(step_seed(self.seed, step));
        let task = training.task.take().expect("a step gives it back");
        let (task, item, norm) = task.optimize(
            &mut training.replicas,
            &mut training.optimizer,
            batch,
            step,
            learning_rate,
            self.max_grad_norm,
        );
        training.task = Some(task);
        (item, norm)
    }

    /// Mean loss and accuracy over the validation split, with dropout off. None if it was interrupted.
    fn validate(
        &self,
        loader: &ReviewLoader,
        task: &ClassificationTask,
        processor: &mut SupervisedTrainingEventProcessor<ClassificationTask>,
        interrupter: &Interrupter,
    ) -> Result<Option<(f64, f64)>, TrainingError> {
        let model = task.valid();
        let loader = loader.to_device(&self.device.clone().inner());
        let mut iterator = loader.iter();
        let mut loss_sum = 0.0;
        let mut pairs = Vec::with_capacity(loader.num_items());
        let mut iteration = 0;
        while let Some(batch) = iterator.next().transpose()? {
            if self.should_stop(interrupter) {
                return Ok(None);
            }
            iteration += 1;
            let model = model.clone();
            let output =
                among_the_threads(&self.device, move || InferenceStep::step(&model, batch));
            loss_sum += f64::from(output.losses.clone().sum().try_into_scalar::<f32>()?);
            let labels = output.labels.clone().try_into_vec_as::<i64>()?;
            let logits = output.logits.clone().try_into_vec_as::<f32>()?;
            let classes = logits.chunks(self.num_labels).map(class_of);
            pairs.extend(labels.into_iter().map(|label| label as usize).zip(classes));
            let item = TrainingItem::new(output, iterator.progress(), Some(iteration), None);
            interrupter.fail_on_error(processor.process_valid(LearnerEvent::ProcessedItem(item)));
        }
        let reviews = pairs.len() as f64;
        let accuracy = ConfusionMatrix::new(self.num_labels, pairs).accuracy();
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
        let checkpoints = self.folder.join("checkpoint");
        let incoming = checkpoints.join(INCOMING);
        make_durably(&checkpoints)?;
        remove(&incoming)?;
        // The model is read from the device here: what goes to the writer is on the host.
        (self.save)(&training.task().valid().model, &incoming)?;

        let state = &mut training.state;
        let best = state.epochs.iter().filter_map(|epoch| epoch.validation_accuracy);
        let best = best.fold(f64::NEG_INFINITY, f64::max);
        let is_best = record.validation_accuracy.is_some_and(|accuracy| accuracy > best);
        if is_best {
            state.best_epoch = Some(record.epoch);
        }
        state.epochs.push(record);
        (state.index, state.loss_sum) = (0, 0.0);
        (state.timed_seconds, state.timed_steps, state.untimed_seconds) = (0.0, 0, 0.0);

        let lines = metrics(&state.epochs);
        let finished = is_last.then(|| Finished {
            identity: self.identity.clone(),
            best_epoch: state.best_epoch,
            kept: Kept::default(),
            epochs: state.epochs.clone(),
        });
        let save = (!is_last).then(|| self.snapshot(training));
        let (kept, folder) = (training.kept.clone(), self.folder.clone());
        let resume = self.checkpoints.clone();
        training.writer.begin(move || {
            let mut kept = locked(&kept);
            sync_folder(&incoming)?;
            sync_entries(&checkpoints)?;
            kept.announce(&checkpoints, is_best)?;
            match finished {
                Some(finished) => Finished { kept: kept.clone(), ..finished }.write(&folder)?,
                None => save.map_or(Ok(()), |save| save(kept.clone()))?,
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

    #[test]
    fn an_epochs_time_is_that_of_its_timed_steps_and_of_all_where_none_is_timed() {
        let mut state =
            State { timed_seconds: 8.0, timed_steps: 2, untimed_seconds: 5.0, ..State::default() };
        assert!((state.train_seconds(3) - 12.0).abs() < 1e-9);
        (state.timed_seconds, state.timed_steps) = (1e-6, 0);
        assert!((state.train_seconds(3) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_state_from_before_untimed_steps_had_a_time_is_read() {
        let state = State { index: 4, timed_steps: 3, timed_seconds: 1.5, ..State::default() };
        let text = toml::to_string(&state).unwrap();
        let older = text.replace("untimed_seconds = 0.0\n", "");
        assert_ne!(older, text);
        let read: State = toml::from_str(&older).unwrap();
        assert!(read.index == 4 && (read.train_seconds(2) - 1.0).abs() < 1e-9);
    }
}
