use burn::module::Param;
use burn::tensor::Tensor;
use nsmc_bert::BertForSequenceClassification;

use super::layers::column_norm;
use super::{Lora, LoraLinear, base_layers};

impl Lora {
    /// Adds the updates to the weights of `base`, which then gives the same without LoRA.
    pub fn merge(&self, mut base: BertForSequenceClassification) -> BertForSequenceClassification {
        for lora in &self.linear {
            if let Some(layer) = base_layers::linear(&mut base, lora.site()) {
                replace(&mut layer.weight, |weight| merged(lora, weight));
            }
        }
        for lora in &self.embeddings {
            let table = base_layers::embedding(&mut base, lora.site());
            replace(&mut table.weight, |weight| weight + lora.delta());
        }
        base
    }
}

fn merged(lora: &LoraLinear, weight: Tensor<2>) -> Tensor<2> {
    let updated = weight + lora.delta();
    match &lora.lora_magnitude_vector {
        Some(magnitude) => {
            let norm = column_norm(updated.clone());
            updated * (magnitude.val().inner().unsqueeze::<2>() / norm)
        }
        None => updated,
    }
}

/// Replaces a parameter's value and keeps its identity and whether it trains.
fn replace(param: &mut Param<Tensor<2>>, with: impl FnOnce(Tensor<2>) -> Tensor<2>) {
    *param = param.clone().map(|tensor| {
        let (tracked, autodiff) = (tensor.is_require_grad(), tensor.is_autodiff());
        let replaced = with(tensor.without_autodiff());
        if autodiff { Tensor::from_inner(replaced).set_require_grad(tracked) } else { replaced }
    });
}
