use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, ExecutionError, Int, Tensor};
use burn::train::metric::{AccuracyInput, Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use nsmc_data::Batch;
use nsmc_peft::PeftModel;

use crate::input::laid_out;
use crate::{Replicas, among_the_threads, clip_grad_norm, losses};

/// Review classification as burn-train's learner takes it.
#[derive(Module, Debug)]
pub struct ClassificationTask {
    /// The model that is trained.
    pub model: PeftModel,
}

/// One optimiser step of a training, but for its batch.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its index in the training, from 0.
    pub index: usize,
    /// What the schedule says of it.
    pub learning_rate: f64,
    /// The norm that the gradient is clipped to, as by [`clip_grad_norm`].
    pub max_grad_norm: f64,
}

/// What the forward pass over a batch leaves for metrics.
pub struct StepOutput {
    /// Cross-entropy of each review: `[batch_size]`.
    pub losses: Tensor<1>,
    /// Logits of each review: `[batch_size, num_labels]`.
    pub logits: Tensor<2>,
    /// Class index of each review: `[batch_size]`.
    pub labels: Tensor<1, Int>,
}

impl ClassificationTask {
    fn output(&self, batch: &Batch) -> StepOutput {
        let logits = self.model.forward(&laid_out(batch).0);
        let losses = losses(logits.clone(), batch.labels.clone());
        StepOutput { losses, logits, labels: batch.labels.clone() }
    }

    /// Does an optimiser step. Returns the updated task, what its forward pass leaves for metrics,
    /// and the gradient's norm before clipping, `[1]`.
    ///
    /// Where no other clone of the task is alive, its parameters are updated in place.
    ///
    /// Deviation: as a term of the loss, AdapterFusion's regulariser would be in the gradients of every
    /// step. Here it joins them from the second step on, as in adapters, whose `AdapterTrainer`
    /// computes it after a step, for the next one.
    pub fn optimize(
        self,
        replicas: &mut Replicas,
        optimizer: &mut ModuleOptimizer,
        batch: Batch,
        step: Step,
    ) -> (Self, StepOutput, Tensor<1>) {
        let mut update = |task: Self, output: TrainOutput<StepOutput>| {
            let gradients = match step.index {
                0 => output.grads,
                _ => task.model.add_regularizer_gradients(output.grads),
            };
            let (gradients, norm) = clip_grad_norm(&task, gradients, step.max_grad_norm);
            (optimizer.step(step.learning_rate, task, gradients), output.item, norm)
        };
        if replicas.is_empty() {
            let device = batch.labels.device();
            return among_the_threads(&device, move || {
                let output = TrainStep::step(&self, batch);
                update(self, output)
            });
        }
        let output = replicas.train_step(&self, &batch);
        let updated = update(self, output);
        replicas.follow(&updated.0);
        updated
    }

    /// The forward and backward pass of some of the `reviews` of a batch, whose losses are weighed as
    /// in its mean.
    pub(crate) fn share_step(&self, share: &Batch, reviews: usize) -> TrainOutput<StepOutput> {
        let output = self.output(share);
        let loss = output.losses.clone().sum() / reviews as f64;
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl StepOutput {
    /// What there is of it on another device, without what gradients would need.
    pub(crate) fn on(self, device: &Device) -> Self {
        let inner = device.clone().inner();
        Self {
            losses: Tensor::from_inner(self.losses.inner().to_device(&inner)),
            logits: Tensor::from_inner(self.logits.inner().to_device(&inner)),
            labels: self.labels.to_device(device),
        }
    }

    /// The outputs of a batch's shares as that of the batch.
    pub(crate) fn joined(shares: Vec<Self>) -> Self {
        let (mut losses, mut logits, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for share in shares {
            losses.push(share.losses);
            logits.push(share.logits);
            labels.push(share.labels);
        }
        Self {
            losses: Tensor::cat(losses, 0),
            logits: Tensor::cat(logits, 0),
            labels: Tensor::cat(labels, 0),
        }
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

#[cfg(test)]
mod tests {
    use burn::data::dataloader::batcher::Batcher;
    use burn::module::{ModuleMapper, Param};
    use burn::optim::SgdConfig;
    use burn::tensor::TensorData;
    use nsmc_bert::{BertConfig, BertForSequenceClassification, state_dict};
    use nsmc_data::{Example, ReviewBatcher};
    use nsmc_peft::{BottleneckConfig, Composition, FusionConfig, Trains};

    use super::*;

    /// Moves every parameter: a new value matrix is all but the identity, and a regulariser of it
    /// all but 0.
    struct Moved;

    impl ModuleMapper for Moved {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| {
                let trains = value.is_require_grad();
                (value + 0.25).detach().set_require_grad(trains)
            })
        }
    }

    fn fusion(device: &Device) -> ClassificationTask {
        let config = r#"{"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 4,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}"#;
        let config: BertConfig = serde_json::from_str(config).unwrap();
        let base = BertForSequenceClassification::new(&config, 0, device);
        let mut model = PeftModel::new(base, &config);
        for name in ["ko", "nsmc"] {
            model.add_adapter(name, &BottleneckConfig::pfeiffer(2.0), 0).unwrap();
        }
        let fuse = Composition::fuse(["ko", "nsmc"]);
        model.add_fusion(&fuse, FusionConfig::dynamic(), 0).unwrap();
        model.set_active(Some(fuse)).unwrap();
        let model = model.train_only(Trains::fusion("ko,nsmc"));
        ClassificationTask { model }.map(&mut Moved)
    }

    #[test]
    fn a_fusion_is_regularised_in_every_step_but_the_first() {
        let device = Device::flex().autodiff();
        let task = fusion(&device);
        let example = |review, input_ids: &[u32], label| Example {
            review,
            input_ids: input_ids.to_vec(),
            label,
        };
        let examples = vec![example(0, &[2, 5, 6, 3], 0), example(1, &[2, 7, 3], 1)];
        let batch = ReviewBatcher.batch(examples, &device);
        let floats = |data: &TensorData| data.try_to_vec::<f32>().unwrap();
        let before = state_dict(&task);
        // Without moments and clipping, at a learning rate of 1, a parameter loses its gradient.
        let after = |index| {
            let step = Step { index, learning_rate: 1.0, max_grad_norm: 0.0 };
            let (mut alone, mut sgd) = (Replicas::default(), SgdConfig::new().init());
            let batch = batch.clone();
            state_dict(&task.clone().optimize(&mut alone, &mut sgd, batch, step).0)
        };
        let (first, second) = (after(0), after(1));
        let mut regularised = 0;
        for (name, first) in &first {
            let apart = floats(first).into_iter().zip(floats(&second[name])).map(|(a, b)| a - b);
            if !name.ends_with("value.weight") || name.starts_with("model.base.") {
                assert!(apart.into_iter().all(|apart| apart == 0.0), "{name}");
                continue;
            }
            regularised += 1;
            let value = floats(&before[name]);
            assert_eq!(value.len(), 8 * 8);
            for (at, (apart, value)) in apart.zip(value).enumerate() {
                let identity = if at / 8 == at % 8 { 1.0 } else { 0.0 };
                let expected = 0.02 * (value - identity);
                assert!((apart - expected).abs() < 1e-6 && expected > 1e-3, "{name}: {apart}");
            }
        }
        assert_eq!(regularised, 2, "{:?}", first.keys());
    }
}
