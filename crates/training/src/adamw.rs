use burn::module::ParamGroup;
use burn::optim::{AdaptiveMomentumState, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};
use nsmc_experiment::{Optimizer as Flavour, TrainingConfig};
use nsmc_ops::{AdamWStep, Moments, adamw_step};

use crate::on_device::OnDevice;

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

    /// The optimiser of a training: as in transformers' `Trainer`, biases and LayerNorm do not decay. A
    /// state that is read from a record is put on `device`.
    pub fn for_module(self, device: &Device) -> ModuleOptimizer {
        let without_decay = Update(Self { weight_decay: 0.0, ..self });
        let without_decay = OnDevice::new(without_decay, device);
        self.for_all_parameters(device).with_group(no_decay(), without_decay, None)
    }

    /// `AdamW(model.parameters())`, in which everything decays: for comparisons with PyTorch's own.
    pub fn for_all_parameters(self, device: &Device) -> ModuleOptimizer {
        OnDevice::new(Update(self), device).for_all()
    }
}

/// The parameters that transformers' `Trainer` leaves without weight decay: biases and LayerNorm.
fn no_decay() -> ParamGroup {
    ParamGroup::from_any_regexes(vec![r"(^|\.)bias$", r"\.gamma$", r"\.beta$"])
        .expect("the patterns are valid")
}

/// One group's rule. It is no optimiser of a module by itself: where biases and LayerNorm are left out of
/// the decay is [`AdamW`]'s to say.
#[derive(Clone, Copy, Debug)]
struct Update(AdamW);

impl Optimizer for Update {
    type State<const D: usize> = AdaptiveMomentumState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let Self(adamw) = self;
        let (moments, step) = match state {
            Some(state) => {
                let moments = Moments { first: state.moment_1, second: state.moment_2 };
                (Some(moments), state.time + 1)
            }
            None => (None, 1),
        };
        let exponent = i32::try_from(step).expect("fewer than 2^31 steps");
        let correction1 = 1.0 - adamw.beta1.powi(exponent);
        let correction2 = (1.0 - adamw.beta2.powi(exponent)).sqrt();
        let (size, correction) = match adamw.flavour {
            Flavour::AdamwTorch => (lr / correction1, correction2),
            Flavour::AdamwHf => (lr * correction2 / correction1, 1.0),
        };
        let update = AdamWStep {
            beta1: adamw.beta1,
            beta2: adamw.beta2,
            epsilon: adamw.epsilon,
            size,
            correction,
            decay: lr * adamw.weight_decay,
            decay_last: adamw.flavour == Flavour::AdamwHf,
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

#[cfg(test)]
mod tests {
    use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
    use burn::optim::GradientsParams;
    use nsmc_bert::{BertConfig, BertForSequenceClassification};
    use nsmc_peft::{BottleneckConfig, PeftModel};

    use super::*;
    use crate::ClassificationTask;

    /// Sets every parameter to 1.
    struct Ones;

    impl ModuleMapper for Ones {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| {
                let trains = value.is_require_grad();
                value.ones_like().detach().set_require_grad(trains)
            })
        }
    }

    /// Gives every parameter a gradient of 0.
    #[derive(Default)]
    struct Zeros(GradientsParams);

    impl ModuleVisitor for Zeros {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val().inner().zeros_like());
        }
    }

    /// Each parameter's path, and what its elements are.
    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        found: Vec<(String, Vec<f32>)>,
    }

    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut values: Vec<f32> = param.val().into_data().try_to_vec().unwrap();
            values.dedup();
            self.found.push((self.path.join("."), values));
        }
    }

    #[test]
    fn all_but_biases_and_layer_norm_decay() {
        let device = Device::flex();
        let config = r#"{"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 4}"#;
        let config: BertConfig = serde_json::from_str(config).unwrap();
        let base = BertForSequenceClassification::new(&config, 0, &device.clone().autodiff());
        let mut model = PeftModel::new(base, &config);
        model.add_adapter("nsmc", &BottleneckConfig::pfeiffer(2.0), 0).unwrap();
        let task = ClassificationTask { model }.map(&mut Ones);
        for flavour in [Flavour::AdamwTorch, Flavour::AdamwHf] {
            let adamw =
                AdamW { flavour, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.5 };
            let mut zeros = Zeros::default();
            task.visit(&mut zeros);
            let mut values = Values::default();
            adamw.for_module(&device).step(0.1, task.clone(), zeros.0).visit(&mut values);
            let stays = |path: &str| {
                path.rsplit('.')
                    .next()
                    .is_some_and(|name| ["bias", "gamma", "beta"].contains(&name))
            };
            for (path, found) in &values.found {
                let expected = if stays(path) { 1.0 } else { 0.95 };
                assert_eq!(*found, [expected], "{path}");
            }
            let kept = values.found.iter().filter(|(path, _)| stays(path)).count();
            // Of 6 linear layers and 2 norms, embeddings' norm, pooler, classifier and adapter's two.
            assert_eq!(kept, 6 + 2 * 2 + 2 + 2 + 2, "{:?}", values.found);
        }
    }

    #[test]
    fn a_step_of_one_number_is_the_closed_form_of_its_flavour() {
        // Large enough that it shows where it stands, and what decays.
        let (p, g, lr, epsilon, decay) = (2.0, 3.0, 0.1, 0.5, 0.5);
        let step = |flavour| -> f64 {
            let adamw = AdamW { flavour, beta1: 0.9, beta2: 0.999, epsilon, weight_decay: decay };
            let number = |value: f64| Tensor::<1>::from_floats([value as f32], &Device::flex());
            let (stepped, _) = Update(adamw).step(lr, number(p), number(g), None);
            let stepped: f32 = stepped.into_scalar();
            f64::from(stepped)
        };
        // Corrected for their bias, the moments of the first step are g and g².
        let torch = p * (1.0 - lr * decay) - lr * g / (g + epsilon);
        let root = 0.001_f64.sqrt();
        let hf = (p - lr * root * g / (root * g + epsilon)) * (1.0 - lr * decay);
        for (flavour, expected) in [(Flavour::AdamwTorch, torch), (Flavour::AdamwHf, hf)] {
            let found = step(flavour);
            assert!((found - expected).abs() < 1e-6, "{flavour:?}: {found}, {expected}");
        }
    }
}
