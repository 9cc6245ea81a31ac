use burn::module::Module;
use burn::tensor::{ExecutionError, Int, Tensor};
use burn::train::metric::{AccuracyInput, Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use nsmc_data::Batch;
use nsmc_peft::PeftModel;

use crate::{bert_input, losses};

/// Review classification as burn-train's learner takes it.
#[derive(Module, Debug)]
pub struct ClassificationTask {
    /// What is trained.
    pub model: PeftModel,
}

/// What a step leaves for metrics.
pub struct StepOutput {
    /// Cross-entropy of each review: `[batch_size]`.
    pub losses: Tensor<1>,
    /// `[batch_size, num_labels]`
    pub logits: Tensor<2>,
    /// `[batch_size]`
    pub labels: Tensor<1, Int>,
}

impl ClassificationTask {
    fn output(&self, batch: &Batch) -> StepOutput {
        let logits = self.model.forward(&bert_input(batch));
        let losses = losses(logits.clone(), batch.labels.clone());
        StepOutput { losses, logits, labels: batch.labels.clone() }
    }
}

impl TrainStep for ClassificationTask {
    type Input = Batch;
    type Output = StepOutput;

    /// One forward and backward pass; the loss is the mean over the reviews of the batch.
    fn step(&self, batch: Batch) -> TrainOutput<StepOutput> {
        let output = self.output(&batch);
        TrainOutput::new(self, output.losses.clone().mean().backward(), output)
    }
}

impl InferenceStep for ClassificationTask {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, batch: Batch) -> StepOutput {
        self.output(&batch)
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.losses.device().flush()?;
        Ok(Self {
            losses: self.losses.without_autodiff(),
            logits: self.logits.without_autodiff(),
            labels: self.labels.without_autodiff(),
        })
    }
}

// burn's `LossMetric` weighs a batch by the length of this tensor: one loss per review gives the
// mean over reviews, where the mean loss would give the mean over batches.
impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.losses.clone())
    }
}

impl Adaptor<AccuracyInput> for StepOutput {
    fn adapt(&self) -> AccuracyInput {
        AccuracyInput::new(self.logits.clone(), self.labels.clone())
    }
}
