//! Training: the burn-train learner with the recipe of transformers' `Trainer`.
//!
//! [`fit`] runs burn's `SupervisedTraining` with a learning strategy of its own, where the stock one
//! falls short of a reproduction: an order of reviews that depends on seed and epoch alone, dropout
//! that depends on seed and step alone, the gradient's global norm, and an exact time per epoch.
//! [`AdamW`] and [`LinearSchedule`] follow PyTorch and transformers to the last term.

mod adamw;
mod checkpoint;
mod clip;
mod error;
mod fit;
mod fit_state;
mod input;
mod loss;
mod memory;
mod on_device;
mod precision;
mod predict;
mod pretraining;
mod progress;
mod replicas;
mod saved_models;
mod schedule;
mod strategy;
mod task;
mod threads;
mod writer;

pub use adamw::AdamW;
pub use checkpoint::identities;
pub use clip::clip_grad_norm;
pub use error::TrainingError;
pub use fit::{Fit, Fitted, fit};
pub use loss::losses;
pub use memory::peak_memory_mib;
pub use nsmc_ops::{has_amx, is_cpu, set_amx};
pub use precision::set_precision;
pub use predict::{Predicted, predict};
pub use pretraining::{
    MaskedLanguageModel, Pretraining, PretrainingMetrics, check_length, pretrain,
    warmup_stable_decay,
};
pub use progress::{Dashboard, Progress};
pub use replicas::Replicas;
pub use schedule::LinearSchedule;
pub use strategy::step_seed;
pub use task::{ClassificationTask, Step, StepOutput};
pub use threads::among_the_threads;
