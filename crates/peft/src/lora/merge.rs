use burn::module::Param;
use burn::tensor::Tensor;
use nsmc_bert::BertForSequenceClassification;

use super::layers::column_norm;
use super::{Lora, LoraEmbedding, LoraLinear, base_layers};
use crate::PeftError;

impl Lora {
    /// Adds the updates to the weights of `base`, which then gives the same without LoRA.
    pub fn merge(&self, base: BertForSequenceClassification) -> BertForSequenceClassification {
        let linear = |lora: &LoraLinear, weight: Tensor<2>| match &lora.lora_magnitude_vector {
            Some(magnitude) => {
                let directed = weight.clone() + lora.delta();
                let norm = column_norm(directed.clone());
                directed * (magnitude.val().inner().unsqueeze::<2>() / norm)
            }
            None => weight + lora.delta(),
        };
        self.fold(base, linear, |lora, weight| weight + lora.delta())
    }

    /// Takes the updates off merged weights. DoRA cannot be taken off: the norm it divided by is
    /// gone.
    pub fn unmerge(
        &self,
        base: BertForSequenceClassification,
    ) -> Result<BertForSequenceClassification, PeftError> {
        if self.config.use_dora {
            return Err(PeftError::Value {
                key: "use_dora",
                message: "merged DoRA weights cannot be unmerged; load the base again".into(),
            });
        }
        let linear = |lora: &LoraLinear, weight| weight - lora.delta();
        Ok(self.fold(base, linear, |lora, weight| weight - lora.delta()))
    }

    /// Replaces the weights of the targeted layers of `base`.
    fn fold(
        &self,
        mut base: BertForSequenceClassification,
        linear: impl Fn(&LoraLinear, Tensor<2>) -> Tensor<2>,
        embedding: impl Fn(&LoraEmbedding, Tensor<2>) -> Tensor<2>,
    ) -> BertForSequenceClassification {
        for lora in &self.linear {
            if let Some(layer) = base_layers::linear_mut(&mut base, lora.site()) {
                replace(&mut layer.weight, |weight| linear(lora, weight));
            }
        }
        for lora in &self.embeddings {
            let table = base_layers::embedding_mut(&mut base, lora.site());
            replace(&mut table.weight, |weight| embedding(lora, weight));
        }
        base
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
