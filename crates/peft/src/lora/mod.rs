mod base_layers;
mod config;
mod layers;
mod merge;

pub use config::{LoraConfig, LoraLayer};
pub use layers::{LoraEmbedding, LoraLinear};

use burn::module::Module;
use nsmc_bert::{BertConfig, BertForSequenceClassification, EmbeddingSite, Init, LinearSite};

use crate::{LoraSite, PeftError};

/// LoRA (Hu et al., 2022): a trainable update of low rank beside frozen weights, computed as
/// `x · W + (x · A) · B · scaling`; only DoRA's norms need `A · B` itself.
#[derive(Module, Debug)]
pub struct Lora {
    /// The linear layers' updates.
    pub linear: Vec<LoraLinear>,
    /// The embedding tables' updates.
    pub embeddings: Vec<LoraEmbedding>,
    #[module(skip)]
    config: LoraConfig,
}

impl Lora {
    /// New updates for the targeted layers of `base`; at first they change nothing. `base` is not
    /// changed: DoRA reads its weights, which may be drawn by that.
    pub(crate) fn new(
        config: &LoraConfig,
        base: &mut BertForSequenceClassification,
        bert: &BertConfig,
        init: &Init<'_>,
    ) -> Result<Self, PeftError> {
        let mut lora = Self { linear: Vec::new(), embeddings: Vec::new(), config: config.clone() };
        for target in config.layers(bert.num_hidden_layers)? {
            let init = init.enter(target.site.name());
            match target.site {
                LoraSite::Linear(site) => {
                    let linear =
                        base_layers::linear(base, site).ok_or_else(|| PeftError::Value {
                            key: "target_modules",
                            message: "the model has no pooler".into(),
                        })?;
                    lora.linear.push(LoraLinear::new(config, target, site, linear, &init));
                }
                LoraSite::Embedding(site) => {
                    let table = base_layers::embedding(base, site);
                    lora.embeddings.push(LoraEmbedding::new(target, site, table, &init));
                }
            }
        }
        Ok(lora)
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    pub(crate) fn at(&self, site: LinearSite) -> Option<&LoraLinear> {
        self.linear.iter().find(|lora| lora.site() == site)
    }

    pub(crate) fn embedding_at(&self, site: EmbeddingSite) -> Option<&LoraEmbedding> {
        self.embeddings.iter().find(|lora| lora.site() == site)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use nsmc_bert::BertInput;

    use super::*;
    use crate::{PeftModel, TargetModules};

    fn base() -> PeftModel {
        let config: BertConfig = serde_json::from_str(
            r#"{"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 64, "max_position_embeddings": 16, "initializer_range": 0.1}"#,
        )
        .unwrap();
        let base = BertForSequenceClassification::new(&config, 3, &Device::flex());
        PeftModel::new(base, &config)
    }

    fn on(pattern: &str) -> LoraConfig {
        let target_modules = TargetModules::Regex(pattern.into());
        LoraConfig { target_modules, ..LoraConfig::new(64, 128.0, &[]) }
    }

    const EVERY_LINEAR: &str = ".*(query|key|value|dense|classifier)";

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn logits(model: &PeftModel) -> Vec<f32> {
        let ids = [vec![2, 7, 3], vec![2, 9, 9, 18, 4, 3]];
        values(model.forward(&BertInput::from_ids(&ids, &Device::flex())))
    }

    fn standard_deviation(values: &[f32]) -> f64 {
        let count = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let squares = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
        (squares / count).sqrt()
    }

    #[test]
    fn a_new_update_changes_nothing() {
        let base = base();
        let expected = logits(&base);
        for (config, updates) in [
            (on(EVERY_LINEAR), 2 * 6 + 2),
            (LoraConfig { use_dora: true, ..on(EVERY_LINEAR) }, 2 * 6 + 2),
            (on(".*_embeddings"), 3),
        ] {
            let mut model = base.clone();
            model.add_lora(&config, 7).unwrap();
            let lora = model.adapters.lora.as_ref().unwrap();
            assert_eq!(lora.linear.len() + lora.embeddings.len(), updates, "{config:?}");
            for (logit, expected) in logits(&model).into_iter().zip(&expected) {
                assert!((logit - expected).abs() <= 1e-6, "{logit}, {expected}: {config:?}");
            }
        }
    }

    #[test]
    fn a_new_update_is_drawn_as_peft_draws_it() {
        let mut model = base();
        model.add_lora(&on(&format!("{EVERY_LINEAR}|.*_embeddings")), 7).unwrap();
        let lora = model.adapters.lora.unwrap();
        assert_eq!((lora.linear.len(), lora.embeddings.len()), (2 * 6 + 2, 3));
        for update in lora.linear {
            let [width, rank] = update.lora_a.weight.val().dims();
            assert_eq!(rank, 64);
            let bound = 1.0 / (width as f64).sqrt();
            let a = values(update.lora_a.weight.val());
            let least = f64::from(a.iter().copied().fold(f32::INFINITY, f32::min));
            let most = f64::from(a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            // The bound itself is rounded to `f32`.
            let range = 0.95 * bound..=(1.0 + 1e-6) * bound;
            assert!(range.contains(&-least) && range.contains(&most), "{least} to {most}: {bound}");
            let even = bound / 3.0f64.sqrt();
            let deviation = standard_deviation(&a);
            assert!((deviation / even - 1.0).abs() < 0.1, "{deviation}, not {even}");
            assert!(values(update.lora_b.weight.val()).iter().all(|&value| value == 0.0));
        }
        for update in lora.embeddings {
            let a = values(update.lora_embedding_a.weight.val());
            assert!(a.iter().all(|&value| value == 0.0));
            let b = values(update.lora_embedding_b.weight.val());
            let deviation = standard_deviation(&b);
            assert!((deviation - 1.0).abs() < 0.1, "{deviation}");
        }
    }
}
