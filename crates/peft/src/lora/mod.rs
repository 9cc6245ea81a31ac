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
    /// New updates for the targeted layers of `base`; at first they change nothing.
    pub(crate) fn new(
        config: &LoraConfig,
        base: &BertForSequenceClassification,
        bert: &BertConfig,
        init: &Init<'_>,
    ) -> Result<Self, PeftError> {
        let mut lora = Self { linear: Vec::new(), embeddings: Vec::new(), config: config.clone() };
        for target in config.layers(bert.num_hidden_layers)? {
            let init = init.enter(target.site.name());
            match target.site {
                LoraSite::Linear(site) => {
                    let linear = base_layers::linear(base, site)?;
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
