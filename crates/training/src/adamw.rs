use burn::module::ParamGroup;
use burn::optim::{AdaptiveMomentumState, Optimizer};
use burn::tensor::{Device, Tensor};
use nsmc_experiment::{Optimizer as Flavour, TrainingConfig};

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
        let (exp_avg, exp_avg_sq, step) = match state {
            Some(state) => (
                state.moment_1 * self.beta1 + grad.clone() * (1.0 - self.beta1),
                state.moment_2 * self.beta2 + grad.square() * (1.0 - self.beta2),
                state.time + 1,
            ),
            None => (grad.clone() * (1.0 - self.beta1), grad.square() * (1.0 - self.beta2), 1),
        };
        let exponent = i32::try_from(step).expect("fewer than 2^31 steps");
        let correction1 = 1.0 - self.beta1.powi(exponent);
        let correction2 = (1.0 - self.beta2.powi(exponent)).sqrt();
        let tensor = match self.flavour {
            Flavour::AdamwTorch => {
                let denominator = exp_avg_sq.clone().sqrt() / correction2 + self.epsilon;
                let update = exp_avg.clone() / denominator * (lr / correction1);
                decay(tensor, lr * self.weight_decay) - update
            }
            Flavour::AdamwHf => {
                let denominator = exp_avg_sq.clone().sqrt() + self.epsilon;
                let update = exp_avg.clone() / denominator * (lr * correction2 / correction1);
                decay(tensor - update, lr * self.weight_decay)
            }
        };
        let state = AdaptiveMomentumState {
            time: step,
            moment_1: exp_avg,
            moment_2: exp_avg_sq,
            max_moment_2: None,
        };
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.to_device(device)
    }
}

fn decay<const D: usize>(tensor: Tensor<D>, rate: f64) -> Tensor<D> {
    if rate == 0.0 { tensor } else { tensor * (1.0 - rate) }
}
