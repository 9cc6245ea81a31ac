use burn::module::ParamGroup;
use burn::optim::{AdaptiveMomentumState, Optimizer};
use burn::tensor::{Device, Tensor};
use nsmc_experiment::{Optimizer as Flavour, TrainingConfig};
use nsmc_ops::{AdamWStep, Moments, adamw_step};

/// AdamW in both flavours that BERT has been fine-tuned with.
///
/// With gradient `g`, step `t` from 1 and learning rate `η`, both keep
/// `m ← β₁ m + (1 - β₁) g` and `v ← β₂ v + (1 - β₂) g²`, and then:
///
/// - `torch.optim.AdamW`: `p ← p (1 - η λ) - η / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)`
/// - `transformers.AdamW`: `p ← p - η √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)`, then
///   `p ← p - η λ p`
///
/// They differ in where ε stands: in the first steps, transformers' is up to 30 times as large.
///
/// Deviation: burn's own AdamW has PyTorch's form, but computes the bias corrections in `f32`.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Which of the two.
    pub flavour: Flavour,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// λ, the decoupled weight decay.
    pub weight_decay: f64,
}

impl AdamW {
    /// The optimiser of a configuration, for the parameters that decay.
    pub fn new(config: &TrainingConfig) -> Self {
        Self {
            flavour: config.optimizer,
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            epsilon: config.adam_epsilon,
            weight_decay: config.weight_decay,
        }
    }

    /// The same without weight decay.
    #[must_use]
    pub fn without_decay(self) -> Self {
        Self { weight_decay: 0.0, ..self }
    }
}

/// The parameters that transformers' `Trainer` leaves without weight decay: biases and LayerNorm.
pub fn no_decay() -> ParamGroup {
    ParamGroup::from_regexes(vec![r"(^|\.)bias$", r"\.gamma$", r"\.beta$"])
        .expect("the patterns are valid")
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdaptiveMomentumState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (moments, step) = match state {
            Some(state) => {
                let moments = Moments { first: state.moment_1, second: state.moment_2 };
                (Some(moments), state.time + 1)
            }
            None => (None, 1),
        };
        let exponent = i32::try_from(step).expect("fewer than 2^31 steps");
        let correction1 = 1.0 - self.beta1.powi(exponent);
        let correction2 = (1.0 - self.beta2.powi(exponent)).sqrt();
        let (size, correction) = match self.flavour {
            Flavour::AdamwTorch => (lr / correction1, correction2),
            Flavour::AdamwHf => (lr * correction2 / correction1, 1.0),
        };
        let update = AdamWStep {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            size,
            correction,
            decay: lr * self.weight_decay,
            decay_last: self.flavour == Flavour::AdamwHf,
        };
        let (tensor, moments) = adamw_step(update, tensor, grad, moments);
        let state = AdaptiveMomentumState {
            time: step,
            moment_1: moments.first,
            moment_2: moments.second,
            max_moment_2: None,
        };
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.to_device(device)
    }
}
