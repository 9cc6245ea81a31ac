use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents,
    TrainingItem, ValidLoader,
};
use nsmc_data::{Batch, ReviewLoader};
use nsmc_eval::{ConfusionMatrix, minutes_and_seconds};
use nsmc_experiment::EpochRecord;
use nsmc_peft::PeftModel;
use sha2::{Digest, Sha256};

use crate::{ClassificationTask, Dashboard, StepOutput, TrainingError, clip_grad_norm};

/// Writes a model, with all that is needed to use it, into a folder.
pub(crate) type Save = Box<dyn Fn(&PeftModel, &std::path::Path) -> Result<(), TrainingError>>;

/// The learning strategy of transformers' `Trainer`, on one device.
///
/// burn's own differs in four ways that a reproduction cannot bear: its loader's order depends on how
/// often it was iterated, dropout on all random numbers drawn before, clipping is per tensor, and no
/// time is taken.
pub(crate) struct RecipeStrategy {
    pub(crate) seed: u64,
    pub(crate) max_grad_norm: f64,
    /// Records gradients.
    pub(crate) device: Device,
    pub(crate) train: ReviewLoader,
    pub(crate) validation: Option<ReviewLoader>,
    pub(crate) num_labels: usize,
    pub(crate) dashboard: Dashboard,
    /// The run directory.
    pub(crate) folder: PathBuf,
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

/// A step whose loss has not been read yet: reading it one step late does not hold up the device.
struct Pending {
    step: usize,
    learning_rate: f64,
    losses: Tensor<1>,
    grad_norm: Tensor<1>,
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
        for epoch in starting_epoch..=num_epochs {
            match self.epoch(epoch, num_epochs, &mut learner, &mut event_processor, &interrupter) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.outcome().error = Some(error);
                    interrupter.stop(None);
                    break;
                }
            }
        }
        (learner.model(), event_processor)
    }
}

impl RecipeStrategy {
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().expect("no holder of the lock panics")
    }

    /// Trains, validates and saves one epoch, from 1. False if it was interrupted.
    fn epoch(
        &self,
        epoch: usize,
        epochs: usize,
        learner: &mut Learner<ClassificationTask>,
        processor: &mut SupervisedTrainingEventProcessor<ClassificationTask>,
        interrupter: &Interrupter,
    ) -> Result<bool, TrainingError> {
        let start = |total_items| LearnerEvent::StartSplit { epoch_number: epoch, total_items };
        interrupter.fail_on_error(processor.process_train(start(self.train.num_items())));
        let Some(mut record) = self.train_epoch(epoch, epochs, learner, processor, interrupter)?
        else {
            return Ok(false);
        };
        interrupter.fail_on_error(processor.process_train(LearnerEvent::EndSplit(epoch)));

        if let Some(validation) = &self.validation {
            interrupter.fail_on_error(processor.process_valid(start(validation.num_items())));
            let (loss, accuracy) = self.validate(validation, learner, processor, interrupter)?;
            record.validation_loss = Some(loss);
            record.validation_accuracy = Some(accuracy);
            interrupter.fail_on_error(processor.process_valid(LearnerEvent::EndSplit(epoch)));
        }
        interrupter.fail_on_error(processor.process_train(LearnerEvent::EndEpoch(epoch)));
        self.keep(&record, &learner.model().valid().model)?;
        tracing::info!(
            epoch,
            seconds = record.train_seconds,
            loss = record.train_loss,
            validation_loss = record.validation_loss,
            validation_accuracy = record.validation_accuracy,
            "epoch done"
        );
        self.dashboard.say(&summary(&record, epochs));
        self.outcome().epochs.push(record);
        Ok(!interrupter.should_stop())
    }

    fn train_epoch(
        &self,
        epoch: usize,
        epochs: usize,
        learner: &mut Learner<ClassificationTask>,
        processor: &mut SupervisedTrainingEventProcessor<ClassificationTask>,
        interrupter: &Interrupter,
    ) -> Result<Option<EpochRecord>, TrainingError> {
        let loader = self.train.to_device(&self.device);
        let steps = self.train.num_batches();
        self.train.position().set(epoch - 1, 0);
        let mut iterator = loader.iter();
        let mut loss_sum = 0.0;
        let mut pending: Option<Pending> = None;
        let read = |pending: Pending| -> Result<f64, TrainingError> {
            let losses = host(pending.losses.sum())?;
            let grad_norm = host(pending.grad_norm)?;
            if losses.is_finite() && grad_norm.is_finite() {
                return Ok(f64::from(losses));
            }
            Err(TrainingError::Diverged {
                step: pending.step + 1,
                steps: steps * epochs,
                epoch,
                loss: losses,
                grad_norm,
                learning_rate: pending.learning_rate,
            })
        };

        self.sync()?;
        let mut started = Instant::now();
        let mut timed_steps = steps;
        for index in 0..steps {
            let Some(batch) = iterator.next() else { break };
            let batch: Batch = batch.map_err(|error| TrainingError::Device(error.to_string()))?;
            let step = (epoch - 1) * steps + index;
            self.device.seed(step_seed(self.seed, step));
            let output = learner.train_step(batch);
            let model = learner.model();
            // AdapterTrainer computes it after a step, so that it joins the next one's gradients.
            let gradients = match step {
                0 => output.grads,
                _ => model.model.add_regularizer_gradients(output.grads),
            };
            let (gradients, grad_norm) = clip_grad_norm(&model, gradients, self.max_grad_norm);
            learner.lr_step();
            learner.optimizer_step(gradients);

            let item: StepOutput = output.item;
            let previous = pending.replace(Pending {
                step,
                learning_rate: learner.lr_current().base(),
                losses: item.losses.clone().inner(),
                grad_norm,
            });
            if let Some(previous) = previous {
                loss_sum += read(previous)?;
            }
            if index == 0 && epoch == 1 && steps > 1 {
                // The first step compiles and tunes kernels.
                self.sync()?;
                started = Instant::now();
                timed_steps = steps - 1;
            }
            let item = TrainingItem::new(
                item,
                iterator.progress(),
                Some(index + 1),
                Some(learner.lr_current()),
            );
            interrupter.fail_on_error(processor.process_train(LearnerEvent::ProcessedItem(item)));
            if interrupter.should_stop() {
                return Ok(None);
            }
        }
        if let Some(last) = pending {
            loss_sum += read(last)?;
        }
        self.sync()?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Some(EpochRecord {
            epoch,
            steps,
            train_seconds: seconds / timed_steps as f64 * steps as f64,
            tokens: self.train.num_tokens(),
            train_loss: loss_sum / self.train.num_items() as f64,
            validation_loss: None,
            validation_accuracy: None,
        }))
    }

    /// Mean loss and accuracy over the validation split, with dropout off.
    fn validate(
        &self,
        loader: &ReviewLoader,
        learner: &Learner<ClassificationTask>,
        processor: &mut SupervisedTrainingEventProcessor<ClassificationTask>,
        interrupter: &Interrupter,
    ) -> Result<(f64, f64), TrainingError> {
        let model = learner.model().valid();
        let loader = loader.to_device(&self.device.clone().inner());
        let mut iterator = loader.iter();
        let mut loss_sum = 0.0;
        let mut pairs = Vec::with_capacity(loader.num_items());
        let mut iteration = 0;
        while let Some(batch) = iterator.next() {
            let batch: Batch = batch.map_err(|error| TrainingError::Device(error.to_string()))?;
            iteration += 1;
            let output = InferenceStep::step(&model, batch);
            loss_sum += f64::from(host(output.losses.clone().sum())?);
            let classes = output.logits.clone().argmax(1).flatten::<1>(0, 1);
            let indices = |tensor: Tensor<1, burn::tensor::Int>| {
                let data = tensor.try_into_data();
                data.map(|data| data.iter::<i64>().map(|class| class as usize).collect::<Vec<_>>())
                    .map_err(|error| TrainingError::Device(error.to_string()))
            };
            pairs.extend(indices(output.labels.clone())?.into_iter().zip(indices(classes)?));
            let item = TrainingItem::new(output, iterator.progress(), Some(iteration), None);
            interrupter.fail_on_error(processor.process_valid(LearnerEvent::ProcessedItem(item)));
        }
        let reviews = pairs.len() as f64;
        Ok((loss_sum / reviews, ConfusionMatrix::new(self.num_labels, pairs).accuracy()))
    }

    /// Writes the epoch's line of `metrics.jsonl` and the checkpoints it makes last and best.
    fn keep(&self, record: &EpochRecord, model: &PeftModel) -> Result<(), TrainingError> {
        let line = serde_json::to_string(record).expect("a record is representable in JSON");
        let mut metrics = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("metrics.jsonl"))?;
        writeln!(metrics, "{line}")?;

        let checkpoints = self.folder.join("checkpoint");
        let incoming = checkpoints.join("incoming");
        remove_if_there(&incoming)?;
        (self.save)(model, &incoming)?;
        let last = checkpoints.join("last");
        remove_if_there(&last)?;
        fs_err::rename(&incoming, &last)?;

        let mut outcome = self.outcome();
        let best = outcome.epochs.iter().filter_map(|epoch| epoch.validation_accuracy);
        let best = best.fold(f64::NEG_INFINITY, f64::max);
        if record.validation_accuracy.is_some_and(|accuracy| accuracy > best) {
            let folder = checkpoints.join("best");
            remove_if_there(&folder)?;
            fs_err::create_dir_all(&folder)?;
            for entry in fs_err::read_dir(&last)? {
                let file = entry?.path();
                let name = file.file_name().unwrap_or_default();
                // The files are never written to again: a second name takes no second copy.
                let target = folder.join(name);
                if std::fs::hard_link(&file, &target).is_err() {
                    fs_err::copy(&file, &target)?;
                }
            }
            outcome.best_epoch = Some(record.epoch);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), TrainingError> {
        self.device.sync().map_err(|error| TrainingError::Device(error.to_string()))
    }
}

/// An epoch in one line.
fn summary(record: &EpochRecord, epochs: usize) -> String {
    let mut line = format!(
        "epoch {}/{epochs}: {}, loss {:.4}",
        record.epoch,
        minutes_and_seconds(record.train_seconds),
        record.train_loss
    );
    if let (Some(loss), Some(accuracy)) = (record.validation_loss, record.validation_accuracy) {
        line += &format!(", validation loss {loss:.4}, accuracy {accuracy:.4}");
    }
    line
}

fn remove_if_there(folder: &std::path::Path) -> std::io::Result<()> {
    if folder.exists() { fs_err::remove_dir_all(folder) } else { Ok(()) }
}

/// The value of a tensor of one element.
fn host(tensor: Tensor<1>) -> Result<f32, TrainingError> {
    tensor.try_into_scalar::<f32>().map_err(|error| TrainingError::Device(error.to_string()))
}
