use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::DataLoader;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use nsmc_data::ReviewLoader;
use nsmc_experiment::{EpochRecord, TrainingConfig};
use nsmc_peft::PeftModel;

use crate::strategy::{Outcome, RecipeStrategy};
use crate::{AdamW, ClassificationTask, Dashboard, LinearSchedule, TrainingError, no_decay};

/// What is trained, on what, and how.
pub struct Fit {
    /// The recipe.
    pub config: TrainingConfig,
    /// Decides order and dropout.
    pub seed: u64,
    /// Trained on.
    pub train: ReviewLoader,
    /// Held out to choose by.
    pub validation: Option<ReviewLoader>,
    /// Number of classes.
    pub num_labels: usize,
    /// Where to compute. The model must have been made on its autodiff form.
    pub device: Device,
    /// The run directory.
    pub folder: PathBuf,
    /// What a person sees.
    pub dashboard: Dashboard,
    /// Stops the training between two steps.
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

/// Trains `model` and leaves its checkpoints in the run directory: `checkpoint/last` after each
/// epoch and, with a validation split, `checkpoint/best`. `save` writes one into a folder.
pub fn fit(
    model: PeftModel,
    fit: Fit,
    save: impl Fn(&PeftModel, &Path) -> Result<(), TrainingError> + 'static,
) -> Result<Fitted, TrainingError> {
    if fit.train.num_items() == 0 {
        return Err(TrainingError::NoReviews);
    }
    let config = &fit.config;
    let steps = fit.train.num_batches() * config.num_train_epochs;
    let adamw = AdamW::new(config);
    let mut optimizer = ModuleOptimizer::from(adamw);
    if config.weight_decay > 0.0 {
        optimizer = optimizer.with_group(no_decay(), adamw.without_decay(), None);
    }
    let schedule = LinearSchedule::new(config.learning_rate, config.warmup_ratio, steps);

    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let empty = fit.train.slice(0, 0);
    let strategy = RecipeStrategy {
        seed: fit.seed,
        max_grad_norm: config.max_grad_norm,
        device: fit.device.autodiff(),
        train: fit.train.clone(),
        validation: fit.validation.clone(),
        num_labels: fit.num_labels,
        dashboard: fit.dashboard,
        folder: fit.folder.clone(),
        save: Box::new(save),
        outcome: outcome.clone(),
    };
    #[expect(clippy::arc_with_non_send_sync, reason = "burn asks for an `Arc` and keeps it here")]
    let strategy = TrainingStrategy::Custom(Arc::new(strategy));
    let training = SupervisedTraining::new(
        fit.folder.join("metrics"),
        Arc::new(fit.train),
        fit.validation.map_or(empty, |loader| Arc::new(loader)),
    )
    .num_epochs(config.num_train_epochs)
    .with_application_logger(None)
    .with_interrupter(fit.interrupter.clone())
    .renderer(fit.dashboard.renderer(fit.interrupter))
    .metric_train_numeric(LossMetric::new())
    .metric_train_numeric(LearningRateMetric::new())
    .metric_valid_numeric(LossMetric::new())
    .metric_valid_numeric(AccuracyMetric::new())
    .with_training_strategy(strategy);
    let result = training.launch(Learner::new(ClassificationTask { model }, optimizer, schedule));

    let mut outcome = outcome.lock().expect("no holder of the lock panics");
    if let Some(error) = outcome.error.take() {
        return Err(error);
    }
    if let Some(error) = result.error {
        return Err(TrainingError::Burn(error));
    }
    if let Some(interruption) = result.interrupted {
        let reason = interruption.reason.unwrap_or_else(|| "stopped on request".into());
        return Err(TrainingError::Interrupted { reason });
    }
    Ok(Fitted { epochs: std::mem::take(&mut outcome.epochs), best_epoch: outcome.best_epoch })
}
