use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use nsmc_data::ReviewLoader;
use nsmc_experiment::{
    EpochRecord, Selection, TrainingConfig, read_sealed, seal, sync_entries, write_durably,
};
use nsmc_peft::PeftModel;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoints, FITTED, Schedule, remove};
use crate::saved_models::SavedModels;
use crate::strategy::{METRICS, Outcome, RecipeStrategy, metrics};
use crate::{AdamW, ClassificationTask, Dashboard, LinearSchedule, TrainingError};

/// What is trained, on what, and how.
pub struct Fit {
    /// The recipe.
    pub config: TrainingConfig,
    /// Decides order and dropout.
    pub seed: u64,
    /// The reviews that are trained on.
    pub train: ReviewLoader,
    /// The reviews that are held out to choose the best epoch by. A loader without a review counts as
    /// none.
    pub validation: Option<ReviewLoader>,
    /// Number of classes.
    pub num_labels: usize,
    /// Where to compute. The model must have been made on its autodiff form.
    pub device: Device,
    /// Further devices, each of which computes a share of every batch: see [`crate::Replicas`].
    pub further_devices: Vec<Device>,
    /// The run directory.
    pub folder: PathBuf,
    /// Names the training: one of another identity is refused its checkpoints
    /// ([`TrainingError::OtherTraining`]).
    pub identity: String,
    /// The run directory of the next stage, which trains on from this training's model. Where this
    /// training is not done yet, everything that the next stage has left there is removed: it was made
    /// on another model, for off the CPU no training gives the same one twice.
    pub next_stage: Option<PathBuf>,
    /// What a person sees.
    pub dashboard: Dashboard,
    /// Stops the training after the step or the batch of the validation split at hand, with a
    /// checkpoint to go on from.
    pub interrupter: Interrupter,
}

/// A finished training.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// One entry per epoch.
    pub epochs: Vec<EpochRecord>,
    /// The epoch with the highest validation accuracy, the earliest of equals, from 1; none without
    /// a validation split.
    pub best_epoch: Option<usize>,
}

/// `fitted.toml`: a finished training, which one it is, and what it has kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) identity: String,
    pub(crate) best_epoch: Option<usize>,
    pub(crate) kept: SavedModels,
    pub(crate) epochs: Vec<EpochRecord>,
}

impl Finished {
    pub(crate) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let text = toml::to_string(self).expect("a training is representable in TOML");
        write_durably(&folder.join(FITTED), seal(&text))
    }

    /// The training of an identity that is done in a folder; none, with a warning, if it is not
    /// whole.
    fn read(folder: &Path, identity: &str) -> Result<Option<Self>, TrainingError> {
        let path = folder.join(FITTED);
        if !path.is_file() {
            return Ok(None);
        }
        let text = read_sealed(&path)?;
        let Some(finished) = text.and_then(|text| toml::from_str::<Self>(&text).ok()) else {
            tracing::warn!(file = %path.display(), "damaged: what it says is found anew");
            return Ok(None);
        };
        if finished.identity != identity {
            return Err(TrainingError::OtherTraining { path });
        }
        let checkpoints = folder.join("checkpoint");
        if !finished.kept.all_are_there(&checkpoints)? {
            tracing::warn!(
                folder = %checkpoints.display(),
                "damaged or missing: its models are trained anew"
            );
            return Ok(None);
        }
        Ok(Some(finished))
    }
}

/// Removes what a training has on a model that will be another, and is done before that is trained.
fn forget(folder: &Path) -> std::io::Result<()> {
    let fitted = folder.join(FITTED);
    let models = ["resume", "checkpoint"].map(|name| folder.join(name));
    if !fitted.is_file() && models.iter().all(|folder| !folder.exists()) {
        return Ok(());
    }
    tracing::warn!(
        folder = %folder.display(),
        "the stage before is trained anew, and so is the one that was trained on its model"
    );
    if fitted.is_file() {
        fs_err::remove_file(&fitted)?;
    }
    models.iter().try_for_each(|folder| remove(folder))?;
    sync_entries(folder)
}

/// Trains `model` and leaves it in the run directory: the last epoch's in `checkpoint/last` and, with
/// a validation split, the best epoch's in `checkpoint/best`. `save` writes a model into a folder.
///
/// A training that was stopped goes on from its last checkpoint in `resume/` and ends like one that
/// was not stopped, on the CPU to the last bit. A training that is done is not done again.
///
/// # Errors
///
/// - [`TrainingError::NoReviews`] and [`TrainingError::NoBest`] before anything is written.
/// - [`TrainingError::Interrupted`] where somebody asked to stop: the checkpoint is written then.
/// - [`TrainingError::Diverged`] where a loss or a gradient is no longer a number.
/// - [`TrainingError::OtherTraining`] where the run directory is another training's, and
///   [`TrainingError::ParameterCount`] where its checkpoint has other weights than train.
/// - Whatever `save`, the files or the device say.
pub fn fit(
    model: PeftModel,
    mut fit: Fit,
    save: impl Fn(&PeftModel, &Path) -> Result<(), TrainingError> + 'static,
) -> Result<Fitted, TrainingError> {
    if fit.train.num_items() == 0 {
        return Err(TrainingError::NoReviews);
    }
    fit.validation = fit.validation.filter(|loader| loader.num_items() > 0);
    if fit.config.selection == Selection::Best && fit.validation.is_none() {
        return Err(TrainingError::NoBest);
    }
    if let Some(fitted) = done_before(&fit)? {
        return Ok(fitted);
    }
    if let Some(next) = &fit.next_stage {
        forget(next)?;
    }
    let config = &fit.config;
    let steps = fit.train.num_batches() * config.num_train_epochs;
    let (adamw, device) = (AdamW::new(config), fit.device.clone());
    let optimizer = move || adamw.for_module(&device);
    let schedule = LinearSchedule::new(config.learning_rate, config.warmup_ratio, steps);
    let learner = Learner::new(ClassificationTask { model }, optimizer(), schedule);

    // Its learning rate depends on the number of steps from the first on.
    let stages = Schedule { num_train_steps: steps, decay_start: 0 };
    let checkpoints = Checkpoints::new(fit.folder.join("resume"), fit.identity.clone(), stages);

    let outcome = Arc::new(Mutex::new(Outcome::default()));
    // One of its own: burn's dashboard forgets a stop and an error when a training ends, before anybody
    // has asked for them.
    let dashboard_interrupter = Interrupter::new();
    let training = supervised(&fit, dashboard_interrupter.clone());
    let strategy = RecipeStrategy {
        device: fit.device.clone().autodiff(),
        fit,
        dashboard_interrupter,
        checkpoints,
        optimizer: Box::new(optimizer),
        schedule,
        save: Box::new(save),
        outcome: outcome.clone(),
    };
    #[expect(clippy::arc_with_non_send_sync, reason = "burn asks for an `Arc` and keeps it here")]
    let strategy = TrainingStrategy::Custom(Arc::new(strategy));
    let result = training.with_training_strategy(strategy).launch(learner);

    let mut outcome = outcome.lock().expect("no holder of the lock panics");
    if let Some(error) = outcome.error.take() {
        return Err(error);
    }
    if let Some(error) = result.error {
        return Err(TrainingError::Burn(error));
    }
    if let Some(interruption) = result.interrupted {
        let reason = interruption.reason.unwrap_or_else(|| "stopped on request".into());
        let reason = format!("{reason}; the same command goes on from there");
        return Err(TrainingError::Interrupted { reason });
    }
    Ok(Fitted { epochs: std::mem::take(&mut outcome.epochs), best_epoch: outcome.best_epoch })
}

/// What the training found if it is done already, with what such a one leaves in order.
fn done_before(fit: &Fit) -> Result<Option<Fitted>, TrainingError> {
    let Some(finished) = Finished::read(&fit.folder, &fit.identity)? else { return Ok(None) };
    remove(&fit.folder.join("resume"))?;
    let (path, lines) = (fit.folder.join(METRICS), metrics(&finished.epochs));
    if fs_err::read(&path).unwrap_or_default() != lines.as_bytes() {
        write_durably(&path, lines)?;
    }
    Ok(Some(Fitted { epochs: finished.epochs, best_epoch: finished.best_epoch }))
}

/// burn's training, with all that is shown of it; its loaders only tell it how much there is to do.
fn supervised(
    fit: &Fit,
    dashboard_interrupter: Interrupter,
) -> SupervisedTraining<ClassificationTask> {
    let empty = fit.train.slice(0, 0);
    let validation = fit.validation.clone().map_or(empty, |loader| Arc::new(loader));
    SupervisedTraining::new(fit.folder.join("metrics"), Arc::new(fit.train.clone()), validation)
        .num_epochs(fit.config.num_train_epochs)
        .with_application_logger(None)
        // Deviation: burn's own writes files from threads that panic on a full disk.
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_interrupter(fit.interrupter.clone())
        .renderer(fit.dashboard.renderer(dashboard_interrupter))
        .metric_train_numeric(LossMetric::new())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_valid_numeric(AccuracyMetric::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_on_another_model_is_forgotten_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        forget(&path("not there")).unwrap();
        for name in ["resume/step-1", "checkpoint/best", "adapter"] {
            fs_err::create_dir_all(path(name)).unwrap();
        }
        for name in ["resume/step-1/state.toml", "checkpoint/best/peft.json", "adapter/fitted.toml"]
        {
            fs_err::write(path(name), "").unwrap();
        }
        for name in [FITTED, METRICS, "config.toml"] {
            fs_err::write(path(name), "").unwrap();
        }
        for _ in 0..2 {
            forget(folder.path()).unwrap();
            let entries = fs_err::read_dir(folder.path()).unwrap();
            let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["adapter", "config.toml", METRICS]);
            assert!(path("adapter/fitted.toml").is_file());
        }
    }
}
