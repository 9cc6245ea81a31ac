use std::path::PathBuf;
use std::sync::Arc;

use burn::data::dataset::DatasetError;
use burn::store::RecordError;
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
    /// A checkpoint to go on from cannot be read or written.
    #[error("{path}: {reason}", path = path.display())]
    Record {
        /// Its folder.
        path: PathBuf,
        /// What burn says of it. No `source`, which would be printed a second time.
        reason: RecordError,
    },
    /// A checkpoint to go on from has more or fewer weights than train.
    #[error(
        "{path}: expected {expected} parameters that train, found {found} in its checkpoint",
        path = path.display()
    )]
    ParameterCount {
        /// The run directory.
        path: PathBuf,
        /// Parameters of the model that train.
        expected: usize,
        /// Parameters in the checkpoint.
        found: usize,
    },
    /// What a training has left is of another one.
    #[error(
        "{path}: it is of a training with another configuration; give another directory with \
         `--out`",
        path = path.display()
    )]
    OtherTraining {
        /// The checkpoint's folder, or the file of the training that is done.
        path: PathBuf,
    },
    /// All checkpoints are from beyond the step where the learning rates of two lengths part.
    #[error(
        "{path}: it is after step {step} of a training of {steps_there} steps whose learning rate \
         falls from step {decay_start_there} on: one of {steps_here} steps, falling from step \
         {decay_start_here} on, cannot go on from it; give another directory with `--out`",
        path = path.display()
    )]
    TooFarOn {
        /// The folder of the newest of them.
        path: PathBuf,
        /// Steps done there.
        step: usize,
        /// Steps in all of the training that it is of.
        steps_there: usize,
        /// The step from which on that training's learning rate falls.
        decay_start_there: usize,
        /// Steps in all of the training that was asked for.
        steps_here: usize,
        /// The step from which on its learning rate falls.
        decay_start_here: usize,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_checkpoint_is_said_after_its_place() {
        let path = || PathBuf::from("run/resume");
        let reason = RecordError::Validation("no such tensor".into());
        let read = TrainingError::Record { path: path(), reason };
        assert!(std::error::Error::source(&read).is_none(), "it would be said twice");
        for (error, text) in [
            (read, "Record validation error: no such tensor"),
            (
                TrainingError::ParameterCount { path: path(), expected: 41, found: 2 },
                "expected 41 parameters that train, found 2 in its checkpoint",
            ),
            (
                TrainingError::OtherTraining { path: path() },
                "it is of a training with another configuration; give another directory with `--out`",
            ),
            (
                TrainingError::TooFarOn {
                    path: path(),
                    step: 38,
                    steps_there: 40,
                    decay_start_there: 30,
                    steps_here: 20,
                    decay_start_here: 10,
                },
                "it is after step 38 of a training of 40 steps whose learning rate falls from step 30 \
                 on: one of 20 steps, falling from step 10 on, cannot go on from it; give another \
                 directory with `--out`",
            ),
        ] {
            assert_eq!(error.to_string(), format!("run/resume: {text}"));
        }
    }
}
