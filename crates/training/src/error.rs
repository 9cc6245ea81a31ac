use std::path::PathBuf;
use std::sync::Arc;

use burn::data::dataset::DatasetError;
use burn::tensor::TensorReadError;

/// Why a training did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The system gives no more threads.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] nsmc_bert::CheckpointError),
    /// An adapter's checkpoint cannot be read or written.
    #[error(transparent)]
    Peft(#[from] nsmc_peft::PeftError),
    /// There is nothing to train on.
    #[error("no reviews to train on: `data.train_size` leaves none beside the validation split")]
    NoReviews,
    /// There is nothing to pre-train on, or nothing to measure it by.
    #[error(
        "no reviews to pre-train on, or none held out to measure it by: `corpus.held_out_fraction` \
         leaves none for one of the two"
    )]
    NoCorpus,
    /// A CPU has no products in bfloat16 that would be faster.
    #[error("products in bf16 are for GPUs alone; on a CPU leave the key out, or \"float32\"")]
    NoBf16,
    /// The loss or the gradient is no longer a number.
    #[error(
        "training diverged at step {step} of {steps} (epoch {epoch}): loss {loss}, gradient norm \
         {grad_norm}, learning rate {learning_rate:e}, reviews {}; lower `training.learning_rate`, \
         raise the warm-up, or set `training.max_grad_norm`",
        reviews.join(", ")
    )]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The batch's mean loss.
        loss: f32,
        /// The gradient's norm before clipping.
        grad_norm: f32,
        /// The learning rate of the step.
        learning_rate: f64,
        /// The ids of the step's reviews.
        reviews: Vec<String>,
    },
    /// A checkpoint for resuming cannot be read or written.
    #[error("{path}: {message}", path = path.display())]
    Record {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Stopped on request.
    #[error("interrupted: {reason}")]
    Interrupted {
        /// Who asked.
        reason: String,
    },
    /// burn's training stopped with an error.
    #[error("{0}")]
    Burn(Arc<burn::train::TrainingError>),
    /// The device failed, or a value cannot be read from it.
    #[error("cannot read a result from the device")]
    Device(#[from] TensorReadError),
    /// A batch cannot be made.
    #[error("cannot make a batch")]
    Batch(#[from] DatasetError),
    /// The best model is asked for, but there is nothing to choose it by.
    #[error(
        "`training.selection = \"best\"` needs a validation split, and `data.validation_fraction` \
         leaves it no review"
    )]
    NoBest,
}
